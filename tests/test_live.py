"""The tests of `nox -s live`, run with the test server in place of a real service."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from tests.live.service import OPT_IN, why_not_run
from tests.pytest_runs import HANG_GUARD, ROOT
from trio_responses.testing import Reply, default_answer, open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio_responses.testing import Answer, Request, ResponsesServer

KEY = "sk-secret-of-a-real-service"
PYTEST = (sys.executable, "-m", "pytest", "-rs", "-p", "no:cacheprovider")
SELECTED = ("-m", "live")


@pytest.fixture
async def service() -> AsyncGenerator[ResponsesServer, None]:
    """Start a server on TCP that answers as a model would."""
    async with open_test_server(api_key=KEY, max_age=None) as server:
        server.respond_with(answer_as_a_model)
        await server.serve_tcp()
        yield server


def answer_as_a_model(request: Request) -> Answer:
    if "Norway" in request.text:
        return Reply('{"name": "Oslo", "country": "Norway"}')
    if "Count" in request.text:
        return Reply("one two three four five six", delay=0.01)
    if "What is my name?" in request.text:
        return Reply(f"You are Ada: {'Ada' in str(request.history)}.")
    return default_answer(request)


async def run_live(
    server: ResponsesServer, folder: Path, *options: str, **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run the live tests in a new process, with the server as the service."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("PYTEST", "OPENAI", "TRIO_RESPONSES"))
    }
    environment = {
        **kept,
        "PYTHONPATH": str(ROOT),
        "OPENAI_BASE_URL": server.url,
        "OPENAI_API_KEY": KEY,
        "TRIO_RESPONSES_LIVE": "1",
        "TRIO_RESPONSES_LIVE_RECORDINGS": str(folder),
        **variables,
    }

    def run() -> subprocess.CompletedProcess[str]:
        return subprocess.run(  # noqa: S603 - our own program
            [*PYTEST, *options, "tests/live"],
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=HANG_GUARD,
            check=False,
        )

    return await trio.to_thread.run_sync(run)


async def test_the_live_tests_pass_and_record_no_key(
    service: ResponsesServer, tmp_path: Path
) -> None:
    done = await run_live(service, tmp_path, *SELECTED)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 passed" in done.stdout
    assert "skipped" not in done.stdout
    assert f"recordings: {tmp_path}" in done.stdout
    assert KEY not in done.stdout + done.stderr

    paths = tmp_path.glob("*.jsonl")  # noqa: ASYNC240 - a few small files
    recordings = [path.read_text(encoding="utf-8") for path in paths]
    assert len(recordings) == 9
    assert not any(KEY in recording for recording in recordings)
    assert sum(recording.count("response.create") for recording in recordings) >= 12
    assert all(request["max_output_tokens"] == 1024 for request in service.requests)


async def test_a_recording_with_the_key_is_an_error(tmp_path: Path) -> None:
    async with open_test_server(api_key="pong", max_age=None) as server:  # a word of the answer
        await server.serve_tcp()
        done = await run_live(server, tmp_path, *SELECTED, "-k", "create", OPENAI_API_KEY="pong")
    assert done.returncode == 1, done.stdout + done.stderr
    assert f"the recording holds the API key: {tmp_path}" in done.stdout


async def test_what_the_service_lacks_is_skipped_with_a_reason(tmp_path: Path) -> None:
    async with open_test_server(api_key=KEY, max_age=None, lanes=False, steering=False) as server:
        server.respond_with(answer_as_a_model)
        await server.serve_tcp()
        done = await run_live(server, tmp_path, *SELECTED, "-k", "lanes or steering")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "2 skipped" in done.stdout
    assert "the service has no lanes" in done.stdout
    assert "the service took no steering input: steering_not_supported" in done.stdout


async def test_the_live_tests_stop_at_the_limit_of_tokens(
    service: ResponsesServer, tmp_path: Path
) -> None:
    done = await run_live(service, tmp_path, *SELECTED, TRIO_RESPONSES_LIVE_TOKENS="5")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "and the limit is 5: no more requests are sent" in done.stdout
    assert len(service.requests) == 1


async def test_a_plain_pytest_sends_nothing(service: ResponsesServer, tmp_path: Path) -> None:
    done = await run_live(service, tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "9 skipped" in done.stdout
    assert "nox -s live" in done.stdout
    assert service.connections == []


@pytest.mark.parametrize(
    ("expression", "variables", "reason"),
    [
        ("", {}, "nox -s live"),
        ("interop", {}, "nox -s live"),
        ("live", {OPT_IN: ""}, f"set {OPT_IN}=1"),
        ("live", {OPT_IN: "yes"}, f"set {OPT_IN}=1"),
        ("live", {"OPENAI_API_KEY": ""}, "set OPENAI_API_KEY"),
        ("live", {}, None),
    ],
)
def test_the_live_tests_are_skipped_unless_all_is_given(
    expression: str,
    variables: dict[str, str],
    reason: str | None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name, value in {OPT_IN: "1", "OPENAI_API_KEY": KEY, **variables}.items():
        monkeypatch.setenv(name, value)
    found = why_not_run(expression)
    assert found is None if reason is None else found is not None and reason in found
