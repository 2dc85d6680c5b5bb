"""The base class of instruments, and the observers that notify the instruments.

Instruments work like Trio's: a hook that is not overridden costs nothing, hooks do not wait, and an
instrument that raises is logged and removed, so that it breaks nothing else. The records that the
hooks get are in `records.py`.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Iterable
from contextlib import contextmanager
from inspect import iscoroutinefunction
from typing import TYPE_CHECKING, Concatenate, Final, ParamSpec, TypeVar
from weakref import WeakKeyDictionary

import trio

from trio_responses._errors import ConfigurationError, ResponsesError
from trio_responses._instruments.records import (
    ConnectionRecord,
    LeaseRecord,
    RunRecord,
    SocketRecord,
    StoreOperationRecord,
    ToolRecord,
    TurnRecord,
)
from trio_responses._protocol.calls import name_of_call

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Sequence
    from typing import Literal

    from trio_responses._protocol.frames import Message
    from trio_responses._wire import Response, ToolCall, Usage

__all__ = [
    "Instrument",
    "Instruments",
    "LeaseObserver",
    "ServerAddress",
    "SocketObserver",
    "TurnObserver",
    "checked_instruments",
]

P = ParamSpec("P")
FinishedRecord = TypeVar("FinishedRecord", ToolRecord, StoreOperationRecord)

logger: Final = logging.getLogger("trio_responses")
logger.addHandler(logging.NullHandler())  # without a logging setup nothing is printed


class Instrument:
    """The base class of instruments: a hook method for each kind of event in a connection.

    Override the hooks that you need, and pass an instance to
    ``open_responses(instruments=[...])``. Hooks are plain functions, which run inside the
    connection's tasks: they must be quick. All hooks about one socket, turn or tool get the same
    record, which is filled in over time. An instrument that raises is logged and removed.
    """

    # --- Connections and sockets -----------------------------------------------------------

    def connection_started(self, connection: ConnectionRecord) -> None:
        """Called when a connection starts to open its first socket."""

    def socket_opening(self, socket: SocketRecord) -> None:
        """Called when a socket starts to open: for the first time, a new attempt or a rotation."""

    def socket_opened(self, socket: SocketRecord) -> None:
        """Called when the handshake of a socket has succeeded."""

    def socket_failed(self, socket: SocketRecord) -> None:
        """Called when a socket could not be opened.

        ``socket.error`` is the reason; `None` when the attempt was cancelled.
        """

    def socket_ended(self, socket: SocketRecord) -> None:
        """Called when an open socket has ended.

        ``socket.error`` is the reason of a loss; `None` when this side closed the socket.
        """

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:
        """Called when the connection starts to wait before its next attempt to connect.

        :param attempt: the number of the next attempt, from 1.
        :param delay: the seconds until the attempt.
        :param error: the failure or loss before it.
        """

    def rotated(self, socket: SocketRecord) -> None:
        """Called when a new socket has replaced one that still worked."""

    def transport_changed(self, transport: str, error: ResponsesError | None) -> None:
        """Called when a connection goes over to HTTP, or back to a WebSocket.

        :param transport: ``"http"`` or ``"websocket"``: how requests are sent from now on.
        :param error: why no WebSocket can be used; `None` when one is open again.
        """

    def endpoint_changed(self, endpoint: str, error: ResponsesError | None) -> None:
        """Called when the new turns of a pool go to another endpoint.

        :param endpoint: the name of the endpoint that new turns go to from now on.
        :param error: why the endpoint before was given up; `None` for the return to it.
        """

    def connection_ended(self, error: ResponsesError) -> None:
        """Called when a connection has ended for good.

        :param error: a `ConnectionClosed` when this side closed it, else the failure.
        """

    # --- Turns ---------------------------------------------------------------------------

    def _ignores_turns(self) -> bool:
        """Whether no hook for turns but `turn_retrying` would do anything at the moment."""
        return False

    def turn_started(self, turn: TurnRecord) -> None:
        """Called when a turn starts to wait for a socket and a lane, in its reader's task."""

    def turn_delayed(self, turn: TurnRecord, seconds: float) -> None:
        """Called at the end of each wait of a turn for a `RateLimiter`, also a cancelled one.

        :param seconds: how long the turn waited as the next one of its connection.
        """

    def turn_sent(self, turn: TurnRecord) -> None:
        """Called when the request of a turn was written: once for each attempt."""

    def turn_first_event(self, turn: TurnRecord) -> None:
        """Called when the first event of an attempt came, unless it is an error."""

    def turn_retrying(
        self, turn: TurnRecord, attempt: int, delay: float, error: ResponsesError
    ) -> None:
        """Called when an attempt of a turn has failed and its request will be sent again.

        :param attempt: the number of the next attempt, from 2.
        :param delay: the seconds until the request is sent again.
        :param error: why the attempt failed.
        """

    def turn_ended(self, turn: TurnRecord) -> None:
        """Called when a turn has ended: with a Response, with an error, or left early."""

    # --- Runs and tools ------------------------------------------------------------------

    def run_started(self, run: RunRecord) -> None:
        """Called when a run starts to wait for its conversation, in the task that opens the run."""

    def run_ended(self, run: RunRecord) -> None:
        """Called when the block of a run has ended, in the task that has opened the run."""

    def tool_started(self, tool: ToolRecord) -> None:
        """Called when a tool of a run starts, in the tool's own task."""

    def tool_finished(self, tool: ToolRecord) -> None:
        """Called when a tool has returned, raised or was cancelled, in the tool's own task."""

    # --- Stores and leases -----------------------------------------------------------------

    def lease_requested(self, lease: LeaseRecord) -> None:
        """Called when a durable conversation asks for its lease, in the task that opens it."""

    def lease_acquired(self, lease: LeaseRecord) -> None:
        """Called when the lease was acquired, in the same task."""

    def lease_failed(self, lease: LeaseRecord) -> None:
        """Called when the lease could not be acquired, in the same task.

        ``lease.error`` is the reason; `None` when the attempt was cancelled.
        """

    def lease_ended(self, lease: LeaseRecord) -> None:
        """Called when an acquired lease has ended, in any task.

        ``lease.error`` is the reason of a loss; `None` when the lease was released.
        """

    def store_started(self, operation: StoreOperationRecord) -> None:
        """Called before an operation of the store of a durable conversation."""

    def store_finished(self, operation: StoreOperationRecord) -> None:
        """Called after the operation, in the same task: it succeeded, failed or was cancelled."""

    # --- Frames, with all content ------------------------------------------------------------

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:
        """Called when a frame is about to be written.

        :param payload: the text message, as UTF-8.
        """

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        """Called when one read of a socket has completed some messages.

        :param batch: the messages in order; a text message is plain `bytes`.
        """


