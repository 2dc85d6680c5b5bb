"""Route received messages: put each event into the inbox of the turn that it belongs to.

Every message of a batch is decoded, routed and counted without waiting, and each owner is woken
once a batch. Events that belong to no turn go to the raw channel of the connection.
"""

from __future__ import annotations

import math
import re
from collections import defaultdict
from itertools import compress, count
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from trio_responses import _wire as wire
from trio_responses._errors import BufferOverflow, DeliveryStatus, MessageTooLarge, api_error
from trio_responses._protocol.frames import BinaryMessage
from trio_responses._protocol.request_table import OWNERSHIP_EVENTS
from trio_responses._protocol.requests import ReaderState
from trio_responses._turn.attempt import TurnAttempt
from trio_responses._turn.inbox import Inbox

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from typing import TypeAlias

    from trio_responses._connection.socket import Socket
    from trio_responses._lifecycle import Event
    from trio_responses._protocol.frames import Message, OversizeMessage
    from trio_responses._protocol.requests import ActiveRequest
    from trio_responses._rate_limiter import LimitQueue
    from trio_responses._settings import Limits
    from trio_responses._turn.inbox import Budget
    from trio_responses._wire import ServerEvent

    OwnerBatch: TypeAlias = tuple[list[ServerEvent], list[int]]
    """The events of a batch that belong to one owner, and the sizes of their messages."""
    OwnerBatches: TypeAlias = defaultdict[ActiveRequest | None, OwnerBatch]

__all__ = ["Router"]

ODD_FRAMES_PER_STEP: Final = 8
"""The most frames that are decoded leniently, or are no text, before other tasks run. Such a frame
takes 10 to 100 us; an event of the documented form takes 1 to 7."""
MIN_EVENT_BYTES: Final = 64
"""The least size of an unread event, so that the memory of events of empty messages is limited."""
TEXT: Final = frozenset({bytes})
LANE: Final = attrgetter("stream_id")
TYPE: Final = re.compile(rb'"type"\s*:\s*"([a-z_.]+)"')
TERMINAL: Final = (wire.ResponseCompleted, wire.ResponseFailed, wire.ResponseIncomplete)
INSPECTED: Final = frozenset({wire.ErrorEvent, wire.UndecodableFrame, *TERMINAL})
STREAM_ID: Final = re.compile(rb'"stream_id"\s*:\s*"([A-Za-z0-9_.-]+)"')


