"""The wire format of AMQP 0-9-1, as far as a client that hides nothing needs it: frames, methods, properties, tables."""

import struct
from datetime import datetime, timezone
from typing import Any, NamedTuple

METHOD, HEADER, BODY, HEARTBEAT = 1, 2, 3, 8
END = 0xCE

# Per class: its id; per method: its id and its arguments in their order. Types: o octet, s short, l long, q longlong,
# b bit, n shortstr, t longstr, F table.
SPECIFICATION = """
connection 10
    start 10 version_major:o version_minor:o server_properties:F mechanisms:t locales:t
    start-ok 11 client_properties:F mechanism:n response:t locale:n
    secure 20 challenge:t
    secure-ok 21 response:t
    tune 30 channel_max:s frame_max:l heartbeat:s
    tune-ok 31 channel_max:s frame_max:l heartbeat:s
    open 40 virtual_host:n reserved_1:n reserved_2:b
    open-ok 41 reserved_1:n
    close 50 reply_code:s reply_text:n class_id:s method_id:s
    close-ok 51
    blocked 60 reason:n
    unblocked 61
    update-secret 70 new_secret:t reason:n
    update-secret-ok 71
channel 20
    open 10 reserved_1:n
    open-ok 11 reserved_1:t
    flow 20 active:b
    flow-ok 21 active:b
    close 40 reply_code:s reply_text:n class_id:s method_id:s
    close-ok 41
access 30
    request 10 realm:n exclusive:b passive:b active:b write:b read:b
    request-ok 11 ticket:s
exchange 40
    declare 10 ticket:s exchange:n type:n passive:b durable:b auto_delete:b internal:b nowait:b arguments:F
    declare-ok 11
    delete 20 ticket:s exchange:n if_unused:b nowait:b
    delete-ok 21
    bind 30 ticket:s destination:n source:n routing_key:n nowait:b arguments:F
    bind-ok 31
    unbind 40 ticket:s destination:n source:n routing_key:n nowait:b arguments:F
    unbind-ok 51
queue 50
    declare 10 ticket:s queue:n passive:b durable:b exclusive:b auto_delete:b nowait:b arguments:F
    declare-ok 11 queue:n message_count:l consumer_count:l
    bind 20 ticket:s queue:n exchange:n routing_key:n nowait:b arguments:F
    bind-ok 21
    purge 30 ticket:s queue:n nowait:b
    purge-ok 31 message_count:l
    delete 40 ticket:s queue:n if_unused:b if_empty:b nowait:b
    delete-ok 41 message_count:l
    unbind 50 ticket:s queue:n exchange:n routing_key:n arguments:F
    unbind-ok 51
basic 60
    qos 10 prefetch_size:l prefetch_count:s global:b
    qos-ok 11
    consume 20 ticket:s queue:n consumer_tag:n no_local:b no_ack:b exclusive:b nowait:b arguments:F
    consume-ok 21 consumer_tag:n
    cancel 30 consumer_tag:n nowait:b
    cancel-ok 31 consumer_tag:n
    publish 40 ticket:s exchange:n routing_key:n mandatory:b immediate:b
    return 50 reply_code:s reply_text:n exchange:n routing_key:n
    deliver 60 consumer_tag:n delivery_tag:q redelivered:b exchange:n routing_key:n
    get 70 ticket:s queue:n no_ack:b
    get-ok 71 delivery_tag:q redelivered:b exchange:n routing_key:n message_count:l
    get-empty 72 cluster_id:n
    ack 80 delivery_tag:q multiple:b
    reject 90 delivery_tag:q requeue:b
    recover-async 100 requeue:b
    recover 110 requeue:b
    recover-ok 111
    nack 120 delivery_tag:q multiple:b requeue:b
confirm 85
    select 10 nowait:b
    select-ok 11
tx 90
    select 10
    select-ok 11
    commit 20
    commit-ok 21
    rollback 30
    rollback-ok 31
"""
PROPERTIES = (
    "content_type:n content_encoding:n headers:F delivery_mode:o priority:o correlation_id:n reply_to:n "
    "expiration:n message_id:n timestamp:T type:n user_id:n app_id:n cluster_id:n"
)
METHODS_WITH_CONTENT = {"basic.publish", "basic.return", "basic.deliver", "basic.get-ok"}


def fields(text: str) -> list[tuple[str, str]]:
    return [tuple(word.split(":")) for word in text.split()]


def read_specification():
    by_name, by_id = {}, {}
    for line in SPECIFICATION.strip().splitlines():
        name, number, *rest = line.split()
        if not line.startswith(" "):
            group, group_id = name, int(number)
            continue
        entry = (f"{group}.{name}", group_id, int(number), fields(" ".join(rest)))
        by_name[entry[0]] = by_id[entry[1:3]] = entry
    return by_name, by_id


