"""The responses of the replay server: WebSocket frames that are encoded in advance."""

from __future__ import annotations

import json
import struct
from functools import cache
from typing import Any, Final

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


def frame(event: dict[str, Any]) -> bytes:
    """Return one event as an unmasked text frame."""
    payload = json.dumps(event, separators=(",", ":")).encode()
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload


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


def numbered(events: list[dict[str, Any]], lane: str | None) -> tuple[bytes, ...]:
    """Return the frames of the events of one response, with sequence numbers and the lane."""
    where = {} if lane is None else {"stream_id": lane}
    return tuple(frame({**event, **where, "sequence_number": n}) for n, event in enumerate(events))


@cache
def streamed(deltas: int, piece: str = "token ", lane: str | None = None) -> tuple[bytes, ...]:
    """Return the frames of a streamed text: three events, the deltas, four more events."""
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
    return numbered(events, lane)


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


def paced(deltas: int) -> tuple[tuple[bytes, ...], tuple[bytes, bytes], tuple[bytes, ...]]:
    """Return the frames of a response whose deltas carry the time of sending.

    :returns: the frames before the deltas; the bytes before and after the time in each delta; the
        frames after the deltas.
    """
    frames = streamed(1, STAMP)
    before, after = frame({**delta(STAMP), "sequence_number": deltas}).split(STAMP.encode())
    return frames[:3], (before, after), frames[4:]
