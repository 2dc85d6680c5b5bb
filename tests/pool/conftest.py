"""Run each test of the pool with a clock that jumps, and fail a test that would wait for ever."""

from collections.abc import Sequence
from inspect import iscoroutinefunction
from pathlib import Path

import pytest

from tests.pool.rig import BOUNDED

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: Sequence[pytest.Item]) -> None:
    for item in items:
        is_async = isinstance(item, pytest.Function) and iscoroutinefunction(item.obj)
        if is_async and item.path.parent == HERE:
            item.add_marker(BOUNDED, append=False)
