"""Instruments: told what happens in a connection, as it happens.

They are what Trio's own instruments are: a hook that is not overridden costs nothing, hooks do
not wait, and an instrument that raises is logged and taken out, so that it breaks nothing else.
The records that the hooks share are in `records.py`.

What belongs elsewhere: log lines (`logs.py`), spans (`otel.py`), recordings (`recording.py`).
"""

from __future__ import annotations

import logging
import traceback
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec

import trio

from trio_responses._errors import ConfigurationError, ResponsesError
from trio_responses._instruments.records import SocketRecord, ToolRecord, TurnRecord

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterable, Sequence

    from trio_responses._protocol.frames import Message
    from trio_responses._wire import OutputItem, Response

__all__ = ["Instrument", "Instruments", "ServerAddress", "SocketObserver", "TurnObserver"]

P = ParamSpec("P")

logger: Final = logging.getLogger("trio_responses")
logger.addHandler(logging.NullHandler())  # where nobody set up logging, nothing is printed


class Instrument:
    """Override what you want to know, and give it to ``open_responses(instruments=[...])``.

    All hooks are plain functions that run in the middle of things: be quick. The record of a
    socket, turn or tool is the same object in all of its hooks, filled in as it goes on.
    """

    # --- Sockets -------------------------------------------------------------------------

    def socket_opening(self, socket: SocketRecord) -> None:
        """Hear that a handshake begins: the first, another attempt, or that of a rotation."""

    def socket_opened(self, socket: SocketRecord) -> None:
        """Hear that the handshake is done."""

    def socket_failed(self, socket: SocketRecord) -> None:
        """Hear that there was none: ``socket.error`` says why; `None` for a cancellation."""

    def socket_ended(self, socket: SocketRecord) -> None:
        """Hear that it was lost, as ``socket.error`` says, or closed by this side."""

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:
        """Hear that an error makes the supervisor wait for some seconds before an attempt."""

    def rotated(self, socket: SocketRecord) -> None:
        """Hear that this fresh socket takes over from one that still lived."""

    def connection_ended(self, error: ResponsesError) -> None:
        """Hear that it is over for good: by a `ConnectionClosed`, or by what went wrong."""

    # --- Turns ---------------------------------------------------------------------------

    def turn_started(self, turn: TurnRecord) -> None:
        """Hear that a turn asks for a socket and a lane; called in its reader's task."""

    def turn_sent(self, turn: TurnRecord) -> None:
        """Hear that its request was written: once for each attempt."""

    def turn_first_event(self, turn: TurnRecord) -> None:
        """Hear that an attempt has its first event that is no error."""

    def turn_ended(self, turn: TurnRecord) -> None:
        """Hear that it has ended: with a Response, with an error, or left early."""

    # --- Tools ---------------------------------------------------------------------------

    def tool_started(self, tool: ToolRecord) -> None:
        """Hear that a tool of a run begins; called in the tool's own task."""

    def tool_finished(self, tool: ToolRecord) -> None:
        """Hear that it has answered, raised, or was cancelled; called in the same task."""

    # --- The wire: all content ------------------------------------------------------------

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:
        """See a frame that is about to be written."""

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        """See the messages that one read of the socket brought; those of text are plain bytes."""


HOOKS: Final = tuple(name for name in vars(Instrument) if not name.startswith("_"))


