"""pika's callback adapters, SelectConnection and AsyncioConnection, through the same scenarios."""

import uuid

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection
from pika.adapters.select_connection import SelectConnection
from pika.exceptions import ChannelClosedByBroker, ProbableAccessDeniedError, ProbableAuthenticationError

from script import Script

CAPABILITIES = [
    "publisher_confirms",
    "exchange_exchange_bindings",
    "basic.nack",
    "consumer_cancel_notify",
    "connection.blocked",
    "consumer_priorities",
    "authentication_failure_close",
    "per_consumer_qos",
    "direct_reply_to",
]


@pytest.fixture(params=[SelectConnection, AsyncioConnection], ids=["select", "asyncio"])
def run(request):
    """Runs a scenario on the adapter under test."""

    def go(scenario, **overrides):
        Script(request.param, scenario, **overrides).run()

    return go


def declare(channel, arguments=None):
    return lambda resume: channel.queue_declare("", exclusive=True, arguments=arguments, callback=resume)


def declare_passive(channel, queue):
    return lambda resume: channel.queue_declare(queue, passive=True, callback=resume)


def consume(channel, queue, on_message, **options):
    return lambda resume: channel.basic_consume(queue, on_message, callback=resume, **options)


def confirms(channel, on_confirm):
    return lambda resume: channel.confirm_delivery(on_confirm, callback=resume)


@pytest.mark.smoke
def test_the_server_introduces_itself(run):
    def scenario(script):
        yield script.channel()
        properties = script.connection.server_properties
        assert properties["product"] == "RabbitMQ"
        assert [int(part) for part in properties["version"].split(".")] >= [4, 3]
        for capability in CAPABILITIES:
            assert properties["capabilities"][capability] is True, capability

    run(scenario)


@pytest.mark.smoke
def test_publish_consume_acknowledge(run):
    def scenario(script):
        channel, messages = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        consume_ok = yield consume(channel, queue, script.record(messages))
        for number in range(10):
            channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(message_id=str(number)))
        yield script.until(lambda: len(messages) == 10)
        for number, (_, method, properties, body) in enumerate(messages):
            assert (method.consumer_tag, method.delivery_tag) == (consume_ok.method.consumer_tag, number + 1)
            assert (properties.message_id, body) == (str(number), b"%d" % number)
        channel.basic_ack(10, multiple=True)
        assert (yield declare_passive(channel, queue)).method.message_count == 0

    run(scenario)


@pytest.mark.smoke
def test_every_pipelined_publish_is_confirmed_once(run):
    """Confirms may come in any order and several at a time: together they cover 1 to 1000 exactly once."""

    def scenario(script):
        channel, frames = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        yield confirms(channel, script.record(frames))
        for number in range(1000):
            channel.basic_publish("", queue, b"%d" % number, pika.BasicProperties(delivery_mode=2))
        outstanding, seen = set(range(1, 1001)), 0

        def all_confirmed():
            nonlocal seen
            for (frame,) in frames[seen:]:
                seen += 1
                assert isinstance(frame.method, pika.spec.Basic.Ack)
                tag = frame.method.delivery_tag
                settled = {t for t in outstanding if t <= tag} if frame.method.multiple else {tag}
                assert settled and settled <= outstanding, "confirmed twice"
                outstanding.difference_update(settled)
            return not outstanding

        yield script.until(all_confirmed)
        assert (yield declare_passive(channel, queue)).method.message_count == 1000

    run(scenario)


def test_confirms_count_from_the_select(run):
    """What was published before confirm.select has no number; the first after it is 1."""

    def scenario(script):
        channel, frames = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        channel.basic_publish("", queue, b"uncounted")
        yield confirms(channel, script.record(frames))
        channel.basic_publish("", queue, b"first")
        yield script.until(lambda: frames)
        assert frames[0][0].method.delivery_tag == 1
        assert (yield declare_passive(channel, queue)).method.message_count == 2

    run(scenario)


