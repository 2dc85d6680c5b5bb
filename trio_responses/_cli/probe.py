"""The command ``probe``: tries the features of a server and prints a verdict on each.

The features and the way each is tried are in `probe_features.py`. The exit code depends on the
basic features alone.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Protocol, final
from urllib.parse import urlsplit, urlunsplit

import msgspec

from trio_responses._cli.probe_features import (
    BASICS,
    FEATURES,
    Prober,
    Verdict,
    answer_slowly,
    has_basics,
)
from trio_responses._cli.running import FAILED, UsageError, run
from trio_responses._cli.server_choice import (
    DEFAULT_MODEL,
    NO_MODEL,
    default_model,
    endpoint_from_arguments,
    open_server,
)
from trio_responses._safe_text import escape_controls, escape_json_controls

if TYPE_CHECKING:
    import argparse
    from collections.abc import Callable
    from typing import TextIO

    from trio_responses import Endpoint
    from trio_responses._cli.probe_features import Finding

__all__ = ["MODELS", "JSONReport", "Report", "TableReport", "probe", "run_probe"]

MODELS: Final = (DEFAULT_MODEL, "gpt-5-mini", "gpt-4.1-mini")
"""The models to try without ``--model``, in this order."""
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
    """Try every feature of a server and print the verdicts."""
    endpoint = endpoint_from_arguments(arguments)
    if not arguments.models and default_model(arguments) is None:
        raise UsageError(NO_MODEL)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    report: Report = (
        JSONReport(sys.stdout) if arguments.json else TableReport(sys.stdout, colour=colour)
    )
    models = tuple(arguments.models or MODELS)
    prober = partial(
        Prober,
        models=models,
        timeout=arguments.timeout,
        allow_insecure=arguments.allow_insecure,
    )
    return run(partial(_probe, endpoint, report, prober))


async def _probe(
    endpoint: Endpoint | None, report: Report, make_prober: Callable[..., Prober]
) -> int:
    async with open_server(endpoint, responder=answer_slowly) as server:
        return await run_probe(make_prober(server.endpoint, api_key=server.api_key), report)


async def run_probe(prober: Prober, report: Report) -> int:
    """Try every feature and return the exit code: 0 only if the basic features work."""
    report.start(prober)
    findings: list[Finding] = []
    for feature in FEATURES:
        finding = await prober.examine(feature, findings)
        findings.append(finding)
        report.add(finding)
    basics = any(has_basics(findings, transport) for transport in BASICS)
    report.finish(prober, findings, basics=basics)
    return 0 if basics else FAILED


class Report(Protocol):
    """An output format for the findings of a probe."""

    def start(self, prober: Prober) -> None:
        """Begin the report, before the first feature is tried."""
        ...

    def add(self, finding: Finding) -> None:
        """Add the finding of a feature, as soon as the feature was tried."""
        ...

    def finish(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """End the report, after the last feature.

        :param basics: whether the basic features work.
        """
        ...


@final
class TableReport:
    """A report as a table for people; each row is written as soon as its feature was tried."""

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour

    def start(self, prober: Prober) -> None:
        """Write the URL of the server."""
        self._write_line(f"probing {_without_query(prober.endpoint.url)}\n")

    def add(self, finding: Finding) -> None:
        """Write the row of a feature."""
        verdict = f"{finding.verdict:{VERDICT_WIDTH}}"
        if self._colour:
            verdict = f"\x1b[{COLOURS[finding.verdict]}m{verdict}\x1b[0m"
        seconds = f"{finding.seconds:6.2f} s"
        row = (
            f"{finding.name:{NAME_WIDTH}}  {verdict}  {seconds}  {escape_controls(finding.detail)}"
        )
        self._write_line(row.rstrip())

    def finish(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """Write whether the basic features work, and the server's profile as Python code."""
        if not basics:
            self._write_line("\nthe basics do not work")
            return
        options = [f"{name}={value!r}" for name, value in prober.profile(findings).items()]
        url = repr(_without_query(prober.endpoint.url))
        profile = f"Endpoint.compatible({', '.join([url, *options])})"
        over_http = "" if has_basics(findings) else " over HTTP"
        self._write_line(f"\nthe basics work{over_http}; its profile: {profile}")

    def _write_line(self, text: str) -> None:
        self._out.write(f"{text}\n")
        self._out.flush()


@final
class JSONReport:
    """A report as one JSON object for programs, written after the last feature."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def start(self, prober: Prober) -> None:
        """Do nothing: `finish` writes the whole report."""

    def add(self, finding: Finding) -> None:
        """Do nothing: `finish` writes the whole report."""

    def finish(self, prober: Prober, findings: list[Finding], *, basics: bool) -> None:
        """Write the JSON object with every finding."""
        report: dict[str, Any] = {
            "url": _without_query(prober.endpoint.url),
            "basics": basics,
            "transports": [name for name in BASICS if has_basics(findings, name)],
            "model": prober.model if prober.has_answer else None,
            "profile": prober.profile(findings) if basics else None,
            "features": findings,
        }
        self._out.write(escape_json_controls(msgspec.json.encode(report).decode()) + "\n")
        self._out.flush()


def _without_query(url: str) -> str:
    """Return a URL without its query, which holds the API key of some servers."""
    return urlunsplit(urlsplit(url)._replace(query=""))
