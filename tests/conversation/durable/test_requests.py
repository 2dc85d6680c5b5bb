"""A request with a `request_id` is answered once, however often it is repeated."""

from functools import partial

import pytest
import trio

from tests.conversation.durable.rig import FaultyStore, Killed, ProcessStore, open_owner, records
from tests.conversation.rig import message_texts
from tests.conversation.runs.rig import DONE, WEATHER, Worker, function_call, keep_calling, say_raw
from trio_responses import ConfigurationError, ParseMismatchError, UndecodableCall, function_tool
from trio_responses.stores import MemoryStore, RequestSuperseded
from trio_responses.testing import Fail, ResponsesServer


@function_tool
async def weather(city: str) -> str:
    """Return the weather."""
    return f"sunny in {city}"


async def test_an_ended_request_is_answered_from_the_store(server: ResponsesServer) -> None:
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            first = await conversation.create("one", request_id="a")
            again = await conversation.create("one", request_id="a")
            assert (again.id, again.status, again.model) == (first.id, first.status, first.model)
            assert again.usage == first.usage
            assert again.output == first.output
            assert again.output_text == first.output_text
            await conversation.create("two", request_id="b")
        async with open_owner(server, store) as conversation:
            third = await conversation.create("one", request_id="a")
            assert third.output_text == first.output_text
            assert (await conversation.run("two", request_id="b")).output_text
            assert message_texts(conversation)[::2] == ["one", "two"]
    assert len(server.requests) == 2


async def test_an_ended_request_is_known_after_the_history_was_replaced(
    server: ResponsesServer,
) -> None:
    server.answer([WEATHER])
    server.answer(DONE)
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=[weather]) as conversation:
            await conversation.run("Oslo?", request_id="a")
            await conversation.clear_history()
            await conversation.create("two", request_id="b")
        async with open_owner(server, store, tools=[weather]) as conversation:
            assert (await conversation.run("Oslo?", request_id="a")).output_text == DONE
            assert message_texts(conversation)[0] == "two"
    assert len(server.requests) == 3


async def test_a_request_id_is_used_with_one_input(server: ResponsesServer) -> None:
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        await conversation.create("one", request_id="a")
        with pytest.raises(ConfigurationError, match="another input"):
            await conversation.create("two", request_id="a")
        await conversation.create(
            [{"role": "user", "content": "one", "type": "message"}], request_id="a"
        )
    assert len(server.requests) == 1


@pytest.mark.parametrize("request_id", ["", "x" * 513, "a\0b", "\ud800"])
async def test_unsuitable_request_ids_are_refused(server: ResponsesServer, request_id: str) -> None:
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        with pytest.raises(ConfigurationError, match="request_id"):
            await conversation.create("one", request_id=request_id)
        with pytest.raises(ConfigurationError, match="request_id"):
            await conversation.run("one", request_id=request_id)
    assert not server.requests


async def test_a_failed_request_is_sent_again(server: ResponsesServer) -> None:
    server.answer(Fail("server_error"))
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        with pytest.raises(Exception, match="server_error"):
            await conversation.run("one", request_id="a")
        await conversation.run("one", request_id="a")
        await conversation.run("one", request_id="a")
        assert message_texts(conversation)[::2] == ["one"]
    assert len(server.requests) == 2


async def test_the_input_of_a_failed_request_is_sent_with_its_id_only(
    server: ResponsesServer,
) -> None:
    server.answer(Fail("server_error"))
    async with MemoryStore() as store:
        async with open_owner(server, store) as conversation:
            with pytest.raises(Exception, match="server_error"):
                await conversation.run("one", request_id="a")
            with pytest.raises(ConfigurationError, match="needs an input"):
                await conversation.run()
        async with open_owner(server, store) as again:
            with pytest.raises(ConfigurationError, match="needs an input"):
                await again.run()
            await again.run("one", request_id="a")
            assert message_texts(again)[::2] == ["one"]


async def test_two_tasks_with_the_same_request_send_it_once(server: ResponsesServer) -> None:
    answers: list[str] = []
    async with MemoryStore() as store, open_owner(server, store) as conversation:

        async def ask() -> None:
            answers.append((await conversation.run("one", request_id="a")).output_text)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask)
            nursery.start_soon(ask)
    assert len(set(answers)) == 1
    assert len(server.requests) == 1


