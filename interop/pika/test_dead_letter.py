"""Dead-lettering: where a message goes, under which key, and what its headers tell about its deaths."""

import datetime

import pika
import pytest

from support import Inbox, channel_closed, drain, publish, ready


@pytest.fixture
def rest(channel, exchange, bound):
    """The dead-letter exchange, and the queue behind it."""
    name = exchange("fanout")
    return name, bound(name)


@pytest.fixture
def source(channel, name, rest):
    """Declares a queue that dead-letters to `rest` unless told otherwise."""

    def declare(**arguments):
        arguments = {"x-dead-letter-exchange": rest[0], **{k.replace("_", "-"): v for k, v in arguments.items()}}
        return channel.queue_declare(name("source"), exclusive=True, arguments=arguments).method.queue

    return declare


def take(channel, queue):
    """Waits for one message of the queue and settles it."""
    inbox = Inbox(channel, queue)
    method, properties, body = inbox.wait(1)[0]
    channel.basic_ack(method.delivery_tag)
    channel.basic_cancel(inbox.tag)
    return method, properties, body


def reject(channel, queue):
    method, _, _ = channel.basic_get(queue)
    channel.basic_reject(method.delivery_tag, requeue=False)


def utc_now():
    return datetime.datetime.now(datetime.timezone.utc)


def first_and_last(headers):
    return {key: value for key, value in headers.items() if key.startswith(("x-first-death-", "x-last-death-"))}


def test_a_rejected_message_tells_its_death_exactly(channel, source, rest, exchange):
    origin, queue = exchange("direct"), source()
    channel.queue_bind(queue, origin, "key")
    before = utc_now()
    publish(channel, origin, "key", b"body", headers={"mine": 1}, content_type="text/plain", delivery_mode=2, priority=3)
    [(method, _, _)] = Inbox(channel, queue).wait(1)
    channel.basic_reject(method.delivery_tag, requeue=False)
    method, properties, body = take(channel, rest[1])

    # A rejection is a failed delivery.
    assert (method.exchange, method.routing_key, method.redelivered, body) == (rest[0], "key", True, b"body")
    assert (properties.content_type, properties.delivery_mode, properties.priority) == ("text/plain", 2, 3)
    headers = dict(properties.headers)
    [death] = headers.pop("x-death")
    time = death.pop("time")
    assert death == {"count": 1, "reason": "rejected", "queue": queue, "exchange": origin, "routing-keys": ["key"]}
    assert abs((time - before).total_seconds()) <= 2
    assert headers == {
        "mine": 1,
        "x-first-death-exchange": origin,
        "x-first-death-queue": queue,
        "x-first-death-reason": "rejected",
        "x-last-death-exchange": origin,
        "x-last-death-queue": queue,
        "x-last-death-reason": "rejected",
    }


@pytest.mark.smoke
def test_an_expired_message_loses_its_expiration_and_keeps_it_in_its_history(channel, source, rest):
    queue = source()
    publish(channel, "", queue, expiration="100")
    _, properties, _ = take(channel, rest[1])
    [death] = properties.headers["x-death"]
    assert properties.expiration is None
    assert (death["reason"], death["original-expiration"], death["exchange"], death["routing-keys"]) == (
        "expired",
        "100",
        "",
        [queue],
    )


def test_a_message_that_expires_by_its_queue_has_no_original_expiration(channel, source, rest):
    publish(channel, "", source(x_message_ttl=100))
    [death] = take(channel, rest[1])[1].headers["x-death"]
    assert death["reason"] == "expired"
    assert "original-expiration" not in death


def test_a_dropped_head_dies_of_maxlen(channel, source, rest):
    queue = source(x_max_length=1)
    publish(channel, "", queue, b"old")
    publish(channel, "", queue, b"new")
    _, properties, body = take(channel, rest[1])
    assert (body, properties.headers["x-death"][0]["reason"]) == (b"old", "maxlen")
    assert drain(channel, queue) == [b"new"]