@pytest.mark.smoke
def test_the_return_precedes_the_confirm(run):
    def scenario(script):
        channel, events = (yield script.channel()), []
        channel.add_on_return_callback(lambda _c, method, _p, body: events.append((method.reply_code, method.reply_text, body)))
        yield confirms(channel, script.record(events))
        for number in range(20):
            channel.basic_publish("", f"no-such-queue-{number}", b"%d" % number, mandatory=True)
        frames = lambda: [event[0] for event in events if len(event) == 1]
        yield script.until(lambda: frames() and frames()[-1].method.delivery_tag == 20)
        confirmed, returned = 0, 0
        for event in events:
            if len(event) == 3:
                assert event == (312, "NO_ROUTE", b"%d" % returned)
                returned += 1
            else:
                assert isinstance(event[0].method, pika.spec.Basic.Ack)
                confirmed = event[0].method.delivery_tag
                assert returned >= confirmed, "confirmed before it was returned"
        assert (confirmed, returned) == (20, 20)

    run(scenario)


def test_a_full_queue_refuses_with_a_nack(run):
    def scenario(script):
        channel, frames = (yield script.channel()), []
        queue = (yield declare(channel, {"x-max-length": 1, "x-overflow": "reject-publish"})).method.queue
        yield confirms(channel, script.record(frames))
        for expected in (pika.spec.Basic.Ack, pika.spec.Basic.Nack, pika.spec.Basic.Nack):
            seen = len(frames)
            channel.basic_publish("", queue, b"x")
            yield script.until(lambda: len(frames) > seen)
            assert isinstance(frames[-1][0].method, expected)
            assert frames[-1][0].method.delivery_tag == len(frames)

    run(scenario)


@pytest.mark.smoke
def test_an_error_costs_the_channel_and_its_number_is_free_again(run):
    def scenario(script):
        for _ in range(3):
            channel, closed = (yield script.channel()), []
            number = channel.channel_number
            channel.add_on_close_callback(script.record(closed))
            channel.basic_publish("no-such-exchange", "key", b"x")
            yield script.until(lambda: closed)
            reason = closed[0][1]
            assert isinstance(reason, ChannelClosedByBroker)
            assert reason.args == (404, "NOT_FOUND - no exchange 'no-such-exchange' in vhost '/'")
            reopened = yield lambda resume: script.connection.channel(number, on_open_callback=resume)
            assert (yield declare(reopened)).method.queue.startswith("amq.gen-")

    run(scenario)


def test_operations_without_an_answer(run):
    """Without a callback pika sets nowait: the broker does not answer, and the order still holds."""

    def scenario(script):
        channel, messages = (yield script.channel()), []
        queue, exchange = f"interop.{uuid.uuid4().hex}", f"interop.{uuid.uuid4().hex}"
        channel.exchange_declare(exchange, "fanout", auto_delete=True)
        channel.queue_declare(queue, exclusive=True)
        channel.queue_bind(queue, exchange)
        channel.basic_publish(exchange, "", b"purged")
        channel.queue_purge(queue)
        channel.basic_consume(queue, script.record(messages), consumer_tag="mine", auto_ack=True)
        channel.basic_publish(exchange, "", b"consumed")
        yield script.until(lambda: messages)
        assert [(message[1].consumer_tag, message[3]) for message in messages] == [("mine", b"consumed")]
        channel.basic_cancel("mine")
        channel.queue_delete(queue)
        channel.exchange_delete(exchange)
        closed = []
        channel.add_on_close_callback(script.record(closed))
        channel.queue_declare(queue, passive=True, callback=lambda _frame: None)
        yield script.until(lambda: closed)
        assert closed[0][1].args == (404, f"NOT_FOUND - no queue '{queue}' in vhost '/'")

    run(scenario)


