"""Decoding of errors: every shape in which servers wrap an error becomes an ErrorEvent."""

import json
from pathlib import Path
from typing import Any

import pytest

from trio_responses._wire import (
    ErrorEvent,
    SteerFailed,
    UndecodableFrame,
    decode,
    parse_retry_after,
)
from trio_responses._wire.errors import decode_error_body, error_message
from trio_responses._wire.retry_hints import RateReport, parse_rate_reports, parse_retry_message

SHAPES: dict[str, Any] = json.loads(
    (Path(__file__).parent.parent / "data" / "wire_schema.json").read_text()
)["errors"]["shapes"]


def read(**fields: Any) -> ErrorEvent:
    event = decode(json.dumps(fields).encode())
    assert isinstance(event, ErrorEvent)
    return event


@pytest.mark.parametrize("name", SHAPES)
def test_every_listed_shape_is_decoded_as_an_error(name: str) -> None:
    shape = {key.removesuffix("?"): value for key, value in SHAPES[name].items()}
    event = decode(json.dumps(shape).encode())
    assert isinstance(event, SteerFailed if name == "steer_failed" else ErrorEvent)


def test_every_field_of_the_documented_shape_is_decoded() -> None:
    raw = (
        b'{"type":"error","status":400,"stream_id":"main","sequence_number":5,"error":{"type":'
        b'"invalid_request_error","code":"previous_response_not_found","message":"Not found.",'
        b'"param":"previous_response_id","misalignment":{"error_type":"x"}}}'
    )
    assert decode(raw) == ErrorEvent(
        status=400,
        stream_id="main",
        sequence_number=5,
        code="previous_response_not_found",
        message="Not found.",
        param="previous_response_id",
        error_type="invalid_request_error",
        misalignment={"error_type": "x"},
        raw=raw,
    )


def test_headers_inside_and_outside_the_error_get_lower_case_names_and_text_values() -> None:
    event = read(
        type="error",
        error={"headers": {"Retry-After": "1", "X-Inner": True, "x-null": None}},
        headers={"X-Percent": 99.5, "x-minutes": 15, "retry-after": "2", "x-list": []},
    )
    assert event.headers == {
        "retry-after": "2",
        "x-inner": "true",
        "x-percent": "99.5",
        "x-minutes": "15",
    }
    assert read(type="error", headers="?").headers == {}


def test_an_error_in_the_middle_of_a_response_needs_no_status() -> None:
    error = {"type": "service_unavailable_error", "code": "server_is_overloaded", "param": None}
    event = read(type="error", error=error, sequence_number=2)
    assert (event.status, event.code, event.sequence_number) == (None, "server_is_overloaded", 2)
    assert event.error_type == "service_unavailable_error"


@pytest.mark.parametrize("status", [429, "429", 429.0])
def test_a_status_may_have_two_names_and_be_a_number_or_text(status: Any) -> None:
    assert read(type="error", status_code=status).status == 429
    assert read(type="error", status=status).status == 429
    assert read(type="error", error={"status": status}).status == 429


@pytest.mark.parametrize("status", ["failed", None, [], 1.5])
def test_a_status_that_is_no_number_is_dropped(status: Any) -> None:
    assert read(type="error", status=status, error={"code": "x"}).status is None


def test_an_error_whose_fields_are_at_the_top_level_is_decoded() -> None:
    event = read(type="error", code="x", message="m", param="p", sequence_number=0)
    assert (event.code, event.message, event.param, event.sequence_number) == ("x", "m", "p", 0)


def test_a_detail_becomes_the_message() -> None:
    assert read(type="error", error={"detail": "Unsupported"}).message == "Unsupported"
    assert read(type="error", detail="Unsupported").message == "Unsupported"
    assert read(detail=[{"msg": "bad"}]).message == '[{"msg":"bad"}]'


def test_an_error_needs_no_type() -> None:
    assert read(error={"code": "x", "message": "m"}).code == "x"
    assert read(detail="Not found").message == "Not found"


def test_an_error_may_be_plain_text() -> None:
    assert read(type="error", error="broken").message == "broken"
    event = read(error="invalid_key", message="The key is wrong")
    assert (event.code, event.message) == ("invalid_key", "The key is wrong")


def test_response_error_is_decoded_as_an_error_event() -> None:
    event = read(type="response.error", error={"code": "x"})
    assert event.code == "x"
    assert event.type == "error"


def test_a_numeric_code_becomes_text() -> None:
    assert read(type="error", error={"code": 404}).code == "404"
    assert read(type="error", error={"code": ["?"]}, code="x").code == "x"


