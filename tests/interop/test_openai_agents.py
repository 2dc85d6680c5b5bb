"""Tests of the test server with the WebSocket model of openai-agents.

The model runs one request at a time on a socket and closes the socket after an error frame, so that
concurrent lanes and further turns after an error cannot be tested with it.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.clients import KEY, MODEL
from tests.interop.programs import HANG_GUARD

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


@pytest.fixture(scope="module")
def agents() -> Any:
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    agents.set_tracing_disabled(disabled=True)
    return agents


@pytest.fixture
def openai(openai_sdk: Any, agents: Any) -> Any:
    assert agents
    return openai_sdk


@asynccontextmanager
async def open_model(agents: Any, openai: Any, url: str) -> AsyncIterator[Any]:
    sdk = openai.AsyncOpenAI(api_key=KEY, base_url=url)
    model = agents.OpenAIResponsesWSModel(model=MODEL, openai_client=sdk)
    try:
        yield model
    finally:
        await model.close()
        await sdk.close()


def request(agents: Any, text: str | list[Any], **fields: Any) -> dict[str, Any]:
    """Return the arguments of both methods of the model."""
    body = fields.pop("extra_body", None)
    return {
        "system_instructions": "Be brief.",
        "input": text,
        "model_settings": agents.ModelSettings(store=False, extra_body=body),
        "tools": [],
        "output_schema": None,
        "handoffs": [],
        "tracing": agents.ModelTracing.DISABLED,
        "previous_response_id": None,
        "conversation_id": None,
        "prompt": None,
        **fields,
    }


def text_of(response: Any) -> str:
    return "".join(part.text for item in response.output for part in item.content)


def test_a_turn_streams_its_events(agents: Any, openai: Any, server_url: str) -> None:
    async def run() -> None:
        async with open_model(agents, openai, server_url) as model:
            events = [event async for event in model.stream_response(**request(agents, "Hello"))]
            deltas = [e.delta for e in events if e.type == "response.output_text.delta"]
            assert events[0].type == "response.created"
            assert events[-1].type == "response.completed"
            assert "".join(deltas) == 'Turn 1: you said "Hello".'
            for event in events:
                type(event).model_validate(event.to_dict())

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


def test_a_chain_without_store_continues_from_a_warm_up(
    agents: Any, openai: Any, server_url: str
) -> None:
    async def run() -> None:
        async with open_model(agents, openai, server_url) as model:
            warm = request(agents, [], extra_body={"generate": False})
            response = await model.get_response(**warm)
            assert response.output == []
            assert response.usage.output_tokens == 0
            for turn in (1, 2, 3):
                parent = response.response_id
                more = request(agents, f"line {turn}", previous_response_id=parent)
                response = await model.get_response(**more)
                assert text_of(response) == f'Turn {turn}: you said "line {turn}".'

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


def test_a_turn_runs_on_a_named_lane(agents: Any, openai: Any, server_url: str) -> None:
    async def run() -> None:
        async with open_model(agents, openai, server_url) as model:
            named = request(agents, "Hello", extra_body={"stream_id": "lane-a"})
            assert text_of(await model.get_response(**named)) == 'Turn 1: you said "Hello".'

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


def test_an_unknown_previous_response_is_an_error_with_status_400(
    agents: Any, openai: Any, server_url: str
) -> None:
    async def run() -> None:
        async with open_model(agents, openai, server_url) as model:
            unknown = request(agents, "more", previous_response_id="resp_unknown")
            with pytest.raises(RuntimeError, match="previous_response_not_found") as caught:
                await model.get_response(**unknown)
            error: Any = caught.value
            assert error.payload["status"] == 400
            assert (error.code, error.error_type) == (
                "previous_response_not_found",
                "invalid_request_error",
            )
            response = await model.get_response(**request(agents, "again"))
            assert text_of(response) == 'Turn 1: you said "again".'

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


@pytest.mark.parametrize("chained", [True, False], ids=["by response id", "with full input"])
def test_a_runner_calls_tools_over_two_turns(
    agents: Any, openai: Any, server_url: str, *, chained: bool
) -> None:
    """The complete loop of an agent in one session: call, output, final output, next turn."""
    assert openai
    cities: list[str] = []

    def get_weather(city: str) -> str:
        """Tell the weather in a city."""
        cities.append(city)
        return f"21 degrees in {city}"

    agent = agents.Agent(
        name="forecaster",
        model=MODEL,
        instructions="Use the tool.",
        tools=[agents.function_tool(get_weather)],
        model_settings=agents.ModelSettings(store=False),
    )

    async def run() -> None:
        sessions = agents.responses_websocket_session(base_url=server_url, api_key=KEY)
        async with sessions as session:
            question = "What is the weather in Paris?"
            first = await session.run(agent, question, auto_previous_response_id=chained)
            assert first.final_output == "Turn 1: the tool returned 21 degrees in Paris."
            text = "And what did I ask?"
            following: Any = text
            if not chained:
                following = [*first.to_input_list(), {"role": "user", "content": text}]
            second = session.run_streamed(
                agent, following, previous_response_id=first.last_response_id if chained else None
            )
            types = [event.type async for event in second.stream_events()]
            assert "raw_response_event" in types
            assert second.final_output == 'Turn 2: you said "And what did I ask?".'
        assert cities == ["Paris"]

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))
