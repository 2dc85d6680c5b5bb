"""Answers with calls of tools that run at the server, which `Reply` cannot express."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from trio_responses.testing import Request

Json: TypeAlias = dict[str, Any]


def answer_with(*answers: Sequence[Json]) -> Callable[[Request], list[Json]]:
    """Return a responder that gives these answers in their order.

    :param answers: the parts of each answer: output items, each a finished one; and events, which
        are sent in the middle of the item that follows them.
    """
    remaining = enumerate(answers, 1)

    def respond(request: Request) -> list[Json]:
        number, parts = next(remaining)
        lane = {} if request.lane is None else {"stream_id": request.lane}
        return [frame | lane for frame in frames_of(f"resp_hosted{number}", parts)]

    return respond


def frames_of(response_id: str, parts: Sequence[Json]) -> list[Json]:
    response: Json = {"id": response_id, "object": "response", "model": "gpt-5.5", "output": []}
    created = {"type": "response.created", "response": response | {"status": "in_progress"}}
    frames: list[Json] = [created]
    output: list[Json] = []
    pending: list[Json] = []
    for part in parts:
        if part["type"].startswith("response."):
            pending.append(part)
            continue
        place = {"output_index": len(output), "item": part}
        frames.append({"type": "response.output_item.added", **place})
        frames += [{"output_index": len(output), **event} for event in pending]
        frames.append({"type": "response.output_item.done", **place})
        output.append(part)
        pending = []
    response |= {"status": "completed", "output": output}
    frames.append({"type": "response.completed", "response": response})
    return [{**frame, "sequence_number": number} for number, frame in enumerate(frames)]


def message(text: str, *annotations: Json) -> Json:
    """Return a message of the model, with citations."""
    content = [{"type": "output_text", "text": text, "annotations": list(annotations)}]
    return {
        "type": "message",
        "id": "msg_hosted",
        "role": "assistant",
        "status": "completed",
        "content": content,
    }


def text(delta: str) -> Json:
    """Return an event with a piece of the text of the message that follows."""
    return {"type": "response.output_text.delta", "delta": delta, "content_index": 0}
