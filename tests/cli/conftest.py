"""Fixtures of the command line's tests."""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING

import pytest

from tests.cli.cli_driver import clear_environment, prepare_next_server

if TYPE_CHECKING:
    from tests.cli.cli_driver import Patch, PrepareServer


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: Patch) -> None:
    """Run the test without the variables that the commands read."""
    clear_environment(monkeypatch)


@pytest.fixture
def prepare_server(monkeypatch: Patch) -> PrepareServer:
    """Return a function that prepares the next server of a command."""
    return partial(prepare_next_server, monkeypatch)
