"""The benchmarks: ``python -m benchmarks``.

It measures this library and its peers in one run, prints the tables, and keeps the numbers as JSON
in benchmarks/runs/. To write them into the documentation, too:

    python -m benchmarks --markdown docs/benchmarks.md --plot docs/_static

What belongs elsewhere: what is measured (`workloads.py`), and how (`runner.py`).
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
from benchmarks.runner import describe, run_all

if TYPE_CHECKING:
    from collections.abc import Sequence

RESULTS: Final = Path(__file__).parent / "runs"


def names(words: str) -> set[str]:
    """Read names that stand between commas."""
    return {word.strip() for word in words.split(",") if word.strip()}


def parse(words: Sequence[str]) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--only", type=names, default=set(), help="workloads, as burst,rtt")
    parser.add_argument("--clients", type=names, default=set(), help="clients, as stream,openai")
    parser.add_argument("--rounds", type=int, help="samples of each; by default 3 to 7")
    parser.add_argument("--markdown", type=Path, help="a page to put the tables into")
    parser.add_argument("--plot", type=Path, help="a folder to draw pictures into")
    parser.add_argument("--json", type=Path, help="where to keep the numbers")
    parser.add_argument(
        "--from", type=Path, nargs="+", dest="sources", help="kept numbers: measure nothing"
    )
    parser.add_argument("--list", action="store_true", help="say what there is")
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
    """Measure, and keep the numbers, also of a run that is broken off."""
    chosen = workloads.chosen(arguments.only)
    taking_part = {name for one in chosen for name in one.clients}
    order = [name for name in catalog.CLIENTS if name in taking_part]
    results = describe([n for n in order if not arguments.clients or n in arguments.clients])
    now = dt.datetime.now(tz=dt.UTC)
    path = arguments.json or RESULTS / f"{now:%Y-%m-%d-%H%M%S}.json"
    try:
        run_all(chosen, rounds=arguments.rounds, clients=arguments.clients, into=results)
    finally:
        results.write(path)
    print(f"kept in {path}", file=sys.stderr)
    return results


def main() -> None:
    """Run the suite, or show the numbers of an earlier run."""
    arguments = parse(sys.argv[1:])
    if arguments.list:
        print("workloads:", ", ".join(one.name for one in workloads.ALL))
        print("clients:", ", ".join(catalog.CLIENTS))
        return
    results = Results.read(*arguments.sources) if arguments.sources else measure(arguments)
    print(text_of(results, markdown=False))
    if arguments.plot is not None:
        draw_all(results, arguments.plot)
    if arguments.markdown is not None:
        page = arguments.markdown.read_text(encoding="utf-8")
        text = put_into(page, text_of(results, markdown=True))
        arguments.markdown.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
