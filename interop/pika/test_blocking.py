"""What users of pika's BlockingConnection do, and the errors they are used to."""

import time

import pika
import pytest
from pika.exceptions import (
    ChannelClosedByBroker, ConnectionClosedByBroker, NackError, ProbableAccessDeniedError, ProbableAuthenticationError,
    UnroutableError,
)

from conftest import parameters

smoke = pytest.mark.smoke


def closed(call, *args, **kwargs):
    """The reply code and text with which the broker closes the channel (or connection)."""
    with pytest.raises((ChannelClosedByBroker, ConnectionClosedByBroker)) as e:
        call(*args, **kwargs)
    return e.value.reply_code, e.value.reply_text


def get(channel, queue, auto_ack=True, tries=200):
    """One message, waiting for it."""
    for _ in range(tries):
        method, properties, body = channel.basic_get(queue, auto_ack=auto_ack)
        if method:
            return method, properties, body
        channel.connection.process_data_events(time_limit=0.02)
    raise AssertionError("no message came")


def wait_for(connection, condition, seconds=5):
    """Handles events until the condition holds, and a little longer, for what should not come."""
    until = time.monotonic() + seconds
    while not condition() and time.monotonic() < until:
        connection.process_data_events(time_limit=0.05)
    connection.process_data_events(time_limit=0.1)


def bodies(channel, queue):
    out = []
    while True:
        method, _, body = channel.basic_get(queue, auto_ack=True)
        if method is None:
            return out
        out.append(body)


# ---- connecting -----------------------------------------------------------------------------------

@smoke
def test_wrong_password_is_refused():
    with pytest.raises(ProbableAuthenticationError) as e:
        pika.BlockingConnection(parameters(credentials=pika.PlainCredentials("guest", "wrong")))
    assert "ACCESS_REFUSED - Login was refused using authentication mechanism PLAIN" in str(e.value)


def test_missing_vhost_is_refused():
    with pytest.raises(ProbableAccessDeniedError) as e:
        pika.BlockingConnection(parameters(virtual_host="nowhere"))
    assert "(530) 'NOT_ALLOWED - vhost nowhere not found'" in str(e.value)


def test_server_properties(connection):
    p = connection._impl.server_properties
    assert p["product"] == "RabbitMQ" and int(p["version"].split(".")[0]) >= 4
    assert p["capabilities"]["publisher_confirms"] and p["capabilities"]["connection.blocked"]


def test_heartbeats_keep_an_idle_connection(connect):
    connection = connect(heartbeat=1)
    connection.process_data_events(time_limit=4)
    assert connection.is_open
    connection.channel()


# ---- channels and their errors --------------------------------------------------------------------

@smoke
def test_passive_declare_of_a_missing_queue(connection):
    channel = connection.channel(1)
    assert closed(channel.queue_declare, "nope", passive=True) == (404, "NOT_FOUND - no queue 'nope' in vhost '/'")
    assert connection.is_open
    connection.channel(1).queue_declare("", exclusive=True)


def test_passive_declare_of_a_missing_exchange(channel):
    assert closed(channel.exchange_declare, "nope", passive=True) == (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")


def test_publish_to_a_missing_exchange(connection, channel):
    channel.basic_publish("nope", "k", b"x")
    code, text = closed(channel.queue_declare, "", exclusive=True)
    assert (code, text) == (404, "NOT_FOUND - no exchange 'nope' in vhost '/'")
    assert connection.is_open


def test_unknown_delivery_tag(channel, queue):
    channel.basic_ack(82)
    assert closed(channel.queue_declare, queue, passive=True) == (406, "PRECONDITION_FAILED - unknown delivery tag 82")


def test_inequivalent_arguments(connection, name):
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 10000})
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 10000})
    code, text = closed(channel.queue_declare, name, exclusive=True, arguments={"x-message-ttl": 20000})
    assert (code, text) == (406, f"PRECONDITION_FAILED - inequivalent arg 'x-message-ttl' for queue '{name}' in vhost '/': received '20000' but current is '10000'")
    code, text = closed(connection.channel().queue_declare, name, exclusive=True)
    assert text.endswith("received none but current is the value '10000' of type 'signedint'")


