"""P5: a turn that is left early, at any await, leaves nothing to other turns."""

from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    Crowd,
    Wire,
    ask,
    ask_strictly,
    assert_at_rest,
    heard,
)
from trio_responses import ResponsesConnection
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import (
    Fail,
    Reply,
    Request,
    ResponsesServer,
    default_answer,
    open_test_server,
)
from trio_responses.typing import AbandonChoice

if TYPE_CHECKING:
    from trio_responses import ResponseStream
    from trio_responses.testing import (
        Answer,
    )

pytestmark = NO_WAITING


# --- At every single await ---------------------------------------------------------------

When: TypeAlias = Literal["arriving", "waiting"]
"""Whether the task is cancelled before its n-th await, or while it waits there."""


@dataclass(eq=False)
class CancelAtStep(trio.abc.Instrument):
    """An instrument that cancels a scope at the n-th step of a task."""

    at: int
    when: When
    scope: trio.CancelScope = field(default_factory=trio.CancelScope)
    task: trio.lowlevel.Task | None = None
    steps: int = 0

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task:
            if self.when == "arriving" and self.steps == self.at:
                self.scope.cancel()
            self.steps += 1

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self.task and self.when == "waiting" and self.steps == self.at:
            self.scope.cancel()

    async def run(self, run: Callable[[], Awaitable[None]]) -> bool:
        """Run a function in a new task, and return whether it was cancelled."""

        async def victim() -> None:
            self.task = trio.lowlevel.current_task()
            with self.scope:
                await run()

        trio.lowlevel.add_instrument(self)
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(victim)
        finally:
            trio.lowlevel.remove_instrument(self)
        return self.scope.cancelled_caught


@dataclass
class Setup:
    """A server, a connection, and the connection or lane that runs the turns."""

    server: ResponsesServer
    connection: ResponsesConnection
    turns: TurnMethods


Way: TypeAlias = Callable[[Setup, AbandonChoice], Awaitable[None]]


async def by_create(setup: Setup, abandon: AbandonChoice) -> None:
    assert await ask(setup.turns, "victim", abandon=abandon) == heard("victim")


def stream_of(setup: Setup, abandon: AbandonChoice) -> "ResponseStream":
    params: dict[str, Any] = {"model": "m", "input": "victim", "abandon": abandon}
    return setup.turns.stream(**params)


async def by_iterating(setup: Setup, abandon: AbandonChoice) -> None:
    async with stream_of(setup, abandon) as stream:
        async for _ in stream:
            pass
    assert stream.response.output_text == heard("victim")


async def by_text(setup: Setup, abandon: AbandonChoice) -> None:
    async with stream_of(setup, abandon) as stream:
        text = "".join([piece async for piece in stream.text_deltas()])
    assert text == heard("victim")


async def by_doing_something_else(setup: Setup, abandon: AbandonChoice) -> None:
    """Leave a turn of which nothing was read."""
    async with stream_of(setup, abandon):
        for _ in range(5):
            await trio.sleep(0.04)


WAYS: Final[dict[str, Way]] = {
    "create": by_create,
    "iterate": by_iterating,
    "text": by_text,
    "neglect": by_doing_something_else,
}
LaneKind: TypeAlias = Literal["lanes", "default lane", "leased lane"]


@asynccontextmanager
async def open_setup(place: LaneKind, capacity: int | None = None) -> AsyncGenerator[Setup, None]:
    async with open_test_server(max_age=None, lanes=place != "default lane") as server:

        async def dial(_host: str, _port: int) -> trio.abc.Stream:
            stream = await server.connect_stream(capacity=capacity)
            return Wire(stream)

        async with server.open_client(dial=dial) as connection:
            if place == "leased lane":
                async with connection.lane() as lane:
                    yield Setup(server, connection, lane)
            else:
                yield Setup(server, connection, connection)
        assert server.crashes == []


