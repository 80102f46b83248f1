"""Where messages go."""

from conversation import conversation, conversations


def routed(broker, kind, bindings, messages, arguments=None):
    """Which of the queues, one per binding, get each message."""
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), kind, arguments)
    for at, (key, more) in enumerate(bindings):
        channel.declare(broker.name(f"q{at}"))
        channel.bind(broker.name(f"q{at}"), broker.name("x"), key, more)
    for at, (key, properties) in enumerate(messages):
        channel.put(broker.name("x"), key, f"m{at}", mandatory=True, **properties)
    for at in range(len(bindings)):
        while (item := channel.get(broker.name(f"q{at}"))) and item[0] == "basic.get-ok":
            pass


TOPICS = ["a.b", "a.b.c", "a", "", "a.", ".a", "a..b", "x"]


@conversations({repr(key): (key,) for key in ("a.b", "*", "#", "*.*", "a.*", "a.#", "#.b", "*.b.*", "a.#.c", "#.#", "", "a.*.#", "..", "*.", "#.*")})
def topic(broker, key):
    routed(broker, "topic", [(key, None)], [(each, {}) for each in TOPICS])


HEADERS = [{}, {"a": 1}, {"a": "1"}, {"a": 1.0}, {"a": 1, "b": 2}, {"a": 2, "b": 2}, {"x-a": 1}, {"a": True}, {"a": None}]


@conversations(
    {
        "nothing": ({},),
        "all of nothing": ({"x-match": "all"},),
        "any of nothing": ({"x-match": "any"},),
        "all": ({"x-match": "all", "a": 1, "b": 2},),
        "any": ({"x-match": "any", "a": 1, "b": 2},),
        "without x-match": ({"a": 1},),
        "presence": ({"a": None},),
        "x without with-x": ({"x-match": "all", "x-a": 1},),
        "all with x": ({"x-match": "all-with-x", "x-a": 1},),
        "any with x": ({"x-match": "any-with-x", "x-a": 1, "a": 2},),
    }
)
def headers(broker, arguments):
    routed(broker, "headers", [("", arguments)], [("k", {"headers": each}) for each in HEADERS] + [("k", {})])


@conversation
def direct(broker):
    routed(broker, "direct", [("a", None), ("a", None), ("b", None), ("", None)], [("a", {}), ("b", {}), ("", {}), ("c", {})])


@conversation
def fanout(broker):
    routed(broker, "fanout", [("a", None), ("b", None)], [("a", {}), ("", {})])


@conversations({"CC": ({"CC": ["b", "c"]},), "BCC": ({"BCC": ["b"]},), "both": ({"CC": ["b"], "BCC": ["c"]},), "the same": ({"CC": ["a", "a"]},), "empty": ({"CC": []},), "mixed types": ({"CC": ["b", 1]},)})
def copies(broker, headers):
    routed(broker, "direct", [("a", None), ("b", None), ("c", None)], [("a", {"headers": headers})])


@conversations({"text": ({"CC": "b"},), "int": ({"CC": 1},), "BCC text": ({"BCC": "b"},), "table": ({"CC": {}},)})
def copies_of_the_wrong_type(broker, headers):
    channel = broker.channel()
    channel.publish("amq.direct", "a", "m", headers=headers)
    channel.sync()


@conversation
def copies_by_the_default_exchange(broker):
    channel = broker.channel()
    channel.confirm()
    for name in "ab":
        channel.declare(broker.name(name))
    channel.put("", broker.name("a"), "m", headers={"CC": [broker.name("b")]})
    channel.get(broker.name("a"))
    channel.get(broker.name("b"))


@conversation
def exchanges_in_a_row(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "fanout")
    channel.exchange(broker.name("y"), "topic")
    channel.declare(broker.name("q"))
    channel.call("exchange.bind", destination=broker.name("y"), source=broker.name("x"), routing_key="ignored")
    channel.bind(broker.name("q"), broker.name("y"), "a.*")
    channel.bind(broker.name("q"), broker.name("x"))
    channel.put(broker.name("x"), "a.b", "once")
    channel.call("exchange.unbind", destination=broker.name("y"), source=broker.name("x"), routing_key="ignored")
    channel.put(broker.name("x"), "a.b", "once")
    channel.count(broker.name("q"))


@conversation
def exchanges_in_a_circle(broker):
    channel = broker.channel()
    channel.confirm()
    for name in "xy":
        channel.exchange(broker.name(name), "fanout")
    channel.call("exchange.bind", destination=broker.name("y"), source=broker.name("x"))
    channel.call("exchange.bind", destination=broker.name("x"), source=broker.name("y"))
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("y"))
    channel.put(broker.name("x"), "", "once")
    channel.count(broker.name("q"))


@conversation
def alternate_exchange(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("z"), "fanout")
    channel.exchange(broker.name("y"), "direct", {"alternate-exchange": broker.name("z")})
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": broker.name("y")})
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("z"))
    channel.put(broker.name("x"), "k", "found", mandatory=True)
    channel.get(broker.name("q"))
    channel.call("exchange.delete", exchange=broker.name("z"))
    channel.put(broker.name("x"), "k", "lost", mandatory=True)


@conversation
def alternate_exchange_that_leads_back(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": broker.name("y")})
    channel.exchange(broker.name("y"), "direct", {"alternate-exchange": broker.name("x")})
    channel.put(broker.name("x"), "k", "lost", mandatory=True)


@conversation
def alternate_exchange_that_is_the_default(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "direct", {"alternate-exchange": ""})
    channel.declare(broker.name("q"))
    channel.put(broker.name("x"), broker.name("q"), "m", mandatory=True)
    channel.count(broker.name("q"))


@conversation
def recent_history(broker):
    channel = broker.channel()
    channel.confirm()
    channel.exchange(broker.name("x"), "x-recent-history", {"x-recent-history-length": 2})
    for n in range(3):
        channel.put(broker.name("x"), "k", f"m{n}")
    channel.put(broker.name("x"), "k", "unseen", headers={"x-recent-history-no-store": True})
    channel.declare(broker.name("q"))
    channel.bind(broker.name("q"), broker.name("x"))
    for _ in range(3):
        channel.get(broker.name("q"))
