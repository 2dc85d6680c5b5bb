"""One turn of a conversation: what it says, and its time on the floor.

What belongs elsewhere: what there is to say it with (`ledger.py`), the turn itself
(`turns/stream.py`).
"""

from __future__ import annotations

from contextlib import asynccontextmanager, contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._conversation.history import output_of
from trio_responses._errors import DeliveryStatus, PreviousResponseNotFound
from trio_responses._protocol.raw_items import RawItems
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Generator, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._conversation.history import History
    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._protocol.continuation import Continuation, Placement
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._turn.request_builder import Latest, TurnSettings
    from trio_responses._turn.stream import AbandonChoice, TurnSender
    from trio_responses._wire import Response

__all__ = ["ConversationRequest", "TurnLock", "TurnStream"]

GOOD_ENDINGS: Final = frozenset({"max_output_tokens", "max_messages", "steered"})
"""Reasons for an incomplete response that leave something to go on from."""


class ConversationRequest:
    """One turn of a conversation, written anew for each socket that it goes to."""

    def __init__(
        self,
        ledger: History,
        new: RawItems,
        settings: TurnSettings,
        *,
        generate: bool | None = None,
    ) -> None:
        self._ledger = ledger
        self.new = new
        """The new items."""
        self.settings = settings
        self.generate = generate
        self.model: str | None = settings.model
        self.observer: TurnObserver | None = None
        """Who tells the instruments of it."""
        self.chain: Continuation | None = None
        """What the last attempt continues: after a ``reset`` no longer the conversation's."""
        self.placement: Placement | None = None
        """Where the last attempt went."""
        self.parent: str | None = None
        """The ``previous_response_id`` of the last attempt."""
        self.superseded: list[RawItems] = []
        """Where the turn was steered: the output before, and what it was steered with."""

    def write(self, placement: Placement, latest: Latest) -> bytes:
        """Write the request for a place."""
        self.placement = placement
        self.superseded.clear()
        return self._ledger.compose(self, placement, latest)

    def can_repair(self, error: ResponsesError) -> bool:
        """Whether another attempt, with full input, can mend this: the parent is gone."""
        gone = (
            isinstance(error, PreviousResponseNotFound)
            and error.delivery is DeliveryStatus.REJECTED
        )
        if self.parent is None or self.chain is None or not gone:
            return False
        self.chain.baseline = None
        return True

    def advance(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Remember what came before a successor: it is part of the turn."""
        self.superseded.append(output_of(response))
        self.superseded += [RawItems.join(one.items) for one in steers]

    def commit(self, response: Response, pending: Sequence[SteerInput]) -> None:
        """Take a turn that has ended into the history, if it ended well."""
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        cut_short = response.status == "incomplete" and reason in GOOD_ENDINGS
        disobeyed = self.generate is False and bool(response.raw_output)  # `warm_up` raises it
        if (response.status == "completed" or cut_short) and not disobeyed:
            self._ledger.commit(self, response, pending)


class TurnLock:
    """Who may speak in a conversation: one turn at a time, or one run with all of its turns.

    :param source: the floor of the conversation that this one was forked from, where its first
        turn has to be under way before the other one may go on.
    """

    def __init__(self, source: TurnLock | None = None) -> None:
        self._free = trio.Semaphore(1)
        self._holder: trio.lowlevel.Task | None = None
        self._barred: set[trio.lowlevel.Task] = set()
        self._source = source
        self._gates: list[trio.Event] = []
        """For each fork whose first turn has not begun at the server: set when it has."""

    @asynccontextmanager
    async def held(self) -> AsyncGenerator[None, None]:
        """Have the floor for a block, as soon as whoever asked before has had it."""
        await trio.lowlevel.checkpoint()
        await self.take()
        try:
            yield
        finally:
            self.give()

    @contextmanager
    def barred(self) -> Generator[None, None, None]:
        """Run a tool in this task: the run that has the floor waits for it."""
        task = trio.lowlevel.current_task()
        self._barred.add(task)
        try:
            yield
        finally:
            self._barred.discard(task)

    async def take(self) -> None:
        """Wait until nobody else has the floor. No checkpoint where it is free.

        :raises RuntimeError: where that would be for ever: the task has it already, or is a tool
            of the run that has it.
        """
        task = trio.lowlevel.current_task()
        if task is self._holder or task in self._barred:
            raise RuntimeError("a turn of this conversation cannot wait for its own end")
        try:
            self._free.acquire_nowait()
        except trio.WouldBlock:
            await self._free.acquire()
        self._holder = task

    def give(self) -> None:
        """Let the next one have it."""
        self._holder = None
        self._free.release()

    async def clear(self) -> trio.Event | None:
        """Wait until the first turns of all forks have begun. No checkpoint where they have.

        :return: what a fork's first turn has to set as soon as the server has begun with it.
        """
        while self._gates:
            await self._gates[0].wait()
            del self._gates[0]
        if self._source is None:
            return None
        gate = trio.Event()
        self._source._gates.append(gate)  # noqa: SLF001 - its own kind
        self._source = None
        return gate


class TurnStream(ResponseStream):
    """A turn of a conversation: it has the floor from its first attempt to the end of its block.

    :param within_run: whether a run has the floor for it.
    """

    def __init__(
        self,
        floor: TurnLock,
        sender: TurnSender,
        request: ConversationRequest,
        *,
        delivery: DeliveryMode,
        abandon: AbandonChoice,
        snapshot: bool,
        max_retries: int | None = None,
        within_run: bool = False,
    ) -> None:
        super().__init__(
            sender,
            request,
            delivery=delivery,
            abandon=abandon,
            snapshot=snapshot,
            max_retries=max_retries,
        )
        self._floor = floor
        self._within_run = within_run
        self._gate: trio.Event | None = None

    async def __aenter__(self) -> Self:
        """Wait for the floor, then send the request."""
        if not self._within_run:
            await self._floor.take()
        try:
            self._gate = await self._floor.clear()
            await super().__aenter__()
        except BaseException:
            self._leave_floor()
            raise
        if self._turn is not None and self._gate is not None:
            self._turn.set_when_running(self._gate)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn and the floor."""
        await super().__aexit__(kind, error, traceback)
        self._leave_floor()

    def _leave_floor(self) -> None:
        if self._gate is not None:
            self._gate.set()
        if not self._within_run:
            self._floor.give()
