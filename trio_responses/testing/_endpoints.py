"""The calls of the API over HTTP: a table from method and path to the function that answers.

Errors have the status and the JSON of the API (docs/protocol.md 8). Clients must rely on the status
and the code: OpenAI's messages for these calls are not known, and neither is whether its input
items are those of the request alone. Here they are all items that the model has read.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeAlias, final
from urllib.parse import unquote

from trio_responses.testing._frames import (
    Json,
    RequestRefusal,
    event_stream_not_kept,
    previous_response_not_found,
    response_not_found,
)
from trio_responses.testing._history import EMPTY_HISTORY, History, items_of, make_compaction
from trio_responses.testing._http import Exchange
from trio_responses.testing._http_answers import (
    event_bytes,
    json_answer,
    json_refusal,
    refusal_answer,
)
from trio_responses.testing._http_turns import STREAM_HEADERS, HTTPTurn
from trio_responses.testing._pages import list_items, make_page, number_in
from trio_responses.testing._records import Request
from trio_responses.testing._request_checks import (
    check_compact,
    check_count,
    is_authorized,
    parse_json,
)
from trio_responses.testing._response_plans import count_input, make_usage
from trio_responses.testing._scripts import HTTPAnswer
from trio_responses.testing._state import ServerState
from trio_responses.testing._stored import RetrievableResponse

if TYPE_CHECKING:
    from collections.abc import Awaitable, Mapping

_BASE: Final = "/v1/responses"
_ANY: Final = "{id}"

_Call: TypeAlias = "Callable[[Exchange, str], Awaitable[HTTPAnswer | None]]"
"""A function that answers a call; None if it has written the answer itself. The text is the id in
the path."""


@final
class Endpoints:
    """The calls of one server."""

    def __init__(self, state: ServerState) -> None:
        self._state = state
        self._routes: Mapping[tuple[str, tuple[str, ...]], _Call] = {
            ("POST", ()): self._create,
            ("POST", ("compact",)): self._compact,
            ("POST", ("input_tokens",)): self._count_input,
            ("GET", (_ANY,)): self._retrieve,
            ("DELETE", (_ANY,)): self._delete,
            ("POST", (_ANY, "cancel")): self._cancel,
            ("GET", (_ANY, "input_items")): self._list_input_items,
        }

    async def answer(self, exchange: Exchange) -> None:
        """Answer one request."""
        answer = await self._answer(exchange)
        if answer is not None:
            await exchange.respond(answer)

    async def _answer(self, exchange: Exchange) -> HTTPAnswer | None:
        request = exchange.request
        segments = _segments_of(request.path)
        if segments is None:
            return _not_found(request.path)
        if not is_authorized(request.headers, self._state.options.api_key):
            return json_refusal(
                401, code="invalid_api_key", message="Incorrect API key provided.", headers={}
            )
        calls = {
            method: call
            for (method, pattern), call in self._routes.items()
            if _fits(pattern, segments)
        }
        if not calls:
            return _not_found(request.path)
        if request.method not in calls:
            allowed = ", ".join(sorted(calls))
            message = f"Not allowed to {request.method} on {request.path}: allowed is {allowed}."
            return json_refusal(
                405, code="method_not_allowed", message=message, headers={"Allow": allowed}
            )
        return await calls[request.method](exchange, segments[0] if segments else "")

    # Responses

    async def _create(self, exchange: Exchange, _: str) -> HTTPAnswer | None:
        body = parse_json(exchange.request.body)
        if isinstance(body, RequestRefusal):
            return refusal_answer(body)
        request = Request(body, exchange.connection.number, transport="http")
        self._state.add_request(request)
        await HTTPTurn(self._state, exchange, request).run()
        return None

    async def _retrieve(self, exchange: Exchange, response_id: str) -> HTTPAnswer | None:
        kept = self._state.stored.find(response_id)
        if kept is None:
            return refusal_answer(response_not_found(response_id))
        query = exchange.request.query
        after = number_in(query, "starting_after")
        if isinstance(after, RequestRefusal):
            return refusal_answer(after)
        if query.get("stream", [""])[-1].lower() not in {"true", "1"}:
            return json_answer(kept.response)
        if not kept.keeps_events:
            return refusal_answer(event_stream_not_kept())
        await exchange.start(200, STREAM_HEADERS)
        place = 0
        while events := await kept.next_events(place):
            place += len(events)
            for event in events:
                if after is None or event.get("sequence_number", 0) > after:
                    await exchange.send_body(event_bytes(event))
        await exchange.end()
        return None

    async def _delete(self, _: Exchange, response_id: str) -> HTTPAnswer:
        kept = self._state.stored.find(response_id)
        if kept is None:
            return refusal_answer(response_not_found(response_id))
        kept.cancel()
        self._state.forget(response_id)
        return json_answer({"id": response_id, "object": "response", "deleted": True})

    async def _cancel(self, _: Exchange, response_id: str) -> HTTPAnswer:
        kept = self._state.stored.find(response_id)
        if kept is None:
            return refusal_answer(response_not_found(response_id))
        if not kept.request.is_background:
            message = "Cannot cancel a synchronous response."
            return json_refusal(400, code=None, message=message, headers={})
        kept.cancel()
        return json_answer(kept.response)

    async def _list_input_items(self, exchange: Exchange, response_id: str) -> HTTPAnswer:
        kept = self._state.stored.find(response_id)
        if kept is None:
            return refusal_answer(response_not_found(response_id))
        page = make_page(list_items(_input_of(kept)), exchange.request.query)
        return refusal_answer(page) if isinstance(page, RequestRefusal) else json_answer(page)

    # Calls without a response

    async def _compact(self, exchange: Exchange, _: str) -> HTTPAnswer:
        found = self._conversation_of(exchange, check_compact)
        if isinstance(found, RequestRefusal):
            return refusal_answer(found)
        body, conversation = found
        ids = self._state.ids
        items = [item for item in conversation.to_list() if item.get("role") == "user"]
        output = [*list_items(items), make_compaction(conversation, ids.new("cmp"))]
        return json_answer(
            {
                "id": ids.new("resp"),
                "object": "response.compaction",
                "created_at": int(self._state.now()),
                "output": output,
                "usage": make_usage(count_input(body, conversation), 1),
            }
        )

    async def _count_input(self, exchange: Exchange, _: str) -> HTTPAnswer:
        found = self._conversation_of(exchange, check_count)
        if isinstance(found, RequestRefusal):
            return refusal_answer(found)
        count = count_input(*found)
        return json_answer({"object": "response.input_tokens", "input_tokens": count})

    def _conversation_of(
        self, exchange: Exchange, check: Callable[..., RequestRefusal | None]
    ) -> tuple[Json, History] | RequestRefusal:
        """Return the body of a request and the conversation that the model would read."""
        body = parse_json(exchange.request.body)
        if isinstance(body, RequestRefusal):
            return body
        options = self._state.options
        refusal = check(
            body,
            strict=options.strict,
            unknown_parameters=options.unknown_parameters,
            names=self._state.sent_names,
        )
        if refusal is not None:
            return refusal
        parent_id = body.get("previous_response_id")
        parent = None if parent_id is None else self._state.stored.get(parent_id)
        if parent_id is not None and parent is None:
            hint = self._state.stored.has_dropped
            return previous_response_not_found(parent_id, may_be_dropped=hint)
        past = EMPTY_HISTORY if parent is None else parent.history
        return body, History(items_of(body.get("input")), past)


def _input_of(kept: RetrievableResponse) -> list[Json]:
    """Return the items that the model has read for a response."""
    return kept.request.history or kept.request.input_items


def _segments_of(path: str) -> list[str] | None:
    """Return the segments after ``/v1/responses``; None for every other path."""
    before, base, rest = path.rpartition(_BASE)
    if not base or (rest and not rest.startswith("/")):
        return None
    del before
    return [unquote(segment) for segment in rest.split("/")[1:]]


def _fits(pattern: tuple[str, ...], segments: list[str]) -> bool:
    return len(pattern) == len(segments) and all(
        bool(segment) and expected in {_ANY, segment}
        for expected, segment in zip(pattern, segments, strict=True)
    )


def _not_found(path: str) -> HTTPAnswer:
    return json_refusal(404, code="not_found", message=f"Unknown path: {path}", headers={})
