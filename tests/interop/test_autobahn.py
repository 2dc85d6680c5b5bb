"""Autobahn's fuzzing server against our transport: RFC 6455 as somebody else reads it.

PyPI's `autobahntestsuite` is for Python 2.7, so it has an environment of its own; `wstest` is
looked for on the path, or ``TRIO_RESPONSES_WSTEST`` names it. Without it the tests are skipped.

Every case of the families 1 to 7, 9 and 10 is played. Those of 12 and 13 are about compression
(RFC 7692), which this client does not offer: the server could only call them unimplemented.

What belongs elsewhere: the echo that the cases talk to (`autobahn.py`), the same rules over memory
streams (`tests/transport`) and held against wsproto (`tests/protocol`).
"""

from __future__ import annotations

import json
import os
import shutil
from typing import TYPE_CHECKING

import pytest
import trio

from tests.interop.autobahn import AGENT, FuzzingServer, Verdict
from tests.interop.programs import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.programs import Program

WSTEST_VARIABLE = "TRIO_RESPONSES_WSTEST"
PATIENCE = 85
NOT_OFFERED = ["12.*", "13.*"]

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
"""How the names of the cases begin, and how many there are: none may be left out unseen."""

ELSE = {
    # A frame comes in pieces, and the first of them cannot be the beginning of UTF-8. Frames are
    # judged when they are whole (`core/frames.py`), which the cases allow: fast is better.
    "6.4.3": ("NON-STRICT", "OK"),
    "6.4.4": ("NON-STRICT", "OK"),
    # A long message and a close frame behind it: nothing says whether the echo is still sent.
    "7.1.6": ("INFORMATIONAL", "INFORMATIONAL"),
    # Close codes of which RFC 6455 does not say what becomes of them.
    "7.13.1": ("INFORMATIONAL", "INFORMATIONAL"),
    "7.13.2": ("INFORMATIONAL", "INFORMATIONAL"),
}
"""The cases that are not simply ``OK``, in what came back and in how the connection ended."""


@pytest.fixture(scope="module")
def wstest() -> str:
    found = shutil.which(os.environ.get(WSTEST_VARIABLE) or "wstest")
    if found is None:
        pytest.skip(
            "wstest is not installed: install autobahntestsuite for Python 2.7, and name its"
            f" wstest in {WSTEST_VARIABLE}"
        )
    return found


class Judge:
    """A fuzzing server, and the reports that it writes.

    :param folder: where it runs.
    """

    def __init__(self, port: int, folder: Path) -> None:
        self._server = FuzzingServer(port)
        self._index = folder / "reports" / "index.json"
        self._cases = trio.run(self._server.cases)

    async def verdicts(self, family: str) -> dict[str, Verdict]:
        """Play a family of cases, and read what the server thinks of each."""
        await self._server.play(
            self._cases[name] for name in self._cases if name.startswith(family)
        )
        told = json.loads(self._index.read_text())[AGENT]
        return {
            case: Verdict(verdict["behavior"], verdict["behaviorClose"])
            for case, verdict in told.items()
            if case.startswith(family)
        }


@pytest.fixture(scope="module")
def judge(
    start: Callable[..., Program], wstest: str, tmp_path_factory: pytest.TempPathFactory
) -> Judge:
    port = free_port()
    spec = tmp_path_factory.mktemp("autobahn") / "spec.json"
    settings = {
        "url": f"ws://127.0.0.1:{port}",
        "outdir": "reports",
        "cases": ["*"],
        "exclude-cases": NOT_OFFERED,
        "exclude-agent-cases": {},
    }
    spec.write_text(json.dumps(settings))
    program = start("wstest", wstest, "-m", "fuzzingserver", "-s", str(spec), "--webport", "0")
    program.wait_for_port(port)
    return Judge(port, program.log.parent)


@pytest.mark.parametrize("family", FAMILIES)
async def test_a_fuzzing_server_finds_nothing_wrong(family: str, judge: Judge) -> None:
    with trio.fail_after(PATIENCE):
        verdicts = await judge.verdicts(family)
    expected = {case: Verdict(*ELSE.get(case, ("OK", "OK"))) for case in verdicts}
    assert verdicts == expected
    assert len(verdicts) == FAMILIES[family]
