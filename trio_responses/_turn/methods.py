"""The methods to run a turn that connections, lanes, conversations and pools share.

Everything is built on one method, ``stream``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, overload

from trio_responses._errors import (
    DeliveryStatus,
    UnexpectedOutput,
)
from trio_responses._settings import check_option_values
from trio_responses._tools.parsing import parse_response, with_text_format
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream, TurnSender

if TYPE_CHECKING:
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._wire import Input, Response

__all__ = ["Lane", "Responses", "TurnMethods"]

T = TypeVar("T")


class LaneTurnSender(TurnSender, Protocol):
    """Sends the turns of one reserved lane."""

    name: str | None
    """The ``stream_id``; `None` where the endpoint has no lanes."""

    @property
    def previous_response_id(self) -> str | None:
        """The latest response of the lane that the server has cached for the current socket."""
        ...


class TurnMethods:
    """A base class with methods to run a turn, all built on ``stream``."""

    @abstractmethod
    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        snapshot: bool = True,
        max_retries: int | None = None,
        **params: Any,
    ) -> ResponseStream:
        """Return a stream for one turn: its block sends the request and receives the events."""
        raise NotImplementedError

    async def create(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> Response:
        """Run one turn and return its Response: completed, or incomplete.

        If cancelled, the remaining events of the response are discarded.

        :param input: text, which is sent as a message of the user, or an item, or a list of items.
        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param max_retries: how often the turn is sent again after a rate limit or, with
            ``at_least_once``, after an error of the server; by default as the connection.
        :param params: the fields of `ResponseCreate`; others go into its ``extra``.
        :raises ConfigurationError: for an invalid value of ``delivery`` or ``max_retries``.
        :raises RateLimitError: when the server still rejects the request for its rate.
        :raises ResponseFailedError: when the response failed.
        :raises APIError: when the server refused the request.
        :raises ResponsesError: when the turn ended without a Response; its ``delivery`` states how
            far the request had come.
        """
        async with self.stream(
            input, delivery=delivery, snapshot=False, max_retries=max_retries, **params
        ) as stream:
            return await stream.get_final_response()

    async def warm_up(
        self,
        input: Input = (),  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> Response:
        """Let the server prepare model, instructions and tools, without output.

        Waits until the server has finished, so that a following turn cannot overtake it. The id of
        the Response may be the ``previous_response_id`` of a turn. Whether a following turn gets
        faster depends on the server. If cancelled, remaining events are discarded; what the server
        has prepared stays.

        :param input: items that the following turns begin with, if any.
        :param delivery: as of `create`.
        :param max_retries: as of `create`.
        :param params: the fields of `ResponseCreate`, ``generate`` excepted.
        :raises UnexpectedOutput: when the server generated output in spite of that.
        :raises ResponsesError: as `create` does.
        """
        settings: dict[str, Any] = {**params, "generate": False}
        response = await self.create(input, delivery=delivery, max_retries=max_retries, **settings)
        if response.raw_output:
            error = UnexpectedOutput(response)
            error.delivery = DeliveryStatus.ACCEPTED
            raise error
        return response

    @overload
    async def parse(
        self,
        answer: type[T],
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self,
        answer: Any,
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        answer: Any,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]:
        """Run one turn whose answer is a value of a type.

        For example::

            class Weather(msgspec.Struct):
                city: str
                degrees: float

            answer = await connection.parse(Weather, "Is it warm in Oslo?", model=MODEL)
            print(answer.parsed.degrees)

        The model has to follow the JSON schema of the type, in strict mode where strict mode can
        express the type (`JSONType`). If cancelled, the remaining events are discarded.

        :param answer: a Struct, a dataclass, or any other type that msgspec decodes.
        :param input: as for `create`.
        :param params: the fields of `ResponseCreate`; ``text`` may have fields other than
            ``format``.
        :raises RefusalError: when the model refuses.
        :raises IncompleteError: when the answer was cut off.
        :raises ParseMismatchError: when the text does not fit the type.
        :raises ConfigurationError: for a type that has no JSON schema.
        :raises ResponsesError: as `create` does.
        """
        settings, reader = with_text_format(answer, params)
        response = await self.create(input, delivery=delivery, max_retries=max_retries, **settings)
        return parse_response(response, reader)


@final
class Responses:
    """The methods of a connection or pool by the names of openai-python.

    Made by ``connection.responses`` and ``pool.responses``. So code that was written for
    ``client.responses`` of openai-python runs on a connection::

        client = connection
        response = await client.responses.create(model=MODEL, input="Hello")
    """

    def __init__(self, turns: TurnMethods) -> None:
        self._turns = turns

    def __repr__(self) -> str:
        """Return the connection or pool."""
        return f"<Responses of {self._turns!r}>"

    async def create(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> Response:
        """Run one turn and return its Response, as ``connection.create`` does."""
        return await self._turns.create(input, delivery=delivery, max_retries=max_retries, **params)

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        snapshot: bool = True,
        **params: Any,
    ) -> ResponseStream:
        """Run one turn as a scope, event by event, as ``connection.stream`` does."""
        return self._turns.stream(
            input, delivery=delivery, snapshot=snapshot, max_retries=max_retries, **params
        )

    @overload
    async def parse(
        self,
        text_format: type[T],
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self,
        text_format: Any,
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        text_format: Any,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        **params: Any,
    ) -> ParsedResponse[Any]:
        """Run one turn whose answer is a value of a type, as ``connection.parse`` does.

        :param text_format: a Struct, a dataclass, or any other type that msgspec decodes.
        """
        return await self._turns.parse(
            text_format, input, delivery=delivery, max_retries=max_retries, **params
        )


@final
class Lane(TurnMethods):
    """A reserved lane (``stream_id``), on which turns run one after the other.

    Made by ``connection.lane()``.

    A turn that is left early lets the next one wait until the rest of its response was received.
    """

    def __init__(self, sender: LaneTurnSender) -> None:
        self._sender = sender
        self.name: str | None = sender.name
        """The ``stream_id``; `None` where the endpoint has no lanes."""

    def __repr__(self) -> str:
        """Return the name of the lane."""
        return f"<Lane {self.name!r}>"

    @property
    def previous_response_id(self) -> str | None:
        """The id of the latest completed response of this lane, on the current socket.

        A turn with this ``previous_response_id`` continues the chain of the lane: the server has
        the response in its cache. `None` before the first response, after a reconnect, and after
        an error that evicted the response from the cache.
        """
        return self._sender.previous_response_id

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        snapshot: bool = True,
        max_retries: int | None = None,
        **params: Any,
    ) -> ResponseStream:
        """Return a stream for one turn on this lane, as ``connection.stream`` does."""
        check_option_values(delivery=delivery)
        request = StaticRequest(create_command(params, input))
        return ResponseStream(
            self._sender,
            request,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
        )
