"""P4, written out: what each end of a turn proves, and what may be sent again after it."""

from __future__ import annotations

from itertools import product
from typing import TYPE_CHECKING, get_args

import pytest

from trio_responses import _errors as errors
from trio_responses import _wire as wire
from trio_responses._errors import DeliveryStatus
from trio_responses._protocol.delivery import (
    DeliveryMode,
    delivery_of_error,
    furthest,
    may_resend,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from trio_responses._errors import ResponsesError

NOT_SENT, REJECTED = DeliveryStatus.NOT_SENT, DeliveryStatus.REJECTED
AMBIGUOUS, ACCEPTED = DeliveryStatus.AMBIGUOUS, DeliveryStatus.ACCEPTED
CHOICES: tuple[DeliveryMode, ...] = get_args(DeliveryMode)


def may_send_again(error: ResponsesError, choice: DeliveryMode) -> bool:
    return may_resend(error.delivery, errors.failure_of(error), choice)


# --- What an error frame proves ---------------------------------------------------------------

# docs/protocol.md, 4, "Codes": the column "Generation started?" says no, for every status.
NEVER_STARTED = (
    "invalid_stream_id",
    "previous_response_not_found",
    "rate_limit_exceeded",
    "websocket_connection_limit_reached",
    "websocket_stream_limit_reached",
)
# Those of which it says "maybe" or "often", those of which only the status tells, and none at all.
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
    399: AMBIGUOUS,
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
def test_some_codes_prove_that_nothing_started_whatever_the_status(
    code: str, status: int | None
) -> None:
    assert delivery_of_error(frame(code, status), started=False) is REJECTED


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", UNDECIDED)
def test_where_the_code_says_nothing_a_4xx_proves_it_and_nothing_else_does(
    code: str | None, status: int | None
) -> None:
    assert delivery_of_error(frame(code, status), started=False) is STATUSES[status]


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("code", [*NEVER_STARTED, *UNDECIDED])
def test_no_error_undoes_a_start(code: str | None, status: int | None) -> None:
    assert delivery_of_error(frame(code, status), started=True) is ACCEPTED


# --- What may be sent again -------------------------------------------------------------------

RESPONSE = wire.Response(id="resp_1", status="failed")

# Ends that say nothing about the request: it is the caller's choice to send it again, or, where
# it never left, nobody's.
LOST: list[ResponsesError] = [
    errors.ConnectionLost(1006),
    errors.KeepaliveTimeout(20.0, age=60.0),
    errors.SendTimeout(1_000_000, age=60.0),
]
SILENT: list[ResponsesError] = [
    errors.FirstEventTimeout(30.0, sent=30.0),
    errors.StallTimeout(300.0, last_event="response.created", silence=300.0),
]
# Says that this socket takes no more requests: another one takes this one.
FULL: list[ResponsesError] = [errors.ConnectionLimitReached(frame(NEVER_STARTED[3], 400))]
# Ends that the same request would only meet again, or after which somebody has to do something:
# wait, choose another name, another input, a larger limit, another key.
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
    errors.APIError(frame("server_error", 500)),
    errors.RateLimitError(frame("rate_limit_exceeded", 429)),
    errors.PreviousResponseNotFound(frame("previous_response_not_found", 400)),
    errors.StreamLimitReached(frame("websocket_stream_limit_reached", 400)),
    errors.InvalidStreamId(frame("invalid_stream_id", 400)),
    errors.ServerOverloaded(frame("server_is_overloaded", 503)),
    errors.ResponseFailedError(RESPONSE),
    errors.UndecodableResponse(wire.UndecodableFrame(raw=b"{", error="broken")),
    errors.UnexpectedOutput(RESPONSE),
    errors.ParseError("is no answer", RESPONSE),
    errors.RefusalError(RESPONSE),
    errors.IncompleteError(RESPONSE),
    errors.ParseMismatchError(RESPONSE, "Expected `int`"),
    errors.MaxRoundsExceeded(16, RESPONSE),
    errors.CallNotRejectable("computer_call", "no"),
    errors.RequestTooLarge(17_000_000, 16_777_216),
    errors.MessageTooLarge(70_000_000, 67_108_864),
    errors.BufferOverflow(1_048_576),
]

# For each kind of end, how far the request may have come when it is sent again.
WITHOUT_ASKING = {"lost": {NOT_SENT}, "silent": set[DeliveryStatus](), "full": {REJECTED}}
AT_LEAST_ONCE = {
    "lost": {NOT_SENT, AMBIGUOUS, ACCEPTED},
    "silent": {AMBIGUOUS, ACCEPTED},
    "full": {REJECTED, AMBIGUOUS, ACCEPTED},
}
KINDS = {"lost": LOST, "silent": SILENT, "full": FULL}


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
def test_lost_requests_are_sent_again_where_that_is_safe_or_wished_for(
    kind: str, error: ResponsesError, delivery: DeliveryStatus | None
) -> None:
    error.delivery = delivery
    assert may_send_again(error, "at_most_once") is (delivery in WITHOUT_ASKING[kind])
    assert may_send_again(error, "at_least_once") is (delivery in AT_LEAST_ONCE[kind])


@pytest.mark.parametrize(
    ("delivery", "choice"), list(product([*DeliveryStatus, None], CHOICES)), ids=name
)
@pytest.mark.parametrize("error", FINAL, ids=name)
def test_answers_and_our_own_limits_are_raised_whatever_the_choice(
    error: ResponsesError, delivery: DeliveryStatus | None, choice: DeliveryMode
) -> None:
    error.delivery = delivery
    assert not may_send_again(error, choice)


@pytest.mark.parametrize("error", [*LOST, *SILENT, *FULL], ids=name)
def test_a_request_that_may_have_run_is_never_sent_again_without_asking(
    error: ResponsesError,
) -> None:
    """Row 7 of docs/problems.md: a replay is billed."""
    for delivery in (AMBIGUOUS, ACCEPTED):
        error.delivery = delivery
        assert not may_send_again(error, "at_most_once")


def test_the_connection_limit_costs_no_turn() -> None:
    """Row 10 of the problems: the server says that it did not start, so the next socket gets it."""
    event = frame("websocket_connection_limit_reached", 400)
    error = errors.api_error(event)
    error.delivery = delivery_of_error(event, started=False)
    assert all(may_send_again(error, choice) for choice in CHOICES)


def test_what_is_known_of_several_sendings_is_how_far_one_of_them_came() -> None:
    """A refusal, or a write that failed, says nothing of the request that went out before."""
    order = (None, NOT_SENT, REJECTED, AMBIGUOUS, ACCEPTED)
    for one, other in product(range(len(order)), repeat=2):
        assert furthest((order[one], order[other])) is order[max(one, other)]


def is_public(kind: type[ResponsesError]) -> bool:
    """Whether a class has a name of its own, unlike the class of a refused key at a handshake."""
    return getattr(errors, kind.__name__, None) is kind


def test_the_table_has_a_row_for_every_error() -> None:
    rows = {type(error) for error in (*LOST, *SILENT, *FULL, *FINAL) if is_public(type(error))}
    ours = {kind for kind in all_errors() if is_public(kind)}
    assert rows == ours


def test_both_choices_are_tried() -> None:
    assert CHOICES == ("at_most_once", "at_least_once")
