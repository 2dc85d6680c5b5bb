"""A durable conversation goes on in another process where it was left."""

from typing import Any

import msgspec
import pytest
import trio
import trio.testing

from tests.conversation.durable.rig import (
    FaultyStore,
    open_owner,
    record_types,
    unavailable,
)
from tests.conversation.rig import deltas, history, message_texts, open_steady
from tests.conversation.runs.rig import DONE, WEATHER, Worker, keep_calling, outputs
from tests.pool.rig import open_to
from trio_responses import (
    APIError,
    ConfigurationError,
    Conversation,
    ReplayPolicy,
    ToolContext,
    function_tool,
)
from trio_responses._conversation.stored_history import read_history
from trio_responses.stores import (
    ConversationBusy,
    ConversationTooLarge,
    MemoryStore,
    OutdatedCheckpoint,
    Record,
    StoreError,
    StoreUnavailable,
    UnsupportedVersion,
)
from trio_responses.testing import Call, Fail, ResponsesServer


@function_tool
async def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


async def test_the_next_owner_has_the_same_history(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, store=False) as first:
            await first.create("one")
            await first.create("two")
            before = history(first)
        async with open_owner(server, store, store=False) as second:
            assert history(second) == before
            assert second.revision == first.revision == 2
            await second.create("three")
        async with open_owner(server, store, store=False) as third:
            assert message_texts(third)[::2] == ["one", "two", "three"]
    assert deltas(server) == [False, True, False]


async def test_the_next_owner_continues_a_stored_response_with_a_delta(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, store=True) as first:
            response = await first.create("one")
        async with open_owner(server, store, store=True) as second:
            assert second.last_response_id == response.id
            await second.create("two")
        async with open_owner(server, store, store=True, instructions="Other.") as third:
            await third.create("three")
    assert deltas(server) == [False, True, False]


async def test_a_turn_is_saved_before_its_last_event_is_returned(server: ResponsesServer) -> None:
    async with (
        MemoryStore() as store,
        open_owner(server, store) as conversation,
        conversation.stream("one") as stream,
    ):
        async for event in stream:
            saved = ["base", "turn"] if event.type == "response.completed" else ["base"]
            assert await record_types(store) == saved


@pytest.mark.parametrize("first", [0, 1])
async def test_a_failed_save_loses_no_event_of_a_batch(server: ResponsesServer, first: int) -> None:
    """The next read saves the turn and returns the events, one by one or together."""
    server.reply(chunks=["one", "two", "three"])
    async with FaultyStore() as store, open_owner(server, store) as conversation:
        async with conversation.stream("hi") as stream:
            await trio.testing.wait_all_tasks_blocked()
            store.before["append"] = unavailable
            with pytest.raises(StoreUnavailable):
                await anext(stream.batches())
            store.before["append"] = trio.sleep_forever
            with trio.move_on_after(1):
                await anext(stream)
            assert await record_types(store) == ["base"]
            del store.before["append"]
            numbers = [getattr(await anext(stream), "sequence_number", None) for _ in range(first)]
            assert first == 0 or await record_types(store) == ["base", "turn"]
            async for batch in stream.batches():
                numbers += [getattr(event, "sequence_number", None) for event in batch]
        assert numbers == list(range(len(numbers)))
        assert len(numbers) > 10
        assert await record_types(store) == ["base", "turn"]


async def test_a_turn_that_fails_is_not_saved(server: ResponsesServer) -> None:
    server.answer(Fail("server_error"))
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        with pytest.raises(APIError):
            await conversation.create("one")
        assert await record_types(store) == ["base"]