class Router:
    """A router that decodes the messages of a connection's sockets and delivers the events.

    :param budget: the count of unread bytes of the connection.
    :param rate_limits: notified of the end of each response.
    :param max_pause: the longest pause after a refusal for the rate, in seconds.
    """

    def __init__(
        self,
        budget: Budget,
        limits: Limits,
        rate_limits: LimitQueue | None = None,
        max_pause: float = math.inf,
    ) -> None:
        self._budget = budget
        self._limits = limits
        self._rate_limits = rate_limits
        self._max_pause = max_pause
        self.channel: Inbox[Event] = Inbox(budget)
        """The raw channel: answers to raw requests, unsolicited events, lifecycle events."""
        self._overrun = False
        self.channel_in_use = False
        """Whether the program has sent or received on the raw channel."""
        self.events_received: int = 0
        self.bytes_received: int = 0
        self.undecodable_frames: int = 0
        self.unrouted_events: int = 0
        self.dropped_events: int = 0
        self.usage: wire.Usage = wire.Usage()
        """The tokens of all Responses that have ended."""

    def route(self, socket: Socket, messages: list[Message]) -> Iterator[None]:
        """Decode and deliver a batch of messages, and yield whenever other tasks should run."""
        if TEXT.issuperset(map(type, messages)):
            texts: list[bytes] = messages  # type: ignore[assignment]  # pyright: ignore[reportAssignmentType]
            while True:
                events = wire.decode_all(texts, ODD_FRAMES_PER_STEP)
                sizes = list(map(len, texts[: len(events)]))
                lanes = list(map(LANE, events))
                if lanes.count(lanes[0]) == len(lanes) and OWNERSHIP_EVENTS.isdisjoint(
                    map(type, events)
                ):  # most batches: all events have the owner of the first one
                    owner = socket.requests.route(events[0])
                    self._deliver_to_owner(socket, owner, events, sum(sizes))
                else:
                    self._route_to_owners(socket, events, sizes)
                if len(events) == len(texts):
                    return
                texts = texts[len(events) :]
                yield
        for number, message in enumerate(messages, 1):  # a nontext message may fail turns
            if isinstance(message, bytes):
                self._route_to_owners(socket, [wire.decode(message)], [len(message)])
            else:
                event = self._decode_nontext(socket, message)
                self._route_to_owners(socket, [event], [len(event.raw)])
            if number % ODD_FRAMES_PER_STEP == 0:
                yield

    def _route_to_owners(self, socket: Socket, events: list[ServerEvent], sizes: list[int]) -> None:
        """Deliver a batch of events: to each owner all of its events at once.

        Only an event of `OWNERSHIP_EVENTS` can change which request the events of a lane belong to.
        Between two of them, all events of a lane have one owner, which is looked up once.
        """
        batches: OwnerBatches = defaultdict(lambda: ([], []))
        changes_owner = map(OWNERSHIP_EVENTS.__contains__, map(type, events))
        start = 0
        for index in compress(count(), changes_owner):
            if start < index:
                self._route_between(socket, batches, events[start:index], sizes[start:index])
            start = index + 1
            event = events[index]
            owner = socket.requests.route(event)
            if type(event) in INSPECTED:
                self._inspect(event, owner, socket)
            own_events, own_sizes = batches[owner]
            own_events.append(event)
            own_sizes.append(sizes[index])
        if start < len(events):
            self._route_between(socket, batches, events[start:], sizes[start:])
        for owner, (own_events, own_sizes) in batches.items():
            self._deliver_to_owner(socket, owner, own_events, sum(own_sizes))

    def _route_between(
        self,
        socket: Socket,
        batches: OwnerBatches,
        events: list[ServerEvent],
        sizes: list[int],
    ) -> None:
        """Find the owners of events, at least one; those of a ``stream_id`` have the same owner."""
        lanes = list(map(LANE, events))
        if lanes.count(lanes[0]) == len(lanes):
            own_events, own_sizes = batches[socket.requests.route(events[0])]
            own_events += events
            own_sizes += sizes
            return
        by_lane: dict[str | None, OwnerBatch] = {}
        for lane, event, size in zip(lanes, events, sizes, strict=True):
            batch = by_lane.get(lane)
            if batch is None:
                batch = by_lane[lane] = batches[socket.requests.route(event)]
            batch[0].append(event)
            batch[1].append(size)

    def notify_channel(self, event: Event) -> None:
        """Put a lifecycle event on the raw channel, if the program uses the channel."""
        if self.channel_in_use:
            self.channel.put([event], 0)

    def fail_fullest_inbox(self, sockets: Iterable[Socket]) -> None:
        """Discard the fullest inbox, and fail its turn with `BufferOverflow`."""
        fullest = self._budget.fullest()
        if fullest is None:
            return
        error = BufferOverflow(fullest.unread_bytes)
        error.delivery = DeliveryStatus.ACCEPTED
        fullest.discard()
        if fullest is self.channel:
            self._overrun = True
            self.channel.put([error], 0)
            return
        fullest.close(error)
        for socket in sockets:
            for turn in socket.active_turns():
                if turn.inbox is fullest:
                    turn.abandon()

    def _deliver_to_owner(
        self, socket: Socket, owner: ActiveRequest | None, events: list[ServerEvent], size: int
    ) -> None:
        self.events_received += len(events)
        self.bytes_received += size
        size = max(size, len(events) * MIN_EVENT_BYTES)
        if owner is None:
            self.deliver_unsolicited(events, size)
        elif not isinstance(owner, TurnAttempt):
            self._put_on_channel(events, size)
        elif owner.reader is ReaderState.ABANDONED:
            owner.last_event_at = socket.transport.last_read_at
            self.dropped_events += len(events)
        else:
            owner.deliver(events, size, socket.transport.last_read_at)

    def deliver_unsolicited(self, events: Sequence[ServerEvent], size: int) -> None:
        """Put events without an owner on the raw channel, if the program uses the channel."""
        self.unrouted_events += len(events)
        has_room = self.channel.unread_bytes + size < self._limits.turn_buffer_bytes
        if self.channel_in_use and has_room:
            self._put_on_channel(events, size)

    def _put_on_channel(self, events: Sequence[Event], size: int) -> None:
        """Put events on the raw channel, or drop them while the reader has not caught up."""
        self._overrun = self._overrun and not self.channel.empty
        if self._overrun and size > 0:
            self.dropped_events += len(events)
        else:
            self.channel.put(events, size)

    def _inspect(self, event: ServerEvent, owner: ActiveRequest | None, socket: Socket) -> None:
        """Count an undecodable frame and tokens; let the socket handle an ``error`` event."""
        if isinstance(event, wire.UndecodableFrame):
            self.undecodable_frames += 1
        elif isinstance(event, wire.ErrorEvent):
            socket.handle_error(event, owner)
        elif isinstance(event, TERMINAL) and owner is not None and event.response.usage is not None:
            self.usage += event.response.usage
        if self._rate_limits is not None:
            self._report_end(self._rate_limits, event, owner)

    def _report_end(
        self, rate_limits: LimitQueue, event: ServerEvent, owner: ActiveRequest | None
    ) -> None:
        """Report the end of a response to the rate limits, or a refusal that has no owner."""
        if not isinstance(event, (wire.ErrorEvent, *TERMINAL)):
            return
        if owner is not None and owner.reservation is not None:
            started = owner.response_id is not None
            rate_limits.handle_end(owner.reservation, event, self._max_pause, started=started)
        elif isinstance(event, wire.ErrorEvent):
            rate_limits.handle_error(api_error(event), self._max_pause)

    def _decode_nontext(
        self, socket: Socket, message: BinaryMessage | OversizeMessage
    ) -> wire.UndecodableFrame:
        """Return an event for a binary or oversize message; fail the turns that lose an event."""
        if isinstance(message, BinaryMessage):
            return wire.UndecodableFrame(raw=message.data, error="the message is binary")
        kind = TYPE.search(message.head)
        lanes = STREAM_ID.findall(message.head + message.tail)
        lane = lanes[-1].decode() if lanes else None
        wire_type = kind[1].decode() if kind is not None else None
        error = MessageTooLarge(message.size, self._limits.max_message_bytes)
        socket.fail_oversize(lane, error, wire_type=wire_type)
        return wire.UndecodableFrame(
            raw=message.head,
            error=f"the message of {message.size} bytes is over the limit",
            wire_type=wire_type,
            stream_id=lane,
        )
