"""Confirms, returns, length limits, and publishes that are refused."""

import pytest
from pika.exceptions import NackError, UnroutableError

from support import Inbox, channel_closed, drain, publish, ready, until


@pytest.fixture
def limited(channel, name):
    """Declares a queue with the given arguments."""

    def declare(**arguments):
        arguments = {key.replace("_", "-"): value for key, value in arguments.items()}
        return channel.queue_declare(name("limited"), exclusive=True, arguments=arguments).method.queue

    return declare


@pytest.mark.smoke
def test_a_mandatory_message_that_finds_no_queue_is_returned_and_then_confirmed(channel, queue):
    with pytest.raises(UnroutableError) as caught:
        publish(channel, "amq.direct", "no-such-key", b"back", mandatory=True, message_id="m1", headers={"h": 1})
    [returned] = caught.value.messages
    assert (returned.method.reply_code, returned.method.reply_text) == (312, "NO_ROUTE")
    assert (returned.method.exchange, returned.method.routing_key) == ("amq.direct", "no-such-key")
    assert (returned.body, returned.properties.message_id, returned.properties.headers) == (b"back", "m1", {"h": 1})
    publish(channel, "", queue, b"the channel goes on", mandatory=True)
    assert ready(channel, queue) == 1


def test_a_return_comes_without_confirms_too(connection, queue):
    channel = connection.channel()
    returned = []
    channel.add_on_return_callback(lambda _c, method, _p, body: returned.append((method.reply_code, body)))
    publish(channel, "", "no-such-queue", b"1", mandatory=True)
    publish(channel, "", queue, b"2", mandatory=True)
    publish(channel, "", "no-such-queue", b"", mandatory=True)
    until(connection, lambda: len(returned) == 2)
    assert returned == [(312, b"1"), (312, b"")]


def test_an_unroutable_message_is_confirmed(channel):
    publish(channel, "amq.direct", "no-such-key")
    publish(channel, "", "no-such-queue")


@pytest.mark.smoke
def test_a_full_queue_with_reject_publish_refuses(channel, limited):
    queue = limited(x_max_length=1, x_overflow="reject-publish")
    publish(channel, "", queue, b"kept")
    with pytest.raises(NackError):
        publish(channel, "", queue, b"refused")
    assert drain(channel, queue) == [b"kept"]
    publish(channel, "", queue, b"room again")
    assert drain(channel, queue) == [b"room again"]


def test_one_refusing_queue_among_several_refuses_the_message(channel, limited, exchange):
    fanout = exchange("fanout")
    full, roomy = limited(x_max_length=1, x_overflow="reject-publish"), limited()
    for each in (full, roomy):
        channel.queue_bind(each, fanout)
    publish(channel, fanout, "", b"1")
    with pytest.raises(NackError):
        publish(channel, fanout, "", b"2")
    assert (drain(channel, full), drain(channel, roomy)) == ([b"1"], [b"1", b"2"])


def test_reject_publish_dlx_dead_letters_what_it_refuses(channel, limited, exchange, bound):
    rest = exchange("fanout")
    inbox = Inbox(channel, bound(rest))
    queue = limited(x_max_length=1, x_overflow="reject-publish-dlx", x_dead_letter_exchange=rest)
    publish(channel, "", queue, b"kept")
    with pytest.raises(NackError):
        publish(channel, "", queue, b"refused")
    [(_, properties, body)] = inbox.wait(1)
    assert (body, properties.headers["x-death"][0]["reason"]) == (b"refused", "maxlen")
    assert drain(channel, queue) == [b"kept"]


def test_a_full_queue_drops_its_oldest_by_default(channel, limited):
    queue = limited(x_max_length=3)
    for number in range(5):
        publish(channel, "", queue, b"%d" % number)
    assert drain(channel, queue) == [b"2", b"3", b"4"]


def test_the_limit_counts_only_ready_messages(channel, limited):
    queue = limited(x_max_length=2)
    for number in range(2):
        publish(channel, "", queue, b"%d" % number)
        channel.basic_get(queue)
    for number in range(2, 4):
        publish(channel, "", queue, b"%d" % number)
    channel.basic_nack(0, multiple=True, requeue=True)
    assert drain(channel, queue) == [b"2", b"3"], "what came back to the head was over the limit"


def test_a_limit_in_bytes(channel, limited):
    queue = limited(x_max_length_bytes=10)
    for body in (b"aaaa", b"bbbb", b"cccc"):
        publish(channel, "", queue, body)
    assert drain(channel, queue) == [b"bbbb", b"cccc"]


def test_a_limit_of_zero_keeps_nothing_without_a_consumer(channel, limited):
    queue = limited(x_max_length=0)
    publish(channel, "", queue, b"dropped")
    assert ready(channel, queue) == 0
    inbox = Inbox(channel, queue)
    publish(channel, "", queue, b"delivered")
    inbox.wait(1)
    assert inbox.bodies == [b"delivered"]


@pytest.mark.parametrize(
    "expiration, error",
    [
        ("abc", "no_integer"),
        ("", "no_integer"),
        ("10x", '{leftover_string,"x"}'),
        ("-1", "{value_negative,-1}"),
        ("315360000001", "{value_too_large,315360000001}"),
    ],
)
def test_an_invalid_expiration_is_406(channel, expiration, error):
    with channel_closed(406, f"PRECONDITION_FAILED - invalid expiration '{expiration}': {error}"):
        publish(channel, "amq.direct", "key", expiration=expiration)


def test_the_user_id_has_to_be_the_users_own(channel, queue):
    publish(channel, "", queue, user_id="guest")
    text = "PRECONDITION_FAILED - user_id property set to 'somebody' but authenticated user was 'guest'"
    with channel_closed(406, text):
        publish(channel, "", queue, user_id="somebody")


def test_a_message_over_16_mebibytes_is_406(channel, queue):
    size, largest = 16 * 1024 * 1024 + 1, 16 * 1024 * 1024
    text = f"PRECONDITION_FAILED - message size {size} is larger than configured max size {largest}"
    with channel_closed(406, text):
        publish(channel, "", queue, bytes(size))
