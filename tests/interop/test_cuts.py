"""Tests of a conversation with agentic-api through a proxy that cuts every connection.

The cuts differ in place (in the handshake, between frames, inside a frame), in direction and in
kind (FIN or RST). Such a conversation must end with the same history as one without cuts, and the
model must receive the same messages; aimock, the model of agentic-api, keeps a journal of them.

The library opens new sockets, sends requests that were not sent, sends the full history on a socket
whose server lacks it, and with ``at_least_once`` sends a lost turn again once. The test repeats a
turn after a `ConnectionLost`, as an application may whose turns may run twice.
"""

from __future__ import annotations

import http.client
import json
import random
from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple
from urllib.parse import urlsplit

import pytest
import trio

from tests.interop.cutting import KINDS, open_cutting_proxy
from tests.interop.programs import HANG_GUARD
from trio_responses import ConnectionLost, DeliveryStatus, Endpoint, ReconnectPolicy, open_responses
from trio_responses._wire import FunctionToolParam
from trio_responses.types import FunctionCallOutput

if TYPE_CHECKING:
    from trio_responses import Conversation, ConversationStatistics
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._wire import Input, Response

TURNS = 30
SEEDS = range(5)
FAST_RECONNECT = ReconnectPolicy(initial=0.001, cap=0.01, attempts=100)
PLAIN_MODEL = "gpt-4.1"
"""A model without reasoning: agentic-api rejects the encrypted reasoning of aimock."""
REASONING_MODEL = "gpt-5.5"
INSTRUCTIONS = "Be brief."
WEATHER = FunctionToolParam(
    name="get_weather",
    description="Tell the weather in a city.",
    strict=False,
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
    },
)
IDS = ("id", "call_id", "tool_call_id")

Json = dict[str, Any]


class Outcome(NamedTuple):
    """The result of a conversation at both ends."""

    history: list[Json]
    """The items of the conversation, without their ids."""
    model_requests: list[list[Json]]
    """The messages of each request to the model, oldest request first."""
    user: User
    statistics: ConversationStatistics

    def runs(self) -> Counter[str]:
        """Return how often the model received each input."""
        return Counter(messages[-1]["content"] for messages in self.model_requests)


def prompts(*, store: bool) -> list[str]:
    """Return the inputs of the user: a word that aimock knows, and a number to make each unique."""
    words = ["ping-text", "remember-me", "forecast-tool", "what-colour"]
    if store:
        words.append("reason-first")
    return [f"{words[number % len(words)]}, turn {number}" for number in range(1, TURNS + 1)]


@dataclass
class User:
    """A user that repeats each turn until it succeeds, and counts the runs that this may cause."""

    conversation: Conversation
    rng: random.Random
    lost: Counter[DeliveryStatus] = field(default_factory=Counter[DeliveryStatus])
    """The lost turns by their delivery status."""
    most_runs: Counter[str] = field(default_factory=Counter[str])
    """The most runs of each input that the delivery statuses permit."""

    async def talk(self, prompts: list[str]) -> None:
        """Run all turns, and answer each call."""
        for number, prompt in enumerate(prompts, 1):
            response = await self.ask(prompt, prompt)
            for call in response.function_calls:
                text = f'{{"celsius": 21, "turn": {number}}}'
                output = FunctionCallOutput(call_id=call.call_id, output=text)
                await self.ask([output], text)

    async def ask(self, items: Input, text: str) -> Response:
        """Run one turn; repeat a lost turn, which must not change the history."""
        choices: list[DeliveryMode] = ["at_most_once", "at_least_once"]
        delivery = self.rng.choice(choices)
        sendings = {"at_most_once": 1, "at_least_once": 2}[delivery]
        before = self.conversation.checkpoint()
        while True:
            try:
                response = await self.conversation.create(items, delivery=delivery)
            except ConnectionLost as lost:
                status = lost.delivery
            else:
                self.most_runs[text] += sendings
                return response
            assert status is not None
            self.lost[status] += 1
            if status is not DeliveryStatus.NOT_SENT:
                self.most_runs[text] += sendings
            assert self.conversation.checkpoint() == before


