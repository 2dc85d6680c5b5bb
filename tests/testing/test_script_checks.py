"""Scripts that make no sense raise at once, or when the request that takes them does not fit."""

from __future__ import annotations

from operator import methodcaller
from typing import TYPE_CHECKING, Any

import pytest

from tests.testing.driver import NO_WAITING, connect
from trio_responses.testing import Call, Fail, Reply, open_test_server

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING

WEATHER: dict[str, Any] = {"type": "function", "name": "get_weather", "parameters": {}}


@pytest.mark.parametrize(
    ("script", "kind", "message"),
    [
        (
            methodcaller("fail", "rate_limit_exceded"),
            ValueError,
            "'rate_limit_exceded' (did you mean 'rate_limit_exceeded'?)",
        ),
        (
            methodcaller("fail", "nonsense"),
            ValueError,
            "unknown error code 'nonsense'; to send it anyway, pass message=...",
        ),
        (
            methodcaller("fail", 429),
            TypeError,
            "the code of an error must be a string or None, not 429",
        ),
        (methodcaller("fail", shape="round"), ValueError, "shape must be 'nested' or 'headers' or"),
        (
            methodcaller("reply", 3),
            TypeError,
            "the text of a reply must be a string or None, not 3",
        ),
        (methodcaller("reply", "x", status="done"), ValueError, "status must be 'completed' or"),
        (methodcaller("reply", "x", more="yz"), TypeError, "more must be a list, not 'yz'"),
        (
            methodcaller("reply", "x", chunks=["x", 1]),
            TypeError,
            "chunks[1] must be a string, not 1",
        ),
        (methodcaller("reply", "x", calls=["f"]), TypeError, "calls[0] must be a Call, not 'f'"),
        (methodcaller("call", WEATHER), TypeError, "the name of a call must be a string, not {"),
        (
            methodcaller("call", "f", "no dict"),
            ValueError,
            "a JSON object as text, not 'no dict'",
        ),
        (methodcaller("call", "f", ["a"]), TypeError, "must be a dict or a string, not ['a']"),
        (methodcaller("calls", "f"), TypeError, "calls[0] must be a Call, not 'f'"),
        (
            methodcaller("answer", 3),
            TypeError,
            "an answer must be a Reply or a Fail or a Call or a string",
        ),
        (methodcaller("drop", how="rst"), ValueError, "how must be 'reset' or 'fin', not 'rst'"),
        (
            methodcaller("drop", how=1006),
            ValueError,
            "not 1006; for an end without a close frame",
        ),
        (
            methodcaller("drop", how=70_000),
            ValueError,
            "1005, 1006 and 1015 (never sent), not 70000",
        ),
        (
            methodcaller("drop_on_accept", "rst"),
            ValueError,
            "how must be 'reset' or 'fin', not 'rst'",
        ),
        (
            methodcaller("drop_handshake", "rst"),
            ValueError,
            "how must be 'fin' or 'reset', not 'rst'",
        ),
        (
            methodcaller("reply", "x", chunk_size=0),
            ValueError,
            "chunk_size must be 1 or more, not 0",
        ),
        (methodcaller("reply", "x", delay=-1), ValueError, "delay must be 0 or more, not -1"),
        (
            methodcaller("reply", "x", delay="1"),
            TypeError,
            "delay must be an int or a float or None",
        ),
        (methodcaller("stall", seconds=-1), ValueError, "seconds must be 0 or more, not -1"),
        (methodcaller("refuse", 503, times=-1), ValueError, "times must be 0 or more, not -1"),
    ],
)
async def test_an_invalid_script_raises_at_once(
    script: methodcaller, kind: type[Exception], message: str, server: ResponsesServer
) -> None:
    with pytest.raises(kind) as refused:
        script(server)
    assert message in str(refused.value)


async def test_a_fault_with_zero_uses_does_not_happen(server: ResponsesServer) -> None:
    server.refuse(503, times=0)
    server.drop_on_accept(times=0)
    server.refuse_steers(times=0)
    server.assert_all_scripts_used()
    async with connect(server) as client:
        await client.response(input="Hello")


async def test_an_unknown_reaction_to_steering_raises(server: ResponsesServer) -> None:
    unknown: Any = "stop"
    with pytest.raises(
        ValueError, match="how must be 'interrupt' or 'finish' or 'fail', not 'stop'"
    ):
        server.answer().on_steer(unknown)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"piece": 0}, "piece must be 1 or more, not 0"),
        ({"delay": -1}, "delay must be 0 or more, not -1"),
    ],
)
async def test_invalid_options_of_slow_writes_raise(
    options: dict[str, Any], message: str, server: ResponsesServer
) -> None:
    with pytest.raises(ValueError, match=message):
        server.answer().slow_writes(**options)


async def test_closing_with_a_code_that_no_close_frame_carries_raises(
    server: ResponsesServer,
) -> None:
    with pytest.raises(ValueError, match=r"a close code must be 1000 to 4999.* not 1006"):
        await server.close_all(1006)


