"""Runs of many rounds with `agentic-api`, whose model is `aimock`: with cuts and without.

Twenty rounds of three calls each, the whole way through a gateway that nobody here wrote. `aimock`
calls by fixtures that are made for this run, and keeps a journal of what it was asked.

What belongs elsewhere: the same over memory streams, at every frame (`tests/conversation/runs`).
"""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import trio

from tests.interop.cutting import open_cutting_proxy
from tests.interop.programs import agentic_command, free_port, node_script
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
AT_ONCE = 3
PATIENCE = 60
TIRELESS = ReconnectPolicy(initial=0.001, cap=0.01, attempts=100)
MODEL = "gpt-4.1"
DONE = "All rounds are done."
ONCE = {(r, n): 1 for r in range(ROUNDS) for n in range(AT_ONCE)}

Json = dict[str, Any]


def fixtures() -> Json:
    """Script the model: each round's calls follow on the last output of the round before.

    The first fixture that fits is taken, so that of the first round comes last.
    """
    made: list[Json] = []
    for number in range(ROUNDS + 1):
        calls = [
            {
                "id": f"call_{number}_{n}",
                "name": "work",
                "arguments": {"round": number, "number": n},
            }
            for n in range(AT_ONCE)
        ]
        match = {"toolCallId": f"call_{number - 1}_{AT_ONCE - 1}"}
        made.append(
            {
                "match": match if number else {"userMessage": "work-hard"},
                "response": {"toolCalls": calls} if number < ROUNDS else {"content": DONE},
            }
        )
    return {"fixtures": made[::-1]}


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
    """A tool that counts how often each of its calls runs; the calls of a round end in reverse."""

    def __init__(self) -> None:
        self.runs: Counter[tuple[int, int]] = Counter()

        @function_tool
        async def work(round: int, number: int) -> str:  # noqa: A002 - the model's word
            """Work."""
            self.runs[round, number] += 1
            await trio.sleep((AT_ONCE - number) / 1000)
            return f"{round}/{number}"

        self.tool = work


async def run_to_its_end(talk: Conversation) -> tuple[Response, int]:
    """Run again after each loss, as a user would; what was not taken in is said once more."""
    losses = 0
    while True:
        new: Input = "work-hard" if not talk.items else ()
        try:
            return await talk.run(new, max_rounds=99, delivery="at_least_once"), losses
        except ConnectionLost:
            losses += 1


def outputs(messages: list[Json]) -> list[str]:
    return [str(each["content"]) for each in messages if each.get("role") == "tool"]


IN_ORDER = [f"{r}/{n}" for r in range(ROUNDS) for n in range(AT_ONCE)]


@pytest.mark.parametrize("store", [True, False])
async def test_twenty_rounds(gateway: str, model: str, *, store: bool) -> None:
    worker, journal = Worker(), Journal(model)
    endpoint = Endpoint.compatible(gateway, lanes=False)
    with trio.fail_after(PATIENCE):
        async with (
            open_responses(endpoint=endpoint, api_key="sk-interop") as connection,
            connection.conversation(model=MODEL, store=store, tools=[worker.tool]) as talk,
        ):
            await trio.to_thread.run_sync(journal.clear)
            async with talk.run_stream("work-hard", max_rounds=99) as run:
                events = [event async for event in run]
            counted = talk.statistics()
            assert run.response.output_text == DONE
            assert connection.statistics().undecodable_frames == 0
        asked = await trio.to_thread.run_sync(journal.asked)
    assert worker.runs == ONCE
    assert sum(isinstance(event, ToolFinished) for event in events) == ROUNDS * AT_ONCE
    assert (counted.full_turns, counted.delta_turns) == (1, ROUNDS)
    assert len(asked) == ROUNDS + 1
    assert outputs(asked[-1]) == IN_ORDER


@pytest.mark.parametrize("seed", range(4))
async def test_twenty_rounds_with_cuts(gateway: str, model: str, seed: int) -> None:
    """Every connection is cut somewhere; no call is run twice, and all are answered in order."""
    place = urlsplit(gateway)
    assert place.hostname is not None
    assert place.port is not None
    worker, journal = Worker(), Journal(model)
    with trio.fail_after(PATIENCE):
        async with open_cutting_proxy(place.hostname, place.port, seed=seed) as proxy:
            url = f"http://127.0.0.1:{proxy.port}/v1"
            endpoint = Endpoint.compatible(url, lanes=bool(seed % 2))
            async with (
                open_responses(endpoint=endpoint, api_key="sk", reconnect=TIRELESS) as connection,
                connection.conversation(model=MODEL, store=False, tools=[worker.tool]) as talk,
            ):
                await trio.to_thread.run_sync(journal.clear)
                response, _ = await run_to_its_end(talk)
                assert response.output_text == DONE
            asked = await trio.to_thread.run_sync(journal.asked)
    assert worker.runs == ONCE
    assert outputs(asked[-1]) == IN_ORDER
    assert sum(proxy.made.values()) > 5
