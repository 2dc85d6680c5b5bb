"""Orders that make no sense are refused when they are given, or by the request that takes them."""

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
    ("order", "kind", "words"),
    [
        (
            methodcaller("fail", "rate_limit_exceded"),
            ValueError,
            "('rate_limit_exceeded'?): give it",
        ),
        (
            methodcaller("fail", "nonsense"),
            ValueError,
            "no code 'nonsense' is known: give it a message",
        ),
        (methodcaller("fail", 429), TypeError, "the code of an error is a string or None, not 429"),
        (methodcaller("fail", shape="round"), ValueError, "shape is 'nested' or 'headers' or"),
        (methodcaller("reply", 3), TypeError, "the text of a reply is a string or None, not 3"),
        (methodcaller("reply", "x", status="done"), ValueError, "status is 'completed' or"),
        (methodcaller("reply", "x", more="yz"), TypeError, "more are a list, not 'yz'"),
        (methodcaller("reply", "x", chunks=["x", 1]), TypeError, "chunks[1] is a string, not 1"),
        (methodcaller("reply", "x", calls=["f"]), TypeError, "calls[0] is a Call, not 'f'"),
        (methodcaller("call", WEATHER), TypeError, "the name of a call is a string, not {"),
        (methodcaller("call", "f", "no dict"), ValueError, "a JSON object, not 'no dict'"),
        (methodcaller("call", "f", ["a"]), TypeError, "is a dict or a string, not ['a']"),
        (methodcaller("calls", "f"), TypeError, "calls[0] is a Call, not 'f'"),
        (
            methodcaller("answer", 3),
            TypeError,
            "an answer is a Reply or a Fail or a Call or a string",
        ),
        (methodcaller("drop", how="rst"), ValueError, "how is 'reset' or 'fin', not 'rst'"),
        (methodcaller("drop", how=1006), ValueError, "carries the code 1006: how='reset' or"),
        (methodcaller("drop", how=70_000), ValueError, "no close frame carries the code 70000"),
        (methodcaller("drop_on_accept", "rst"), ValueError, "how is 'reset' or 'fin', not 'rst'"),
        (methodcaller("drop_handshake", "rst"), ValueError, "how is 'fin' or 'reset', not 'rst'"),
        (methodcaller("reply", "x", chunk_size=0), ValueError, "chunk_size is 1 or more, not 0"),
        (methodcaller("reply", "x", delay=-1), ValueError, "delay is 0 or more, not -1"),
        (methodcaller("reply", "x", delay="1"), TypeError, "delay is an int or a float or None"),
        (methodcaller("stall", seconds=-1), ValueError, "seconds is 0 or more, not -1"),
        (methodcaller("refuse", 503, times=-1), ValueError, "times is 0 or more, not -1"),
    ],
)
async def test_an_order_that_makes_no_sense_is_refused_at_once(
    order: methodcaller, kind: type[Exception], words: str, server: ResponsesServer
) -> None:
    with pytest.raises(kind) as refused:
        order(server)
    assert words in str(refused.value)


async def test_what_is_ordered_for_no_time_does_not_happen(server: ResponsesServer) -> None:
    server.refuse(503, times=0)
    server.drop_on_accept(times=0)
    server.refuse_steers(times=0)
    server.assert_all_orders_used()
    async with connect(server) as client:
        await client.response(input="Hello")


async def test_a_word_about_steering_is_a_known_one(server: ResponsesServer) -> None:
    word: Any = "stop"
    with pytest.raises(ValueError, match="how is 'interrupt' or 'finish' or 'fail', not 'stop'"):
        server.answer().when_steered(word)


@pytest.mark.parametrize(
    ("options", "words"),
    [({"piece": 0}, "piece is 1 or more, not 0"), ({"delay": -1}, "delay is 0 or more, not -1")],
)
async def test_what_cannot_be_written_slowly_is_refused(
    options: dict[str, Any], words: str, server: ResponsesServer
) -> None:
    with pytest.raises(ValueError, match=words):
        server.answer().slow_writes(**options)


