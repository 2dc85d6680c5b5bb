"""A call that an earlier owner has started is not started again, unless the program says so."""

from typing import Any

import pytest

from tests.conversation.durable.rig import Killed, ProcessStore, open_owner, record_types
from tests.conversation.runs.rig import DONE, WEATHER, outputs, say_raw
from trio_responses import CallInterrupted, ConfigurationError, function_tool
from trio_responses.stores import MemoryStore
from trio_responses.testing import ResponsesServer
from trio_responses.types import FunctionCall, OutputItem

runs: list[str] = []


@function_tool
async def weather(city: str) -> str:
    """Return the weather."""
    runs.append(city)
    return f"sunny in {city}"


@pytest.fixture(autouse=True)
def no_runs() -> None:
    """Forget the runs of the test before."""
    runs.clear()


async def kill_in_call(
    server: ResponsesServer, store: MemoryStore, request_id: str | None = None
) -> None:
    """Run a turn with a call, and kill the process before the output is saved."""
    server.answer([WEATHER])
    # acquire, get, base, [find,] turn, start; the output is the call after them.
    process = ProcessStore(store, 5 if request_id is None else 6)
    with pytest.raises(Killed):
        async with open_owner(server, process, tools=[weather]) as conversation:
            await conversation.run("Oslo?", request_id=request_id)
    assert (await record_types(store))[-1] == "start"
    assert runs == ["Oslo"]
    server.answer(DONE)


@pytest.mark.parametrize("request_id", [None, "job"])
async def test_an_interrupted_call_is_reported_by_default(
    server: ResponsesServer, request_id: str | None
) -> None:
    async with MemoryStore() as store:
        await kill_in_call(server, store, request_id)
        async with open_owner(server, store, tools=[weather], wait=60) as conversation:
            text = "Oslo?" if request_id is not None else None
            response = await conversation.run(text, request_id=request_id)
            assert response.output_text == DONE
        [output] = outputs(server.requests[-1])
        assert "interrupted" in output
        assert runs == ["Oslo"]


async def test_an_interrupted_call_is_reported_to_a_plain_turn(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        await kill_in_call(server, store)
        async with open_owner(server, store, tools=[weather], wait=60) as conversation:
            await conversation.create("Well?")
        assert "interrupted" in outputs(server.requests[-1])[0]


async def test_an_interrupted_call_runs_again_if_the_program_says_so(
    server: ResponsesServer,
) -> None:
    async with MemoryStore() as store:
        await kill_in_call(server, store)
        async with open_owner(
            server, store, tools=[weather], wait=60, on_interrupted_call="rerun"
        ) as conversation:
            await conversation.run()
        assert outputs(server.requests[-1]) == ["sunny in Oslo"]
        assert runs == ["Oslo", "Oslo"]
        assert (await record_types(store))[2:] == ["start", "rerun", "start", "output", "turn"]


@pytest.mark.parametrize("decision", ["report", "rerun", "output"])
async def test_a_function_decides_about_each_interrupted_call(
    server: ResponsesServer, decision: str
) -> None:
    asked: list[OutputItem] = []

    async def decide(call: OutputItem) -> Any:
        asked.append(call)
        assert isinstance(call, FunctionCall)
        if decision != "output":
            return decision
        return {
            "type": "function_call_output",
            "call_id": call.call_id,
            "output": "from the ledger",
        }

    async with MemoryStore() as store:
        await kill_in_call(server, store)
        async with open_owner(
            server, store, tools=[weather], wait=60, on_interrupted_call=decide
        ) as conversation:
            await conversation.run()
        async with open_owner(server, store, on_interrupted_call=decide):
            pass
        [output] = outputs(server.requests[-1])
        expected = {"report": "interrupted", "rerun": "sunny", "output": "from the ledger"}
        assert expected[decision] in output
        assert len(runs) == 1 + (decision == "rerun")
    [call] = asked
    assert isinstance(call, FunctionCall)
    assert call.name == "weather"


async def test_a_function_that_returns_something_else_is_an_error(
    server: ResponsesServer,
) -> None:
    async def decide(call: OutputItem) -> Any:
        return {"type": "function_call_output", "call_id": "other", "output": str(call)}

    async with MemoryStore() as store:
        await kill_in_call(server, store)
        with pytest.raises(ConfigurationError, match="on_interrupted_call must return"):
            async with open_owner(server, store, wait=60, on_interrupted_call=decide):
                pass
        async with open_owner(server, store):
            pass


async def test_a_call_without_place_for_a_text_is_not_begun_again(
    narrow_server: ResponsesServer,
) -> None:
    clicks: list[object] = []

    async def click(call: object) -> dict[str, str]:
        clicks.append(call)
        raise Killed

    server = narrow_server
    item = {"type": "computer_call", "id": "cu_1", "call_id": "call_1", "status": "completed"}
    say_raw(server, {**item, "action": {"type": "screenshot"}, "pending_safety_checks": []})
    async with MemoryStore() as store:
        process = ProcessStore(store)
        with pytest.raises(Killed):
            async with open_owner(server, process, store=False) as conversation:
                await conversation.run("Go", handlers={"computer_call": click}, request_id="job")
        async with open_owner(server, store, store=False, wait=60) as conversation:
            for _ in range(2):
                with pytest.raises(CallInterrupted):
                    await conversation.run(
                        "Go", handlers={"computer_call": click}, request_id="job"
                    )
            assert len(clicks) == 1
