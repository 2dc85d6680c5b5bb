"""The default answers of the server."""

from typing import Any

import pytest

from tests.testing.driver import connect, text_of
from trio_responses.testing import Request, ResponsesServer, default_answer


def tool(name: str, **properties: Any) -> dict[str, Any]:
    schema = {"type": "object", "properties": properties, "required": list(properties)}
    return {"type": "function", "name": name, "parameters": schema}


def ask(text: str, **fields: Any) -> Request:
    return Request({"type": "response.create", "model": "m", "input": text, **fields}, 1)


WEATHER = tool("get_weather", city={"type": "string"})
CLOCK = tool("current-time", zone={"type": "string"})


def called(request: Request) -> list[str]:
    return [call.name for call in default_answer(request).calls]


@pytest.mark.parametrize("text", ["weather-tool", "What is the WEATHER?", "some weather, please"])
def test_a_tool_is_called_when_its_name_shares_a_word_with_the_text(text: str) -> None:
    assert called(ask(text, tools=[CLOCK, WEATHER])) == ["get_weather"]


def test_no_tool_is_called_without_a_shared_word() -> None:
    assert called(ask("Tell me a joke", tools=[CLOCK, WEATHER])) == []


def test_tool_choice_takes_precedence() -> None:
    tools = [WEATHER, CLOCK]
    assert called(ask("weather", tools=tools, tool_choice="none")) == []
    assert called(ask("a joke", tools=tools, tool_choice="required")) == ["get_weather"]
    named = {"type": "function", "name": "current-time"}
    assert called(ask("weather", tools=tools, tool_choice=named)) == ["current-time"]


def test_arguments_match_the_schema() -> None:
    everything = tool(
        "make",
        city={"type": "string"},
        other={"type": ["null", "string"]},
        unit={"type": "string", "enum": ["celsius", "kelvin"]},
        language={"type": "string", "default": "en"},
        count={"type": "integer"},
        share={"type": "number"},
        sure={"type": "boolean"},
        names={"type": "array", "items": {"type": "string"}},
        place={"anyOf": [{"type": "null"}, {"$ref": "#/$defs/Place"}]},
    )
    everything["parameters"]["$defs"] = {
        "Place": {
            "type": "object",
            "properties": {"x": {"type": "integer"}, "note": {"type": "string"}},
            "required": ["x"],
        }
    }
    (call,) = default_answer(ask("please make it in Paris", tools=[everything])).calls
    assert call.arguments == {
        "city": "Paris",
        "other": "other",
        "unit": "celsius",
        "language": "en",
        "count": 1,
        "share": 1,
        "sure": True,
        "names": ["names"],
        "place": {"x": 1},
    }


def test_arguments_for_a_recursive_schema_are_finite() -> None:
    node = tool("make", child={"$ref": "#"})
    (call,) = default_answer(ask("make", tools=[node])).calls
    assert "child" in call.arguments


async def test_a_tool_loop_ends_in_text_with_the_output(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="weather in Oslo", tools=[WEATHER])
        (call,) = first["output"]
        assert call["arguments"] == '{"city":"Oslo"}'
        output = {"type": "function_call_output", "call_id": call["call_id"], "output": "-3 C"}
        second = await client.response(
            input=[output], tools=[WEATHER], previous_response_id=first["id"]
        )
    assert "-3 C" in text_of(second)


async def test_the_answer_contains_the_turn_and_the_text(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="good morning")
        second = await client.response(input="and you?", previous_response_id=first["id"])
    assert text_of(first) == 'Turn 1: you said "good morning".'
    assert text_of(second) == 'Turn 2: you said "and you?".'