@pytest.mark.parametrize("when", ["arriving", "waiting"])
@pytest.mark.parametrize("abandon", ["drain", "replace"])
@pytest.mark.parametrize("place", ["lanes", "default lane", "leased lane"])
@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_may_be_cancelled_at_every_single_await(
    way: str, place: LaneKind, abandon: AbandonChoice, when: When
) -> None:
    """P3, P5: the connection is usable, and the next turn gets its own events and no others."""
    async with open_setup(place) as setup:
        server, connection = setup.server, setup.connection
        cancelled = True
        step = 0
        async with Crowd():
            while cancelled:
                server.reply(heard("victim"), delay=0.01)
                canceller = CancelAtStep(step, when)
                cancelled = await canceller.run(lambda: WAYS[way](setup, abandon))
                server.forget_orders()
                await ask_strictly(setup.turns, f"after step {step}")
                await trio.sleep(60)
                assert connection.statistics().requests_active == 0
                assert connection.statistics().unread_bytes == 0
                assert server.statistics().active == 0
                assert server.statistics().open == 1
                step += 1
        assert step > 5
        # A turn that began costs a socket, where that was asked for; nothing else does.
        may_replace = place == "default lane" and abandon == "replace"
        assert (server.statistics().handshakes > 1) == may_replace


def answer_shortly(request: Request) -> Reply:
    return Reply("ok") if "victim" in request["input"] else default_answer(request)


@pytest.mark.parametrize("place", ["lanes", "default lane", "leased lane"])
async def test_a_turn_may_be_cancelled_while_its_request_is_being_written(place: LaneKind) -> None:
    """P5: a frame whose first byte is out is finished; the socket is never left in its middle."""
    async with open_setup(place, capacity=300) as setup:
        server, connection = setup.server, setup.connection
        server.respond_with(answer_shortly)
        cancelled = True
        step = 0
        while cancelled:
            canceller = CancelAtStep(step, "waiting")

            async def run() -> None:
                await ask(setup.turns, "victim " * 200)

            cancelled = await canceller.run(run)
            await ask_strictly(setup.turns, f"after step {step}")
            await trio.sleep(60)
            assert connection.statistics().requests_active == 0
            assert connection.statistics().unread_bytes == 0
            step += 1
        assert step > 5
        assert server.statistics().handshakes == 1


@pytest.mark.parametrize("abandon", ["drain", "replace"])
@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("how", ["break", "raise", "cancel"])
async def test_a_turn_may_be_left_after_every_event(
    *, how: str, lanes: bool, abandon: AbandonChoice
) -> None:
    """P5: also where the whole answer came in one read; the rest is discarded."""
    async with (
        open_test_server(max_age=None, lanes=lanes) as server,
        server.open_client() as connection,
    ):
        total = 8 + len(heard("victim").split())
        for stop in range(total + 1):
            async with Crowd():
                with trio.CancelScope() as scope:
                    try:
                        await _read_some(connection, abandon, stop, how, scope)
                    except LookupError as error:
                        assert str(error) == "mine"  # noqa: PT017 - it may or may not come
                await ask_strictly(connection, f"after event {stop}")
                assert connection.statistics().unread_bytes == 0
                await trio.sleep(60)
        assert_at_rest(connection)
        assert server.crashes == []


async def _read_some(
    connection: ResponsesConnection,
    abandon: AbandonChoice,
    stop: int,
    how: str,
    scope: trio.CancelScope,
) -> None:
    async with connection.stream(model="m", input="victim", abandon=abandon) as stream:
        seen = 0
        while seen < stop:
            await stream.__anext__()
            seen += 1
        if how == "raise":
            raise LookupError("mine")
        if how == "cancel":
            scope.cancel()
            await trio.lowlevel.checkpoint()


async def test_a_cancelled_read_loses_no_event(server: ResponsesServer) -> None:
    """P3: the stream goes on."""
    server.reply(chunks=[str(number) for number in range(20)], delay=0.01)
    async with server.open_client() as connection:
        pieces: list[str] = []
        async with connection.stream(model="m", input="hi") as stream:
            for _ in range(1000):
                with trio.move_on_after(0.004):
                    async for piece in stream.text_deltas():
                        pieces.append(piece)  # noqa: PERF401 - each is kept before the next read
                    break
        assert pieces == [str(number) for number in range(20)]


