"""Fixtures of the tests that send requests to a real service.

A plain ``pytest`` skips these tests. ``nox -s live`` runs them, if the environment allows that and
has a key. Every test is recorded into a file of its own, in a folder that the summary names.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.live.service import (
    DEFAULT_MODEL,
    DEFAULT_TOKENS,
    MODEL_VARIABLE,
    RECORDINGS_VARIABLE,
    TOKENS_VARIABLE,
    LiveService,
    TokenBudget,
    why_not_run,
)
from tests.secrets_watch import SecretsWatch
from trio_responses import Endpoint, Recorder, Recording

if TYPE_CHECKING:
    from collections.abc import Generator

HERE = Path(__file__).parent

budget_key = pytest.StashKey[TokenBudget]()
folder_key = pytest.StashKey[Path]()
reasons_key = pytest.StashKey[list[str]]()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    reason = why_not_run(str(config.getoption("markexpr")))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.live)
            if reason is not None:
                item.add_marker(pytest.mark.skip(reason=reason))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item,
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    reasons = item.stash.get(reasons_key, None)
    if report.skipped and reasons:
        report.longrepr = (str(item.path), item.location[1] or 0, reasons[0])
    return report


@pytest.fixture(scope="session")
def api_key(pytestconfig: pytest.Config) -> str:
    """Return the real key; every test fails that shows the key in a log record or an exception."""
    key = os.environ[Endpoint.of(None).key_variable]
    watch = pytestconfig.pluginmanager.get_plugin("secrets-watch")
    assert isinstance(watch, SecretsWatch)
    watch.add_marker(key)
    return key


@pytest.fixture(scope="session")
def budget(pytestconfig: pytest.Config) -> TokenBudget:
    limit = int(os.environ.get(TOKENS_VARIABLE, DEFAULT_TOKENS))
    budget = pytestconfig.stash[budget_key] = TokenBudget(limit)
    return budget


@pytest.fixture(scope="session")
def folder(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of the recordings."""
    given = os.environ.get(RECORDINGS_VARIABLE)
    folder = Path(given).resolve() if given else tmp_path_factory.mktemp("recordings")
    folder.mkdir(parents=True, exist_ok=True)
    pytestconfig.stash[folder_key] = folder
    return folder


@pytest.fixture
def service(
    request: pytest.FixtureRequest, api_key: str, budget: TokenBudget, folder: Path
) -> Generator[LiveService, None, None]:
    """Return the service; after the test, check the tokens, and the recording for the key."""
    path = folder / f"{request.node.name}.jsonl"
    with Recorder(path) as recorder:
        yield LiveService(
            endpoint=Endpoint.of(None),
            api_key=api_key,
            model=os.environ.get(MODEL_VARIABLE, DEFAULT_MODEL),
            budget=budget,
            recorder=recorder,
            skip_reasons=request.node.stash.setdefault(reasons_key, []),
        )
    assert len(Recording.read(path)) > 0
    # Not with ==: pytest would show the key.
    has_key = api_key.encode() in path.read_bytes()
    assert not has_key, f"the recording holds the API key: {path}"
    if budget.problem is not None:
        request.session.shouldfail = budget.problem
        pytest.fail(budget.problem, pytrace=False)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    budget = config.stash.get(budget_key, None)
    if budget is not None:
        terminalreporter.write_line(f"spent {budget.spent} of {budget.limit} tokens")
    folder = config.stash.get(folder_key, None)
    if folder is not None:
        terminalreporter.write_line(f"recordings: {folder}")
