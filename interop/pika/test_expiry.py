"""Messages and queues that expire. What expires is dead-lettered, so that its going can be waited for."""

import time

import pytest
from pika.exceptions import NackError, UnroutableError

from support import DEADLINE_S, Inbox, channel_closed, drain, publish, ready


@pytest.fixture
def rest(channel, exchange, bound):
    """The exchange to which expired messages go, and a consumer that receives them."""
    name = exchange("fanout")
    return name, Inbox(channel, bound(name))


@pytest.fixture
def expiring(channel, name, rest):
    """Declares a queue that dead-letters to `rest`, with further arguments."""

    def declare(**arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        arguments["x-dead-letter-exchange"] = rest[0]
        return channel.queue_declare(name("expiring"), exclusive=True, arguments=arguments).method.queue

    return declare


def wait_timed(inbox, count):
    """Waits for messages; returns the seconds that passed."""
    start = time.monotonic()
    inbox.wait(count)
    return time.monotonic() - start


@pytest.mark.smoke
def test_the_ttl_of_the_queue_expires_messages(channel, expiring, rest):
    queue = expiring(x_message_ttl=300)
    publish(channel, "", queue, b"1")
    publish(channel, "", queue, b"2")
    assert ready(channel, queue) == 2
    passed = wait_timed(rest[1], 2)
    assert rest[1].bodies == [b"1", b"2"]
    assert 0.2 < passed < 3
    assert ready(channel, queue) == 0


def test_the_expiration_of_a_message_expires_it(channel, expiring, rest):
    queue = expiring()
    publish(channel, "", queue, b"short", expiration="300")
    publish(channel, "", queue, b"staying")
    assert 0.2 < wait_timed(rest[1], 1) < 3
    assert drain(channel, queue) == [b"staying"]


@pytest.mark.parametrize("queue_ttl, expiration", [(300, "60000"), (60000, "300")])
def test_the_shorter_of_both_counts(channel, expiring, rest, queue_ttl, expiration):
    queue = expiring(x_message_ttl=queue_ttl)
    publish(channel, "", queue, expiration=expiration)
    assert 0.2 < wait_timed(rest[1], 1) < 3


@pytest.mark.parametrize("by_queue", [True, False])
def test_a_ttl_of_zero_is_now_or_never(channel, expiring, rest, by_queue):
    queue = expiring(x_message_ttl=0) if by_queue else expiring()
    properties = {} if by_queue else {"expiration": "0"}
    publish(channel, "", queue, b"nobody waits", **properties)
    rest[1].wait(1)
    inbox = Inbox(channel, queue, auto_ack=True)
    publish(channel, "", queue, b"somebody waits", **properties)
    inbox.wait(1)
    assert (rest[1].bodies, inbox.bodies) == ([b"nobody waits"], [b"somebody waits"])


def test_a_requeued_message_keeps_its_deadline(connection, channel, expiring, rest):
    """It is taken, held for most of its life and given back: it dies at the time it would have died at anyway."""
    queue = expiring(x_message_ttl=2000)
    start = time.monotonic()
    publish(channel, "", queue)
    method, _, _ = channel.basic_get(queue)
    connection.sleep(1.5)
    channel.basic_reject(method.delivery_tag, requeue=True)
    rest[1].wait(1)
    assert 1.9 < time.monotonic() - start < 3.2


def test_an_unacknowledged_message_does_not_expire(connection, channel, expiring, rest):
    queue = expiring(x_message_ttl=200)
    publish(channel, "", queue, b"held")
    publish(channel, "", queue, b"free")
    method, _, _ = channel.basic_get(queue)
    rest[1].wait(1)
    assert rest[1].bodies == [b"free"]
    channel.basic_ack(method.delivery_tag)
    assert ready(channel, queue) == 0


def test_a_consumer_sees_the_expiration(channel, queue):
    publish(channel, "", queue, expiration="60000")
    assert channel.basic_get(queue, auto_ack=True)[1].expiration == "60000"


def gone_within_deadline(channel, queue):
    """Publishes until the queue is gone: publishing does not count as use, asking for the queue would."""
    end = time.monotonic() + DEADLINE_S
    while time.monotonic() < end:
        try:
            publish(channel, "", queue, mandatory=True)
        except UnroutableError:
            return True
        except NackError:
            pass  # It reached the queue in the moment of its end.
        channel.connection.sleep(0.05)
    return False


def test_an_unused_queue_expires(channel, name):
    queue = channel.queue_declare(name("expires"), arguments={"x-expires": 500}).method.queue
    start = time.monotonic()
    assert gone_within_deadline(channel, queue)
    assert 0.4 < time.monotonic() - start < 4
    with channel_closed(404, f"NOT_FOUND - no queue '{queue}' in vhost '/'"):
        channel.queue_declare(queue, passive=True)


def test_use_renews_the_lease_of_a_queue(connection, channel, name):
    arguments = {"x-expires": 1500}
    queue = channel.queue_declare(name("expires"), arguments=arguments).method.queue
    for use in (
        lambda: channel.basic_get(queue),
        lambda: channel.queue_declare(queue, arguments=arguments),
        lambda: channel.queue_declare(queue, passive=True),
    ):
        connection.sleep(0.9)
        use()
    start = time.monotonic()
    assert gone_within_deadline(channel, queue)
    assert time.monotonic() - start > 1.3


def test_a_queue_with_a_consumer_does_not_expire(connection, channel, name):
    queue = channel.queue_declare(name("expires"), arguments={"x-expires": 300}).method.queue
    inbox = Inbox(channel, queue, auto_ack=True)
    connection.sleep(1)
    publish(channel, "", queue, b"still here", mandatory=True)
    inbox.wait(1)
    channel.basic_cancel(inbox.tag)
    assert gone_within_deadline(channel, queue)


def test_an_expired_queue_does_not_dead_letter(channel, expiring, rest):
    queue = expiring(x_expires=300)
    publish(channel, "", queue, b"lost with its queue")
    assert gone_within_deadline(channel, queue)
    publish(channel, rest[0], "", b"mark")
    rest[1].wait(1)
    assert rest[1].bodies == [b"mark"]


@pytest.mark.parametrize("arguments", [{"x-message-ttl": 315360000000}, {"x-expires": 315360000000}, {}])
def test_ten_years_are_a_time_to_live(channel, name, arguments):
    queue = channel.queue_declare(name("years"), arguments=arguments).method.queue
    publish(channel, "", queue, b"m", expiration="315360000000")
    assert ready(channel, queue) == 1
