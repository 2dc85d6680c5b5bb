"""Tests of the client over HTTP with servers of other projects: agentic-api, aimock and litellm.

agentic-api and litellm are in front of aimock. litellm brings many packages and may have an
environment of its own: ``TRIO_RESPONSES_LITELLM`` is the path of its command.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec
import pytest
import trio

from tests.interop.programs import HANG_GUARD, free_port
from tests.interop.test_client import PONG, SLOW, WEATHER, events_of
from tests.interop.test_uvicorn import Watcher
from trio_responses import (
    APIError,
    ConnectionLost,
    DeliveryStatus,
    PreviousResponseNotFound,
    RateLimitError,
    ReconnectFailed,
    ReconnectPolicy,
    SteerState,
    UnsupportedByTransport,
    function_tool,
    open_responses,
)
from trio_responses.types import (
    FunctionCall,
    Message,
    OutputTextDelta,
    Reasoning,
    ResponseCompleted,
    ResponseCreated,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from tests.interop.programs import Program
    from trio_responses import ResponsesConnection

MODEL = "gpt-5.5"
SERVER_MODEL = "gpt-5.5-server"
"""The model of litellm that is the test server."""
LITELLM_VARIABLE = "TRIO_RESPONSES_LITELLM"
NO_RETRIES = ReconnectPolicy(attempts=0)
QUICK = ReconnectPolicy(initial=0.01, cap=0.01, attempts=2)
MANY = 20


class Server(NamedTuple):
    """A server of another project."""

    url: str
    key: str = "sk-interop"


class City(msgspec.Struct):
    """The answer to the prompt ``typed-city``."""

    city: str
    degrees: float


@function_tool
async def get_weather(city: str) -> str:
    """Tell the weather in a city."""
    await trio.lowlevel.checkpoint()
    return f"21 degrees in {city}"


def litellm_command() -> str:
    command = os.environ.get(LITELLM_VARIABLE) or shutil.which("litellm")
    if command is None:
        pytest.skip(
            "litellm is not installed: pip install 'litellm[proxy]' in an environment of its own,"
            f" and name its command in {LITELLM_VARIABLE}"
        )
    return command


@pytest.fixture(scope="module")
def litellm(
    start: Callable[..., Program],
    aimock_url: str,
    server_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Server:
    """Start the proxy of litellm in front of aimock and of the test server."""
    command, port, key = litellm_command(), free_port(), f"sk-{secrets.token_hex(32)}"
    models = {MODEL: aimock_url, SERVER_MODEL: server_url}
    listed = [
        {
            "model_name": name,
            "litellm_params": {"model": f"openai/{MODEL}", "api_base": url, "api_key": "sk-any"},
        }
        for name, url in models.items()
    ]
    settings: dict[str, Any] = {
        "model_list": listed,
        "general_settings": {"master_key": key},
        "router_settings": {"num_retries": 0, "disable_cooldowns": True},
    }
    path = tmp_path_factory.mktemp("litellm") / "litellm.yaml"
    path.write_text(json.dumps(settings), encoding="utf-8")  # JSON is YAML, too
    offline = ("env", "LITELLM_LOCAL_MODEL_COST_MAP=True")
    address = ("--host", "127.0.0.1", "--port", str(port))
    program = start("litellm", *offline, command, "--config", str(path), *address)
    program.wait_for_port(port)
    return Server(f"http://127.0.0.1:{port}/v1", key)


@pytest.fixture(scope="module")
def agentic(agentic_url: str) -> Server:
    return Server(agentic_url)


@pytest.fixture(scope="module")
def aimock(aimock_url: str) -> Server:
    return Server(aimock_url)


@pytest.fixture(params=["agentic", "aimock", "litellm"])
def server(request: pytest.FixtureRequest) -> Server:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Server)
    return found


@asynccontextmanager
async def opened(server: Server, **options: Any) -> AsyncGenerator[ResponsesConnection, None]:
    """Open a connection over HTTP that must decode and assign every event."""
    options = {"transport": "http", "reconnect": NO_RETRIES, **options}
    with trio.fail_after(HANG_GUARD):
        async with open_responses(server.url, api_key=server.key, **options) as connection:
            yield connection
            statistics = connection.statistics()
            assert statistics.undecodable_frames == 0
            assert statistics.unrouted_events == 0
            assert statistics.unread_bytes == 0
            if options["transport"] == "http":
                assert (statistics.transport, statistics.sockets_opened) == ("http", 0)


# --- Turns -------------------------------------------------------------------------------


async def test_a_stream_yields_every_event_with_its_type(server: Server) -> None:
    async with opened(server) as connection:
        async with connection.stream(model=MODEL, input="ping-text") as stream:
            events = await events_of(stream)
        deltas = [event.delta for event in events if isinstance(event, OutputTextDelta)]
        assert isinstance(events[0], ResponseCreated)
        assert isinstance(events[-1], ResponseCompleted)
        assert len(deltas) > 1
        assert "".join(deltas) == stream.response.output_text == PONG
        assert stream.response.usage is not None


@pytest.mark.parametrize("store", [True, False])
async def test_a_conversation_goes_on(server: Server, *, store: bool) -> None:
    async with (
        opened(server) as connection,
        connection.conversation(model=MODEL, store=store) as conversation,
    ):
        texts = [
            (await conversation.create(text)).output_text
            for text in ("remember-me", "what-colour", "ping-text")
        ]
        statistics = conversation.statistics()
    assert texts == ["I will remember the colour teal.", "The colour was teal.", PONG]
    # Stored responses are continued by their id, others by the whole history.
    turns = (statistics.full_turns, statistics.delta_turns)
    assert turns == ((1, 2) if store else (3, 0))


@pytest.mark.parametrize("store", [True, False])
async def test_a_run_calls_a_tool(server: Server, *, store: bool) -> None:
    async with (
        opened(server) as connection,
        connection.conversation(model=MODEL, store=store, tools=[get_weather]) as conversation,
    ):
        response = await conversation.run("weather-tool")
    assert response.output_text == "It is 21 degrees in Paris."


async def test_a_call_has_its_arguments(server: Server) -> None:
    async with opened(server) as connection:
        response = await connection.create(model=MODEL, input="weather-tool", tools=[WEATHER])
    [call] = response.output
    assert isinstance(call, FunctionCall)
    assert (call.name, json.loads(call.arguments)) == ("get_weather", {"city": "Paris"})


async def test_a_typed_answer_is_parsed(server: Server) -> None:
    async with opened(server) as connection:
        answer = await connection.parse(City, model=MODEL, input="typed-city")
    assert answer.parsed == City("Oslo", 4.5)


async def test_reasoning_is_a_separate_item(server: Server) -> None:
    async with opened(server) as connection:
        response = await connection.create(
            model=MODEL, input="reason-first", reasoning={"effort": "low", "summary": "auto"}
        )
    assert [type(item) for item in response.output[:1]] == [Reasoning]
    assert response.output_text == "42."


async def test_many_turns_run_at_once(server: Server) -> None:
    texts: list[str] = []

    async def ask() -> None:
        texts.append((await connection.create(model=MODEL, input="slow-text")).output_text)

    async with opened(server) as connection:
        async with trio.open_nursery() as nursery:
            for _ in range(MANY):
                nursery.start_soon(ask)
        assert texts == [SLOW] * MANY
        assert connection.statistics().http_requests == MANY


async def test_a_turn_that_is_left_early_does_not_disturb_the_next(server: Server) -> None:
    async with opened(server) as connection:
        async with connection.stream(model=MODEL, input="slow-text") as stream:
            await anext(stream)
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG
        assert connection.statistics().requests_active == 0


async def test_what_http_lacks_fails_at_once(server: Server) -> None:
    async with opened(server) as connection:
        with pytest.raises(UnsupportedByTransport):
            await connection.warm_up(model=MODEL)
        async with connection.stream(model=MODEL, input="slow-text") as stream:
            await anext(stream)
            receipt = await stream.steer("faster")
            assert receipt.state is SteerState.FAILED
            assert (await stream.get_final_response()).output_text == SLOW


# --- Errors ------------------------------------------------------------------------------


async def error_of(server: Server, **params: Any) -> APIError:
    """Run a turn, which must fail, and another one, which must not."""
    async with opened(server) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(**{"model": MODEL, **params})
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG
    assert server.key not in repr(vars(caught.value))
    return caught.value


async def test_an_unknown_model_is_refused(server: Server) -> None:
    error = await error_of(server, model="no-such-model", input="unmatched words here")
    assert error.status in {400, 404}
    assert error.message
    assert error.delivery is DeliveryStatus.REJECTED


async def test_a_rate_limit_is_told_from_other_errors(server: Server) -> None:
    error = await error_of(server, input="error-429")
    assert isinstance(error, RateLimitError)
    assert error.status == 429
    assert error.delivery is DeliveryStatus.REJECTED


async def test_an_error_of_the_server_has_its_status(server: Server) -> None:
    error = await error_of(server, input="error-500")
    assert error.status in {500, 502}
    assert error.message


async def test_a_path_without_the_api_is_not_found(server: Server) -> None:
    async with opened(server._replace(url=f"{server.url}/nowhere")) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(model=MODEL, input="ping-text")
    assert caught.value.status == 404


@pytest.mark.parametrize("name", ["agentic", "litellm"])
async def test_a_conversation_continues_whose_responses_the_server_has_lost(
    request: pytest.FixtureRequest, name: str
) -> None:
    """agentic-api answers 404 without a code for this, litellm quotes the code of its server."""
    server: Server = request.getfixturevalue(name)
    model = SERVER_MODEL if name == "litellm" else MODEL
    async with opened(server) as connection:
        with pytest.raises(APIError, match="not found") as caught:
            await connection.create(model=model, input="hi", previous_response_id="resp_unknown")
        assert caught.value.delivery is DeliveryStatus.REJECTED
        assert isinstance(caught.value, PreviousResponseNotFound) == (name == "litellm")
        async with connection.conversation(model=model, store=True) as conversation:
            first = await conversation.create("ping-text")
            saved = conversation.checkpoint().replace(first.id.encode(), b"resp_unknown")
            # agentic-api refuses an item that it has stored, and here it still has this one.
            [item] = first.output
            assert isinstance(item, Message)
            saved = saved.replace(str(item.id).encode(), b"msg_unknown")
        async with connection.restore_conversation(saved) as conversation:
            assert (await conversation.create("ping-text")).output_text
            statistics = conversation.statistics()
            roles = [getattr(item, "role", None) for item in conversation.items]
    assert (statistics.full_turns, statistics.delta_turns) == (1, 1)
    assert roles == ["user", "assistant"] * 2


# --- Transports ---------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["agentic", "aimock"])
async def test_auto_uses_the_websocket_of_a_server_that_has_one(
    request: pytest.FixtureRequest, name: str
) -> None:
    server: Server = request.getfixturevalue(name)
    async with opened(server, transport="auto") as connection:
        assert (await connection.create(model=MODEL, input="ping-text")).output_text == PONG
        statistics = connection.statistics()
    assert (statistics.transport, statistics.sockets_opened) == ("websocket", 1)


async def test_auto_goes_over_where_litellm_closes_each_websocket(litellm: Server) -> None:
    """litellm accepts the upgrade, and closes with 1011 if its own server has no WebSocket mode."""
    watcher, text = Watcher(), ""
    codes: list[tuple[int | None, DeliveryStatus | None]] = []
    async with opened(
        litellm, transport="auto", reconnect=QUICK, instruments=[watcher]
    ) as connection:
        while not text:
            try:
                text = (await connection.create(model=MODEL, input="ping-text")).output_text
            except ConnectionLost as lost:
                codes.append((lost.code, lost.delivery))
        assert text == PONG
        assert connection.statistics().transport == "http"
    assert codes == [(1011, DeliveryStatus.AMBIGUOUS)] * (QUICK.attempts + 1)
    [(transport, error)] = watcher.changes
    assert transport == "http"
    assert isinstance(error, ReconnectFailed)
    assert isinstance(error.__cause__, ConnectionLost)
    assert error.__cause__.code == 1011
