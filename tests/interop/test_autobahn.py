"""Tests of the transport with the fuzzing server of Autobahn, which verifies RFC 6455.

The PyPI package ``autobahntestsuite`` needs Python 2.7 and so a separate environment. Its command
``wstest`` must be on the path, or ``TRIO_RESPONSES_WSTEST`` must name it; otherwise these tests are
skipped.

Every case of the families 1 to 7, 9 and 10 runs. The families 12 and 13 test compression
(RFC 7692), which the client does not offer; the server would report them as unimplemented.
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from tests.interop.autobahn import AGENT, FuzzingServer, Verdict
from tests.interop.programs import HANG_GUARD, free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.programs import Program

WSTEST_VARIABLE = "TRIO_RESPONSES_WSTEST"
COMPRESSION = ["12.*", "13.*"]

FAMILIES = {
    "1.": 16,
    "2.": 11,
    "3.": 7,
    "4.": 10,
    "5.": 20,
    "6.": 145,
    "7.": 37,
    "9.1.": 6,
    "9.2.": 6,
    "9.3.": 9,
    "9.4.": 9,
    "9.5.": 6,
    "9.6.": 6,
    "9.7.": 6,
    "9.8.": 6,
    "10.": 1,
}
"""The number of cases by the prefix of their names, so that a missing case fails a test."""

OTHER_VERDICTS = {
    # The first part of a frame is invalid UTF-8. The transport decodes complete frames only
    # (`_protocol/frames.py`), which the cases permit.
    "6.4.3": ("NON-STRICT", "OK"),
    "6.4.4": ("NON-STRICT", "OK"),
    # A close frame follows a long message: RFC 6455 leaves open whether the echo is still sent.
    "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"),
    # RFC 6455 does not define these close codes.
    "7.13.1": ("INFORMATIONAL", "INFORMATIONAL"),
    "7.13.2": ("INFORMATIONAL", "INFORMATIONAL"),
}
"""The cases whose verdict is not ``OK`` both for the messages and for the closing."""


@pytest.fixture(scope="module")
def wstest() -> str:
    found = shutil.which(os.environ.get(WSTEST_VARIABLE) or "wstest")
    if found is None:
        pytest.skip(
            "wstest is not installed: install autobahntestsuite for Python 2.7 and set"
            f" {WSTEST_VARIABLE} to the path of its wstest"
        )
    return found


class Autobahn:
    """A fuzzing server and the reports that it writes to its folder."""

    def __init__(self, port: int, folder: Path) -> None:
        self._server = FuzzingServer(port)
        self._index = folder / "reports" / "index.json"
        self._cases = trio.run(self._server.cases)

    async def verdicts(self, family: str) -> dict[str, Verdict]:
        """Run a family of cases and return the verdict of each."""
        await self._server.run(self._cases[name] for name in self._cases if name.startswith(family))
        reports = json.loads(self._index.read_text())[AGENT]
        return {
            case: Verdict(report["behavior"], report["behaviorClose"])
            for case, report in reports.items()
            if case.startswith(family)
        }


@pytest.fixture(scope="module")
def autobahn(
    start: Callable[..., Program], wstest: str, tmp_path_factory: pytest.TempPathFactory
) -> Autobahn:
    port = free_port()
    spec = tmp_path_factory.mktemp("autobahn") / "spec.json"
    settings = {
        "url": f"ws://127.0.0.1:{port}",
        "outdir": "reports",
        "cases": ["*"],
        "exclude-cases": COMPRESSION,
        "exclude-agent-cases": {},
    }
    spec.write_text(json.dumps(settings))
    program = start("wstest", wstest, "-m", "fuzzingserver", "-s", str(spec), "--webport", "0")
    program.wait_for_port(port)
    return Autobahn(port, program.log.parent)


@pytest.mark.parametrize("family", FAMILIES)
async def test_the_fuzzing_server_accepts_every_case(family: str, autobahn: Autobahn) -> None:
    with trio.fail_after(HANG_GUARD):
        verdicts = await autobahn.verdicts(family)
    expected = {case: Verdict(*OTHER_VERDICTS.get(case, ("OK", "OK"))) for case in verdicts}
    assert verdicts == expected
    assert len(verdicts) == FAMILIES[family]