class ServerAddress:
    """The server that a connection is for; only what may stand in a log."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host: str = host
        self.port: int = port


class Instruments:
    """The instruments of one connection.

    :raises ConfigurationError: for what is no instrument, or has hooks that would have to wait.
    """

    __slots__ = ("_instruments", "_watches_tools", "_watches_turns", "_where", "observes_frames")

    def __init__(
        self, instruments: Iterable[Instrument] = (), where: ServerAddress | None = None
    ) -> None:
        self._where = where or ServerAddress("", 0)
        self._instruments = list(instruments)
        hooks = {hook for one in self._instruments for hook in _own_hooks(one)}
        self._watches_turns = any(hook.startswith("turn_") for hook in hooks)
        self._watches_tools = any(hook.startswith("tool_") for hook in hooks)
        self.observes_frames: bool = any(hook.startswith("frame") for hook in hooks)
        """Whether one of them wants to see what goes over the wire."""

    def tell(
        self, hook: Callable[Concatenate[Instrument, P], None], *facts: P.args, **named: P.kwargs
    ) -> None:
        """Call a hook of every instrument."""
        for one in tuple(self._instruments):
            try:
                getattr(one, hook.__name__)(*facts, **named)
            except Exception as error:  # noqa: BLE001 - whatever somebody else's instrument raises
                self._take_out(one, hook.__name__, error)

    def _take_out(self, one: Instrument, hook: str, error: Exception) -> None:
        """Go on without it. What its error says may be content: only type and place are logged."""
        self._instruments.remove(one)
        last = traceback.extract_tb(error.__traceback__)[-1]
        logger.error(
            "%s raised %s in %s (%s:%s) and is taken out",
            type(one).__name__,
            type(error).__name__,
            hook,
            last.filename,
            last.lineno,
        )

    # --- What is told of -------------------------------------------------------------------

    def open_socket(self, attempt: int, *, rotation: bool) -> SocketObserver:
        """Tell of a socket that is going to be opened."""
        socket = SocketRecord(
            host=self._where.host, port=self._where.port, attempt=attempt, rotation=rotation
        )
        self.tell(Instrument.socket_opening, socket)
        return SocketObserver(self, socket)

    def start_turn(self, model: str | None) -> TurnObserver | None:
        """Tell of a turn, if anybody wants to know."""
        if not self._watches_turns:
            return None
        turn = TurnRecord(host=self._where.host, port=self._where.port, model=model)
        self.tell(Instrument.turn_started, turn)
        return TurnObserver(self, turn)

    @contextmanager
    def running(self, call: OutputItem) -> Generator[ToolRecord | None, None, None]:
        """Tell of a call of a tool, which the block runs, if anybody wants to know."""
        if not self._watches_tools:
            yield None
            return
        call_id = getattr(call, "call_id", None)
        tool = ToolRecord(
            name=str(getattr(call, "name", call.wire_type)),
            kind=call.wire_type,
            call_id=call_id if isinstance(call_id, str) else None,
        )
        self.tell(Instrument.tool_started, tool)
        try:
            yield tool
        except Exception as error:
            tool.error = error
            raise
        except BaseException:
            tool.cancelled = True
            raise
        finally:
            tool.ended_at = trio.current_time()
            self.tell(Instrument.tool_finished, tool)


def _own_hooks(one: Instrument) -> list[str]:
    """Give the hooks that an instrument has of its own."""
    if not isinstance(one, Instrument):
        raise ConfigurationError(f"not an instrument: {type(one).__name__}")
    own = [hook for hook in HOOKS if getattr(type(one), hook) is not getattr(Instrument, hook)]
    for hook in own:
        if iscoroutinefunction(getattr(type(one), hook)):
            raise ConfigurationError(f"{type(one).__name__}.{hook} must not be async")
    return own


class SocketObserver:
    """Tells the instruments of one socket."""

    __slots__ = ("_instruments", "socket")

    def __init__(self, instruments: Instruments, socket: SocketRecord) -> None:
        self._instruments = instruments
        self.socket: SocketRecord = socket

    def opened(self) -> None:
        """Say that the handshake is done."""
        self.socket.opened_at = trio.current_time()
        self._instruments.tell(Instrument.socket_opened, self.socket)

    def failed(self, error: BaseException) -> None:
        """Say that it could not be opened."""
        self.socket.ended_at = trio.current_time()
        self.socket.error = error if isinstance(error, ResponsesError) else None
        self._instruments.tell(Instrument.socket_failed, self.socket)

    def rotated(self) -> None:
        """Say that it has taken over from one that lived."""
        self._instruments.tell(Instrument.rotated, self.socket)

    def ended(self, error: ResponsesError | None) -> None:
        """Say that it is gone.

        :param error: `None` where this side closed it.
        """
        self.socket.ended_at = trio.current_time()
        self.socket.error = error
        self._instruments.tell(Instrument.socket_ended, self.socket)

    def sent(self, payload: bytes) -> None:
        """Show a frame that is about to be written."""
        self._instruments.tell(Instrument.frame_sent, self.socket, payload)

    def received(self, batch: Sequence[Message]) -> None:
        """Show a batch that was read."""
        self._instruments.tell(Instrument.frames_received, self.socket, batch)


class TurnObserver:
    """Tells the instruments of one turn, through all of its attempts."""

    __slots__ = ("_has_first_event", "_instruments", "_written", "turn")

    def __init__(self, instruments: Instruments, turn: TurnRecord) -> None:
        self._instruments = instruments
        self._written = False
        self._has_first_event = False
        self.turn: TurnRecord = turn

    def writing(self, lane: str | None, parent: str | None, size: int) -> None:
        """Begin an attempt: its request is about to be written."""
        turn = self.turn
        turn.lane, turn.previous_response_id, turn.request_bytes = lane, parent, size
        turn.first_event_at = turn.response_id = None
        self._written = self._has_first_event = False

    def sent(self) -> None:
        """Say that it was written; the answer may have been faster than this task."""
        self.turn.attempts += 1
        self.turn.sent_at = trio.current_time()
        self._written = True
        self._instruments.tell(Instrument.turn_sent, self.turn)
        if self._has_first_event:
            self.first_event(self.turn.response_id)

    def first_event(self, response_id: str | None) -> None:
        """Say that the first event of this attempt came."""
        self._has_first_event = True
        self.turn.response_id = response_id
        if self._written:
            self.turn.first_event_at = trio.current_time()
            self._instruments.tell(Instrument.turn_first_event, self.turn)

    def end(
        self,
        responses: tuple[Response, ...],
        error: BaseException | None,
        response_id: str | None,
    ) -> None:
        """Say how it has ended; the first end is the one that counts."""
        turn = self.turn
        if turn.ended_at is not None:
            return
        turn.ended_at = trio.current_time()
        turn.responses = responses
        turn.error = error if isinstance(error, Exception) else None
        turn.response_id = responses[-1].id if responses else response_id
        self._instruments.tell(Instrument.turn_ended, turn)
