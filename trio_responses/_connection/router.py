"""From a batch of messages to the inboxes of their owners: the middle of a frame's way.

Every message is decoded, routed and counted here, without waiting; each owner is woken once a
batch. What belongs to no turn goes to the connection's own channel.

What belongs elsewhere: reading (`transport/websocket.py`), who owns what (`core/lanes.py`), what
an error means for the socket (`link.py`).
"""

from __future__ import annotations

import re
from collections import defaultdict
from itertools import compress, count
from operator import attrgetter
from typing import TYPE_CHECKING, Final, cast

import trio

from trio_responses import _wire as wire
from trio_responses._errors import BufferExceeded, Delivery, MessageTooLarge
from trio_responses._protocol.frames import BinaryMessage
from trio_responses._protocol.requests import TURNING_POINTS
from trio_responses._turn.inbox import Inbox
from trio_responses._turn.turn import Turn

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from trio_responses._connection.socket import Socket
    from trio_responses._lifecycle import Event
    from trio_responses._protocol.frames import Message, OversizeMessage
    from trio_responses._protocol.requests import ActiveRequest
    from trio_responses._settings import Limits
    from trio_responses._turn.inbox import Budget
    from trio_responses._wire import ServerEvent

__all__ = ["Router"]

TEXT: Final = frozenset({bytes})
LANE: Final = attrgetter("stream_id")
TYPE: Final = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')
NOTEWORTHY: Final = frozenset({wire.ErrorEvent, wire.UndecodableFrame})
STREAM_ID: Final = re.compile(rb'"stream_id"\s*:\s*"([A-Za-z0-9_.-]+)"')


class Router:
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

    def dispatch(self, link: Socket, batch: list[Message]) -> None:
        """Give the events of one batch to their owners."""
        if TEXT.issuperset(map(type, batch)):
            texts = cast("list[bytes]", batch)
            self.route_batch(link, wire.decode_all(texts), list(map(len, texts)))
            return
        for message in batch:  # one by one: what comes before an odd one was heard before it
            if isinstance(message, bytes):
                self.route_batch(link, [wire.decode(message)], [len(message)])
            else:
                self.route_batch(link, [self.decode_nontext(link, message)], [0])

    def route_batch(self, link: Socket, events: list[ServerEvent], sizes: list[int]) -> None:
        """Give events to their owners, each owner all of its own at once."""
        shares: defaultdict[ActiveRequest | None, _Share] = defaultdict(_Share)
        turns = map(TURNING_POINTS.__contains__, map(type, events))
        start = 0
        for turn in compress(count(), turns):
            self._share_steps(link, shares, events[start:turn], sizes[start:turn])
            start = turn + 1
            event = events[turn]
            owner = link.lanes.route(event)
            if type(event) in NOTEWORTHY:
                self._note(event, owner, link)
            shares[owner].add([event], sizes[turn])
        self._share_steps(link, shares, events[start:], sizes[start:])
        for owner, share in shares.items():
            self._hand_over(owner, share.events, share.size)

    def _share_steps(
        self,
        link: Socket,
        shares: defaultdict[ActiveRequest | None, _Share],
        events: list[ServerEvent],
        sizes: list[int],
    ) -> None:
        """Share out steps of responses: on one lane, all of them have the same owner."""
        lanes = list(map(LANE, events))
        if events and lanes.count(lanes[0]) == len(lanes):
            shares[link.lanes.route(events[0])].add(events, sum(sizes))
            return
        by_lane: dict[str | None, _Share] = {}
        for lane, event, size in zip(lanes, events, sizes, strict=True):
            share = by_lane.get(lane)
            if share is None:
                share = by_lane[lane] = shares[link.lanes.route(event)]
            share.events.append(event)
            share.size += size

    def tell(self, event: Event) -> None:
        """Say on the channel what became of a socket: never left out, for want of an answer."""
        if self.listening:
            self.channel.put([event], 0)

    def give_up_fullest(self, links: Iterable[Socket]) -> None:
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

    def _hand_over(self, owner: ActiveRequest | None, events: list[ServerEvent], size: int) -> None:
        self.events_received += len(events)
        self.bytes_received += size
        if owner is None:
            self.deliver_unsolicited(events, size)
        elif not isinstance(owner, Turn):
            self._put(events, size)
        elif owner.abandoned:
            owner.heard_at = trio.current_time()
            self.dropped_events += len(events)
        else:
            owner.take_batch(events, size, trio.current_time())

    def deliver_unsolicited(self, events: Sequence[ServerEvent], size: int) -> None:
        """Put events on the channel that nobody asked for: only where somebody reads it."""
        self.unclaimed_events += len(events)
        has_room = self.channel.unread_bytes + size < self._limits.turn_buffer_bytes
        if self.listening and has_room:
            self._put(events, size)

    def _put(self, events: Sequence[Event], size: int) -> None:
        """Put events on the channel: behind an overrun only when its reader has come back."""
        self._overrun = self._overrun and not self.channel.empty
        if self._overrun and size > 0:
            self.dropped_events += len(events)
        else:
            self.channel.put(events, size)

    def _note(self, event: ServerEvent, owner: ActiveRequest | None, link: Socket) -> None:
        """Count what is no event, and let the socket's keeper know of errors."""
        if isinstance(event, wire.UndecodableFrame):
            self.undecodable_frames += 1
        elif isinstance(event, wire.ErrorEvent):
            link.handle_error(event, owner)

    def decode_nontext(self, link: Socket, message: BinaryMessage | OversizeMessage) -> ServerEvent:
        """Make an event of a message that is no text, or too large to be kept."""
        if isinstance(message, BinaryMessage):
            return wire.UndecodableFrame(raw=message.data, error="the message is binary")
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

    def add(self, events: list[ServerEvent], size: int) -> None:
        self.events += events
        self.size += size
