"""The logging instrument, which every connection has by default.

Log records hold ids, sizes, types, codes and times; never content, and never a key.
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from trio_responses._errors import (
    APIError,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    HandshakeRejected,
)
from trio_responses._instruments.instrument import Instrument, checked_instruments, logger

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.records import (
        LeaseRecord,
        SocketRecord,
        StoreOperationRecord,
        ToolRecord,
        TurnRecord,
    )

__all__ = ["LoggingInstrument", "with_logging"]

TOKEN: Final = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)
"""The form of an id, a code, a name or a model: no other text of a server or user is logged."""
ABOUT_LEASES: Final = frozenset({"ConversationBusy", "LeaseLost"})
"""The errors of stores that the hooks for leases log."""


def with_logging(given: Iterable[Instrument], *, enabled: bool) -> tuple[Instrument, ...]:
    """Return the instruments of a connection, with a `LoggingInstrument` as the first one.

    None is added if logging is not enabled, or if a `LoggingInstrument` is among those given.

    :raises ConfigurationError: when ``given`` is not iterable, and when ``enabled``, which is the
        option ``logging``, is no `bool`.
    """
    if not isinstance(enabled, bool):
        raise ConfigurationError(
            f"logging must be True or False, not {enabled!r}: for a logger of your own, pass"
            " instruments=[LoggingInstrument(my_logger)]"
        )
    instruments = checked_instruments(given)
    if not enabled or any(isinstance(one, LoggingInstrument) for one in instruments):
        return instruments
    return (LoggingInstrument(), *instruments)


class LoggingInstrument(Instrument):
    """An instrument that logs to the logger ``trio_responses``.

    Sockets are logged at INFO; lost sockets, failed attempts, lost leases and failed operations of
    stores at WARNING; the end of a connection that gave up at ERROR; turns and tools at DEBUG.
    Content and keys are never logged. For handlers that write JSON, every log record has its values
    as fields (``socket``, ``turn``, ``response_id``, ``seconds`` and others, see
    docs/instruments.md).

    :param log: the logger to use instead.
    """

    def __init__(self, log: logging.Logger = logger) -> None:
        self._log = log

    # --- Sockets -------------------------------------------------------------------------

    def socket_opened(self, socket: SocketRecord) -> None:
        """Log an open socket at INFO."""
        seconds = _seconds_between(socket.started_at, socket.opened_at)
        self._log.info(
            "socket %d open after %.3f s",
            socket.number,
            seconds,
            extra={
                "socket": socket.number,
                "host": socket.host,
                "attempt": socket.attempt,
                "seconds": seconds,
            },
        )

    def socket_failed(self, socket: SocketRecord) -> None:
        """Log a failed attempt at WARNING, a cancelled one at DEBUG."""
        level = logging.DEBUG if socket.error is None else logging.WARNING
        kind = _type_name(socket.error) or "cancelled"
        status = socket.error.status if isinstance(socket.error, HandshakeRejected) else None
        self._log.log(
            level,
            "socket %d could not be opened: %s, status %s",
            socket.number,
            kind,
            status,
            extra={
                "socket": socket.number,
                "host": socket.host,
                "attempt": socket.attempt,
                "error_type": kind,
                "status": status,
            },
        )

    def socket_ended(self, socket: SocketRecord) -> None:
        """Log a lost socket at WARNING, one that this side closed at INFO."""
        seconds = _seconds_between(socket.opened_at, socket.ended_at)
        code = socket.error.code if isinstance(socket.error, ConnectionLost) else None
        kind = _type_name(socket.error)
        self._log.log(
            logging.INFO if socket.error is None else logging.WARNING,
            "socket %d %s after %.1f s, code %s",
            socket.number,
            "closed" if kind is None else f"lost ({kind})",
            seconds,
            code,
            extra={
                "socket": socket.number,
                "error_type": kind,
                "close_code": code,
                "seconds": seconds,
            },
        )

    def reconnecting(self, attempt: int, delay: float, error: ResponsesError) -> None:
        """Log the next attempt and its delay at WARNING."""
        self._log.warning(
            "attempt %d to reconnect in %.1f s, after %s",
            attempt,
            delay,
            _type_name(error),
            extra={"attempt": attempt, "seconds": delay, "error_type": _type_name(error)},
        )

    def rotated(self, socket: SocketRecord) -> None:
        """Log a rotation at INFO."""
        self._log.info(
            "socket %d takes over", socket.number, extra={"socket": socket.number, "rotation": True}
        )

    def transport_changed(self, transport: str, error: ResponsesError | None) -> None:
        """Log a change of the transport: to HTTP at WARNING, back to a WebSocket at INFO."""
        kind = _type_name(error)
        self._log.log(
            logging.INFO if error is None else logging.WARNING,
            "requests are sent over %s, after %s",
            transport,
            kind,
            extra={"transport": transport, "error_type": kind},
        )

    def endpoint_changed(self, endpoint: str, error: ResponsesError | None) -> None:
        """Log that turns go to another endpoint: at WARNING, the return to one at INFO."""
        kind = _type_name(error)
        self._log.log(
            logging.INFO if error is None else logging.WARNING,
            "turns go to the endpoint %s, after %s",
            endpoint,
            kind,
            extra={"endpoint": endpoint, "error_type": kind},
        )

    def connection_ended(self, error: ResponsesError) -> None:
        """Log a connection that this side closed at INFO, one that failed at ERROR."""
        level = logging.INFO if isinstance(error, ConnectionClosed) else logging.ERROR
        self._log.log(
            level,
            "connection ended: %s",
            _type_name(error),
            extra={"error_type": _type_name(error)},
        )

    # --- Turns and tools -----------------------------------------------------------------

    def _ignores_turns(self) -> bool:
        """Whether DEBUG is disabled; a derived class may have other hooks than these."""
        return type(self) is LoggingInstrument and not self._log.isEnabledFor(logging.DEBUG)

    def turn_sent(self, turn: TurnRecord) -> None:
        """Log a sent request at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        self._log.debug(
            "turn %d sent: %d bytes, lane %s, after %s",
            turn.number,
            turn.request_bytes,
            turn.lane,
            _sanitized(turn.previous_response_id),
            extra={
                "turn": turn.number,
                "attempt": turn.attempts,
                "model": _sanitized(turn.model),
                "lane": turn.lane,
                "request_bytes": turn.request_bytes,
                "previous_response_id": _sanitized(turn.previous_response_id),
            },
        )

    def turn_retrying(
        self, turn: TurnRecord, attempt: int, delay: float, error: ResponsesError
    ) -> None:
        """Log a retry that waits at WARNING, one that does not at INFO."""
        code = _sanitized(error.code) if isinstance(error, APIError) else None
        self._log.log(
            logging.WARNING if delay else logging.INFO,
            "turn %d: attempt %d in %.1f s, after %s, code %s",
            turn.number,
            attempt,
            delay,
            _type_name(error),
            code,
            extra={
                "turn": turn.number,
                "attempt": attempt,
                "model": _sanitized(turn.model),
                "seconds": delay,
                "error_type": _type_name(error),
                "error_code": code,
            },
        )

    def turn_ended(self, turn: TurnRecord) -> None:
        """Log the outcome of a turn at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        seconds = _seconds_between(turn.started_at, turn.ended_at)
        error = _sanitized(turn.error_code) or _type_name(turn.error)
        outcome = _sanitized(turn.status) or error or "left early"
        first = turn.first_event_at
        self._log.debug(
            "turn %d ended: %s, response %s, %.3f s",
            turn.number,
            outcome,
            _sanitized(turn.response_id),
            seconds,
            extra={
                "turn": turn.number,
                "attempts": turn.attempts,
                "model": _sanitized(turn.model),
                "response_id": _sanitized(turn.response_id),
                "status": _sanitized(turn.status),
                "error_type": _type_name(turn.error),
                "error_code": _sanitized(turn.error_code),
                "seconds": seconds,
                "first_event_seconds": None
                if first is None
                else _seconds_between(turn.sent_at, first),
                "input_tokens": sum(one.input_tokens for one in turn.usages),
                "output_tokens": sum(one.output_tokens for one in turn.usages),
            },
        )

    def tool_finished(self, tool: ToolRecord) -> None:
        """Log the outcome of a tool's call at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        seconds = _seconds_between(tool.started_at, tool.ended_at)
        self._log.debug(
            "tool %s, call %s: %s, %.3f s",
            _sanitized(tool.name),
            _sanitized(tool.call_id),
            "cancelled" if tool.cancelled else _type_name(tool.error) or "done",
            seconds,
            extra={
                "tool": _sanitized(tool.name),
                "call_id": _sanitized(tool.call_id),
                "error_type": _type_name(tool.error),
                "seconds": seconds,
            },
        )

    # --- Leases and stores ---------------------------------------------------------------

    def lease_acquired(self, lease: LeaseRecord) -> None:
        """Log a lease at DEBUG, at INFO if it was waited for, at WARNING if it was taken over."""
        waited = logging.INFO if lease.attempts else logging.DEBUG
        how = "taken over" if lease.taken_over else "acquired"
        level = logging.WARNING if lease.taken_over else waited
        self._log_lease(level, lease, how, lease.acquired_at)

    def lease_failed(self, lease: LeaseRecord) -> None:
        """Log a lease that was not acquired at WARNING, a cancelled attempt at DEBUG."""
        level = logging.DEBUG if lease.error is None else logging.WARNING
        how = "not acquired: " + (_type_name(lease.error) or "cancelled")
        self._log_lease(level, lease, how, lease.ended_at)

    def lease_ended(self, lease: LeaseRecord) -> None:
        """Log a lost lease at WARNING, a released one at DEBUG."""
        level = logging.DEBUG if lease.error is None else logging.WARNING
        how = "released" if lease.error is None else f"lost ({_type_name(lease.error)})"
        self._log_lease(level, lease, how, lease.ended_at)

    def _log_lease(self, level: int, lease: LeaseRecord, how: str, at: float | None) -> None:
        seconds = _seconds_between(lease.started_at, at)
        self._log.log(
            level,
            "lease of the conversation %s %s after %.3f s",
            _sanitized(lease.conversation_id),
            how,
            seconds,
            extra={
                "conversation": _sanitized(lease.conversation_id),
                "store": lease.system,
                "attempts": lease.attempts,
                "error_type": _type_name(lease.error),
                "seconds": seconds,
            },
        )

    def store_finished(self, operation: StoreOperationRecord) -> None:
        """Log an operation that failed at WARNING, one that succeeded at DEBUG."""
        kind = _type_name(operation.error)
        level = logging.DEBUG if kind is None or kind in ABOUT_LEASES else logging.WARNING
        if not self._log.isEnabledFor(level):
            return
        seconds = _seconds_between(operation.started_at, operation.ended_at)
        self._log.log(
            level,
            "store %s, %s: %s, %.3f s",
            operation.system,
            operation.operation,
            "cancelled" if operation.cancelled else kind or "done",
            seconds,
            extra={
                "store": operation.system,
                "operation": operation.operation,
                "conversation": _sanitized(operation.conversation_id),
                "error_type": kind,
                "seconds": seconds,
            },
        )


def _type_name(error: BaseException | None) -> str | None:
    """Return the type of an error; its message may hold content."""
    return None if error is None else type(error).__name__


def _sanitized(text: str | None) -> str | None:
    """Return a text if it matches `TOKEN` and so is safe to log, otherwise ``(odd)``."""
    return text if text is None or TOKEN.fullmatch(text) else "(odd)"


def _seconds_between(since: float | None, until: float | None) -> float:
    return 0.0 if since is None or until is None else until - since