HOOKS: Final = tuple(name for name in vars(Instrument) if not name.startswith("_"))


class ServerAddress:
    """The host and port of a connection's server, without anything secret."""

    __slots__ = ("host", "port")

    def __init__(self, host: str, port: int) -> None:
        self.host: str = host
        self.port: int = port


class Instruments:
    """The instruments of one connection, which are notified together.

    An instrument that raises is logged and removed, so that it can break nothing else.

    :param address: the server, for the records.
    :raises ConfigurationError: for an object that is no `Instrument`, and for an async hook.
    """

    __slots__ = (
        "_by_hook",
        "_subjects",
        "_turn_instruments",
        "address",
        "observes_frames",
    )

    def __init__(
        self, instruments: Iterable[Instrument] = (), address: ServerAddress | None = None
    ) -> None:
        self.address: ServerAddress = address or ServerAddress("", 0)
        """The server."""
        self._by_hook: dict[str, list[Instrument]] = {}
        self._turn_instruments: list[Instrument] = []
        """The instruments with a hook for turns."""
        for one in instruments:
            own = _overridden_hooks(one)
            for hook in own:
                self._by_hook.setdefault(hook, []).append(one)
            if any(hook.startswith("turn_") for hook in own):
                self._turn_instruments.append(one)
        self._subjects = {hook.partition("_")[0] for hook in self._by_hook}
        """What the instruments have hooks for: the first word of the names of the hooks."""
        self.observes_frames: bool = not self._subjects.isdisjoint({"frame", "frames"})
        """Whether an instrument has a hook for frames."""

    @property
    def observes_stores(self) -> bool:
        """Whether an instrument has a hook for stores."""
        return "store" in self._subjects

    def notify(
        self, hook: Callable[Concatenate[Instrument, P], None], *facts: P.args, **named: P.kwargs
    ) -> None:
        """Call one hook of every instrument that overrides the hook.

        :param hook: the hook, as a function of `Instrument`.
        """
        for one in tuple(self._by_hook.get(hook.__name__, ())):
            try:
                getattr(one, hook.__name__)(*facts, **named)
            except Exception as error:  # noqa: BLE001 - an instrument of the user may raise anything
                self._remove(one, hook.__name__, error)

    def _remove(self, instrument: Instrument, hook: str, error: Exception) -> None:
        """Remove an instrument that raised, and log where; an error's message may hold content."""
        for overriding in self._by_hook.values():
            if instrument in overriding:
                overriding.remove(instrument)
        last = traceback.extract_tb(error.__traceback__)[-1]
        logger.error(
            "instrument %s raised %s in %s (%s:%s) and was removed",
            type(instrument).__name__,
            type(error).__name__,
            hook,
            last.filename,
            last.lineno,
        )

    # --- Observers -------------------------------------------------------------------

    def connection_started(self, count_unread: Callable[[], int]) -> ConnectionRecord | None:
        """Notify the instruments that a connection starts, and return its record.

        :param count_unread: returns the bytes of events that wait to be read.
        :return: `None` when no instrument has the hook.
        """
        if Instrument.connection_started.__name__ not in self._by_hook:
            return None
        connection = ConnectionRecord(
            host=self.address.host, port=self.address.port, count_unread=count_unread
        )
        self.notify(Instrument.connection_started, connection)
        return connection

    def observe_socket(self, attempt: int, *, rotation: bool) -> SocketObserver:
        """Notify the instruments that a socket starts to open, and return its observer."""
        socket = SocketRecord(
            host=self.address.host, port=self.address.port, attempt=attempt, rotation=rotation
        )
        self.notify(Instrument.socket_opening, socket)
        return SocketObserver(self, socket)

    def observe_exchange(self) -> SocketObserver:
        """Return the observer of a request over HTTP, which has hooks for its messages alone."""
        record = SocketRecord(host=self.address.host, port=self.address.port, transport="http")
        return SocketObserver(self, record)

    def observe_turn(
        self, model: str | None, conversation_id: str | None = None
    ) -> TurnObserver | None:
        """Notify the instruments of a new turn, and return its observer.

        :return: `None` when no instrument has a hook for turns that would do anything. Most turns
            have no other instrument than the log, at a level above DEBUG.
        """
        for one in self._turn_instruments:
            if not one._ignores_turns():  # noqa: SLF001 - of this module, and no hook
                turn = self._make_turn(model, conversation_id)
                self.notify(Instrument.turn_started, turn)
                return TurnObserver(self, turn)
        return None

    def observe_retried_turn(self, model: str | None, attempts: int) -> TurnObserver | None:
        """Return an observer for a turn that has none and will be sent again.

        :param attempts: the number of requests that were written.
        :return: `None` when no instrument has a hook for turns.
        """
        if not self._turn_instruments:
            return None
        turn = self._make_turn(model, None)
        turn.attempts = attempts
        return TurnObserver(self, turn)

    def _make_turn(self, model: str | None, conversation_id: str | None) -> TurnRecord:
        return TurnRecord(
            host=self.address.host,
            port=self.address.port,
            model=model,
            conversation_id=conversation_id,
        )

    @contextmanager
    def observe_run(
        self, model: str | None, conversation_id: str | None
    ) -> Generator[RunRecord | None, None, None]:
        """Notify the instruments before and after the block, which contains a run.

        Yields the record of the run; `None` when no instrument has a hook for runs.
        """
        if "run" not in self._subjects:
            yield None
            return
        run = RunRecord(
            host=self.address.host,
            port=self.address.port,
            model=model,
            conversation_id=conversation_id,
        )
        self.notify(Instrument.run_started, run)
        try:
            yield run
        finally:
            run.ended_at = trio.current_time()
            self.notify(Instrument.run_ended, run)

    @contextmanager
    def observe_call(self, call: ToolCall) -> Generator[ToolRecord | None, None, None]:
        """Notify the instruments before and after the block, which runs a tool's call.

        Yields the record of the call; `None` when no instrument has a hook for tools.
        """
        if "tool" not in self._subjects:
            yield None
            return
        tool = ToolRecord(
            name=name_of_call(call),
            kind=call.wire_type,
            call_id=call.call_id,
            call=call,
        )
        self.notify(Instrument.tool_started, tool)
        with self._finishing(tool, Instrument.tool_finished):
            yield tool

    def observe_lease(self, system: str, conversation_id: str) -> LeaseObserver | None:
        """Notify the instruments that a lease is asked for, and return its observer.

        :param system: the kind of the store.
        :return: `None` when no instrument has a hook for leases.
        """
        if "lease" not in self._subjects:
            return None
        lease = LeaseRecord(system=system, conversation_id=conversation_id)
        self.notify(Instrument.lease_requested, lease)
        return LeaseObserver(self, lease)

    @contextmanager
    def observe_operation(
        self, system: str, operation: str, conversation_id: str | None
    ) -> Generator[None, None, None]:
        """Notify the instruments before and after the block, which is one operation of a store."""
        record = StoreOperationRecord(
            system=system, operation=operation, conversation_id=conversation_id
        )
        self.notify(Instrument.store_started, record)
        with self._finishing(record, Instrument.store_finished):
            yield

    @contextmanager
    def _finishing(
        self, record: FinishedRecord, hook: Callable[[Instrument, FinishedRecord], None]
    ) -> Generator[None, None, None]:
        """Write into a record how the block ended and when, and notify the instruments of it."""
        try:
            yield
        except Exception as error:
            record.error = error
            raise
        except BaseException:
            record.cancelled = True
            raise
        finally:
            record.ended_at = trio.current_time()
            self.notify(hook, record)


