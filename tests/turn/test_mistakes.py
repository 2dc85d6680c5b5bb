"""A mistake in the parameters or the input of a turn raises before anything is sent."""

from collections.abc import AsyncGenerator
from typing import Any

import pytest

from trio_responses import Conversation, ResponsesConnection, open_pool
from trio_responses._turn.methods import TurnMethods
from trio_responses._turn.responses import Responses
from trio_responses.stores import MemoryStore
from trio_responses.testing import ResponsesServer, open_test_server

MISTAKES: dict[str, tuple[Any, dict[str, Any], type[Exception], str]] = {
    "parameter": ("hi", {"temprature": 0.5}, TypeError, "did you mean 'temperature'"),
    "model": ("hi", {"modle": "m"}, TypeError, "did you mean 'model'"),
    "unknown": ("hi", {"brand_new": 1}, TypeError, "extra_body"),
    "extra": ("hi", {"extra": {"brand_new": 1}}, TypeError, "use extra_body="),
    "timeout": (
        "hi",
        {"timeout": 3},
        TypeError,
        r"use timeouts=Timeouts\(\.\.\.\) or trio\.fail_after",
    ),
    "stream": ("hi", {"stream": True}, TypeError, r"use stream\(\)"),
    "messages": (None, {"messages": []}, TypeError, "use the first argument"),
    "lane": ("hi", {"stream_id": "a"}, TypeError, r"connection\.lane"),
    "generate": ("hi", {"generate": False}, TypeError, r"use warm_up\(\)"),
    "nested": ("hi", {"reasoning": {"efort": "high"}}, TypeError, "did you mean 'effort'"),
    "type": ("hi", {"temperature": "hot"}, TypeError, "temperature must be a number"),
    "word": ("hi", {"truncation": "atuo"}, ValueError, "did you mean 'auto'"),
    "nan": ("hi", {"temperature": float("nan")}, ValueError, "temperature is nan"),
    "infinity": ("hi", {"extra_body": {"a": [1e999]}}, ValueError, "not a finite number"),
    "tool": ("hi", {"tools": [print]}, TypeError, "decorate print with @function_tool"),
    "item": ([{"rol": "user", "content": "hi"}], {}, ValueError, r"input\[0\] .*is 'rol' meant"),
    "text items": (["hi"], {}, TypeError, r"input\[0\] must be an item"),
    "input": (5, {}, TypeError, "input must be text"),
}


@pytest.fixture
async def lenient_server() -> AsyncGenerator[ResponsesServer, None]:
    """A server that accepts requests with any parameters."""
    async with open_test_server(unknown_parameters=True) as server:
        yield server


@pytest.mark.parametrize("name", MISTAKES)
async def test_a_mistake_sends_nothing(lenient_server: ResponsesServer, name: str) -> None:
    given, params, error, words = MISTAKES[name]
    server = lenient_server
    async with (
        server.open_client() as connection,
        connection.lane() as lane,
        open_pool(server.url, dial=server.dial, api_key="any") as pool,
        connection.conversation(model="m") as conversation,
    ):
        places: list[Any] = [connection, lane, pool, connection.responses, conversation]
        for place in places:
            with pytest.raises(error, match=words):
                await place.create(given, **params)
            with pytest.raises(error, match=words):
                place.stream(given, **params)
            with pytest.raises(error, match=words):
                await place.parse(int, given, **params)
            if not isinstance(place, Responses):
                with pytest.raises(error, match=words):
                    await place.warm_up(given, **params)
        with pytest.raises(error, match=words):
            await conversation.run(given, **params)
        with pytest.raises(error, match=words):
            conversation.run_stream(given, **params)
        if given == "hi":
            for opener in connection, pool:
                with pytest.raises(error, match=words):
                    async with opener.conversation(**params):
                        raise AssertionError("the block must not begin")
        assert connection.statistics().requests_active == 0
    assert server.requests == []


async def test_a_misspelt_option_of_a_turn_sends_nothing(lenient_server: ResponsesServer) -> None:
    server = lenient_server
    wrong: dict[str, Any] = {"delivry": "at_least_once"}
    words = "did you mean 'delivery'"
    async with (
        server.open_client() as connection,
        connection.lane() as lane,
        open_pool(server.url, dial=server.dial, api_key="any") as pool,
        connection.conversation(model="m") as conversation,
    ):
        places: list[Any] = [connection, lane, pool, connection.responses, conversation]
        for place in places:
            with pytest.raises(TypeError, match=words):
                await place.create("hi", **wrong)
            with pytest.raises(TypeError, match=words):
                place.stream("hi", **wrong)
            with pytest.raises(TypeError, match=words):
                await place.parse(int, "hi", **wrong)
    assert server.requests == []


@pytest.mark.parametrize(
    ("option", "meant"),
    [
        ("max_round", "max_rounds"),
        ("on_tool_eror", "on_tool_error"),
        ("tool_timeot", "tool_timeout"),
        ("handler", "handlers"),
    ],
)
async def test_a_misspelt_option_of_a_run_sends_nothing(
    lenient_server: ResponsesServer, option: str, meant: str
) -> None:
    wrong: dict[str, Any] = {option: "raise"}
    async with (
        lenient_server.open_client() as connection,
        connection.conversation(model="m") as conversation,
    ):
        words = f"did you mean '{meant}'"
        with pytest.raises(TypeError, match=words):
            await conversation.run("hi", **wrong)
        with pytest.raises(TypeError, match=words):
            conversation.run_stream("hi", **wrong)
        with pytest.raises(TypeError, match=words):
            await conversation.parse(int, "hi", **wrong)
    assert lenient_server.requests == []


async def test_a_misspelt_option_of_a_durable_conversation_acquires_no_lease(
    server: ResponsesServer,
) -> None:
    wrong: dict[str, Any] = {"on_interupted_call": "rerun"}
    async with (
        MemoryStore() as store,
        server.open_client() as connection,
        open_pool(server.url, dial=server.dial, api_key="any") as pool,
    ):
        for place in (connection, pool):
            with pytest.raises(TypeError, match="did you mean 'on_interrupted_call'"):
                async with place.durable_conversation(store, "c", **wrong):
                    pytest.fail("the block began")  # pragma: no cover


async def test_the_message_names_the_method(server: ResponsesServer) -> None:
    wrong: dict[str, Any] = {"modle": "m"}
    methods = {
        "create()": ResponsesConnection.create,
        "warm_up()": ResponsesConnection.warm_up,
        "create() of a conversation": Conversation.create,
        "run() of a conversation": Conversation.run,
    }
    async with (
        server.open_client() as connection,
        connection.conversation(model="m") as conversation,
    ):
        for of, method in methods.items():
            place: Any = conversation if "conversation" in of else connection
            assert isinstance(place, TurnMethods | Conversation)
            run: Any = method
            with pytest.raises(TypeError) as caught:
                await run(place, "hi", **wrong)
            assert str(caught.value) == f"{of} has no parameter 'modle'; did you mean 'model'?"
