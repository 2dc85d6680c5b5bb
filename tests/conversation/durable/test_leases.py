"""A durable conversation has one owner at a time, who can save nothing after the loss of it."""

from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.conversation.durable.rig import (
    FaultyStore,
    Killed,
    ProcessStore,
    open_owner,
    record_types,
    unavailable,
)
from tests.conversation.rig import message_texts
from tests.conversation.runs.rig import DONE, WEATHER
from trio_responses import FunctionTool, function_tool
from trio_responses.stores import ConversationBusy, LeaseLost, MemoryStore, StoreUnavailable
from trio_responses.testing import ResponsesServer


async def test_a_second_owner_is_refused_or_waits(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store) as first:
            token = first.fencing_token
            with pytest.raises(ConversationBusy) as caught:
                async with open_owner(server, store):
                    pass
            assert 0 < caught.value.seconds_left <= 30
            begun = trio.current_time()
            with pytest.raises(ConversationBusy):
                async with open_owner(server, store, wait=100):
                    pass
            assert trio.current_time() - begun == pytest.approx(100, abs=2)
            await first.create("one")
        async with open_owner(server, store) as second:
            assert token is not None
            assert second.fencing_token is not None
            assert second.fencing_token > token


async def test_a_waiting_owner_gets_the_conversation_when_the_first_leaves(
    server: ResponsesServer,
) -> None:
    order: list[str] = []

    async def own(name: str) -> None:
        async with open_owner(server, store, wait=float("inf")) as conversation:
            order.append(name)
            await conversation.create(name)
            await trio.sleep(60)

    async with MemoryStore() as store:
        async with trio.open_nursery() as nursery:
            for name in "abc":
                nursery.start_soon(own, name)
        async with open_owner(server, store) as conversation:
            assert message_texts(conversation)[::2] == order
    assert sorted(order) == ["a", "b", "c"]


async def test_a_lease_is_renewed_as_long_as_the_block_lasts(server: ResponsesServer) -> None:
    async with FaultyStore() as store, open_owner(server, store, lease_seconds=9) as conversation:
        await trio.sleep(1000)
        with pytest.raises(ConversationBusy) as caught:
            await store.acquire("work", "other", seconds=1)
        assert 5 < caught.value.seconds_left <= 9
        await conversation.create("one")


async def test_a_killed_owner_is_followed_when_its_lease_has_ended(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store:
        begun = trio.current_time()
        with pytest.raises(Killed):
            async with open_owner(server, ProcessStore(store, 3), lease_seconds=20) as first:
                await first.create("one")
        async with open_owner(server, store, wait=100) as second:
            assert 19 < trio.current_time() - begun < 22
            await second.create("two")


async def hold(server: ResponsesServer, store: FaultyStore, caught: list[LeaseLost]) -> None:
    """Own the conversation until the lease is lost."""
    try:
        async with open_owner(server, store, lease_seconds=12):
            await trio.sleep_forever()
    except LeaseLost as error:
        caught.append(error)


async def test_the_block_is_cancelled_when_another_owner_took_over(
    server: ResponsesServer,
) -> None:
    caught: list[LeaseLost] = []
    async with FaultyStore() as store, trio.open_nursery() as nursery:
        nursery.start_soon(hold, server, store, caught)
        await trio.sleep(1)

        async def pause() -> None:
            await trio.sleep(14)

        store.before["renew"] = pause
        async with open_owner(server, store, wait=20, lease_seconds=60) as second:
            del store.before["renew"]
            await trio.sleep(10)
            [error] = caught
            assert "another owner took over" in str(error)
            assert error.conversation_id == "work"
            await second.create("one")


async def test_the_block_is_cancelled_when_the_store_is_away_for_the_length_of_the_lease(
    server: ResponsesServer,
) -> None:
    caught: list[LeaseLost] = []
    async with FaultyStore() as store, trio.open_nursery() as nursery:
        store.before["renew"] = unavailable
        begun = trio.current_time()
        await hold(server, store, caught)
        assert 12 <= trio.current_time() - begun < 14
        assert "did not answer for 12 s" in str(caught[0])
        nursery.cancel_scope.cancel()


async def test_a_renewal_that_fails_for_a_while_is_tried_again(server: ResponsesServer) -> None:
    async with FaultyStore() as store, open_owner(server, store, lease_seconds=12) as conversation:
        for _ in range(5):
            store.before["renew"] = unavailable
            await trio.sleep(6)
            del store.before["renew"]
            await trio.sleep(6)
        await conversation.create("one")


async def run_and_delete(
    server: ResponsesServer, store: MemoryStore, tool: FunctionTool[..., Any]
) -> None:
    """Delete the conversation when a turn has ended whose calls have not been started."""
    async with (
        open_owner(server, store, tools=[tool]) as conversation,
        conversation.run_stream("Oslo?") as run,
    ):
        async for event in run:
            if event.type == "response.completed":
                await store.delete("work")


async def test_who_lost_the_lease_can_neither_save_nor_start_a_call(
    server: ResponsesServer,
) -> None:
    started: list[str] = []

    @function_tool
    async def weather(city: str) -> str:
        started.append(city)
        return city

    server.answer([WEATHER])
    server.answer(DONE)
    async with FaultyStore() as store:
        with pytest.raises(LeaseLost, match="was deleted"):
            await run_and_delete(server, store, weather)
        assert started == []
        assert await store.list() == []
    assert len(server.requests) == 1


async def swallow(server: ResponsesServer, store: MemoryStore) -> None:
    async with open_owner(server, store) as conversation:
        await store.delete("work")
        with pytest.raises(LeaseLost):
            await conversation.create("one")
        with pytest.raises(trio.Cancelled):
            await trio.lowlevel.checkpoint()


async def test_a_lost_lease_ends_a_block_that_swallows_the_error(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        with pytest.raises(LeaseLost):
            await swallow(server, store)
        assert await store.list() == []


async def test_the_lease_of_a_fork_is_kept_and_released(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, lease_seconds=9) as conversation:
            fork = await conversation.fork("fork")
            await trio.sleep(100)
            await fork.create("one")
            with pytest.raises(ConversationBusy):
                await store.acquire("fork", "other", seconds=1)
        for stored in await store.list():
            assert stored.leased_until is None


async def lose_fork(server: ResponsesServer, store: MemoryStore) -> None:
    async with open_owner(server, store) as conversation:
        fork = await conversation.fork("fork")
        await store.delete("fork")
        await fork.create("one")


async def test_the_loss_of_a_fork_ends_the_block(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        with pytest.raises(LeaseLost, match="'fork'"):
            await lose_fork(server, store)


async def test_a_cancelled_opening_leaves_no_lease(server: ResponsesServer) -> None:
    async def hang() -> None:
        await trio.sleep_forever()

    for place in ("before", "after"):
        for operation in ("acquire", "get", "append"):
            async with FaultyStore() as store:
                hooks = {"before": store.before, "after": store.after}[place]
                hooks[operation] = hang
                with trio.move_on_after(5) as scope:
                    async with open_owner(server, store):
                        pytest.fail("the store hangs")
                assert scope.cancelled_caught
                del hooks[operation]
                await store.acquire("work", "other", seconds=1)


async def test_a_store_that_is_away_when_it_is_opened_raises_its_error(
    server: ResponsesServer,
) -> None:
    async with FaultyStore() as store:
        store.before["acquire"] = unavailable
        with pytest.raises(StoreUnavailable):
            async with open_owner(server, store):
                pass
        del store.before["acquire"]
        async with open_owner(server, store):
            pass
        assert await record_types(store) == ["base"]
