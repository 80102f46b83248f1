"""Channels: opening, closing, and errors that cost only the channel."""

import pytest
from pika.exceptions import ChannelClosedByBroker, ChannelWrongStateError

from support import Inbox, channel_closed, consumers, drain, publish, ready, until


@pytest.mark.smoke
def test_a_missing_queue_is_404_and_the_channel_number_works_again(connection):
    for _ in range(10):
        channel = connection.channel(channel_number=7)
        with channel_closed(404, "NOT_FOUND - no queue 'no-such-queue' in vhost '/'"):
            channel.queue_declare("no-such-queue", passive=True)
        assert channel.is_closed
    assert connection.channel(channel_number=7).queue_declare("", exclusive=True).method.queue


def test_a_missing_exchange_is_404(connection):
    with channel_closed(404, "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'"):
        connection.channel().exchange_declare("no-such-exchange", passive=True)
    assert connection.is_open


def test_publishing_to_a_missing_exchange_is_404(channel):
    with channel_closed(404, "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'"):
        publish(channel, "no-such-exchange", "key")


def test_what_follows_a_failed_publish_is_discarded(connection, channel, queue):
    """The error travels while the client publishes on: nothing of that may arrive."""
    failing = connection.channel()
    publish(failing, "", queue, b"before")
    with pytest.raises((ChannelClosedByBroker, ChannelWrongStateError)):
        publish(failing, "no-such-exchange", queue, b"failing")
        for _ in range(10_000):
            publish(failing, "", queue, b"after")
        failing.queue_declare(queue, passive=True)
    assert drain(channel, queue) == [b"before"]


def test_a_long_reply_text_is_cut_to_255_octets(connection):
    with pytest.raises(ChannelClosedByBroker) as caught:
        connection.channel().queue_declare("n" * 255, passive=True)
    text = caught.value.reply_text
    assert text.startswith("NOT_FOUND - no queue 'nnn")
    assert len(text) == 255
    assert text.endswith("...")


def test_closing_a_channel_requeues_what_it_had_not_acknowledged(connection, channel, queue):
    for body in (b"1", b"2", b"3"):
        publish(channel, "", queue, body)
    leaving = connection.channel()
    Inbox(leaving, queue).wait(3)
    leaving.basic_ack(2)
    leaving.close()
    first, third = channel.basic_get(queue, auto_ack=True), channel.basic_get(queue, auto_ack=True)
    assert [first[2], third[2]] == [b"1", b"3"]
    assert first[0].redelivered and third[0].redelivered


def test_closing_a_channel_ends_its_consumers(connection, channel, queue):
    leaving = connection.channel()
    Inbox(leaving, queue)
    Inbox(leaving, queue)
    assert consumers(channel, queue) == 2
    leaving.close()
    assert consumers(channel, queue) == 0


def test_publishes_ahead_of_a_channel_close_are_all_processed(connection, channel, queue):
    leaving = connection.channel()
    for number in range(500):
        publish(leaving, "", queue, str(number).encode())
    leaving.close()
    assert drain(channel, queue) == [str(number).encode() for number in range(500)]


def test_an_exclusive_queue_outlives_the_channel_that_declared_it(connection, channel, name):
    exclusive = name("exclusive")
    declaring = connection.channel()
    declaring.queue_declare(exclusive, exclusive=True)
    declaring.close()
    assert ready(channel, exclusive) == 0


def test_flow_is_answered(connection):
    assert connection.channel().flow(True) is True


def test_a_failed_operation_requeues_what_the_channel_had_not_acknowledged(connection, channel, queue):
    publish(channel, "", queue, b"held")
    failing = connection.channel()
    Inbox(failing, queue).wait(1)
    with channel_closed(404, "NOT_FOUND - no queue 'no-such-queue' in vhost '/'"):
        failing.queue_purge("no-such-queue")
    inbox = Inbox(channel, queue)
    until(connection, lambda: inbox.messages)
    assert inbox.messages[0][0].redelivered
