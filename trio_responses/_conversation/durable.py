"""Durable conversations: opened from a store, and owned for the length of a block."""

from __future__ import annotations

import math
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol, TypeAlias, TypeVar, final

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.lease import acquire_lease
from trio_responses._conversation.observed_store import ObservedStore, system_name
from trio_responses._conversation.records import without_secrets
from trio_responses._conversation.stored_history import StoredHistory, read_history
from trio_responses._errors import ConfigurationError
from trio_responses._protocol.calls import call_key, is_output_item
from trio_responses._stores.base import check_id
from trio_responses._stores.errors import LeaseLost, OutdatedCheckpoint, StoreUnavailable
from trio_responses._turn.request_builder import raw_input

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
    from contextlib import AbstractAsyncContextManager

    import msgspec

    from trio_responses._conversation.history import History
    from trio_responses._conversation.journal import Journal
    from trio_responses._conversation.lease import LeaseKeeper
    from trio_responses._instruments.instrument import Instruments
    from trio_responses._stores.interface import ConversationStore
    from trio_responses._wire import ToolCall


__all__ = [
    "DURABLE_OPTIONS",
    "DurableBlock",
    "DurableOptions",
    "OnInterruptedCall",
    "open_durable",
]

OnInterruptedCall: TypeAlias = 'Literal["report", "rerun"] | Callable[[ToolCall], Awaitable[Any]]'
"""What happens to a call that an earlier owner has started and not finished: ``"report"``,
``"rerun"``, or an async function that returns one of them, or the output item of the call."""

MIN_LEASE: Final = 1.0


class Attachable(Protocol):
    """The interface of a conversation that can be saved."""

    def _attach(
        self, block: DurableBlock, keeper: LeaseKeeper, stored: StoredHistory, position: int
    ) -> Journal:
        """Record and save each change from now on; return the journal."""
        ...


DURABLE_OPTIONS: Final = ("wait", "lease_seconds", "on_interrupted_call", "checkpoint")
"""The keyword arguments of ``durable_conversation()`` besides the parameters of turns."""

Owned = TypeVar("Owned", bound=Attachable)


@final
class DurableOptions:
    """The checked options of a durable conversation.

    :raises ConfigurationError: for values that cannot work.
    """

    def __init__(
        self,
        store: ConversationStore,
        conversation_id: str,
        *,
        wait: float,
        lease_seconds: float,
        on_interrupted_call: OnInterruptedCall,
        checkpoint: bytes | None,
    ) -> None:
        if isinstance(store, type) or not hasattr(store, "acquire"):
            raise ConfigurationError(
                "the store must be an open store, such as that of `async with"
                f" SQLiteStore('chats.db') as store`, not {store!r}"
            )
        check_id("conversation_id", conversation_id)
        if not wait >= 0:
            raise ConfigurationError(f"wait must be at least 0 seconds, not {wait!r}")
        if not MIN_LEASE <= lease_seconds < math.inf:
            raise ConfigurationError(
                f"lease_seconds must be at least {MIN_LEASE:g}, not {lease_seconds!r}"
            )
        if on_interrupted_call not in {"report", "rerun"} and not callable(on_interrupted_call):
            raise ConfigurationError(
                "on_interrupted_call must be 'report', 'rerun' or an async function, not"
                f" {on_interrupted_call!r}"
            )
        self.store = store
        self.conversation_id = conversation_id
        self.wait = wait
        self.lease_seconds = lease_seconds
        self.on_interrupted_call: OnInterruptedCall = on_interrupted_call
        self.checkpoint = Checkpoint.decode(checkpoint) if checkpoint is not None else None


@asynccontextmanager
async def open_durable(
    open_conversation: Callable[[Mapping[str, Any], History], AbstractAsyncContextManager[Owned]],
    options: DurableOptions,
    params: Mapping[str, Any],
    instruments: Instruments,
) -> AsyncGenerator[Owned, None]:
    """Open a conversation from a store for the length of a block, and own it meanwhile.

    :param open_conversation: opens a conversation with settings and a history.
    :param params: checked settings, which take the place of saved ones.
    :param instruments: notified about the lease and the operations of the store.
    """
    block = DurableBlock(options, instruments)
    keeper = await block.acquire_lease(options.conversation_id, wait=options.wait)
    async with (
        _ending(block.release, "the leases were not released"),
        open_collapsing_nursery() as nursery,
    ):
        block.start(nursery, keeper)
        read, position = await read_history(block.store, options.conversation_id)
        changed = _import_checkpoint(read, options)
        settings = {**read.settings, **params}
        async with open_conversation(settings, read.history) as conversation:
            journal = conversation._attach(block, keeper, read, position)  # noqa: SLF001 - Attachable
            if read.is_empty or changed:
                journal.record_replacement()
            elif without_secrets(journal.settings.plain) != read.settings:
                journal.record_settings()
            await _decide_interrupted_calls(read.history, options.on_interrupted_call)
            await journal.save()
            async with _ending(block.save, "the latest change was not saved"):
                yield conversation
        nursery.cancel_scope.cancel()
    block.check()


@asynccontextmanager
async def _ending(step: Callable[[], Awaitable[None]], problem: str) -> AsyncGenerator[None, None]:
    """Call an async function, which cannot be cancelled, when the block ends.

    An exception of the block is raised, not that of the function, which becomes a note of it.
    """
    try:
        yield
    except BaseException as error:
        try:
            await step()
        except Exception as failure:  # noqa: BLE001 - the block's exception tells it
            if failure is not error:
                error.add_note(f"{problem}: {failure}")
        raise
    await step()


