"""P2: the delays between attempts to connect, and permanent close codes."""

import itertools
import math
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._errors import ConfigurationError
from trio_responses._protocol.backoff import Backoff, is_permanent_close, retry_delay
from trio_responses._settings import ReconnectPolicy, reconnect_delays

SECONDS = st.floats(0, 1e6)
POLICIES = st.builds(
    ReconnectPolicy,
    initial=SECONDS,
    factor=st.floats(0, 10),
    cap=SECONDS,
    attempts=st.integers(0, 20),
    jitter=st.floats(0, 1),
    max_retry_after=SECONDS,
)
CHANCES = st.floats(0, 1, exclude_max=True)


def start(
    reconnect: ReconnectPolicy | Iterable[float], chance: Callable[[], float] = random.random
) -> Backoff:
    policy, delays = reconnect_delays(reconnect)
    return Backoff(
        delays, jitter=policy.jitter, max_retry_after=policy.max_retry_after, chance=chance
    )


def walk(backoff: Backoff) -> list[float]:
    delays: list[float] = []
    while (delay := backoff.next_delay()) is not None:
        delays.append(delay)
    return delays


def fixed(chance: float) -> Callable[[], float]:
    return lambda: chance


# --- The policy ----------------------------------------------------------------------------


def test_the_default_delays() -> None:
    assert list(ReconnectPolicy().delays()) == [1, 2, 4, 8, 16]


@pytest.mark.parametrize(
    ("policy", "delays"),
    [
        (ReconnectPolicy(attempts=0), []),
        (ReconnectPolicy(attempts=7), [1, 2, 4, 8, 16, 16, 16]),
        (ReconnectPolicy(initial=3, factor=1, attempts=3), [3, 3, 3]),
        (ReconnectPolicy(initial=20, cap=5, attempts=2), [5, 5]),
        (ReconnectPolicy(initial=0, attempts=2), [0, 0]),
        (ReconnectPolicy(factor=0, attempts=3), [1, 0, 0]),
        (ReconnectPolicy(factor=0.5, attempts=3), [1, 0.5, 0.25]),
        (ReconnectPolicy(cap=0, attempts=2), [0, 0]),
    ],
)
def test_delays_of_policies(policy: ReconnectPolicy, delays: list[float]) -> None:
    assert list(policy.delays()) == delays


@given(POLICIES)
def test_no_delay_is_over_the_cap_and_there_are_as_many_as_attempts(
    policy: ReconnectPolicy,
) -> None:
    delays = list(policy.delays())
    assert len(delays) == policy.attempts
    assert all(0 <= delay <= policy.cap for delay in delays)


@given(st.integers(0, 3000))
def test_many_attempts_do_not_overflow(attempts: int) -> None:
    delays = list(ReconnectPolicy(attempts=attempts, factor=10).delays())
    assert delays[2:] == [16] * max(0, attempts - 2)


@pytest.mark.parametrize(
    "name", ["initial", "factor", "cap", "attempts", "max_retry_after", "healthy_after"]
)
@pytest.mark.parametrize("number", [-1, math.nan, "1", None, True, -math.inf])
def test_a_policy_with_invalid_numbers_is_refused(name: str, number: Any) -> None:
    with pytest.raises(ConfigurationError, match=name):
        ReconnectPolicy(**{name: number})


@pytest.mark.parametrize("jitter", [-0.1, 1.1, math.nan])
def test_jitter_out_of_range_is_refused(jitter: float) -> None:
    with pytest.raises(ConfigurationError, match="jitter"):
        ReconnectPolicy(jitter=jitter)


@pytest.mark.parametrize("jitter", ["0.5", None])
def test_jitter_that_is_not_a_number_is_refused(jitter: Any) -> None:
    with pytest.raises(ConfigurationError, match="jitter"):
        ReconnectPolicy(jitter=jitter)


def test_a_fraction_of_an_attempt_is_refused() -> None:
    wrong: Any = 2.5
    with pytest.raises(ConfigurationError, match="whole number"):
        ReconnectPolicy(attempts=wrong)


@pytest.mark.parametrize("name", ["initial", "factor", "cap"])
def test_an_infinite_delay_is_refused(name: str) -> None:
    """The attempt after it would never be made."""
    infinite: Any = {name: math.inf}
    with pytest.raises(ConfigurationError, match=name):
        ReconnectPolicy(**infinite)


def test_max_retry_after_and_healthy_after_may_be_infinite() -> None:
    policy = ReconnectPolicy(max_retry_after=math.inf, healthy_after=math.inf)
    assert start(policy, chance=fixed(0)).next_delay(1e9) == 1e9


# --- The delays ----------------------------------------------------------------------------


def test_without_jitter_the_delays_are_exact() -> None:
    backoff = start(ReconnectPolicy(jitter=0))
    assert walk(backoff) == [1, 2, 4, 8, 16]
    assert backoff.attempts == 5


def test_the_default_jitter_shortens_by_up_to_a_quarter() -> None:
    assert walk(start(ReconnectPolicy(), chance=fixed(0))) == [1, 2, 4, 8, 16]
    assert walk(start(ReconnectPolicy(), chance=fixed(1))) == [0.75, 1.5, 3, 6, 12]


@given(POLICIES, CHANCES)
def test_jitter_shortens_by_at_most_its_fraction(policy: ReconnectPolicy, chance: float) -> None:
    for delay, full in zip(walk(start(policy, chance=fixed(chance))), policy.delays(), strict=True):
        assert full * (1 - policy.jitter) - 1e-6 <= delay <= full


