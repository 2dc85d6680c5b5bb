"""Assertions of a test about the server: unused scripts, and received requests."""

from typing import Any

import pytest

from tests.testing.driver import NO_WAITING, connect
from trio_responses.testing import Call, Request, ResponsesServer
from trio_responses.testing._history import History


def call(call_id: str, name: str) -> dict[str, Any]:
    return {"type": "function_call", "call_id": call_id, "name": name, "arguments": "{}"}


def output(call_id: str, text: Any) -> dict[str, Any]:
    return {"type": "function_call_output", "call_id": call_id, "output": text}


@NO_WAITING
async def test_last_request_returns_the_latest_request(server: ResponsesServer) -> None:
    with pytest.raises(AssertionError, match="the server has received no request"):
        _ = server.last_request
    async with connect(server) as client:
        await client.response(input="one")
        await client.response(input="two")
    assert server.last_request is server.requests[1]


@NO_WAITING
async def test_a_server_without_scripts_has_no_unused_scripts(server: ResponsesServer) -> None:
    server.assert_all_scripts_used()


@NO_WAITING
async def test_a_used_script_passes_the_assertion(server: ResponsesServer) -> None:
    server.reply("one")
    with pytest.raises(
        AssertionError, match=r"unused scripts: .*'one'.* received: 0, handshakes: 0"
    ):
        server.assert_all_scripts_used()
    async with connect(server) as client:
        await client.response(input="Hello")
    server.assert_all_scripts_used()


@NO_WAITING
async def test_the_assertion_shows_unused_scripts_as_they_were_written(
    server: ResponsesServer,
) -> None:
    server.call("get_weather", {"city": "Oslo"}).stall(after_events=3)
    server.drop(after_events=None, how=1012)
    with pytest.raises(AssertionError) as unused:
        server.assert_all_scripts_used()
    for words in ("get_weather", "Oslo", "Stall(seconds=None) at 3", "default answer", "the end"):
        assert words in str(unused.value)


@NO_WAITING
async def test_unused_refusals_and_faults_fail_the_assertion(server: ResponsesServer) -> None:
    server.refuse(503, times=2)
    server.refuse_steers()
    with pytest.raises(AssertionError, match=r"refuse_steers.*times=1.*503.* for 2 handshakes"):
        server.assert_all_scripts_used()
    server.clear_scripts()
    server.assert_all_scripts_used()


@NO_WAITING
async def test_faults_without_a_limit_pass_the_assertion(server: ResponsesServer) -> None:
    server.refuse(503, times=None)
    server.refuse_steers(times=None)
    server.assert_all_scripts_used()


@NO_WAITING
async def test_an_output_is_found_by_call_id_and_by_function_name(server: ResponsesServer) -> None:
    names = {"call_1": "get_weather", "call_2": "get_time"}
    server.calls(*(Call(name, call_id=it, unoffered=True) for it, name in names.items()))
    async with connect(server) as client:
        first = await client.response(input="Hello")
        await client.response(
            input=[output("call_1", "snow"), output("call_2", "noon")],
            previous_response_id=first["id"],
        )
    request = server.last_request
    assert request.output_of("call_1") == request.output_of("get_weather") == "snow"
    assert request.output_of("call_2") == request.output_of("get_time") == "noon"


def test_an_output_is_found_in_a_full_history() -> None:
    request = Request(body={"input": [call("c", "f"), output("c", "x")]}, connection=1)
    assert request.output_of("c") == request.output_of("f") == "x"


def test_an_output_of_content_parts_is_returned_unchanged() -> None:
    parts = [{"type": "input_text", "text": "snow"}]
    request = Request(body={"input": [output("c", parts)]}, connection=1)
    assert request.output_of("c") == parts


def test_outputs_of_earlier_requests_are_not_found() -> None:
    history = [call("c", "f"), output("c", "old"), {"type": "message", "role": "user"}]
    request = Request(body={"input": "Hello"}, connection=1, conversation=History(history))
    with pytest.raises(AssertionError, match="no outputs for 'f'; its outputs are: none"):
        request.output_of("f")


def test_the_name_of_a_function_called_twice_is_ambiguous() -> None:
    items = [call("c", "f"), call("d", "f"), output("c", "x"), output("d", "y")]
    request = Request(body={"input": items}, connection=1)
    with pytest.raises(
        AssertionError,
        match=r"2 outputs for 'f' \(pass a call_id instead\); its outputs are: c \(f\), d \(f\)",
    ):
        request.output_of("f")
    assert request.output_of("d") == "y"


def test_the_error_lists_outputs_without_a_known_call() -> None:
    request = Request(body={"input": [output("c", "x")]}, connection=1)
    with pytest.raises(
        AssertionError, match=r"no outputs for 'f'; its outputs are: c \(unknown function\)"
    ):
        request.output_of("f")