def _import_checkpoint(read: StoredHistory, options: DurableOptions) -> bool:
    """Let a checkpoint take the place of what was read, and return whether it does.

    :raises OutdatedCheckpoint: if what was read is newer, or another conversation.
    """
    checkpoint = options.checkpoint
    if checkpoint is None:
        return False
    if not read.is_empty:
        if checkpoint.conversation_id != options.conversation_id:
            raise OutdatedCheckpoint(options.conversation_id, "it was made by another conversation")
        if checkpoint.revision < read.history.revision:
            raise OutdatedCheckpoint(
                options.conversation_id,
                f"it has revision {checkpoint.revision}, and the store has revision"
                f" {read.history.revision}",
            )
        if checkpoint.revision == read.history.revision:
            return False
    unfinished = read.unfinished
    read.replace(checkpoint)
    read.unfinished = unfinished  # the new base settles it
    return True


async def _decide_interrupted_calls(history: History, decide: OnInterruptedCall) -> None:
    """Decide what happens to the calls that an earlier owner has started and not finished.

    :raises ConfigurationError: if a function returns something else than it may.
    """
    calls = history.track_calls()
    pending = calls.pending_calls()
    for key in calls.interrupted_calls:
        call = pending[key]
        decision = decide if isinstance(decide, str) else await decide(call)
        if decision == "rerun":
            calls.forget_interruption(key)
        elif decision != "report":
            output = _output_item(decision)
            if output is None or call_key(output) != key:
                raise ConfigurationError(
                    "on_interrupted_call must return 'report', 'rerun' or the output item of the"
                    f" call, which has its call_id, not {decision!r}"
                )
            calls.store_output(key, output)


def _output_item(decision: Any) -> msgspec.Raw | None:
    """Return the output item that a function has returned; `None` for any other value."""
    if not is_output_item(decision):
        return None
    [output] = raw_input([decision])
    return output


@final
class DurableBlock:
    """The leases and journals of a durable conversation and its forks, for the length of a block.

    :param options: the options of the conversation, which hold for its forks as well.
    :param instruments: notified about the leases and the operations of the store.
    """

    def __init__(self, options: DurableOptions, instruments: Instruments) -> None:
        self._instruments = instruments
        self._system = system_name(options.store)
        self.store: ConversationStore = options.store
        if instruments.observes_stores:
            self.store = ObservedStore(options.store, instruments)
        self._seconds = options.lease_seconds
        self._nursery: trio.Nursery | None = None
        self._journals: dict[LeaseKeeper, Journal | None] = {}
        """The keeper of each lease, and its journal, once the conversation has one."""

    async def acquire_lease(self, conversation_id: str, *, wait: float) -> LeaseKeeper:
        """Return the keeper of a new lease. If cancelled, nothing is kept.

        :param wait: how many seconds to wait for another owner.
        :raises ConversationBusy: if another owner still has the lease then.
        """
        observer = self._instruments.observe_lease(self._system, conversation_id)
        return await acquire_lease(
            self.store, conversation_id, seconds=self._seconds, wait=wait, observer=observer
        )

    def start(self, nursery: trio.Nursery, keeper: LeaseKeeper) -> None:
        """Renew a lease until the block ends. The nursery is cancelled when it is lost."""
        self._nursery = nursery
        self._journals[keeper] = None
        keeper.start(nursery)

    def add(self, keeper: LeaseKeeper, journal: Journal) -> None:
        """Save a journal at the end of the block."""
        self._journals[keeper] = journal

    async def save_fork(self, make_fork: Callable[[], Owned], conversation_id: str) -> Owned:
        """Save a fork as a conversation of its own, and own it until the block ends.

        :param make_fork: returns the fork; called once the id is known to be free.
        :raises ConversationBusy: if another owner has a conversation with this id.
        :raises ConfigurationError: if there is one.
        """
        check_id("conversation_id", conversation_id)
        assert self._nursery is not None  # noqa: S101 - `start` was called
        keeper = await self.acquire_lease(conversation_id, wait=0)
        self.start(self._nursery, keeper)
        try:
            if await self.store.get(conversation_id) is not None:
                raise ConfigurationError(
                    f"the store has a conversation {conversation_id!r} already: a fork needs an id"
                    " of its own"
                )
            fork = make_fork()
            journal = fork._attach(self, keeper, StoredHistory(conversation_id), 0)  # noqa: SLF001 - Attachable
            journal.record_replacement()
            await journal.save()
        except BaseException:
            if keeper.error is None:  # or else the block was cancelled, and `check` says why
                del self._journals[keeper]
            # The exception above is raised: the lease ends by itself if this fails, too.
            with trio.move_on_after(self._seconds, shield=True), suppress(Exception):
                await keeper.release()
            raise
        return fork

    async def save(self) -> None:
        """Save what is not saved yet, within the length of a lease, also if cancelled.

        :raises StoreError: if that is not possible.
        """
        failures: list[Exception] = []
        with trio.move_on_after(self._seconds, shield=True) as scope:
            for journal in list(self._journals.values()):
                try:
                    if journal is not None:
                        await journal.close()
                except LeaseLost:  # `check` raises it
                    pass
                except Exception as error:  # noqa: BLE001 - the others are saved first
                    failures.append(error)
        if failures:
            raise failures[0]
        if scope.cancelled_caught:
            raise StoreUnavailable("append", self._seconds)

    async def release(self) -> None:
        """Release the leases that were not lost, within the length of one, also if cancelled."""
        with trio.move_on_after(self._seconds, shield=True):
            for keeper in list(self._journals):
                await keeper.release()

    def check(self) -> None:
        """Check that no lease was lost.

        :raises LeaseLost: if one was.
        """
        for keeper in self._journals:
            keeper.check()
