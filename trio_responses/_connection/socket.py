"""One socket's life, as the connection sees it: its lanes, its deadlines, its end.

A connection outlives its sockets; what must not outlive one of them is here. Nothing in this
file waits for the network: the receive task of `connection.py` does, between calls to it.

What belongs elsewhere: bytes (`transport/websocket.py`), the next socket (`connection.py`).
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._errors import (
    ConnectionClosed,
    ConnectionLimitReached,
    ConnectionLost,
    Delivery,
    RequestTooLarge,
    api_error,
)
from trio_responses._protocol.requests import RequestTable
from trio_responses._turn.turn import Turn

if TYPE_CHECKING:
    from trio_responses._errors import (
        APIError,
        MessageTooLarge,
        ResponsesError,
    )
    from trio_responses._instruments.instrument import SocketObserver
    from trio_responses._protocol.requests import ActiveRequest
    from trio_responses._transport.websocket import Transport
    from trio_responses._wire import ErrorEvent

__all__ = ["Socket"]

MESSAGE_TOO_BIG: Final = 1009


class Socket:
    """An open socket with its requests.

    :param transport: the socket.
    :param replace_after_error: whether the endpoint falls silent after an error frame.
    """

    def __init__(self, transport: Transport, *, replace_after_error: bool) -> None:
        self.transport = transport
        self.observer: SocketObserver | None = None
        """Who tells the instruments of it."""
        self.lanes: RequestTable[ActiveRequest] = RequestTable()
        self.names: set[str | None] = set()
        """The lanes that were used: the server counts their names, and forgets none."""
        self.over: trio.Event = trio.Event()
        """Set when it takes no new requests: retired or lost."""
        self.lost: ResponsesError | None = None
        """Why it ended, once it has."""
        self.reconnect_cause: ResponsesError | None = None
        """What speaks against opening the next socket at once."""
        self.over_since: float = math.inf
        """Since when it has been lost to requests."""
        self._replace_after_error = replace_after_error
        self.starved_since: float = math.inf
        """Since when somebody waits for what is in the socket, and nobody makes room for it."""
        self._watch = trio.CancelScope()
        self._last_error: APIError | None = None
        self._refused: Turn | None = None

    @property
    def drained(self) -> bool:
        """Whether it takes no new requests, and owes nobody an answer to the old ones."""
        return self.over.is_set() and all(request.abandoned for request in self.lanes.unfinished())

    def admit(self, request: ActiveRequest) -> None:
        """Queue a request on its lane: before its bytes go out."""
        self.names.add(request.lane)
        self.lanes.admit(request)

    # --- Deadlines -----------------------------------------------------------------------

    def watch(self) -> trio.CancelScope:
        """Open the scope to read the socket in: it ends before a turn can be overdue."""
        now = trio.current_time()
        deadline = min((turn.look_up_at(now) for turn in self.turns()), default=math.inf)
        self._watch = trio.CancelScope(deadline=deadline)
        return self._watch

    def watch_for(self, turn: Turn) -> None:
        """Read no longer than until a turn that was just sent can be overdue."""
        self._watch.deadline = min(self._watch.deadline, turn.look_up_at(trio.current_time()))

    def stop_watching(self) -> None:
        """End the scope now, so that the receive task looks up from the socket."""
        self._watch.deadline = -math.inf

    def expire(self) -> None:
        """Fail the turns that have been silent for too long.

        This socket is trusted no more: their lanes may never come clean.
        """
        now = trio.current_time()
        for turn in self.turns():
            if turn.deadline <= now:
                if not turn.abandoned:
                    turn.fail(turn.overdue(now))
                    self.lanes.abandon(turn)
                turn.give_up()
                self.retire()

    def starves(self) -> bool:
        """Whether the reader of a turn waits for events that the socket may hold."""
        return any(turn.inbox.awaited for turn in self.turns())

    def has_channel_requests(self) -> bool:
        """Whether answers are still to come to what was sent on the connection's channel."""
        return any(not isinstance(request, Turn) for request in self.lanes.unfinished())

    def resume(self, pause: float) -> None:
        """Go on after a time in which the socket was not read: it does not count."""
        for turn in self.turns():
            turn.pause(pause)

    # --- Ends ----------------------------------------------------------------------------

    def turns(self) -> list[Turn]:
        """Give the turns under way, abandoned ones among them."""
        return [request for request in self.lanes.unfinished() if isinstance(request, Turn)]

    def retire(self) -> None:
        """Take no new requests; close when those under way are answered."""
        self.over.set()
        self.stop_watching()

    def close_to_requests(self, lost: ConnectionLost) -> None:
        """Take no new requests, since one could not be written.

        The receive task finds the end of the socket behind what is still there to be read.
        """
        if not self.over.is_set():
            self.reconnect_cause = lost.copy_for_raise()
            self.over_since = trio.current_time()
            self.over.set()

    def leave(self, turn: Turn, *, replace: bool) -> None:
        """Drop what is still to come of a turn."""
        turn.inbox.discard()
        if turn.ended or self.lost is not None:
            return
        self.lanes.abandon(turn)
        if replace:
            self.retire()
        self.stop_watching()

    def handle_error(self, event: ErrorEvent, owner: ActiveRequest | None) -> None:
        """Draw the conclusions of an error frame for the socket."""
        self._last_error = api_error(event)
        if isinstance(self._last_error, ConnectionLimitReached):
            if not self.lanes.responses:  # a server that says so at once would be asked for ever
                self.reconnect_cause = self._last_error
            self.retire()
        elif self._replace_after_error and isinstance(owner, Turn):
            self.retire()

    def fail_oversize(
        self, lane: str | None, error: MessageTooLarge, *, answer: bool = False
    ) -> None:
        """Fail the turns whose message was discarded.

        Those are the ones of its lane, or all, where the lane is not known.

        :param answer: whether it was an event of a response: then that has begun.
        """
        requests = list(self.lanes.unfinished())
        own = [one for one in requests if one.lane == lane]
        for request in own or requests:
            if isinstance(request, Turn) and not request.abandoned:
                told = error.copy_for_raise()
                told.delivery = Delivery.ACCEPTED if own and answer else None
                request.fail(told)
                self.lanes.abandon(request)

    def lose(self, lost: ResponsesError) -> None:
        """End it: every turn under way is told, each with its own delivery."""
        if self.lost is not None:
            return
        self.lost = lost
        if isinstance(lost, ConnectionLost):
            lost.__cause__ = lost.__cause__ or self._last_error
            if not self.over.is_set():
                self.reconnect_cause = lost
                self.over_since = trio.current_time()
        turns = [request for request in self.lanes.clear() if isinstance(request, Turn)]
        if isinstance(lost, ConnectionLost):
            self._refuse_too_large(turns, lost)
        for turn in turns:
            if isinstance(lost, ConnectionLost):
                turn.fail(lost.copy_for_raise())
            else:
                turn.fail(ConnectionClosed(str(lost)))
        self.over.set()

    def note_unwritten(self, turn: Turn, lost: ConnectionLost) -> None:
        """Note why a turn's request could not be written: it may be the one that is too large."""
        if self.lost is None:
            self._refuse_too_large([turn, *self.turns()], lost)

    def _refuse_too_large(self, turns: list[Turn], lost: ConnectionLost) -> None:
        """Fail the request that a close with 1009 is about: the largest without an answer."""
        silent = [turn for turn in turns if turn.heard_at is None]
        if lost.code != MESSAGE_TOO_BIG or self._refused is not None or not silent:
            return
        self._refused = max(silent, key=lambda turn: turn.size)
        error = RequestTooLarge(self._refused.size, None)
        error.delivery = Delivery.REJECTED
        self._refused.fail(error)
