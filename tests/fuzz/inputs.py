"""What is thrown at the library: frames of real servers, events of the schema, and both spoilt.

Everything is a Hypothesis strategy, so that a failure shrinks to the smallest input.

What belongs elsewhere: what has to hold for them (`properties.py`).
"""

from __future__ import annotations

import copy
import json
import re
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from hypothesis import strategies as st

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hypothesis.strategies import DrawFn, SearchStrategy

DATA: Final = Path(__file__).parent.parent / "data"
SCHEMA: Final[dict[str, Any]] = json.loads((DATA / "wire_schema.json").read_text())
NESTING: Final = 100_000
DIGITS: Final = 100_000

Json = Any


def one_of_many(values: Sequence[Json]) -> SearchStrategy[Json]:
    """Choose a value by its number: Hypothesis prints its choices, and these are large."""
    return st.integers(0, len(values) - 1).map(lambda number: values[number])


def dump(value: Json) -> bytes:
    """Write JSON as most servers do, half surrogate pairs as escapes."""
    return json.dumps(value, separators=(",", ":")).encode()


# --- Frames that are as they should be ----------------------------------------------------


@cache
def captured() -> tuple[Mapping[str, Json], ...]:
    """Give one frame of every kind and shape that the captured servers sent."""
    found: dict[str, Mapping[str, Json]] = {}
    for path in sorted((DATA / "captures").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            seen = json.loads(line)
            if seen["dir"] == "recv" and isinstance(seen["frame"], dict):
                shape = "".join(re.findall(r'"type": "[^"]*"|"[a-z_]+":', line))
                found.setdefault(shape, seen["frame"])
    return tuple(found.values())


WORDS: Final = st.sampled_from(
    ["", "x", "resp_1", "message", "completed", "\u00e9\U0001f600", "\0"]
)


def _scalar(kind: str) -> SearchStrategy[Json]:
    if kind == "integer":
        return st.integers(-1, 2**53)
    if kind == "number":
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind == "boolean":
        return st.booleans()
    if words := re.findall(r'"([^"]*)"', kind):
        return st.sampled_from(words)
    if kind == "string":
        return WORDS
    return st.none() | WORDS | st.just({"a": [1]})


@st.composite
def of_type(draw: DrawFn, kind: str, depth: int = 0) -> Json:
    """Make a value of a `json_type` of the schema."""
    inner = re.fullmatch(r"array<(.*)>", kind)
    if inner and " | array<" not in kind:
        size = draw(st.integers(0, 2)) if depth < 6 else 0
        return [draw(of_type(inner[1], depth + 1)) for _ in range(size)]
    choices = kind.split(" | ") if "array<" not in kind else [kind.split(" | ", maxsplit=1)[0]]
    choice = draw(st.sampled_from(choices))
    if choice.startswith("object:") and choice[7:] in SCHEMA["defs"]:
        return draw(record(SCHEMA["defs"][choice[7:]], depth + 1))
    return draw(_scalar(choice))


@st.composite
def record(draw: DrawFn, entry: Mapping[str, Json], depth: int = 0) -> Json:
    """Make an object with all required and some other fields of an entry of the schema."""
    value: dict[str, Json] = {}
    for name, field in entry["fields"].items():
        if not field["required"] and (depth > 5 or not draw(st.booleans())):
            continue
        value[name] = draw(of_type(field["json_type"], depth + 1))
    return value


def _events() -> SearchStrategy[Json]:
    entries: list[Json] = list(SCHEMA["server_events"].values())
    for tag, entry in SCHEMA["observed_outside_sdk"].items():
        kinds = {**entry.get("fields", {}), "type": f'string("{tag}")'}
        fields = {name: {"json_type": str(kind), "required": True} for name, kind in kinds.items()}
        entries.append({"fields": fields})
    return one_of_many(entries).flatmap(record)


def _items() -> SearchStrategy[Json]:
    entries = [*SCHEMA["output_items"].values(), *SCHEMA["input_items"].values()]
    return one_of_many(entries).flatmap(record)


items: Final = _items()
"""Items of a conversation."""
events: Final = one_of_many(captured()) | _events()
"""Events, as real servers sent them and as the schema allows them."""


# --- Spoilt JSON --------------------------------------------------------------------------

ODD: Final[SearchStrategy[Json]] = st.sampled_from([
    None, True, 0, -1, 2**63, 2**64, 10**30, 1.5, "", "3", "3.0", [], {}, [[]], {"type": 3},
    {"type": "message"}, {"type": "output_text"}, "\ud83d", "\udc00\ud800", "\0", "\ufeff",
])  # fmt: skip
"""Values that are not what a field wants, but JSON."""

BAD: Final[Sequence[bytes]] = (
    b"1e400", b"-1e400", b"1e-400", b"9" * DIGITS, b"0." + b"9" * DIGITS, b"NaN", b"Infinity",
    b"-", b"01", b"[" * NESTING, b"[" * NESTING + b"]" * NESTING, b'{"a":' * NESTING,
    b'{"a":' * 900 + b"1" + b"}" * 900, b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\\ud800"',
    b'"\\udc00\\ud800x"', b'"\\u0000"', b'"\0"', b'"\\x"', b'"', b"\xef\xbb\xbf1", b"", b",",
    b"'a'", b'{"type":"error","type":"message"}', b'{"a":1,"a":2}', b"true false", b"/**/1",
)  # fmt: skip
"""Bytes in the place of a value: numbers, nesting and texts that no parser likes."""
RAW: Final[SearchStrategy[bytes]] = one_of_many(BAD)

MARK: Final = "\u2620place\u2620"
MARK_BYTES: Final = dump(MARK)


def _places(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Give the path of every value within a value."""
    found = [path] if path else []
    for key, child in _children(value):
        found += _places(child, (*path, key))
    return found


def _children(value: Json) -> list[tuple[Any, object]]:
    if isinstance(value, dict):
        return list(cast("dict[str, object]", value).items())
    return list(enumerate(cast("list[object]", value))) if isinstance(value, list) else []


def _replaced(value: Json, path: tuple[Any, ...], new: Json) -> Json:
    if not path:
        return new
    copied: Json = copy.copy(value)
    copied[path[0]] = _replaced(copied[path[0]], path[1:], new)
    return copied


@st.composite
def misfits(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Make JSON with a value or two of the wrong kind, or without them, or with keys twice."""
    value = draw(good)
    for _ in range(draw(st.integers(1, 2))):
        places = _places(value)
        if places:
            value = _replaced(value, draw(st.sampled_from(places)), draw(ODD))
    frame = dump(value)
    twice = draw(st.sampled_from([b"", b'{"type":"response.completed",', b'{"response":{},']))
    return twice + frame[1:] if twice and frame[:2] == b'{"' else frame


def spoilt(value: Json, raw: bytes) -> list[bytes]:
    """Put bytes into each place of a value in turn."""
    marked = [dump(_replaced(value, path, MARK)) for path in _places(value)]
    return [frame.replace(MARK_BYTES, raw) for frame in marked]


@st.composite
def no_json(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Make a frame that has bytes of no good in the place of a value."""
    value = draw(good)
    places = _places(value)
    if not places:
        return draw(RAW)
    raw: bytes = draw(RAW)
    return dump(_replaced(value, draw(st.sampled_from(places)), MARK)).replace(MARK_BYTES, raw)


@st.composite
def damaged(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Make a frame with bytes changed, cut out, put in or put twice, anywhere."""
    frame = bytearray(dump(draw(good)))
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, len(frame)))
        end = min(len(frame), start + draw(st.sampled_from([0, 1, 1, 4, 40])))
        frame[start:end] = draw(
            st.binary(max_size=4)
            | st.sampled_from([b"\xef\xbb\xbf", b"\\ud83d", b"\xff", b'"', b"}", b"]", b"\0"])
            | st.just(bytes(frame[start:end]) * 2)
        )
    return bytes(frame)


def frames(good: SearchStrategy[Json] = events) -> SearchStrategy[bytes]:
    """Give frames from good ones to noise."""
    return (
        good.map(dump)
        | misfits(good)
        | no_json(good)
        | damaged(good)
        | RAW
        | st.binary(max_size=60)
    )


# --- WebSocket frames ---------------------------------------------------------------------


def websocket_frame(first: int, payload: bytes) -> bytes:
    """Write one frame of a server, its length in the shortest form."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65_536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


def _announcement(first: int, length: int) -> bytes:
    """Write the header of a frame, and nothing of it."""
    return bytes([first, 127]) + length.to_bytes(8, "big")


SMALL: Final = st.binary(max_size=20) | st.sampled_from([
    b"", "\u00e9".encode(), b"\xc3", b"\xa9", b"x" * 126, b"x" * 5000, b"x" * 70_000,
])  # fmt: skip
FIRST: Final = st.sampled_from([0x81, 0x01, 0x80, 0x00, 0x82, 0x02, 0x89, 0x8A])
CLOSES: Final = st.sampled_from([
    b"", b"\x03", b"\x03\xe8", b"\x03\xe9bye", b"\x03\xed", b"\x0f\xa0\xff", b"\x00\x00",
])  # fmt: skip

websocket_frames: Final = (
    st.builds(websocket_frame, FIRST, SMALL)
    | st.builds(websocket_frame, st.just(0x81), frames())
    | st.builds(websocket_frame, st.just(0x88), CLOSES)
    | st.builds(websocket_frame, st.integers(0, 255), st.binary(max_size=4))
    | st.builds(_announcement, FIRST, st.integers(0, 2**64 - 1))
)


@st.composite
def streams(draw: DrawFn) -> bytes:
    """Make the bytes of a connection: mostly frames, or frames with damage, or noise."""
    good = b"".join(draw(st.lists(websocket_frames, max_size=8)))
    if draw(st.booleans()):
        return good
    cut = draw(st.integers(0, len(good)))
    return good[:cut] + draw(st.binary(max_size=20)) + good[cut + draw(st.integers(0, 3)) :]


@st.composite
def pieces(draw: DrawFn) -> list[bytes]:
    """Make the bytes of a connection, cut at arbitrary places."""
    stream = draw(streams())
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=8))
    edges = sorted({0, len(stream), *cuts})
    return [stream[start:end] for start, end in pairwise(edges)]


# --- Answers to the upgrade ---------------------------------------------------------------

HEADER_LINES: Final = st.sampled_from([
    b"Retry-After: 7", b"Retry-After: -0", b"Retry-After: Mon, 99 Foo 1 +9999",
    b"Content-Length: 5", b"Content-Length: " + b"9" * 5000, b"Content-Length: -1",
    b"Transfer-Encoding: chunked",
    b"Upgrade: websocket", b"Connection: Upgrade", b"Sec-WebSocket-Accept: x", b": ", b"no colon",
    b"\xff\xfe: \xff", b"Sec-WebSocket-Protocol: a",
    b"Sec-WebSocket-Extensions: permessage-deflate",
    b"Location: https://elsewhere.test/", b"A: \0",
])  # fmt: skip
BODIES: Final = st.binary(max_size=30) | st.sampled_from([
    b"5\r\nhello\r\n0\r\n\r\n", b"ffffffff\r\nx", b"0\r\n" * 50, b"x" * 20_000, b'{"error":{}}',
])  # fmt: skip


@st.composite
def upgrade_answers(draw: DrawFn) -> bytes:
    """Make what may come in the place of a 101."""
    status = draw(st.sampled_from([b"101", b"100", b"103", b"200", b"301", b"401", b"426", b"503",
                                   b"999", b"-1", b"", b"\xb2\xb2\xb2"]))  # fmt: skip
    lines = draw(st.lists(HEADER_LINES, max_size=5))
    head = b"\r\n".join([b"HTTP/1.1 " + status + b" Words", *lines]) + b"\r\n\r\n"
    answer = head + draw(BODIES)
    if draw(st.integers(0, 3)):
        return answer
    cut = draw(st.integers(0, len(answer)))
    return answer[:cut] + draw(st.binary(max_size=9)) + answer[cut:]
