"""The fuzzing inputs: frames of real servers, events of the schema, and corrupted forms of both.

Every input comes from a Hypothesis strategy, so that a failure shrinks to the smallest input.
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


def sample_by_index(values: Sequence[Json]) -> SearchStrategy[Json]:
    """Return a strategy that draws a value by its index, since Hypothesis prints what it draws."""
    return st.integers(0, len(values) - 1).map(lambda number: values[number])


def dump(value: Json) -> bytes:
    """Return compact JSON, as most servers send it, with lone surrogates as escapes."""
    return json.dumps(value, separators=(",", ":")).encode()


# --- Valid frames -------------------------------------------------------------------------


@cache
def captured() -> tuple[Mapping[str, Json], ...]:
    """Return one frame of every type and shape in the captures of real servers."""
    found: dict[str, Mapping[str, Json]] = {}
    for path in sorted((DATA / "captures").glob("*.jsonl")):
        for line in path.read_text().splitlines():
            entry = json.loads(line)
            if entry["dir"] == "recv" and isinstance(entry["frame"], dict):
                shape = "".join(re.findall(r'"type": "[^"]*"|"[a-z_]+":', line))
                found.setdefault(shape, entry["frame"])
    return tuple(found.values())


TEXTS: Final = st.sampled_from(
    ["", "x", "resp_1", "message", "completed", "\u00e9\U0001f600", "\0"]
)


def _scalar(kind: str) -> SearchStrategy[Json]:
    if kind == "integer":
        return st.integers(-1, 2**53)
    if kind == "number":
        return st.floats(allow_nan=False, allow_infinity=False)
    if kind == "boolean":
        return st.booleans()
    if texts := re.findall(r'"([^"]*)"', kind):
        return st.sampled_from(texts)
    if kind == "string":
        return TEXTS
    return st.none() | TEXTS | st.just({"a": [1]})


@st.composite
def of_type(draw: DrawFn, kind: str, depth: int = 0) -> Json:
    """Draw a value of a `json_type` of the schema."""
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
    """Draw an object with all required and some optional fields of an entry of the schema."""
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
    return sample_by_index(entries).flatmap(record)


def _items() -> SearchStrategy[Json]:
    entries = [*SCHEMA["output_items"].values(), *SCHEMA["input_items"].values()]
    return sample_by_index(entries).flatmap(record)


items: Final = _items()
"""Items of a conversation."""
events: Final = sample_by_index(captured()) | _events()
"""Events, as real servers sent them and as the schema allows them."""


# --- Corrupted JSON -----------------------------------------------------------------------

WRONG_VALUES: Final[SearchStrategy[Json]] = st.sampled_from([
    None, True, 0, -1, 2**63, 2**64, 10**30, 1.5, "", "3", "3.0", [], {}, [[]], {"type": 3},
    {"type": "message"}, {"type": "output_text"}, "\ud83d", "\udc00\ud800", "\0", "\ufeff",
])  # fmt: skip
"""JSON values of types that a field does not expect."""

BAD_BYTES: Final[Sequence[bytes]] = (
    b"1e400", b"-1e400", b"1e-400", b"9" * DIGITS, b"0." + b"9" * DIGITS, b"NaN", b"Infinity",
    b"-", b"01", b"[" * NESTING, b"[" * NESTING + b"]" * NESTING, b'{"a":' * NESTING,
    b'{"a":' * 900 + b"1" + b"}" * 900, b'"\xff"', b'"\xc0\x80"', b'"\xed\xa0\x80"', b'"\\ud800"',
    b'"\\udc00\\ud800x"', b'"\\u0000"', b'"\0"', b'"\\x"', b'"', b"\xef\xbb\xbf1", b"", b",",
    b"'a'", b'{"type":"error","type":"message"}', b'{"a":1,"a":2}', b"true false", b"/**/1",
)  # fmt: skip
"""Bytes to put in the place of a value: numbers, nesting and strings that parsers reject."""
BAD_VALUES: Final[SearchStrategy[bytes]] = sample_by_index(BAD_BYTES)

MARKER: Final = "\u2620place\u2620"
MARKER_BYTES: Final = dump(MARKER)


def _paths(value: Json, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of every value within a value."""
    found = [path] if path else []
    for key, child in _children(value):
        found += _paths(child, (*path, key))
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
def mistyped(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Draw JSON with one or two values of a wrong type, some with duplicate keys."""
    value = draw(good)
    for _ in range(draw(st.integers(1, 2))):
        paths = _paths(value)
        if paths:
            value = _replaced(value, draw(st.sampled_from(paths)), draw(WRONG_VALUES))
    frame = dump(value)
    duplicate = draw(st.sampled_from([b"", b'{"type":"response.completed",', b'{"response":{},']))
    return duplicate + frame[1:] if duplicate and frame[:2] == b'{"' else frame


def corrupted_everywhere(value: Json, raw: bytes) -> list[bytes]:
    """Return one frame for each value within a value, with bytes in the place of that value."""
    marked = [dump(_replaced(value, path, MARKER)) for path in _paths(value)]
    return [frame.replace(MARKER_BYTES, raw) for frame in marked]


@st.composite
def malformed(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Draw a frame with bad bytes in the place of a value."""
    value = draw(good)
    paths = _paths(value)
    if not paths:
        return draw(BAD_VALUES)
    raw: bytes = draw(BAD_VALUES)
    return dump(_replaced(value, draw(st.sampled_from(paths)), MARKER)).replace(MARKER_BYTES, raw)


@st.composite
def corrupted(draw: DrawFn, good: SearchStrategy[Json]) -> bytes:
    """Draw a frame with bytes changed, removed, inserted or duplicated anywhere."""
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
    """Return a strategy for frames, from valid ones to noise."""
    return (
        good.map(dump)
        | mistyped(good)
        | malformed(good)
        | corrupted(good)
        | BAD_VALUES
        | st.binary(max_size=60)
    )


# --- WebSocket frames ---------------------------------------------------------------------


def websocket_frame(first: int, payload: bytes) -> bytes:
    """Return one frame of a server, with its length in the shortest form."""
    size = len(payload)
    if size < 126:
        return bytes([first, size]) + payload
    if size < 65_536:
        return bytes([first, 126]) + size.to_bytes(2, "big") + payload
    return bytes([first, 127]) + size.to_bytes(8, "big") + payload


def _header_only(first: int, length: int) -> bytes:
    """Return the header of a frame without its payload."""
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
    | st.builds(_header_only, FIRST, st.integers(0, 2**64 - 1))
)


