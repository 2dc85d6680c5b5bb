"""A worker process of the chaos test: runs the jobs that it gets on its standard input.

    python -m tests.stores.chaos.worker STORE BASE_URL LEDGER

A job is a line ``CONVERSATION NUMBER``; the answer is the same line, or ``failed ...``. The input
of a job is ``CONVERSATION:NUMBER``. Its tool appends the id of its call to the ledger, a file that
only grows, before it does anything else.
"""

from __future__ import annotations

import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

import trio

from trio_responses import (
    ResponsesError,
    ToolContext,  # noqa: TC001 - the tool's schema reads the annotations
    function_tool,
    open_responses,
)
from trio_responses.stores import PostgresStore, RedisStore, SQLiteStore

if TYPE_CHECKING:
    from trio_responses import FunctionTool, ResponsesConnection
    from trio_responses._stores.base import StoreBase
    from trio_responses.stores import ConversationStore

LEASE_SECONDS = 3.0
TIMEOUT = 2.0


def make_store(url: str) -> StoreBase:
    """Return the store with an address."""
    if url.startswith("unix://"):
        return RedisStore(url, timeout=TIMEOUT)
    if url.startswith("host="):
        return PostgresStore(url, timeout=TIMEOUT)
    return SQLiteStore(url, timeout=TIMEOUT)


def make_tool(ledger: int) -> FunctionTool[..., Any]:
    """Return the tool, which writes each call in the ledger before it does its work."""

    @function_tool
    async def work(context: ToolContext, job: str) -> str:
        os.write(ledger, f"{context.call_id} {context.fencing_token} {os.getpid()}\n".encode())
        await trio.sleep(0.005)
        return f"did {job}"

    return work


async def run_job(
    connection: ResponsesConnection, store: ConversationStore, ledger: int, job: str
) -> None:
    """Run one job, and report its end."""
    conversation_id = job.split(maxsplit=1)[0]
    try:
        async with connection.durable_conversation(
            store,
            conversation_id,
            wait=60,
            lease_seconds=LEASE_SECONDS,
            model="m",
            store=False,
            tools=[make_tool(ledger)],
        ) as conversation:
            response = await conversation.run(job.replace(" ", ":"), request_id=job)
            assert response.output_text == f"done {job.replace(' ', ':')}", response.output_text
    except ResponsesError as error:
        print(f"failed {job} {error!r}", flush=True)  # noqa: T201
    else:
        print(job, flush=True)  # noqa: T201


async def main(url: str, base_url: str, ledger_path: str) -> None:
    """Run jobs until the standard input ends."""
    ledger = os.open(ledger_path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
    async with (
        make_store(url) as store,
        open_responses(
            base_url,
            api_key="any",
            reconnect=[0.05] * 100,
            logging=False,
        ) as connection,
        trio.open_nursery() as nursery,
        trio.lowlevel.FdStream(os.dup(0)) as lines,
    ):
        buffer = b""
        async for data in lines:
            *jobs, buffer = (buffer + data).split(b"\n")
            for job in jobs:
                nursery.start_soon(partial(run_job, connection, store, ledger, job.decode()))


if __name__ == "__main__":
    _, store_url, server_url, ledger_file = sys.argv
    trio.run(main, store_url, server_url, ledger_file)
