"""P4, P7: a conversation with `agentic-api` behind a proxy that cuts every connection.

Each connection is cut at some byte of its own: in the handshake, between frames or inside one, on
the way up or down, by FIN or by RST. The conversation is to end as one without cuts does: the
same history here, the same messages at the model (`aimock` keeps a journal of what it was asked).

Who does what: the library opens sockets anew, sends what was not sent, writes a delta as full
input where the new socket does not know the rest, and with ``at_least_once`` sends a lost turn
again, once. The test does what its user would: it asks again after a `ConnectionLost`, which it
may, since nothing but the bill depends on how often these turns run.

What belongs elsewhere: cuts at every kind of moment over memory streams (`tests/conversation`).
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
from trio_responses import ConnectionLost, DeliveryStatus, Endpoint, ReconnectPolicy, open_responses
from trio_responses._wire import FunctionToolParam
from trio_responses.types import FunctionCallOutput

if TYPE_CHECKING:
    from trio_responses import Conversation, ConversationStatistics
    from trio_responses._protocol.delivery import DeliveryMode
    from trio_responses._wire import Input, Response

TURNS = 30
SEEDS = range(5)
PATIENCE = 60
TIRELESS = ReconnectPolicy(initial=0.001, cap=0.01, attempts=100)
PLAIN_MODEL = "gpt-4.1"
"""A model without reasoning: what aimock encrypts of it, agentic does not take back."""
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


class Told(NamedTuple):
    """What a conversation came to."""

    history: list[Json]
    """Its items, without their ids."""
    asked: list[list[Json]]
    """The messages of each request to the model, oldest request first."""
    user: User
    statistics: ConversationStatistics

    def runs(self) -> Counter[str]:
        """Count how often the model was asked each thing."""
        return Counter(messages[-1]["content"] for messages in self.asked)


def prompts(*, store: bool) -> list[str]:
    """Give the user's inputs: words that aimock knows, and a number that makes each unique."""
    words = ["ping-text", "remember-me", "forecast-tool", "what-colour"]
    if store:
        words.append("reason-first")
    return [f"{words[number % len(words)]}, turn {number}" for number in range(1, TURNS + 1)]


@dataclass
class User:
    """Somebody who asks until there is an answer, and notes what each asking may have started."""

    conversation: Conversation
    chance: random.Random
    lost: Counter[DeliveryStatus] = field(default_factory=Counter[DeliveryStatus])
    """The losses that the library left to the user."""
    most_runs: Counter[str] = field(default_factory=Counter[str])
    """How often each input may have run at most, by what the library said."""

    async def talk(self, prompts: list[str]) -> None:
        """Have all turns; a call gets its output."""
        for number, prompt in enumerate(prompts, 1):
            response = await self.ask(prompt, prompt)
            for call in response.function_calls:
                text = f'{{"celsius": 21, "turn": {number}}}'
                output = FunctionCallOutput(call_id=call.call_id, output=text)
                await self.ask([output], text)

    async def ask(self, given: Input, text: str) -> Response:
        """Run one turn; a lost one has left no trace in the history, so it is asked again."""
        choices: list[DeliveryMode] = ["at_most_once", "at_least_once"]
        delivery = self.chance.choice(choices)
        sendings = {"at_most_once": 1, "at_least_once": 2}[delivery]
        before = self.conversation.checkpoint()
        while True:
            try:
                response = await self.conversation.create(given, delivery=delivery)
            except ConnectionLost as lost:
                told = lost.delivery
            else:
                self.most_runs[text] += sendings
                return response
            assert told is not None
            self.lost[told] += 1
            if told is not DeliveryStatus.NOT_SENT:
                self.most_runs[text] += sendings
            assert self.conversation.checkpoint() == before


