"""The methods to run a turn that connections, lanes, conversations and pools share.

Everything is built on one method, ``stream``.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, TypeVar, final, overload

from trio_responses._errors import (
    DeliveryStatus,
    ResponseFailedError,
    UnexpectedOutput,
)
from trio_responses._settings import check_option_values
from trio_responses._tools.parsing import parse_response, with_text_format
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._turn.stream import AbandonChoice, TurnSender
    from trio_responses._wire import Response

__all__ = ["Lane", "TurnMethods"]

T = TypeVar("T")


class TurnMethods:
    """A base class with methods to run a turn, all built on ``stream``."""

    @abstractmethod
    def stream(
        self, *, delivery: DeliveryMode = "at_most_once", snapshot: bool = True, **params: Any
    ) -> ResponseStream:
        """Return a stream for one turn: its block sends the request and receives the events."""
        raise NotImplementedError

    async def create(self, *, delivery: DeliveryMode = "at_most_once", **params: Any) -> Response:
        """Run one turn and return its Response: completed, or incomplete.

        If cancelled, the remaining events of the response are discarded.

        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param params: the fields of `ResponseCreate`; others go into its ``extra``.
        :raises ConfigurationError: for an invalid value of ``delivery``.
        :raises ResponseFailedError: when the response failed.
        :raises APIError: when the server refused the request.
        :raises ResponsesError: when the turn ended without a Response; its ``delivery`` states how
            far the request had come.
        """
        async with self.stream(delivery=delivery, snapshot=False, **params) as stream:
            response = await stream.until_done()
        if response.status == "failed":
            error = ResponseFailedError(response)
            error.delivery = DeliveryStatus.ACCEPTED
            raise error
        return response

    async def warm_up(self, **params: Any) -> Response:
        """Let the server prepare model, instructions and tools, without output.

        Waits until the server has finished, so that a following turn cannot overtake it. The id of
        the Response may be the ``previous_response_id`` of a turn. Whether a following turn gets
        faster depends on the server. If cancelled, remaining events are discarded; what the server
        has prepared stays.

        :param params: the fields of `ResponseCreate`, ``generate`` excepted.
        :raises UnexpectedOutput: when the server generated output in spite of that.
        :raises ResponsesError: as `create` does.
        """
        settings: dict[str, Any] = {"input": [], **params, "generate": False}
        response = await self.create(**settings)
        if response.raw_output:
            error = UnexpectedOutput(response)
            error.delivery = DeliveryStatus.ACCEPTED
            raise error
        return response

    @overload
    async def parse(
        self, answer: type[T], *, delivery: DeliveryMode = "at_most_once", **params: Any
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self, answer: Any, *, delivery: DeliveryMode = "at_most_once", **params: Any
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self, answer: Any, *, delivery: DeliveryMode = "at_most_once", **params: Any
    ) -> ParsedResponse[Any]:
        """Run one turn whose answer is a value of a type.

        For example::

            class Weather(msgspec.Struct):
                city: str
                degrees: float

            answer = await connection.parse(Weather, model=MODEL, input="Is it warm in Oslo?")
            print(answer.parsed.degrees)

        The model has to follow the JSON schema of the type, in strict mode where strict mode can
        express the type (`JSONType`). If cancelled, the remaining events are discarded.

        :param answer: a Struct, a dataclass, or any other type that msgspec decodes.
        :param params: the fields of `ResponseCreate`; ``text`` may have fields other than
            ``format``.
        :raises RefusalError: when the model refuses.
        :raises IncompleteError: when the answer was cut off.
        :raises ParseMismatchError: when the text does not fit the type.
        :raises ConfigurationError: for a type that has no JSON schema.
        :raises ResponsesError: as `create` does.
        """
        settings, reader = with_text_format(answer, params)
        return parse_response(await self.create(delivery=delivery, **settings), reader)


@final
class Lane(TurnMethods):
    """A reserved lane (``stream_id``), on which turns run one after the other.

    Made by ``connection.lane()``.

    A turn that is left early lets the next one wait until the rest of its response was received.
    """

    def __init__(self, sender: TurnSender, name: str | None) -> None:
        self._sender = sender
        self.name = name
        """The ``stream_id``; `None` where the endpoint has no lanes."""

    def __repr__(self) -> str:
        """Return the name of the lane."""
        return f"<Lane {self.name!r}>"

    def stream(
        self,
        *,
        delivery: DeliveryMode = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        **params: Any,
    ) -> ResponseStream:
        """Return a stream for one turn on this lane, as ``connection.stream`` does."""
        check_option_values(delivery=delivery, abandon=abandon)
        request = StaticRequest(create_command(params))
        return ResponseStream(
            self._sender, request, delivery=delivery, abandon=abandon, snapshot=snapshot
        )
