"""The main paths of the library, with a real service: `nox -s live`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import msgspec
import pytest
import trio

from trio_responses import (
    APIError,
    AuthenticationError,
    PreviousResponseNotFound,
    StallTimeout,
    SteerState,
    function_tool,
)

if TYPE_CHECKING:
    from tests.live.service import LiveService
    from trio_responses import Lane, SteerReceipt

WRONG_KEY: Final = "sk-opens-nothing-at-a-real-service"
UNKNOWN_RESPONSE: Final = "resp_0000000000000000000000000000000000000000000000000"
COUNT: Final = "Count from one to thirty, in words."


class City(msgspec.Struct):
    """The answer of a typed turn."""

    name: str
    country: str


async def test_create_returns_the_answer(service: LiveService) -> None:
    async with service.connect() as connection:
        response = await connection.create("Answer with the one word pong.", **service.params)
    assert response.status == "completed"
    assert "pong" in response.output_text.lower()
    assert response.usage is not None
    assert response.usage.total_tokens > 0


async def test_a_stream_yields_the_text_in_pieces(service: LiveService) -> None:
    async with (
        service.connect() as connection,
        connection.stream("Name three rivers.", **service.params) as stream,
    ):
        pieces = [
            event.delta async for event in stream if event.type == "response.output_text.delta"
        ]
        response = await stream.get_final_response()
    assert len(pieces) > 1
    assert "".join(pieces) == response.output_text


async def test_parse_returns_a_value_of_the_type(service: LiveService) -> None:
    async with service.connect() as connection:
        answer = await connection.parse(City, "What is the capital of Norway?", **service.params)
    assert answer.parsed.name == "Oslo"
    assert answer.parsed.country == "Norway"


async def test_a_conversation_sends_only_what_is_new(service: LiveService) -> None:
    async with (
        service.connect() as connection,
        connection.conversation(store=False, **service.params) as conversation,
    ):
        await conversation.create("My name is Ada. Answer with the one word ok.")
        response = await conversation.create("What is my name?")
        statistics = conversation.statistics()
    assert "Ada" in response.output_text
    assert (statistics.full_turns, statistics.delta_turns) == (1, 1)


async def test_a_run_calls_a_tool(service: LiveService) -> None:
    cities: list[str] = []

    @function_tool
    async def get_weather(city: str) -> str:
        """Return the weather in a city, now."""
        cities.append(city)
        return "27 degrees, sunny"

    async with (
        service.connect() as connection,
        connection.conversation(tools=[get_weather], **service.params) as conversation,
    ):
        response = await conversation.run(
            "What is the weather in Oslo? Call the tool once.", tool_choice="required", max_rounds=3
        )
    assert cities == ["Oslo"]
    assert "27" in response.output_text


async def test_lanes_run_two_turns_at_once(service: LiveService) -> None:
    texts: dict[str, str] = {}

    async def run(lane: Lane, word: str) -> None:
        response = await lane.create(f"Answer with the one word {word}.", **service.params)
        texts[word] = response.output_text.lower()

    try:
        async with (
            service.connect(lanes=True) as connection,
            connection.lane() as first,
            connection.lane() as second,
        ):
            # One turn alone first: a refusal is then a single error.
            await run(first, "ping")
            async with trio.open_nursery() as nursery:
                nursery.start_soon(run, first, "pong")
                nursery.start_soon(run, second, "pang")
            assert None not in {first.name, second.name}
            assert first.previous_response_id != second.previous_response_id
    except APIError as error:
        if service.endpoint.lanes or "stream_id" not in str(error):
            raise
        service.skip(f"the service has no lanes: {error}")
    assert all(word in text for word, text in texts.items())
    assert set(texts) == {"ping", "pong", "pang"}


async def test_steering_changes_an_answer_in_progress(service: LiveService) -> None:
    receipt: SteerReceipt | None = None
    try:
        async with (
            service.connect() as connection,
            connection.stream(COUNT, **service.params) as stream,
        ):
            async for event in stream:
                if receipt is None and event.type == "response.output_text.delta":
                    receipt = await stream.steer("Stop. Answer with the one word done.")
    except StallTimeout as error:
        if receipt is None:
            raise
        service.skip(f"the service has no steering: {error}")
    assert receipt is not None
    if receipt.error is not None:
        service.skip(f"the service took no steering input: {receipt.error.code}")
    assert receipt.state is SteerState.COMMITTED
    assert len(stream.responses) > 1


async def test_an_unknown_previous_response_is_an_error_of_its_own(service: LiveService) -> None:
    async with service.connect() as connection:
        with pytest.raises(PreviousResponseNotFound):
            await connection.create(
                "Hello", previous_response_id=UNKNOWN_RESPONSE, **service.params
            )


async def test_a_refused_key_is_an_error_without_the_key(service: LiveService) -> None:
    with pytest.raises(AuthenticationError) as caught:
        async with service.connect(api_key=WRONG_KEY) as connection:
            await connection.create("Hello", **service.params)
    assert WRONG_KEY not in str(caught.value)