async def test_a_save_writes_only_what_is_new(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        async with open_owner(server, store) as conversation:
            for number in range(50):
                await conversation.create(f"{number:02}" + "x" * 998)
            items = sum(len(bytes(raw)) for raw in conversation.raw_items)
        written = sum(map(len, store.appended))
    assert items > 50 * 2000
    assert written < 1.5 * items


async def test_the_output_of_a_call_is_written_once(server: ResponsesServer) -> None:
    @function_tool
    async def big() -> str:
        return "z" * 10_000

    server.answer([Call("big", {}, call_id="call_1")])
    server.answer(DONE)
    async with FaultyStore() as store:
        async with open_owner(server, store, tools=[big]) as conversation:
            await conversation.run("Go")
            before = history(conversation)
        assert sum(data.count(b"z" * 10_000) for data in store.appended) == 1
        async with open_owner(server, store, tools=[big]) as again:
            assert history(again) == before


async def test_starts_and_outputs_of_calls_are_saved_around_them(server: ResponsesServer) -> None:
    seen: list[list[str]] = []

    @function_tool
    async def weather(context: ToolContext, city: str) -> str:
        seen.append(await record_types(store))
        assert context.fencing_token == context.conversation.fencing_token
        assert context.fencing_token is not None
        return city

    server.answer([WEATHER])
    server.answer(DONE)
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=[weather]) as conversation:
            await conversation.run("Oslo?")
        assert seen == [["base", "turn", "start"]]
        assert await record_types(store) == ["base", "turn", "start", "output", "turn"]


async def test_settings_that_are_passed_win_over_saved_ones(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store, instructions="Be kind.", temperature=0.5):
            pass
        async with open_owner(server, store, instructions="Be brief.") as second:
            await second.create("one")
        async with (
            open_steady(server) as connection,
            connection.durable_conversation(store, "work") as third,
        ):
            await third.create("two")
    for request in server.requests:
        assert request["instructions"] == "Be brief."
        assert request["temperature"] == 0.5
        assert request["model"] == "m"


async def test_secrets_of_tools_are_not_stored(server: ResponsesServer) -> None:
    mcp: dict[str, Any] = {
        "type": "mcp",
        "server_label": "crm",
        "server_url": "https://crm.example/mcp",
        "authorization": "SECRET-1",
        "headers": {"X-Key": "SECRET-2"},
    }
    search = {
        "type": "function",
        "name": "search",
        "parameters": {"type": "object", "properties": {"headers": {"type": "object"}}},
    }
    async with FaultyStore() as store:
        async with open_owner(server, store, tools=[mcp, search]) as conversation:
            await conversation.create("one")
            await conversation.replace_history(conversation.raw_items)
            conversation.replay_policy = ReplayPolicy(images="omit")
        written = b"".join(store.appended)
        assert b"SECRET" not in written
        assert b'"properties":{"headers"' in written
        assert server.requests[0]["tools"][0]["authorization"] == "SECRET-1"


async def test_the_replay_policy_is_saved(server: ResponsesServer) -> None:
    policy = ReplayPolicy(max_items=10, images="omit")
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            conversation.replay_policy = policy
        async with open_owner(server, store) as conversation:
            assert conversation.replay_policy == policy


