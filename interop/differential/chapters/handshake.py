"""Protocol header, login, negotiation, opening, closing."""

import amqp
from amqp import As
from conversation import CAPABILITIES, conversation, conversations

HEADER = b"AMQP\0\0\x09\x01"


def begun(broker):
    """A connection that has read connection.start."""
    connection = broker.socket()
    connection.write(HEADER)
    noted = len(broker.lines)
    connection.read()
    del broker.lines[noted:]
    return connection


def tuned(broker):
    """A connection that has read connection.tune."""
    connection = begun(broker)
    noted = len(broker.lines)
    login(connection)
    del broker.lines[noted:]
    return connection


def login(connection, mechanism="PLAIN", response="\0guest\0guest", capable=True, **more):
    properties = {"capabilities": dict.fromkeys(CAPABILITIES, True)} if capable else {}
    return connection.call("connection.start-ok", client_properties=properties | more, mechanism=mechanism, response=response, locale="en_US")


@conversations(
    {
        "0-9-1": (HEADER,),
        "0-9": (b"AMQP\x01\x01\0\x09",),
    }
)
def header_accepted(broker, header):
    connection = broker.socket()
    connection.say(header)
    noted = len(broker.lines)
    name, values, _, _ = connection.read()
    del broker.lines[noted:]
    properties = values["server_properties"]
    connection.note(0, f"< {name} {values['version_major']}-{values['version_minor']} locales={values['locales']}")
    connection.note(0, f"  product {amqp.shown(properties['product'])}, version {properties['version'].value.rsplit('.', 1)[0]}.x")
    connection.note(0, f"  capabilities {amqp.shown(properties['capabilities'])}")


@conversation
def mechanisms(broker):
    connection = broker.socket()
    connection.say(HEADER)
    noted = len(broker.lines)
    values = connection.read()[1]
    del broker.lines[noted:]
    # RabbitMQ's order is another after each start.
    connection.note(0, f"  mechanisms {' '.join(sorted(values['mechanisms'].split()))}")


@conversation
def server_properties(broker):
    connection = broker.socket()
    connection.say(HEADER)
    noted = len(broker.lines)
    values = connection.read()[1]
    del broker.lines[noted:]
    for key in sorted(values["server_properties"]):
        connection.note(0, f"  {key}: type {values['server_properties'][key].type}")


@conversations(
    {
        "0-9-2": (b"AMQP\0\0\x09\x02",),
        "0-10": (b"AMQP\x01\x01\0\x0a",),
        "0-8": (b"AMQP\x01\x01\x08\0",),
        "nonsense": (b"AMQPPQMA",),
        "HTTP": (b"GET / HTTP/1.1\r\n\r\n",),
        "zeros": (b"\0" * 8,),
    }
)
def header_refused(broker, header):
    connection = broker.socket()
    connection.say(header)
    connection.ended()


@conversation
def tune(broker):
    login(begun(broker))


@conversations(
    {
        "AMQPLAIN": ("AMQPLAIN", amqp.table({"LOGIN": "guest", "PASSWORD": "guest"})[4:]),
        "ANONYMOUS": ("ANONYMOUS", "whoever"),
    }
)
def login_accepted(broker, mechanism, response):
    login(begun(broker), mechanism, response)


WRONG = {
    "wrong password": ("PLAIN", "\0guest\0wrong"),
    "unknown user": ("PLAIN", "\0nobody\0guest"),
    "empty password": ("PLAIN", "\0guest\0"),
    "user not UTF-8": ("PLAIN", b"\0gu\xff\0guest"),
    "AMQPLAIN user not UTF-8": ("AMQPLAIN", amqp.table({"LOGIN": As("S", b"gu\xff"), "PASSWORD": "guest"})[4:]),
    "AMQPLAIN wrong password": ("AMQPLAIN", amqp.table({"LOGIN": "guest", "PASSWORD": "wrong"})[4:]),
}


@conversations(WRONG)
def login_refused(broker, mechanism, response):
    connection = begun(broker)
    login(connection, mechanism, response)
    connection.ended()


@conversations(WRONG)
def login_refused_without_the_capability(broker, mechanism, response):
    connection = begun(broker)
    login(connection, mechanism, response, capable=False)
    connection.ended()


@conversations(
    {
        "unknown mechanism": ("NONSENSE", "x"),
        "empty mechanism": ("", "x"),
        "lower case": ("plain", "\0guest\0guest"),
        "PLAIN without separators": ("PLAIN", "guest"),
        "PLAIN empty": ("PLAIN", ""),
        "PLAIN one separator": ("PLAIN", "\0guest"),
        "PLAIN with an authorization identity": ("PLAIN", "guest\0guest\0guest"),
        "PLAIN with the identity of another": ("PLAIN", "admin\0guest\0guest"),
        "PLAIN three separators": ("PLAIN", "\0guest\0guest\0"),
        "AMQPLAIN without password": ("AMQPLAIN", amqp.table({"LOGIN": "guest"})[4:]),
        "AMQPLAIN empty": ("AMQPLAIN", ""),
        "AMQPLAIN not a table": ("AMQPLAIN", "nonsense"),
        "AMQPLAIN number as password": ("AMQPLAIN", amqp.table({"LOGIN": "guest", "PASSWORD": 1})[4:]),
    }
)
def login_malformed(broker, mechanism, response):
    connection = begun(broker)
    login(connection, mechanism, response)
    connection.ended()


