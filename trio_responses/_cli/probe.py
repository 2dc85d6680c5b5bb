"""``probe``: what a server can do, feature by feature, with a verdict for each.

What belongs elsewhere: the features, and how each is tried (`features.py`, `prober.py`).
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from trio_responses._cli.demo import MODEL
from trio_responses._cli.probe_features import BASICS, FEATURES, Prober, Verdict, answer_slowly
from trio_responses._cli.running import FAILED, WRONG_USAGE, run
from trio_responses._cli.server_choice import choose_place, open_place

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TextIO

    from trio_responses import Endpoint
    from trio_responses._cli.probe_features import Finding

__all__ = ["MODELS", "Report", "probe", "run_probe"]

MODELS: Final = (MODEL, "gpt-5-mini", "gpt-4.1-mini")
"""The models that are tried where none is named."""
GREEN: Final = "32"
YELLOW: Final = "33"
RED: Final = "31"
DIM: Final = "2"
COLOURS: Final = {
    Verdict.WORKS: GREEN,
    Verdict.UNCLEAR: YELLOW,
    Verdict.NO: YELLOW,
    Verdict.FAILS: RED,
    Verdict.SKIPPED: DIM,
}
NAME_WIDTH: Final = max(len(feature.name) for feature in FEATURES)
VERDICT_WIDTH: Final = max(map(len, Verdict))


def probe(arguments: argparse.Namespace) -> int:
    """Try every feature, and print the verdicts."""
    try:
        endpoint = choose_place(arguments)
    except LookupError:
        return WRONG_USAGE
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    report: Report = JSONReport(sys.stdout) if arguments.json else Table(sys.stdout, colour=colour)
    models = tuple(arguments.models or MODELS)
    prober = partial(Prober, models=models, timeout=arguments.timeout)
    return run(partial(_probe_place, endpoint, report, prober))


async def _probe_place(
    endpoint: Endpoint | None, report: Report, make_prober: Callable[..., Prober]
) -> int:
    async with open_place(endpoint, responder=answer_slowly) as place:
        return await run_probe(make_prober(place.endpoint, api_key=place.api_key), report)


async def run_probe(prober: Prober, report: Report) -> int:
    """Try every feature.

    :return: the exit code: 0 only if the basics work.
    """
    report.begin(prober)
    findings: list[Finding] = []
    for feature in FEATURES:
        finding = await prober.examine(feature, findings)
        findings.append(finding)
        report.tell(finding)
    basics = all(it.verdict is Verdict.WORKS for it in findings if it.name in BASICS)
    report.end(prober, findings, basics=basics)
    return 0 if basics else FAILED


class Report(Protocol):
    """Where the verdicts are told."""

    def begin(self, prober: Prober) -> None:
        """Say what is probed."""
        ...

    def tell(self, finding: Finding) -> None:
        """Tell one of them."""
        ...

    def end(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """Sum up."""
        ...


@final
class Table:
    """Lines for people, each as soon as it is known."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour

    def begin(self, prober: Prober) -> None:
        """Say what is probed."""
        self._line(f"probing {_shown_url(prober.endpoint.url)}\n")

    def tell(self, finding: Finding) -> None:
        """Tell one verdict."""
        verdict = f"{finding.verdict:{VERDICT_WIDTH}}"
        if self._colour:
            verdict = f"\x1b[{COLOURS[finding.verdict]}m{verdict}\x1b[0m"
        seconds = f"{finding.seconds:6.2f} s"
        self._line(f"{finding.name:{NAME_WIDTH}}  {verdict}  {seconds}  {finding.detail}".rstrip())

    def end(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """Sum up, and say how a program would describe this server."""
        if not basics:
            self._line("\nthe basics do not work")
            return
        profile = [f"{name}={value!r}" for name, value in prober.profile(findings).items()]
        url = repr(_shown_url(prober.endpoint.url))
        self._line(
            f"\nthe basics work; its profile: Endpoint.compatible({', '.join([url, *profile])})"
        )

    def _line(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


@final
class JSONReport:
    """One JSON object for programs, at the end."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def begin(self, prober: Prober) -> None:
        """Say nothing yet."""

    def tell(self, finding: Finding) -> None:
        """Say nothing yet."""

    def end(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """Write everything."""
        report: dict[str, Any] = {
            "url": _shown_url(prober.endpoint.url),
            "basics": basics,
            "model": prober.model,
            "profile": prober.profile(findings) if basics else None,
            "features": findings,
        }
        self._out.write(msgspec.json.encode(report).decode() + "\n")
        self._out.flush()


def _shown_url(url: str) -> str:
    """Leave out the query: some servers take a key there."""
    return urlunsplit(urlsplit(url)._replace(query=""))
