"""What a conversation is written with: connections and channels that send what they are told and note what comes back.

A conversation is a function with one parameter, the `Broker`. It names what it declares with `broker.name("q")`; in the
transcript that is `q`. Each step notes the frame that it sends (`>`), and the frames that it waits for (`<`), each line
with the number of its connection and channel. Frames of other channels wait until a step asks for them, so that the
order of lines depends on the script alone. A step that needs a channel or connection that is gone notes only that.
"""

import re
import socket
import ssl
import time
import urllib.parse

import amqp
from amqp import As

# A reply that takes longer will not come: the slowest answer of RabbitMQ is the silence of 3 seconds after an error.
REPLY_SECONDS = 15
REPLIES = {
    "basic.get": {"basic.get-ok", "basic.get-empty"},
    "connection.start-ok": {"connection.tune", "connection.secure"},
    "connection.secure-ok": {"connection.tune", "connection.secure"},
}
CAPABILITIES = ("authentication_failure_close", "basic.nack", "connection.blocked", "consumer_cancel_notify", "publisher_confirms")

# ---- the register --------------------------------------------------------------------------------------------------

CONVERSATIONS: dict[str, dict] = {}


def conversation(function):
    """Registers a function under its chapter (the module) and its name."""
    chapter = function.__module__.rsplit(".", 1)[-1]
    CONVERSATIONS.setdefault(chapter, {})
    name = function.__name__.replace("_", " ")
    assert name not in CONVERSATIONS[chapter], f"two conversations are called {name!r}"
    CONVERSATIONS[chapter][name] = function
    return function


def conversations(rows):
    """Registers one conversation for each row of a table: a dict from its label to the further parameters, as a tuple."""

    def register(function):
        chapter = function.__module__.rsplit(".", 1)[-1]
        mine = CONVERSATIONS.setdefault(chapter, {})
        for label, values in rows.items():
            name = f"{function.__name__.replace('_', ' ')}: {label}"
            assert name not in mine, f"two conversations are called {name!r}"
            mine[name] = lambda broker, values=values: function(broker, *values)
        return function

    return register


def values_of(argument: str, *values) -> dict:
    """Rows for `conversations`: one argument with each of several values."""
    return {f"{argument} {amqp.shown(value)}": (argument, value) for value in values}


# ---- the broker ----------------------------------------------------------------------------------------------------


class Broker:
    """The broker under test, and what one conversation with it has noted."""

    def __init__(self, url: str, token: str):
        parts = urllib.parse.urlsplit(url)
        self.address = (parts.hostname, parts.port or (5671 if parts.scheme == "amqps" else 5672))
        self.tls = ssl.create_default_context() if parts.scheme == "amqps" else None
        self.user, self.password = (urllib.parse.unquote(part or "guest") for part in (parts.username, parts.password))
        self.vhost = urllib.parse.unquote(parts.path[1:]) if parts.path else "/"
        self.prefix = f"diff-{token}-"
        self.lines: list[str] = []
        self.names: list[str] = []
        self.generated: dict[str, str] = {}
        self.connections: list[Connection] = []

    def name(self, word: str) -> str:
        """A name for a queue or an exchange that nobody else uses."""
        result = self.prefix + word
        if result not in self.names:
            self.names.append(result)
        return result

    def note(self, line: str) -> None:
        self.lines.append(self.normal(line).replace("\r", "\\r").replace("\n", "\\n"))

    def normal(self, line: str) -> str:
        """The line without what differs from one run to the next."""

        def number(match) -> str:
            kind = match[1]
            count = sum(1 for each in self.generated.values() if each.startswith(kind))
            return self.generated.setdefault(match[0], f"{kind}#{count + 1}")

        line = line.replace(self.prefix, "")
        line = re.sub(r"(amq\.gen-|amq\.ctag-)[A-Za-z0-9_-]{22}(?![A-Za-z0-9_-])", number, line)
        return re.sub(r"(amq\.rabbitmq\.reply-to\.)(?!#)[A-Za-z0-9_.+/=-]{20,}", number, line)

    def socket(self) -> "Connection":
        """A connection on which nothing has been said."""
        return Connection(self)

    def connect(self, **options) -> "Connection":
        """An open connection. What is said on the way is noted only if it goes wrong."""
        result = Connection(self)
        result.open(**options)
        return result

    def channel(self, **options) -> "Channel":
        """A channel on a new connection."""
        return self.connect(**options).channel()

    def close(self) -> None:
        """Ends all connections, and removes what has the names of this conversation."""
        for each in self.connections:
            each.hang_up()
        self.connections, kept = [], list(self.lines)
        names = self.names + [name for name in self.generated if name.startswith("amq.gen-")]
        if names:
            channel = self.channel()
            for name in names:
                channel.call("queue.delete", queue=name)
                if not name.startswith("amq.gen-"):
                    channel.call("exchange.delete", exchange=name)
                if channel.gone():
                    channel = self.channel()
            channel.connection.shut()
        self.lines = kept


