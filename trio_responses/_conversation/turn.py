"""One turn of a conversation: its request, its stream, and the lock that orders turns.

A conversation has one turn at a time, or one run with all of its turns (`TurnLock`). A turn reads
the history when its request is written, which happens once for each attempt, and is appended to
the history when it has ended well. `ResponseStream` decides whether a request is sent again.
"""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._conversation.history import CommittedTurn
from trio_responses._errors import APIError, DeliveryStatus, PreviousResponseNotFound
from trio_responses._protocol.continuation import ContinuationPoint
from trio_responses._protocol.raw_items import RawItems
from trio_responses._turn.answer_format import ANY_TEXT
from trio_responses._turn.stream import ResponseStream

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._conversation.history import ActiveRequest, History, TurnPlan
    from trio_responses._conversation.settings import TurnSettings
    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._protocol.continuation import Placement
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._settings import Timeouts
    from trio_responses._turn.answer_format import AnswerFormat
    from trio_responses._turn.request_builder import Latest
    from trio_responses._turn.stream import TurnSender
    from trio_responses._wire import Response, Usage

__all__ = ["ConversationRequest", "TurnLock", "TurnStream"]

USABLE_REASONS: Final = frozenset({"max_output_tokens", "max_messages", "steered"})
"""Reasons for an incomplete response that the next turn can continue."""
NOT_FOUND: Final = 404