def checked_instruments(given: Iterable[Instrument]) -> tuple[Instrument, ...]:
    """Return the instruments that the user passed as a tuple, or raise an error.

    :raises ConfigurationError: when ``given`` is not iterable, such as a single instrument.
    """
    if not isinstance(given, Iterable):
        raise ConfigurationError(f"instruments must be a list of Instrument objects, not {given!r}")
    return tuple(given)


def _overridden_hooks(one: Instrument) -> tuple[str, ...]:
    """Return the names of the hooks that an instrument overrides."""
    known = _hooks_of_types.get(type(one))
    if known is not None:
        return known
    if not isinstance(one, Instrument):
        raise ConfigurationError(
            f"an instrument must derive from Instrument: {type(one).__name__} does not"
        )
    own = [hook for hook in HOOKS if getattr(type(one), hook) is not getattr(Instrument, hook)]
    for hook in own:
        if iscoroutinefunction(getattr(type(one), hook)):
            raise ConfigurationError(
                f"{type(one).__name__}.{hook} must be a plain function, not async"
            )
    _hooks_of_types[type(one)] = tuple(own)
    return _hooks_of_types[type(one)]


_hooks_of_types: WeakKeyDictionary[type, tuple[str, ...]] = WeakKeyDictionary()
"""The hooks that each type of instrument overrides: found once, not for each connection."""