def test_inequivalent_exchange(connection, name):
    channel = connection.channel()
    channel.exchange_declare(name, "direct", auto_delete=True)
    code, text = closed(channel.exchange_declare, name, "fanout", auto_delete=True)
    assert (code, text) == (406, f"PRECONDITION_FAILED - inequivalent arg 'type' for exchange '{name}' in vhost '/': received 'fanout' but current is 'direct'")
    connection.channel().exchange_delete(name)


def test_unknown_exchange_type(channel, name):
    assert closed(channel.exchange_declare, name, "nonsense") == (406, "PRECONDITION_FAILED - unknown exchange type 'nonsense'")


def test_reserved_names(connection):
    code, text = closed(connection.channel().queue_declare, "amq.mine")
    assert (code, text) == (403, "ACCESS_REFUSED - queue name 'amq.mine' contains reserved prefix 'amq.*'")
    code, text = closed(connection.channel().exchange_declare, "amq.mine")
    assert (code, text) == (403, "ACCESS_REFUSED - exchange name 'amq.mine' contains reserved prefix 'amq.*'")


def test_default_exchange_is_not_touched(connection, name):
    connection.channel().queue_declare(name, exclusive=True)
    refused = (403, "ACCESS_REFUSED - operation not permitted on the default exchange")
    assert closed(connection.channel().queue_bind, name, "", "k") == refused
    assert closed(connection.channel().exchange_delete, "") == refused


@pytest.mark.parametrize("arguments, problem", [
    ({"x-message-ttl": -1}, "{value_negative,-1}"),
    ({"x-message-ttl": "1"}, '"expected integer, got longstr"'),
    ({"x-expires": 0}, "{value_zero,0}"),
    ({"x-max-priority": 256}, "{max_value_exceeded,256}"),
    ({"x-dead-letter-routing-key": "k"}, "routing_key_but_no_dlx_defined"),
])
def test_invalid_arguments(channel, name, arguments, problem):
    code, text = closed(channel.queue_declare, name, arguments=arguments)
    key = next(iter(arguments))
    assert (code, text) == (406, f"PRECONDITION_FAILED - invalid arg '{key}' for queue '{name}' in vhost '/': {problem}")


def test_exclusive_queues_are_locked_for_others(connect, name):
    owner, other = connect(), connect()
    owner.channel().queue_declare(name, exclusive=True)
    # Reply texts are cut to what a short string holds.
    start = (f"RESOURCE_LOCKED - cannot obtain exclusive access to locked queue '{name}' in vhost '/'. It could be "
             "originally declared on another connection or the exclusive property value does not match that of the ")
    for operation in [
        lambda c: c.queue_declare(name, exclusive=True),
        lambda c: c.queue_declare(name, passive=True),
        lambda c: c.queue_bind(name, "amq.direct", "k"),
        lambda c: c.queue_purge(name),
        lambda c: c.queue_delete(name),
        lambda c: c.basic_get(name),
        lambda c: c.basic_consume(name, lambda *a: None),
    ]:
        code, text = closed(operation, other.channel())
        assert code == 405 and text.startswith(start)
    owner.close()
    other.channel().queue_declare(name, exclusive=True)


def test_reused_consumer_tag_costs_the_connection(connect, name):
    connection = connect()
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    channel._impl.basic_consume(name, lambda *a: None, consumer_tag="t")
    channel._impl._consumers.clear()
    channel._impl.basic_consume(name, lambda *a: None, consumer_tag="t")
    with pytest.raises(ConnectionClosedByBroker) as e:
        connection.process_data_events(time_limit=5)
    assert (e.value.reply_code, e.value.reply_text) == (530, "NOT_ALLOWED - attempt to reuse consumer tag 't'")


# ---- queues ---------------------------------------------------------------------------------------

def test_server_named_queue(channel):
    first = channel.queue_declare("", exclusive=True).method.queue
    assert first.startswith("amq.gen-") and len(first) == len("amq.gen-") + 22
    channel.basic_publish("", first, b"x")
    assert get(channel, "")[2] == b"x"


def test_declare_counts_ready_messages(channel, queue):
    for _ in range(3):
        channel.basic_publish("", queue, b"x")
    get(channel, queue, auto_ack=False)
    ok = channel.queue_declare(queue, passive=True).method
    assert (ok.message_count, ok.consumer_count) == (2, 0)
    assert channel.queue_purge(queue).method.message_count == 2


