"""Our probe, against servers of others: `aimock`, and `agentic-api` with aimock behind it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.programs import agentic_command, clean_environment, free_port, node_script

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.programs import Program

FIXTURES = Path(__file__).with_name("probe.json")
SECONDS = 80


@pytest.fixture(scope="module")
def upstream(start: Callable[..., Program], modules: Path) -> str:
    """Start an aimock that knows what the probe asks for."""
    script = node_script(modules, "@copilotkit/aimock", "dist/cli.js")
    program = start("aimock-probe", *script, "--port", "0", "--fixtures", str(FIXTURES))
    return program.wait_for(r"listening on (http://\S+)")


def probe(url: str) -> tuple[int, dict[str, str], dict[str, str]]:
    command = [sys.executable, "-m", "trio_responses", "probe", "--json", "--timeout", "60"]
    done = subprocess.run(  # noqa: S603 - our own program
        [*command, "--url", url],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.stderr == ""
    features: list[dict[str, Any]] = json.loads(done.stdout)["features"]
    verdicts = {it["name"]: str(it["verdict"]) for it in features}
    return done.returncode, verdicts, {it["name"]: str(it["detail"]) for it in features}


def test_aimock_has_the_basics_and_heeds_no_parent(upstream: str) -> None:
    code, verdicts, details = probe(f"{upstream}/v1")
    assert code == 0, details
    assert verdicts == {
        "handshake": "works",
        "text turn": "works",
        "chain, store=true": "unclear",
        "chain, store=false": "unclear",
        "unknown parent": "no",
        "turn after an error": "unclear",
        "warm-up": "no",
        "tool turn": "works",
        "steering": "no",
        "lanes": "no",
        "pings": "works",
    }, details


def test_agentic_has_all_but_steering(start: Callable[..., Program], upstream: str) -> None:
    pytest.importorskip("agentic_api", reason="agentic-api is not installed")
    port = free_port()
    program = start("agentic-probe", *agentic_command(port, upstream=upstream))
    program.wait_for_port(port)
    code, verdicts, details = probe(f"http://127.0.0.1:{port}/v1")
    assert code == 0, details
    lacking = {name: verdict for name, verdict in verdicts.items() if verdict != "works"}
    assert lacking == {"steering": "no"}, details
