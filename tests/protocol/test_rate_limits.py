"""Token buckets: how much passes in any time, what corrects an estimate, and pauses."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._protocol.rate_limits import RateLimits, TokenBucket
from trio_responses._wire.retry_hints import RateReport

if TYPE_CHECKING:
    from trio_responses._protocol.rate_limits import Reservation

START = 1000.0
MAX_WAIT = 60.0


def limits(
    requests: float | None = None, tokens: float | None = None, burst: float = 1.0
) -> RateLimits:
    return RateLimits(
        requests_per_minute=requests,
        tokens_per_minute=tokens,
        burst=burst,
        now=START,
        chance=lambda: 0.0,
    )


def send(one: RateLimits, tokens: float, now: float) -> tuple[float, Reservation]:
    """Wait as a request does; return when it was sent, and what it has taken."""
    while delay := one.delay(tokens, now):
        now += delay
    return now, one.reserve(tokens, now)


# --- Any order of requests ---------------------------------------------------------------

ARRIVALS = st.lists(
    st.tuples(st.floats(0, 30), st.integers(1, 400)), min_size=1, max_size=60
)  # the seconds since the request before, and the tokens


@given(
    arrivals=ARRIVALS,
    requests=st.integers(1, 120),
    tokens=st.integers(100, 5000),
    burst=st.sampled_from([0.05, 0.5, 1.0]),
)
def test_no_window_has_more_than_the_burst_and_what_flows_in(
    arrivals: list[tuple[float, int]], requests: int, tokens: int, burst: float
) -> None:
    one = limits(requests, tokens, burst)
    now, sent = START, list[tuple[float, float]]()
    for pause, amount in arrivals:
        now, reservation = send(one, amount, now + pause)
        sent.append((now, reservation.tokens))
    most_requests, most_tokens = max(1, requests * burst), max(1, tokens * burst)
    largest = max(amount for _, amount in sent)
    for first in range(len(sent)):
        used = 0.0
        for last in range(first, len(sent)):
            seconds = sent[last][0] - sent[first][0]
            used += sent[last][1]
            assert last - first + 1 <= most_requests + seconds * requests / 60 + 1e-3
            # A request that is larger than the whole bucket passes when the bucket is full.
            assert used <= max(most_tokens, largest) + seconds * tokens / 60 + 1e-3


@given(arrivals=ARRIVALS, requests=st.integers(1, 120), tokens=st.integers(100, 5000))
def test_every_request_is_sent_in_a_bounded_time(
    arrivals: list[tuple[float, int]], requests: int, tokens: int
) -> None:
    """However large it is, and whatever was sent before: a bucket is full after a minute."""
    one = limits(requests, tokens)
    now = START
    for pause, amount in arrivals:
        began = now + pause
        now, _ = send(one, amount * 100, began)
        debt = 400 * 100 / (tokens / 60)  # of the request before, which was larger than the bucket
        assert now - began <= 60 + debt + 1e-3


@given(
    st.lists(st.tuples(st.floats(0, 5), st.floats(0, 100)), min_size=1),
    st.floats(1, 100),
    st.floats(0.1, 10),
)
def test_the_level_only_rises_with_time_and_never_over_the_capacity(
    steps: list[tuple[float, float]], capacity: float, rate: float
) -> None:
    bucket = TokenBucket(capacity, rate, capacity, START)
    now = START
    for seconds, amount in steps:
        before = bucket.level(now)
        now += seconds
        assert before <= bucket.level(now) <= capacity
        now += bucket.delay(amount, now)
        assert bucket.delay(amount, now) <= 1e-6
        bucket.take(amount, now)
        assert bucket.level(now - 1) == bucket.level(now)  # a clock of another thread


@given(st.floats(1e-3, 1e9), st.floats(0, 1e6), st.floats(0, 1e9))
def test_a_wait_ends_whatever_the_numbers_are(rate: float, amount: float, now: float) -> None:
    """A rest of a wait that the clock cannot express would be waited for again and again."""
    one = RateLimits(requests_per_minute=rate, tokens_per_minute=rate * 100, burst=1.0, now=now)
    for _ in range(3):
        for _ in range(5):
            delay = one.delay(amount, now)
            if not delay:
                break
            now = max(now + delay, math.nextafter(now, math.inf))
        assert not one.delay(amount, now)
        one.reserve(amount, now)


# --- Requests ----------------------------------------------------------------------------


def test_without_limits_nothing_waits() -> None:
    one = limits()
    for _ in range(100):
        one.reserve(10**9, START)
        assert one.delay(10**9, START) == 0
    assert one.available(START) == (None, None)


def test_a_burst_is_followed_by_the_rate() -> None:
    one = limits(requests=60, burst=0.05)  # 3 at once, then one each second
    times = [send(one, 0, START)[0] for _ in range(3)]
    now = START
    for _ in range(3):
        now, _ = send(one, 0, now)
        times.append(now)
    assert times == pytest.approx([START] * 3 + [START + 1, START + 2, START + 3])
    assert one.available(now + 2) == pytest.approx((2, None))


def test_a_small_burst_has_one_request() -> None:
    one = limits(requests=1, burst=0.01)
    assert one.delay(0, START) == 0
    one.reserve(0, START)
    assert one.delay(0, START) == pytest.approx(60)


def test_a_request_that_was_not_sent_gives_everything_back() -> None:
    one = limits(requests=10, tokens=1000)
    one.cancel(one.reserve(400, START), START)
    assert one.available(START) == (10, 1000)


# --- Tokens ------------------------------------------------------------------------------


def test_a_request_larger_than_the_limit_waits_for_a_full_bucket_and_leaves_a_debt() -> None:
    one = limits(tokens=600)
    one.reserve(60, START)
    sent, _ = send(one, 1200, START)
    assert sent == pytest.approx(START + 6)
    assert one.available(sent) == pytest.approx((None, -600))
    assert one.delay(600, sent) == pytest.approx(120)


def test_the_usage_replaces_the_estimate() -> None:
    one = limits(tokens=600)
    small, large = one.reserve(100, START), one.reserve(100, START)
    one.settle(small, 40, 10, START)
    assert one.available(START) == (None, 460)
    one.settle(large, 300, 10, START)
    assert one.available(START) == (None, 260)
    assert (small.tokens, large.tokens) == (40, 300)


def test_a_successor_of_a_steered_response_adds_its_usage() -> None:
    one = limits(tokens=600)
    reservation = one.reserve(100, START)
    one.settle(reservation, 50, 10, START)
    one.settle(reservation, 70, 10, START)
    assert reservation.tokens == 120
    assert one.available(START) == (None, 480)


def test_a_request_that_did_not_start_gives_back_its_tokens_and_counts_as_a_request() -> None:
    one = limits(requests=10, tokens=600)
    refused, ended = one.reserve(100, START), one.reserve(100, START)
    one.forgive(refused, START)
    one.settle(ended, 100, 10, START)
    one.forgive(ended, START)  # known already
    assert one.available(START) == (8, 500)


def test_the_estimate_is_a_quarter_of_the_bytes_and_the_output() -> None:
    one = limits(tokens=10_000)
    assert one.estimate(400, None, generates=True) == 100 + 256
    assert one.estimate(400, 50, generates=True) == 150
    assert one.estimate(400, None, generates=False) == 100
    for _ in range(100):
        one.settle(one.reserve(0, START), 10, 1000, START)
    assert one.estimate(0, None, generates=True) == pytest.approx(1000, rel=0.01)


# --- Refusals ----------------------------------------------------------------------------


def test_a_refusal_stops_everything_for_as_long_as_the_server_asks() -> None:
    one = limits(requests=60)
    one.pause(7, MAX_WAIT, START)
    assert one.delay(0, START) == 7
    assert one.available(START) == (0, None)  # the server has counted more than this program
    assert one.available(START + 7) == pytest.approx((7, None))


def test_without_a_hint_the_pauses_grow_until_a_response_ends() -> None:
    one = limits()
    now, pauses = START, list[float]()
    for _ in range(4):
        one.pause(None, MAX_WAIT, now)
        pauses.append(one.delay(0, now))
        now = one.paused_until
    assert pauses == [0.5, 1, 2, 4]
    one.settle(one.reserve(0, now), 5, 5, now)
    one.pause(None, MAX_WAIT, now)
    assert one.delay(0, now) == 0.5


def test_the_refusals_of_one_burst_count_once_and_the_longest_hint_counts() -> None:
    one = limits(requests=60)
    for _ in range(16):
        one.pause(None, MAX_WAIT, START)
    assert one.delay(0, START) == pytest.approx(1)  # the emptied bucket: the pause is 0.5 s
    one.pause(3, MAX_WAIT, START + 0.1)
    assert one.paused_until == START + 3.1
    one.pause(1, MAX_WAIT, START + 0.2)
    assert one.paused_until == START + 3.1


def test_a_pause_is_at_most_the_longest_wait_of_a_turn() -> None:
    one = limits()
    one.pause(3600, MAX_WAIT, START)
    assert one.paused_until == START + MAX_WAIT


# --- What the server reports -------------------------------------------------------------


def report(limit: float, remaining: float, reset: float) -> RateReport:
    return RateReport(limit, remaining, reset)


def test_what_is_left_at_the_server_counts_until_its_limit_is_whole_again() -> None:
    one = limits(requests=6000, tokens=10**6)
    one.report({"requests": report(100, 2, 49)}, START)
    one.reserve(0, START)
    one.reserve(0, START)
    assert one.delay(0, START) == pytest.approx(0.5)  # 98 in 49 s
    assert one.delay(0, START + 49) == 0
    one.report({"tokens": report(1000, 100, 30)}, START + 60)
    assert one.delay(100, START + 60) == 0
    assert one.delay(400, START + 60) == pytest.approx(10)
    assert one.delay(10**6, START + 60) == pytest.approx(30)


def test_a_later_report_replaces_an_earlier_one() -> None:
    one = limits()
    one.report({"requests": report(100, 0, 60)}, START)
    assert one.delay(0, START) == pytest.approx(0.6)
    one.report({"requests": report(100, 50, 30)}, START)
    assert one.delay(0, START) == 0


def test_a_window_that_has_just_begun_does_not_slow_the_requests_that_are_left() -> None:
    one = limits()
    one.report({"requests": report(500, 499, 60)}, START)  # of a server with fixed windows
    for _ in range(499):
        assert one.delay(0, START) == 0
        one.reserve(0, START)
    assert one.delay(0, START) > 0


@pytest.mark.parametrize(("remaining", "reset"), [(10, 0), (10, 5)])
def test_a_whole_limit_slows_nothing(remaining: float, reset: float) -> None:
    one = limits()
    one.report({"requests": report(10, remaining, reset)}, START)
    for _ in range(10):
        assert one.delay(0, START) == 0
        one.reserve(0, START)
    assert one.delay(0, START) == reset


def test_another_clock_forgets_what_depends_on_the_time() -> None:
    one = limits(requests=10)
    one.reserve(0, START)
    one.pause(50, MAX_WAIT, START)
    one.report({"requests": report(10, 0, 60), "tokens": report(10, 0, 60)}, START)
    one.restart(5.0)
    assert one.delay(0, 5.0) == pytest.approx(6)  # the pause has emptied the bucket
    assert one.available(11.0) == pytest.approx((1, None))
    limits().restart(5.0)
