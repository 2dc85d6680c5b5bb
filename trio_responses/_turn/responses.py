"""`Responses`: turns, and calls about stored responses, by the names of openai-python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeVar, final, overload

import msgspec

from trio_responses import _wire as wire
from trio_responses._errors import DeliveryStatus, UndecodableResponse
from trio_responses._turn.request_builder import create_command
from trio_responses._wire.param_checks import check_params

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Unpack

    from trio_responses._json_types.adapter import TypeAdapterLike
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._settings import Timeouts
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._turn.methods import TurnMethods
    from trio_responses._turn.stream import ResponseStream
    from trio_responses._wire import CompactedResponse, Input, InputItemsPage, Response
    from trio_responses._wire.params import ResponseCreateParams

__all__ = ["APICalls", "Responses"]

T = TypeVar("T")


class APICalls(Protocol):
    """The interface that sends calls of the API that are no turns."""

    async def call(
        self,
        method: str,
        *path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> msgspec.Raw:
        """Send a request, and return the JSON of the answer."""
        ...


@final
class Responses:
    """The methods of a connection or pool by the names of openai-python.

    Made by ``connection.responses`` and ``pool.responses``. So code that was written for
    ``client.responses`` of openai-python runs on a connection::

        client = connection
        response = await client.responses.create(model=MODEL, input="Hello")

    The calls about stored responses, such as `retrieve`, go over HTTP, whatever the transport of
    turns is. They need the extra ``trio-responses[http]``. Their errors:

    * `ConfigurationError`, when the extra is not installed.
    * `APIError`, when the server refuses the call: with status 404 for an id that it does not have.
    * `ConnectError` and `ReconnectFailed`, when no HTTP connection can be opened.
    * `ConnectionLost` and `FirstEventTimeout`, when the answer does not come; calls that change
      nothing twice are repeated before, at most ``max_retries`` times.
    """

    def __init__(self, turns: TurnMethods, calls: APICalls) -> None:
        self._turns = turns
        self._calls = calls

    def __repr__(self) -> str:
        """Return the connection or pool."""
        return f"<Responses of {self._turns!r}>"

    async def create(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> Response:
        """Run one turn and return its Response, as ``connection.create`` does."""
        return await self._turns.create(
            input, delivery=delivery, max_retries=max_retries, timeouts=timeouts, **params
        )

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        text_format: Any = None,
        snapshot: bool = True,
        **params: Unpack[ResponseCreateParams],
    ) -> ResponseStream:
        """Run one turn as a scope, event by event, as ``connection.stream`` does."""
        return self._turns.stream(
            input,
            delivery=delivery,
            text_format=text_format,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            **params,
        )

    @overload
    async def parse(
        self,
        text_format: type[T] | TypeAdapterLike[T],
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self,
        text_format: Any,
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        text_format: Any,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ParsedResponse[Any]:
        """Run one turn whose answer is a value of a type, as ``connection.parse`` does.

        :param text_format: a Struct, a dataclass, a model of pydantic, or any other type that
            `JSONType` accepts.
        """
        return await self._turns.parse(
            text_format,
            input,
            delivery=delivery,
            max_retries=max_retries,
            timeouts=timeouts,
            **params,
        )

    # --- Stored responses ------------------------------------------------------------------

    async def retrieve(self, response_id: str, *, include: Sequence[str] | None = None) -> Response:
        """Return a stored response, which may be still in progress. A checkpoint.

        :param include: additional output to return, as the parameter ``include`` of a turn.
        """
        path = _checked_id(response_id)
        return _decode(
            wire.decode_response, await self._calls.call("GET", path, query={"include": include})
        )

    async def cancel(self, response_id: str) -> Response:
        """Cancel a background response, and return it. A checkpoint."""
        path = _checked_id(response_id)
        return _decode(wire.decode_response, await self._calls.call("POST", path, "cancel"))

    async def delete(self, response_id: str) -> None:
        """Delete a stored response. A checkpoint."""
        await self._calls.call("DELETE", _checked_id(response_id))

    async def input_items(
        self,
        response_id: str,
        *,
        after: str | None = None,
        limit: int | None = None,
        order: Literal["asc", "desc"] | None = None,
        include: Sequence[str] | None = None,
    ) -> InputItemsPage:
        """Return one page of the input items of a stored response. A checkpoint.

        :param after: the id of the item after which the page begins: ``last_id`` of the page
            before.
        :param limit: the largest number of items, from 1 to 100; the server's default is 20.
        :param order: ``"asc"`` for the oldest item first; the server's default is ``"desc"``.
        :param include: additional content to return, as the parameter ``include`` of a turn.
        """
        query = {"after": after, "limit": limit, "order": order, "include": include}
        path = _checked_id(response_id)
        return _decode(
            _page_decoder.decode, await self._calls.call("GET", path, "input_items", query=query)
        )

    async def compact(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        **params: Unpack[ResponseCreateParams],
    ) -> CompactedResponse:
        """Return fewer items that a conversation can go on with, in place of its history.

        For example::

            compacted = await connection.responses.compact(conversation.items, model=MODEL)
            conversation.replace_history(compacted.output)

        A checkpoint.

        :param params: ``model``, and for example ``instructions`` and ``previous_response_id``.
        """
        check_params(params, of="compact()")
        body = _encode(params, input)
        raw = await self._calls.call("POST", "compact", body=body)
        return _decode(_compacted_decoder.decode, raw)

    async def input_tokens(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        **params: Unpack[ResponseCreateParams],
    ) -> int:
        """Return how many input tokens a request with these parameters would have. A checkpoint.

        :param params: the parameters of the request, such as ``model`` and ``tools``.
        """
        check_params(params, of="input_tokens()")
        body = _encode(params, input)
        raw = await self._calls.call("POST", "input_tokens", body=body)
        return _decode(_count_decoder.decode, raw).input_tokens


class _TokenCount(msgspec.Struct):
    """The answer to ``input_tokens``."""

    input_tokens: int


_page_decoder: Final = msgspec.json.Decoder(wire.InputItemsPage)
_compacted_decoder: Final = msgspec.json.Decoder(wire.CompactedResponse)
_count_decoder: Final = msgspec.json.Decoder(_TokenCount)


def _checked_id(response_id: str) -> str:
    """Return the id of a response, for the path of a call.

    :raises TypeError: for a value that is no text.
    :raises ValueError: for an empty text.
    """
    if not isinstance(response_id, str):
        kind = type(response_id).__name__
        raise TypeError(f"response_id must be the id of a response, as text, not {kind}")
    if not response_id:
        raise ValueError("response_id is empty: pass the id of a stored response")
    return response_id


def _encode(params: Mapping[str, Any], given: Input | None) -> bytes:
    """Return the body of a call that has the parameters of a request."""
    fields: dict[str, msgspec.Raw] = msgspec.json.decode(
        wire.encode(create_command(params, given)), type=dict[str, msgspec.Raw]
    )
    del fields["type"]
    return msgspec.json.encode(fields)


def _decode(decode: Callable[[msgspec.Raw], T], raw: msgspec.Raw) -> T:
    """Return the decoded answer to a call.

    :raises UndecodableResponse: when the answer has another form.
    """
    try:
        return decode(raw)
    except wire.DECODE_ERRORS as error:
        frame = wire.UndecodableFrame(raw=bytes(raw), error=str(error))
        problem = UndecodableResponse(frame)
        problem.delivery = DeliveryStatus.ACCEPTED
        raise problem from None
