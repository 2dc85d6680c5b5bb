"""The lease of a durable conversation: acquired, renewed in the background, and released.

Whether a lease is lost, the store decides when something is saved. The renewal finds it out while
nothing is saved, so that a block does not go on without its conversation.
"""

from __future__ import annotations

import secrets
from contextlib import suppress
from typing import TYPE_CHECKING, Final

import trio

from trio_responses._concurrency import FastLock
from trio_responses._stores.errors import ConversationBusy, LeaseLost, StoreError, StoreUnavailable

if TYPE_CHECKING:
    from trio_responses._instruments.instrument import LeaseObserver
    from trio_responses._stores.interface import ConversationStore, Lease

__all__ = ["LeaseKeeper", "acquire_lease"]

RENEWALS: Final = 3
"""How often a lease is renewed within its length."""
FIRST_PAUSE: Final = 0.05
LAST_PAUSE: Final = 1.0
GROWTH: Final = 1.5
"""The pauses between attempts at a conversation that has another owner, in seconds."""
GIVE_BACK_SECONDS: Final = 2.0
"""How long a cancelled opening tries to release what it may have acquired."""


class LeaseKeeper:
    """Renews the lease of a conversation until it is released, or lost.

    :param lease: a lease that was just acquired.
    :param seconds: its length.
    :param observer: notifies the instruments about the lease.
    """

    def __init__(
        self,
        store: ConversationStore,
        lease: Lease,
        seconds: float,
        observer: LeaseObserver | None = None,
    ) -> None:
        self._store = store
        self._observer = observer
        self._seconds = seconds
        self._ends_at = trio.current_time() + seconds
        """When the lease may have ended, on Trio's clock."""
        self._block = trio.CancelScope()
        self._renewal = trio.CancelScope()
        self._lock = FastLock()
        """Held while the lease is renewed or replaced."""
        self._next_owner: str | None = None
        """The owner of the lease that is to replace the present one; `None` if none is."""
        self.lease: Lease = lease
        """The present lease."""
        self.error: Exception | None = None
        """Why the block was cancelled: `LeaseLost`, or an error that a store must not raise."""

    def start(self, nursery: trio.Nursery) -> None:
        """Renew the lease in a nursery, which is cancelled when the lease is lost."""
        self._block = nursery.cancel_scope
        nursery.start_soon(self._run)

    async def _run(self) -> None:
        """Renew the lease until this task is cancelled, or the lease is lost."""
        with self._renewal:
            try:
                await self._renew()
            except Exception as error:  # noqa: BLE001 - the block raises it, alone
                self.lose(error)

    async def _renew(self) -> None:
        """Renew the lease again and again.

        :raises LeaseLost: when it is lost.
        """
        pause = self._seconds / RENEWALS
        while True:
            await trio.sleep(pause)
            asked_at = trio.current_time()
            try:
                async with self._lock:
                    if self._next_owner is None:
                        await self._store.renew(self.lease, seconds=self._seconds)
                    else:
                        await self._replace(self._next_owner)
            except StoreUnavailable:
                pause = min(LAST_PAUSE, self._seconds / RENEWALS)
                if trio.current_time() >= self._ends_at:
                    raise LeaseLost(
                        self.lease,
                        f"the store did not answer for {self._seconds:g} s, so it was not renewed",
                    ) from None
            else:
                self._ends_at = asked_at + self._seconds
                pause = self._seconds / RENEWALS

    def lose(self, error: Exception) -> None:
        """Cancel the block of the conversation, because the lease was lost."""
        self.error = self.error or error
        if self._observer is not None:
            self._observer.ended(error)
        self._block.cancel()

    def check(self) -> None:
        """Check that the lease is not known to be lost.

        :raises LeaseLost: if it is.
        """
        if isinstance(self.error, LeaseLost):
            raise self.error.copy_for_raise()
        if self.error is not None:
            raise self.error

    async def acquire_anew(self) -> None:
        """Replace the lease by a new one, so that no save that is still under way has an effect.

        Interrupted, it is repeated, at the latest when the lease is renewed.

        :raises LeaseLost: if another owner was faster.
        """
        async with self._lock:
            self._next_owner = self._next_owner or secrets.token_hex(16)
            await self._replace(self._next_owner)

    async def _replace(self, owner: str) -> None:
        """Replace the lease by that of the next owner."""
        old = self.lease
        await self._store.release(old)
        try:
            self.lease = await self._store.acquire(
                old.conversation_id, owner, seconds=self._seconds
            )
        except ConversationBusy:
            error = LeaseLost(old, "another owner took over")
            self.lose(error)
            raise error from None
        self._next_owner = None

    async def release(self) -> None:
        """Stop to renew the lease, and release it. If that fails, the lease ends by itself."""
        self._renewal.cancel()
        if not isinstance(self.error, LeaseLost):
            with suppress(StoreError):
                await self._store.release(self.lease)
            if self._next_owner is not None:
                await _give_back(self._store, self.lease.conversation_id, self._next_owner)
        if self._observer is not None:
            self._observer.ended(None)


async def acquire_lease(
    store: ConversationStore,
    conversation_id: str,
    *,
    seconds: float,
    wait: float,
    observer: LeaseObserver | None = None,
) -> LeaseKeeper:
    """Return the keeper of a new lease. If cancelled, nothing is kept.

    :param wait: how many seconds to wait for another owner.
    :param observer: notifies the instruments about the lease.
    :raises ConversationBusy: if another owner still has the lease then.
    """
    try:
        lease = await _acquire(store, conversation_id, seconds, wait, observer)
    except BaseException as error:
        if observer is not None:
            observer.failed(error)
        raise
    if observer is not None:
        observer.acquired()
    return LeaseKeeper(store, lease, seconds, observer)


async def _acquire(
    store: ConversationStore,
    conversation_id: str,
    seconds: float,
    wait: float,
    observer: LeaseObserver | None,
) -> Lease:
    owner = secrets.token_hex(16)
    give_up_at = trio.current_time() + wait
    pause = FIRST_PAUSE
    while True:
        try:
            return await store.acquire(conversation_id, owner, seconds=seconds)
        except ConversationBusy as busy:
            if observer is not None:
                observer.refused(busy.seconds_left)
            now = trio.current_time()
            if now >= give_up_at:
                raise
            await trio.sleep(min(pause, max(busy.seconds_left, FIRST_PAUSE), give_up_at - now))
            pause = min(GROWTH * pause, LAST_PAUSE)
        except trio.Cancelled:
            await _give_back(store, conversation_id, owner)
            raise


async def _give_back(store: ConversationStore, conversation_id: str, owner: str) -> None:
    """Release the lease that an acquisition with an unknown outcome may have brought."""
    # The caller raises what went wrong before: no other exception takes its place.
    with trio.move_on_after(GIVE_BACK_SECONDS, shield=True), suppress(Exception):
        await store.release(await store.acquire(conversation_id, owner, seconds=FIRST_PAUSE))
