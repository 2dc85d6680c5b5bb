"""Invalid numbers in settings are refused where they are written."""

from __future__ import annotations

import math
from dataclasses import FrozenInstanceError, fields
from typing import Any, TypeAlias

import pytest

from trio_responses._errors import ConfigurationError
from trio_responses._protocol.replay import Origin
from trio_responses._settings import Keepalive, Limits, ReplayPolicy, Timeouts

Record: TypeAlias = "type[Timeouts | Keepalive | Limits]"

FIELDS = [(kind, field.name) for kind in (Timeouts, Keepalive, Limits) for field in fields(kind)]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("number", [0, -1, -math.inf, math.nan, True, None, "5", 1j])
def test_a_value_that_is_no_positive_number_is_refused_by_name(
    kind: Record, name: str, number: object
) -> None:
    with pytest.raises(ConfigurationError, match=name):
        kind(**{name: number})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(("kind", "name"), FIELDS)
@pytest.mark.parametrize("number", [1, 0.5, math.inf])
def test_positive_numbers_and_infinity_are_accepted(kind: Record, name: str, number: float) -> None:
    record = kind(**{name: number})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]
    assert getattr(record, name) == number


@pytest.mark.parametrize(("kind", "name"), FIELDS)
def test_a_record_is_frozen(kind: Record, name: str) -> None:
    with pytest.raises(FrozenInstanceError):
        setattr(kind(), name, 1)


def test_the_defaults_are_as_documented() -> None:
    """P10."""
    assert Timeouts().close == 5.0
    assert Keepalive().interval == 20.0
    assert Limits().max_message_bytes == 64 * 1024 * 1024
    assert Limits().max_request_bytes < 16 * 1024 * 1024


POLICIES: dict[str, list[Any]] = {
    "images": ["keep", "omit"],
    "reasoning": ["keep", "same_model", "omit"],
    "statuses": ["keep", "omit"],
    "max_output": [None, 1, 10**9],
    "max_items": [None, 1, 10**9],
}


@pytest.mark.parametrize("name", POLICIES)
@pytest.mark.parametrize("value", [0, -1, 1.5, True, "some", "", [], math.inf])
def test_a_value_that_a_replay_policy_does_not_know_is_refused_by_name(
    name: str, value: object
) -> None:
    with pytest.raises(ConfigurationError, match=f"ReplayPolicy.{name} must be"):
        ReplayPolicy(**{name: value})  # type: ignore[arg-type]  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("name", POLICIES)
def test_the_values_of_a_replay_policy_are_rules_of_full_input(name: str) -> None:
    for value in POLICIES[name]:
        policy = ReplayPolicy(**{name: value})
        rules = policy.rules(Origin("m", stored=False))
        assert (getattr(rules, name), rules.model, rules.stored) == (value, "m", False)