BY_NAME, BY_ID = read_specification()
PROPERTY_LIST = fields(PROPERTIES)


class As(NamedTuple):
    """A field value with the type that it has on the wire, where Python's type does not say it."""

    type: str
    value: Any


class Malformed(Exception):
    """What the broker sent is not AMQP."""


# ---- writing -------------------------------------------------------------------------------------------------------

NUMBERS = {"b": ">b", "B": ">B", "s": ">h", "u": ">H", "I": ">i", "i": ">I", "l": ">q", "L": ">Q", "f": ">f", "d": ">d", "T": ">Q"}
WIRE = {"o": ">B", "s": ">H", "l": ">I", "q": ">Q", "T": ">Q"}


def octets(value) -> bytes:
    return value if isinstance(value, bytes) else value.encode()


def short_string(value) -> bytes:
    value = octets(value)
    return bytes([len(value)]) + value


def long_string(value) -> bytes:
    value = octets(value)
    return struct.pack(">I", len(value)) + value


def with_type(value) -> As:
    """The type that client libraries give a value."""
    match value:
        case As():
            return value
        case bool():
            return As("t", value)
        case int():
            return As("I" if -(2**31) <= value < 2**31 else "l", value)
        case float():
            return As("d", value)
        case str() | bytes():
            return As("S", value)
        case dict():
            return As("F", value)
        case list():
            return As("A", value)
        case None:
            return As("V", None)
    raise TypeError(f"no field type for {value!r}")


def field_value(value) -> bytes:
    kind, value = with_type(value)
    head = kind.encode()
    if kind in NUMBERS:
        return head + struct.pack(NUMBERS[kind], value)
    match kind:
        case "t":
            return head + bytes([value])
        case "S" | "x":
            return head + long_string(value)
        case "F":
            return head + table(value)
        case "A":
            return head + long_string(b"".join(map(field_value, value)))
        case "D":
            return head + struct.pack(">BI", *value)
        case "V":
            return head
    return head + (value or b"")  # a type that does not exist, for conversations about that


def table(entries: dict) -> bytes:
    return long_string(b"".join(short_string(key) + field_value(value) for key, value in entries.items()))


def packed(layout, values: dict) -> bytes:
    """Arguments of a method; what is not given is zero or empty."""
    unknown = set(values) - {name for name, _ in layout}
    assert not unknown, f"no such arguments: {unknown}"
    out, bits = b"", []

    def flush() -> bytes:
        result = b""
        while bits:
            result += bytes([sum(bit << at for at, bit in enumerate(bits[:8]))])
            del bits[:8]
        return result

    for name, kind in layout:
        if kind == "b":
            bits.append(bool(values.get(name, False)))
            continue
        out += flush()
        match kind:
            case "n":
                out += short_string(values.get(name, ""))
            case "t":
                out += long_string(values.get(name, ""))
            case "F":
                out += table(values.get(name, {}))
            case _:
                out += struct.pack(WIRE[kind], values.get(name, 0))
    return out + flush()


def frame(kind: int, channel: int, payload: bytes, end: int = END) -> bytes:
    return struct.pack(">BHI", kind, channel, len(payload)) + payload + bytes([end])


def method_payload(name: str, values: dict) -> bytes:
    _, group, number, layout = BY_NAME[name]
    return struct.pack(">HH", group, number) + packed(layout, values)


def method(channel: int, name: str, **values) -> bytes:
    return frame(METHOD, channel, method_payload(name, values))


def header_payload(size: int, properties: dict, group: int = 60) -> bytes:
    unknown = set(properties) - {name for name, _ in PROPERTY_LIST}
    assert not unknown, f"no such properties: {unknown}"
    flags, out = 0, b""
    for at, (name, kind) in enumerate(PROPERTY_LIST):
        if name in properties:
            flags |= 1 << (15 - at)
            out += packed([(name, kind)], {name: properties[name]})
    return struct.pack(">HHQH", group, 0, size, flags) + out


def content(channel: int, body: bytes, properties: dict, frame_max: int = 131072) -> bytes:
    out = frame(HEADER, channel, header_payload(len(body), properties))
    for at in range(0, len(body), frame_max - 8):
        out += frame(BODY, channel, body[at : at + frame_max - 8])
    return out


# ---- reading -------------------------------------------------------------------------------------------------------


