"""Typed answers: the value, the errors, and the types that type checkers infer."""

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, TypedDict, assert_type

import msgspec
import pytest
import trio

from tests.conversation.rig import history, open_conversation, open_steady
from tests.conversation.runs.rig import WEATHER, is_paired, outputs, say_raw
from tests.pool.rig import open_to
from tests.turn.rig import message
from trio_responses import (
    ConfigurationError,
    DeliveryStatus,
    IncompleteError,
    ParsedResponse,
    ParseError,
    ParseMismatchError,
    RefusalError,
    ResponseFailedError,
    function_tool,
)
from trio_responses.testing import Call
from trio_responses.types import Message, Response

if TYPE_CHECKING:
    from tests.turn.rig import Json
    from trio_responses.testing import ResponsesServer


class Weather(msgspec.Struct):
    """The weather at a place."""

    city: str
    degrees: Annotated[float, msgspec.Meta(ge=-90, le=60)]
    wind: str | None = None


@dataclass
class Trip:
    days: list[Weather]
    mood: Literal["good", "bad"] = "good"


class Note(TypedDict):
    text: str


OSLO = '{"city": "Oslo", "degrees": 21.5, "wind": null}'


@function_tool
async def weather(city: str) -> str:
    await trio.lowlevel.checkpoint()
    return f"21 degrees in {city}"


def refusal(text: str) -> "Json":
    part = {"type": "refusal", "refusal": text}
    return {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}


def said(text: str, phase: str | None) -> "Json":
    """Return a message of the model, with a phase if one is given."""
    item = message(text)
    return item if phase is None else {**item, "phase": phase}


# --- Values ------------------------------------------------------------------------------


async def test_parse_of_a_connection_returns_a_value_of_the_type(server: "ResponsesServer") -> None:
    server.reply(OSLO)
    async with open_steady(server) as connection:
        answer = await connection.parse(Weather, model="m", input="Is it warm in Oslo?")
    assert answer.parsed == Weather("Oslo", 21.5)
    assert answer.response.output_text == OSLO
    [request] = server.requests
    form = request["text"]["format"]
    assert (form["type"], form["name"], form["strict"]) == ("json_schema", "Weather", True)
    assert form["schema"]["required"] == ["city", "degrees", "wind"]


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (Trip, f'{{"days": [{OSLO}], "mood": null}}', Trip([Weather("Oslo", 21.5)])),
        (Note, '{"text": "hi"}', {"text": "hi"}),
        (list[int], '{"value": [1, 2]}', [1, 2]),
        (int | None, '{"value": null}', None),
        (Annotated[int, msgspec.Meta(ge=1)], '{"value": 1}', 1),
        (dict[str, int], '{"a": 1}', {"a": 1}),
        (Annotated[int, ["no hash"]], '{"value": 1}', 1),
    ],
)
async def test_an_answer_may_be_of_any_type(
    server: "ResponsesServer", kind: Any, text: str, value: Any
) -> None:
    server.reply(text)
    async with open_conversation(server) as conversation:
        answer = await conversation.parse(kind, "Go.")
    assert answer.parsed == value


async def test_parse_of_a_conversation_runs_tools_before_the_answer(
    server: "ResponsesServer",
) -> None:
    """Each turn of the run has the format of the answer, so that the turns are deltas."""
    server.answer([WEATHER])
    server.reply(OSLO)
    async with open_conversation(
        server, tools=[weather], text={"verbosity": "low"}
    ) as conversation:
        answer = await conversation.parse(Weather, "Is it warm in Oslo?", max_rounds=3)
        assert answer.parsed.city == "Oslo"
        assert is_paired(history(conversation))
        await conversation.run("Thanks.")
    assert outputs(server.requests[1]) == ["21 degrees in Oslo"]
    texts = [request.get("text") for request in server.requests]
    assert texts[0] == texts[1]
    assert texts[0]["verbosity"] == "low"
    assert texts[0]["format"]["name"] == "Weather"
    assert texts[2] == {"verbosity": "low"}


