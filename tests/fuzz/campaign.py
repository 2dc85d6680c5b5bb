"""The fuzzing campaign: the properties, with new inputs for as long as one likes.

``nox -s fuzz -- --seconds 120`` gives each target its share of the time and prints how many inputs
it had. A failure is shrunk, printed as Hypothesis prints it, and ends the campaign with status 1;
``--seed`` runs it again.

What belongs elsewhere: what is tried (`inputs.py`), what has to hold (`properties.py`), inputs that
are chosen by coverage (`by_coverage.py`).
"""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from typing import TYPE_CHECKING, Any, Final

from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from tests.fuzz import inputs, properties

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
    "upgrade": (properties.check_upgrade, (inputs.upgrade_answers(),)),
    "turn": (properties.check_turn, (st.lists(inputs.frames(), max_size=8),)),
}


def run_round(target: str, number: int) -> int:
    """Try some hundred new inputs on a target, and give their number."""
    check, strategies = TARGETS[target]
    tried = 0

    @seed(number)
    @ROUND
    @given(st.tuples(*strategies))
    def attempt(arguments: tuple[Any, ...]) -> None:
        nonlocal tried
        tried += 1
        check(*arguments)

    attempt()
    return tried


def run(seconds: float, first_seed: int) -> int:
    """Run all targets in turn, each as long as the others, and give the exit status."""
    spent = dict.fromkeys(TARGETS, 0.0)
    tried = dict.fromkeys(TARGETS, 0)
    failed: str | None = None
    number = first_seed
    while sum(spent.values()) < seconds and failed is None:
        target = min(spent, key=lambda name: spent[name])
        started = time.perf_counter()
        try:
            tried[target] += run_round(target, number)
        except Exception:  # noqa: BLE001 - whatever it is, it is what was looked for
            traceback.print_exc()
            failed = f"{target!r} failed with --seed {number}"
        spent[target] += time.perf_counter() - started
        number += 1
    for target, count in tried.items():
        say(f"{target:>14} {count:>9,} inputs {spent[target]:>7.1f} s")
    say(f"{'all':>14} {sum(tried.values()):>9,} inputs {sum(spent.values()):>7.1f} s")
    say(failed or f"no failure (seeds {first_seed} to {number - 1})")
    return 0 if failed is None else 1


def say(line: str) -> None:
    """Print a line."""
    sys.stdout.write(f"{line}\n")


def main() -> int:
    """Read the command line and run."""
    parser = argparse.ArgumentParser(description="Fuzz the decoder, the frame reader, the socket.")
    parser.add_argument("--seconds", type=float, default=120.0)
    parser.add_argument("--seed", type=int, default=None, help="of the first round; by the clock")
    options = parser.parse_args()
    first_seed = int(time.time()) if options.seed is None else options.seed
    return run(options.seconds, first_seed)


if __name__ == "__main__":
    sys.exit(main())