def test_each_delay_has_its_own_jitter() -> None:
    chances = iter([0.0, 1.0, 0.0, 1.0, 0.0])
    backoff = start(ReconnectPolicy(), chance=lambda: next(chances))
    assert walk(backoff) == [1, 1.5, 4, 6, 16]


def test_restart_repeats_the_delays() -> None:
    backoff = start(ReconnectPolicy(jitter=0))
    assert [backoff.next_delay() for _ in range(3)] == [1, 2, 4]
    backoff.reset()
    assert backoff.attempts == 0
    assert walk(backoff) == [1, 2, 4, 8, 16]
    assert backoff.next_delay() is None
    backoff.reset()
    assert backoff.next_delay() == 1


def once() -> Iterator[float]:
    yield 3
    yield 1


@pytest.mark.parametrize(
    "delays", [[3, 1], (3, 1), {3: 0, 1: 0}, once(), iter([3, 1]), map(float, [3, 1])]
)
def test_the_delays_of_any_iterable_can_be_repeated(delays: Iterable[float]) -> None:
    """An iterator is read once and its delays are stored."""
    backoff = start(delays, chance=fixed(1))
    assert walk(backoff) == [3, 1]
    backoff.reset()
    assert walk(backoff) == [3, 1]


def test_an_endless_iterable_never_ends() -> None:
    backoff = start(itertools.repeat(5))
    assert [backoff.next_delay() for _ in range(1000)] == [5] * 1000


def test_an_iterable_is_read_no_further_than_needed() -> None:
    numbers = itertools.count(1)
    backoff = start(numbers)
    assert [backoff.next_delay() for _ in range(3)] == [1, 2, 3]
    backoff.reset()
    assert backoff.next_delay() == 1
    assert next(numbers) == 4


def test_without_delays_no_attempt_is_made() -> None:
    """An empty list of delays is no delay of one second."""
    assert start([]).next_delay() is None
    assert start(ReconnectPolicy(attempts=0)).next_delay() is None


@pytest.mark.parametrize("delay", [-1, math.nan, math.inf, "1", None, True, 1j])
def test_an_invalid_delay_is_refused(delay: Any) -> None:
    backoff = start([1, delay])
    assert backoff.next_delay() == 1
    with pytest.raises(ConfigurationError, match="a delay must be seconds"):
        backoff.next_delay()


@pytest.mark.parametrize("policy", [5, 1.5, object()])
def test_an_invalid_policy_is_refused(policy: Any) -> None:
    with pytest.raises(ConfigurationError, match="or delays in seconds"):
        reconnect_delays(policy)


# --- Retry-After ---------------------------------------------------------------------------


@given(POLICIES, CHANCES, SECONDS)
def test_retry_after_is_the_shortest_delay_or_ends_the_attempts(
    policy: ReconnectPolicy, chance: float, retry_after: float
) -> None:
    backoff = start(policy, chance=fixed(chance))
    delay = backoff.next_delay(retry_after)
    if retry_after > policy.max_retry_after or policy.attempts == 0:
        assert delay is None
        assert backoff.attempts == 0
    else:
        assert delay is not None
        assert delay >= retry_after
        assert backoff.attempts == 1


def test_a_shorter_retry_after_changes_nothing() -> None:
    assert start(ReconnectPolicy(jitter=0)).next_delay(0.5) == 1


def test_a_retry_after_above_the_maximum_ends_the_attempts() -> None:
    backoff = start(ReconnectPolicy(jitter=0))
    assert backoff.next_delay(300) == 300
    assert backoff.next_delay(300.1) is None


# --- Close codes ---------------------------------------------------------------------------


@given(st.integers(0, 65535))
def test_1008_and_private_close_codes_are_permanent(code: int) -> None:
    assert is_permanent_close(code) is (code == 1008 or 4000 <= code <= 4999)


# --- The retries of a turn ------------------------------------------------------------------


def test_the_delays_of_a_turn_without_a_hint_grow_to_8_seconds() -> None:
    delays = [
        retry_delay(retries, retry_after=None, max_wait=60, chance=fixed(0)) for retries in range(6)
    ]
    assert delays == [0.5, 1, 2, 4, 8, 8]


def test_a_delay_is_shortened_by_up_to_a_quarter() -> None:
    assert retry_delay(1, retry_after=None, max_wait=60, chance=fixed(1)) == 0.75


@pytest.mark.parametrize("retries", [0, 1, 5_000])
def test_the_hint_of_the_server_is_the_delay(retries: int) -> None:
    assert retry_delay(retries, retry_after=20, max_wait=60, chance=fixed(1)) == 20


def test_a_hint_of_zero_is_no_hint() -> None:
    assert retry_delay(0, retry_after=0, max_wait=60, chance=fixed(0)) == 0.5


def test_a_hint_over_the_limit_ends_the_retries() -> None:
    assert retry_delay(0, retry_after=60, max_wait=60) == 60
    assert retry_delay(0, retry_after=60.001, max_wait=60) is None


@given(st.integers(0, 10_000), st.floats(0.001, 1e6))
def test_no_delay_is_over_the_limit(retries: int, max_wait: float) -> None:
    delay = retry_delay(retries, retry_after=None, max_wait=max_wait)
    assert delay is not None
    assert 0 < delay <= max_wait