async def test_text_settings_of_parse_precede_those_of_the_conversation(
    server: "ResponsesServer",
) -> None:
    server.reply(OSLO)
    async with open_conversation(server, text={"verbosity": "low"}) as conversation:
        await conversation.parse(Weather, "Go.", text={"verbosity": "high"})
    assert server.requests[0]["text"]["verbosity"] == "high"


# --- Commentary ---------------------------------------------------------------------------

PARSERS = pytest.mark.parametrize("turns", ["connection", "lane", "pool", "conversation"])


async def parse(server: "ResponsesServer", turns: str, **params: Any) -> Any:
    """Parse the answer to one turn, on a client of any kind."""
    if turns == "pool":
        async with open_to(server) as pool:
            return (await pool.parse(Weather, model="m", input="Go.", **params)).parsed
    async with open_steady(server) as connection:
        if turns == "lane":
            async with connection.lane() as lane:
                return (await lane.parse(Weather, model="m", input="Go.", **params)).parsed
        if turns == "connection":
            return (await connection.parse(Weather, model="m", input="Go.", **params)).parsed
        async with connection.conversation(model="m") as conversation:
            return (await conversation.parse(Weather, "Go.", **params)).parsed


@PARSERS
async def test_the_final_answer_is_parsed_without_commentary(
    server: "ResponsesServer", turns: str
) -> None:
    server.reply(OSLO, commentary=["I will check.", '{"city": "Rome", "degrees": 1}'])
    assert await parse(server, turns) == Weather("Oslo", 21.5)


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("final_answer", "final_answer"),
        (None, None),
        ("commentary", None),
        ("draft", "draft"),
        ("draft", "final_answer"),
        (None, "final_answer"),
    ],
)
async def test_the_last_answer_counts(
    narrow_server: "ResponsesServer", first: str | None, second: str | None
) -> None:
    say_raw(narrow_server, said("I will check.", first), said(OSLO, second))
    assert await parse(narrow_server, "conversation") == Weather("Oslo", 21.5)


