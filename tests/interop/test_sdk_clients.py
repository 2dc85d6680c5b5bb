"""Tests of the test server with the official SDKs: each test runs with each client."""

from __future__ import annotations

from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.interop.clients import MODEL, Client, async_wire, node_wire, sync_wire
from tests.interop.programs import node_script

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.interop.clients import Json, Wire

WEATHER: Json = {
    "type": "function",
    "name": "get_weather",
    "description": "Tell the weather in a city.",
    "strict": True,
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(params=["openai-python sync", "openai-python async", "openai-node"])
def client(request: pytest.FixtureRequest, server_url: str) -> Iterator[Client]:
    with open_wire(request, server_url) as wire:
        yield Client(wire)


@contextmanager
def open_wire(request: pytest.FixtureRequest, url: str) -> Iterator[Wire]:
    match request.param:
        case "openai-python sync":
            opening = sync_wire(request.getfixturevalue("openai_sdk"), url)
        case "openai-python async":
            opening = async_wire(request.getfixturevalue("openai_sdk"), url)
        case _:
            modules = request.getfixturevalue("modules")
            for package, file in (("openai", "package.json"), ("ws", "package.json")):
                node_script(modules, package, file)
            script = node_script(Path(__file__).parent, "node", "responses_ws.mjs")
            opening = node_wire(script, modules, url)
    with opening as wire:
        yield wire


def text_of(response: Json) -> str:
    parts = [part for item in response["output"] for part in item.get("content", ())]
    return "".join(part["text"] for part in parts)


def test_a_turn_sends_every_event_in_order(client: Client) -> None:
    events = client.events("Say hello")
    types = [event["type"] for event in events]
    deltas = [event["delta"] for event in events if event["type"].endswith("text.delta")]
    response = events[-1]["response"]
    assert types[:2] == ["response.created", "response.in_progress"]
    assert types[2:4] == ["response.output_item.added", "response.content_part.added"]
    assert set(types[4:-4]) == {"response.output_text.delta"}
    assert types[-4:-2] == ["response.output_text.done", "response.content_part.done"]
    assert types[-2:] == ["response.output_item.done", "response.completed"]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert all("stream_id" not in event for event in events)
    assert len(deltas) > 1
    assert "".join(deltas) == text_of(response) == 'Turn 1: you said "Say hello".'
    assert response["model"] == MODEL
    assert response["usage"]["total_tokens"] > 0


def test_a_chain_without_store_continues(client: Client) -> None:
    parent: str | None = None
    for turn in (1, 2, 3):
        response = client.respond(f"line {turn}", store=False, previous_response_id=parent)
        assert text_of(response) == f'Turn {turn}: you said "line {turn}".'
        assert response["previous_response_id"] == parent
        assert response["store"] is False
        parent = response["id"]


def test_a_turn_calls_a_tool_and_the_next_one_receives_the_output(client: Client) -> None:
    response = client.respond("What is the weather in Paris?", tools=[WEATHER])
    [call] = response["output"]
    assert (call["type"], call["name"]) == ("function_call", "get_weather")
    assert call["arguments"] == '{"city":"Paris"}'
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "21 degrees"}
    response = client.respond([output], tools=[WEATHER], previous_response_id=response["id"])
    assert text_of(response) == "Turn 1: the tool returned 21 degrees."


def test_the_arguments_of_a_call_are_sent_in_several_deltas(client: Client) -> None:
    events = client.events("What is the weather in Llanfairpwllgwyngyll?", tools=[WEATHER])
    deltas = [event["delta"] for event in events if event["type"].endswith("arguments.delta")]
    done = [event for event in events if event["type"].endswith("arguments.done")]
    assert len(deltas) > 1
    assert "".join(deltas) == done[0]["arguments"] == '{"city":"Llanfairpwllgwyngyll"}'


def test_a_chain_continues_from_a_warm_up_without_output(client: Client) -> None:
    warm = client.respond([], generate=False, instructions="Be brief.", tools=[WEATHER])
    assert warm["output"] == []
    assert warm["usage"]["output_tokens"] == 0
    response = client.respond("Say hello", previous_response_id=warm["id"], store=False)
    assert text_of(response) == 'Turn 1: you said "Say hello".'


def test_two_lanes_run_concurrently(client: Client) -> None:
    """A long response on one lane does not delay a short one on the other lane."""
    long = " ".join(["word"] * 3000)
    client.send(long, stream_id="long-lane")
    client.send("hello", stream_id="short-lane")
    lanes: dict[str, list[Json]] = {"long-lane": [], "short-lane": []}
    finished: list[str] = []
    while len(finished) < len(lanes):
        event = client.receive()
        lane = event["stream_id"]
        lanes[lane].append(event)
        if event["type"] == "response.completed":
            finished.append(lane)
    assert finished == ["short-lane", "long-lane"]
    for lane, text in (("long-lane", long), ("short-lane", "hello")):
        events = lanes[lane]
        assert [event["sequence_number"] for event in events] == list(range(len(events)))
        assert text_of(events[-1]["response"]) == f'Turn 1: you said "{text}".'


def test_requests_on_one_lane_run_in_order(client: Client) -> None:
    for text in ("one", "two", "three"):
        client.send(text)
    texts: list[str] = []
    while len(texts) < 3:
        event = client.receive()
        if event["type"] == "response.completed":
            texts.append(text_of(event["response"]))
    assert texts == [f'Turn 1: you said "{text}".' for text in ("one", "two", "three")]


@pytest.mark.parametrize("lane", [{}, {"stream_id": "lane-a"}], ids=["default lane", "named lane"])
def test_an_unknown_previous_response_ends_one_turn_only(
    client: Client, lane: dict[str, str]
) -> None:
    parent = client.respond("Say hello", store=False, **lane)
    [error] = client.events("more", previous_response_id="resp_unknown", store=False, **lane)
    assert error["type"] == "error"
    assert error["status"] == 400
    assert error["error"]["type"] == "invalid_request_error"
    assert error["error"]["code"] == "previous_response_not_found"
    assert error["error"]["param"] == "previous_response_id"
    assert error.get("stream_id") == lane.get("stream_id")
    response = client.respond("more", previous_response_id=parent["id"], store=False, **lane)
    assert text_of(response) == 'Turn 2: you said "more".'