def test_an_error_whose_fields_have_wrong_types_is_still_an_error() -> None:
    event = read(type="error", stream_id=5, sequence_number="x", raw=1, headers=[], error=[1])
    assert event.message == "[1]"
    assert (event.stream_id, event.sequence_number) == (None, None)


def test_an_error_that_nests_too_deeply_is_still_an_error() -> None:
    deep = b"[" * 450 + b"]" * 450
    event = decode(b'{"type":"error","status":500,"error":{"code":"x","message":' + deep + b"}}")
    assert isinstance(event, ErrorEvent)
    assert event.status == 500
    too_deep = decode(b'{"type":"error","error":' + b"[" * 100_000)
    assert isinstance(too_deep, UndecodableFrame)


def test_decoding_an_error_that_is_not_utf8_does_not_raise() -> None:
    event = decode(b'{"type":"error","status":500,"detail":"\xff"}')
    assert isinstance(event, ErrorEvent)
    assert (event.status, event.message) == (500, "")
    assert isinstance(decode(b'{"type":"error","\xff":1,"detail":"\xff"}'), UndecodableFrame)


def test_the_headers_of_an_error_set_its_retry_delay() -> None:
    assert read(type="error", headers={"Retry-After": 3}).retry_after == 3.0
    assert read(type="error", error={}).retry_after is None


def test_the_message_of_a_rate_limit_sets_its_retry_delay() -> None:
    message = "Rate limit reached. Please try again in 350ms."
    assert read(type="error", code="rate_limit_exceeded", message=message).retry_after == 0.35
    assert read(type="error", code="server_error", message=message).retry_after is None


@pytest.mark.parametrize(
    ("headers", "delay"),
    [
        ({}, None),
        ({"retry-after": "1.5"}, 1.5),
        ({"Retry-After": "7", "Retry-After-Ms": "250"}, 0.25),
        ({"retry-after-ms": "soon", "retry-after": "2"}, 2.0),
        ({"retry-after": "-4"}, 0.0),
        ({"retry-after": "6m0s"}, 360.0),
        ({"retry-after": "20 seconds"}, 20.0),
        ({"retry-after": "nan"}, None),
        ({"retry-after": "inf"}, None),
        ({"retry-after": "soon"}, None),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 GMT"}, 10.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:01:40 -0000"}, 10.0),
        ({"retry-after": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
        ({"retry-after": "Thu, 99 Jan 1970 00:00:00 GMT"}, None),
    ],
)
def test_headers_state_a_delay_in_seconds_in_milliseconds_or_as_a_date(
    headers: dict[str, str], delay: float | None
) -> None:
    assert parse_retry_after(headers, now=lambda: 90.0) == delay


@pytest.mark.parametrize(
    ("message", "delay"),
    [
        ("Please try again in 1.2s. Visit ...", 1.2),
        ("please Try Again in 350ms", 0.35),
        ("try again in 6m0s", 360.0),
        ("try again in 1h2m3s.", 3723.0),
        ("Try again in 20 seconds", 20.0),
        ("try again in 2 minutes", 120.0),
        ("Please try again in 1 minute and 30 seconds.", 90.0),
        ("Try again in 1 hour, 2 minutes", 3720.0),
        ("Please retry after 20 seconds.", 20.0),
        ("Please wait 500 milliseconds before", 0.5),
        ("wait at least 3 secs", 3.0),
        ("Retrying in about a minute", 60.0),
        ("try again in an hour", 3600.0),
        ("try again in 2 days 3 hours", 183600.0),
        ("try again in 5 models", None),
        ("wait", None),
        ("try again later", None),
        ("try again in " + "9" * 400 + "s", None),
    ],
)
def test_a_message_states_a_delay_as_text(message: str, delay: float | None) -> None:
    found = parse_retry_message(message)
    assert found == (pytest.approx(delay) if delay is not None else None)


def test_the_repr_of_an_error_omits_its_message() -> None:
    event = read(type="error", status=400, error={"code": "x", "message": "secret"})
    assert repr(event) == (
        "ErrorEvent(status=400, code='x', error_type=None, param=None,"
        " stream_id=None, sequence_number=None)"
    )


@pytest.mark.parametrize("body", [b"<html>", b"", b"[1]", b"{broken"])
def test_a_refusal_without_a_json_object_has_its_status_and_headers(body: bytes) -> None:
    event = decode_error_body(503, {"Retry-After": "2"}, body)
    assert (event.status, event.headers, event.code) == (503, {"retry-after": "2"}, None)
    assert event.raw == body


