"""Mistakes and odd stores: each gets one clear error, and leaves nothing behind."""

from typing import Any

import msgspec
import pytest
import trio

from tests.conversation.durable.rig import FaultyStore, open_owner, record_types
from tests.conversation.rig import deltas, message_texts, open_steady, reserve_all_lanes
from tests.conversation.runs.rig import DONE, WEATHER, outputs
from trio_responses import (
    ConfigurationError,
    MaxRoundsExceeded,
    ReplayPolicy,
    ToolContext,
    function_tool,
)
from trio_responses.stores import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    MemoryStore,
    Record,
    RequestSuperseded,
    StoreError,
    StoreUnavailable,
)
from trio_responses.testing import ResponsesServer


@function_tool
async def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


# --- Stores that cannot be used ----------------------------------------------------------


@pytest.mark.parametrize("backend", [None, "chats.db", MemoryStore])
async def test_a_value_that_is_no_store_is_refused(server: ResponsesServer, backend: Any) -> None:
    with pytest.raises(ConfigurationError, match="store must be"):
        async with open_owner(server, backend):
            pass


async def test_a_store_is_used_inside_its_block(server: ResponsesServer) -> None:
    store = MemoryStore()
    with pytest.raises(RuntimeError, match="inside its block") as caught:
        async with open_owner(server, store):
            pass
    assert caught.value.__context__ is None
    async with store:
        pass
    with pytest.raises(RuntimeError, match="inside its block"):
        async with open_owner(server, store):
            pass


ODD = [ValueError("odd"), ExceptionGroup("odd", [ValueError("one"), ValueError("two")])]
OPERATIONS = ["acquire", "get", "read", "append", "renew", "release", "find"]


def fail_with(error: BaseException) -> Any:
    async def fail() -> None:
        await trio.lowlevel.checkpoint()
        raise error

    return fail


async def use(server: ResponsesServer, store: FaultyStore, operation: str, fail: Any) -> None:
    """Open a conversation whose store has a bug, once it is open if it can be opened."""
    if operation in {"acquire", "get", "read"}:
        store.before[operation] = fail
    async with open_owner(server, store, lease_seconds=9) as conversation:
        store.before[operation] = fail
        await conversation.create("two", request_id="two")
        await trio.sleep(100)


@pytest.mark.parametrize("error", ODD)
@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_odd_exception_of_a_store_is_raised_as_it_is(
    server: ResponsesServer, operation: str, error: Exception
) -> None:
    async with FaultyStore() as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
        with pytest.raises(type(error)) as caught:
            await use(server, store, operation, fail_with(error))
        assert str(caught.value) == str(error)  # Trio copies groups


@pytest.mark.parametrize("error", ODD)
@pytest.mark.parametrize("operation", ["append", "renew", "release"])
async def test_the_exception_of_the_block_wins_over_that_of_the_store(
    server: ResponsesServer, operation: str, error: Exception
) -> None:
    async def fail(kind: type[BaseException]) -> None:
        async with open_owner(server, store, lease_seconds=9) as conversation:
            conversation.replay_policy = ReplayPolicy(max_items=len(str(kind)))
            store.before[operation] = fail_with(error)
            raise kind

    for kind in ZeroDivisionError, KeyboardInterrupt:
        async with FaultyStore() as store:
            with pytest.raises(kind):
                await fail(kind)


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_cancellation_wins_over_an_odd_exception(
    server: ResponsesServer, operation: str
) -> None:
    """Also while the store is asked for something, and while it is closed."""

    async def fail() -> None:
        try:
            await trio.sleep_forever()
        finally:
            store.before.pop(operation, None)
            for other in OPERATIONS:
                store.before[other] = fail_with(ValueError("odd"))

    async with FaultyStore() as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
        store.before[operation] = fail
        with trio.move_on_after(100) as scope:
            async with open_owner(server, store, lease_seconds=9) as conversation:
                await conversation.create("two", request_id="two")
                await trio.sleep_forever()
        if operation != "release":
            assert scope.cancelled_caught


async def close_backend(server: ResponsesServer, store: MemoryStore) -> None:
    async with open_owner(server, store, lease_seconds=9) as conversation:
        await store.__aexit__(None, None, None)
        conversation.replay_policy = ReplayPolicy(images="omit")
        await trio.sleep(100)


