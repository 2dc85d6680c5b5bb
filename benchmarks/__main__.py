"""The command line of the benchmarks: ``python -m benchmarks``.

Every run measures this library and its peers, prints tables, and keeps the numbers as JSON in
``benchmarks/runs/``. ``--docs docs`` writes the tables and pictures into the documentation as well,
also from the numbers of an earlier run::

    python -m benchmarks --from benchmarks/runs/2026-11-28-201500.json --docs docs
"""

from __future__ import annotations

import argparse
import datetime as dt
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final

from benchmarks import catalog, workloads
from benchmarks.plots import draw_all
from benchmarks.report import put_into, text_of
from benchmarks.results import Results
from benchmarks.runner import counted_calls, describe, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS: Final = Path(__file__).parent / "runs"


def names(words: str) -> set[str]:
    """Return the names in a comma-separated list."""
    return {word.strip() for word in words.split(",") if word.strip()}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Return the arguments of the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=names, default=set(), help="workloads, such as burst,rtt")
    parser.add_argument(
        "--clients", type=names, default=set(), help="clients, such as stream,openai"
    )
    parser.add_argument("--rounds", type=int, help="samples of each client, by default 3 to 7")
    parser.add_argument(
        "--docs",
        type=Path,
        help="write tables into benchmarks.md of this folder, and pictures into its _static",
    )
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    parser.add_argument(
        "--from",
        type=Path,
        nargs="+",
        dest="sources",
        help="show the numbers in these files, measure nothing",
    )
    parser.add_argument("--list", action="store_true", help="list workloads and clients")
    arguments = parser.parse_args(words)
    unknown = arguments.clients - set(catalog.CLIENTS)
    if unknown:
        parser.error(f"no such client: {', '.join(sorted(unknown))}")
    try:
        workloads.chosen(arguments.only)
    except ValueError as error:
        parser.error(str(error))
    return arguments


def measure(arguments: argparse.Namespace) -> Results:
    """Run the chosen workloads and keep the numbers, also those of an interrupted run."""
    chosen = workloads.chosen(arguments.only)
    taking_part = {name for one in chosen for name in one.clients}
    order = [name for name in catalog.CLIENTS if name in taking_part]
    results = describe([n for n in order if not arguments.clients or n in arguments.clients])
    now = dt.datetime.now(tz=dt.UTC)
    path = arguments.json or RESULTS / f"{now:%Y-%m-%d-%H%M%S}.json"
    try:
        if not arguments.only or workloads.CALLS in arguments.only:
            results.workloads[workloads.CALLS] = counted_calls()
        run_all(chosen, rounds=arguments.rounds, clients=arguments.clients, into=results)
    finally:
        results.write(path)
    print(f"The numbers are in {path}.", file=sys.stderr)
    return results


def write_docs(results: Results, folder: Path) -> None:
    """Write the tables and the pictures of a run into the documentation."""
    page = folder / "benchmarks.md"
    text = put_into(page.read_text(encoding="utf-8"), text_of(results, markdown=True))
    page.write_text(text, encoding="utf-8")
    draw_all(results, folder / "_static")


def main() -> None:
    """Run the benchmarks, or show the numbers of an earlier run."""
    arguments = parse(sys.argv[1:])
    if arguments.list:
        print("workloads:", ", ".join((workloads.CALLS, *(one.name for one in workloads.ALL))))
        print("clients:", ", ".join(catalog.CLIENTS))
        return
    results = Results.read(*arguments.sources) if arguments.sources else measure(arguments)
    print(text_of(results, markdown=False))
    if arguments.docs is not None:
        write_docs(results, arguments.docs)


if __name__ == "__main__":
    main()
