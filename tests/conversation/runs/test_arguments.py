"""For all arguments that a model may write: the run continues, and each call has an output."""

import json
from typing import TYPE_CHECKING, Any

import hypothesis.strategies as st
import msgspec
import pytest
import trio
from hypothesis import HealthCheck, example, given, settings
from trio.testing import MockClock

from tests.conversation.rig import history, open_conversation
from tests.conversation.runs.rig import function_call, is_paired, outputs
from tests.turn.rig import created, ended, item_done
from trio_responses import ToolFinished, function_tool
from trio_responses._tools.function import InvalidArguments
from trio_responses.testing import ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.turn.rig import Json


class Place(msgspec.Struct):
    city: str
    height: float | None = None


@function_tool(run_in_thread=False)
def forecast(place: Place, days: int = 1, tags: list[str] | None = None) -> Any:
    return [place, days, tags]


@function_tool(run_in_thread=False, strict=False)
def anything(value: Any) -> Any:
    return value


json_values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(min_value=2**63, max_value=2**200)
    | st.floats()
    | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4)
    ),
    max_leaves=12,
)
valid = st.fixed_dictionaries(
    {"place": st.fixed_dictionaries({"city": st.text(), "height": st.none() | st.floats()})},
    optional={"days": st.integers(), "tags": st.lists(st.text(), max_size=3), "value": json_values},
)


@st.composite
def mutated(draw: st.DrawFn) -> str:
    """Draw valid JSON with a few characters changed, inserted or removed."""
    text = json.dumps(draw(valid))
    for _ in range(draw(st.integers(1, 3))):
        at = draw(st.integers(0, len(text)))
        to = draw(st.integers(at, min(len(text), at + 4)))
        text = text[:at] + draw(st.text('{}[]",:\\u0d8eE+-.null tru', max_size=4)) + text[to:]
    return text


arguments = st.one_of(
    st.text(max_size=40),
    st.text(st.characters(categories=["Cs", "Lu"]), max_size=5),
    json_values.map(json.dumps),
    valid.map(json.dumps),
    st.fixed_dictionaries({"value": json_values}).map(json.dumps),
    mutated(),
    st.integers(1, 100_000).map(lambda depth: '{"value":' + "[" * depth + "]" * depth + "}"),
)
calls = st.lists(st.tuples(st.sampled_from(["forecast", "anything"]), arguments), max_size=4)


def say(server: ResponsesServer, given: list[tuple[str, str]]) -> None:
    """Let the model call. Lone surrogates are sent as escapes, as some servers do."""
    items = [function_call(name, text, f"c{n}") for n, (name, text) in enumerate(given)]
    frames: list[Json] = [created(), *map(item_done, items, range(4)), ended(items)]
    server.answer([json.dumps(frame) for frame in frames])


async def run_calls(given: list[tuple[str, str]]) -> None:
    async with open_test_server(max_age=None, lanes=False) as server:
        say(server, given)
        async with open_conversation(server, tools=[forecast, anything]) as conversation:
            async with conversation.run_stream("Go.", on_tool_error="return") as run:
                events = [event async for event in run]
            assert run.response.status == "completed"
            assert is_paired(history(conversation))
        ended_calls = [event for event in events if isinstance(event, ToolFinished)]
        assert len(ended_calls) == len(given)
        for event in ended_calls:
            assert event.error is None or isinstance(event.error, InvalidArguments)
        if given:
            assert all(isinstance(text, str) for text in outputs(server.requests[1]))
            assert len(outputs(server.requests[1])) == len(given)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@example([("anything", '{"value": "\ud800"}')])
@example([("anything", '{"value": "\\ud800"}'), ("forecast", '{"\\udfff": 1}')])
@example([("anything", '{"value": 1e999999}'), ("anything", '{"value": ' + "9" * 5000 + "}")])
@example([("anything", '{"value":' * 2000 + "1" + "}" * 2000), ("forecast", "")])
@example([("anything", '{"value": null}'), ("anything", "\ufeff{}"), ("forecast", "\x00")])
@given(calls)
def test_no_arguments_of_a_call_end_the_run(given: list[tuple[str, str]]) -> None:
    trio.run(run_calls, given, clock=MockClock(autojump_threshold=0))


@pytest.mark.parametrize("name", ["\x00", "a" * 10_000, "forecast ", "{}", "\u2028"])
async def test_no_name_of_a_call_ends_the_run(narrow_server: ResponsesServer, name: str) -> None:
    say(narrow_server, [(name, "{}")])
    async with open_conversation(narrow_server, tools=[forecast]) as conversation:
        await conversation.run("Go.")
    assert outputs(narrow_server.requests[1]) == [f"There is no tool named {name!r}."]


async def test_an_empty_name_of_a_call_does_not_end_the_run() -> None:
    """OpenAI sends no such call, and refuses it in an input."""
    async with open_test_server(lanes=False, strict=False) as server:
        say(server, [("", "{}")])
        async with open_conversation(server, tools=[forecast]) as conversation:
            await conversation.run("Go.")
        assert outputs(server.requests[1]) == ["There is no tool named ''."]


# --- Arguments that came in other events -----------------------------------------------------

REAL = '{"path":"/tmp/x","force":false}'


def events_with_arguments(*, finished: bool, terminal: str | None) -> list[Any]:
    """Return a response with one call: its arguments are in events of their own alone."""
    item = function_call("delete", "")
    pieces = "response.function_call_arguments"
    at = {"item_id": item["id"], "output_index": 0}
    frames: list[Any] = [
        created(),
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        {"type": f"{pieces}.delta", **at, "delta": REAL[:9]},
        {"type": f"{pieces}.done", **at, "arguments": REAL},
    ]
    if finished:
        frames.append(item_done(item))
    end = ended([] if terminal is None else [{**item, "arguments": terminal}])
    return [*frames, end]


@pytest.mark.parametrize("finished", [True, False])
@pytest.mark.parametrize("terminal", [None, ""])
async def test_a_tool_never_runs_with_defaults_in_place_of_the_arguments(
    narrow_server: "ResponsesServer",
    finished: bool,  # noqa: FBT001
    terminal: str | None,
) -> None:
    deleted: list[tuple[str, bool]] = []

    @function_tool
    async def delete(path: str = "/", force: bool = True) -> str:  # noqa: FBT001, FBT002
        await trio.lowlevel.checkpoint()
        deleted.append((path, force))
        return "done"

    narrow_server.answer(events_with_arguments(finished=finished, terminal=terminal))
    narrow_server.reply("Deleted.")
    async with open_conversation(narrow_server, tools=[delete]) as conversation:
        await conversation.run("Go.")
        call = next(item for item in history(conversation) if item["type"] == "function_call")
    assert deleted == [("/tmp/x", False)]  # noqa: S108 - the model's words
    assert call["arguments"] == REAL


async def test_calls_with_one_index_all_run(narrow_server: "ResponsesServer") -> None:
    ran: list[int] = []

    @function_tool
    async def count(number: int) -> str:
        await trio.lowlevel.checkpoint()
        ran.append(number)
        return "done"

    calls = [function_call("count", f'{{"number":{at}}}', f"call_{at}") for at in range(3)]
    narrow_server.answer([created(), *(item_done(call, 0) for call in calls), ended()])
    narrow_server.reply("Counted.")
    async with open_conversation(narrow_server, tools=[count]) as conversation:
        await conversation.run("Go.")
        assert is_paired(history(conversation))
    assert sorted(ran) == [0, 1, 2]