async def test_a_store_that_is_closed_during_the_block_raises_one_error(
    server: ResponsesServer,
) -> None:
    store = MemoryStore()
    await store.__aenter__()
    with pytest.raises(RuntimeError, match="inside its block"):
        await close_backend(server, store)


async def test_closing_with_forks_is_bounded_when_the_store_hangs(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        begun = trio.current_time()
        with pytest.raises(StoreUnavailable):
            await hang_at_the_end(server, store)
        assert trio.current_time() - begun <= 41


async def hang_at_the_end(server: ResponsesServer, store: FaultyStore) -> None:
    async def hang() -> None:
        await trio.sleep_forever()

    async with open_owner(server, store, lease_seconds=20) as conversation:
        forks = [await conversation.fork(f"fork-{number}") for number in range(10)]
        for fork in forks:
            fork.replay_policy = ReplayPolicy(images="omit")
        store.before["append"] = store.before["release"] = hang
        store.before["renew"] = trio.lowlevel.checkpoint


async def test_the_others_are_saved_when_one_cannot_be(server: ResponsesServer) -> None:
    async def fail(store: MemoryStore) -> None:
        async with open_owner(server, store) as conversation:
            fork = await conversation.fork("fork")
            with pytest.raises(ConversationTooLarge):
                await conversation.create("x" * 5000)
            fork.replay_policy = ReplayPolicy(images="omit")

    async with MemoryStore(max_record_bytes=5000) as store:
        with pytest.raises(ConversationTooLarge):
            await fail(store)
        assert await record_types(store, "fork") == ["base", "settings"]


# --- Forks -------------------------------------------------------------------------------


async def test_a_refused_fork_leaves_nothing_behind(server: ResponsesServer) -> None:
    async with (
        FaultyStore() as store,
        open_steady(server) as connection,
    ):
        async with connection.durable_conversation(store, "taken", model="m"):
            pass
        async with connection.durable_conversation(store, "work", model="m") as conversation:
            for _ in range(40):  # more than there are lanes
                with pytest.raises(ConfigurationError, match="'taken' already"):
                    await conversation.fork("taken")
                with pytest.raises(ConversationBusy):
                    await conversation.fork("work")
            await trio.sleep(100)  # the lease of 'taken' is not renewed, and not missed
            await conversation.create("one")
            lease = await store.acquire("taken", "other", seconds=1)
            await store.release(lease)
        await reserve_all_lanes(connection)


async def test_a_fork_that_could_not_be_saved_can_be_made_again(server: ResponsesServer) -> None:
    async with FaultyStore() as store, open_owner(server, store) as conversation:
        await conversation.create("one")
        for operation in "acquire", "get", "append":
            store.before[operation] = fail_with(StoreUnavailable(operation, 10))
            with pytest.raises(StoreUnavailable):
                await conversation.fork("fork")
            del store.before[operation]
        store.before["append"] = trio.sleep_forever
        with trio.move_on_after(5) as scope:
            await conversation.fork("fork")
        assert scope.cancelled_caught
        del store.before["append"]
        await conversation.fork("fork")


async def lose_new_fork(server: ResponsesServer, store: FaultyStore) -> None:
    async def delete() -> None:
        del store.before["append"]
        await store.delete("fork")

    async with open_owner(server, store) as conversation:
        store.before["append"] = delete
        with pytest.raises(LeaseLost):
            await conversation.fork("fork")
        await trio.sleep_forever()


async def test_a_fork_that_is_lost_at_once_ends_the_block(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        with pytest.raises(LeaseLost, match="'fork'"):
            await lose_new_fork(server, store)


async def test_forks_of_forks_are_conversations_too(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
            second = await conversation.fork("second")
            third = await second.fork("third")
            await third.create("three", request_id="job")
        async with open_owner(server, store, "third") as again:
            assert message_texts(again)[::2] == ["one", "three"]
            await again.create("three", request_id="job")
    assert len(server.requests) == 2


async def test_a_tool_can_fork_its_conversation(server: ResponsesServer) -> None:
    @function_tool
    async def explore(context: ToolContext) -> str:
        fork = await context.conversation.fork("fork")
        return (await fork.create("Aside")).output_text

    server.answer([WEATHER.__class__("explore", {}, call_id="call_1")])
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=[explore]) as conversation:
            await conversation.run("Go")
        async with open_owner(server, store, "fork", tools=[explore]) as fork:
            assert message_texts(fork)[:2] == ["Go", "Aside"]
        assert [stored.conversation_id for stored in await store.list()] == ["fork", "work"]


# --- What the next owner has -------------------------------------------------------------


async def test_the_full_input_after_another_policy_survives(server: ResponsesServer) -> None:
    """The server holds what the new policy leaves out, so the next turn is no delta."""
    async with MemoryStore() as store:
        async with open_owner(server, store, store=True) as conversation:
            response = await conversation.create("one")
            conversation.replay_policy = ReplayPolicy(images="omit")
        async with open_owner(server, store, store=True) as again:
            assert again.last_response_id == response.id
            await again.create("two")
            await again.create("three")
    assert deltas(server) == [False, False, True]


async def test_a_fork_and_a_checkpoint_keep_the_full_input_after_another_policy(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store, open_steady(server) as connection:
        async with connection.durable_conversation(
            store, "work", model="m", store=True
        ) as conversation:
            await conversation.create("one")
            conversation.replay_policy = ReplayPolicy(images="omit")
            await conversation.fork("fork")
            saved = conversation.checkpoint()
        async with connection.durable_conversation(store, "fork") as fork:
            assert fork.last_response_id == conversation.last_response_id
            await fork.create("two")
        async with connection.restore_conversation(saved) as plain:
            await plain.create("two")
            await plain.create("three")
    assert deltas(server) == [False, False, False, True]


async def test_other_settings_are_sent_with_full_input(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, store=True) as conversation:
            await conversation.create("one")
        async with open_owner(server, store, store=True, instructions="Be brief."):
            pass
        async with open_owner(server, store, store=True) as again:
            await again.create("two")
    assert deltas(server) == [False, False]


async def interrupt(server: ResponsesServer, store: MemoryStore) -> bytes:
    """Leave an unfinished request, whose turn is saved, and return a newer checkpoint."""
    server.answer([WEATHER])
    async with open_owner(server, store, tools=[weather]) as conversation:
        with pytest.raises(MaxRoundsExceeded):
            await conversation.run("Oslo?", request_id="a", max_rounds=1)
        saved = conversation.checkpoint()
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as plain,
    ):
        await plain.create("two")
        return plain.checkpoint()


async def test_a_newer_checkpoint_settles_an_unfinished_request(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        newer = await interrupt(server, store)
        async with open_owner(server, store, checkpoint=newer) as conversation:
            with pytest.raises(RequestSuperseded):
                await conversation.run("Oslo?", request_id="a")
        async with open_owner(server, store) as conversation:
            with pytest.raises(RequestSuperseded):
                await conversation.run("Oslo?", request_id="a")
            assert message_texts(conversation)[:2] == ["Oslo?", "two"]


async def test_an_unfinished_request_is_settled_when_a_record_was_too_large(
    server: ResponsesServer,
) -> None:
    async with MemoryStore(max_record_bytes=5000) as store:
        server.answer([WEATHER])
        server.answer(DONE)
        async with open_owner(server, store, tools=[weather]) as conversation:
            with pytest.raises(MaxRoundsExceeded):
                await conversation.run("Oslo?", request_id="a", max_rounds=1)
            with pytest.raises(ConversationTooLarge):
                await conversation.create("x" * 6000)
            await conversation.replace_history(conversation.raw_items[:2])
            with pytest.raises(RequestSuperseded):
                await conversation.run("Oslo?", request_id="a")


@pytest.mark.parametrize("place", ["before", "after"])
@pytest.mark.parametrize("operation", ["release", "acquire", "get", "append"])
@pytest.mark.parametrize("cancel", [False, True])
async def test_a_new_lease_after_a_refusal_can_be_interrupted(
    server: ResponsesServer, operation: str, place: str, *, cancel: bool
) -> None:
    async with FaultyStore(max_record_bytes=5000) as store:
        async with open_owner(server, store, lease_seconds=9) as conversation:
            await conversation.create("one")
            with pytest.raises(ConversationTooLarge):
                await conversation.create("x" * 6000)
            hooks = {"before": store.before, "after": store.after}[place]
            hooks[operation] = (
                trio.sleep_forever if cancel else fail_with(StoreUnavailable(operation, 10))
            )
            with trio.move_on_after(1) as scope:
                with pytest.raises((StoreUnavailable, trio.Cancelled)) as caught:
                    await conversation.replace_history(conversation.raw_items[:2])
                if isinstance(caught.value, trio.Cancelled):
                    raise caught.value
            assert scope.cancelled_caught is cancel
            del hooks[operation]
            await trio.sleep(30)
            await conversation.create("two")
        async with open_owner(server, store) as again:
            assert message_texts(again)[::2] == ["one", "two"]


async def test_a_new_lease_that_was_not_confirmed_is_released(server: ResponsesServer) -> None:
    async def fail(store: FaultyStore) -> None:
        async with open_owner(server, store) as conversation:
            with pytest.raises(ConversationTooLarge):
                await conversation.create("x" * 6000)
            store.after["acquire"] = fail_with(StoreUnavailable("acquire", 10))
            with pytest.raises(StoreUnavailable):
                await conversation.replace_history([])
            store.after.clear()
            raise ZeroDivisionError

    async with FaultyStore(max_record_bytes=5000) as store:
        with pytest.raises(ZeroDivisionError):
            await fail(store)
        async with open_owner(server, store):
            pass


async def test_a_turn_with_a_damaged_reference_is_refused(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store):
            pass
        lease = await store.acquire("work", "me", seconds=30)
        data = b'{"type":"turn","input":[null],"output":[],"response":{},"origin":["m",true,null]}'
        await store.append(lease, 1, [Record(data)])
        await store.release(lease)
        with pytest.raises(StoreError, match="damaged"):
            async with open_owner(server, store):
                pass


# --- Blocks ------------------------------------------------------------------------------


async def test_the_exception_of_the_block_wins_over_a_lost_lease(server: ResponsesServer) -> None:
    async def fail(store: MemoryStore) -> None:
        async with open_owner(server, store, lease_seconds=9) as conversation:
            await store.delete("work")
            with pytest.raises(LeaseLost):
                await conversation.create("one")
            raise ZeroDivisionError

    async with MemoryStore() as store:
        with pytest.raises(ZeroDivisionError):
            await fail(store)


async def test_an_outer_cancellation_wins_over_a_lost_lease(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        with trio.CancelScope() as scope:
            async with open_owner(server, store) as conversation:
                await store.delete("work")
                with pytest.raises(LeaseLost):
                    await conversation.create("one")
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert scope.cancelled_caught


async def test_a_conversation_is_opened_once_in_a_task(server: ResponsesServer) -> None:
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        with pytest.raises(ConversationBusy):
            async with open_owner(server, store, wait=7):
                pass
        await conversation.create("one")


async def test_a_checkpoint_of_a_plain_conversation_with_tools_is_continued(
    server: ResponsesServer,
) -> None:
    server.answer([WEATHER])
    server.answer(DONE)
    async with open_steady(server) as connection:
        async with connection.conversation(model="m", tools=[weather]) as plain:
            with pytest.raises(MaxRoundsExceeded):
                await plain.run("Oslo?", max_rounds=1)
            saved = plain.checkpoint()
        async with (
            MemoryStore() as store,
            connection.durable_conversation(
                store, "work", checkpoint=saved, tools=[weather]
            ) as conversation,
        ):
            assert (await conversation.run()).output_text == DONE
            assert outputs(server.requests[-1]) == ["sunny in Oslo"]
            assert msgspec.json.decode(conversation.checkpoint())["conversation_id"] == "work"


@pytest.mark.parametrize("seconds", [1e12, 1e300])
async def test_huge_leases_and_waits(server: ResponsesServer, seconds: float) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, lease_seconds=seconds, wait=seconds) as conversation:
            await conversation.create("one")
        async with open_owner(server, store) as again:
            assert message_texts(again)[0] == "one"
