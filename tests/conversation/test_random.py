"""P7, at random: a history over a faulty server equals the history over a perfect one.

The server forgets responses, drops sockets, and answers with errors or cut-off responses; the
connection rotates; turns are left early. Each history is compared with a model: a list of items.
"""

import zlib
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from itertools import pairwise
from typing import Any, Final

import msgspec
import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.conversation.rig import history, user
from tests.turn.rig import LIMIT_REACHED, Json
from trio_responses import (
    Conversation,
    DeliveryStatus,
    ReconnectPolicy,
    ResponseFailedError,
    ResponsesConnection,
    ResponsesError,
    RotationPolicy,
    SteerReceipt,
)
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses._wire import Response
from trio_responses.testing import Reply, Request, ResponsesServer, open_test_server

PATIENT: Final = ReconnectPolicy(jitter=0.0, attempts=10_000)
ROTATION: Final = RotationPolicy(max_age=100, stagger=0)

BEFORE: Final[Mapping[str, Callable[[ResponsesServer], Awaitable[None]]]] = {
    "nothing": lambda _: pass_time(),
    "reset": lambda server: server.reset_all(),
    "end": lambda server: server.hang_up_all(),
    "close": lambda server: server.close_all(),
    "rotate": lambda _: pass_time(150),
    "wait": lambda _: pass_time(10),
}
"""Events between two turns."""

NOT_RUN: Final = {DeliveryStatus.NOT_SENT, DeliveryStatus.REJECTED}
NOT_FOUND: Final = "previous_response_not_found"
FAULTS: Final[Mapping[str, Callable[[ResponsesServer], object]]] = {
    "nothing": lambda _: None,
    "forget": lambda server: server.fail(NOT_FOUND, status=400),
    "forget late": lambda server: server.fail(NOT_FOUND, status=400, after_events=2),
    "limit": lambda server: server.answer([LIMIT_REACHED]),
    "limit late": lambda server: server.answer().inject(LIMIT_REACHED, after_events=3),
    "400": lambda server: server.fail("invalid_value", status=400),
    "429": lambda server: server.fail("rate_limit_exceeded", status=429),
    "500": lambda server: server.fail(),
    "500 late": lambda server: server.fail(after_events=3),
    "failed": lambda server: server.fail(shape="failed", after_events=2),
    "silence": lambda server: server.stall(after_events=1, seconds=700),
    "drop": lambda server: server.drop(),
    "drop late": lambda server: server.drop(after_events=4, how="fin"),
    "drop last": lambda server: server.drop(after_events=-1),
    "drop behind": lambda server: server.drop(after_events=None),
}
"""Faults of the next request; several faults affect one request after the other."""

REPLIES: Final[Sequence[Json]] = [
    {},
    {"reasoning": "Hm."},
    {"status": "incomplete"},
    {"status": "incomplete", "reason": "content_filter"},
    {"status": "failed"},
    {"final_output": "empty"},
]
"""Kinds of responses."""

OVERRIDES: Final[Sequence[Json]] = [{}, {"temperature": 0.5}, {"instructions": "Shout."}]


async def pass_time(seconds: float = 0) -> None:
    await trio.sleep(seconds)


@dataclass(frozen=True)
class Step:
    who: str
    before: str
    faults: Sequence[str]
    reply: Json
    override: Json
    delivery: DeliveryMode
    action: str | None


def often(value: Any, *others: Any) -> st.SearchStrategy[Any]:
    return st.just(value) | st.sampled_from([value, *others])


STEPS = st.builds(
    Step,
    who=often("conversation", "fork", "restored"),
    before=often(*BEFORE),
    faults=st.lists(st.sampled_from(list(FAULTS)), max_size=3),
    reply=often(*REPLIES),
    override=often(*OVERRIDES),
    delivery=often("at_most_once", "at_least_once"),
    action=often(None, "break", "cancel", "steer"),
)


@dataclass
class Responder:
    """The responder: its text depends on the whole history, and it counts the inputs."""

    reply: Json = field(default_factory=dict[str, Any])
    ran: Counter[str] = field(default_factory=Counter[str])

    def __call__(self, request: Request) -> Reply:
        self.ran[request.text] += 1
        return Reply(describe(request.history), **self.reply)


def describe(known: Sequence[Json]) -> str:
    digest = zlib.crc32(msgspec.json.encode(known, order="deterministic"))
    return f"I know {len(known)} items: {digest:08x}"