class Reader:
    """Takes values from the start of a payload."""

    def __init__(self, data: bytes):
        self.data, self.at = data, 0

    def take(self, count: int) -> bytes:
        if self.at + count > len(self.data):
            raise Malformed(f"{self.data!r} ends too early")
        self.at += count
        return self.data[self.at - count : self.at]

    def number(self, layout: str):
        return struct.unpack(layout, self.take(struct.calcsize(layout)))[0]

    def string(self, layout: str) -> str:
        return self.take(self.number(layout)).decode(errors="backslashreplace")

    def table(self) -> dict:
        inner, result = Reader(self.take(self.number(">I"))), {}
        while inner.at < len(inner.data):
            key = inner.string(">B")
            result[key] = inner.field_value()
        return result

    def field_value(self) -> As:
        kind = self.take(1).decode("latin1")
        if kind in NUMBERS:
            return As(kind, self.number(NUMBERS[kind]))
        match kind:
            case "t":
                return As(kind, self.number(">B") != 0)
            case "S":
                return As(kind, self.string(">I"))
            case "x":
                return As(kind, self.take(self.number(">I")))
            case "F":
                return As(kind, self.table())
            case "A":
                inner, items = Reader(self.take(self.number(">I"))), []
                while inner.at < len(inner.data):
                    items.append(inner.field_value())
                return As(kind, items)
            case "D":
                return As(kind, (self.number(">B"), self.number(">I")))
            case "V":
                return As(kind, None)
        raise Malformed(f"field type {kind!r}")

    def values(self, layout) -> dict:
        result, bit, byte = {}, 0, 0
        for name, kind in layout:
            if kind == "b":
                if bit % 8 == 0:
                    byte = self.number(">B")
                result[name] = bool(byte >> (bit % 8) & 1)
                bit += 1
                continue
            bit = 0
            match kind:
                case "n":
                    result[name] = self.string(">B")
                case "t":
                    result[name] = self.string(">I")
                case "F":
                    result[name] = self.table()
                case _:
                    result[name] = self.number(WIRE[kind])
        if self.at != len(self.data):
            raise Malformed(f"{self.data!r} goes on after its last argument")
        return result


def read_method(payload: bytes) -> tuple[str, dict]:
    reader = Reader(payload)
    ids = (reader.number(">H"), reader.number(">H"))
    if ids not in BY_ID:
        raise Malformed(f"method {ids}")
    name, _, _, layout = BY_ID[ids]
    return name, reader.values(layout)


def read_header(payload: bytes) -> tuple[int, dict]:
    """The size of the body, and the properties."""
    reader = Reader(payload)
    if reader.number(">H") != 60 or reader.number(">H") != 0:
        raise Malformed(f"content header {payload!r}")
    size, flags = reader.number(">Q"), reader.number(">H")
    present = [field for at, field in enumerate(PROPERTY_LIST) if flags >> (15 - at) & 1]
    return size, reader.values(present)


# ---- showing -------------------------------------------------------------------------------------------------------


def shown(value) -> str:
    """A field value as a transcript shows it; a table in the order of its keys, since its order has no meaning."""
    if isinstance(value, (str, int, float, bytes, dict, list)) or value is None:
        value = with_type(value)
    kind, value = value
    match kind:
        case "S":
            return repr(value if isinstance(value, str) else value.decode(errors="backslashreplace"))
        case "t":
            return "true" if value else "false"
        case "V":
            return "void"
        case "F":
            return "{" + ", ".join(f"{key}={shown(value[key])}" for key in sorted(value, key=octets)) + "}"
        case "A":
            return "[" + ", ".join(map(shown, value)) + "]"
        case "T":
            now = datetime.now(timezone.utc).timestamp()
            return "T:now" if abs(now - value) < 300 else f"T:{value}"
    return f"{kind}:{value}"


def shown_properties(values: dict) -> str:
    """The properties that are there, be they empty."""
    return " ".join(f"{name}={shown(value) if isinstance(value, dict) else value}" for name, value in values.items())


def shown_arguments(values: dict) -> str:
    """Arguments, without those that are zero or empty."""
    words = []
    for name, value in values.items():
        if value is True:
            words.append(name)
        elif isinstance(value, dict) and value:
            words.append(f"{name}={shown(value)}")
        elif isinstance(value, bytes):
            words.append(f"{name}={value.decode(errors='backslashreplace')!r}")
        elif isinstance(value, str) and name == "reply_text":
            words.append(f"{name}={value!r}")
        elif value or name in ("message_count", "consumer_count"):
            words.append(f"{name}={value}")
    return " ".join(words)


def shown_body(body: bytes) -> str:
    return repr(body.decode(errors="backslashreplace")) if len(body) <= 60 else f"{len(body)} octets"
