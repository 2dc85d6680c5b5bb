"""Reading: no event is lost, and every event reaches its request, in batches of any size."""

from __future__ import annotations

import json
import ssl
from contextlib import suppress
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, cast

import pytest
import trio
import trustme
from hypothesis import given
from hypothesis import strategies as st

from tests.testing.driver import OVER_SOCKETS
from tests.transport.steps import CancelledAtStep
from trio_responses import Limits, open_responses
from trio_responses._connection.router import Router
from trio_responses._connection.socket import Socket
from trio_responses._protocol.requests import ActiveRequest
from trio_responses._settings import Timeouts
from trio_responses._turn.attempt import TurnAttempt
from trio_responses._turn.inbox import Budget, Inbox
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from tests.transport.steps import Moment
    from trio_responses._protocol.frames import Message
    from trio_responses.typing import TransportOption

STEPS: Final = 16
AUTHORITY: Final = trustme.CA()


# --- Cancelled reads ----------------------------------------------------------------------


@pytest.mark.parametrize("moment", ["before", "after"])
@pytest.mark.parametrize("transport", ["websocket", "http"])
@pytest.mark.parametrize("secure", [False, True])
class TestCancelledReads:
    """Over real sockets."""

    pytestmark = OVER_SOCKETS

    async def test_a_read_of_a_stream_that_is_cancelled_at_any_step_loses_no_event(
        self, moment: Moment, transport: TransportOption, *, secure: bool
    ) -> None:
        context = trusting = None
        if secure:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            AUTHORITY.issue_cert("127.0.0.1").configure_cert(context)  # pyright: ignore[reportUnknownMemberType]
            trusting = ssl.create_default_context()
            AUTHORITY.configure_trust(trusting)  # pyright: ignore[reportUnknownMemberType]
        async with open_test_server() as server:
            url = await server.serve_tcp(ssl_context=context)
            async with open_responses(
                url, api_key="key", proxy=None, transport=transport, ssl_context=trusting
            ) as connection:
                expected: list[str] = []
                for step in range(STEPS):
                    server.reply("a text of several words, each of which is an event")
                    kinds: list[str] = []
                    async with connection.stream("go", model="m") as stream:
                        with trio.fail_after(30), CancelledAtStep(step, moment) as scopes:
                            while not kinds or kinds[-1] != "response.completed":
                                with scopes.open():
                                    kinds.append((await anext(stream)).type)
                    expected = expected or kinds  # no scope was cancelled in step 0
                    assert kinds == expected


# --- Batches ------------------------------------------------------------------------------

LANES: Final = (None, "a", "b")
STEPS_OF_A_RESPONSE: Final = ("response.output_text.delta", "response.in_progress")
KINDS: Final = (
    *STEPS_OF_A_RESPONSE,
    "response.created",
    "response.completed",
    "response.queued",
    "error",
    "an.unknown.event",
)


def message(kind: str, lane: str | None, number: int) -> bytes:
    fields: dict[str, Any] = {"type": kind, "sequence_number": number, "padding": "x" * 64}
    if lane is not None:
        fields["stream_id"] = lane
    if kind in {"response.created", "response.completed", "response.in_progress"}:
        usage = {"input_tokens": 1, "output_tokens": 2, "total_tokens": 3}
        fields["response"] = {"id": f"resp_{lane}_{number // 8}", "usage": usage}
    if kind.endswith("delta"):
        fields["delta"] = "x" * number
    return json.dumps(fields).encode()


async def route(batches: list[list[Message]], turns: list[str | None]) -> object:
    """Route batches to turns on lanes; return all that the readers and the counters get."""
    budget = Budget(Limits())
    router = Router(budget, Limits())
    router.channel_in_use = True
    transport = SimpleNamespace(last_read_at=7.0)
    socket = Socket(cast("Any", transport), cast("Any", None), replace_after_error=False)
    requests: list[ActiveRequest] = []
    for number, lane in enumerate(turns):
        inbox: Inbox[Any] = Inbox(budget)
        turn = TurnAttempt(inbox, Timeouts(), lane)
        requests.append(turn if number % 4 else ActiveRequest(lane))
        socket.admit(requests[-1])
        if number % 4 == 3:
            turn.abandon()
    for batch in batches:
        for _ in router.route(socket, batch):
            pass
    counters = (
        router.events_received,
        router.bytes_received,
        router.unrouted_events,
        router.dropped_events,
        router.undecodable_frames,
        router.usage,
        budget.unread_bytes,
        socket.state,
    )
    states: list[object] = []
    for request in requests:
        states += [request.state, request.response_id, getattr(request, "last_event_at", None)]
        if isinstance(request, TurnAttempt):
            states += [request.started, await drain(request.inbox)]
    return counters, states, sorted(await drain(router.channel), key=repr)


async def drain(inbox: Inbox[Any]) -> list[object]:
    events: list[object] = []
    inbox.close(trio.EndOfChannel())
    with suppress(trio.EndOfChannel):
        while True:
            events.append(await inbox.receive())
    return events


def a_batch(kinds: tuple[str, ...]) -> st.SearchStrategy[list[tuple[str, str | None]]]:
    return st.lists(st.tuples(st.sampled_from(kinds), st.sampled_from(LANES)), max_size=6)


@given(
    st.lists(a_batch(STEPS_OF_A_RESPONSE) | a_batch(KINDS)),
    st.lists(st.sampled_from(LANES), min_size=2, max_size=6),
)
async def test_messages_are_routed_alike_in_one_batch_and_one_by_one(
    batches: list[list[tuple[str, str | None]]], turns: list[str | None]
) -> None:
    """P5: most batches take a short path, which looks up one owner for all events."""
    numbered: list[list[Message]] = [
        [message(kind, lane, 8 * place + number) for number, (kind, lane) in enumerate(batch)]
        for place, batch in enumerate(batches)
        if batch
    ]
    one_by_one: list[list[Message]] = [[each] for batch in numbered for each in batch]
    assert await route(numbered, turns) == await route(one_by_one, turns)