async def test_a_final_answer_precedes_later_messages_without_phase(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(narrow_server, said(OSLO, "final_answer"), said("Bye.", None))
    assert await parse(narrow_server, "conversation") == Weather("Oslo", 21.5)


async def test_a_refusal_in_commentary_is_no_refusal_of_the_answer(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(
        narrow_server,
        {**refusal("I cannot look there."), "phase": "commentary"},
        said(OSLO, "final_answer"),
    )
    assert await parse(narrow_server, "conversation") == Weather("Oslo", 21.5)


async def test_a_refusal_after_commentary_is_the_answer(narrow_server: "ResponsesServer") -> None:
    other = {**refusal("Not there."), "phase": "commentary"}
    say_raw(narrow_server, other, {**refusal("No."), "phase": "final_answer"})
    with pytest.raises(RefusalError) as raised:
        await parse(narrow_server, "conversation")
    assert raised.value.refusal == "No."


async def test_a_refusal_in_commentary_alone_is_a_refusal(
    narrow_server: "ResponsesServer",
) -> None:
    say_raw(narrow_server, {**refusal("No."), "phase": "commentary"})
    with pytest.raises(RefusalError) as raised:
        await parse(narrow_server, "conversation")
    assert raised.value.refusal == "No."


@PARSERS
async def test_commentary_alone_is_no_answer(server: "ResponsesServer", turns: str) -> None:
    server.reply(commentary=[OSLO])
    with pytest.raises(ParseMismatchError, match="has no answer: its output has commentary alone"):
        await parse(server, turns)


async def test_an_output_without_messages_is_no_answer(server: "ResponsesServer") -> None:
    server.reply(reasoning="Hm")
    with pytest.raises(ParseMismatchError, match="has no answer: its output has no message"):
        await parse(server, "connection")


@PARSERS
async def test_calls_without_an_output_are_named(server: "ResponsesServer", turns: str) -> None:
    """A tool that is offered as its definition alone has no function that a run could call."""
    calls = [Call("look", call_id="call_1"), Call("dig", call_id="call_2")]
    tools = [{"type": "function", "name": call.name} for call in calls]
    server.reply(commentary=["I will check."], calls=calls)
    words = r"the model called look \(call_1\), dig \(call_2\), which have no output"
    with pytest.raises(ParseMismatchError, match=words) as raised:
        await parse(server, turns, tools=tools)
    assert [getattr(call, "call_id", None) for call in raised.value.calls] == ["call_1", "call_2"]
    assert raised.value.text == ""


async def test_the_name_of_a_call_cannot_write_to_a_terminal(server: "ResponsesServer") -> None:
    server.reply(calls=[Call("dig\x1b[2J", unoffered=True)])
    with pytest.raises(ParseMismatchError, match=r"dig\\x1b\[2J"):
        await parse(server, "connection")


async def test_a_text_beside_calls_is_in_the_error_with_the_calls(
    server: "ResponsesServer",
) -> None:
    server.reply("I will check.", calls=[Call("look", call_id="call_1", unoffered=True)])
    with pytest.raises(ParseMismatchError) as raised:
        await parse(server, "connection")
    assert "does not fit the type that was asked for" in str(raised.value)
    assert "the model called look (call_1)" in str(raised.value)
    assert raised.value.text == "I will check."


async def test_a_fitting_text_beside_calls_is_an_answer(server: "ResponsesServer") -> None:
    server.reply(OSLO, calls=[Call("look", unoffered=True)])
    assert await parse(server, "connection") == Weather("Oslo", 21.5)


async def test_calls_that_a_tool_has_answered_are_not_named(server: "ResponsesServer") -> None:
    look = {"type": "function", "name": "look"}
    server.answer([WEATHER, Call("look", call_id="call_2")])
    async with open_conversation(server, tools=[weather, look]) as conversation:
        with pytest.raises(ParseMismatchError) as raised:
            await conversation.parse(Weather, "Go.")
    assert [getattr(call, "call_id", None) for call in raised.value.calls] == ["call_2"]


async def test_other_kinds_of_calls_are_named_too(narrow_server: "ResponsesServer") -> None:
    shell = {"type": "shell_call", "call_id": "call_1", "action": {"commands": ["ls"]}}
    crm = {"type": "function_call", "call_id": "call_2", "name": "delete", "arguments": "{}"}
    server_side = {"type": "web_search_call", "id": "ws_1", "status": "completed"}
    hosted = {"type": "shell_call", "call_id": "call_3", "action": {"commands": ["ls"]}}
    output: Json = {"type": "shell_call_output", "call_id": "call_3", "output": []}
    say_raw(narrow_server, shell, {**crm, "namespace": "crm"}, server_side, hosted, output)
    words = r"called shell_call \(call_1\), crm\.delete \(call_2\), which"
    with pytest.raises(ParseMismatchError, match=words):
        await parse(narrow_server, "connection")


# --- Errors ------------------------------------------------------------------------------


async def test_a_refusal_raises_an_error_with_its_text(narrow_server: "ResponsesServer") -> None:
    say_raw(narrow_server, refusal("I would rather not."))
    async with open_conversation(narrow_server) as conversation:
        with pytest.raises(RefusalError) as raised:
            await conversation.parse(Weather, "Go.")
        assert len(conversation.items) == 2
    assert raised.value.refusal == "I would rather not."
    assert "rather" not in str(raised.value)
    assert raised.value.delivery is DeliveryStatus.ACCEPTED


async def test_an_answer_that_was_cut_off_raises_an_error(server: "ResponsesServer") -> None:
    server.reply('{"city": "Os', status="incomplete")
    async with open_steady(server) as connection:
        with pytest.raises(IncompleteError) as raised:
            await connection.parse(Weather, model="m", input="Go.")
    assert raised.value.reason == "max_output_tokens"
    assert raised.value.response.output_text == '{"city": "Os'


@pytest.mark.parametrize(
    ("text", "words", "place"),
    [
        ("It is warm.", "JSON", None),
        ("", "", None),
        ('{"city": "Oslo"}', "degrees", None),
        ('{"city": "Oslo", "degrees": 99}', r"\$\.degrees", "$.degrees"),
        ('{"city": 1, "degrees": 1}', r"\$\.city", "$.city"),
        ("[" * 100_000, "", None),
    ],
)
async def test_a_mismatch_raises_an_error_with_the_text_and_the_place(
    server: "ResponsesServer", text: str, words: str, place: str | None
) -> None:
    server.reply(chunks=[text])
    async with open_conversation(server) as conversation:
        with pytest.raises(ParseMismatchError) as raised:
            await conversation.parse(Weather, "Go.")
        assert len(conversation.items) > 0
    error = raised.value
    assert error.text == text
    assert error.response.output_text == text
    assert re.search(words, error.message)
    assert isinstance(error, ParseError)
    assert isinstance(error, ValueError)
    assert not text or text not in str(error)
    assert error.place == place
    assert f" does not fit the type that was asked for: {error.message}; " in str(error)


@pytest.mark.parametrize("answer", ["Is it warm?", b"x", [{"role": "user"}], Message(role="user")])
@pytest.mark.parametrize("turns", ["connection", "conversation"])
async def test_an_input_in_place_of_the_type_is_refused(
    server: "ResponsesServer", answer: Any, turns: str
) -> None:
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m") as conversation,
    ):
        place: Any = connection if turns == "connection" else conversation
        with pytest.raises(ConfigurationError, match="the type is the first argument of parse"):
            await place.parse(answer, Weather)
    assert server.statistics().requests == 0


async def test_calls_without_a_handler_are_not_an_answer(server: "ResponsesServer") -> None:
    """The error has the response with the calls."""
    server.answer([WEATHER])
    async with open_conversation(
        server, tools=[{"type": "function", "name": "weather"}]
    ) as conversation:
        with pytest.raises(ParseMismatchError) as raised:
            await conversation.parse(Weather, "Go.")
    assert raised.value.text == ""
    assert raised.value.response.function_calls[0].name == "weather"


async def test_parse_raises_for_a_response_that_failed(server: "ResponsesServer") -> None:
    server.reply("no", status="failed")
    async with open_steady(server) as connection:
        with pytest.raises(ResponseFailedError):
            await connection.parse(Weather, model="m", input="Go.")


async def test_a_type_without_a_schema_is_rejected_before_anything_is_sent(
    server: "ResponsesServer",
) -> None:
    async with open_conversation(server) as conversation:
        with pytest.raises(ConfigurationError):
            await conversation.parse(object, "Go.")
    assert server.requests == []


# --- Type checkers -----------------------------------------------------------------------


async def test_type_checkers_infer_the_type_of_the_answer(server: "ResponsesServer") -> None:
    """The types are checked by mypy and pyright; the values are checked when the test runs."""
    for text in (OSLO, f'{{"days": [{OSLO}]}}', OSLO, '{"value": 1}'):
        server.reply(text)
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m") as conversation,
    ):
        answer = await conversation.parse(Weather, "Go.")
        assert_type(answer, ParsedResponse[Weather])
        assert_type(answer.parsed, Weather)
        assert_type(answer.parsed.degrees, float)
        assert_type(answer.response, Response)
        trip = await conversation.parse(Trip, "Go.")
        assert_type(trip.parsed.days, list[Weather])
        other = await connection.parse(Weather, model="m", input="Go.")
        assert_type(other.parsed, Weather)
        async with connection.lane() as lane:
            number = await lane.parse(int, model="m", input="Go.")
            assert_type(number.parsed, int)
        async with conversation.run_stream("Go.") as run:
            assert_type(await run.get_final_response(), Response)
        assert_type(await conversation.run("Go."), Response)
    assert isinstance(answer.parsed, Weather)
    assert isinstance(trip.parsed, Trip)
    assert number.parsed == 1


async def test_the_delivery_of_a_response_that_failed_is_accepted(
    server: "ResponsesServer",
) -> None:
    """P4: this holds for the error of a run, too."""
    server.reply("no", status="failed")
    async with open_conversation(server) as conversation:
        with pytest.raises(ResponseFailedError) as failure:
            await conversation.run("Go.")
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