@conversations(
    {
        "lower": (100, 8192, 30),
        "frame_max 4096": (100, 4096, 30),
        "frame_max 8192": (100, 8192, 30),
        "frame_max 8191": (100, 8191, 30),
        "frame_max 4095": (100, 4095, 30),
        "frame_max 100": (100, 100, 30),
        "frame_max 131072": (100, 131072, 30),
        "frame_max 131073": (100, 131073, 30),
        "frame_max 0": (100, 0, 30),
        "channel_max 1": (1, 131072, 30),
        "channel_max 2047": (2047, 131072, 30),
        "channel_max 2048": (2048, 131072, 30),
        "channel_max 65535": (65535, 131072, 30),
        "channel_max 0": (0, 131072, 30),
        "heartbeat 0": (100, 131072, 0),
        "heartbeat 600": (100, 131072, 600),
    }
)
def negotiation(broker, channel_max, frame_max, heartbeat):
    connection = tuned(broker)
    connection.send("connection.tune-ok", channel_max=channel_max, frame_max=frame_max, heartbeat=heartbeat)
    connection.call("connection.open", virtual_host="/")
    if connection.closed:
        connection.ended()


@conversations({"unknown": ("no-such-vhost",), "empty": ("",), "a slash too many": ("//",)})
def open_vhost(broker, vhost):
    connection = tuned(broker)
    connection.send("connection.tune-ok", channel_max=100, frame_max=131072, heartbeat=0)
    connection.call("connection.open", virtual_host=vhost)
    connection.ended()


@conversation
def close(broker):
    connection = broker.connect()
    connection.shut()


@conversation
def close_with_channels_open(broker):
    channel = broker.channel()
    channel.declare(broker.name("q"), exclusive=True)
    channel.connection.shut()
    other = broker.channel()
    other.declare(broker.name("q"), exclusive=True)


@conversation
def close_before_open(broker):
    connection = tuned(broker)
    connection.shut()


@conversation
def methods_after_close_are_ignored(broker):
    connection = broker.connect()
    channel = connection.channel()
    connection.send("connection.close", reply_code=200, reply_text="bye")
    channel.send("queue.declare", queue=broker.name("q"))
    connection.read()
    connection.hang_up()


OUT_OF_TURN = {
    "start-ok": ("connection.start-ok", {"mechanism": "PLAIN", "response": "\0guest\0guest", "locale": "en_US"}),
    "secure-ok": ("connection.secure-ok", {}),
    "tune-ok": ("connection.tune-ok", {"channel_max": 1, "frame_max": 131072}),
    "open": ("connection.open", {"virtual_host": "/"}),
    "start": ("connection.start", {}),
    "tune": ("connection.tune", {}),
    "open-ok": ("connection.open-ok", {}),
    "close-ok": ("connection.close-ok", {}),
    "blocked": ("connection.blocked", {}),
    "channel.open": ("channel.open", {}),
    "queue.declare": ("queue.declare", {}),
    "basic.ack": ("basic.ack", {}),
}


@conversations(OUT_OF_TURN)
def out_of_turn_when_running(broker, method, values):
    connection = broker.connect()
    connection.send(method, **values)
    connection.ended()


@conversations({key: OUT_OF_TURN[key] for key in ("tune-ok", "open", "secure-ok", "channel.open", "close-ok")})
def out_of_turn_before_login(broker, method, values):
    connection = begun(broker)
    connection.send(method, **values)
    connection.ended()


@conversations({key: OUT_OF_TURN[key] for key in ("start-ok", "open", "channel.open")})
def out_of_turn_before_tune_ok(broker, method, values):
    connection = tuned(broker)
    connection.send(method, **values)
    connection.ended()


@conversations({"same": ("guest",), "wrong": ("nonsense",), "empty": ("",), "not UTF-8": (b"\xff",)})
def update_secret(broker, secret):
    connection = broker.connect()
    connection.call("connection.update-secret", new_secret=secret, reason="because")
    channel = connection.channel()
    channel.count("amq.nothing")


@conversation
def client_properties_of_all_types(broker):
    login(
        begun(broker),
        **{
            "connection_name": "differential", "product": "differential", "number": 1, "big": 2**40, "flag": True,
            "void": None, "list": [1, "a", [True]], "table": {"a": {"b": 1}}, "float": 1.5, "time": As("T", 1700000000),
            "bytes": As("x", b"\0\1"), "decimal": As("D", (2, 314)), "byte": As("b", -1), "octet": As("B", 255),
            "short": As("s", -2), "unsigned short": As("u", 2), "unsigned": As("i", 3), "unsigned long": As("L", 4), "single": As("f", 0.5),
        },
    )


@conversation
def blocked_capability_absent(broker):
    broker.channel(capabilities=()).count("amq.nothing")
