"""The fuzzing campaign: checks the properties with new inputs for a given time.

``nox -s fuzz -- --seconds 120`` divides the time evenly among the targets and prints the number of
inputs of each. At a failure, Hypothesis shrinks and prints the input, and the campaign ends with
status 1. ``--seed`` repeats the failure.
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import conversing, inputs, properties, shapes

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

LIMITS: Final = st.sampled_from([0, 1, 20, 130, 5000, 60_000])
ROUND: Final = settings(
    max_examples=400,
    deadline=None,
    database=None,
    phases=[Phase.generate, Phase.shrink],
    suppress_health_check=[
        HealthCheck.too_slow,
        HealthCheck.data_too_large,
        HealthCheck.filter_too_much,
        HealthCheck.large_base_example,
    ],
    print_blob=True,
)

TARGETS: Final[Mapping[str, tuple[Callable[..., None], tuple[st.SearchStrategy[Any], ...]]]] = {
    "decode": (properties.check_decode, (inputs.frames(),)),
    "decode_item": (properties.check_item, (inputs.frames(inputs.items),)),
    "frame reader": (properties.check_reader, (inputs.pieces(), LIMITS)),
    "transport": (properties.check_transport, (inputs.pieces(),)),
    "upgrade": (properties.check_upgrade, (inputs.upgrade_responses(),)),
    "turn": (properties.check_turn, (st.lists(inputs.frames(), max_size=8),)),
    "conversation": (conversing.check_conversation, (shapes.conversations(),)),
}


def run_round(target: str, number: int) -> int:
    """Check a target with some hundred new inputs, and return their number."""
    check, strategies = TARGETS[target]
    count = 0

    @seed(number)
    @ROUND
    @given(st.tuples(*strategies))
    def attempt(arguments: tuple[Any, ...]) -> None:
        nonlocal count
        count += 1
        check(*arguments)

    attempt()
    return count


def run(seconds: float, first_seed: int) -> int:
    """Run all targets in turn, each for the same time, and return the exit status."""
    spent = dict.fromkeys(TARGETS, 0.0)
    tried = dict.fromkeys(TARGETS, 0)
    failed: str | None = None
    number = first_seed
    while sum(spent.values()) < seconds and failed is None:
        target = min(spent, key=lambda name: spent[name])
        started = time.perf_counter()
        try:
            tried[target] += run_round(target, number)
        except Exception:  # noqa: BLE001 - the campaign looks for any failure
            traceback.print_exc()
            failed = f"{target!r} failed with --seed {number}"
        spent[target] += time.perf_counter() - started
        number += 1
    for target, count in tried.items():
        print_line(f"{target:>14} {count:>9,} inputs {spent[target]:>7.1f} s")
    print_line(f"{'all':>14} {sum(tried.values()):>9,} inputs {sum(spent.values()):>7.1f} s")
    print_line(failed or f"no failure (seeds {first_seed} to {number - 1})")
    return 0 if failed is None else 1


def print_line(line: str) -> None:
    """Write a line to the standard output."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Read the command line and run the campaign."""
    parser = argparse.ArgumentParser(
        description="Fuzz the decoder, the frame reader, the transport, turns and conversations."
    )
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument(
        "--seed", type=int, default=None, help="seed of the first round; the default is the clock"
    )
    options = parser.parse_args()
    first_seed = int(time.time()) if options.seed is None else options.seed
    return run(options.seconds, first_seed)


if __name__ == "__main__":
    sys.exit(main())
