"""A work queue: tasks survive a restart of the broker, two workers share them, and a task is removed when a worker has
acknowledged it."""

from broker import PERSISTENT, connect

QUEUE = "example.python.tasks"
TASKS = 6

connection = connect()
channel = connection.channel()
channel.confirm_delivery()
channel.queue_declare(QUEUE, durable=True)
for number in range(1, TASKS + 1):
    # Returns when the task is on the disk.
    channel.basic_publish("", QUEUE, f"task {number}".encode(), PERSISTENT)

done = 0


def work(channel, method, properties, body):
    """One task. Were the worker to die here, the task would go to the other one."""
    global done
    print("done:", body.decode())
    channel.basic_ack(method.delivery_tag)
    done += 1


for worker in range(2):
    workers_channel = connection.channel()
    # Not more than one unacknowledged task, so that a slow worker leaves the others to the next one.
    workers_channel.basic_qos(prefetch_count=1)
    workers_channel.basic_consume(QUEUE, work)
while done < TASKS:
    connection.process_data_events(time_limit=None)
channel.queue_delete(QUEUE)
connection.close()