async def test_connections_are_not_closed_with_what_no_close_frame_carries(
    server: ResponsesServer,
) -> None:
    with pytest.raises(ValueError, match="no close frame carries the code 1006"):
        await server.close_all(1006)


@pytest.mark.parametrize(
    "order",
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
async def test_an_order_that_may_be_meant_is_taken(
    order: methodcaller, server: ResponsesServer
) -> None:
    order(server)
    with pytest.raises(AssertionError, match="left of the orders"):
        server.assert_all_orders_used()


@pytest.mark.parametrize(
    ("order", "shown"),
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
async def test_an_order_is_shown_as_it_was_written(order: object, shown: str) -> None:
    assert repr(order) == shown


async def test_what_is_left_is_shown_without_defaults(server: ResponsesServer) -> None:
    server.reply("x").drop(after_events=3)
    server.call("f")
    with pytest.raises(AssertionError) as left:
        server.assert_all_orders_used()
    assert "<Script: Reply('x'), Drop('reset') at 3>, <Script: Call('f')>;" in str(left.value)


async def test_an_answer_of_a_responder_that_is_none_is_its_crash() -> None:
    answer: Any = 3
    async with open_test_server() as server, connect(server) as client:
        server.respond_with(lambda _: answer)
        await client.error(input="hi")
        assert [type(crash) for crash in server.crashes] == [TypeError]


# --- Calls of functions ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "offered"),
    [
        ({}, "none"),
        ({"tools": [WEATHER, {"type": "web_search"}]}, "get_weather"),
        ({"tools": [{"type": "namespace", "name": "n", "tools": [WEATHER]}]}, "get_weather"),
        ({"tools": [{"type": "custom", "name": "get_wether"}]}, "none"),
    ],
)
async def test_a_call_of_a_function_that_is_not_offered_is_a_crash(
    fields: dict[str, Any], offered: str
) -> None:
    async with open_test_server() as server, connect(server) as client:
        server.reply("Let me see.", calls=[Call("get_wether")])
        error = await client.error(input="hi", **fields)
        (crash,) = server.crashes
        assert str(crash).startswith(
            f"the order calls 'get_wether', and the request offers: {offered} ("
        )
        assert (error["status"], error["error"]["message"]) == (500, str(crash))


FOUND: dict[str, Any] = {"type": "tool_search_output", "call_id": "c", "tools": [WEATHER]}


@pytest.mark.parametrize(
    "fields",
    [
        {"tools": [WEATHER]},
        {"tools": [{"type": "namespace", "name": "n", "tools": [WEATHER]}]},
        {"input": [FOUND], "tools": [{"type": "tool_search"}]},
        {"prompt": {"id": "pmpt_1"}},
    ],
)
async def test_a_call_of_a_function_that_the_request_brings_is_fine(
    fields: dict[str, Any], server: ResponsesServer
) -> None:
    server.call("get_weather")
    async with connect(server) as client:
        response = await client.response(**{"input": "hi", **fields})
    assert response["output"][0]["name"] == "get_weather"


async def test_a_name_that_is_made_up_on_purpose_passes(server: ResponsesServer) -> None:
    server.call("get_wether", unoffered=True)
    async with connect(server) as client:
        response = await client.response(input="hi", tools=[WEATHER])
    assert response["output"][0]["name"] == "get_wether"


@pytest.mark.parametrize(
    "tools", [[{"type": "namespace", "tools": ["x", 3]}], [{"type": "x", "tools": "y"}]]
)
async def test_tools_of_any_form_are_looked_at(tools: list[Any], server: ResponsesServer) -> None:
    server.call("f")
    async with connect(server) as client:
        await client.error(input="hi", tools=tools)
    assert len(server.crashes) == 1
    server.crashes.clear()


@pytest.mark.parametrize(
    "code",
    [
        "usage_limit_reached",
        "usage_not_included",
        "credit_balance_exhausted",
        "invalid_encrypted_content",
    ],
)
async def test_codes_that_were_seen_need_no_message(code: str) -> None:
    Fail(code, status=429)
