"""Consume, get, prefetch, acknowledgements, requeueing, cancellation."""

import pytest

from support import Inbox, channel_closed, connection_closed, consumers, drain, publish, ready, until


def unknown_tag(tag):
    return f"PRECONDITION_FAILED - unknown delivery tag {tag}"


@pytest.fixture
def filled(channel, queue):
    """The queue with ten messages, 0 to 9."""
    for number in range(10):
        publish(channel, "", queue, b"%d" % number)
    return queue


@pytest.mark.smoke
def test_messages_come_in_order_with_consecutive_tags(channel, filled):
    inbox = Inbox(channel, filled)
    messages = inbox.wait(10)
    assert inbox.bodies == [b"%d" % number for number in range(10)]
    assert inbox.delivery_tags == list(range(1, 11))
    for method, _, _ in messages:
        assert (method.consumer_tag, method.exchange, method.routing_key, method.redelivered) == (
            inbox.tag,
            "",
            filled,
            False,
        )


def test_consumed_without_acknowledgement_is_gone(channel, filled):
    Inbox(channel, filled, auto_ack=True).wait(10)
    channel.close()
    again = channel.connection.channel()
    assert ready(again, filled) == 0


@pytest.mark.smoke
def test_prefetch_bounds_what_a_consumer_holds(channel, filled):
    channel.basic_qos(prefetch_count=3)
    inbox = Inbox(channel, filled)
    inbox.wait(3)
    assert (ready(channel, filled), len(inbox.messages)) == (7, 3)
    channel.basic_ack(1)
    inbox.wait(4)
    assert (ready(channel, filled), len(inbox.messages)) == (6, 4)
    channel.basic_ack(4, multiple=True)
    inbox.wait(7)
    assert (ready(channel, filled), len(inbox.messages)) == (3, 7)
    channel.basic_nack(7, multiple=True, requeue=False)
    assert len(inbox.wait(10)) == 10


def test_prefetch_holds_for_the_consumers_that_come_after_it(channel, filled):
    channel.basic_qos(prefetch_count=2)
    first = Inbox(channel, filled)
    first.wait(2)
    channel.basic_qos(prefetch_count=5)
    second = Inbox(channel, filled)
    second.wait(5)
    assert (len(first.messages), len(second.messages), ready(channel, filled)) == (2, 5, 3)


def test_prefetch_does_not_bound_a_consumer_without_acknowledgement(channel, filled):
    channel.basic_qos(prefetch_count=1)
    assert len(Inbox(channel, filled, auto_ack=True).wait(10)) == 10


def test_prefetch_does_not_bound_basic_get(channel, filled):
    channel.basic_qos(prefetch_count=1)
    assert [channel.basic_get(filled)[2] for _ in range(10)] == [b"%d" % number for number in range(10)]


def test_a_global_prefetch_is_shared_by_the_channel(channel, filled):
    channel.basic_qos(prefetch_count=4, global_qos=True)
    first, second = Inbox(channel, filled), Inbox(channel, filled)
    until(channel.connection, lambda: len(first.messages) + len(second.messages) >= 4)
    assert ready(channel, filled) == 6
    assert len(first.messages) + len(second.messages) == 4
    channel.basic_ack(0, multiple=True)
    until(channel.connection, lambda: len(first.messages) + len(second.messages) >= 8)
    assert ready(channel, filled) == 2


@pytest.mark.smoke
def test_consumers_take_turns(connect, channel, queue):
    inboxes = [Inbox(connect().channel(), queue, auto_ack=True) for _ in range(3)]
    for number in range(30):
        publish(channel, "", queue, b"%d" % number)
    for inbox in inboxes:
        inbox.wait(10)
    assert [len(inbox.messages) for inbox in inboxes] == [10, 10, 10]
    assert sorted(body for inbox in inboxes for body in inbox.bodies) == sorted(b"%d" % n for n in range(30))


def test_a_busy_consumer_leaves_its_turn_to_the_others(connect, channel, queue):
    busy, idle = connect().channel(), connect().channel()
    busy.basic_qos(prefetch_count=1)
    held, free = Inbox(busy, queue), Inbox(idle, queue, auto_ack=True)
    for number in range(10):
        publish(channel, "", queue, b"%d" % number)
    free.wait(9)
    held.wait(1)
    assert (len(held.messages), len(free.messages)) == (1, 9)


