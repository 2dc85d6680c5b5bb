"""The calls of one response: side by side, bounded, in order; and what is left when they end."""

from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import history, open_steady, open_talk, user
from tests.runs.rig import (
    DONE,
    WEATHER,
    Worker,
    calls_of,
    function_call,
    is_paired,
    keep_calling,
    outputs,
    say_raw,
)
from tests.turn.rig import Crowd, ask, assert_at_rest, heard
from trio_responses import (
    ConfigurationError,
    ResponseFailedError,
    ToolFinished,
    ToolStarted,
    function_tool,
)
from trio_responses.testing import Call, ResponsesServer

if TYPE_CHECKING:
    from trio_responses._tools.toolbox import OnToolError

INTERRUPTED = "The call was interrupted: whether it had an effect is not known."
NOT_RUN = "The call was cut off by a limit, and not run."


class OutOfOrder(Exception):
    """What a tool of these tests raises."""


@function_tool
async def hang() -> str:
    await trio.sleep_forever()
    raise AssertionError


@function_tool
async def fail() -> str:
    await trio.sleep(1)
    raise OutOfOrder("the thermometer is broken")


@function_tool
async def weather(city: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"21 degrees in {city}"


# --- Side by side ------------------------------------------------------------------------


async def test_answers_stand_in_the_order_of_the_calls_and_not_of_their_ends(
    server: ResponsesServer,
) -> None:
    server.answer(calls_of(0, 5))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        async with talk.run_stream("Work.") as run:
            events = [event async for event in run]
        assert is_paired(history(talk))
    ended = [event.call for event in events if isinstance(event, ToolFinished)]
    assert [getattr(call, "call_id", None) for call in ended] == [f"0-{n}" for n in range(5)][::-1]
    assert outputs(server.requests[1]) == [f"0/{n}" for n in range(5)]


@pytest.mark.parametrize("limit", [1, 2, 7])
async def test_no_more_tools_than_allowed_run_at_once(server: ResponsesServer, limit: int) -> None:
    server.answer(calls_of(0, 7))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        started = finished = most = 0
        async with talk.run_stream("Work.", max_concurrency=limit) as run:
            async for event in run:
                started += isinstance(event, ToolStarted)
                finished += isinstance(event, ToolFinished)
                most = max(most, started - finished)
    assert worker.most == most == limit
    assert started == finished == len(worker.runs) == 7


async def test_calls_that_wait_for_their_turn_are_not_interrupted_but_run_later(
    server: ResponsesServer,
) -> None:
    """Cancelled behind a limit of one: one call was begun; the others can still be run."""
    server.answer(calls_of(0, 3))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        with trio.move_on_after(0.05):
            await talk.run("Work.", max_concurrency=1)
        assert worker.runs == {(0, 0): 1}
        await talk.run()
    assert outputs(server.requests[1]) == [INTERRUPTED, "0/1", "0/2"]
    assert worker.runs == {(0, n): 1 for n in range(3)}


@pytest.mark.parametrize(
    "wrong", [{"max_rounds": 0}, {"max_concurrency": 0}, {"max_concurrency": float("nan")}]
)
async def test_a_run_of_nothing_is_refused(server: ResponsesServer, wrong: dict[str, Any]) -> None:
    async with open_talk(server) as talk:
        with pytest.raises(ConfigurationError, match="at least 1"):
            await talk.run("Hello.", **wrong)
        with pytest.raises(ConfigurationError, match="same name"):
            await talk.run("Hello.", tools=[weather, weather])
        with pytest.raises(ConfigurationError, match="not a setting of a run"):
            await talk.run("Hello.", generate=False)
    assert server.requests == []


# --- Deadlines and cancelling ------------------------------------------------------------


async def test_each_call_has_a_deadline_of_its_own(server: ResponsesServer) -> None:
    """The tool's own goes before that of the run."""

    @function_tool(timeout=7)
    async def patient() -> str:
        await trio.sleep(6)
        return "here"

    server.answer([Call("hang", call_id="1"), Call("patient", call_id="2")])
    async with open_talk(server, tools=[hang, patient]) as talk:
        since = trio.current_time()
        await talk.run("Go.", tool_timeout=5)
        assert 6 <= trio.current_time() - since < 7
        server.answer([Call("patient", call_id="3")])
        await talk.run("Go.", tools=[hang, patient])
    assert outputs(server.requests[1]) == ["Error: the tool took too long", "here"]


async def test_a_tool_out_of_time_may_end_the_run(server: ResponsesServer) -> None:
    server.answer([Call("hang", call_id="1")])
    async with open_talk(server, tools=[hang]) as talk:
        with pytest.raises(trio.TooSlowError):
            await talk.run("Go.", tool_timeout=5, on_tool_error="raise")
        await talk.run()
    assert outputs(server.requests[1]) == ["Error: the tool took too long"]


@pytest.mark.parametrize("by", ["a deadline", "break", "an exception", "cancelling an event"])
async def test_a_tool_that_never_ends_is_cancelled_with_its_run(
    server: ResponsesServer, by: str
) -> None:
    """P1, P5: its lane is clean, nothing is held, and no task is left."""
    ended: list[str] = []

    @function_tool
    async def linger() -> str:
        try:
            await trio.sleep_forever()
        finally:
            ended.append("it")
        raise AssertionError

    server.answer([Call("linger", call_id="1")])
    async with open_steady(server) as connection, Crowd():
        async with connection.conversation(model="m", tools=[linger]) as talk:
            with trio.move_on_after(3):
                try:
                    async with talk.run_stream("Go.") as run:
                        if by == "cancelling an event":
                            with trio.move_on_after(2):
                                await run.until_done()
                            await trio.testing.wait_all_tasks_blocked()
                            assert ended == ["it"]
                        async for event in run:
                            if by != "a deadline" and isinstance(event, ToolStarted):
                                if by == "break":
                                    break
                                raise OutOfOrder
                except OutOfOrder:
                    assert by == "an exception"
            assert ended == ["it"]
            assert await ask(connection, "you?") == heard("you?")
            await talk.run("Go on.")
            assert is_paired(history(talk))
        assert_at_rest(connection)
    assert outputs(server.requests[-1]) == [INTERRUPTED]


async def test_a_run_cancelled_between_calls_and_outputs_keeps_what_was_answered(
    server: ResponsesServer,
) -> None:
    """The turn that carries the answers is cancelled: it has to carry them once more."""
    server.answer([WEATHER])
    server.stall()
    runs: list[str] = []

    @function_tool(name="weather")
    async def counting(city: str) -> str:
        await trio.lowlevel.checkpoint()
        runs.append(city)
        return "21"

    async with open_talk(server, tools=[counting]) as talk:
        with trio.move_on_after(10):
            await talk.run("Is it warm?")
        assert len(server.requests) == 2
        assert [item["type"] for item in history(talk)] == ["message", "function_call"]
        await talk.run("Well?")
        assert is_paired(history(talk))
    assert runs == ["Oslo"]
    assert [outputs(request)[-1:] for request in server.requests] == [[], ["21"], ["21"]]


# --- Errors ------------------------------------------------------------------------------


async def test_the_model_is_told_what_a_tool_raises(server: ResponsesServer) -> None:
    server.answer([Call("fail", call_id="1"), Call("weather", {"city": "Oslo"}, call_id="2")])
    async with open_talk(server, tools=[fail, weather]) as talk, talk.run_stream("Go.") as run:
        events = [event async for event in run]
    told = {event.name: event.error for event in events if isinstance(event, ToolFinished)}
    assert isinstance(told["fail"], OutOfOrder)
    assert told["weather"] is None
    assert outputs(server.requests[1]) == [
        "Error: OutOfOrder: the thermometer is broken",
        "21 degrees in Oslo",
    ]


async def test_a_tool_that_raises_ends_the_others_and_comes_out_as_it_is(
    server: ResponsesServer,
) -> None:
    """The next run says what became of each; none is run again."""
    called = [Call("weather", {"city": "Oslo"}), Call("fail"), Call("hang"), Call("fail")]
    calls = [Call(c.name, c.arguments, call_id=str(n)) for n, c in enumerate(called)]
    server.answer(calls)
    async with open_talk(server, tools=[fail, weather, hang]) as talk:
        with pytest.raises(OutOfOrder, match="thermometer"):
            await talk.run("Go.", on_tool_error="raise")
        assert len(server.requests) == 1
        await talk.run()
        assert is_paired(history(talk))
    first, failed, hung, other = outputs(server.requests[1])
    assert first == "21 degrees in Oslo"
    assert hung == INTERRUPTED
    told = "Error: OutOfOrder: the thermometer is broken"
    assert told in {failed, other} <= {told, INTERRUPTED}


async def test_the_others_end_at_once_however_slowly_the_run_is_read(
    server: ResponsesServer,
) -> None:
    ended: list[float] = []

    @function_tool
    async def linger() -> str:
        try:
            await trio.sleep_forever()
        finally:
            ended.append(trio.current_time())
        raise AssertionError

    server.answer([Call("fail", call_id="1"), Call("linger", call_id="2")])
    async with open_talk(server, tools=[fail, linger]) as talk:
        since = trio.current_time()

        async def read_slowly() -> None:
            async with talk.run_stream("Go.", on_tool_error="raise") as run:
                async for event in run:
                    if isinstance(event, ToolStarted):
                        await trio.sleep(100)

        with pytest.raises(OutOfOrder):
            await read_slowly()
        assert ended == [pytest.approx(since + 1)]


async def test_a_group_that_a_tool_raises_is_its_own(server: ResponsesServer) -> None:
    errors = [ValueError("1"), ValueError("2")]

    @function_tool
    async def fail_twice() -> str:
        await trio.lowlevel.checkpoint()
        raise ExceptionGroup("the tool's", errors)

    server.answer([Call("fail_twice", call_id="1")])
    async with open_talk(server, tools=[fail_twice]) as talk:
        with pytest.raises(ExceptionGroup) as raised:
            await talk.run("Go.", on_tool_error="raise")
    assert raised.value.message == "the tool's"
    assert list(raised.value.exceptions) == errors


@pytest.mark.parametrize("choice", ["return", "raise"])
async def test_arguments_that_do_not_fit_go_back_to_the_model(
    server: ResponsesServer, choice: "OnToolError"
) -> None:
    misspelt = Call("wether", call_id="2", unoffered=True)
    server.answer([Call("weather", {"town": "Oslo"}, call_id="1"), misspelt])
    async with open_talk(server, tools=[weather]) as talk:
        await talk.run("Go.", on_tool_error=choice)
    misfit, unknown = outputs(server.requests[1])
    assert misfit.startswith("Error: ")
    assert "town" in misfit
    assert unknown == "There is no tool named 'wether'."


async def test_an_error_that_json_cannot_say_is_told_all_the_same(server: ResponsesServer) -> None:
    """File names that are no text have lone surrogates in them."""

    @function_tool
    async def read() -> str:
        await trio.lowlevel.checkpoint()
        raise FileNotFoundError("caf\udce9.txt")

    @function_tool
    async def name() -> str:
        await trio.lowlevel.checkpoint()
        return "caf\udce9.txt"

    server.answer([Call("read", call_id="1"), Call("name", call_id="2")])
    async with open_talk(server, tools=[read, name]) as talk:
        await talk.run("Go.")
    told, returned = outputs(server.requests[1])
    assert told == "Error: FileNotFoundError: caf?.txt"
    assert "JSON cannot express" in returned


async def test_an_error_without_words_is_told_by_its_name(server: ResponsesServer) -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    @function_tool
    async def sulk() -> str:
        await trio.lowlevel.checkpoint()
        raise Mute

    server.answer([Call("sulk", call_id="1")])
    async with open_talk(server, tools=[sulk]) as talk:
        await talk.run("Go.")
    assert outputs(server.requests[1]) == ["Error: Mute: (no words)"]


async def test_what_only_an_interpreter_raises_is_no_answer(server: ResponsesServer) -> None:
    @function_tool
    async def leave() -> str:
        await trio.lowlevel.checkpoint()
        raise KeyboardInterrupt

    server.answer([Call("hang", call_id="1"), Call("leave", call_id="2")])
    async with open_talk(server, tools=[leave, hang]) as talk:
        with pytest.raises(KeyboardInterrupt):
            await talk.run("Go.")
        await talk.run()
    assert outputs(server.requests[1]) == [INTERRUPTED, INTERRUPTED]


# --- Ids ---------------------------------------------------------------------------------


async def test_an_id_that_comes_again_is_a_new_call(server: ResponsesServer) -> None:
    """Mocks count from one in every response: the answer of before is not the answer of now."""
    for city in ("Oslo", "Paris", "Rome"):
        server.call("weather", {"city": city}, call_id="call_1")
    async with open_talk(server, tools=[weather]) as talk:
        await talk.run("Go.")
        assert is_paired(history(talk))
        server.call("weather", {"city": "Bonn"}, call_id="call_1")
        await talk.run("Go on.")
    assert [outputs(request) for request in server.requests] == [
        [],
        ["21 degrees in Oslo"],
        ["21 degrees in Paris"],
        ["21 degrees in Rome"],
        [],
        ["21 degrees in Bonn"],
    ]


async def test_an_id_that_comes_twice_in_a_response_is_one_call(server: ResponsesServer) -> None:
    runs: list[str] = []

    @function_tool(name="weather")
    async def counting(city: str) -> str:
        await trio.lowlevel.checkpoint()
        runs.append(city)
        return city

    server.calls(*(Call("weather", {"city": city}, call_id="1") for city in ("Oslo", "Rome")))
    async with open_talk(server, tools=[counting]) as talk:
        await talk.run("Go.")
    assert runs == ["Rome"]
    assert outputs(server.requests[1]) == ["Rome"]


# --- Responses that are no answers -------------------------------------------------------


async def test_a_call_that_was_cut_off_is_not_run(narrow_server: ResponsesServer) -> None:
    """The run gives the incomplete response; in the next one the model is told."""
    whole = function_call("weather", '{"city": "Oslo"}', "call_1")
    half = function_call("weather", '{"city": "Os', "call_2", status="incomplete")
    say_raw(narrow_server, whole, half, status="incomplete", reason="max_output_tokens")
    async with open_talk(narrow_server, tools=[weather]) as talk:
        async with talk.run_stream("Go.") as run:
            events = [event async for event in run]
        assert run.response.status == "incomplete"
        assert not any(isinstance(event, ToolStarted) for event in events)
        await talk.run("Go on.")
        assert is_paired(history(talk)[:5])
    # The server forgets what was incomplete, so that the second request goes out once more.
    for request in narrow_server.requests[1:]:
        assert outputs(request) == ["21 degrees in Oslo", NOT_RUN]


async def test_a_response_that_was_filtered_leaves_nothing_to_answer(
    narrow_server: ResponsesServer,
) -> None:
    whole = function_call("weather", '{"city": "Oslo"}', "call_1")
    say_raw(narrow_server, whole, status="incomplete", reason="content_filter")
    async with open_talk(narrow_server, tools=[weather]) as talk:
        assert (await talk.run("Go.")).status == "incomplete"
        assert talk.items == ()
        await talk.run("Hello.")
    assert len(narrow_server.requests[1].input_items) == 1


async def test_a_response_that_fails_raises_and_leaves_the_answers(server: ResponsesServer) -> None:
    server.answer([WEATHER])
    server.reply("no", status="failed")
    async with open_talk(server, tools=[weather]) as talk:
        with pytest.raises(ResponseFailedError):
            await talk.run("Go.")
        server.reply(DONE)
        assert (await talk.run()).output_text == DONE
        assert is_paired(history(talk))
    assert outputs(server.requests[2])[-1:] == ["21 degrees in Oslo"]


async def test_a_tool_that_asks_for_a_turn_of_its_own_conversation_is_told_so(
    server: ResponsesServer,
) -> None:
    """It would wait for its own end; a fork, or another conversation, is free."""

    @function_tool
    async def ask_again(text: str) -> str:
        return (await talk.create(text)).output_text

    @function_tool
    async def ask_another(text: str) -> str:
        return (await talk.fork().create([*answers, user(text)])).output_text

    answers = [
        {"type": "function_call_output", "call_id": call_id, "output": "later"}
        for call_id in ("call_1", "call_2")
    ]
    calls = [
        Call("ask_again", {"text": "a"}, call_id="call_1"),
        Call("ask_another", {"text": "b"}, call_id="call_2"),
    ]
    server.calls(*calls)
    async with open_talk(server, tools=[ask_again, ask_another]) as talk:
        response = await talk.run("Go.")
        assert "RuntimeError: a turn of this conversation cannot wait" in response.output_text
        async with talk.stream("And here?"):
            with pytest.raises(RuntimeError, match="own end"):
                await talk.create("Me, too?")
        assert (await talk.create("Well.")).status == "completed"


async def test_a_run_keeps_nothing_of_the_tasks_of_its_tools(server: "ResponsesServer") -> None:
    server.respond_with(keep_calling(3, 2))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        await talk.run("Work.")
        assert talk._floor._barred == set()
