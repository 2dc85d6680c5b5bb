"""`MemoryStore`: its time, its time to live, and what it keeps between blocks."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest
import trio
from trio.testing import MockClock

from tests.testing.driver import NO_WAITING
from trio_responses.stores import (
    ConversationBusy,
    LeaseLost,
    MemoryStore,
    Record,
)

if TYPE_CHECKING:
    from trio_responses.stores import (
        ConversationInfo,
    )


async def known(store: MemoryStore, name: str = "name") -> ConversationInfo:
    found = await store.get(name)
    assert found is not None
    return found


@NO_WAITING
async def test_a_conversation_expires_after_its_time_to_live() -> None:
    async with MemoryStore(ttl=100) as store:
        lease = await store.acquire("name", "me", seconds=1000)
        await store.append(lease, 0, [Record(b"a", "key")])
        await trio.sleep(60)
        await store.append(lease, 1, [Record(b"b")])
        found = await known(store)
        assert found.expires_at == found.updated_at + 100
        await trio.sleep(99)
        assert await store.list() == [found]
        await trio.sleep(1)
        assert await store.get("name") is None
        assert await store.find("name", "key") is None
        assert await store.list() == []
        with pytest.raises(LeaseLost, match="has expired"):
            await store.renew(lease, seconds=10)
        new = await store.acquire("name", "another", seconds=10)
        assert new.token > lease.token


@NO_WAITING
async def test_without_a_time_to_live_nothing_expires() -> None:
    async with MemoryStore() as store:
        await store.append(await store.acquire("name", "me", seconds=1), 0, [Record(b"a")])
        await trio.sleep(80_000)
        assert (await known(store)).expires_at is None


@NO_WAITING
async def test_an_empty_conversation_of_a_dead_owner_expires() -> None:
    async with MemoryStore(ttl=100) as store:
        lease = await store.acquire("name", "me", seconds=10)
        await trio.sleep(109)
        await store.renew(lease, seconds=10)
        await trio.sleep(110)
        with pytest.raises(LeaseLost):
            await store.renew(lease, seconds=10)
        assert store._conversations == {}


def test_leases_and_times_go_on_in_another_run_of_trio() -> None:
    store = MemoryStore()

    async def save() -> None:
        async with store:
            await store.append(await store.acquire("name", "me", seconds=1000), 0, [Record(b"a")])

    async def check() -> None:
        async with store:
            found = await known(store)
            assert abs(found.created_at - time.time()) < 900
            with pytest.raises(ConversationBusy) as busy:
                await store.acquire("name", "another", seconds=1)
            assert 100 < busy.value.seconds_left < 1001

    trio.run(save)
    trio.run(check, clock=MockClock(autojump_threshold=0))
    trio.run(check)


@NO_WAITING
async def test_time_passes_as_on_the_clock_of_trio_also_while_the_store_is_closed() -> None:
    store = MemoryStore()
    async with store:
        await store.append(await store.acquire("name", "me", seconds=10), 0, [Record(b"a")])
        before = await known(store)
        assert before.leased_until == pytest.approx(before.updated_at + 10)
    await trio.sleep(11)
    async with store:
        assert (await known(store)).leased_until is None
        lease = await store.acquire("name", "another", seconds=10)
        await store.append(lease, 1, [Record(b"b")])
        after = await known(store)
    assert after.created_at == before.created_at
    assert after.updated_at == pytest.approx(before.updated_at + 11)


def test_a_store_needs_trio() -> None:
    store = MemoryStore()
    with pytest.raises(RuntimeError, match=r"needs Trio.*trio\.run\(main\)"):
        store.__aenter__().send(None)