async def test_a_replaced_history_is_saved_and_removes_the_old_records(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
            await conversation.replace_history(conversation.raw_items[-1:])
            await conversation.create("two")
            before, revision = history(conversation), conversation.revision
        assert await record_types(store) == ["base", "turn"]
        async with open_owner(server, store) as again:
            assert history(again) == before
            assert again.revision == revision
            await again.clear_history()
        async with open_owner(server, store) as empty:
            assert history(empty) == []


async def test_a_fork_is_a_conversation_of_its_own(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
            with pytest.raises(ConfigurationError, match="an id of its own"):
                await conversation.fork()
            fork = await conversation.fork("other")
            assert (conversation.id, fork.id) == ("work", "other")
            await fork.create("b")
            await conversation.create("two")
            with pytest.raises(ConversationBusy):
                await fork.fork("work")
        async with open_owner(server, store, "other") as again:
            assert message_texts(again)[::2] == ["one", "b"]
            with pytest.raises(ConfigurationError, match="has a conversation 'work' already"):
                await again.fork("work")
        async with open_owner(server, store) as again:
            assert message_texts(again)[::2] == ["one", "two"]


async def test_the_fork_of_another_conversation_may_have_an_id(server: ResponsesServer) -> None:
    async with open_steady(server) as connection, connection.conversation(model="m") as first:
        fork = await first.fork("mine")
        assert fork.id == "mine"
        assert first.id not in {"", "mine"}
        assert fork.fencing_token is None
        with pytest.raises(ConfigurationError, match="durable_conversation"):
            await first.create("one", request_id="r")
        with pytest.raises(ConfigurationError, match="durable_conversation"):
            await first.run("one", request_id="r")


async def test_a_run_that_was_not_sent_goes_on_in_the_next_process(
    server: ResponsesServer,
) -> None:
    server.answer(Fail("server_error"))
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            with pytest.raises(APIError):
                await conversation.run("one")
        async with open_owner(server, store) as again:
            await again.run()
            assert message_texts(again)[0] == "one"
        async with open_owner(server, store) as third:
            await third.clear_history()
            with pytest.raises(ConfigurationError, match="needs an input"):
                await third.run()


async def test_the_store_may_be_away_for_a_while(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        async with open_owner(server, store) as conversation:
            store.before["append"] = unavailable
            async with conversation.stream("one") as stream:
                with pytest.raises(StoreUnavailable):
                    await stream.get_final_response()
                assert stream.response.status == "completed"
            with pytest.raises(StoreUnavailable):
                await conversation.create("two")
            assert len(server.requests) == 1
            del store.before["append"]
            await conversation.create("two")
            assert message_texts(conversation)[::2] == ["one", "two"]
        async with open_owner(server, store) as again:
            assert message_texts(again)[::2] == ["one", "two"]


async def test_a_save_whose_outcome_is_unknown_is_repeated_without_doubling(
    server: ResponsesServer,
) -> None:
    async with FaultyStore() as store:
        async with open_owner(server, store) as conversation:
            store.after["append"] = unavailable
            with pytest.raises(StoreUnavailable):
                await conversation.create("one")
            del store.after["append"]
            await conversation.create("two")
        assert await record_types(store) == ["base", "turn", "turn"]


async def test_what_was_not_saved_is_saved_at_the_end(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        with trio.CancelScope() as scope:
            async with open_owner(server, store) as conversation:
                store.before["append"] = unavailable
                with pytest.raises(StoreUnavailable):
                    await conversation.create("one")
                del store.before["append"]
                scope.cancel()
                await trio.lowlevel.checkpoint()
        assert await record_types(store) == ["base", "turn"]


async def fail_to_save(
    server: ResponsesServer, store: FaultyStore, error: Exception | None = None
) -> None:
    async with open_owner(server, store) as conversation:
        conversation.replay_policy = ReplayPolicy(images="omit")
        store.before["append"] = unavailable
        if error is not None:
            raise error


async def test_a_failure_to_save_at_the_end_is_raised(server: ResponsesServer) -> None:
    async with FaultyStore() as store:
        with pytest.raises(StoreUnavailable):
            await fail_to_save(server, store)
        del store.before["append"]
        with pytest.raises(ZeroDivisionError) as caught:
            await fail_to_save(server, store, ZeroDivisionError())
        assert "was not saved" in caught.value.__notes__[0]


async def fill(conversation: Conversation) -> None:
    while True:
        await conversation.create("y" * 1500)


async def test_a_conversation_that_is_too_large_goes_on_after_its_history_was_replaced(
    server: ResponsesServer,
) -> None:
    async with MemoryStore(max_record_bytes=5000, max_conversation_bytes=12_000) as store:
        async with open_owner(server, store) as conversation:
            await conversation.create("one")
            with pytest.raises(ConversationTooLarge, match="max_record_bytes"):
                await conversation.create("x" * 5000)
            with pytest.raises(ConversationTooLarge):
                await conversation.create("two")
            token = conversation.fencing_token
            await conversation.replace_history(conversation.raw_items[:2])
            assert token is not None
            assert conversation.fencing_token is not None
            assert conversation.fencing_token > token
            await conversation.create("three", request_id="three")
            for _ in range(3):
                with pytest.raises(ConversationTooLarge, match="max_conversation_bytes"):
                    await fill(conversation)
                await conversation.replace_history(conversation.raw_items[:4])
        async with open_owner(server, store) as again:
            assert message_texts(again)[::2] == ["one", "three"]
            await again.create("three", request_id="three")


async def test_a_checkpoint_begins_a_conversation_and_does_not_replace_a_newer_one(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store:
        async with open_steady(server) as connection, connection.conversation(model="m") as plain:
            await plain.create("one")
            first = plain.checkpoint()
        async with open_owner(server, store, checkpoint=first) as conversation:
            assert message_texts(conversation)[0] == "one"
            older = conversation.checkpoint()
            await conversation.create("two")
            newer = conversation.checkpoint()
        assert msgspec.json.decode(newer)["conversation_id"] == "work"
        assert msgspec.json.decode(newer)["revision"] == 2
        with pytest.raises(OutdatedCheckpoint, match="revision 1, and the store has revision 2"):
            async with open_owner(server, store, checkpoint=older):
                pass
        with pytest.raises(OutdatedCheckpoint, match="another conversation"):
            async with open_owner(server, store, checkpoint=first):
                pass
        async with open_owner(server, store, checkpoint=newer) as conversation:
            assert message_texts(conversation)[::2] == ["one", "two"]
        async with (
            open_steady(server) as connection,
            connection.restore_conversation(newer) as plain,
        ):
            assert plain.id == "work"
            await plain.create("three")
            newest = plain.checkpoint()
        async with open_owner(server, store, checkpoint=newest) as conversation:
            assert message_texts(conversation)[::2] == ["one", "two", "three"]


@pytest.mark.parametrize(
    ("data", "kind", "words"),
    [
        (b'{"type":"turn","version":2}', UnsupportedVersion, "a later release wrote"),
        (b'{"type":"vote"}', UnsupportedVersion, "a later release wrote"),
        (b'{"type":"base","version":1,"checkpoint":{"version":9}}', StoreError, "damaged"),
        (b'{"type":"turn"}', StoreError, "damaged"),
        (b"{", StoreError, "damaged"),
        (
            b'{"type":"turn","input":[7],"output":[],"response":{},"origin":["m",true,null]}',
            StoreError,
            "damaged",
        ),
    ],
)
async def test_records_that_cannot_be_read_are_refused(
    server: ResponsesServer, data: bytes, kind: type[StoreError], words: str
) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store):
            pass
        lease = await store.acquire("work", "me", seconds=30)
        await store.append(lease, 1, [Record(data)])
        await store.release(lease)
        with pytest.raises(kind, match=words):
            async with open_owner(server, store):
                pass
        await store.acquire("work", "me", seconds=30)  # the lease was released


async def test_a_pool_has_durable_conversations(server: ResponsesServer) -> None:
    server.answer([WEATHER])
    server.answer(DONE)
    async with MemoryStore() as store, open_to(server) as pool:
        async with pool.durable_conversation(store, "a", model="m", tools=[weather]) as first:
            await first.run("Oslo?", request_id="job")
        async with pool.durable_conversation(store, "a", model="m", tools=[weather]) as second:
            assert (await second.run("Oslo?", request_id="job")).output_text == DONE
            assert outputs(server.requests[1]) == ["sunny in Oslo"]
    assert len(server.requests) == 2


async def test_other_tasks_run_while_a_long_conversation_is_opened(server: ResponsesServer) -> None:
    passes = 0

    async def count_passes() -> None:
        nonlocal passes
        while True:
            await trio.lowlevel.checkpoint()
            passes += 1

    async def count_while_reading(store: MemoryStore) -> int:
        before = passes
        await read_history(store, "work")
        return passes - before

    async with MemoryStore() as store, trio.open_nursery() as nursery:
        async with open_owner(server, store) as conversation:
            await conversation.create("Hello")
        nursery.start_soon(count_passes)
        short = await count_while_reading(store)
        _, turn = await store.read("work", 0)
        lease = await store.acquire("work", "me", seconds=30)
        await store.append(lease, 2, [turn] * 1000)
        assert await count_while_reading(store) >= short + 5
        nursery.cancel_scope.cancel()


async def test_rounds_of_many_calls_survive(server: ResponsesServer) -> None:
    worker = Worker()
    server.respond_with(keep_calling(3, 4))
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=[worker.tool], store=False) as conversation:
            await conversation.run("Go")
            before = history(conversation)
        async with open_owner(server, store, tools=[worker.tool], store=False) as again:
            assert history(again) == before
    assert set(worker.runs.values()) == {1}


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"wait": -1}, "wait"),
        ({"lease_seconds": 0}, "lease_seconds"),
        ({"lease_seconds": float("inf")}, "lease_seconds"),
        ({"on_interrupted_call": "ignore"}, "on_interrupted_call"),
        ({"checkpoint": b"{}"}, "not a checkpoint"),
    ],
)
async def test_invalid_options_are_refused(
    server: ResponsesServer, options: dict[str, Any], words: str
) -> None:
    async with MemoryStore() as store:
        with pytest.raises(ConfigurationError, match=words):
            async with open_owner(server, store, **options):
                pass
        assert await store.list() == []