# --- What it costs the next turn ---------------------------------------------------------


async def test_the_next_turn_of_the_default_lane_waits_for_the_rest(
    narrow_server: ResponsesServer,
) -> None:
    """P5: ``abandon="drain"`` is the default."""
    server = narrow_server
    server.reply("a b c d e", delay=1)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="first") as stream:
            await stream.__anext__()
        left_at = trio.current_time()
        assert left_at == 0
        await ask_strictly(connection, "next")
        assert trio.current_time() == 12
        assert server.statistics().handshakes == 1
        assert connection.statistics().dropped_events == 12


async def test_a_replaced_socket_delays_no_turn(narrow_server: ResponsesServer) -> None:
    """P5: ``abandon="replace"``: the next turn has a new socket at once."""
    server = narrow_server
    server.reply("a b c d e", delay=1)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="first", abandon="replace") as stream:
            await stream.__anext__()
        await ask_strictly(connection, "next")
        assert trio.current_time() == 0
        assert server.statistics().handshakes == 2
        await trio.sleep(10)
        assert server.statistics().open == 1
        assert server.connections[0].close_code == 1000
        assert server.connections[1].is_open


async def test_create_can_replace_the_socket_too(narrow_server: ResponsesServer) -> None:
    server = narrow_server
    server.stall(after_events=1)
    async with server.open_client() as connection:
        with trio.move_on_after(1):
            await ask(connection, "first", abandon="replace")
        await ask_strictly(connection, "next")
        assert trio.current_time() == 1
        assert server.statistics().handshakes == 2
        assert "abandon" not in server.requests[0].body


async def test_nothing_waits_for_a_lane_that_is_not_needed(server: ResponsesServer) -> None:
    """P5: the next turn takes another lane, and no socket is replaced."""
    server.stall(after_events=1, seconds=100)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="first", abandon="replace") as stream:
            await stream.__anext__()
        assert trio.current_time() == 0
        await ask_strictly(connection, "next")
        assert trio.current_time() == 0
        assert [request.lane for request in server.requests] == [None, "lane-1"]
        assert server.statistics().handshakes == 1
        await trio.sleep(200)
        assert_at_rest(connection)
        await ask_strictly(connection, "the default lane is clean again")
        assert server.requests[-1].lane is None


async def test_leaving_waits_for_nothing(narrow_server: ResponsesServer) -> None:
    """P5: not even where the lane is needed next: the next turn waits instead."""
    narrow_server.stall(after_events=1, seconds=100)
    async with narrow_server.open_client() as connection:
        async with connection.stream(model="m", input="first") as stream:
            await stream.__anext__()
        assert trio.current_time() == 0
        await trio.sleep(1000)
        assert_at_rest(connection)


async def test_leaving_the_connection_does_not_wait_for_the_rest(
    narrow_server: ResponsesServer,
) -> None:
    """P1: the rest of a response does not hold the block open."""
    narrow_server.stall(after_events=1, seconds=100)
    async with (
        narrow_server.open_client() as connection,
        connection.stream(model="m", input="first") as stream,
    ):
        await stream.__anext__()
    assert trio.current_time() == 0


async def test_the_next_turn_does_not_wait_for_ever_for_the_rest(
    narrow_server: ResponsesServer,
) -> None:
    """P3: the deadlines of a turn hold for its rest; the next turn has a new socket then."""
    narrow_server.stall(after_events=1)
    async with narrow_server.open_client() as connection:
        async with connection.stream(model="m", input="first") as stream:
            await stream.__anext__()
        await ask_strictly(connection, "next")
        assert trio.current_time() == 600  # timeouts.stall
        assert narrow_server.statistics().handshakes == 2


async def test_the_next_turn_waits_while_the_rest_comes(
    narrow_server: ResponsesServer,
) -> None:
    """P3: also for longer than ``timeouts.stall``."""
    narrow_server.reply("a b c d e", delay=500)
    async with narrow_server.open_client() as connection:
        async with connection.stream(model="m", input="first") as stream:
            await stream.__anext__()
        await ask_strictly(connection, "next")
        assert trio.current_time() == 12 * 500
        assert narrow_server.statistics().handshakes == 1


