"""Fuzz one target by coverage: libFuzzer chooses inputs that reach new branches.

Run ``pip install atheris`` (Linux only), then ``python -m tests.fuzz.by_coverage decode``. Further
arguments are options of libFuzzer, such as ``-max_total_time=60``. libFuzzer sees the branches of
this library's Python code, not those of msgspec, which is C code.
"""

from __future__ import annotations

import sys
from importlib import import_module
from typing import Any, cast

from hypothesis import given, settings
from hypothesis import strategies as st


def main(target: str, *arguments: str) -> None:
    """Run the fuzzer until a failure, or until libFuzzer's time limit."""
    atheris = import_module("atheris")
    with atheris.instrument_imports(include=["trio_responses"]):
        campaign = import_module("tests.fuzz.campaign")
    check, strategies = campaign.TARGETS[target]

    @settings(campaign.ROUND)
    @given(st.tuples(*strategies))
    def attempt(inputs: tuple[Any, ...]) -> None:
        check(*inputs)

    try_bytes = cast("Any", attempt).hypothesis.fuzz_one_input
    atheris.Setup([sys.argv[0], "-max_len=8192", *arguments], try_bytes)
    atheris.Fuzz()


if __name__ == "__main__":
    main(*(sys.argv[1:] or ["decode"]))