def test_a_failing_operation_without_an_answer_closes_the_channel(run):
    def scenario(script):
        channel, closed = (yield script.channel()), []
        channel.add_on_close_callback(script.record(closed))
        channel.queue_bind("no-such-queue", "amq.direct", "key")
        yield script.until(lambda: closed)
        assert closed[0][1].args == (404, "NOT_FOUND - no queue 'no-such-queue' in vhost '/'")

    run(scenario)


@pytest.mark.smoke
def test_prefetch_paces_a_consumer(run):
    def scenario(script):
        channel, messages = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        yield lambda resume: channel.basic_qos(prefetch_count=2, callback=resume)
        for number in range(6):
            channel.basic_publish("", queue, b"%d" % number)
        yield consume(channel, queue, script.record(messages))
        for expected, left in ((2, 4), (4, 2), (6, 0)):
            yield script.until(lambda: len(messages) == expected)
            assert (yield declare_passive(channel, queue)).method.message_count == left
            assert len(messages) == expected
            channel.basic_ack(0, multiple=True)

    run(scenario)


def test_a_deleted_queue_cancels_its_consumer(run):
    def scenario(script):
        channel, deleting, cancelled = (yield script.channel()), (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        consume_ok = yield consume(channel, queue, print)
        channel.add_on_cancel_callback(script.record(cancelled))
        yield lambda resume: deleting.queue_delete(queue, callback=resume)
        yield script.until(lambda: cancelled)
        assert cancelled[0][0].method.consumer_tag == consume_ok.method.consumer_tag
        assert channel.is_open

    run(scenario)


def test_a_not_implemented_method_costs_the_connection(run):
    def scenario(script):
        channel = yield script.channel()
        channel.basic_recover(requeue=False, callback=lambda _frame: None)
        yield script.until(lambda: script.close_reason)
        assert script.close_reason.args == (540, "NOT_IMPLEMENTED - requeue=false")

    run(scenario)


@pytest.mark.smoke
def test_a_large_body(run):
    body = bytes(range(256)) * 4096 * 5

    def scenario(script):
        channel, messages = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        yield consume(channel, queue, script.record(messages), auto_ack=True)
        channel.basic_publish("", queue, body)
        channel.basic_publish("", queue, b"")
        yield script.until(lambda: len(messages) == 2)
        assert [message[3] for message in messages] == [body, b""]

    run(scenario)


def test_get_on_an_empty_queue(run):
    def scenario(script):
        channel, empty = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        channel.add_callback(script.record(empty), [pika.spec.Basic.GetEmpty])
        channel.basic_get(queue, callback=script.record([]))
        yield script.until(lambda: empty)

    run(scenario)


def test_recover_redelivers(run):
    def scenario(script):
        channel, messages = (yield script.channel()), []
        queue = (yield declare(channel)).method.queue
        yield consume(channel, queue, script.record(messages))
        for number in range(3):
            channel.basic_publish("", queue, b"%d" % number)
        yield script.until(lambda: len(messages) == 3)
        yield lambda resume: channel.basic_recover(requeue=True, callback=resume)
        yield script.until(lambda: len(messages) == 6)
        again = [(method.delivery_tag, method.redelivered, body) for _, method, _, body in messages[3:]]
        assert again == [(4, True, b"0"), (5, True, b"1"), (6, True, b"2")]

    run(scenario)


def test_a_wrong_password(run):
    credentials = pika.PlainCredentials("guest", "not the password")

    def scenario(script):
        pytest.fail("the connection was opened")
        yield

    with pytest.raises(pika.exceptions.AMQPConnectionError) as caught:
        run(scenario, credentials=credentials)
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN." in repr(caught.value)
    assert ProbableAuthenticationError.__name__ in repr(caught.value)


def test_a_missing_vhost(run):
    def scenario(script):
        pytest.fail("the connection was opened")
        yield

    with pytest.raises(pika.exceptions.AMQPConnectionError) as caught:
        run(scenario, virtual_host="no-such-vhost")
    assert "NOT_ALLOWED - vhost no-such-vhost not found" in repr(caught.value)
    assert ProbableAccessDeniedError.__name__ in repr(caught.value)
