"""A durable conversation that is cancelled at any step of any task is left as its store says."""

from typing import Any

import pytest
import trio
import trio.lowlevel

from tests.conversation.durable.rig import Canceller, FaultyStore
from tests.conversation.rig import message_texts, open_steady
from tests.conversation.runs.rig import DONE, WEATHER
from trio_responses import Conversation, ReplayPolicy, ResponsesConnection, function_tool
from trio_responses.stores import MemoryStore
from trio_responses.testing import ResponsesServer

STRIDE = 5
"""Every step was tried once; the steps of the server are among them, so a part is enough."""

started: list[str] = []


@function_tool
async def weather(city: str) -> str:
    """Return the weather."""
    started.append(city)
    await trio.sleep(1)
    return f"sunny in {city}"


async def create_old(conversation: Conversation) -> None:
    await conversation.create("old")


async def create(conversation: Conversation) -> None:
    await conversation.create("new", request_id="new")


async def run(conversation: Conversation) -> None:
    await conversation.run("new", request_id="new")


async def fork(conversation: Conversation) -> None:
    await conversation.fork("fork")


async def replace(conversation: Conversation) -> None:
    await conversation.replace_history(conversation.raw_items[:1])


async def close(conversation: Conversation) -> None:
    conversation.replay_policy = ReplayPolicy(images="omit")


ACTIONS = [create, run, fork, replace, close]


async def act(connection: ResponsesConnection, store: MemoryStore, action: Any) -> None:
    async with connection.durable_conversation(
        store, "work", model="m", tools=[weather]
    ) as conversation:
        await action(conversation)


@pytest.mark.parametrize("action", ACTIONS)
async def test_a_cancellation_at_any_step_loses_nothing(
    server: ResponsesServer, action: Any
) -> None:
    canceller = Canceller()
    trio.lowlevel.add_instrument(canceller)
    steps = 0
    async with open_steady(server) as connection:
        await connection.create("warm", model="m")
        for steps in range(0, 1000, STRIDE):
            started.clear()
            server.clear_scripts()
            async with FaultyStore() as store:
                await act(connection, store, create_old)
                if action is run:
                    server.answer([WEATHER])
                    server.answer(DONE)
                begun = trio.current_time()
                with trio.CancelScope() as scope:
                    canceller.start(scope, steps)
                    await act(connection, store, action)
                finished = not canceller.has_cancelled
                canceller.start(scope, None)
                assert trio.current_time() - begun <= 5
                assert all(one.leased_until is None for one in await store.list())
                server.clear_scripts()
                await finish(connection, store, action)
            if finished:
                break
    assert 10 < steps < 990
    trio.lowlevel.remove_instrument(canceller)


async def finish(connection: ResponsesConnection, store: MemoryStore, action: Any) -> None:
    """Open the conversation again, and complete what was cancelled."""
    async with connection.durable_conversation(
        store, "work", model="m", tools=[weather]
    ) as conversation:
        assert message_texts(conversation)[0] == "old"
        policy = conversation.replay_policy
        if action is fork:
            if await store.get("fork") is None:
                await conversation.fork("fork")
        else:
            await action(conversation)
        if action in {create, run}:
            assert message_texts(conversation).count("new") == 1
            assert len(started) <= 1
        if action is close:
            assert policy in {ReplayPolicy(), ReplayPolicy(images="omit")}
        await conversation.create("last", temperature=0.5)
