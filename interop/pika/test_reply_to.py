"""Direct reply-to: answers without a reply queue."""

import pytest
from pika.exceptions import UnroutableError

from support import Inbox, channel_closed, publish

REPLY_TO = "amq.rabbitmq.reply-to"


@pytest.fixture
def requests(connect, queue):
    """The responder's side: a channel of another connection in confirm mode, and the requests that reach it."""
    channel = connect().channel()
    channel.confirm_delivery()
    return channel, Inbox(channel, queue, auto_ack=True)


@pytest.mark.smoke
def test_an_answer_comes_back_to_the_channel_that_asked(channel, queue, requests):
    responder, inbox = requests
    replies = Inbox(channel, REPLY_TO, auto_ack=True)
    for number in range(1, 4):
        publish(channel, "", queue, b"question", reply_to=REPLY_TO, correlation_id=str(number))
        properties = inbox.wait(number)[-1][1]
        assert properties.reply_to.startswith(REPLY_TO + ".")
        publish(responder, "", properties.reply_to, b"answer", correlation_id=properties.correlation_id, mandatory=True)
        method, answer, body = replies.wait(number)[-1]
        assert (answer.correlation_id, body) == (str(number), b"answer")
        assert (method.exchange, method.routing_key, method.redelivered) == ("", properties.reply_to, False)
        assert (method.consumer_tag, method.delivery_tag) == (replies.tag, number)


def test_the_consumer_cannot_acknowledge(channel):
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer cannot acknowledge"):
        Inbox(channel, REPLY_TO)


def test_a_channel_has_one_reply_consumer(channel):
    Inbox(channel, REPLY_TO, auto_ack=True)
    with channel_closed(406, "PRECONDITION_FAILED - reply consumer already set"):
        Inbox(channel, REPLY_TO, auto_ack=True)


def test_asking_without_a_reply_consumer_is_406(channel, queue):
    with channel_closed(406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
        publish(channel, "", queue, reply_to=REPLY_TO)


def test_a_responder_can_see_whether_the_asker_is_there(channel, queue, requests):
    responder, inbox = requests
    replies = Inbox(channel, REPLY_TO, auto_ack=True)
    publish(channel, "", queue, reply_to=REPLY_TO)
    address = inbox.wait(1)[0][1].reply_to
    for declare in (
        lambda: responder.queue_declare(address, passive=True),
        lambda: responder.queue_declare(address),
    ):
        answer = declare().method
        assert (answer.queue, answer.message_count, answer.consumer_count) == (address, 0, 1)

    channel.basic_cancel(replies.tag)
    with channel_closed(404, f"NOT_FOUND - no queue '{address}' in vhost '/'"):
        responder.queue_declare(address, passive=True)


def test_a_late_answer_is_dropped(connect, queue, requests):
    """RabbitMQ does not return it even when it is mandatory; a broker that does is right as well."""
    responder, inbox = requests
    asking = connect()
    channel = asking.channel()
    Inbox(channel, REPLY_TO, auto_ack=True)
    publish(channel, "", queue, reply_to=REPLY_TO)
    address = inbox.wait(1)[0][1].reply_to
    asking.close()
    publish(responder, "", address)
    assert responder.is_open


def test_an_answer_to_an_address_that_never_was_is_returned(channel):
    with pytest.raises(UnroutableError):
        publish(channel, "", REPLY_TO + ".never-was", mandatory=True)


def test_the_reply_consumer_belongs_to_its_channel(connection, channel, queue):
    Inbox(connection.channel(), REPLY_TO, auto_ack=True)
    with channel_closed(406, "PRECONDITION_FAILED - fast reply consumer does not exist"):
        publish(channel, "", queue, reply_to=REPLY_TO)


def test_the_reply_consumer_may_be_set_again_after_a_cancel(channel, queue, requests):
    responder, inbox = requests
    channel.basic_cancel(Inbox(channel, REPLY_TO, auto_ack=True).tag)
    replies = Inbox(channel, REPLY_TO, auto_ack=True)
    publish(channel, "", queue, reply_to=REPLY_TO)
    publish(responder, "", inbox.wait(1)[0][1].reply_to, b"answer")
    assert replies.wait(1)[0][2] == b"answer"