class SocketObserver:
    """An observer of one socket, which notifies the instruments of its events."""

    __slots__ = ("_instruments", "socket")

    def __init__(self, instruments: Instruments, socket: SocketRecord) -> None:
        self._instruments = instruments
        self.socket: SocketRecord = socket

    def opened(self) -> None:
        """Notify the instruments that the handshake has succeeded."""
        self.socket.opened_at = trio.current_time()
        self._instruments.notify(Instrument.socket_opened, self.socket)

    def failed(self, error: BaseException) -> None:
        """Notify the instruments that the socket could not be opened."""
        self.socket.ended_at = trio.current_time()
        self.socket.error = error if isinstance(error, ResponsesError) else None
        self._instruments.notify(Instrument.socket_failed, self.socket)

    def rotated(self) -> None:
        """Notify the instruments that the socket has replaced one that still worked."""
        self._instruments.notify(Instrument.rotated, self.socket)

    def ended(self, error: ResponsesError | None) -> None:
        """Notify the instruments that the socket has ended.

        :param error: `None` when this side closed the socket.
        """
        self.socket.ended_at = trio.current_time()
        self.socket.error = error
        self._instruments.notify(Instrument.socket_ended, self.socket)

    def sent(self, payload: bytes) -> None:
        """Notify the instruments of a frame that is about to be written."""
        self._instruments.notify(Instrument.frame_sent, self.socket, payload)

    def received(self, batch: Sequence[Message]) -> None:
        """Notify the instruments of a batch of messages that was read."""
        self._instruments.notify(Instrument.frames_received, self.socket, batch)