def test_a_dead_letter_routing_key_replaces_the_keys(channel, source, exchange, bound):
    """The CC header stays where it is, for the consumer to read; it routes no more."""
    direct = exchange("direct")
    queue = source(x_dead_letter_exchange=direct, x_dead_letter_routing_key="other")
    by_name, by_cc, by_other = bound(direct, queue), bound(direct, "cc"), bound(direct, "other")
    publish(channel, "", queue, headers={"CC": ["cc"], "BCC": ["bcc"]})
    reject(channel, queue)
    method, properties, _ = take(channel, by_other)
    assert method.routing_key == "other"
    assert (properties.headers["CC"], "BCC" in properties.headers) == (["cc"], False)
    assert properties.headers["x-death"][0]["routing-keys"] == [queue, "cc"]
    assert (ready(channel, by_name), ready(channel, by_cc)) == (0, 0)


def test_without_a_dead_letter_routing_key_the_keys_stay(channel, source, exchange, bound):
    direct = exchange("direct")
    by_name_queue, by_cc = source(x_dead_letter_exchange=direct), bound(direct, "cc")
    by_name = bound(direct, by_name_queue)
    publish(channel, "", by_name_queue, headers={"CC": ["cc"]})
    reject(channel, by_name_queue)
    for each in (by_name, by_cc):
        method, properties, _ = take(channel, each)
        assert method.routing_key == by_name_queue
        assert properties.headers["CC"] == ["cc"]


def test_the_default_exchange_is_a_dead_letter_exchange_like_others(channel, source, rest):
    queue = source(x_dead_letter_exchange="", x_dead_letter_routing_key=rest[1])
    publish(channel, "", queue, b"1")
    reject(channel, queue)
    method, _, body = take(channel, rest[1])
    assert (method.exchange, method.routing_key, body) == ("", rest[1], b"1")


def test_nack_multiple_dead_letters_in_order(channel, source, rest):
    queue = source()
    for number in range(5):
        publish(channel, "", queue, b"%d" % number)
    for _ in range(5):
        channel.basic_get(queue)
    channel.basic_nack(0, multiple=True, requeue=False)
    inbox = Inbox(channel, rest[1])
    inbox.wait(5)
    assert inbox.bodies == [b"%d" % number for number in range(5)]


@pytest.fixture
def retry(channel, name):
    """The retry topology of the text books: work rejects to wait, wait expires back to work."""
    work, wait = name("work"), name("wait")
    for queue, target, more in ((work, wait, {}), (wait, work, {"x-message-ttl": 100})):
        arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": target, **more}
        channel.queue_declare(queue, arguments=arguments)
    return work, wait


def test_a_retry_loop_counts_its_rounds(channel, retry):
    work, wait = retry
    inbox = Inbox(channel, work)
    publish(channel, "", work, b"again and again")
    for attempt in range(1, 5):
        method, properties, _ = inbox.wait(attempt)[attempt - 1]
        if attempt > 1:
            deaths = properties.headers["x-death"]
            assert [(d["queue"], d["reason"], d["count"]) for d in deaths] == [
                (wait, "expired", attempt - 1),
                (work, "rejected", attempt - 1),
            ]
            assert first_and_last(properties.headers) == {
                "x-first-death-exchange": "",
                "x-first-death-queue": work,
                "x-first-death-reason": "rejected",
                "x-last-death-exchange": "",
                "x-last-death-queue": wait,
                "x-last-death-reason": "expired",
            }
        channel.basic_reject(method.delivery_tag, requeue=False)


def test_the_time_of_a_death_is_that_of_the_first(channel, retry):
    work, _ = retry
    inbox = Inbox(channel, work)
    publish(channel, "", work)
    times = []
    for attempt in range(1, 14):
        method, properties, _ = inbox.wait(attempt)[attempt - 1]
        if attempt > 1:
            times.append(properties.headers["x-death"][0]["time"])
        channel.basic_reject(method.delivery_tag, requeue=False)
    assert len(set(times)) == 1