def test_a_consumer_of_higher_priority_is_served_first(connect, channel, queue):
    low, high = connect().channel(), connect().channel()
    high.basic_qos(prefetch_count=3)
    lower = Inbox(low, queue, auto_ack=True)
    higher = Inbox(high, queue, arguments={"x-priority": 10})
    for number in range(5):
        publish(channel, "", queue, b"%d" % number)
    lower.wait(2)
    higher.wait(3)
    assert (higher.bodies, lower.bodies) == ([b"0", b"1", b"2"], [b"3", b"4"])


def test_messages_of_higher_priority_come_first(channel, name):
    """None is zero, more than the maximum is the maximum, and within a level the order stays."""
    queue = channel.queue_declare(name("priorities"), arguments={"x-max-priority": 10}).method.queue
    for priority in (1, 5, None, 10, 5, 200, 0):
        publish(channel, "", queue, str(priority).encode(), priority=priority)
    assert drain(channel, queue) == [b"10", b"200", b"5", b"5", b"1", b"None", b"0"]


@pytest.mark.smoke
def test_ack_multiple_settles_all_up_to_the_tag(connection, channel, filled):
    taking = connection.channel()
    Inbox(taking, filled).wait(10)
    taking.basic_ack(7, multiple=True)
    taking.close()
    assert drain(channel, filled) == [b"7", b"8", b"9"]


def test_ack_zero_multiple_settles_everything(connection, channel, filled):
    taking = connection.channel()
    taking.basic_ack(0, multiple=True)
    Inbox(taking, filled).wait(10)
    taking.basic_ack(0, multiple=True)
    taking.close()
    assert ready(channel, filled) == 0


@pytest.mark.smoke
def test_requeued_messages_return_to_their_places(connection, channel, filled):
    """The first five are taken and rejected in an order of their own: the queue is as it was."""
    taking = connection.channel()
    tags = [taking.basic_get(filled)[0].delivery_tag for _ in range(5)]
    for tag in (tags[3], tags[0], tags[4], tags[2], tags[1]):
        taking.basic_reject(tag, requeue=True)
    taking.close()
    got = [channel.basic_get(filled, auto_ack=True) for _ in range(10)]
    assert [body for _, _, body in got] == [b"%d" % number for number in range(10)]
    assert [method.redelivered for method, _, _ in got] == [True] * 5 + [False] * 5


def test_nack_multiple_requeues_all_up_to_the_tag(channel, filled):
    for _ in range(4):
        method, _, _ = channel.basic_get(filled)
    channel.basic_nack(method.delivery_tag, multiple=True, requeue=True)
    assert drain(channel, filled) == [b"%d" % number for number in range(10)]


def test_a_rejected_message_is_dropped_when_it_is_not_requeued(channel, filled):
    channel.basic_reject(channel.basic_get(filled)[0].delivery_tag, requeue=False)
    channel.basic_get(filled)
    channel.basic_nack(0, multiple=True, requeue=False)
    assert drain(channel, filled) == [b"%d" % number for number in range(2, 10)]


def test_a_requeued_message_may_come_back_to_the_same_consumer(channel, queue):
    inbox = Inbox(channel, queue)
    publish(channel, "", queue, b"again")
    inbox.wait(1)
    channel.basic_nack(1, requeue=True)
    method, _, body = inbox.wait(2)[1]
    assert (method.delivery_tag, method.redelivered, body) == (2, True, b"again")


def test_recover_requeues_what_is_unacknowledged(channel, queue):
    inbox = Inbox(channel, queue)
    for number in range(3):
        publish(channel, "", queue, b"%d" % number)
    inbox.wait(3)
    channel.basic_ack(2)
    channel.basic_recover(requeue=True)
    redelivered = inbox.wait(5)[3:]
    assert [(method.delivery_tag, method.redelivered, body) for method, _, body in redelivered] == [
        (4, True, b"0"),
        (5, True, b"2"),
    ]


@pytest.mark.smoke
def test_an_unknown_delivery_tag_is_406(connection, queue):
    for settle in (
        lambda channel: channel.basic_ack(82),
        lambda channel: channel.basic_ack(82, multiple=True),
        lambda channel: channel.basic_nack(82),
        lambda channel: channel.basic_reject(82),
    ):
        channel = connection.channel()
        with channel_closed(406, unknown_tag(82)):
            settle(channel)
            channel.queue_declare(queue, passive=True)


def test_acknowledging_twice_is_406(channel, filled):
    tag = channel.basic_get(filled)[0].delivery_tag
    channel.basic_ack(tag)
    with channel_closed(406, unknown_tag(tag)):
        channel.basic_ack(tag)
        channel.queue_declare(filled, passive=True)


