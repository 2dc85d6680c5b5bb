"""The tests of this folder run the chat in tmux.

A plain ``pytest`` skips them; ``pytest -m terminal`` runs them, where tmux is installed.
"""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.terminal.tmux import Tmux
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses.testing import ResponsesServer

HERE = Path(__file__).parent


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    is_selected = "terminal" in str(config.getoption("markexpr"))
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.terminal)
            if not is_selected:
                item.add_marker(pytest.mark.skip(reason="drives a terminal: pytest -m terminal"))
            elif shutil.which("tmux") is None:
                item.add_marker(pytest.mark.skip(reason="tmux is not installed"))


@pytest.fixture
async def service() -> AsyncGenerator[ResponsesServer, None]:
    """Start a server on TCP."""
    async with open_test_server() as server:
        await server.serve_tcp()
        yield server


@pytest.fixture
async def tmux() -> AsyncGenerator[Tmux, None]:
    """Start a tmux server of its own, without the user's settings."""
    # The path of a socket is limited to about 100 bytes: that of tmp_path may be longer.
    with tempfile.TemporaryDirectory(prefix="tmux-") as folder:
        tmux = Tmux(Path(folder))
        try:
            yield tmux
        finally:
            await tmux.kill()
