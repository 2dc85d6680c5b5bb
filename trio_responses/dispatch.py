"""From a batch of messages to the inboxes of their owners: the middle of a frame's way.

Every message is decoded, routed and counted here, without waiting; each owner is woken once a
batch. What belongs to no turn goes to the connection's own channel.

What belongs elsewhere: reading (`transport.py`), who owns what (`core/lanes.py`), what an error
means for the socket (`link.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

import trio

from trio_responses import wire
from trio_responses.core.frames import BinaryMessage
from trio_responses.errors import BufferExceeded, Delivery, MessageTooLarge
from trio_responses.inbox import Inbox
from trio_responses.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_responses.core.frames import Message, OversizeMessage
    from trio_responses.core.lanes import Request
    from trio_responses.inbox import Budget
    from trio_responses.lifecycle import Event
    from trio_responses.link import Link
    from trio_responses.settings import Limits
    from trio_responses.wire import ServerEvent

__all__ = ["Dispatcher"]

TYPE: Final = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')
NOTEWORTHY: Final = frozenset({wire.ErrorEvent, wire.UndecodableFrame})
STREAM_ID: Final = re.compile(rb'"stream_id"\s*:\s*"([A-Za-z0-9_.-]+)"')


class Dispatcher:
    """Gives the events of all sockets of a connection to their owners, and counts them.

    :param budget: the connection's account of unread bytes.
    """

    def __init__(self, budget: Budget, limits: Limits) -> None:
        self._budget = budget
        self._limits = limits
        self.channel: Inbox[Event] = Inbox(budget)
        """The connection's own channel: what belongs to no turn."""
        self._overrun = False
        self.listening = False
        """Whether somebody has begun to use the channel."""
        self.events_received: int = 0
        self.bytes_received: int = 0
        self.undecodable_frames: int = 0
        self.unclaimed_events: int = 0
        self.dropped_events: int = 0

    def dispatch(self, link: Link, batch: list[Message]) -> None:
        """Give the events of one batch to their owners."""
        decode, route = wire.decode, link.lanes.route
        turning_points = link.lanes.turning_points
        shares: dict[Request | None, _Share] = {}
        # A step of a response has the same owner as the one before it on its lane.
        by_lane: dict[str | None, _Share] = {}
        for message in batch:
            if isinstance(message, bytes):
                event = decode(message)
                size = len(message)
            else:
                self._hand_over(shares)  # what comes before it was heard before it
                shares = {}
                by_lane.clear()
                event = self._odd(link, message)
                size = 0
            kind = type(event)
            turns = kind in turning_points
            share = None if turns else by_lane.get(event.stream_id)
            if share is None:
                request = route(event)
                share = shares.get(request) or shares.setdefault(request, _Share())
                if not turns:
                    by_lane[event.stream_id] = share
                else:
                    by_lane.clear()
                    if kind in NOTEWORTHY:
                        self._note(event, request, link)
            share.events.append(event)
            share.size += size
        self._hand_over(shares)

    def tell(self, event: Event) -> None:
        """Say on the channel what became of a socket: never left out, for want of an answer."""
        if self.listening:
            self.channel.put([event], 0)

    def give_up_fullest(self, links: Iterable[Link]) -> None:
        """Drop what is unread in the fullest inbox, and what is still to come; tell its reader."""
        fullest = self._budget.fullest()
        if fullest is None:
            return
        error = BufferExceeded(fullest.unread_bytes)
        error.delivery = Delivery.ACCEPTED
        fullest.discard()
        if fullest is self.channel:
            self._overrun = True
            self.channel.put([error], 0)
            return
        fullest.close(error)
        for link in links:
            for turn in link.turns():
                if turn.inbox is fullest:
                    link.lanes.abandon(turn)

    def _hand_over(self, shares: dict[Request | None, _Share]) -> None:
        now = trio.current_time()
        for request, share in shares.items():
            self.events_received += len(share.events)
            self.bytes_received += share.size
            if request is None:
                self._offer(share.events, share.size)
            elif not isinstance(request, Turn):
                self._put(share.events, share.size)
            elif request.abandoned:
                request.heard_at = now
                self.dropped_events += len(share.events)
            else:
                request.take_batch(share.events, share.size, now)

    def _offer(self, events: Sequence[ServerEvent], size: int) -> None:
        """Put events on the channel that nobody asked for: only where somebody reads it."""
        self.unclaimed_events += len(events)
        has_room = self.channel.unread_bytes + size < self._limits.turn_buffer_bytes
        if events and self.listening and has_room:
            self._put(events, size)

    def _put(self, events: Sequence[Event], size: int) -> None:
        """Put events on the channel: behind an overrun only when its reader has come back."""
        self._overrun = self._overrun and bool(self.channel.unread)
        if self._overrun and size > 0:
            self.dropped_events += len(events)
        else:
            self.channel.put(events, size)

    def _note(self, event: ServerEvent, owner: Request | None, link: Link) -> None:
        """Count what is no event, and let the socket's keeper know of errors."""
        if isinstance(event, wire.UndecodableFrame):
            self.undecodable_frames += 1
        elif isinstance(event, wire.ErrorEvent):
            link.heed(event, owner)

    def _odd(self, link: Link, message: BinaryMessage | OversizeMessage) -> ServerEvent:
        """Make an event of a message that is no text, or too large to be kept."""
        if isinstance(message, BinaryMessage):
            return wire.undecodable(message.data, "the message is binary")
        kind = TYPE.search(message.head)
        lanes = STREAM_ID.findall(message.head + message.tail)
        lane = lanes[-1].decode() if lanes else None
        answer = kind is not None and kind[1].startswith(b"response.")
        error = MessageTooLarge(message.size, self._limits.max_message_bytes)
        link.fail_oversize(lane, error, answer=answer)
        return wire.UndecodableFrame(
            raw=message.head,
            error=f"the message of {message.size} bytes is over the limit",
            type=kind[1].decode() if kind is not None else None,
            stream_id=lane,
        )


class _Share:
    """What one owner gets of a batch."""

    __slots__ = ("events", "size")

    def __init__(self) -> None:
        self.events: list[ServerEvent] = []
        self.size = 0