async def test_a_failure_in_the_rest_of_a_turn_is_discarded(
    narrow_server: ResponsesServer,
) -> None:
    """P5: it is raised in no other turn."""
    server = narrow_server
    rests: list[Answer] = [
        Fail("server_error", after_events=3),
        Fail("server_error", after_events=3, shape="sequenced"),
        Reply("half", status="failed"),
        Reply("half", status="incomplete"),
    ]
    async with server.open_client() as connection:
        for rest in rests:
            server.answer(rest).stall(after_events=3, seconds=5)
            async with connection.stream(model="m", input="left") as stream:
                await stream.__anext__()
            await ask_strictly(connection, "next")
        assert trio.current_time() == 20
        assert server.statistics().handshakes == 1


async def test_a_turn_cancelled_before_it_was_sent_leaves_nothing(
    narrow_server: ResponsesServer,
) -> None:
    """P5: nothing to drain, nothing to replace: the next one goes out at once."""
    server = narrow_server
    server.reply("slow", delay=1)
    async with server.open_client() as connection, trio.open_nursery() as nursery:
        nursery.start_soon(ask, connection, "first")
        await wait_all_tasks_blocked()
        with trio.move_on_after(3):
            await ask(connection, "waits for the lane", abandon="replace")
        assert len(server.requests) == 1
        await ask_strictly(connection, "next")
        assert trio.current_time() == 8
        assert server.statistics().handshakes == 1
        assert [request["input"] for request in server.requests] == ["first", "next"]


async def test_turns_cancelled_in_the_queue_do_not_delay_the_others(
    narrow_server: ResponsesServer,
) -> None:
    """P5: at the head of the queue, in its middle and at its end."""
    server = narrow_server
    server.reply("slow", delay=1)
    answers: list[str] = []

    async def patient(name: str) -> None:
        answers.append(await ask(connection, name))

    async def impatient(name: str) -> None:
        with trio.move_on_after(2):
            await ask(connection, name)

    async with server.open_client() as connection:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(patient, "0")
            await wait_all_tasks_blocked()
            for number, kind in enumerate([impatient, patient, impatient, patient, impatient]):
                nursery.start_soon(kind, str(number))
                await wait_all_tasks_blocked()
        assert answers[1:] == [heard("1"), heard("3")]
        assert len(server.requests) == 3
        assert_at_rest(connection)


async def test_a_turn_cancelled_while_it_waits_for_a_socket_is_not_sent(
    server: ResponsesServer,
) -> None:
    """P5: neither now nor when a socket is open again."""
    async with server.open_client() as connection:
        server.stop_accepting()
        await server.reset_all()
        with trio.move_on_after(0.5):
            await ask(connection, "gave up")
        server.accept_again()
        await ask_strictly(connection, "next")
        assert [request["input"] for request in server.requests] == ["next"]
        assert_at_rest(connection)


@pytest.mark.parametrize(("lanes", "at_once"), [(True, 16), (False, 1)])
async def test_turns_cancelled_at_random_leave_the_connection_usable(
    *, lanes: bool, at_once: int
) -> None:
    """P5: no turn gets an event of another, and a cancelled one frees no place but its own."""

    async def worker(name: int) -> None:
        for turn in range(4):
            text = f"{name}-{turn}"
            with trio.move_on_after(0.013 * ((name * 7 + turn * 5) % 11)):
                async with connection.stream(model="m", input=text) as stream:
                    async for event in stream:
                        await trio.sleep(0.003)
                        assert getattr(event, "delta", text) == text

    async with (
        open_test_server(max_age=None, lanes=lanes) as server,
        server.open_client() as connection,
        Crowd(),
    ):
        server.respond_with(lambda request: str(request["input"]))
        async with trio.open_nursery() as nursery:
            for name in range(20):
                nursery.start_soon(worker, name)
        await trio.sleep(60)
        assert_at_rest(connection)
        assert server.statistics().handshakes == 1
        assert server.statistics().max_active == at_once
        assert server.crashes == []