class Journal:
    """The journal in which aimock records its requests."""

    def __init__(self, origin: str) -> None:
        self._host = urlsplit(origin).netloc

    def clear(self) -> None:
        """Delete all entries."""
        self._call("POST", "/__aimock/reset/journal")

    def requests(self) -> list[list[Json]]:
        """Return the messages of each request, oldest first."""
        entries: list[Json] = self._call("GET", "/__aimock/journal")
        return [entry["body"]["messages"] for entry in entries]

    def _call(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(self._host, timeout=HANG_GUARD)
        try:
            connection.request(method, path)
            with connection.getresponse() as response:
                assert response.status == http.HTTPStatus.OK, response.status
                return json.load(response)
        finally:
            connection.close()


def without_ids(value: Any) -> Any:
    """Return a value without its ids, which differ between conversations."""
    if isinstance(value, list):
        return [without_ids(element) for element in value]
    if isinstance(value, dict):
        return {name: without_ids(field) for name, field in value.items() if name not in IDS}
    return value


async def converse(url: str, *, store: bool, lanes: bool, seed: int, journal: Journal) -> Outcome:
    """Run the whole conversation over one connection; return its outcome."""
    settings: Json = {"model": REASONING_MODEL if store else PLAIN_MODEL, "store": store}
    endpoint = Endpoint.compatible(url, lanes=lanes, after_error="reuse")
    await trio.to_thread.run_sync(journal.clear)
    async with (
        open_responses(
            endpoint=endpoint, api_key="sk-interop", reconnect=FAST_RECONNECT
        ) as connection,
        connection.conversation(
            instructions=INSTRUCTIONS, tools=[WEATHER], **settings
        ) as conversation,
    ):
        user = User(conversation, random.Random(seed))  # noqa: S311 - no secret depends on it
        await user.talk(prompts(store=store))
        requests = await trio.to_thread.run_sync(journal.requests)
        assert connection.statistics().undecodable_frames == 0
        assert connection.statistics().unrouted_events == 0
        items = json.loads(conversation.checkpoint())["items"]
        statistics = conversation.statistics()
        return Outcome(without_ids(items), without_ids(requests), user, statistics)


def texts(messages: list[Json]) -> list[str]:
    return [message["content"] for message in messages if message.get("role") == "user"]


@pytest.fixture(scope="module")
def journal(aimock_origin: str) -> Journal:
    return Journal(aimock_origin)


@pytest.fixture(scope="module")
def uncut(agentic_url: str, journal: Journal) -> dict[bool, Outcome]:
    """Run the conversation without cuts; return the outcomes with and without ``store``."""
    return {
        store: trio.run(
            partial(converse, agentic_url, store=store, lanes=True, seed=0, journal=journal)
        )
        for store in (True, False)
    }


@pytest.mark.parametrize("store", [True, False])
def test_without_cuts_each_turn_is_a_delta_and_runs_once(
    uncut: dict[bool, Outcome], *, store: bool
) -> None:
    """Verify the outcome that the other tests compare with."""
    outcome = uncut[store]
    assert texts(outcome.history) == texts(outcome.model_requests[-1]) == prompts(store=store)
    assert not outcome.user.lost
    assert set(outcome.runs().values()) == {1}
    assert outcome.statistics.full_turns == 1
    assert outcome.statistics.delta_turns > TURNS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("store", [True, False])
async def test_cuts_change_neither_the_history_nor_the_input_of_the_model(
    agentic_url: str, uncut: dict[bool, Outcome], journal: Journal, *, seed: int, store: bool
) -> None:
    address = urlsplit(agentic_url)
    assert address.hostname is not None
    assert address.port is not None
    with trio.fail_after(HANG_GUARD):
        async with open_cutting_proxy(address.hostname, address.port, seed=seed) as proxy:
            outcome = await converse(
                f"http://127.0.0.1:{proxy.port}/v1",
                store=store,
                lanes=bool(seed % 2),
                seed=seed,
                journal=journal,
            )
    assert outcome.history == uncut[store].history
    assert texts(outcome.history) == prompts(store=store)
    assert outcome.model_requests[-1] == uncut[store].model_requests[-1]
    runs = outcome.runs()
    assert {text: runs[text] for text in runs if runs[text] > outcome.user.most_runs[text]} == {}
    # The proxy made every kind of cut, and the user lost turns.
    assert set(proxy.made) == set(KINDS)
    assert sum(outcome.user.lost.values()) > 0
