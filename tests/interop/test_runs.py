"""Tests of runs of twenty rounds through agentic-api, with cuts and without.

Each round has three calls. The model of agentic-api is aimock, which makes the calls from fixtures
of these tests and keeps a journal of its requests.
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.interop.cutting import open_cutting_proxy
from tests.interop.programs import HANG_GUARD, agentic_command, free_port, node_script
from tests.interop.test_cuts import Journal
from trio_responses import (
    ConnectionLost,
    Endpoint,
    ReconnectPolicy,
    ToolFinished,
    function_tool,
    open_responses,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from tests.interop.programs import Program
    from trio_responses._conversation.conversation import Conversation
    from trio_responses._wire import Input
    from trio_responses.types import Response

ROUNDS = 20
CALLS = 3
FAST_RECONNECT = ReconnectPolicy(initial=0.001, cap=0.01, attempts=100)
MODEL = "gpt-4.1"
DONE = "All rounds are done."
ONCE = {(r, n): 1 for r in range(ROUNDS) for n in range(CALLS)}

Json = dict[str, Any]


def fixtures() -> Json:
    """Return the fixtures of aimock: the last output of a round leads to the calls of the next."""
    entries: list[Json] = []
    for number in range(ROUNDS + 1):
        calls = [
            {
                "id": f"call_{number}_{n}",
                "name": "work",
                "arguments": {"round": number, "number": n},
            }
            for n in range(CALLS)
        ]
        match = {"toolCallId": f"call_{number - 1}_{CALLS - 1}"}
        entries.append(
            {
                "match": match if number else {"userMessage": "work-hard"},
                "response": {"toolCalls": calls} if number < ROUNDS else {"content": DONE},
            }
        )
    # aimock uses the first fixture that matches, so the fixture of the first round is the last.
    return {"fixtures": entries[::-1]}


@pytest.fixture(scope="module")
def model(
    start: Callable[..., Program], modules: Path, tmp_path_factory: pytest.TempPathFactory
) -> str:
    script = node_script(modules, "@copilotkit/aimock", "dist/cli.js")
    path = tmp_path_factory.mktemp("rounds") / "rounds.json"
    path.write_text(json.dumps(fixtures()), encoding="utf-8")
    program = start("aimock-rounds", *script, "--port", "0", "--fixtures", str(path))
    return program.wait_for(r"listening on (http://\S+)")


@pytest.fixture(scope="module")
def gateway(start: Callable[..., Program], model: str) -> str:
    pytest.importorskip("agentic_api", reason="agentic-api is not installed")
    port = free_port()
    program = start("agentic-rounds", *agentic_command(port, upstream=model))
    program.wait_for_port(port)
    return f"http://127.0.0.1:{port}/v1"


class Worker:
    """A tool that counts the runs of each call; the calls of a round end in reverse order."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[int, int]] = Counter()

        @function_tool
        async def work(round: int, number: int) -> str:  # noqa: A002 - a parameter of the tool
            """Return the numbers of the call."""
            self.runs[round, number] += 1
            await trio.sleep((CALLS - number) / 1000)
            return f"{round}/{number}"

        self.tool = work


async def run_until_done(conversation: Conversation) -> tuple[Response, int]:
    """Run again after each lost connection; return the final response and the number of losses."""
    losses = 0
    while True:
        new_input: Input = () if conversation.items else "work-hard"
        try:
            return await conversation.run(
                new_input, max_rounds=99, delivery="at_least_once"
            ), losses
        except ConnectionLost:
            losses += 1


def outputs(messages: list[Json]) -> list[str]:
    return [str(message["content"]) for message in messages if message.get("role") == "tool"]


IN_ORDER = [f"{r}/{n}" for r in range(ROUNDS) for n in range(CALLS)]


@pytest.mark.parametrize("store", [True, False])
async def test_each_call_of_twenty_rounds_runs_once(
    gateway: str, model: str, *, store: bool
) -> None:
    worker, journal = Worker(), Journal(model)
    endpoint = Endpoint.compatible(gateway, lanes=False)
    with trio.fail_after(HANG_GUARD):
        async with (
            open_responses(endpoint=endpoint, api_key="sk-interop") as connection,
            connection.conversation(model=MODEL, store=store, tools=[worker.tool]) as conversation,
        ):
            await trio.to_thread.run_sync(journal.clear)
            async with conversation.run_stream("work-hard", max_rounds=99) as run:
                events = [event async for event in run]
            statistics = conversation.statistics()
            assert run.response.output_text == DONE
            assert connection.statistics().undecodable_frames == 0
        requests = await trio.to_thread.run_sync(journal.requests)
    assert worker.runs == ONCE
    assert sum(isinstance(event, ToolFinished) for event in events) == ROUNDS * CALLS
    assert (statistics.full_turns, statistics.delta_turns) == (1, ROUNDS)
    assert len(requests) == ROUNDS + 1
    assert outputs(requests[-1]) == IN_ORDER


@pytest.mark.parametrize("seed", range(4))
async def test_each_call_runs_once_although_every_connection_is_cut(
    gateway: str, model: str, seed: int
) -> None:
    address = urlsplit(gateway)
    assert address.hostname is not None
    assert address.port is not None
    worker, journal = Worker(), Journal(model)
    with trio.fail_after(HANG_GUARD):
        async with open_cutting_proxy(address.hostname, address.port, seed=seed) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/v1"
            endpoint = Endpoint.compatible(url, lanes=bool(seed % 2))
            async with (
                open_responses(
                    endpoint=endpoint, api_key="sk", reconnect=FAST_RECONNECT
                ) as connection,
                connection.conversation(
                    model=MODEL, store=False, tools=[worker.tool]
                ) as conversation,
            ):
                await trio.to_thread.run_sync(journal.clear)
                response, _ = await run_until_done(conversation)
                assert response.output_text == DONE
            requests = await trio.to_thread.run_sync(journal.requests)
    assert worker.runs == ONCE
    assert outputs(requests[-1]) == IN_ORDER
    assert sum(proxy.made.values()) > 5