@pytest.mark.parametrize(
    "script",
    [
        methodcaller("fail", "nonsense", message="It has none."),
        methodcaller("stall", seconds=float("inf")),
        methodcaller("fail", None),
        methodcaller("fail", "model_not_found", status=404),
        methodcaller("call", "f", '{"cut o', unoffered=True),
        methodcaller("call", "f", "", unoffered=True),
        methodcaller("reply", chunks=[]),
        methodcaller("drop", how=1012),
    ],
)
async def test_an_unusual_but_valid_script_is_accepted(
    script: methodcaller, server: ResponsesServer
) -> None:
    script(server)
    with pytest.raises(AssertionError, match="unused scripts"):
        server.assert_all_scripts_used()


@pytest.mark.parametrize(
    ("answer", "shown"),
    [
        (Reply("x"), "Reply('x')"),
        (
            Reply("x", chunk_size=2, calls=[Call("f")]),
            "Reply('x', calls=[Call('f')], chunk_size=2)",
        ),
        (Call("f", {"a": 1}, call_id="c"), "Call('f', {'a': 1}, call_id='c')"),
        (Fail(), "Fail()"),
        (Fail("slow_down", status=503), "Fail('slow_down', status=503)"),
    ],
)
async def test_the_repr_of_an_answer_is_its_constructor_call(answer: object, shown: str) -> None:
    assert repr(answer) == shown


async def test_unused_scripts_are_shown_without_defaults(server: ResponsesServer) -> None:
    server.reply("x").drop(after_events=3)
    server.call("f")
    with pytest.raises(AssertionError) as unused:
        server.assert_all_scripts_used()
    assert "<Script: Reply('x'), Drop('reset') at 3>, <Script: Call('f')>;" in str(unused.value)


async def test_an_invalid_answer_of_a_responder_is_a_crash() -> None:
    answer: Any = 3
    async with open_test_server() as server, connect(server) as client:
        server.respond_with(lambda _: answer)
        await client.error(input="hi")
        assert [type(crash) for crash in server.errors] == [TypeError]


# --- Calls of functions ---


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({}, "none"),
        ({"tools": [WEATHER, {"type": "web_search"}]}, "get_weather"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [WEATHER]}]}, "n.get_weather"),
        ({"tools": [{"type": "custom", "name": "get_wether"}]}, "none"),
    ],
)
async def test_a_call_of_an_unoffered_function_is_a_crash(
    fields: dict[str, Any], offered: str
) -> None:
    async with open_test_server() as server, connect(server) as client:
        server.reply("Let me see.", calls=[Call("get_wether")])
        error = await client.error(input="hi", **fields)
        (crash,) = server.errors
        assert str(crash).startswith(
            f"the script calls the function 'get_wether', but the request offers: {offered};"
        )
        assert (error["status"], error["error"]["message"]) == (500, str(crash))


FOUND: dict[str, Any] = {"type": "tool_search_output", "execution": "server", "tools": [WEATHER]}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER]},
        {"input": [FOUND], "tools": [{"type": "tool_search"}]},
        {"prompt": {"id": "pmpt_1"}},
    ],
)
async def test_a_call_of_an_offered_function_is_sent(
    fields: dict[str, Any], server: ResponsesServer
) -> None:
    server.call("get_weather")
    async with connect(server) as client:
        response = await client.response(**{"input": "hi", **fields})
    assert response["output"][0]["name"] == "get_weather"


SPACE: dict[str, Any] = {"type": "namespace", "name": "crm", "tools": [WEATHER, 3]}


async def test_a_call_of_a_function_in_a_namespace_has_the_namespace(
    server: ResponsesServer,
) -> None:
    server.call("get_weather", namespace="crm")
    async with connect(server) as client:
        response = await client.response(input="hi", tools=[SPACE])
        [call] = response["output"]
        assert (call["name"], call["namespace"]) == ("get_weather", "crm")


@pytest.mark.parametrize(
    "choice",
    ["auto", "required", {"type": "function", "name": "get_weather", "namespace": "crm"}],
)
async def test_the_default_answer_calls_a_function_in_a_namespace(
    server: ResponsesServer, choice: Any
) -> None:
    async with connect(server) as client:
        response = await client.response(
            input="The weather in Oslo?", tools=[SPACE], tool_choice=choice
        )
        [call] = response["output"]
        assert (call["name"], call["namespace"]) == ("get_weather", "crm")


async def test_an_unoffered_call_is_sent_if_it_is_marked(server: ResponsesServer) -> None:
    server.call("get_wether", unoffered=True)
    async with connect(server) as client:
        response = await client.response(input="hi", tools=[WEATHER])
    assert response["output"][0]["name"] == "get_wether"


@pytest.mark.parametrize(
    "tools", [[{"type": "namespace", "tools": ["x", 3]}], [{"type": "mcp", "tools": "y"}]]
)
async def test_malformed_tools_offer_no_function(tools: list[Any], server: ResponsesServer) -> None:
    server.call("f")
    async with connect(server) as client:
        await client.error(input="hi", tools=tools)
    assert len(server.errors) == 1
    server.errors.clear()


@pytest.mark.parametrize(
    "code",
    [
        "usage_limit_reached",
        "usage_not_included",
        "credit_balance_exhausted",
        "invalid_encrypted_content",
    ],
)
async def test_known_error_codes_need_no_message(code: str) -> None:
    Fail(code, status=429)
