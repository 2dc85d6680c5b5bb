"""Tests of the test server with the session helper of openai-python."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from tests.interop.clients import KEY, MODEL
from tests.interop.programs import HANG_GUARD


@pytest.fixture
def helpers(openai_sdk: Any) -> Any:
    assert openai_sdk
    return pytest.importorskip("openai.lib.responses_websocket")


def limits(helpers: Any) -> Any:
    return helpers.ResponsesWebSocketLimits(
        max_lanes=8,
        max_events_per_lane=10_000,
        max_events=20_000,
        max_bytes_per_lane=2**24,
        max_bytes=2**25,
    )


def create(text: str, **fields: Any) -> dict[str, Any]:
    return {"type": "response.create", "model": MODEL, "input": text, "store": False, **fields}


def test_a_sync_session_chains_turns_on_several_lanes(
    openai_sdk: Any, helpers: Any, server_url: str
) -> None:
    with (
        openai_sdk.OpenAI(api_key=KEY, base_url=server_url) as sdk,
        sdk.responses.connect(websocket_connection_options={"max_size": None}) as connection,
        helpers.ResponsesWebSocketSession(connection, limits=limits(helpers)) as session,
    ):
        lanes = [session.default, session.lane("one"), session.lane("two")]
        parents: list[Any] = [None] * len(lanes)
        for turn in (1, 2):
            for number, lane in enumerate(lanes):
                lane.send(create(f"lane {number}", previous_response_id=parents[number]))
            for number, lane in enumerate(lanes):
                response = lane.get_final_response(timeout=HANG_GUARD)
                assert response.output_text == f'Turn {turn}: you said "lane {number}".'
                parents[number] = response.id


def test_an_async_session_runs_warm_ups_and_continues_after_errors(
    openai_sdk: Any, helpers: Any, server_url: str
) -> None:
    async def run() -> None:
        async with (
            openai_sdk.AsyncOpenAI(api_key=KEY, base_url=server_url) as sdk,
            sdk.responses.connect(websocket_connection_options={"max_size": None}) as connection,
            helpers.AsyncResponsesWebSocketSession(connection, limits=limits(helpers)) as session,
        ):
            one, two = session.lane("one"), session.lane("two")
            await one.send(create("", input=[], generate=False))
            warm = await one.get_final_response()
            assert warm.output == []
            await one.send(create("first", previous_response_id=warm.id))
            await two.send(create("second", previous_response_id="resp_unknown"))
            assert (await one.get_final_response()).output_text == 'Turn 1: you said "first".'
            with pytest.raises(helpers.ResponsesWebSocketError) as caught:
                await two.get_final_response()
            assert caught.value.event.status == 400
            assert caught.value.event.stream_id == "two"
            assert caught.value.event.error.code == "previous_response_not_found"
            await two.send(create("second"))
            assert (await two.get_final_response()).output_text == 'Turn 1: you said "second".'

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


def test_a_lane_can_continue_from_a_response_of_another_lane(
    openai_sdk: Any, helpers: Any, server_url: str
) -> None:
    """The next request waits for ``in_progress`` of the fork, as the README of the SDK requires."""

    async def run() -> None:
        async with (
            openai_sdk.AsyncOpenAI(api_key=KEY, base_url=server_url) as sdk,
            sdk.responses.connect() as connection,
            helpers.AsyncResponsesWebSocketSession(connection, limits=limits(helpers)) as session,
        ):
            source, fork = session.lane("source"), session.lane("fork")
            await source.send(create("root"))
            root = await source.get_final_response()
            await fork.send(create("left", previous_response_id=root.id))
            while (await fork.recv()).type != "response.in_progress":
                pass
            await source.send(create("right", previous_response_id=root.id))
            assert (await fork.get_final_response()).output_text == 'Turn 2: you said "left".'
            assert (await source.get_final_response()).output_text == 'Turn 2: you said "right".'

    asyncio.run(asyncio.wait_for(run(), HANG_GUARD))


def test_the_accumulator_of_the_sdk_returns_the_final_response(
    openai_sdk: Any, helpers: Any, server_url: str
) -> None:
    with (
        openai_sdk.OpenAI(api_key=KEY, base_url=server_url) as sdk,
        sdk.responses.connect() as connection,
    ):
        connection.send(create("Say hello"))
        accumulator = helpers.ResponsesWebSocketAccumulator()
        for event in connection:
            accumulator.add_event(event)
            if event.type == "response.completed":
                break
        assert accumulator.snapshot().output_text == 'Turn 1: you said "Say hello".'
        assert accumulator.get_final_response() == event.response