async def test_parse_is_repeated_with_its_answer(server: ResponsesServer) -> None:
    server.answer('{"value": 3}')
    server.answer("no JSON")
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        for _ in range(2):
            parsed = await conversation.parse(dict[str, int], "one", request_id="a")
            assert parsed.parsed == {"value": 3}
            with pytest.raises(ParseMismatchError):
                await conversation.parse(dict[str, int], "two", request_id="b")
    assert len(server.requests) == 2


async def test_a_response_with_calls_for_the_program_is_answered_again(
    server: ResponsesServer,
) -> None:
    """The run ends after the calls that tools answer, with those that are left to the program."""
    mine = {"type": "function", "name": "mine", "parameters": {"type": "object"}}
    calls = [WEATHER, WEATHER.__class__("mine", {}, call_id="call_2")]
    server.answer(calls)
    async with MemoryStore() as store:
        for _ in range(2):
            async with open_owner(server, store, tools=[weather, mine]) as conversation:
                response = await conversation.run("Go", request_id="a")
                assert [call.call_id for call in response.function_calls] == ["call_1", "call_2"]
    assert len(server.requests) == 1


async def test_a_request_that_was_answered_after_an_interruption_has_ended(
    server: ResponsesServer,
) -> None:
    """The Response has a call of the program, and one that was interrupted."""
    mine = {"type": "function", "name": "mine", "parameters": {"type": "object"}}
    server.answer([WEATHER, WEATHER.__class__("mine", {}, call_id="call_2")])
    tools = [weather, mine]
    async with MemoryStore() as store:
        # acquire, get, base, find, turn, start; the output is the call after them.
        with pytest.raises(Killed):
            async with open_owner(server, ProcessStore(store, 6), tools=tools) as conversation:
                await conversation.run("Go", request_id="a")
        async with open_owner(server, store, tools=tools, wait=60) as conversation:
            first = await conversation.run("Go", request_id="a")
            await conversation.create("two")
            assert await conversation.run("Go", request_id="a") == first
    assert len(server.requests) == 2


async def test_an_undecodable_call_is_no_success_when_repeated(
    narrow_server: ResponsesServer,
) -> None:
    server = narrow_server
    say_raw(server, {"type": "function_call", "id": "fc_1", "arguments": "{}"})
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        for _ in range(2):
            with pytest.raises(UndecodableCall):
                await conversation.run("Go", request_id="a")
    assert len(server.requests) == 1


async def test_run_streams_are_repeated_without_events(server: ResponsesServer) -> None:
    async with MemoryStore() as store, open_owner(server, store) as conversation:
        async with conversation.run_stream("one", request_id="a") as run:
            first = [event.type async for event in run]
        async with conversation.run_stream("one", request_id="a") as run:
            assert [event.type async for event in run] == []
            assert run.response.output_text
    assert first


# --- Interrupted requests ----------------------------------------------------------------


async def run_until_killed(
    server: ResponsesServer, process: ProcessStore, worker: Worker, request_id: str = "a"
) -> bool:
    """Run a request in a process that may be killed; return whether it was."""
    try:
        async with open_owner(
            server, process, tools=[worker.tool], store=False, wait=60
        ) as conversation:
            response = await conversation.run("Go", request_id=request_id)
            assert response.output_text == DONE
    except* Killed:
        killed = True
    else:
        killed = False
    return killed


@pytest.mark.parametrize("after", [False, True])
async def test_a_request_survives_a_process_that_is_killed_at_any_call_of_the_store(
    server: ResponsesServer, *, after: bool
) -> None:
    rounds, at_once = 2, 2
    server.respond_with(keep_calling(rounds, at_once))
    for calls in range(60):
        worker = Worker()
        async with FaultyStore() as store:
            killed = await run_until_killed(server, ProcessStore(store, calls, after=after), worker)
            await run_until_killed(server, ProcessStore(store), worker)
            async with open_owner(server, store, tools=[worker.tool], store=False) as conversation:
                items = [dict(item.to_dict()) for item in conversation.items]
            assert [item["content"] for item in items if item.get("role") == "user"] == ["Go"]
            made = [item["call_id"] for item in items if item["type"] == "function_call"]
            answered = [item["call_id"] for item in items if item["type"] == "function_call_output"]
            assert sorted(made) == sorted(answered) == ["0-0", "0-1", "1-0", "1-1"]
            assert all(count == 1 for count in worker.runs.values())
            ran = {f"{number}-{call}" for number, call in worker.runs}
            reported = {
                item["call_id"] for item in items if "interrupted" in str(item.get("output"))
            }
            assert ran | reported == set(made)
            assert len(ran & reported) <= at_once  # those whose output was not saved
        if not killed:
            break
    else:
        pytest.fail("the process was killed at every call")
    assert calls > 10


