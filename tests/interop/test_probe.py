"""Tests of the command ``probe`` with aimock and with agentic-api in front of aimock."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.programs import (
    HANG_GUARD,
    agentic_command,
    clean_environment,
    free_port,
    node_script,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.programs import Program

FIXTURES = Path(__file__).with_name("probe.json")


@pytest.fixture(scope="module")
def upstream(start: Callable[..., Program], modules: Path) -> str:
    """Start an aimock with responses to the requests of the probe; return its origin."""
    script = node_script(modules, "@copilotkit/aimock", "dist/cli.js")
    program = start("aimock-probe", *script, "--port", "0", "--fixtures", str(FIXTURES))
    return program.wait_for(r"listening on (http://\S+)")


def probe(url: str) -> tuple[int, dict[str, str], dict[str, str]]:
    command = [sys.executable, "-m", "trio_responses", "probe", "--json", "--timeout", "60"]
    process = subprocess.run(  # noqa: S603 - a command of this project
        [*command, "--url", url],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        check=False,
    )
    assert process.stderr == ""
    features: list[dict[str, Any]] = json.loads(process.stdout)["features"]
    verdicts = {feature["name"]: str(feature["verdict"]) for feature in features}
    details = {feature["name"]: str(feature["detail"]) for feature in features}
    return process.returncode, verdicts, details


def test_probe_finds_only_the_basic_features_in_aimock(upstream: str) -> None:
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
        "HTTP streamed": "works",
        "HTTP not streamed": "works",
        "HTTP retrieve": "no",
        "HTTP error form": "unclear",
        "HTTP keep-alive": "works",
    }, details


def test_probe_finds_every_feature_but_steering_in_agentic(
    start: Callable[..., Program], upstream: str
) -> None:
    pytest.importorskip("agentic_api", reason="agentic-api is not installed")
    port = free_port()
    program = start("agentic-probe", *agentic_command(port, upstream=upstream))
    program.wait_for_port(port)
    code, verdicts, details = probe(f"http://127.0.0.1:{port}/v1")
    assert code == 0, details
    others = {name: verdict for name, verdict in verdicts.items() if verdict != "works"}
    assert others == {"steering": "no"}, details