@st.composite
def streams(draw: DrawFn) -> bytes:
    """Draw the bytes of a connection: WebSocket frames, some of them corrupted."""
    good = b"".join(draw(st.lists(websocket_frames, max_size=8)))
    if draw(st.booleans()):
        return good
    cut = draw(st.integers(0, len(good)))
    return good[:cut] + draw(st.binary(max_size=20)) + good[cut + draw(st.integers(0, 3)) :]


@st.composite
def pieces(draw: DrawFn) -> list[bytes]:
    """Draw the bytes of a connection, cut at arbitrary positions."""
    stream = draw(streams())
    cuts = draw(st.lists(st.integers(0, len(stream)), max_size=8))
    edges = sorted({0, len(stream), *cuts})
    return [stream[start:end] for start, end in pairwise(edges)]


# --- Responses to the upgrade request -----------------------------------------------------

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
def upgrade_responses(draw: DrawFn) -> bytes:
    """Draw a response that a server may send instead of 101."""
    status = draw(st.sampled_from([b"101", b"100", b"103", b"200", b"301", b"401", b"426", b"503",
                                   b"999", b"-1", b"", b"\xb2\xb2\xb2"]))  # fmt: skip
    lines = draw(st.lists(HEADER_LINES, max_size=5))
    head = b"\r\n".join([b"HTTP/1.1 " + status + b" Words", *lines]) + b"\r\n\r\n"
    answer = head + draw(BODIES)
    if draw(st.integers(0, 3)):
        return answer
    cut = draw(st.integers(0, len(answer)))
    return answer[:cut] + draw(st.binary(max_size=9)) + answer[cut:]