async def test_another_request_ends_an_interrupted_one(server: ResponsesServer) -> None:
    entered = trio.Event()

    @function_tool
    async def hang() -> str:
        entered.set()
        await trio.sleep_forever()
        return ""

    @function_tool
    async def never() -> str:
        pytest.fail("the call was started")

    call = WEATHER.__class__
    server.answer([call("hang", {}, call_id="call_1"), call("never", {}, call_id="call_2")])
    server.answer(DONE)
    tools = [hang, never]
    async with MemoryStore() as store:
        async with (
            open_owner(server, store, tools=tools) as conversation,
            trio.open_nursery() as nursery,
        ):
            run = partial(conversation.run, "one", request_id="a", max_concurrency=1)
            nursery.start_soon(run)
            await entered.wait()
            nursery.cancel_scope.cancel()
        async with open_owner(server, store, tools=tools) as conversation:
            await conversation.run("two", request_id="b")
            for _ in range(2):
                with pytest.raises(RequestSuperseded, match="'a'"):
                    await conversation.run("one", request_id="a")
            outputs = [item for item in conversation.items if item.type == "function_call_output"]
            assert "was interrupted" in str(outputs[0].output)
            assert "was not run" in str(outputs[1].output)
            assert len(outputs) == 2
            assert message_texts(conversation) == ["one", "two", DONE]
        assert [record["type"] for record in await records(store)] == [
            "base",
            "turn",
            "start",
            "output",
            "settled",
            "turn",
        ]


async def test_a_failed_turn_of_another_request_does_not_end_an_interrupted_one(
    narrow_server: ResponsesServer,
) -> None:
    server = narrow_server
    say_raw(server, function_call("weather", '{"city": "Oslo"}'))
    server.answer(Fail("server_error"))
    server.answer(Fail("server_error"))
    server.answer(DONE)
    async with MemoryStore() as store, open_owner(server, store, tools=[weather]) as conversation:
        for request_id, text in [("a", "one"), ("b", "two")]:
            with pytest.raises(Exception, match="server_error"):
                await conversation.run(text, request_id=request_id)
        assert (await conversation.run("one", request_id="a")).output_text == DONE
        assert message_texts(conversation) == ["one", DONE]


async def test_a_run_without_input_continues_an_interrupted_request(
    narrow_server: ResponsesServer,
) -> None:
    server = narrow_server
    say_raw(server, function_call("weather", '{"city": "Oslo"}'))
    server.answer(Fail("server_error"))
    server.answer(DONE)
    async with MemoryStore() as store:
        async with open_owner(server, store, tools=[weather]) as conversation:
            with pytest.raises(Exception, match="server_error"):
                await conversation.run("one", request_id="a")
        async with open_owner(server, store, tools=[weather]) as conversation:
            assert (await conversation.run()).output_text == DONE
            assert (await conversation.run("one", request_id="a")).output_text == DONE
            assert message_texts(conversation) == ["one", DONE]
    assert len(server.requests) == 3


async def test_create_does_not_repeat_an_interrupted_run(narrow_server: ResponsesServer) -> None:
    server = narrow_server
    say_raw(server, function_call("weather", '{"city": "Oslo"}'))
    server.answer(Fail("server_error"))
    server.answer(DONE)
    async with MemoryStore() as store, open_owner(server, store, tools=[weather]) as conversation:
        with pytest.raises(Exception, match="server_error"):
            await conversation.run("one", request_id="a")
        with pytest.raises(ConfigurationError, match="repeat it with run"):
            await conversation.create("one", request_id="a")
        assert (await conversation.run("one", request_id="a")).output_text == DONE
        assert (await conversation.create("one", request_id="a")).output_text == DONE