class TurnObserver:
    """An observer of all attempts at one turn, which notifies the instruments of its events."""

    __slots__ = ("_has_first_event", "_instruments", "_written", "turn")

    def __init__(self, instruments: Instruments, turn: TurnRecord) -> None:
        self._instruments = instruments
        self._written = False
        self._has_first_event = False
        self.turn: TurnRecord = turn

    def delayed(self, seconds: float) -> None:
        """Notify the instruments that the turn has waited for the rate limiter."""
        self._instruments.notify(Instrument.turn_delayed, self.turn, seconds)

    def sending(
        self,
        address: ServerAddress,
        request: bytes,
        *,
        transport: Literal["websocket", "http"],
        lane: str | None,
        parent: str | None,
    ) -> None:
        """Start the record of an attempt, whose request is about to be written.

        :param address: the server, which may be another one than that of the attempt before.
        :param parent: the ``previous_response_id``.
        """
        turn = self.turn
        turn.host, turn.port = address.host, address.port
        turn.request, turn.transport = request, transport
        turn.lane, turn.previous_response_id = lane, parent
        turn.first_event_at = turn.response_id = None
        self._written = self._has_first_event = False

    def sent(self, now: float) -> None:
        """Notify the instruments that the request was written.

        The first event may have come before this call: its notification follows the request's.
        """
        self.turn.attempts += 1
        self.turn.sent_at = now
        self._written = True
        self._instruments.notify(Instrument.turn_sent, self.turn)
        if self._has_first_event:
            self.first_event(self.turn.response_id, now)

    def first_event(self, response_id: str | None, now: float) -> None:
        """Notify the instruments that the first event of the attempt came."""
        self._has_first_event = True
        self.turn.response_id = response_id
        if self._written:
            self.turn.first_event_at = now
            self._instruments.notify(Instrument.turn_first_event, self.turn)

    def retrying(self, delay: float, error: ResponsesError) -> None:
        """Notify the instruments that the request will be sent again."""
        attempt = self.turn.attempts + 1
        self._instruments.notify(Instrument.turn_retrying, self.turn, attempt, delay, error)

    def ended(
        self,
        responses: tuple[Response, ...],
        error: BaseException | None,
        response_id: str | None,
        usages: Sequence[Usage],
    ) -> None:
        """Notify the instruments that the turn has ended; only the first call counts."""
        turn = self.turn
        if turn.ended_at is not None:
            return
        turn.ended_at = trio.current_time()
        turn.responses = responses
        turn.usages = tuple(usages)
        turn.error = error if isinstance(error, Exception) else None
        turn.response_id = responses[-1].id if responses else response_id
        self._instruments.notify(Instrument.turn_ended, turn)


class LeaseObserver:
    """An observer of one lease, which notifies the instruments of its events."""

    __slots__ = ("_free_at", "_instruments", "lease")

    def __init__(self, instruments: Instruments, lease: LeaseRecord) -> None:
        self._instruments = instruments
        self._free_at: float | None = None
        """When the lease of the present owner ends, unless it is renewed."""
        self.lease: LeaseRecord = lease

    def refused(self, seconds_left: float) -> None:
        """Count an attempt that was refused because another owner has the lease.

        :param seconds_left: how long the lease of the other owner lasts.
        """
        self.lease.attempts += 1
        self._free_at = trio.current_time() + seconds_left

    def acquired(self) -> None:
        """Notify the instruments that the lease was acquired."""
        self.lease.acquired_at = now = trio.current_time()
        self.lease.taken_over = self._free_at is not None and now >= self._free_at
        self._instruments.notify(Instrument.lease_acquired, self.lease)

    def failed(self, error: BaseException) -> None:
        """Notify the instruments that the lease could not be acquired."""
        self._end(error)
        self._instruments.notify(Instrument.lease_failed, self.lease)

    def ended(self, error: BaseException | None) -> None:
        """Notify the instruments that the lease was lost or released; only the first call counts.

        :param error: `None` when the lease was released.
        """
        if self.lease.ended_at is None:
            self._end(error)
            self._instruments.notify(Instrument.lease_ended, self.lease)

    def _end(self, error: BaseException | None) -> None:
        self.lease.ended_at = trio.current_time()
        self.lease.error = error if isinstance(error, Exception) else None
