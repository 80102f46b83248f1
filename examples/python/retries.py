"""Retries with a delay: a job that fails is rejected, waits in a queue without consumers until its time to live is over,
and comes back. Its `x-death` header counts the rounds; after three it is parked for somebody to look at."""

from broker import PERSISTENT, connect

JOBS = "example.python.jobs"
DELAY = "example.python.jobs.delay"
PARKED = "example.python.jobs.parked"
DELAY_MS = 100
TRIES_MAX = 3


def dead_letters_to(queue):
    """Arguments of a queue whose dead letters go to another queue, by way of the default exchange."""
    return {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": queue}


def rejections(properties):
    """How often a job was rejected from the queue of jobs, as the broker counted."""
    deaths = (properties.headers or {}).get("x-death", [])
    return next((death["count"] for death in deaths if death["queue"] == JOBS), 0)


connection = connect()
channel = connection.channel()
channel.queue_declare(JOBS, durable=True, arguments=dead_letters_to(DELAY))
waiting = dead_letters_to(JOBS) | {"x-message-ttl": DELAY_MS}
channel.queue_declare(DELAY, durable=True, arguments=waiting)
channel.queue_declare(PARKED, durable=True)
for job in ["works at the second try", "never works"]:
    channel.basic_publish("", JOBS, job.encode(), PERSISTENT)

left = 2
for method, properties, body in channel.consume(JOBS):
    job, tries = body.decode(), rejections(properties) + 1
    if job != "never works" and tries == 2:
        print(f"{job}: done")
        channel.basic_ack(method.delivery_tag)
        left -= 1
    elif tries < TRIES_MAX:
        print(f"{job}: try {tries} failed")
        channel.basic_reject(method.delivery_tag, requeue=False)
    else:
        print(f"{job}: parked after {tries} tries")
        channel.basic_publish("", PARKED, body, properties)
        channel.basic_ack(method.delivery_tag)
        left -= 1
    if left == 0:
        break
channel.cancel()
for queue in [JOBS, DELAY, PARKED]:
    channel.queue_delete(queue)
connection.close()
