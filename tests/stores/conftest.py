"""Servers for the tests of stores, which start with the first test that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.engines import REASON, STARTS_ENGINES
from tests.stores.postgres_server import run_postgres

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.stores.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer]:
    if not STARTS_ENGINES:
        pytest.skip(REASON)
    with run_postgres() as server:
        yield server