class ConversationRequest:
    """A request builder for one turn of a conversation: encodes a delta or full input.

    :param new: the new items.
    :param generate: `False` for a warm-up; `None` for other turns.
    :param timeouts: the deadlines of each attempt; `None` for those of the connection.
    :param request: the request (``request_id``) that the turn belongs to.
    :param conversation_id: the id of the conversation, if the user has chosen one.
    """

    def __init__(
        self,
        history: History,
        new: RawItems,
        settings: TurnSettings,
        *,
        generate: bool | None = None,
        timeouts: Timeouts | None = None,
        request: ActiveRequest | None = None,
        conversation_id: str | None = None,
    ) -> None:
        self._history = history
        self._request = request
        self._new = new
        self._settings = settings
        self._generate = generate
        self.is_warm_up: bool = generate is False
        self.is_background: bool = settings.plain.get("background") is True
        self._plan: TurnPlan | None = None
        """The plan of the latest attempt."""
        self._origin = settings.origin
        """The settings of the latest attempt."""
        self._earlier: list[RawItems] = []
        """If the turn was steered: the output before the last response, and the steering inputs."""
        self.parent: str | None = None
        """The ``previous_response_id`` of the latest attempt."""
        self.model: str | None = settings.model
        self.conversation_id: str | None = conversation_id
        self.observer: TurnObserver | None = None
        """Notifies the instruments about the turn."""
        self.timeouts: Timeouts | None = timeouts
        limit = settings.plain.get("max_output_tokens")
        self.max_output_tokens: int | None = limit if isinstance(limit, int) else None

    def count_input_bytes(self) -> int:
        """Return the size of the settings, the whole history and the new items."""
        sizes = [len(self._settings.canonical), self._history.count_bytes(), len(self._new.json)]
        return sum(sizes)

    def write(self, placement: Placement, latest: Latest) -> bytes:
        """Return the encoded request for one lane (``stream_id``) of one socket."""
        self._earlier.clear()
        self._origin = self._settings.origin._replace(endpoint=placement.server.name)
        self._plan = plan = self._history.plan(
            self._new, self._settings.canonical, placement, latest, self._origin
        )
        self.parent = plan.parent
        payload = self._settings.encode_request(
            plan.items,
            plan.parent,
            generate=self._generate,
            server=placement.server,
        )
        self._history.count_request(plan, len(payload))
        return payload

    def prepare_retry(self, error: ResponsesError) -> bool:
        """Prepare a retry with full input, and return `True`, if the server has lost the parent."""
        if self.parent is None or self._plan is None:
            return False
        if error.delivery is not DeliveryStatus.REJECTED or not _is_lost(self.parent, error):
            return False
        self._history.forget_continuation_point(self._plan.base_revision)
        return True

    def handle_successor(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Store the output of a steered response, and the inputs that started its successor."""
        self._earlier.append(_items_to_keep(response))
        self._earlier += [RawItems.join(one.items) for one in steers]

    def count_usage(self, usage: Usage) -> None:
        """Count the tokens of a Response that has ended."""
        self._history.count_usage(usage)

    def commit(self, response: Response, pending: Sequence[SteerInput]) -> None:
        """Append the turn to the history if the next turn can continue from its response."""
        if not self._ended_well(response):
            return
        plan = self._plan
        assert plan is not None  # noqa: S101 - the request was written
        applied = [
            raw for one in plan.pending_steers if one.successor is not None for raw in one.items
        ]
        server = None
        if response.id:
            server = ContinuationPoint(
                placement=plan.placement,
                response_id=response.id,
                settings=self._settings.canonical,
                stored=self._settings.stored,
            )
        self._history.commit(
            CommittedTurn(
                base_revision=plan.base_revision,
                # The server has put pending steering inputs before the new items.
                items=(
                    RawItems.join(applied),
                    plan.new,
                    *self._earlier,
                    _items_to_keep(response),
                ),
                server=server,
                pending_steers=pending,
                clears_unsent=self._generate is None,
                origin=self._origin,
                left_out=plan.left_out,
                response=response,
                request=self._request,
            )
        )

    async def save(self) -> None:
        """Save the turn, where a journal records the history."""
        if self._history.journal is not None:
            await self._history.journal.save()

    def _ended_well(self, response: Response) -> bool:
        """Whether the next turn can continue from a response."""
        if self._generate is False and response.raw_output:
            return False  # `warm_up` raises an error for this output
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        usable = response.status == "incomplete" and reason in USABLE_REASONS
        return response.status == "completed" or usable


def _is_lost(parent: str, error: ResponsesError) -> bool:
    """Whether a refusal says that the server does not have the parent of a turn.

    Servers other than OpenAI's answer 404 and name the id, without the code for it.
    """
    if isinstance(error, PreviousResponseNotFound):
        return True
    return isinstance(error, APIError) and error.status == NOT_FOUND and parent in error.message


def _items_to_keep(response: Response) -> RawItems:
    """Return the output items of a response, as the history stores them.

    ``null`` and other values that are no objects are no items, and no checkpoint has them.
    """
    output = response.raw_output or []
    items = [raw for raw in output if bytes(memoryview(raw)[:1]) == b"{"]
    return RawItems.keep(items, response.raw)


class TurnLock:
    """The lock of a conversation, held by one turn, or by one run for all of its turns.

    Tasks acquire the lock in the order in which they asked for it. A turn may be left by another
    task than the one that entered it, so this is not a `trio.Lock`.

    A fork continues from the last response of its source, which the server forgets with the next
    turn of the source if nothing is stored. So the source waits until the first turn of each fork
    has started (`wait_for_forks`).

    :param source: the lock of the conversation that this one was forked from, if that conversation
        has to wait for the first turn of this one.
    """

    def __init__(self, source: TurnLock | None = None) -> None:
        self._semaphore = trio.Semaphore(1)
        self._holder: trio.lowlevel.Task | None = None
        self._excluded: set[trio.lowlevel.Task] = set()
        self._source = source
        self._fork_starts: list[trio.Event] = []
        """One event for each fork whose first turn was sent: set once the server has started."""

    async def __aenter__(self) -> None:
        """Wait for the lock. A checkpoint.

        :raises RuntimeError: as `acquire` does.
        """
        await trio.lowlevel.checkpoint()
        await self.acquire()

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Release the lock. Not a checkpoint."""
        self.release()

    async def acquire(self) -> None:
        """Wait for the lock. Not a checkpoint if the lock is free.

        :raises RuntimeError: if the task would wait for ever, because it holds the lock, or is a
            tool of the run that holds the lock.
        """
        task = trio.lowlevel.current_task()
        if task is self._holder or task in self._excluded:
            raise RuntimeError(
                "this task is inside a turn or a tool of the conversation, so a second turn would"
                " wait for ever: start the turn after the first has ended, or use"
                " conversation.fork()"
            )
        try:
            self._semaphore.acquire_nowait()
        except trio.WouldBlock:
            await self._semaphore.acquire()
        self._holder = task

    def release(self) -> None:
        """Release the lock, and let the next waiting task acquire the lock."""
        self._holder = None
        self._semaphore.release()

    @contextmanager
    def excluding_current_task(self) -> Generator[None, None, None]:
        """Make `acquire` raise an error in the current task for the length of a block.

        The task runs a tool: the run holds the lock, and waits for the tool.
        """
        task = trio.lowlevel.current_task()
        self._excluded.add(task)
        try:
            yield
        finally:
            self._excluded.discard(task)

    async def wait_for_forks(self) -> None:
        """Wait until the first turn of each fork of the conversation has started.

        Not a checkpoint if all have started.
        """
        while self._fork_starts:
            await self._fork_starts[0].wait()
            del self._fork_starts[0]

    def register_first_turn(self) -> trio.Event | None:
        """Make the source conversation wait for the first turn of this fork.

        :return: the event to be set once the server has started the turn; `None` if no source
            waits for it.
        """
        if self._source is None:
            return None
        started = trio.Event()
        self._source._fork_starts.append(started)  # noqa: SLF001 - of the same class
        self._source = None
        return started


class TurnStream(ResponseStream):
    """The stream of one turn of a conversation, which holds the lock until its block ends.

    :param within_run: whether a run holds the lock for the turn.
    """

    def __init__(
        self,
        lock: TurnLock,
        sender: TurnSender,
        request: ConversationRequest,
        *,
        delivery: DeliveryMode,
        snapshot: bool,
        max_retries: int | None = None,
        answer_format: AnswerFormat = ANY_TEXT,
        within_run: bool = False,
    ) -> None:
        super().__init__(
            sender,
            request,
            delivery=delivery,
            snapshot=snapshot,
            max_retries=max_retries,
            answer_format=answer_format,
        )
        self._lock = lock
        self._within_run = within_run
        self._started: trio.Event | None = None
        """For the first turn of a fork: its source waits for this event."""

    async def __aenter__(self) -> Self:
        """Wait for the lock, then send the request."""
        if self._turn is not None:
            raise RuntimeError("a stream can be entered only once")
        self._begin_work()  # a turn that waits for the lock is finished, too, when draining begins
        try:
            if not self._within_run:
                await self._lock.acquire()
        except BaseException:
            self._end_work()
            raise
        try:
            await self._lock.wait_for_forks()
            await self._request.save()  # what the store could not take before
            self._started = self._lock.register_first_turn()
            await super().__aenter__()
        except BaseException:
            self._end_work()
            self._release()
            raise
        if self._turn is not None and self._started is not None:
            self._turn.set_when_running(self._started)
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Leave the turn, then release the lock."""
        await super().__aexit__(kind, error, traceback)
        self._release()

    def _release(self) -> None:
        if self._started is not None:
            self._started.set()
        if not self._within_run:
            self._lock.release()
