"""P7: a socket is replaced before the server ends it; the new one opens first."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    Endpoint,
    Keepalive,
    RotationPolicy,
)
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler
    from trio_responses import ResponsesConnection
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import Event

AT_100 = RotationPolicy(max_age=100, stagger=0)
HOURS = 3
"""How long the longest tests take, on a clock that jumps."""
TURNS = 60
FEW_PINGS = Keepalive(interval=600)
"""Hours of an idle socket are a thousand pings otherwise."""


# --- Make before break -------------------------------------------------------------------


async def test_a_socket_is_replaced_at_its_age_and_the_new_one_is_open_first(
    server: ResponsesServer, connect: Connect, dialler: Dialler
) -> None:
    async with connect(rotation=AT_100, dial=dialler) as connection:
        started = trio.current_time()
        await trio.sleep(99.9)
        assert server.statistics().handshakes == 1
        await trio.sleep(0.2)
        assert [time - started for time in dialler.times] == [0, 100]
        assert server.statistics().max_open == 2
        assert server.statistics().open == 1
        assert [one.close_code for one in server.connections] == [1000, None]
        assert connection.state is ConnectionState.OPEN
        await trio.sleep(1000)
        assert [time - started for time in dialler.times] == [100 * n for n in range(12)]
        assert server.statistics().max_open == 2
        assert connection.statistics().sockets_opened == 12
        assert connection.statistics().attempts == 0


async def test_a_running_turn_ends_on_the_old_socket_while_new_ones_go_to_the_new_one(
    server: ResponsesServer, connect: Connect
) -> None:
    server.reply("a b c d e f", delay=20)
    async with connect(rotation=AT_100) as connection:
        await trio.sleep(50)
        async with trio.open_nursery() as nursery:
            answers: list[str] = []

            async def ask(text: str) -> None:
                answers.append((await connection.create(model="m", input=text)).output_text)

            nursery.start_soon(ask, "slow")
            await trio.sleep(51)
            assert server.statistics().open == 2
            await ask("fast")
            assert [request.connection for request in server.requests] == [1, 2]
        assert answers == ['Turn 1: you said "fast".', "a b c d e f"]
        await wait_all_tasks_blocked()
        assert server.connections[0].close_code == 1000
        assert server.statistics().open == 1


async def test_the_channel_yields_a_rotation_between_the_events(
    server: ResponsesServer, connect: Connect
) -> None:
    events: list[Event] = []

    async def listen(connection: ResponsesConnection) -> None:
        events.extend([event async for event in connection])

    async with trio.open_nursery() as nursery, connect(rotation=AT_100) as connection:
        nursery.start_soon(listen, connection)
        await trio.sleep(50)
        await server.send_raw({"type": "before"})
        await trio.sleep(51)
        await server.send_raw({"type": "after"})
        await wait_all_tasks_blocked()
    before, rotated, after = events
    assert getattr(before, "wire_type", None) == "before"
    assert rotated == ConnectionRotated()
    assert getattr(after, "wire_type", None) == "after"


async def test_turns_that_wait_for_a_place_get_it_on_the_new_socket(
    server: ResponsesServer, connect: Connect
) -> None:
    """Without lanes: the second turn waits for the first one, until there is a new socket."""
    server.reply("a b c d", delay=30)
    async with connect(rotation=AT_100) as connection, trio.open_nursery() as nursery:
        started = trio.current_time()
        await trio.sleep(50)

        async def ask() -> None:
            await connection.create(model="m", input="slow")

        nursery.start_soon(ask)
        await wait_all_tasks_blocked()
        await connection.create(model="m", input="hi")
        assert trio.current_time() - started == 100
        assert [request.connection for request in server.requests] == [1, 2]


async def test_aclose_ends_both_sockets(server: ResponsesServer, connect: Connect) -> None:
    """P1: the old one and the new one."""
    server.stall(seconds=50)
    async with connect(rotation=AT_100) as connection:
        await trio.sleep(60)
        async with connection.stream(model="m", input="slow"):
            await trio.sleep(41)
            assert server.statistics().open == 2
            await connection.aclose()
            await wait_all_tasks_blocked()
            assert server.statistics().open == 0
    assert [one.close_code for one in server.connections] == [1000, 1000]


# --- A rotation that fails ---------------------------------------------------------------


@pytest.mark.parametrize("status", [503, 401, 404])
async def test_a_failed_rotation_keeps_the_old_socket_and_tries_again(
    server: ResponsesServer, connect: Connect, dialler: Dialler, status: int
) -> None:
    async with connect(rotation=AT_100, dial=dialler) as connection:
        started = trio.current_time()
        server.refuse(status, times=2)
        await trio.sleep(101)
        assert connection.state is ConnectionState.OPEN
        await connection.create(model="m", input="hi")
        await trio.sleep(40)
        await connection.create(model="m", input="hi")
        assert [time - started for time in dialler.times] == [0, 100, 116, 132]
        assert [request.connection for request in server.requests] == [1, 4]
        assert connection.statistics().attempts == 0


async def test_a_rotation_that_hangs_delays_no_turn(
    server: ResponsesServer, connect: Connect
) -> None:
    async with connect(rotation=AT_100) as connection:
        server.hang_handshake()
        await trio.sleep(101)
        with trio.fail_after(1):
            await connection.create(model="m", input="hi")
        await trio.sleep(50)
        await connection.create(model="m", input="hi")
        assert [request.connection for request in server.requests] == [1, 3]


async def test_the_old_socket_may_be_lost_while_its_rotation_fails(
    server: ResponsesServer, connect: Connect
) -> None:
    """Then the reconnect policy applies."""
    async with connect(rotation=AT_100) as connection:
        server.refuse(503, times=None)
        await trio.sleep(101)
        server.forget_orders()
        await server.reset_all()
        await connection.create(model="m", input="hi")
        assert connection.statistics().sockets_opened == 2


async def test_the_old_socket_may_be_lost_while_the_new_one_is_opened(
    server: ResponsesServer, connect: Connect
) -> None:
    events: list[Event] = []

    async def listen(connection: ResponsesConnection) -> None:
        events.extend([event async for event in connection])

    async with trio.open_nursery() as nursery, connect(rotation=AT_100) as connection:
        nursery.start_soon(listen, connection)
        server.hang_handshake()
        await trio.sleep(101)
        await server.reset_all()
        await connection.create(model="m", input="hi")
        await wait_all_tasks_blocked()
    assert isinstance(events[0], ConnectionLost)
    assert isinstance(events[1], ConnectionRestored)


async def test_a_lost_socket_is_replaced_and_the_age_counts_from_then(
    server: ResponsesServer, connect: Connect, dialler: Dialler
) -> None:
    async with connect(rotation=AT_100, dial=dialler):
        started = trio.current_time()
        await trio.sleep(60)
        await server.reset_all()
        await trio.sleep(150)
        assert [time - started for time in dialler.times] == [0, 61, 161]


async def test_the_end_of_a_socket_that_was_replaced_is_no_loss(
    server: ResponsesServer, connect: Connect
) -> None:
    """P2: a socket that finishes its turns beside its successor may die unnoticed."""
    endpoint = Endpoint.compatible(server.url, lanes=True, after_error="replace")
    server.reply("slow", delay=10.0)
    server.fail(status=500)
    async with connect(endpoint=endpoint) as connection:
        with trio.move_on_after(0):
            await connection.receive()
        async with connection.stream(model="m", input="slow"):
            with pytest.raises(APIError):
                await connection.create(model="m", input="fails")
            await connection.create(model="m", input="hi")
            assert (server.connections[0].is_open, server.connections[1].is_open) == (True, True)
            server.freeze_all()
        await trio.sleep(20)
        assert server.statistics().handshakes == 2
        assert connection.state is ConnectionState.OPEN
        assert connection.statistics().unread_bytes == 0


# --- When --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("endpoint", "minutes"),
    [
        (Endpoint.openai(), 50),
        (Endpoint.azure("name"), 50),
        (Endpoint.xai(), 24),
        (Endpoint.compatible("http://localhost", max_age=3600), 50),
    ],
    ids=["openai", "azure", "xai", "compatible"],
)
def test_the_age_is_the_endpoints_by_default(endpoint: Endpoint, minutes: int) -> None:
    assert RotationPolicy(stagger=0).age_for(endpoint.rotate_after) == minutes * 60
    ages = [RotationPolicy().age_for(endpoint.rotate_after) for _ in range(200)]
    assert all(minutes * 60 * 0.9 <= age <= minutes * 60 for age in ages)
    assert len(set(ages)) > 100


def test_an_endpoint_without_a_maximum_age_is_never_rotated() -> None:
    endpoint = Endpoint.compatible("http://localhost")
    assert RotationPolicy().age_for(endpoint.rotate_after) == math.inf


def test_a_given_age_takes_precedence_over_the_endpoints() -> None:
    assert RotationPolicy(max_age=5, stagger=0).age_for(3000) == 5
    assert RotationPolicy(max_age=math.inf).age_for(3000) == math.inf


@pytest.mark.parametrize("stagger", [0, 0.5, 1])
def test_a_socket_is_kept_for_a_second_at_least(stagger: float) -> None:
    assert RotationPolicy(max_age=0.001, stagger=stagger).age_for(None) == 1.0
    assert 1.0 <= RotationPolicy(max_age=100, stagger=stagger).age_for(None) <= 100


async def test_the_default_of_the_endpoint_is_kept(
    server: ResponsesServer, connect: Connect, dialler: Dialler
) -> None:
    endpoint = Endpoint.compatible(server.url, max_age=3600)
    async with connect(endpoint=endpoint, dial=dialler):
        started = trio.current_time()
        await trio.sleep(3000)
        assert 2700 <= dialler.times[1] - started <= 3000


async def test_many_connections_are_not_replaced_together(
    server: ResponsesServer, connect: Connect, dialler: Dialler
) -> None:
    endpoint = Endpoint.compatible(server.url, max_age=3600)
    async with trio.open_nursery() as nursery:
        started = trio.current_time()

        async def wait_for_an_hour() -> None:
            async with connect(endpoint=endpoint, dial=dialler, keepalive=FEW_PINGS):
                await trio.sleep(3100)

        for _ in range(20):
            nursery.start_soon(wait_for_an_hour)
    times = sorted(time - started for time in dialler.times)
    assert times[:20] == [0] * 20
    assert len(set(times[20:])) == 20
    assert times[-1] - times[20] > 50


@pytest.mark.parametrize(
    "options", [{}, {"rotation": RotationPolicy(max_age=math.inf)}], ids=["no age", "inf"]
)
async def test_without_an_age_a_socket_lives_for_ever(
    server: ResponsesServer, connect: Connect, options: dict[str, Any]
) -> None:
    age = 3600.0 if options else None
    endpoint = Endpoint.compatible(server.url, max_age=age)
    async with connect(endpoint=endpoint, keepalive=FEW_PINGS, **options):
        await trio.sleep(40_000)
        assert server.statistics().handshakes == 1


@pytest.mark.parametrize("max_age", [0, -1, -math.inf, math.nan, "60", True, [1], 1j])
def test_a_value_that_is_not_an_age_is_refused(max_age: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_age"):
        RotationPolicy(max_age=max_age)


@pytest.mark.parametrize("stagger", [-0.1, 1.1, math.nan, math.inf, "0", None, True])
def test_a_value_that_is_not_a_fraction_is_refused_as_stagger(stagger: Any) -> None:
    with pytest.raises(ConfigurationError, match="stagger"):
        RotationPolicy(stagger=stagger)


# --- Hours -------------------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [True, False])
async def test_turns_go_on_for_hours_on_an_endpoint_of_one_hour(*, lanes: bool) -> None:
    """No turn fails or runs twice, and the server never has to report its age limit."""
    async with (
        open_test_server(max_age=3600, lanes=lanes) as server,
        server.open_client() as connection,
        trio.open_nursery() as nursery,
    ):

        async def talk() -> None:
            async with connection.conversation(model="m") as talk:
                for turn in range(TURNS):
                    response = await talk.create(f"talk {turn}")
                    wanted = f'Turn {turn + 1}: you said "talk {turn}".'
                    assert response.output_text == wanted
                    await trio.sleep(HOURS * 3600 / TURNS)
                assert talk.statistics().full_turns <= 1 + HOURS * 60 / 45

        async def ask() -> None:
            for turn in range(TURNS):
                response = await connection.create(model="m", input=f"alone {turn}")
                assert response.output_text == f'Turn 1: you said "alone {turn}".'
                await trio.sleep(HOURS * 3600 / TURNS)

        if lanes:
            nursery.start_soon(talk)
        nursery.start_soon(ask)
    asked = [request.text for request in server.requests]
    assert len(asked) == len(set(asked)) == TURNS * (1 + lanes)
    assert all(one.close_code == 1000 for one in server.connections[:-1])
    assert server.statistics().handshakes >= 1 + HOURS
    assert server.statistics().max_open == 2


async def test_a_conversation_on_the_default_lane_goes_on_for_hours() -> None:
    async with (
        open_test_server(max_age=3600, lanes=False) as server,
        server.open_client() as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        for turn in range(TURNS):
            response = await talk.create(str(turn))
            assert response.output_text == f'Turn {turn + 1}: you said "{turn}".'
            await trio.sleep(HOURS * 3600 / TURNS)
        assert talk.statistics().turns == len(server.requests) == TURNS
        assert talk.statistics().full_turns == server.statistics().handshakes


async def test_turns_that_overlap_a_rotation_end_on_their_old_socket() -> None:
    """The server always has turns under way, for an hour."""
    started = trio.current_time()
    async with (
        open_test_server(max_age=3600) as server,
        server.open_client() as connection,
        trio.open_nursery() as nursery,
    ):

        async def ask(number: int) -> None:
            while trio.current_time() - started < 3600:
                server.reply("a b c d e f g h", delay=20)
                response = await connection.create(model="m", input=str(number))
                assert response.output_text == "a b c d e f g h"

        for number in range(5):
            nursery.start_soon(ask, number)
    assert server.statistics().responses == len(server.requests)
    assert server.statistics().max_open == 2
    assert server.statistics().refused == 0


async def test_a_loss_while_the_next_socket_opens_is_a_loss_and_not_a_rotation(
    server: ResponsesServer, connect: Connect
) -> None:
    """P2: the channel yields the loss and the return."""
    dials = 0

    async def slow_dial(host: str, port: int) -> trio.abc.Stream:
        nonlocal dials
        dials += 1
        if dials > 1:
            await trio.sleep(5)
        return await server.dial(host, port)

    heard: list[Event] = []

    async def listen() -> None:
        async for event in connection:
            heard.append(event)  # noqa: PERF401 - it is cancelled

    rotation = RotationPolicy(max_age=60, stagger=0)
    async with (
        trio.open_nursery() as nursery,
        connect(dial=slow_dial, rotation=rotation) as connection,
    ):
        nursery.start_soon(listen)
        await trio.sleep(62)
        states = [connection.state]
        await server.reset_all()
        await trio.sleep(1)
        states.append(connection.state)
        await trio.sleep(10)
        states.append(connection.state)
        nursery.cancel_scope.cancel()
    assert [state.name for state in states] == ["OPEN", "RECONNECTING", "OPEN"]
    assert [type(event) for event in heard] == [ConnectionLost, ConnectionRestored]
