"""Eight processes share fifty conversations: nothing is lost, doubled or started twice.

The suite has a small run with SQLite. ``nox -s stores`` has the large ones with each engine.
"""

import os
from pathlib import Path

import pytest
import trio

from tests.stores.chaos.harness import Chaos, Plan
from tests.stores.postgres_server import PostgresServer
from tests.stores.redis_server import needs_redis, open_redis_server

SIZES = os.environ.get("TRIO_RESPONSES_CHAOS", "")
"""The numbers of processes, conversations and jobs, and the seed: ``8,50,2000,1``."""
large = pytest.mark.skipif(
    not SIZES, reason="takes minutes: set TRIO_RESPONSES_CHAOS=8,50,2000,1, or run nox -s stores"
)


def make_plan() -> Plan:
    processes, conversations, jobs, seed = map(int, (SIZES or "2,3,12,1").split(","))
    return Plan(processes=processes, conversations=conversations, jobs=jobs, seed=seed)


async def run(plan: Plan, url: str, folder: Path) -> None:
    chaos = Chaos(plan, url, folder)
    report = await chaos.run()
    await chaos.check()
    print(report)  # noqa: T201 - shown by pytest -s


async def test_conversations_in_sqlite_survive(tmp_path: Path) -> None:
    await run(make_plan(), str(tmp_path / "chats.db"), tmp_path)


@large
@needs_redis
async def test_conversations_in_redis_survive(tmp_path: Path) -> None:
    async with open_redis_server() as server:
        plan = make_plan()
        plan.restart_engine = server.restart
        await run(plan, server.url, tmp_path)


@large
async def test_conversations_in_postgres_survive(tmp_path: Path, postgres: PostgresServer) -> None:
    def restart() -> None:
        postgres.stop()
        postgres.start()

    plan = make_plan()
    plan.restart_engine = lambda: trio.to_thread.run_sync(restart)
    await run(plan, postgres.dsn(), tmp_path)