class Connection:
    """A connection that sends whatever it is told."""

    def __init__(self, broker: Broker):
        self.broker = broker
        broker.connections.append(self)
        self.number = len(broker.connections)
        self.socket = socket.create_connection(broker.address, timeout=REPLY_SECONDS)
        if broker.tls:
            self.socket = broker.tls.wrap_socket(self.socket, server_hostname=broker.address[0])
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.buffer = b""
        self.inbox: dict[int, list] = {}
        self.waiting_content: dict[int, list] = {}
        self.zero = Channel(self, 0)
        self.closed = False  # nothing can be said any more
        self.at_end = False  # the broker has closed the socket
        self.last_channel = 0
        self.frame_max = 131072

    # -- frames

    def write(self, data: bytes) -> None:
        try:
            self.socket.sendall(data)
        except OSError:
            pass  # the broker has closed it; reading tells what it said before

    def say(self, data: bytes, what: str = "") -> None:
        """Sends any octets."""
        self.note(0, f"> {what or data!r}")
        self.write(data)

    def note(self, channel: int, line: str) -> None:
        self.broker.note(f"{self.number}.{channel} {line}")

    def receive(self, deadline: float):
        """Reads one frame, and files it, together with its content: ("name", values, properties, body) by channel."""
        while len(self.buffer) < 7 or len(self.buffer) < self.frame_octets():
            if self.buffer.startswith(b"AMQP") and len(self.buffer) >= 8:
                header, self.buffer = self.buffer[:8], self.buffer[8:]
                return self.file(0, (f"protocol header {header!r}", {}, None, None))
            self.socket.settimeout(max(0.001, deadline - time.monotonic()))
            try:
                data = self.socket.recv(65536)
            except TimeoutError:
                raise
            except OSError:
                data = b""
            if not data:
                self.closed = self.at_end = True
                return
            self.buffer += data
        size = self.frame_octets()
        one, self.buffer = self.buffer[:size], self.buffer[size:]
        kind, channel, payload = one[0], int.from_bytes(one[1:3], "big"), one[7:-1]
        if one[-1] != amqp.END:
            raise amqp.Malformed(f"frame {one!r}")
        match kind:
            case amqp.METHOD:
                name, values = amqp.read_method(payload)
                if name in amqp.METHODS_WITH_CONTENT:
                    self.waiting_content[channel] = [name, values, None, b"", 0]
                else:
                    self.file(channel, (name, values, None, None))
            case amqp.HEADER:
                waiting = self.waiting_content[channel]
                waiting[4], waiting[2] = amqp.read_header(payload)
            case amqp.BODY:
                self.waiting_content[channel][3] += payload
            case amqp.HEARTBEAT:
                self.file(channel, ("heartbeat", {}, None, None))
        waiting = self.waiting_content.get(channel)
        if waiting and waiting[2] is not None and len(waiting[3]) >= waiting[4]:
            del self.waiting_content[channel]
            self.file(channel, tuple(waiting[:4]))

    def frame_octets(self) -> int:
        return int.from_bytes(self.buffer[3:7], "big") + 8

    def file(self, channel: int, item) -> None:
        self.inbox.setdefault(channel, []).append(item)

    def hang_up(self) -> None:
        """Closes the socket without a word."""
        self.socket.close()
        self.closed = self.at_end = True

    # -- the handshake

    def send(self, name: str, **values) -> None:
        self.zero.send(name, **values)

    def call(self, name: str, **values):
        return self.zero.call(name, **values)

    def read(self, count: int = 1):
        return self.zero.read(count)

    def open(self, user=None, password=None, vhost=None, capabilities=CAPABILITIES, frame_max=131072, properties=None):
        """The handshake, not noted unless it fails."""
        noted = len(self.broker.lines)
        user, password = user or self.broker.user, password or (user and "password") or self.broker.password
        self.write(b"AMQP\0\0\x09\x01")
        self.read()
        if properties is None:
            properties = {"capabilities": dict.fromkeys(capabilities, True)}
        self.call("connection.start-ok", client_properties=properties, mechanism="PLAIN", response=f"\0{user}\0{password}", locale="en_US")
        self.send("connection.tune-ok", channel_max=2047, frame_max=frame_max, heartbeat=0)
        self.frame_max = frame_max
        self.call("connection.open", virtual_host=vhost or self.broker.vhost)
        if not self.closed and self.broker.lines[-1].endswith("connection.open-ok"):
            del self.broker.lines[noted:]

    def channel(self, number: int | None = None) -> "Channel":
        """An open channel; the opening is noted only if it goes wrong."""
        self.last_channel = number or self.last_channel + 1
        result, noted = Channel(self, self.last_channel), len(self.broker.lines)
        result.call("channel.open")
        if not self.closed and self.broker.lines[-1].endswith("channel.open-ok"):
            del self.broker.lines[noted:]
        return result

    def shut(self) -> None:
        """Closes the connection in order. RabbitMQ leaves it to the client to close the socket, too."""
        self.call("connection.close", reply_code=200, reply_text="bye")
        self.hang_up()

    def ended(self) -> None:
        """Waits until the broker has closed the socket; notes what it says on channel 0 before."""
        deadline = time.monotonic() + REPLY_SECONDS
        try:
            while not self.at_end:
                self.receive(deadline)
                for item in self.inbox.pop(0, []):
                    self.zero.take(item)
        except TimeoutError:
            self.note(0, f"< (neither a frame nor the end in {REPLY_SECONDS} s)")
            return self.hang_up()
        self.note(0, "< (end of connection)")