def test_delete_conditions(connection, name):
    channel = connection.channel()
    channel.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"x")
    assert closed(channel.queue_delete, name, if_empty=True) == (406, f"PRECONDITION_FAILED - queue '{name}' in vhost '/' not empty")
    channel = connection.channel()
    assert channel.queue_delete(name).method.message_count == 1
    assert channel.queue_delete(name).method.message_count == 0


def test_auto_delete_after_the_last_consumer(channel, name):
    channel.queue_declare(name, auto_delete=True, durable=True)
    tag = channel.basic_consume(name, lambda *a: None)
    channel.basic_cancel(tag)
    assert closed(channel.queue_declare, name, passive=True)[0] == 404


def test_queue_expires(connection, name):
    channel = connection.channel()
    channel.queue_declare(name, durable=True, arguments={"x-expires": 300})
    connection.process_data_events(time_limit=1)
    assert closed(channel.queue_declare, name, passive=True)[0] == 404


def test_purge_and_max_length(channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-max-length": 3})
    for i in range(10):
        channel.basic_publish("", name, b"%d" % i)
    assert bodies(channel, name) == [b"7", b"8", b"9"]


def test_max_length_bytes(channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-max-length-bytes": 10})
    for i in range(5):
        channel.basic_publish("", name, b"%d" % i * 4)
    assert bodies(channel, name) == [b"3333", b"4444"]


def test_reject_publish_is_nacked(channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-max-length": 1, "x-overflow": "reject-publish"})
    channel.confirm_delivery()
    channel.basic_publish("", name, b"1")
    with pytest.raises(NackError):
        channel.basic_publish("", name, b"2")
    assert bodies(channel, name) == [b"1"]


def test_priorities(channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-max-priority": 10})
    for p in [1, 5, None, 10, 5, 200]:
        channel.basic_publish("", name, str(p).encode(), pika.BasicProperties(priority=p))
    assert bodies(channel, name) == [b"10", b"200", b"5", b"5", b"1", b"None"]


# ---- publishing -----------------------------------------------------------------------------------

@smoke
def test_properties_and_headers_come_back(channel, queue):
    headers = {"int": 1, "big": 1 << 40, "bool": True, "text": "é", "list": [1, "two", None], "nested": {"a": {"b": 1}}, "none": None, "bytes": b"\x00\xff"}
    sent = pika.BasicProperties(
        content_type="text/plain", content_encoding="utf-8", headers=headers, delivery_mode=2, priority=3,
        correlation_id="c", reply_to="r", expiration="100000", message_id="m", timestamp=1700000000, type="t",
        user_id="guest", app_id="a", cluster_id="cl")
    channel.basic_publish("", queue, b"body", sent)
    method, properties, body = get(channel, queue)
    assert body == b"body" and vars(properties)["headers"]["nested"] == {"a": {"b": 1}}
    for field in ["content_type", "content_encoding", "delivery_mode", "priority", "correlation_id", "reply_to",
                  "expiration", "message_id", "timestamp", "type", "user_id", "app_id", "cluster_id"]:
        assert getattr(properties, field) == getattr(sent, field), field
    assert properties.headers["list"] == [1, "two", None] and properties.headers["big"] == 1 << 40


@pytest.mark.parametrize("size", [0, 1, 131064, 131065, 5 << 20])
def test_bodies_of_any_size(channel, queue, size):
    body = bytes(i % 251 for i in range(min(size, 1000))) * (size // 1000 + 1)
    body = body[:size]
    channel.basic_publish("", queue, body)
    assert get(channel, queue)[2] == body


@smoke
def test_mandatory_returns_before_the_confirm(channel):
    channel.confirm_delivery()
    with pytest.raises(UnroutableError) as e:
        channel.basic_publish("", "no-such-queue", b"x", mandatory=True)
    returned = e.value.messages[0]
    assert (returned.method.reply_code, returned.method.reply_text, returned.body) == (312, "NO_ROUTE", b"x")


@pytest.mark.parametrize("text, problem", [
    ("abc", "no_integer"), ("10x", '{leftover_string,"x"}'), ("-1", "{value_negative,-1}"),
])
def test_invalid_expiration(channel, queue, text, problem):
    channel.basic_publish("", queue, b"x", pika.BasicProperties(expiration=text))
    assert closed(channel.queue_declare, queue, passive=True) == (406, f"PRECONDITION_FAILED - invalid expiration '{text}': {problem}")


def test_wrong_user_id(channel, queue):
    channel.basic_publish("", queue, b"x", pika.BasicProperties(user_id="other"))
    code, text = closed(channel.queue_declare, queue, passive=True)
    assert (code, text) == (406, "PRECONDITION_FAILED - user_id property set to 'other' but authenticated user was 'guest'")


def test_immediate_is_not_implemented(connect):
    connection = connect()
    channel = connection.channel()
    channel._impl._send_method(pika.spec.Basic.Publish(exchange="", routing_key="x", immediate=True), (pika.BasicProperties(), b""))
    with pytest.raises(ConnectionClosedByBroker) as e:
        connection.process_data_events(time_limit=5)
    assert (e.value.reply_code, e.value.reply_text) == (540, "NOT_IMPLEMENTED - immediate=true")


# ---- routing --------------------------------------------------------------------------------------

def routed(channel, exchange, kind, bindings, messages):
    """Which bodies arrive, when these (key, arguments) bindings exist."""
    channel.exchange_declare(exchange, kind, auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    for key, arguments in bindings:
        channel.queue_bind(queue, exchange, key, arguments)
    for i, (key, headers) in enumerate(messages):
        channel.basic_publish(exchange, key, b"%d" % i, pika.BasicProperties(headers=headers))
    return bodies(channel, queue)


def test_direct(channel, name):
    assert routed(channel, name, "direct", [("a", None), ("b", None)], [("a", None), ("c", None), ("b", None)]) == [b"0", b"2"]


def test_fanout(channel, name):
    assert routed(channel, name, "fanout", [("", None)], [("a", None), ("", None)]) == [b"0", b"1"]


def test_topic(channel, name):
    keys = ["a.b", "a", "a.b.c", "x.b", "", "a..c"]
    got = routed(channel, name, "topic", [("a.*", None), ("*.b.#", None)], [(k, None) for k in keys])
    assert got == [b"0", b"2", b"3"]


def test_topic_hash_matches_nothing_too(channel, name):
    assert routed(channel, name, "topic", [("a.#", None)], [("a", None), ("a.b.c", None), ("b", None)]) == [b"0", b"1"]


def test_headers(channel, name):
    all_ = {"x-match": "all", "a": 1, "b": "two"}
    got = routed(channel, name, "headers", [("", all_)], [("", {"a": 1, "b": "two", "c": 3}), ("", {"a": 1}), ("", {"a": "1", "b": "two"})])
    assert got == [b"0"]


def test_headers_any(channel, name):
    got = routed(channel, name, "headers", [("", {"x-match": "any", "a": 1, "b": 2})], [("", {"b": 2}), ("", {"c": 1}), ("", {"a": 1})])
    assert got == [b"0", b"2"]


def test_invalid_x_match(channel, name):
    queue = channel.queue_declare("", exclusive=True).method.queue
    code, text = closed(channel.queue_bind, queue, "amq.headers", "", {"x-match": "foo"})
    assert (code, text) == (406, 'PRECONDITION_FAILED - Invalid x-match field value <<"foo">>; expected all, any, all-with-x, or any-with-x')


def test_exchange_to_exchange_with_a_cycle(channel, name):
    a, b = name + "a", name + "b"
    for x in (a, b):
        channel.exchange_declare(x, "fanout", auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.exchange_bind(b, a)
    channel.exchange_bind(a, b)
    channel.queue_bind(queue, a)
    channel.queue_bind(queue, b)
    channel.basic_publish(a, "k", b"once")
    assert bodies(channel, queue) == [b"once"]
    channel.exchange_delete(a)
    channel.exchange_delete(b)


def test_alternate_exchange(channel, name):
    channel.exchange_declare(name + "ae", "fanout", auto_delete=True)
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, name + "ae")
    channel.exchange_declare(name, "direct", auto_delete=False, arguments={"alternate-exchange": name + "ae"})
    channel.confirm_delivery()
    channel.basic_publish(name, "nobody", b"lost and found", mandatory=True)
    assert get(channel, queue)[2] == b"lost and found"
    channel.exchange_delete(name)


def test_internal_exchange(channel, name):
    channel.exchange_declare(name, "fanout", internal=True, auto_delete=True)
    channel.basic_publish(name, "", b"x")
    code, text = closed(channel.exchange_delete, name)
    assert (code, text) == (403, f"ACCESS_REFUSED - cannot publish to internal exchange '{name}' in vhost '/'")


def test_exchange_in_use(connection, name):
    channel = connection.channel()
    channel.exchange_declare(name, "fanout")
    queue = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_bind(queue, name)
    assert closed(channel.exchange_delete, name, if_unused=True) == (406, f"PRECONDITION_FAILED - exchange '{name}' in vhost '/' in use")
    connection.channel().exchange_delete(name)


def test_cc_and_bcc(channel):
    queues = [channel.queue_declare("", exclusive=True).method.queue for _ in range(3)]
    channel.basic_publish("", queues[0], b"x", pika.BasicProperties(headers={"CC": [queues[1]], "BCC": [queues[2]]}))
    for queue in queues:
        _, properties, body = get(channel, queue)
        assert body == b"x" and properties.headers == {"CC": [queues[1]]}


# ---- consuming ------------------------------------------------------------------------------------

@smoke
def test_prefetch_and_multiple_acks(connection, channel, queue):
    for i in range(10):
        channel.basic_publish("", queue, b"%d" % i)
    channel.basic_qos(prefetch_count=3)
    got = []
    channel.basic_consume(queue, lambda ch, m, p, b: got.append((m.delivery_tag, b)))
    wait_for(connection, lambda: len(got) == 3)
    assert got == [(1, b"0"), (2, b"1"), (3, b"2")]
    channel.basic_ack(2, multiple=True)
    wait_for(connection, lambda: len(got) == 5)
    assert [b for _, b in got] == [b"0", b"1", b"2", b"3", b"4"]


def test_requeue_goes_to_the_original_position(channel, queue):
    for i in range(4):
        channel.basic_publish("", queue, b"%d" % i)
    tags = [get(channel, queue, auto_ack=False)[0].delivery_tag for _ in range(3)]
    channel.basic_nack(tags[2], multiple=True, requeue=True)
    again = [get(channel, queue, auto_ack=False) for _ in range(4)]
    assert [(b, m.redelivered) for m, _, b in again] == [(b"0", True), (b"1", True), (b"2", True), (b"3", False)]


def test_unacked_come_back_when_the_channel_closes(connection, queue, channel):
    channel.basic_publish("", queue, b"x")
    second = connection.channel()
    get(second, queue, auto_ack=False)
    second.close()
    method, _, body = get(channel, queue)
    assert (body, method.redelivered) == (b"x", True)


def test_recover(channel, queue):
    channel.basic_publish("", queue, b"x")
    get(channel, queue, auto_ack=False)
    channel.basic_recover(requeue=True)
    assert get(channel, queue)[0].redelivered


def test_round_robin(connection, channel, queue):
    got = {"a": 0, "b": 0}
    for tag in got:
        channel.basic_consume(queue, lambda ch, m, p, b: got.__setitem__(m.consumer_tag, got[m.consumer_tag] + 1), consumer_tag=tag, auto_ack=True)
    for _ in range(10):
        channel.basic_publish("", queue, b"x")
    wait_for(connection, lambda: sum(got.values()) == 10)
    assert got == {"a": 5, "b": 5}


def test_exclusive_consumer(connection, queue, channel):
    channel.basic_consume(queue, lambda *a: None, exclusive=True)
    code, text = closed(connection.channel().basic_consume, queue, lambda *a: None)
    assert (code, text) == (403, f"ACCESS_REFUSED - queue '{queue}' in vhost '/' in exclusive use")


def test_consumer_priority(connection, channel, queue):
    got = []
    channel.basic_consume(queue, lambda ch, m, p, b: got.append("low"), auto_ack=True)
    channel.basic_consume(queue, lambda ch, m, p, b: got.append("high"), auto_ack=True, arguments={"x-priority": 10})
    for _ in range(5):
        channel.basic_publish("", queue, b"x")
    wait_for(connection, lambda: len(got) == 5)
    assert got == ["high"] * 5


def test_cancel_is_notified_when_the_queue_goes(connect, name):
    consumer, other = connect(), connect()
    channel = consumer.channel()
    channel.queue_declare(name, durable=True)
    cancelled = []
    channel.add_on_cancel_callback(cancelled.append)
    tag = channel.basic_consume(name, lambda *a: None)
    other.channel().queue_delete(name)
    wait_for(consumer, lambda: cancelled)
    assert cancelled and cancelled[0].method.consumer_tag == tag


# ---- time and death -------------------------------------------------------------------------------

def test_message_ttl(connection, channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 100})
    channel.basic_publish("", name, b"x")
    channel.basic_publish("", name, b"y", pika.BasicProperties(expiration="100000"))
    connection.process_data_events(time_limit=0.6)
    assert channel.queue_declare(name, passive=True).method.message_count == 0


def test_dead_letter_headers(channel, name):
    dead = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_declare(name, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    channel.basic_publish("", name, b"x", pika.BasicProperties(headers={"mine": 1}, expiration="100000"))
    method, _, _ = get(channel, name, auto_ack=False)
    channel.basic_reject(method.delivery_tag, requeue=False)
    method, properties, body = get(channel, dead)
    h = properties.headers
    death = h["x-death"][0]
    assert body == b"x" and h["mine"] == 1 and properties.expiration is None
    assert set(death) == {"count", "reason", "queue", "time", "exchange", "routing-keys", "original-expiration"}
    assert (death["count"], death["reason"], death["queue"]) == (1, "rejected", name)
    assert (death["exchange"], death["routing-keys"], death["original-expiration"]) == ("", [name], "100000")
    for which in ("first", "last"):
        assert (h[f"x-{which}-death-reason"], h[f"x-{which}-death-queue"], h[f"x-{which}-death-exchange"]) == ("rejected", name, "")


def test_retry_through_a_ttl_queue_counts(channel, name):
    wait = name + "-wait"
    channel.queue_declare(name, exclusive=True, arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": wait})
    channel.queue_declare(wait, exclusive=True, arguments={"x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
    channel.basic_publish("", name, b"x")
    for i in range(3):
        method, properties, _ = get(channel, name, auto_ack=False)
        counts = {(d["queue"], d["reason"]): d["count"] for d in (properties.headers or {}).get("x-death", [])}
        assert counts == ({} if i == 0 else {(name, "rejected"): i, (wait, "expired"): i})
        channel.basic_reject(method.delivery_tag, requeue=False)


def test_an_automatic_cycle_is_broken(connection, channel, name):
    channel.queue_declare(name, exclusive=True, arguments={"x-message-ttl": 50, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": name})
    channel.basic_publish("", name, b"x")
    connection.process_data_events(time_limit=0.5)
    assert channel.queue_declare(name, passive=True).method.message_count == 0


def test_maxlen_is_dead_lettered(channel, name):
    dead = channel.queue_declare("", exclusive=True).method.queue
    channel.queue_declare(name, exclusive=True, arguments={"x-max-length": 1, "x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead})
    channel.basic_publish("", name, b"1")
    channel.basic_publish("", name, b"2")
    _, properties, body = get(channel, dead)
    assert body == b"1" and properties.headers["x-death"][0]["reason"] == "maxlen"


# ---- direct reply-to ------------------------------------------------------------------------------

@smoke
def test_direct_reply_to(connect, name):
    client, server = connect(), connect()
    channel = client.channel()
    replies = []
    channel.basic_consume("amq.rabbitmq.reply-to", lambda ch, m, p, b: replies.append((m.exchange, b)), auto_ack=True)
    worker = server.channel()
    worker.queue_declare(name, exclusive=True)
    channel.basic_publish("", name, b"question", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    _, properties, _ = get(worker, name)
    assert properties.reply_to.startswith("amq.rabbitmq.reply-to.")
    worker.queue_declare(properties.reply_to, passive=True)
    worker.basic_publish("", properties.reply_to, b"answer")
    wait_for(client, lambda: replies)
    assert replies == [("", b"answer")]


def test_direct_reply_to_needs_its_consumer(connection, channel, queue):
    channel.basic_publish("", queue, b"x", pika.BasicProperties(reply_to="amq.rabbitmq.reply-to"))
    assert closed(channel.queue_declare, queue, passive=True) == (406, "PRECONDITION_FAILED - fast reply consumer does not exist")
    code, text = closed(connection.channel().basic_consume, "amq.rabbitmq.reply-to", lambda *a: None)
    assert (code, text) == (406, "PRECONDITION_FAILED - reply consumer cannot acknowledge")