def test_a_cycle_without_a_rejection_ends(channel, exchange, name):
    """Expired, and dead-lettered to the queue where it expired: it is dropped instead of going round for ever."""
    witness = exchange("fanout")
    looping, seen = name("looping"), name("seen")
    channel.queue_declare(looping, arguments={"x-message-ttl": 100, "x-dead-letter-exchange": witness})
    channel.queue_declare(seen)
    channel.queue_bind(looping, witness)
    channel.queue_bind(seen, witness)
    publish(channel, "", looping, b"round")
    _, properties, _ = take(channel, seen)
    assert properties.headers["x-death"][0]["count"] == 1
    assert ready(channel, looping) == 0, "it did not come back"


def test_a_cycle_with_a_rejection_goes_on(channel, name):
    looping = name("looping")
    arguments = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": looping}
    channel.queue_declare(looping, arguments=arguments)
    inbox = Inbox(channel, looping)
    publish(channel, "", looping)
    for round_number in range(1, 4):
        method, properties, _ = inbox.wait(round_number)[round_number - 1]
        channel.basic_reject(method.delivery_tag, requeue=False)
    [death] = inbox.wait(4)[3][1].headers["x-death"]
    assert (death["count"], death["reason"]) == (3, "rejected")


def test_a_history_sent_by_a_client_is_not_taken_for_our_own(channel, source, rest):
    queue = source()
    forged = [{"queue": queue, "reason": "rejected", "count": 41, "exchange": "", "routing-keys": [queue]}]
    publish(channel, "", queue, headers={"x-death": forged})
    reject(channel, queue)
    deaths = take(channel, rest[1])[1].headers["x-death"]
    assert deaths[0]["count"] == 1


def test_a_missing_dead_letter_exchange_drops(channel, source):
    queue = source(x_dead_letter_exchange="no-such-exchange")
    publish(channel, "", queue)
    reject(channel, queue)
    assert ready(channel, queue) == 0


def test_neither_purge_nor_delete_dead_letters(channel, source, rest):
    purged, deleted = source(), source()
    publish(channel, "", purged)
    publish(channel, "", deleted)
    channel.queue_purge(purged)
    channel.queue_delete(deleted)
    publish(channel, rest[0], "", b"mark")
    assert take(channel, rest[1])[2] == b"mark"


def test_a_dead_letter_routing_key_alone_is_406(channel, name):
    refused = name("source")
    text = (
        "PRECONDITION_FAILED - invalid arg 'x-dead-letter-routing-key' for queue "
        f"'{refused}' in vhost '/': routing_key_but_no_dlx_defined"
    )
    with channel_closed(406, text):
        channel.queue_declare(refused, arguments={"x-dead-letter-routing-key": "key"})


def test_dead_letters_pass_through_several_queues(channel, source, rest):
    """Each queue adds its entry at the front; the first death stays the first."""
    second = source(x_message_ttl=50)
    first = source(x_dead_letter_exchange="", x_dead_letter_routing_key=second, x_max_length=0)
    publish(channel, "", first, b"travelling", expiration="60000")
    method, properties, _ = take(channel, rest[1])
    assert method.routing_key == second
    assert [(d["queue"], d["reason"], d["exchange"], d["routing-keys"]) for d in properties.headers["x-death"]] == [
        (second, "expired", "", [second]),
        (first, "maxlen", "", [first]),
    ]
    assert first_and_last(properties.headers)["x-first-death-queue"] == first
    assert first_and_last(properties.headers)["x-last-death-queue"] == second
    assert properties.headers["x-death"][1]["original-expiration"] == "60000"


def test_timestamps_of_deaths_do_not_touch_the_timestamp_of_the_message(channel, source, rest):
    queue = source()
    channel.basic_publish("", queue, b"", pika.BasicProperties(timestamp=1234567890))
    reject(channel, queue)
    assert take(channel, rest[1])[1].timestamp == 1234567890