class Journal:
    """What aimock was asked."""

    def __init__(self, origin: str) -> None:
        self._host = urlsplit(origin).netloc

    def clear(self) -> None:
        """Forget it."""
        self._call("POST", "/__aimock/reset/journal")

    def asked(self) -> list[list[Json]]:
        """Give the messages of each request, oldest first."""
        entries: list[Json] = self._call("GET", "/__aimock/journal")
        return [entry["body"]["messages"] for entry in entries]

    def _call(self, method: str, path: str) -> Any:
        connection = http.client.HTTPConnection(self._host, timeout=PATIENCE)
        try:
            connection.request(method, path)
            with connection.getresponse() as answer:
                assert answer.status == http.HTTPStatus.OK, answer.status
                return json.load(answer)
        finally:
            connection.close()


def without_ids(value: Any) -> Any:
    """Leave the ids out, which differ from one conversation to the next."""
    if isinstance(value, list):
        return [without_ids(one) for one in value]
    if isinstance(value, dict):
        return {name: without_ids(one) for name, one in value.items() if name not in IDS}
    return value


async def converse(url: str, *, store: bool, lanes: bool, seed: int, journal: Journal) -> Told:
    """Have the conversation over one connection, and look at both its ends."""
    settings: Json = {"model": REASONING_MODEL if store else PLAIN_MODEL, "store": store}
    endpoint = Endpoint.compatible(url, lanes=lanes, after_error="reuse")
    await trio.to_thread.run_sync(journal.clear)
    async with (
        open_responses(endpoint=endpoint, api_key="sk-interop", reconnect=TIRELESS) as connection,
        connection.conversation(instructions=INSTRUCTIONS, tools=[WEATHER], **settings) as talk,
    ):
        user = User(talk, random.Random(seed))  # noqa: S311 - no secret depends on it
        await user.talk(prompts(store=store))
        asked = await trio.to_thread.run_sync(journal.asked)
        assert connection.statistics().undecodable_frames == 0
        assert connection.statistics().unclaimed_events == 0
        items = json.loads(talk.checkpoint())["items"]
        return Told(without_ids(items), without_ids(asked), user, talk.statistics())


def texts(messages: list[Json]) -> list[str]:
    return [message["content"] for message in messages if message.get("role") == "user"]


@pytest.fixture(scope="module")
def journal(aimock_origin: str) -> Journal:
    return Journal(aimock_origin)


@pytest.fixture(scope="module")
def uncut(agentic_url: str, journal: Journal) -> dict[bool, Told]:
    """What the conversation comes to where nothing is cut, with and without ``store``."""
    return {
        store: trio.run(
            partial(converse, agentic_url, store=store, lanes=True, seed=0, journal=journal)
        )
        for store in (True, False)
    }


@pytest.mark.parametrize("store", [True, False])
def test_without_cuts_each_turn_is_a_delta_and_runs_once(
    uncut: dict[bool, Told], *, store: bool
) -> None:
    """What the others are compared with is as it should be."""
    told = uncut[store]
    assert texts(told.history) == texts(told.asked[-1]) == prompts(store=store)
    assert not told.user.lost
    assert set(told.runs().values()) == {1}
    assert told.statistics.full_turns == 1
    assert told.statistics.delta_turns > TURNS


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("store", [True, False])
async def test_cuts_change_nothing_but_the_cost(
    agentic_url: str, uncut: dict[bool, Told], journal: Journal, *, seed: int, store: bool
) -> None:
    place = urlsplit(agentic_url)
    assert place.hostname is not None
    assert place.port is not None
    with trio.fail_after(PATIENCE):
        async with open_cutting_proxy(place.hostname, place.port, seed=seed) as proxy:
            told = await converse(
                f"http://127.0.0.1:{proxy.port}/v1",
                store=store,
                lanes=bool(seed % 2),
                seed=seed,
                journal=journal,
            )
    assert told.history == uncut[store].history
    assert texts(told.history) == prompts(store=store)
    assert told.asked[-1] == uncut[store].asked[-1]
    runs = told.runs()
    assert {text: runs[text] for text in runs if runs[text] > told.user.most_runs[text]} == {}
    # The cuts were there, of every kind, and the user had work with them, too.
    assert set(proxy.made) == set(KINDS)
    assert sum(told.user.lost.values()) > 0