def test_acknowledging_an_automatically_acknowledged_delivery_is_406(channel, filled):
    tag = channel.basic_get(filled, auto_ack=True)[0].delivery_tag
    with channel_closed(406, unknown_tag(tag)):
        channel.basic_ack(tag)
        channel.queue_declare(filled, passive=True)


def test_acknowledging_zero_alone_is_406(channel, filled):
    channel.basic_get(filled)
    with channel_closed(406, unknown_tag(0)):
        channel.basic_ack(0)
        channel.queue_declare(filled, passive=True)


def test_a_delivery_tag_belongs_to_its_channel(connection, channel, filled):
    tag = channel.basic_get(filled)[0].delivery_tag
    with channel_closed(406, unknown_tag(tag)):
        other = connection.channel()
        other.basic_ack(tag)
        other.queue_declare(filled, passive=True)


def test_deliveries_and_gets_share_one_sequence_of_tags(channel, filled):
    assert channel.basic_get(filled)[0].delivery_tag == 1
    assert channel.basic_get(filled, auto_ack=True)[0].delivery_tag == 2
    channel.basic_qos(prefetch_count=2)
    inbox = Inbox(channel, filled)
    inbox.wait(2)
    assert inbox.delivery_tags == [3, 4]
    assert channel.basic_get(filled)[0].delivery_tag == 5


def test_get_counts_down_and_ends_with_empty(channel, filled):
    counts = [channel.basic_get(filled, auto_ack=True)[0].message_count for _ in range(10)]
    assert counts == list(range(9, -1, -1))
    assert channel.basic_get(filled) == (None, None, None)


def test_cancelling_leaves_what_was_delivered_unacknowledged(connection, channel, filled):
    taking = connection.channel()
    taking.basic_qos(prefetch_count=4)
    seen = []
    tag = taking.basic_consume(filled, lambda _c, method, _p, _b: seen.append(method.delivery_tag))
    until(connection, lambda: len(seen) == 4)
    taking.basic_cancel(tag)
    assert (ready(channel, filled), consumers(channel, filled)) == (6, 0)
    taking.basic_ack(seen[1], multiple=True)
    taking.close()
    assert len(drain(channel, filled)) == 8


@pytest.mark.smoke
def test_deleting_a_queue_cancels_its_consumers(connection, channel, queue):
    cancelled = []
    consuming = connection.channel()
    consuming.add_on_cancel_callback(lambda frame: cancelled.append(frame.method.consumer_tag))
    tags = [Inbox(consuming, queue).tag, Inbox(consuming, queue).tag]
    channel.queue_delete(queue)
    until(connection, lambda: len(cancelled) == 2)
    assert sorted(cancelled) == sorted(tags)
    assert consuming.is_open


def test_an_exclusive_consumer_keeps_the_others_out(connection, channel, queue):
    text = f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use"
    exclusive = Inbox(channel, queue, exclusive=True)
    with channel_closed(403, text):
        Inbox(connection.channel(), queue)
    with channel_closed(403, text):
        Inbox(connection.channel(), queue, exclusive=True)
    channel.basic_cancel(exclusive.tag)
    Inbox(connection.channel(), queue)
    with channel_closed(403, text):
        Inbox(connection.channel(), queue, exclusive=True)


def test_one_channel_consumes_from_many_queues(channel, name):
    queues = [channel.queue_declare(name("many"), exclusive=True).method.queue for _ in range(20)]
    inboxes = [Inbox(channel, each) for each in queues]
    for each in queues:
        publish(channel, "", each, each.encode())
    for each, inbox in zip(queues, inboxes):
        inbox.wait(1)
        assert inbox.bodies == [each.encode()]


def test_a_consumer_priority_that_is_not_a_number_is_406(channel, queue):
    text = f"PRECONDITION_FAILED - invalid arg 'x-priority' for queue '{queue}' in vhost '/': \"expected integer, got longstr\""
    with channel_closed(406, text):
        Inbox(channel, queue, arguments={"x-priority": "high"})


def test_the_consume_generator_works(channel, filled):
    bodies = []
    for method, _, body in channel.consume(filled, inactivity_timeout=10):
        assert method is not None, "inactive although there are messages"
        bodies.append(body)
        channel.basic_ack(method.delivery_tag)
        if len(bodies) == 10:
            break
    assert channel.cancel() == 0
    assert bodies == [b"%d" % number for number in range(10)]


def test_recover_without_requeue_is_not_implemented_and_costs_the_connection(connection):
    with connection_closed(540, "NOT_IMPLEMENTED - requeue=false"):
        connection.channel().basic_recover(requeue=False)
