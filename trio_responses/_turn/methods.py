"""The ways to run a turn that connections, lanes and pools share.

Each method checks its parameters, and then opens the stream of a turn.
"""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar, final, overload

from trio_responses._errors import (
    DeliveryStatus,
    UnexpectedOutput,
)
from trio_responses._settings import check_option_values, check_turn_timeouts
from trio_responses._tools.parsing import parse_response, with_text_format
from trio_responses._turn.answer_format import ANY_TEXT, with_answer_format
from trio_responses._turn.request_builder import StaticRequest, create_command
from trio_responses._turn.stream import ResponseStream, TurnSender
from trio_responses._wire.param_checks import check_params

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Unpack

    from trio_responses._json_types.adapter import TypeAdapterLike
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._settings import Timeouts
    from trio_responses._tools.parsing import ParsedResponse
    from trio_responses._turn.answer_format import AnswerFormat
    from trio_responses._wire import Input, Response
    from trio_responses._wire.params import ResponseCreateParams

__all__ = ["STREAM_OPTIONS", "TURN_OPTIONS", "Lane", "TurnMethods", "without_output"]

T = TypeVar("T")

TURN_OPTIONS: Final = ("delivery", "max_retries", "timeouts")
STREAM_OPTIONS: Final = (*TURN_OPTIONS, "snapshot", "text_format")
"""Names of keyword arguments that are no parameters of the request."""


class LaneTurnSender(TurnSender, Protocol):
    """Sends the turns of one reserved lane."""

    name: str | None
    """The ``stream_id``; `None` where the endpoint has no lanes."""

    @property
    def previous_response_id(self) -> str | None:
        """The latest response of the lane that the server has cached for the current socket."""
        ...


class TurnMethods:
    """The methods of connections, lanes and pools."""

    @abstractmethod
    def _turn_sender(self) -> TurnSender:
        """Return the sender of the next turn."""
        raise NotImplementedError

    def _open_turn(
        self,
        given: Input | None,
        params: Mapping[str, Any],
        *,
        delivery: DeliveryMode,
        snapshot: bool,
        max_retries: int | None,
        timeouts: Timeouts | None,
        generate: bool | None = None,
        answer_format: AnswerFormat = ANY_TEXT,
    ) -> ResponseStream:
        """Return the stream of a turn; its block sends the request.

        :param params: parameters that `check_params` accepts.
        :param generate: `False` for a warm-up.
        :param answer_format: what the parameters ask for, if the stream may parse the answer.
        """
        check_option_values(delivery=delivery)
        if timeouts is not None:
            check_turn_timeouts(timeouts)
        return ResponseStream(
            self._turn_sender(),
            StaticRequest(create_command(params, given, generate=generate), timeouts),
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            answer_format=answer_format,
        )

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        text_format: Any = None,
        snapshot: bool = True,
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ResponseStream:
        """Return a stream for one turn: its block sends the request and receives the events."""
        check_params(params, of="stream()", options=STREAM_OPTIONS)
        settings, answer_format = with_answer_format(text_format, params)
        return self._open_turn(
            input,
            settings,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            answer_format=answer_format,
        )

    async def create(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> Response:
        """Run one turn and return its Response: completed, or incomplete.

        If cancelled, the remaining events of the response are discarded.

        :param input: text, which is sent as a message of the user, or an item, or a list of items.
        :param delivery: ``"at_least_once"`` sends the request again when it is not known whether
            it ran.
        :param max_retries: how often the turn is sent again after a rate limit or, with
            ``at_least_once``, after an error of the server; by default as the connection.
        :param timeouts: the deadlines ``first_event`` and ``stall`` of each attempt at this turn,
            in place of those of the connection. The other values have no effect on a turn.
        :param params: the parameters of the request: `ResponseCreateParams`.
        :raises TypeError: for an unknown parameter, and a value of a wrong type.
        :raises ValueError: for a word that a parameter does not accept, and a missing key.
        :raises ConfigurationError: for an invalid value of ``delivery``, ``max_retries`` or
            ``timeouts``.
        :raises RateLimitError: when the server still rejects the request for its rate.
        :raises ResponseFailedError: when the response failed.
        :raises APIError: when the server refused the request.
        :raises ResponsesError: when the turn ended without a Response; its ``delivery`` states how
            far the request had come.
        """
        check_params(params, of="create()", options=TURN_OPTIONS)
        async with self._open_turn(
            input,
            params,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
        ) as stream:
            return await stream.get_final_response()

    async def warm_up(
        self,
        input: Input = (),  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> Response:
        """Let the server prepare model, instructions and tools, without output.

        Waits until the server has finished, so that a following turn cannot overtake it. The id of
        the Response may be the ``previous_response_id`` of a turn. Whether a following turn gets
        faster depends on the server. If cancelled, remaining events are discarded; what the server
        has prepared stays.

        :param input: items that the following turns begin with, if any.
        :param delivery: as of `create`.
        :param max_retries: as of `create`.
        :param timeouts: as of `create`.
        :param params: as of `create`.
        :raises UnexpectedOutput: when the server generated output in spite of that.
        :raises ResponsesError: as `create` does.
        """
        check_params(params, of="warm_up()", options=TURN_OPTIONS)
        async with self._open_turn(
            input,
            params,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
            generate=False,
        ) as stream:
            return without_output(await stream.get_final_response())

    @overload
    async def parse(
        self,
        answer: type[T] | TypeAdapterLike[T],
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
        answer: Any,
        input: Input | None = None,
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ParsedResponse[Any]: ...
    async def parse(
        self,
        answer: Any,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
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

        :param answer: a Struct, a dataclass, a model of pydantic, or any other type that `JSONType`
            accepts.
        :param input: as for `create`.
        :param params: as of `create`; ``text`` may have keys other than ``format``.
        :raises RefusalError: when the model refuses.
        :raises IncompleteError: when the answer was cut off.
        :raises ParseMismatchError: when the text does not fit the type.
        :raises ConfigurationError: for a type that has no JSON schema.
        :raises ResponsesError: as `create` does.
        """
        check_params(params, of="parse()", options=TURN_OPTIONS)
        settings, reader = with_text_format(answer, params)
        async with self._open_turn(
            input,
            settings,
            delivery=delivery,
            snapshot=False,
            max_retries=max_retries,
            timeouts=timeouts,
        ) as stream:
            return parse_response(await stream.get_final_response(), reader)


def without_output(response: Response) -> Response:
    """Return the response of a warm-up.

    :raises UnexpectedOutput: when the server generated output.
    """
    if response.raw_output:
        error = UnexpectedOutput(response)
        error.delivery = DeliveryStatus.ACCEPTED
        raise error
    return response


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

    def _turn_sender(self) -> TurnSender:
        return self._sender

    def stream(
        self,
        input: Input | None = None,  # noqa: A002 - the protocol's field name
        *,
        delivery: DeliveryMode = "at_most_once",
        text_format: Any = None,
        snapshot: bool = True,
        max_retries: int | None = None,
        timeouts: Timeouts | None = None,
        **params: Unpack[ResponseCreateParams],
    ) -> ResponseStream:
        """Return a stream for one turn on this lane, as ``connection.stream`` does."""
        return super().stream(
            input,
            delivery=delivery,
            text_format=text_format,
            snapshot=snapshot,
            max_retries=max_retries,
            timeouts=timeouts,
            **params,
        )
