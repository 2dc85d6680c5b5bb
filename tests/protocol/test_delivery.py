"""P4: the delivery that each failure proves, and the requests that may be sent again."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, get_args

import pytest

from trio_responses import _errors as errors
from trio_responses import _wire as wire
from trio_responses._errors import DeliveryStatus
from trio_responses._protocol.delivery import (
    DeliveryMode,
    Failure,
    delivery_of_error,
    furthest,
    may_resend,
    needs_delay,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_responses._errors import ResponsesError

NOT_SENT, REJECTED = DeliveryStatus.NOT_SENT, DeliveryStatus.REJECTED
AMBIGUOUS, ACCEPTED = DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED
CHOICES: tuple[DeliveryMode, ...] = get_args(DeliveryMode)


def may_resend_after(error: ResponsesError, choice: DeliveryMode) -> bool:
    return may_resend(error.delivery, errors.failure_of(error), choice)


# --- The delivery of an error -----------------------------------------------------------------

# docs/protocol.md, 4, "Codes": the column "Generation started?" says no, for every status.
NEVER_STARTED = (
    "invalid_stream_id",
    "previous_response_not_found",
    "rate_limit_exceeded",
    "too_many_requests",
    "websocket_connection_limit_reached",
    "websocket_stream_limit_reached",
)
# Codes with "maybe" or "often" in that column, codes that depend on the status, and no code.
UNDECIDED = (
    None,
    "server_error",
    "server_is_overloaded",
    "slow_down",
    "usage_limit_reached",
    "context_length_exceeded",
    "cyber_policy",
    "a_code_of_next_year",
)
STATUSES: dict[int | None, DeliveryStatus] = {
    None: AMBIGUOUS,
    200: AMBIGUOUS,
    299: AMBIGUOUS,
    300: REJECTED,
    399: REJECTED,
    400: REJECTED,
    404: REJECTED,
    429: REJECTED,
    499: REJECTED,
    500: AMBIGUOUS,
    503: AMBIGUOUS,
}


def frame(code: str | None, status: int | None) -> wire.ErrorEvent:
    return wire.ErrorEvent(code=code, status=status)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", NEVER_STARTED)
def test_some_codes_prove_that_nothing_started_with_any_status(
    code: str, status: int | None
) -> None:
    assert delivery_of_error(frame(code, status), started=False) is REJECTED


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", UNDECIDED)
def test_with_any_other_code_only_a_3xx_or_4xx_proves_it(
    code: str | None, status: int | None
) -> None:
    assert delivery_of_error(frame(code, status), started=False) is STATUSES[status]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", [*NEVER_STARTED, *UNDECIDED])
def test_a_started_response_stays_accepted(code: str | None, status: int | None) -> None:
    assert delivery_of_error(frame(code, status), started=True) is ACCEPTED


# --- Sending again ----------------------------------------------------------------------------

RESPONSE = wire.Response(id="resp_1", status="failed")

# Failures that leave the outcome unknown: the request is sent again if the caller chose that, or
# if it was not sent.
LOST: list[ResponsesError] = [
    errors.ConnectionLost(1006),
    errors.KeepaliveTimeout(20.0, age=60.0),
    errors.SendTimeout(1_000_000, age=60.0),
]
SILENT: list[ResponsesError] = [
    errors.FirstEventTimeout(30.0, sent=30.0),
    errors.StallTimeout(300.0, last_event="response.created", silence=300.0),
]
# The socket takes no more requests, and another socket takes the request.
FULL: list[ResponsesError] = [
    errors.ConnectionLimitReached(frame("websocket_connection_limit_reached", 400))
]
# A rate limit, and errors of the server: the same request may succeed later.
LIMITED: list[ResponsesError] = [
    errors.RateLimitError(frame("rate_limit_exceeded", 429)),
    errors.RateLimitError(frame(None, 429)),
    errors.ServerOverloaded(frame("slow_down", 429)),
]
FAILING: list[ResponsesError] = [
    errors.APIError(frame("server_error", 500)),
    errors.APIError(frame(None, 502)),
    errors.ServerOverloaded(frame("server_is_overloaded", 503)),
    errors.ServerOverloaded(frame("slow_down", None)),
    errors.ResponseFailedError(
        wire.Response(id="resp_1", status="failed", error=wire.ResponseError(code="server_error"))
    ),
]
# Failures that the same request would cause again, or that require an action of the caller: to
# change a name, the input, a limit or the key.
FINAL: list[ResponsesError] = [
    errors.ResponsesError("a new kind"),
    errors.ConfigurationError("no key"),
    errors.ConnectError("refused"),
    errors.ConnectTimeout("tls", 10.0),
    errors.HandshakeRejected(503, {}, b""),
    errors.handshake_error(401, {}, b""),
    errors.AuthenticationError(frame("invalid_api_key", 401)),
    errors.UpgradeUnsupported(426, {}, b""),
    errors.ProxyError("refused", proxy="127.0.0.1:3128"),
    errors.ReconnectFailed(5, OSError()),
    errors.ConnectionClosed("closed"),
    errors.UnsupportedByTransport("warm_up() needs a WebSocket"),
    errors.APIError(frame("unsupported_parameter", 400)),
    errors.RateLimitError(frame("insufficient_quota", 429)),
    errors.RateLimitError(frame("usage_limit_reached", 429)),
    errors.PreviousResponseNotFound(frame("previous_response_not_found", 400)),
    errors.StreamLimitReached(frame("websocket_stream_limit_reached", 400)),
    errors.InvalidStreamId(frame("invalid_stream_id", 400)),
    errors.ResponseFailedError(RESPONSE),
    errors.UndecodableResponse(wire.UndecodableFrame(raw=b"{", error="broken")),
    errors.UnexpectedOutput(RESPONSE),
    errors.ParseError("is no answer", RESPONSE),
    errors.RefusalError(RESPONSE),
    errors.IncompleteError(RESPONSE),
    errors.ParseMismatchError(RESPONSE, "Expected `int`"),
    errors.MaxRoundsExceeded(16, RESPONSE),
    errors.ToolRetriesExceeded("weather", 2),
    errors.CallNotRejectable("computer_call", "no"),
    errors.CallInterrupted(wire.ComputerCall(call_id="1")),
    errors.SafetyChecksPending(wire.ComputerCall(call_id="1")),
    errors.UndecodableCall(wire.ComputerCall(call_id="1"), "it has no id", RESPONSE),
    errors.RequestTooLarge(17_000_000, 16_777_216),
    errors.MessageTooLarge(70_000_000, 67_108_864),
    errors.BufferOverflow(1_048_576),
]

# For each kind of failure, the deliveries with which the request is sent again.
AT_MOST_ONCE = {
    "lost": {NOT_SENT},
    "silent": set[DeliveryStatus](),
    "full": {REJECTED},
    "limited": {REJECTED},
    "failing": set[DeliveryStatus](),
}
AT_LEAST_ONCE = {
    "lost": {NOT_SENT, AMBIGUOUS, ACCEPTED},
    "silent": {AMBIGUOUS, ACCEPTED},
    "full": {REJECTED, AMBIGUOUS, ACCEPTED},
    "limited": {REJECTED, AMBIGUOUS, ACCEPTED},
    "failing": {REJECTED, AMBIGUOUS, ACCEPTED},
}
KINDS = {"lost": LOST, "silent": SILENT, "full": FULL, "limited": LIMITED, "failing": FAILING}


def name(value: object) -> str:
    return type(value).__name__ if isinstance(value, Exception) else str(value)


def all_errors(kind: type[ResponsesError] = errors.ResponsesError) -> Iterator[type]:
    yield kind
    for below in kind.__subclasses__():
        yield from all_errors(below)


@pytest.mark.parametrize("delivery", [*DeliveryStatus, None], ids=name)
@pytest.mark.parametrize(
    ("kind", "error"), [(kind, error) for kind in KINDS for error in KINDS[kind]], ids=name
)
def test_lost_requests_are_sent_again_if_safe_or_chosen(
    kind: str, error: ResponsesError, delivery: DeliveryStatus | None
) -> None:
    error.delivery = delivery
    assert may_resend_after(error, "at_most_once") is (delivery in AT_MOST_ONCE[kind])
    assert may_resend_after(error, "at_least_once") is (delivery in AT_LEAST_ONCE[kind])


@pytest.mark.parametrize(
    ("delivery", "choice"), list(product([*DeliveryStatus, None], CHOICES)), ids=name
)
@pytest.mark.parametrize("error", FINAL, ids=name)
def test_answers_and_limits_are_raised_with_either_choice(
    error: ResponsesError, delivery: DeliveryStatus | None, choice: DeliveryMode
) -> None:
    error.delivery = delivery
    assert not may_resend_after(error, choice)


@pytest.mark.parametrize("error", [*LOST, *SILENT, *FULL, *LIMITED, *FAILING], ids=name)
def test_a_request_that_may_have_run_is_not_sent_again_by_default(
    error: ResponsesError,
) -> None:
    """Row 7 of docs/problems.md: a replay is billed."""
    for delivery in (AMBIGUOUS, ACCEPTED):
        error.delivery = delivery
        assert not may_resend_after(error, "at_most_once")


@pytest.mark.parametrize("kind", KINDS)
def test_only_rate_limits_and_errors_of_the_server_need_a_delay(kind: str) -> None:
    for error in KINDS[kind]:
        assert needs_delay(errors.failure_of(error)) is (kind in {"limited", "failing"})


@pytest.mark.parametrize(
    ("code", "error_type", "status", "failure"),
    [
        ("rate_limit_exceeded", "tokens", 429, Failure.RATE_LIMITED),
        ("rate_limit_exceeded", None, None, Failure.RATE_LIMITED),
        ("too_many_requests", None, None, Failure.RATE_LIMITED),
        ("a_code_of_next_year", "requests", 429, Failure.RATE_LIMITED),
        (None, None, 429, Failure.RATE_LIMITED),
        ("slow_down", None, 429, Failure.RATE_LIMITED),
        ("server_error", None, 400, Failure.OTHER),
        ("insufficient_quota", "insufficient_quota", 429, Failure.OTHER),
        (None, "insufficient_quota", 429, Failure.OTHER),
        ("credit_balance_exhausted", None, 429, Failure.OTHER),
        ("usage_limit_reached", None, 429, Failure.OTHER),
        ("usage_not_included", None, None, Failure.OTHER),
        ("websocket_connection_limit_reached", None, 429, Failure.CONNECTION_LIMIT),
        ("websocket_stream_limit_reached", None, 429, Failure.OTHER),
        ("previous_response_not_found", "invalid_request_error", 500, Failure.OTHER),
        ("server_is_overloaded", "service_unavailable_error", None, Failure.SERVER_ERROR),
        ("slow_down", None, 503, Failure.SERVER_ERROR),
        (None, "server_error", None, Failure.SERVER_ERROR),
        ("a_code_of_next_year", "server_error", None, Failure.SERVER_ERROR),
        ("a_code_of_next_year", None, 503, Failure.SERVER_ERROR),
        (None, None, None, Failure.SERVER_ERROR),
        (None, None, 501, Failure.OTHER),
        (None, None, 400, Failure.OTHER),
        (None, "invalid_request_error", None, Failure.OTHER),
        ("a_code_of_next_year", None, None, Failure.OTHER),
        ("cyber_policy", None, None, Failure.OTHER),
    ],
)
def test_an_error_means_a_failure_by_its_code_its_type_and_its_status(
    code: str | None, error_type: str | None, status: int | None, failure: Failure
) -> None:
    error = wire.ErrorEvent(code=code, error_type=error_type, status=status)
    assert errors.failure_of(errors.api_error(error)) is failure


@pytest.mark.parametrize("code", ["rate_limit_exceeded", "server_error", None])
def test_a_failed_response_is_an_accepted_request(code: str | None) -> None:
    reason = wire.ResponseError(code=code, message="Please try again in 2s.") if code else None
    response = wire.Response(id="resp_1", status="failed", error=reason)
    error = errors.failed_response_error(response)
    limited = code == "rate_limit_exceeded"
    assert isinstance(error, errors.RateLimitError if limited else errors.ResponseFailedError)
    assert error.response is response
    assert error.delivery is ACCEPTED
    assert errors.retry_hint(error) == (2 if limited else None)


def test_a_request_refused_by_the_connection_limit_is_sent_again() -> None:
    """Row 10 of docs/problems.md: the server did not start it, so the next socket takes it."""
    event = frame("websocket_connection_limit_reached", 400)
    error = errors.api_error(event)
    error.delivery = delivery_of_error(event, started=False)
    assert all(may_resend_after(error, choice) for choice in CHOICES)


def test_the_delivery_of_several_attempts_is_the_furthest() -> None:
    """A refusal or a failed write proves nothing about an earlier attempt."""
    order = (None, NOT_SENT, REJECTED, AMBIGUOUS, ACCEPTED)
    for one, other in product(range(len(order)), repeat=2):
        assert furthest((order[one], order[other])) is order[max(one, other)]


def is_public(kind: type[ResponsesError]) -> bool:
    """Whether a class has a name of its own, unlike the class of a refused key at a handshake."""
    return getattr(errors, kind.__name__, None) is kind


def test_the_table_has_a_row_for_every_error() -> None:
    rows = {
        type(error)
        for error in (*LOST, *SILENT, *FULL, *LIMITED, *FAILING, *FINAL)
        if is_public(type(error))
    }
    ours = {kind for kind in all_errors() if is_public(kind)}
    assert rows == ours


def test_the_tests_cover_both_choices() -> None:
    assert CHOICES == ("at_most_once", "at_least_once")
