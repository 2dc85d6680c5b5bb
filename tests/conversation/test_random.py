"""P7, at random: a conversation over a bad server is like one over a perfect one.

The server forgets, drops sockets, errs and cuts off; the connection rotates. Beside it runs a
model: a list of items. Whatever happens, the two agree, and what ran is said by `Delivery`.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, Final

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.conversation.rig import history, user
from tests.turns.rig import LIMIT_REACHED, STEADY, Json
from trio_responses import (
    Conversation,
    Delivery,
    ResponsesConnection,
    ResponsesError,
    RotationPolicy,
)
from trio_responses.core.delivery import DeliveryChoice
from trio_responses.testing import Reply, Request, ResponsesServer, open_test_server

ROTATION: Final = RotationPolicy(max_age=100, stagger=0)


# --- What can happen to a turn -----------------------------------------------------------

BEFORE: dict[str, Callable[[ResponsesServer], Awaitable[None]]] = {
    "nothing": lambda _: trio.lowlevel.checkpoint(),
    "reset": lambda server: server.reset_all(),
    "hang up": lambda server: server.hang_up_all(),
    "close": lambda server: server.close_all(),
    "lost unseen": lambda server: lose_and_wait(server),
    "rotate": lambda _: trio.sleep(150),
}
"""Between turns."""

DURING: dict[str, Callable[[ResponsesServer], object]] = {
    "nothing": lambda _: None,
    "forget": lambda server: server.fail("previous_response_not_found", status=400),
    "limit": lambda server: server.answer([LIMIT_REACHED]),
    "forget and limit": lambda server: (
        server.fail("previous_response_not_found", status=400),
        server.answer([LIMIT_REACHED]),
    ),
    "400": lambda server: server.fail("invalid", status=400),
    "429": lambda server: server.fail("rate_limit_exceeded", status=429),
    "500": lambda server: server.fail("server_error", status=500),
    "500 later": lambda server: server.fail("server_error", status=500, after_events=3),
    "failed": lambda server: server.fail(shape="failed", after_events=2),
    "drop": lambda server: server.drop(),
    "drop later": lambda server: server.drop(after_events=4, how="fin"),
    "drop at the end": lambda server: server.drop(after_events=-1),
    "drop behind the end": lambda server: server.drop(after_events=None),
    "filtered": lambda server: server.reply(
        "filtered", status="incomplete", reason="content_filter"
    ),
    "cut short": lambda server: server.reply("cut short", status="incomplete"),
}
"""While it runs; what is ordered happens to the next request that can carry it out."""

SETTINGS: Final[list[Json]] = [{}, {}, {}, {"temperature": 0.5}, {"instructions": "Shout."}]


async def lose_and_wait(server: ResponsesServer) -> None:
    await server.reset_all()
    await trio.sleep(5)


@dataclass(frozen=True)
class Step:
    before: str
    during: str
    override: Json
    delivery: DeliveryChoice
    how: str


STEPS = st.builds(
    Step,
    before=st.sampled_from(sorted(BEFORE)),
    during=st.sampled_from(sorted(DURING)) | st.just("nothing"),
    override=st.sampled_from(SETTINGS),
    delivery=st.sampled_from(["at_most_once", "at_most_once", "at_least_once"]),
    how=st.sampled_from(["create", "create", "create", "break", "cancel", "restore", "fork"]),
)


# --- The perfect one ---------------------------------------------------------------------


@dataclass
class Model:
    """What a conversation would be if nothing ever went wrong."""

    items: list[Json] = field(default_factory=list[Json])

    def answer_to(self, text: str) -> str:
        """Say what the server says, as a function of all that it has to know."""
        return told([*self.items, user(text)])


def told(known: list[Json]) -> str:
    """Answer with everything that was said: a wrong history shows at once."""
    return " | ".join(text_of(item)[:8] for item in known)


def text_of(item: Json) -> str:
    content: Any = item["content"]
    return content if isinstance(content, str) else "".join(part["text"] for part in content)


def answer(request: Request) -> Reply:
    return Reply(told(request.history), chunk_size=50)


def runs(server: ResponsesServer, text: str) -> int:
    """Count how often an input reached the model."""
    return sum(
        request.response_id is not None and request.input_items[-1:] == [user(text)]
        for request in server.requests
    )


# --- The game ----------------------------------------------------------------------------


async def play(steps: list[Step], *, store: bool, lanes: bool) -> None:
    async with open_test_server(max_age=None, lanes=lanes) as server:
        server.respond_with(answer)
        async with (
            server.open_client(reconnect=STEADY, rotation=ROTATION) as connection,
            connection.conversation(model="m", store=store) as talk,
        ):
            model = Model()
            for number, step in enumerate(steps):
                if step.how == "restore":
                    await play_elsewhere(connection, talk, model, f"else {number}")
                elif step.how == "fork" and lanes and number < 20:
                    fork, copy = talk.fork(), Model([*model.items])
                    await take_turn(fork, server, copy, step, f"fork {number}")
                    server.forget_orders()
                    await take_turn(fork, server, copy, step, f"fork again {number}")
                else:
                    await take_turn(talk, server, model, step, f"turn {number}")
                server.forget_orders()
                assert history(talk) == model.items
            # In the end all is well again, whatever has happened.
            await trio.sleep(30)
            for text in ("well", "well again"):
                expected = model.answer_to(text)
                response = await talk.create(text)
                assert response.output_text == expected
                model.items = history(talk)
            assert server.requests[-1].get("previous_response_id") is not None
            assert len(server.requests[-1].input_items) == 1
        assert server.crashes == []


async def take_turn(
    talk: Conversation, server: ResponsesServer, model: Model, step: Step, text: str
) -> None:
    """Run one turn under bad circumstances, and compare."""
    await BEFORE[step.before](server)
    DURING[step.during](server)
    last = talk.last_response_id
    expected = model.answer_to(text)
    if step.how in {"break", "cancel"}:
        await leave_early(talk, step, text)
        assert (history(talk), talk.last_response_id) == (model.items, last)
        assert runs(server, text) <= 1 or step.delivery == "at_least_once"
        return
    try:
        response = await talk.create(text, delivery=step.delivery, **step.override)
    except ResponsesError as error:
        assert talk.last_response_id == last
        assert runs(server, text) <= 1 or step.delivery == "at_least_once"
        if error.delivery in {Delivery.NOT_SENT, Delivery.REJECTED}:
            assert runs_that_began(step) == 0
        return
    assert runs(server, text) - runs_that_were_refused(step) <= 1 or step.delivery == "at_least_once"
    if response.status == "completed":
        assert response.output_text == expected
    if step.during == "filtered" and response.status == "incomplete":
        if response.output_text == "filtered":
            assert talk.last_response_id == last
            return
    output = [part for part in history(talk)[len(model.items) + 1 :]]
    assert "".join(map(text_of, output)) == response.output_text
    model.items = [*model.items, user(text), *output]
    assert talk.last_response_id == response.id


async def leave_early(talk: Conversation, step: Step, text: str) -> None:
    try:
        with trio.move_on_after(0.5):
            async with talk.stream(text, delivery=step.delivery, **step.override) as stream:
                async for event in stream:
                    if event.type == "response.in_progress":
                        if step.how == "break":
                            break
                        await trio.sleep(1)
    except ResponsesError:
        pass
