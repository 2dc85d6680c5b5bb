"""Refused requests, and errors in every shape."""

from typing import Any

import msgspec
import pytest

from tests.testing.driver import NO_WAITING, connect
from trio_responses._wire import ResponseCreate
from trio_responses.testing import ERROR_SHAPES, ErrorShape, ResponsesServer, open_test_server

pytestmark = NO_WAITING


def repr_start(value: object) -> str:
    return repr(value)[:20]


@pytest.mark.parametrize(
    "frame",
    [
        "{not json",
        "[]",
        "5",
        '"text"',
        "null",
        b"\x00\x01",
        b'{"type": "response.create"}',
        "[" * 100_000,
        '{"a":' * 100_000,
    ],
    ids=repr_start,
)
async def test_a_frame_that_is_not_a_json_object_is_refused(
    server: ResponsesServer, frame: str | bytes
) -> None:
    async with connect(server) as client:
        await client.send_frame(frame)
        refused = await client.receive()
        assert (refused["type"], refused["status"]) == ("error", 400)
        assert refused["error"]["type"] == "invalid_request_error"
        await client.response(input="the socket stays open")


@pytest.mark.parametrize("kind", ["response.cancel", "response.append", "nonsense", None, 5, []])
async def test_an_unknown_event_type_is_refused(server: ResponsesServer, kind: Any) -> None:
    async with connect(server) as client:
        await client.send_json({"type": kind})
        refused = await client.receive()
        assert (refused["type"], refused["status"]) == ("error", 400)
        assert refused["error"]["param"] == "type"
        await client.response(input="the socket stays open")
    assert len(server.requests) == 1


WRONG_FIELDS: list[tuple[dict[str, Any], str, str]] = [
    ({"model": None}, "missing_required_parameter", "model"),
    ({"model": ""}, "missing_required_parameter", "model"),
    ({"model": 5}, "invalid_type", "model"),
    ({"input": 5}, "invalid_type", "input"),
    ({"input": {}}, "invalid_type", "input"),
    ({"input": ["text"]}, "invalid_type", "input[0]"),
    ({"background": True}, "unsupported_parameter", "background"),
    ({"temperature": "hot"}, "invalid_type", "temperature"),
    ({"temperature": True}, "invalid_type", "temperature"),
    ({"store": 1}, "invalid_type", "store"),
    ({"tools": {}}, "invalid_type", "tools"),
    ({"tools": [{}]}, "missing_required_parameter", "tools[0].type"),
    ({"tools": [{"type": "function"}]}, "missing_required_parameter", "tools[0].name"),
    ({"previous_response_id": 5}, "invalid_type", "previous_response_id"),
]


@pytest.mark.parametrize(("fields", "code", "param"), WRONG_FIELDS)
async def test_the_refusal_of_an_invalid_field_names_the_field(
    server: ResponsesServer, fields: dict[str, Any], code: str, param: str
) -> None:
    server.reply("not consumed by a refusal")
    async with connect(server) as client:
        refused = await client.error(**{"input": "hi", **fields})
        assert (refused["error"]["code"], refused["error"]["param"]) == (code, param)
        assert refused["status"] == 400
        response = await client.response(input="hi")
    assert response["output"][0]["content"][0]["text"] == "not consumed by a refusal"


async def test_the_refusal_of_an_unknown_field_names_the_field(server: ResponsesServer) -> None:
    async with connect(server) as client:
        refused = await client.error(input="hi", temprature=1, zone="none")
        assert refused["status"] == 400
        assert refused["error"] == {
            "type": "invalid_request_error",
            "code": "unknown_parameter",
            "message": "Unknown parameter: 'temprature'.",
            "param": "temprature",
        }
        await client.response(input="hi", temperature=1)


async def test_unknown_fields_pass_with_unknown_parameters_set() -> None:
    async with open_test_server(unknown_parameters=True) as server, connect(server) as client:
        await client.response(input="hi", some_new_field={"x": [1]})
        assert (await client.error(input="hi", model=3, zone="none"))["error"]["param"] == "model"
    assert server.requests[0]["some_new_field"] == {"x": [1]}


async def test_every_field_of_response_create_is_known(server: ResponsesServer) -> None:
    fields = {field.encode_name for field in msgspec.structs.fields(ResponseCreate)}
    others = {"model", "input", "extra", "stream_id", "previous_response_id"}
    async with connect(server) as client:
        await client.response(input="hi", **dict.fromkeys(fields - others))
        await client.response(input="hi", stream=True, background=False)
        await client.response(input="hi", multi_agent={"enabled": True}, client_metadata={})


ERROR = {
    "type": "service_unavailable_error",
    "code": "server_is_overloaded",
    "message": "busy",
    "param": None,
}
SHAPES: dict[ErrorShape, dict[str, Any]] = {
    "nested": {"type": "error", "status": 503, "error": ERROR},
    "headers": {"type": "error", "status": 503, "error": ERROR, "headers": {"retry-after": 2}},
    "sequenced": {"type": "error", "error": ERROR, "sequence_number": 2},
    "status_code": {"type": "error", "status_code": 503, "error": ERROR},
    "detail": {"type": "error", "status": 503, "error": {"detail": "busy"}},
    "flat": {
        "type": "error",
        "code": "server_is_overloaded",
        "message": "busy",
        "param": None,
        "sequence_number": 2,
    },
}


@pytest.mark.parametrize("shape", SHAPES)
async def test_an_error_has_the_scripted_shape(server: ResponsesServer, shape: ErrorShape) -> None:
    headers = {"retry-after": 2} if shape == "headers" else None
    server.fail(
        "server_is_overloaded",
        status=503,
        message="busy",
        shape=shape,
        after_events=2,
        headers=headers,
    )
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.events()
        await client.response(input="the socket stays open")
    assert [event["type"] for event in events[:-1]] == ["response.created", "response.in_progress"]
    assert events[-1] == SHAPES[shape]


async def test_an_error_can_be_a_failed_response(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, shape="failed", after_events=2)
    async with connect(server) as client:
        await client.send(input="hi")
        events = await client.events()
    assert events[-1]["type"] == "response.failed"
    assert events[-1]["sequence_number"] == 2
    assert events[-1]["response"]["id"] == events[0]["response"]["id"]
    assert events[-1]["response"]["error"]["code"] == "rate_limit_exceeded"


@pytest.mark.parametrize("count", [0, 1, 2, 5])
@pytest.mark.parametrize("shape", ERROR_SHAPES)
async def test_an_error_comes_after_the_scripted_number_of_events(
    server: ResponsesServer, shape: ErrorShape, count: int
) -> None:
    server.fail(shape=shape, after_events=count)
    async with connect(server) as client:
        await client.send(input="hi", stream_id="a")
        events = await client.events()
    assert len(events) == count + 1
    assert {event["stream_id"] for event in events} == {"a"}