class Channel:
    """A channel. Channel 0 is that of the connection itself."""

    def __init__(self, connection: Connection, number: int):
        self.connection, self.broker, self.number = connection, connection.broker, number
        self.closed = False
        self.settled: set[int] = set()  # the sequence numbers that the broker has confirmed

    def note(self, line: str) -> None:
        self.connection.note(self.number, line)

    def gone(self) -> bool:
        return self.closed or (self.connection.closed and not self.connection.inbox.get(self.number))

    # -- sending

    def send(self, name: str, **values) -> None:
        """Sends a method, and waits for nothing."""
        if self.gone():
            return self.note(f"> {name}: not sent, it is closed")
        self.note(f"> {name} {self.arguments(values)}".rstrip())
        self.connection.write(amqp.method(self.number, name, **values))

    @staticmethod
    def arguments(values: dict) -> str:
        return amqp.shown_arguments(values)

    def frame(self, kind: int, payload: bytes, what: str, end: int = amqp.END) -> None:
        """Sends any frame."""
        self.note(f"> {what}")
        self.connection.write(amqp.frame(kind, self.number, payload, end))

    def publish(self, exchange: str, routing_key: str, body: bytes | str = b"", *, mandatory=False, immediate=False, **properties) -> None:
        """Publishes a message, and waits for nothing."""
        if self.gone():
            return self.note("> basic.publish: not sent, it is closed")
        body = amqp.octets(body)
        values = {"exchange": exchange, "routing_key": routing_key, "mandatory": mandatory, "immediate": immediate}
        self.note(f"> basic.publish {self.content_line(values, properties, body)}")
        data = amqp.method(self.number, "basic.publish", **values)
        self.connection.write(data + amqp.content(self.number, body, properties, self.connection.frame_max))

    @staticmethod
    def content_line(values: dict, properties: dict, body: bytes) -> str:
        return f"{amqp.shown_arguments(values)} ({amqp.shown_properties(properties)}) {amqp.shown_body(body)}".strip()

    # -- receiving

    def next(self, seconds: float = REPLY_SECONDS):
        """The next thing on this channel, or None if its connection ends or nothing comes."""
        deadline, connection = time.monotonic() + seconds, self.connection
        mine, zero = connection.inbox.setdefault(self.number, []), connection.inbox.setdefault(0, [])
        while not mine and not connection.closed and not (zero and self.number):
            try:
                connection.receive(deadline)
            except TimeoutError:
                return None
        return mine.pop(0) if mine else None

    def take(self, item, quiet: bool = False):
        """Notes something received, and answers if it is the end of the channel or connection."""
        name, values, properties, body = item
        if not quiet:
            if body is None:
                self.note(f"< {name} {self.arguments(values)}".rstrip())
            else:
                self.note(f"< {name} {self.content_line(values, properties, body)}")
        if name == "channel.close":
            self.closed = True
            self.connection.write(amqp.method(self.number, "channel.close-ok"))
        elif name == "connection.close":
            self.connection.write(amqp.method(0, "connection.close-ok"))
            self.connection.closed = True
        return item

    def read(self, count: int = 1):
        """Waits for a number of methods (with content) on this channel, and notes them. The last one is the result."""
        for _ in range(count):
            if self.closed:
                return self.note("< nothing: it is closed")
            item = self.next()
            if item is None:
                return self.missing()
            result = self.take(item)
        return result

    def missing(self) -> None:
        """Notes why there is nothing more to read."""
        zero = self.connection.inbox.get(0)
        if zero and self.number:
            self.connection.zero.take(zero.pop(0))
        else:
            self.note("< (end of connection)" if self.connection.closed else f"< (nothing in {REPLY_SECONDS} s)")

    def read_sorted(self, count: int) -> None:
        """As `read`, for methods whose order is left open."""
        before = len(self.broker.lines)
        self.read(count)
        self.broker.lines[before:] = sorted(self.broker.lines[before:])

    def reply(self, wanted: set[str]):
        """Reads until one of the wanted methods, or the end of channel or connection."""
        while item := self.read():
            if item[0] in wanted or item[0] in ("channel.close", "connection.close") or item[0].startswith("protocol"):
                return item if item[0] in wanted else None

    def call(self, name: str, **values):
        """Sends a method and reads up to its reply: (name, values, properties, body), or None if the channel is closed."""
        gone = self.gone()
        self.send(name, **values)
        return None if gone else self.reply(REPLIES.get(name, {f"{name}-ok"}))

    def sync(self) -> None:
        """Notes all that came up to now: errors of methods without reply, deliveries, confirms."""
        if self.gone():
            return self.note("< nothing: it is closed")
        self.connection.write(amqp.method(self.number, "channel.flow", active=True))
        while item := self.next():
            if item[0] == "channel.flow-ok":
                return
            self.take(item)
            if self.closed:
                return
        self.missing()

    def confirms(self, count: int) -> None:
        """Waits for the confirms of a number of messages, and notes them one by one, in the order of their tags."""
        settled = {}
        while len(settled) < count:
            item = self.next()
            if item is None:
                return self.missing()
            if item[0] not in ("basic.ack", "basic.nack"):
                self.take(item)
                if self.closed:
                    return
                continue
            last = item[1]["delivery_tag"]
            tags = [tag for tag in range(1, last + 1) if tag not in self.settled] if item[1].get("multiple") else [last]
            settled.update(dict.fromkeys(tags, item[0]))
            self.settled.update(tags)
        for tag in sorted(settled):
            self.note(f"< {settled[tag]} {tag}")

    # -- shorthands

    def declare(self, queue: str, arguments: dict | None = None, **flags):
        """Declares a queue, durable unless that is said otherwise."""
        return self.call("queue.declare", queue=queue, **{"durable": True, **flags}, arguments=arguments or {})

    def exchange(self, exchange: str, kind: str, arguments: dict | None = None, **flags):
        return self.call("exchange.declare", exchange=exchange, type=kind, **flags, arguments=arguments or {})

    def bind(self, queue: str, exchange: str, routing_key: str = "", arguments: dict | None = None):
        return self.call("queue.bind", queue=queue, exchange=exchange, routing_key=routing_key, arguments=arguments or {})

    def count(self, queue: str):
        """A passive declare: the counts, and a marker for what the queue sent before."""
        return self.call("queue.declare", queue=queue, passive=True)

    def confirm(self) -> None:
        self.call("confirm.select")

    def put(self, exchange: str, routing_key: str, body: bytes | str = b"", **options) -> None:
        """Publishes a message in confirm mode, and waits for the confirm (and for a return before it)."""
        self.publish(exchange, routing_key, body, **options)
        self.confirms(1)

    def get(self, queue: str, no_ack: bool = True):
        return self.call("basic.get", queue=queue, no_ack=no_ack)

    def consume(self, queue: str, tag: str = "", arguments: dict | None = None, **flags):
        return self.call("basic.consume", queue=queue, consumer_tag=tag, **flags, arguments=arguments or {})

    def prefetch(self, count: int, everywhere: bool = False) -> None:
        self.call("basic.qos", prefetch_count=count, **({"global": True} if everywhere else {}))

    def ack(self, tag: int, multiple: bool = False) -> None:
        self.send("basic.ack", delivery_tag=tag, multiple=multiple)

    def nack(self, tag: int, multiple: bool = False, requeue: bool = True) -> None:
        self.send("basic.nack", delivery_tag=tag, multiple=multiple, requeue=requeue)

    def reject(self, tag: int, requeue: bool = True) -> None:
        self.send("basic.reject", delivery_tag=tag, requeue=requeue)

    def get_when_there(self, queue: str):
        """Gets until there is something; only that is noted."""
        return self.until(lambda: self.get(queue), lambda item: item[0] == "basic.get-ok")

    def count_when(self, queue: str, messages: int):
        """Asks for the counts until there are as many messages; only the last answer is noted."""
        return self.until(lambda: self.count(queue), lambda item: item[1]["message_count"] == messages)

    def until(self, step, done):
        """Repeats a step until its result is as wanted; only the last one is noted."""
        noted, deadline = len(self.broker.lines), time.monotonic() + REPLY_SECONDS
        while True:
            item = step()
            if item is None or done(item) or time.monotonic() > deadline:
                return item
            del self.broker.lines[noted:]
            time.sleep(0.02)
