"""Plans of responses: pure functions from a request and an answer to the frames to send.

The same requests in the same order give the same ids and the same frames in every run. The events
have the fields and messages of OpenAI's server: they are part of the wire format.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, cast

import msgspec

from trio_responses.testing._frames import Frame, Json, RequestRefusal, default_message, error_frame
from trio_responses.testing._history import (
    History,
    count_words,
    is_compaction_due,
    make_compaction,
)
from trio_responses.testing._item_order_checks import seal
from trio_responses.testing._records import Request
from trio_responses.testing._scripts import Call, Fail, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

_ECHOED: Final[Mapping[str, Any]] = {
    "background": False,
    "instructions": None,
    "max_output_tokens": None,
    "max_tool_calls": None,
    "metadata": {},
    "parallel_tool_calls": True,
    "previous_response_id": None,
    "prompt_cache_key": None,
    "reasoning": {"effort": None, "summary": None},
    "safety_identifier": None,
    "store": True,
    "temperature": 1.0,
    "text": {"format": {"type": "text"}, "verbosity": "medium"},
    "tool_choice": "auto",
    "top_logprobs": 0,
    "top_p": 1.0,
    "truncation": "disabled",
    "user": None,
}
_CREATED: Final = "response.created"
_INCOMPLETE: Final = "response.incomplete"
_ENDS: Final = ("response.completed", _INCOMPLETE, "response.done")
"""The terminal events of responses that a later request can continue."""
_FAILURES: Final = ("failed", "cancelled")
"""The statuses of responses that no request can continue."""
_NOT_ESSENTIAL: Final = (
    ".added",
    "queued",
    "in_progress",
    "_text.done",
    "_part.done",
    "arguments.done",
)


class IdGenerator:
    """A generator of ids that are unique on one server and the same in every run."""

    def __init__(self) -> None:
        self._count = 0

    def new(self, prefix: str) -> str:
        """Return the next id, such as ``resp_000000000000000000000001``."""
        self._count += 1
        return f"{prefix}_{self._count:024x}"


@dataclass(frozen=True, slots=True)
class ResponsePlan:
    """All frames that answer one request, in order."""

    frames: Sequence[Frame]
    delay: float = 0.0
    stored: tuple[str, Sequence[Json]] | None = None
    """The id and the output to store when the last frame goes out; None for a failure."""
    is_raw: bool = False
    """Whether the frames go out unchanged, with their own sequence numbers."""
    response_id: str | None = None
    """The response id in raw frames; None if they contain none."""
    cut: "Callable[[int], ResponsePlan] | None" = None
    """Returns the plan that ends after this many output items because of steering; None if the
    response must not be cut, since it has calls or is no :class:`Reply`."""


def plan_reply(
    request: Request, reply: Reply, *, ids: IdGenerator, now: float, cached: int
) -> ResponsePlan:
    """Return the plan of the frames for a `Reply`.

    :param now: The time of creation, in Unix seconds.
    :param cached: The number of words of the history that are in the cache of the connection.
    """
    response = _initial_response(request, ids, now)
    body = list(_output_events(request, reply, ids))
    output = [event["item"] for event in body if event["type"] == "response.output_item.done"]

    def end(reply: Reply, output: list[Json]) -> Json:
        final = _final_response(reply, response, output, now)
        final["usage"] = _usage(request, reply, output, cached)
        return {
            "type": f"response.{reply.status}",
            "response": _with_output(final, reply.final_output),
        }

    def cut(items: int) -> ResponsePlan:
        steered = end(replace(reply, status="incomplete", reason="steered"), output[:items])
        return ResponsePlan(
            [_with_sequence_number(steered, 0, request)], stored=(response["id"], output[:items])
        )

    created = response
    queued: list[Json] = []
    if request.is_background:
        created = response | {"status": "queued"}
        queued = [{"type": "response.queued", "response": created}]
    events = [
        {"type": "response.created", "response": created},
        *queued,
        {"type": "response.in_progress", "response": response},
        *body,
        end(reply, output),
    ]
    frames = [
        _with_sequence_number(event, n, request)
        for n, event in enumerate(_select_events(events, reply.events))
    ]
    stored = None if reply.status == "failed" else (response["id"], output)
    return ResponsePlan(frames, reply.delay, stored, cut=None if reply.calls else cut)


def plan_failure(request: Request, fail: Fail, *, ids: IdGenerator, now: float) -> ResponsePlan:
    """Return the plan of the frames for a `Fail`, an answer that ends in an error."""
    refusal = _refusal_of(fail)
    started = plan_reply(request, Reply(fail.text), ids=ids, now=now, cached=0).frames[:-1]
    frames: list[Frame] = list(started[: fail.after_events])
    if fail.shape == "failed":
        response = _initial_response(request, ids, now)
        response |= {"id": request.response_id, "status": "failed"}
        response["error"] = {"code": refusal.code, "message": refusal.message}
        frames.append(
            _with_sequence_number(
                {"type": "response.failed", "response": response}, len(frames), request
            )
        )
    else:
        frames.append(error_frame(refusal, lane=request.lane, sequence_number=len(frames)))
    return ResponsePlan(frames)


def _refusal_of(fail: Fail) -> RequestRefusal:
    """Return the refusal that the error of an answer describes."""
    return RequestRefusal(
        message=fail.message or default_message(fail.code),
        code=fail.code,
        status=fail.status,
        param=fail.param,
        type=fail.type,
        shape=fail.shape,
        headers=fail.headers,
    )


class _RawResponse(msgspec.Struct):
    """The id, the output and the status of a response object inside raw frames."""

    id: str
    output: list[Any] | None = None
    status: Any = None


def plan_raw(frames: Sequence[Frame]) -> ResponsePlan:
    """Return the plan that sends raw frames unchanged; a response that they end well is stored."""
    responses = [_response_in(frame) for frame in frames]
    response_id = next((found.id for found in responses if found is not None), None)
    last = frames[-1] if frames else None
    stored: tuple[str, Sequence[Json]] | None = None
    if isinstance(last, Mapping) and last.get("type") in _ENDS:
        final = responses[-1]
        if final is not None and final.status not in _FAILURES:
            is_cut_off = _INCOMPLETE in {last["type"], f"response.{final.status}"}
            finished = _finished_items(frames, with_added=not is_cut_off)
            stored = (final.id, _objects(final.output or ()) or finished)
    return ResponsePlan(frames, stored=stored, is_raw=True, response_id=response_id)


def iterate_output_items(frames: Sequence[Frame]) -> Iterator[Any]:
    """Yield the output items in raw frames, valid or not."""
    for frame in frames:
        if isinstance(frame, Mapping):
            yield frame.get("item")
            response: Any = frame.get("response")
            if isinstance(response, Mapping):
                yield cast("Json", response).get("output")


def _finished_items(frames: Sequence[Frame], *, with_added: bool) -> list[Json]:
    """Return the items that raw frames announce in events of their own.

    Events before ``response.created`` are late ones of another response.

    :param with_added: Whether items count that were added and not finished.
    """
    kinds = [frame.get("type") if isinstance(frame, Mapping) else None for frame in frames]
    if _CREATED in kinds:
        frames = frames[kinds.index(_CREATED) :]
    done = _items_in(frames, "response.output_item.done")
    known = [_identity(item) for item in done]
    added = _items_in(frames, "response.output_item.added") if with_added else []
    return [*(item for item in added if _identity(item) not in known), *done]


def _identity(item: Json) -> tuple[Any, ...]:
    return (item.get("type"), item.get("id"), item.get("call_id"))


def _items_in(frames: Sequence[Frame], kind: str) -> list[Json]:
    found = (
        frame.get("item")
        for frame in frames
        if isinstance(frame, Mapping) and frame.get("type") == kind
    )
    return _objects(found)


def _objects(items: Iterable[Any]) -> list[Json]:
    """Return the items that are objects."""
    return [cast("Json", item) for item in items if isinstance(item, Mapping)]


def _response_in(frame: Frame) -> _RawResponse | None:
    if not isinstance(frame, Mapping):
        return None
    try:
        return msgspec.convert(frame.get("response"), _RawResponse)
    except msgspec.ValidationError:
        return None  # missing, or invalid on purpose


def _initial_response(request: Request, ids: IdGenerator, now: float) -> Json:
    if request.response_id is None:
        request.response_id = ids.new("resp")
    echoed = {
        name: default if request.get(name) is None else request[name]
        for name, default in _ECHOED.items()
    }
    return {
        "id": request.response_id,
        "object": "response",
        "created_at": int(now),
        "status": "in_progress",
        "completed_at": None,
        "error": None,
        "incomplete_details": None,
        "model": request["model"],
        "output": [],
        "service_tier": "default",
        "tools": [_tool_with_defaults(tool) for tool in request.tools],
        "usage": None,
        **echoed,
    }


def _tool_with_defaults(tool: Json) -> Json:
    if tool["type"] != "function":
        return tool
    return {"description": None, "parameters": None, "strict": True, **tool}


def _final_response(reply: Reply, response: Json, output: list[Json], now: float) -> Json:
    final = response | {"status": reply.status, "output": output}
    if reply.status == "completed":
        final["completed_at"] = int(now)
    elif reply.status == "incomplete":
        final["incomplete_details"] = {"reason": reply.reason}
    else:
        final["error"] = {"code": reply.error, "message": f"The response failed ({reply.error})."}
    return final


def _usage(request: Request, reply: Reply, output: list[Json], cached: int) -> Json:
    reasoning = reply.usage.get("reasoning_tokens", count_words(reply.reasoning))
    tokens_in = reply.usage.get("input_tokens", count_input(request.body, request.conversation))
    tokens_out = reply.usage.get("output_tokens", count_words(output))
    tokens_cached = reply.usage.get("cached_tokens", cached)
    return make_usage(tokens_in, tokens_out, cached=tokens_cached, reasoning=reasoning)


def count_input(body: Json, conversation: History) -> int:
    """Return the number of input tokens of a request: the words of all that the model reads."""
    fixed = count_words(body.get("instructions")) + count_words(body.get("tools"))
    return fixed + conversation.words


def make_usage(tokens_in: int, tokens_out: int, *, cached: int = 0, reasoning: int = 0) -> Json:
    """Return a ``usage`` object."""
    return {
        "input_tokens": tokens_in,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": tokens_out,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": tokens_in + tokens_out,
    }


def _with_output(final: Json, how: str) -> Json:
    match how:
        case "empty":
            return final | {"output": []}
        case "null":
            return final | {"output": None}
        case "missing":
            return {name: value for name, value in final.items() if name != "output"}
        case _:
            return final


def _select_events(events: list[Json], which: str) -> list[Json]:
    match which:
        case "deltas":
            return [event for event in events if not event["type"].endswith(_NOT_ESSENTIAL)]
        case "items":
            items = [event for event in events if event["type"] == "response.output_item.done"]
            return [events[0], *items, events[-1]]
        case "terminal":
            return events[-1:]
        case _:
            return events


def _with_sequence_number(event: Json, number: int, request: Request) -> Json:
    frame = event | {"sequence_number": number}
    if request.lane is not None:
        frame["stream_id"] = request.lane
    return frame


def _output_events(request: Request, reply: Reply, ids: IdGenerator) -> Iterator[Json]:
    index = 0
    if is_compaction_due(request.body, request.conversation) and not request.is_warm_up:
        yield from _compaction_events(make_compaction(request.conversation, ids.new("cmp")), index)
        index += 1
    if reply.reasoning is not None:
        encrypted = None
        if request.wants_encrypted_reasoning:
            encrypted = seal(request["model"], ids.new("enc"))
        yield from _reasoning_events(reply.reasoning, encrypted, index, ids.new("rs"))
        index += 1
    messages = _message_deltas(reply)
    for number, (phase, chunks) in enumerate(messages, 1):
        status = reply.status if number == len(messages) else "completed"
        yield from _message_events(chunks, index, ids.new("msg"), status, phase)
        index += 1
    for call in reply.calls:
        call_id = call.call_id or ids.new("call")
        yield from _call_events(call, call_id, index, ids.new("fc"))
        index += 1


def _compaction_events(item: Json, index: int) -> Iterator[Json]:
    yield {"type": "response.output_item.added", "output_index": index, "item": item}
    yield {"type": "response.compaction.compacting", "output_index": index, "item_id": item["id"]}
    yield {"type": "response.output_item.done", "output_index": index, "item": item}


def _reasoning_events(
    summary: str, encrypted: str | None, index: int, item_id: str
) -> Iterator[Json]:
    item: Json = {"id": item_id, "type": "reasoning", "summary": [], "encrypted_content": encrypted}
    at = {"item_id": item_id, "output_index": index, "summary_index": 0}
    prefix = "response.reasoning_summary"
    part = {"type": "summary_text", "text": summary}
    yield {"type": "response.output_item.added", "output_index": index, "item": item}
    yield {"type": f"{prefix}_part.added", **at, "part": part | {"text": ""}}
    for delta in _split_words(summary):
        yield {"type": f"{prefix}_text.delta", **at, "delta": delta}
    yield {"type": f"{prefix}_text.done", **at, "text": summary}
    yield {"type": f"{prefix}_part.done", **at, "part": part}
    done = item | {"summary": [part]}
    yield {"type": "response.output_item.done", "output_index": index, "item": done}


def _message_events(
    chunks: Sequence[str], index: int, item_id: str, status: str, phase: str | None
) -> Iterator[Json]:
    text = "".join(chunks)
    item: Json = {"id": item_id, "type": "message", "role": "assistant", "content": []}
    if phase is not None:
        item["phase"] = phase
    at = {"item_id": item_id, "output_index": index, "content_index": 0}
    part: Json = {"type": "output_text", "text": text, "annotations": [], "logprobs": []}
    yield {
        "type": "response.output_item.added",
        "output_index": index,
        "item": item | {"status": "in_progress"},
    }
    yield {"type": "response.content_part.added", **at, "part": part | {"text": ""}}
    for delta in chunks:
        yield {"type": "response.output_text.delta", **at, "delta": delta, "logprobs": []}
    yield {"type": "response.output_text.done", **at, "text": text, "logprobs": []}
    yield {"type": "response.content_part.done", **at, "part": part}
    done = item | {"content": [part]}
    done["status"] = "completed" if status == "completed" else "incomplete"
    yield {"type": "response.output_item.done", "output_index": index, "item": done}


def _call_events(call: Call, call_id: str, index: int, item_id: str) -> Iterator[Json]:
    arguments = call.arguments
    if not isinstance(arguments, str):
        arguments = msgspec.json.encode(arguments).decode()
    item: Json = {"id": item_id, "type": "function_call", "name": call.name, "call_id": call_id}
    if call.namespace is not None:
        item["namespace"] = call.namespace
    at = {"item_id": item_id, "output_index": index}
    prefix = "response.function_call_arguments"
    yield {
        "type": "response.output_item.added",
        "output_index": index,
        "item": item | {"arguments": "", "status": "in_progress"},
    }
    for delta in _split_pieces(arguments, 16):
        yield {"type": f"{prefix}.delta", **at, "delta": delta}
    yield {"type": f"{prefix}.done", **at, "arguments": arguments}
    done = item | {"arguments": arguments, "status": "completed"}
    yield {"type": "response.output_item.done", "output_index": index, "item": done}


def _message_deltas(reply: Reply) -> list[tuple[str | None, Sequence[str]]]:
    """Return the phase and the text deltas of each message of a reply."""
    size = reply.chunk_size
    answers: list[Sequence[str]] = [_split_text(text, size) for text in reply.more]
    if reply.chunks is not None:
        answers.insert(0, reply.chunks)
    elif reply.text is not None:
        answers.insert(0, _split_text(reply.text, size))
    phase = reply.phase or ("final_answer" if reply.commentary else None)
    commentary = [("commentary", _split_text(text, size)) for text in reply.commentary]
    return [*commentary, *((phase, chunks) for chunks in answers)]


def _split_text(text: str, size: int | None) -> list[str]:
    return _split_words(text) if size is None else _split_pieces(text, size)


def _split_words(text: str) -> list[str]:
    first, *rest = text.split(" ")
    return [piece for piece in (first, *(f" {word}" for word in rest)) if piece]


def _split_pieces(text: str, size: int) -> list[str]:
    return [text[start : start + size] for start in range(0, len(text), size)]
