"""Ways to run a turn, wherever it runs: on the connection, or on a lane of one's own.

Everything is made of one method, ``stream``; what it needs of the connection is `stream.Lines`.

What belongs elsewhere: the turn itself (`stream.py`), which lane it gets
(`connection/sending.py`).
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Protocol, TypeVar, final, overload

from trio_responses._concurrency import FastLock
from trio_responses._errors import (
    Delivery,
    ResponseFailedError,
    UnexpectedOutput,
)
from trio_responses._settings import check_option_values
from trio_responses._tools.parsing import ask_for, read_answer
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    from trio_responses._protocol.delivery import DeliveryChoice
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._turn.request_builder import RequestBuilder
    from trio_responses._turn.steering import SteerReceipt
    from trio_responses._turn.stream import AbandonChoice
    from trio_responses._turn.turn import Turn
    from trio_responses._wire import Response

__all__ = ["Lane", "TurnMethods"]

T = TypeVar("T")


class TurnMethods:
    """What can be done with turns where there is a ``stream`` method."""

    @abstractmethod
    def stream(
        self, *, delivery: DeliveryChoice = "at_most_once", snapshot: bool = True, **params: Any
    ) -> ResponseStream:
        """Run one turn as a scope, event by event."""
        raise NotImplementedError

    async def create(self, *, delivery: DeliveryChoice = "at_most_once", **params: Any) -> Response:
        """Run one turn and give its Response: completed, or incomplete.

        It takes keywords only; that of a conversation takes the input as its first argument, too.
        When cancelled, the rest of the response is dropped.

        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param params: the fields of `ResponseCreate`; others go into its ``extra``.
        :raises ConfigurationError: for another word in ``delivery``.
        :raises ResponseFailedError: when the response failed.
        :raises APIError: when the server refused the request.
        :raises ResponsesError: when there is no Response; its ``delivery`` says how far it came.
        """
        async with self.stream(delivery=delivery, snapshot=False, **params) as stream:
            response = await stream.until_done()
        if response.status == "failed":
            error = ResponseFailedError(response)
            error.delivery = Delivery.ACCEPTED
            raise error
        return response

    async def warm_up(self, **params: Any) -> Response:
        """Have the server prepare model, instructions and tools, without output.

        It waits for its own end, so that a turn after it cannot overtake it. The Response's id
        may be the parent of a turn. Whether it makes anything faster depends on the server. When
        cancelled, what the server still says of it is dropped; what it prepared stays.

        :param params: the fields of `ResponseCreate`, ``generate`` excepted.
        :raises UnexpectedOutput: when the server generated all the same.
        :raises ResponsesError: as `create` does.
        """
        settings: dict[str, Any] = {"input": [], **params, "generate": False}
        response = await self.create(**settings)
        if response.raw_output:
            error = UnexpectedOutput(response)
            error.delivery = Delivery.ACCEPTED
            raise error
        return response

    @overload
    async def parse(
        self, answer: type[T], *, delivery: DeliveryChoice = "at_most_once", **params: Any
    ) -> ParsedResponse[T]: ...
    @overload
    async def parse(
        self, answer: Any, *, delivery: DeliveryChoice = "at_most_once", **params: Any
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self, answer: Any, *, delivery: DeliveryChoice = "at_most_once", **params: Any
    ) -> ParsedResponse[Any]:
        """Run one turn whose answer is a value of a type.

        For example::

            class Weather(msgspec.Struct):
                city: str
                degrees: float

            answer = await connection.parse(Weather, model=MODEL, input="Is it warm in Oslo?")
            print(answer.parsed.degrees)

        The model is held to the type's JSON schema, in strict mode where that has a form for it
        (`schema.JSONType`). When cancelled, the rest of the response is dropped.

        :param answer: a Struct, a dataclass, or any other type that msgspec decodes.
        :param params: the fields of `ResponseCreate`; ``text`` may have others beside its
            ``format``.
        :raises AnswerRefused: when the model refuses.
        :raises AnswerIncomplete: when the answer is cut off.
        :raises AnswerMismatch: when the text does not fit the type.
        :raises ConfigurationError: for a type that has no JSON schema.
        :raises ResponsesError: as `create` does.
        """
        settings, reader = ask_for(answer, params)
        return read_answer(await self.create(delivery=delivery, **settings), reader)


class LaneTurnSender(Protocol):
    """What a lane needs of its connection."""

    async def start_turn(self, draft: RequestBuilder, lane: Lane | None = None) -> Turn:
        """Send a request as soon as there is a socket and a place on the lane."""
        ...

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn."""
        ...

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Put something into a response that is under way."""
        ...


@final
class Lane(TurnMethods):
    """A lane of one's own: turns on it run one after the other. Made by ``connection.lane()``.

    A turn that is left early makes the next one wait until the rest of its response has passed.
    """

    def __init__(self, lines: LaneTurnSender, name: str | None) -> None:
        self._lines = lines
        self.name = name
        """The ``stream_id``; `None` where the endpoint has no lanes."""
        self.lock: FastLock = FastLock()
        """Where the turns of this lane queue."""

    def __repr__(self) -> str:
        """Show its name."""
        return f"<Lane {self.name!r}>"

    async def start_turn(self, draft: RequestBuilder) -> Turn:
        """Send a request on this lane."""
        return await self._lines.start_turn(draft, self)

    def abandon_turn(self, turn: Turn, abandon: AbandonChoice) -> None:
        """Drop what is still to come of a turn."""
        self._lines.abandon_turn(turn, abandon)

    async def steer(self, turn: Turn, receipt: SteerReceipt) -> None:
        """Put something into a response that is under way on this lane."""
        await self._lines.steer(turn, receipt)

    def stream(
        self,
        *,
        delivery: DeliveryChoice = "at_most_once",
        abandon: AbandonChoice = "drain",
        snapshot: bool = True,
        **params: Any,
    ) -> ResponseStream:
        """Run one turn on this lane as a scope, event by event: as ``connection.stream``."""
        check_option_values(delivery=delivery, abandon=abandon)
        draft = StaticRequest(create_command(params))
        return ResponseStream(self, draft, delivery=delivery, abandon=abandon, snapshot=snapshot)