class Game:
    """Runs turns of a conversation, and compares the history with its model."""

    def __init__(self, server: ResponsesServer, responder: Responder) -> None:
        self._server = server
        self._responder = responder

    async def take_turn(
        self, conversation: Conversation, items: list[Json], step: Step, text: str
    ) -> list[Json]:
        """Run one turn with the faults of a step, and return the expected history."""
        await BEFORE[step.before](self._server)
        for fault in step.faults:
            FAULTS[fault](self._server)
        slowly = {"delay": 0.1, "more": ["And", "so", "on."]} if step.action == "steer" else {}
        self._responder.reply = {**slowly, **step.reply}
        last, ran = conversation.last_response_id, self._responder.ran
        once = step.delivery == "at_most_once"
        failure: ResponsesError | None = None
        try:
            if step.action in {"break", "cancel"}:
                await leave_early(conversation, step, text)
            else:
                if step.action == "steer":
                    response, between = await steer_on(conversation, step, text)
                else:
                    response = await conversation.create(
                        text, delivery=step.delivery, **step.override
                    )
                    between = []
                assert ran[text] == 1 or not once
                known = [*items, user(text), *between]
                if response.output_text and response.status == "completed":
                    assert response.output_text.startswith(describe(known))
                if is_good(response):
                    items, last = [*known, *output_of(response)], response.id
        except ResponsesError as error:
            failure = error
        self._server.forget_orders()
        self._responder.reply = {}
        if failure is not None and failure.delivery in NOT_RUN:
            assert ran[text] == 0 or not once
        assert ran[text] <= 1 or not once
        assert (history(conversation), conversation.last_response_id) == (items, last)
        return items


def output_of(response: Response) -> list[Json]:
    return [msgspec.json.decode(item) for item in response.raw_output or []]


def is_good(response: Response) -> bool:
    details = response.incomplete_details
    return response.status != "failed" and (details is None or details.reason != "content_filter")


async def steer_on(
    conversation: Conversation, step: Step, text: str
) -> tuple[Response, list[Json]]:
    """Steer a turn twice; return the last Response, and the items before its output."""
    async with conversation.stream(text, delivery=step.delivery, **step.override) as stream:
        receipts = list[SteerReceipt]()
        async for event in stream:
            if event.type == "response.output_text.delta" and len(receipts) < 2:
                receipts.append(await stream.steer(f"{text}, but {len(receipts)}"))
    if stream.response.status == "failed":
        raise ResponseFailedError(stream.response)
    for receipt in receipts:
        with trio.fail_after(1000):
            await receipt.settled()
    between: list[Json] = []
    for earlier, later in pairwise(stream.responses):
        steers = [one for one in receipts if one.successor == later.id]
        between += output_of(earlier)
        between += [msgspec.json.decode(item) for one in steers for item in one.items]
    return stream.response, between


async def leave_early(conversation: Conversation, step: Step, text: str) -> None:
    with trio.move_on_after(0.5), suppress(ResponsesError):
        async with conversation.stream(text, delivery=step.delivery, **step.override) as stream:
            async for event in stream:
                if event.type == "response.in_progress":
                    if step.action == "break":
                        break
                    await trio.sleep(1)


async def play(steps: Sequence[Step], *, store: bool, lanes: bool) -> None:
    responder = Responder()
    async with open_test_server(max_age=None, lanes=lanes) as server:
        server.respond_with(responder)
        async with (
            server.open_client(reconnect=PATIENT, rotation=ROTATION) as connection,
            connection.conversation(model="m", store=store) as conversation,
        ):
            items = await play_steps(steps, Game(server, responder), connection, conversation)
            await trio.sleep(60)
            for text in ("well", "well again", "well still"):
                response = await conversation.create(text)
                assert response.output_text == describe([*items, user(text)])
                items = history(conversation)
            # A rotation may have preceded one of the last two requests.
            assert 1 in {len(request.input_items) for request in server.requests[-2:]}
        assert server.crashes == []


async def play_steps(
    steps: Sequence[Step], game: Game, connection: ResponsesConnection, conversation: Conversation
) -> list[Json]:
    items: list[Json] = []
    for number, step in enumerate(steps):
        if step.who == "conversation":
            items = await game.take_turn(conversation, items, step, f"turn {number}")
            continue
        if step.who == "fork":
            await two_turns(game, conversation.fork(), items, step, number)
        else:
            async with Conversation.restore(connection, conversation.checkpoint()) as restored:
                await two_turns(game, restored, items, step, number)
        assert history(conversation) == items
    return items


async def two_turns(
    game: Game, conversation: Conversation, items: list[Json], step: Step, number: int
) -> None:
    for times in range(2):
        items = await game.take_turn(conversation, items, step, f"{step.who} {number}.{times}")


@settings(deadline=None, max_examples=60)
@given(steps=st.lists(STEPS, max_size=12), store=st.booleans(), lanes=st.booleans())
def test_histories_over_a_faulty_server_equal_those_over_a_perfect_one(
    *, steps: list[Step], store: bool, lanes: bool
) -> None:
    """No input runs twice unless the caller allowed it."""

    async def bounded() -> None:
        with trio.fail_after(100_000):
            await play(steps, store=store, lanes=lanes)

    trio.run(bounded, clock=MockClock(autojump_threshold=0))


def test_without_faults_each_turn_is_a_delta() -> None:
    """The test above compares with the right model: without faults, both agree."""
    step = Step("conversation", "nothing", [], {}, {}, "at_most_once", None)
    game = partial(play, [step] * 5, store=True, lanes=True)
    trio.run(game, clock=MockClock(autojump_threshold=0))
