"""The responses of the replay server: WebSocket frames or chunks, encoded in advance."""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Encode: TypeAlias = Callable[[dict[str, Any]], bytes]

MODEL: Final = "gpt-5.5"
RESPONSE_DIGITS: Final = b"0123456789abcdef0123456789abcdef"
"""The digits of a response id that the server replaces in each turn."""
STAMP: Final = "0000000000.000000"
"""A placeholder for the time in a delta, of the same width as the time."""
ITEM: Final[dict[str, Any]] = {
    "id": "msg_0123456789abcdef0123456789abcdef0123",
    "type": "message",
    "role": "assistant",
    "status": "in_progress",
    "content": [],
}


def as_json(event: dict[str, Any]) -> bytes:
    """Return one event as JSON."""
    return json.dumps(event, separators=(",", ":")).encode()


def frame(event: dict[str, Any]) -> bytes:
    """Return one event as an unmasked text frame."""
    payload = as_json(event)
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload


def sent_event(event: dict[str, Any]) -> bytes:
    """Return one event as a server-sent event."""
    return b"event: %b\ndata: %b\n\n" % (event["type"].encode(), as_json(event))


def chunk(data: bytes) -> bytes:
    """Return data as one chunk of a body over HTTP/1.1; no data ends the body."""
    return b"%x\r\n%b\r\n" % (len(data), data)


def event_chunk(event: dict[str, Any]) -> bytes:
    """Return one event as a server-sent event in a chunk of its own."""
    return chunk(sent_event(event))


def response(status: str, output: list[Any]) -> dict[str, Any]:
    """Return a Response with the fields that every server sends."""
    return {
        "id": f"resp_{RESPONSE_DIGITS.decode()}",
        "object": "response",
        "created_at": 1795337865,
        "model": MODEL,
        "status": status,
        "output": output,
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }


def delta(text: str) -> dict[str, Any]:
    """Return an event of about 220 bytes with a piece of text."""
    place = {"item_id": ITEM["id"], "output_index": 0, "content_index": 0}
    return {"type": "response.output_text.delta", **place, "delta": text, "logprobs": []}


def numbered(
    events: list[dict[str, Any]], lane: str | None, encode: Encode = frame
) -> tuple[bytes, ...]:
    """Return the encoded events of one response, with sequence numbers and the lane."""
    where = {} if lane is None else {"stream_id": lane}
    return tuple(encode({**event, **where, "sequence_number": n}) for n, event in enumerate(events))


@cache
def streamed(
    deltas: int, piece: str = "token ", lane: str | None = None, encode: Encode = frame
) -> tuple[bytes, ...]:
    """Return a streamed text, event by event: three events, the deltas, four more events.

    :param encode: returns the bytes of one event, by default a WebSocket frame.
    """
    text = piece * deltas
    part: dict[str, Any] = {"type": "output_text", "text": text, "annotations": []}
    done = {**ITEM, "status": "completed", "content": [part]}
    place = {"item_id": ITEM["id"], "output_index": 0, "content_index": 0}
    events: list[dict[str, Any]] = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.in_progress", "response": response("in_progress", [])},
        {"type": "response.output_item.added", "output_index": 0, "item": ITEM},
        *[delta(piece)] * deltas,
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.content_part.done", **place, "part": part},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {"type": "response.completed", "response": response("completed", [done])},
    ]
    return numbered(events, lane, encode)


@cache
def streamed_in_chunks(deltas: int, count: int) -> bytes:
    """Return a streamed text as server-sent events, ``count`` of them in each chunk."""
    events = streamed(deltas, encode=sent_event)
    starts = range(0, len(events), count)
    return b"".join(chunk(b"".join(events[start : start + count])) for start in starts)


@cache
def one_text(size: int) -> tuple[bytes, ...]:
    """Return the frames of a response with one text of this number of bytes."""
    part: dict[str, Any] = {
        "type": "output_text",
        "text": "0123456 " * (size // 8),
        "annotations": [],
    }
    output = [{**ITEM, "status": "completed", "content": [part]}]
    return _begun_and_completed(output)


@cache
def many_items(size: int) -> tuple[bytes, ...]:
    """Return the frames of a response with function calls only, of this number of bytes."""

    def call(number: int) -> dict[str, Any]:
        return {
            "id": f"fc_{number:032x}",
            "type": "function_call",
            "status": "completed",
            "call_id": f"call_{number:024x}",
            "name": "get_weather",
            "arguments": '{"city":"Paris","unit":"celsius"}',
        }

    one = len(json.dumps(call(0), separators=(",", ":"))) + 1
    return _begun_and_completed([call(number) for number in range(size // one)])


def _begun_and_completed(output: list[Any]) -> tuple[bytes, ...]:
    events = [
        {"type": "response.created", "response": response("in_progress", [])},
        {"type": "response.completed", "response": response("completed", output)},
    ]
    return numbered(events, None)


@cache
def side_by_side(lanes: tuple[str | None, ...], deltas: int) -> bytes:
    """Return one response for each lane, with alternating events."""
    streams = [streamed(deltas, lane=lane) for lane in lanes]
    return b"".join(frame for frames in zip(*streams, strict=True) for frame in frames)


def paced(
    deltas: int, encode: Encode = frame
) -> tuple[tuple[bytes, ...], tuple[bytes, bytes], tuple[bytes, ...]]:
    """Return the events of a response whose deltas carry the time of sending.

    :returns: the events before the deltas; the bytes before and after the time in each delta; the
        events after the deltas.
    """
    sent = streamed(1, STAMP, encode=encode)
    before, after = encode({**delta(STAMP), "sequence_number": deltas}).split(STAMP.encode())
    return sent[:3], (before, after), sent[4:]