def test_a_refusal_with_a_json_object_has_its_error() -> None:
    body = b'{"error": {"message": "No such key.", "code": "invalid_api_key"}}'
    event = decode_error_body(401, {}, body)
    assert (event.status, event.code, event.message) == (401, "invalid_api_key", "No such key.")


def test_an_error_gives_back_the_frame_as_json() -> None:
    frame = b'{"type": "error", "novel": 1.50}'
    event = decode(frame)
    assert isinstance(event, ErrorEvent)
    assert event.to_json() == frame.decode()
    assert json.loads(ErrorEvent(code="c").to_json())["code"] == "c"


def test_the_error_of_an_http_answer_is_decoded_as_over_a_websocket() -> None:
    body = b'{"error":{"message":"Slow down.","code":"rate_limit_exceeded","type":"requests"}}'
    event = decode(error_message(429, {"retry-after": "7", "x-request-id": "req_1"}, body))
    assert isinstance(event, ErrorEvent)
    assert (event.status, event.code, event.message) == (429, "rate_limit_exceeded", "Slow down.")
    assert event.error_type == "requests"
    assert event.retry_after == 7
    assert event.headers["x-request-id"] == "req_1"


@pytest.mark.parametrize(
    "body", [b"", b"<html>gone</html>", b"[1]", b'"text"', b'{"error":', b'{"a":"\xff"', b"{]"]
)
def test_an_http_answer_that_is_no_json_object_has_status_and_headers(body: bytes) -> None:
    event = decode(error_message(502, {"via": "proxy"}, body))
    assert isinstance(event, ErrorEvent)
    assert (event.status, event.code, event.message) == (502, None, "")
    assert event.headers == {"via": "proxy"}


def test_the_status_and_headers_of_an_http_answer_replace_those_of_its_body() -> None:
    body = b' {"type":"x","status":200,"headers":{"retry-after":"1"},"detail":"Not Found"}'
    event = decode(error_message(404, {"retry-after": "5"}, body))
    assert isinstance(event, ErrorEvent)
    assert (event.status, event.message) == (404, "Not Found")
    assert event.headers == {"retry-after": "5"}


def test_headers_that_say_nothing_about_an_error_are_left_out() -> None:
    headers = {
        "set-cookie": "session=secret",
        "date": "now",
        "server": "x",
        "connection": "close",
        "transfer-encoding": "chunked",
        "x-request-id": "req_1",
    }
    event = decode(error_message(500, headers, b"{}"))
    assert isinstance(event, ErrorEvent)
    assert event.headers == {"x-request-id": "req_1"}


# --- Rates -------------------------------------------------------------------------------


def test_the_headers_of_openai_state_both_limits() -> None:
    headers = {
        "X-RateLimit-Limit-Requests": "500",
        "x-ratelimit-remaining-requests": "499",
        "x-ratelimit-reset-requests": "120ms",
        "x-ratelimit-limit-tokens": "30000",
        "x-ratelimit-remaining-tokens": "29000",
        "x-ratelimit-reset-tokens": "6m0s",
    }
    assert parse_rate_reports(headers) == {
        "requests": RateReport(500, 499, 0.12),
        "tokens": RateReport(30000, 29000, 360),
    }


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"limit": "10", "remaining": "3"}, RateReport(10, 3, 60)),
        ({"limit": "10", "remaining": "3", "reset": "7"}, RateReport(10, 3, 7)),
        ({"limit": "10", "remaining": "30", "reset": "7s"}, RateReport(10, 10, 7)),
        ({"limit": "10", "remaining": "-1", "reset": "1m1s"}, RateReport(10, 0, 61)),
        ({}, None),
        ({"limit": "10"}, None),
        ({"remaining": "3", "reset": "7s"}, None),
        ({"limit": "0", "remaining": "0", "reset": "7s"}, None),
        ({"limit": "ten", "remaining": "3", "reset": "7s"}, None),
        ({"limit": "10", "remaining": "nan", "reset": "7s"}, None),
        ({"limit": "10", "remaining": "3", "reset": "soon"}, None),
        ({"limit": "10", "remaining": "3", "reset": "1700000000"}, None),
    ],
)
def test_a_limit_is_reported_if_all_of_it_is_known(
    headers: dict[str, str], expected: RateReport | None
) -> None:
    given = {f"x-ratelimit-{name}-requests": value for name, value in headers.items()}
    assert parse_rate_reports(given).get("requests") == expected
