"""Servers for the tests of stores, which start with the first test that needs them."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.stores.postgres_server import run_postgres

if TYPE_CHECKING:
    from collections.abc import Generator

    from tests.stores.postgres_server import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Generator[PostgresServer]:
    with run_postgres() as server:
        yield server
