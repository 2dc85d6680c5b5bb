"""Log lines of a connection: the instrument that is there by default.

Ids, sizes, types, words of the protocol and times; never content, never a key (P9).

What belongs elsewhere: what there is to be told (`instrument.py`).
"""

from __future__ import annotations

import logging
import re
from typing import TYPE_CHECKING, Final

from trio_responses._errors import ConnectionClosed, ConnectionLost, HandshakeRejected
from trio_responses._instruments.instrument import Instrument, logger

if TYPE_CHECKING:
    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.records import SocketRecord, ToolRecord, TurnRecord

__all__ = ["LoggingInstrument"]

WORD: Final = re.compile(r"[\w.:/@+-]{1,128}", re.ASCII)
"""What an id, a code, a name or a model looks like: nothing else that is said gets logged."""


class LoggingInstrument(Instrument):
    """Logs what happens, without content, to the logger ``trio_responses``.

    Sockets are logged at INFO, their losses and failed attempts at WARNING, the end of a
    connection that gave up at ERROR, turns and tools at DEBUG. Every record has fields of its own
    beside its text (``socket``, ``turn``, ``response_id``, ``seconds`` and the like, see
    docs/instruments.md), for handlers that write JSON.

    :param log: another logger.
    """

    def __init__(self, log: logging.Logger = logger) -> None:
        self._log = log

    # --- Sockets -------------------------------------------------------------------------

    def socket_opened(self, socket: SocketRecord) -> None:
        """Log it at INFO."""
        seconds = _between(socket.started_at, socket.opened_at)
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
        """Log it at WARNING; a cancellation at DEBUG."""
        level = logging.DEBUG if socket.error is None else logging.WARNING
        kind = _kind(socket.error) or "cancelled"
        status = socket.error.status if isinstance(socket.error, HandshakeRejected) else None
        self._log.log(
            level,
            "socket %d not open: %s, status %s",
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
        """Log a loss at WARNING, an end of ours at INFO."""
        seconds = _between(socket.opened_at, socket.ended_at)
        code = socket.error.code if isinstance(socket.error, ConnectionLost) else None
        kind = _kind(socket.error)
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
        """Log it at WARNING."""
        self._log.warning(
            "attempt %d to reconnect in %.1f s, after %s",
            attempt,
            delay,
            _kind(error),
            extra={"attempt": attempt, "seconds": delay, "error_type": _kind(error)},
        )

    def rotated(self, socket: SocketRecord) -> None:
        """Log it at INFO."""
        self._log.info(
            "socket %d takes over", socket.number, extra={"socket": socket.number, "rotation": True}
        )

    def connection_ended(self, error: ResponsesError) -> None:
        """Log a close at INFO, anything else at ERROR."""
        level = logging.INFO if isinstance(error, ConnectionClosed) else logging.ERROR
        self._log.log(
            level, "connection over: %s", _kind(error), extra={"error_type": _kind(error)}
        )

    # --- Turns and tools -----------------------------------------------------------------

    def turn_sent(self, turn: TurnRecord) -> None:
        """Log it at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        self._log.debug(
            "turn %d sent: %d bytes, lane %s, after %s",
            turn.number,
            turn.request_bytes,
            turn.lane,
            _word(turn.previous_response_id),
            extra={
                "turn": turn.number,
                "attempt": turn.attempts,
                "model": _word(turn.model),
                "lane": turn.lane,
                "request_bytes": turn.request_bytes,
                "previous_response_id": _word(turn.previous_response_id),
            },
        )

    def turn_ended(self, turn: TurnRecord) -> None:
        """Log it at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        seconds = _between(turn.started_at, turn.ended_at)
        error = _word(turn.error_code) or _kind(turn.error)
        outcome = _word(turn.status) or error or "left early"
        first = turn.first_event_at
        self._log.debug(
            "turn %d ended: %s, response %s, %.3f s",
            turn.number,
            outcome,
            _word(turn.response_id),
            seconds,
            extra={
                "turn": turn.number,
                "attempts": turn.attempts,
                "model": _word(turn.model),
                "response_id": _word(turn.response_id),
                "status": _word(turn.status),
                "error_type": _kind(turn.error),
                "error_code": _word(turn.error_code),
                "seconds": seconds,
                "first_event_seconds": None if first is None else _between(turn.sent_at, first),
                "input_tokens": sum(one.input_tokens for one in turn.usages),
                "output_tokens": sum(one.output_tokens for one in turn.usages),
            },
        )

    def tool_finished(self, tool: ToolRecord) -> None:
        """Log it at DEBUG."""
        if not self._log.isEnabledFor(logging.DEBUG):
            return
        seconds = _between(tool.started_at, tool.ended_at)
        self._log.debug(
            "tool %s, call %s: %s, %.3f s",
            _word(tool.name),
            _word(tool.call_id),
            "cancelled" if tool.cancelled else _kind(tool.error) or "done",
            seconds,
            extra={
                "tool": _word(tool.name),
                "call_id": _word(tool.call_id),
                "error_type": _kind(tool.error),
                "seconds": seconds,
            },
        )


def _kind(error: BaseException | None) -> str | None:
    """Name an error; what it says may be content."""
    return None if error is None else type(error).__name__


def _word(said: str | None) -> str | None:
    """Give a word of the protocol, and nothing that only stands in its place."""
    return said if said is None or WORD.fullmatch(said) else "(odd)"


def _between(since: float | None, until: float | None) -> float:
    return 0.0 if since is None or until is None else until - since
