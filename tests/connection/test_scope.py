"""P1: nothing outlives the block, and exceptions of the block leave it unchanged."""

import signal
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import MockClock, wait_all_tasks_blocked

from trio_responses import (
    AuthenticationError,
    ConnectError,
    ConnectionClosed,
    ConnectionLost,
    ConnectionState,
    DeliveryStatus,
    Keepalive,
    ReconnectFailed,
    ReconnectPolicy,
    ResponsesConnection,
    Timeouts,
    connect_responses,
    open_pool,
    open_responses,
)
from trio_responses._connection.router import Router
from trio_responses._connection.socket_set import SocketSet
from trio_responses._pool.scheduler import Scheduler
from trio_responses._transport.control_stream import ControlStream
from trio_responses._transport.websocket import WebSocketTransport
from trio_responses.testing import ResponsesServer, open_test_server

if TYPE_CHECKING:
    from tests.connection.conftest import Connect, Dialler


@asynccontextmanager
async def nothing_is_left(server: ResponsesServer) -> AsyncGenerator[None, None]:
    """Count Trio's tasks and the server's sockets before and after, at rest."""
    await wait_all_tasks_blocked()
    tasks = trio.lowlevel.current_statistics().tasks_living
    yield
    await wait_all_tasks_blocked()
    assert trio.lowlevel.current_statistics().tasks_living == tasks
    assert server.statistics().open == 0


async def test_nothing_outlives_the_block(server: ResponsesServer, connect: "Connect") -> None:
    """P1: no task and no socket, and the server receives close code 1000."""
    async with nothing_is_left(server):
        async with connect() as connection:
            await connection.create(model="m", input="hi")
        assert connection.state is ConnectionState.CLOSED
        assert server.connections[0].close_code == 1000


async def test_no_timer_outlives_the_block(server: ResponsesServer, connect: "Connect") -> None:
    """P1: with every deadline running, leaving takes no time."""
    server.stall(after_events=1)
    async with nothing_is_left(server):
        async with connect() as connection:
            stream = connection.stream(model="m", input="hi")
            await stream.__aenter__()
            await stream.__anext__()
            left_at = trio.current_time()
        assert trio.current_time() == left_at
        assert trio.lowlevel.current_statistics().seconds_to_next_deadline > 3600


async def test_an_exception_of_the_block_leaves_it_unchanged(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: never wrapped in an ExceptionGroup."""
    boom = ValueError("boom")
    async with nothing_is_left(server):
        with pytest.raises(ValueError, match="boom") as failure:
            async with connect():
                raise boom
        assert failure.value is boom
        assert failure.value.__context__ is None
        assert server.connections[0].close_code == 1000


async def test_an_exception_of_a_turn_leaves_the_block_unchanged(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: likewise."""
    server.drop(after_events=1)
    async with nothing_is_left(server):
        with pytest.raises(ConnectionLost):
            async with connect() as connection:
                await connection.create(model="m", input="hi")


async def test_an_exception_group_of_the_block_leaves_it_unchanged(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: a group of two that the user raised is not taken apart."""
    async with nothing_is_left(server):
        with pytest.raises(ExceptionGroup) as failure:
            async with connect():
                raise ExceptionGroup("two", [ValueError("a"), KeyError("b")])
        assert [type(error) for error in failure.value.exceptions] == [ValueError, KeyError]


async def test_a_cancelled_turn_raises_cancelled_only(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: a cancellation never becomes an API error."""
    server.stall(after_events=2)
    async with connect() as connection:
        caught: list[BaseException] = []
        with trio.move_on_after(7) as scope:
            try:
                await connection.create(model="m", input="hi")
            except BaseException as error:
                caught.append(error)
                raise
        assert scope.cancelled_caught
        assert [type(error) for error in caught] == [trio.Cancelled]
        assert trio.current_time() == 7


async def test_a_cancelled_block_raises_cancelled_only(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: with a turn under way, too."""
    server.stall(after_events=2)
    async with nothing_is_left(server):
        with trio.move_on_after(7) as scope:
            async with connect() as connection:
                await connection.create(model="m", input="hi")
        assert scope.cancelled_caught
        assert trio.current_time() == 7
        assert server.connections[0].close_code == 1000


async def test_opening_can_be_cancelled_in_a_handshake(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: with nothing left."""
    server.hang_handshake()
    async with nothing_is_left(server):
        with trio.move_on_after(3) as scope:
            async with connect():
                pytest.fail("the block began")  # pragma: no cover
        assert scope.cancelled_caught
        assert trio.current_time() == 3


@pytest.mark.parametrize("opener", [open_responses, open_pool])
async def test_opening_in_a_cancelled_scope_dials_nothing(
    server: ResponsesServer, opener: Callable[..., AbstractAsyncContextManager[Any]]
) -> None:
    """P1: a server that hangs is neither asked nor waited for."""
    server.hang_handshake()
    async with nothing_is_left(server):
        with trio.CancelScope() as scope:
            scope.cancel()
            async with opener(server.url, dial=server.dial):
                pytest.fail("the block began")  # pragma: no cover
        assert scope.cancelled_caught
        assert trio.current_time() == 0
    assert server.statistics().handshakes == 0


async def test_opening_in_a_cancelled_nursery_dials_nothing(
    server: ResponsesServer,
) -> None:
    server.hang_handshake()
    async with nothing_is_left(server), trio.open_nursery() as nursery:
        nursery.cancel_scope.cancel()
        await connect_responses(nursery, server.url, dial=server.dial)
    assert trio.current_time() == 0


async def test_opening_can_be_cancelled_between_attempts(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: with nothing left."""
    server.stop_accepting()
    async with nothing_is_left(server):
        with trio.move_on_after(5) as scope:
            async with connect():
                pytest.fail("the block began")  # pragma: no cover
        assert scope.cancelled_caught
        assert trio.current_time() == 5


async def test_the_connection_works_in_a_finally_clause_of_a_cancelled_block(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: the body is cancelled before the background tasks."""
    texts: list[str] = []
    async with nothing_is_left(server):
        with trio.move_on_after(1):
            async with connect() as connection:
                try:
                    await trio.sleep_forever()
                finally:
                    with trio.CancelScope(shield=True):
                        response = await connection.create(model="m", input="goodbye")
                        texts.append(response.output_text)
        assert texts == ['Turn 1: you said "goodbye".']
        assert server.connections[0].close_code == 1000


async def test_the_connection_reconnects_in_a_finally_clause_of_a_cancelled_block(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: the supervisor lives as long as the block."""
    with trio.move_on_after(1):
        async with connect() as connection:
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    await server.reset_all()
                    await connection.create(model="m", input="goodbye")
    assert server.statistics().handshakes == 2
    assert trio.current_time() == 2


async def test_aclose_is_idempotent(server: ResponsesServer, connect: "Connect") -> None:
    """P1: twice, ten times at once, and after the block."""
    async with nothing_is_left(server):
        async with connect() as connection:
            await connection.aclose()
            assert server.connections[0].close_code == 1000
            async with trio.open_nursery() as nursery:
                for _ in range(10):
                    nursery.start_soon(connection.aclose)
        await connection.aclose()
        assert server.statistics().handshakes == 1
        assert trio.current_time() == 0


async def test_aclose_is_a_checkpoint(connect: "Connect") -> None:
    """As every async function of Trio, also where nothing is left to close."""
    async with connect() as connection:
        await connection.aclose()
        with trio.testing.assert_checkpoints():
            await connection.aclose()


async def test_leaving_the_block_is_bounded_even_while_it_is_cancelled(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: closing in a cancelled block takes ``timeouts.close`` at most."""
    with trio.move_on_after(1):
        async with connect(timeouts=Timeouts(close=2.0), keepalive=Keepalive(interval=1000)):
            server.freeze_all()
            await trio.sleep_forever()
    assert trio.current_time() == 3


async def test_the_state_while_closing_is_draining(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The closing handshake can be seen."""
    async with connect() as connection:
        server.freeze_all()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(connection.aclose)
            await wait_all_tasks_blocked()
            assert str(connection.state) == "draining"
        assert str(connection.state) == "closed"


async def test_aclose_ends_a_reconnect_that_is_under_way(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: no attempt follows a close."""
    async with nothing_is_left(server):
        async with connect() as connection:
            server.stop_accepting()
            await server.reset_all()
            await trio.sleep(2)
            assert connection.state is ConnectionState.RECONNECTING
            await connection.aclose()
            assert trio.current_time() == 2
            server.accept_again()
            await trio.sleep(100)
        assert server.statistics().handshakes == 1


async def test_aclose_ends_a_dial_that_hangs(server: ResponsesServer, connect: "Connect") -> None:
    """P1: a handshake under way is cancelled, and a call that waits for it raises."""

    async def wait(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionClosed):
            await connection.wait_open()

    async with nothing_is_left(server), connect() as connection, trio.open_nursery() as nursery:
        server.hang_handshake()
        await server.reset_all()
        nursery.start_soon(wait, connection)
        await trio.sleep(2)
        assert server.statistics().handshakes == 2
        await connection.aclose()
        assert trio.current_time() == 2


async def test_a_failed_opening_leaves_nothing(server: ResponsesServer, connect: "Connect") -> None:
    """P1: no task, no socket and no further attempt."""
    server.refuse(401)
    async with nothing_is_left(server):
        with pytest.raises(AuthenticationError) as failure:
            async with connect():
                pytest.fail("the block began")  # pragma: no cover
        await trio.sleep(1000)
        assert server.statistics().handshakes == 1
        assert failure.value.status == 401


async def test_an_exception_of_the_reconnect_iterable_is_raised_unchanged(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: a bug in the user's own iterable is not wrapped."""

    def delays() -> Iterator[float]:
        yield 1
        raise LookupError("a bug in the policy")

    server.stop_accepting()
    async with nothing_is_left(server):
        with pytest.raises(LookupError, match="a bug in the policy"):
            async with connect(reconnect=delays()):
                pytest.fail("the block began")  # pragma: no cover


async def test_an_exception_of_the_dial_function_is_raised_unchanged(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: an exception that is no failure of the network is neither retried nor wrapped."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        await trio.lowlevel.checkpoint()
        raise LookupError(f"a bug in the dialler of {host}:{port}")

    async with nothing_is_left(server):
        with pytest.raises(LookupError, match="localhost:80"):
            async with connect(dial=dial):
                pytest.fail("the block began")  # pragma: no cover


async def test_a_later_exception_of_the_dial_function_ends_the_block(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P1: it cancels the body, and is the only exception."""
    works = True

    async def dial(host: str, port: int) -> trio.abc.Stream:
        if works:
            return await server.dial(host, port)
        raise LookupError("a bug in the dialler")

    async with nothing_is_left(server):
        with pytest.raises(LookupError, match="a bug in the dialler"):  # noqa: PT012 - all of it
            async with connect(dial=dial) as connection:
                works = False
                await server.reset_all()
                await connection.create(model="m", input="hi")


@pytest.mark.parametrize("use", ["create", "send", "receive", "stream", "wait_open", "warm_up"])
async def test_every_call_of_a_closed_connection_raises_at_once(
    connect: "Connect", use: str
) -> None:
    """P1: `ConnectionClosed`, which is a `trio.ClosedResourceError`."""
    async with connect() as connection:
        await connection.aclose()
        with pytest.raises(ConnectionClosed) as failure:
            await call(connection, use)
        assert isinstance(failure.value, trio.ClosedResourceError)
        assert trio.current_time() == 0


@pytest.mark.parametrize("use", ["create", "send", "stream", "wait_open", "warm_up"])
async def test_every_call_of_a_failed_connection_raises_its_failure_at_once(
    server: ResponsesServer, connect: "Connect", use: str
) -> None:
    """P2: no call waits after the last attempt."""
    async with connect(reconnect=[]) as connection:
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.state is ConnectionState.CLOSED
        for _ in range(2):
            with pytest.raises(ReconnectFailed) as failure:
                await call(connection, use)
            assert failure.value.delivery is DeliveryStatus.NOT_SENT
            assert trio.current_time() == 0


async def call(connection: ResponsesConnection, use: str) -> None:
    match use:
        case "stream":
            async with connection.stream(model="m", input="hi"):
                pass
        case "send":
            from trio_responses.types import ResponseCreate  # noqa: PLC0415 - the one user

            await connection.send(ResponseCreate(model="m", input="hi"))
        case "create" | "warm_up":
            await getattr(connection, use)(model="m", input="hi")
        case _:
            await getattr(connection, use)()


async def test_each_caller_of_a_failed_connection_gets_its_own_exception(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """One shared object would grow one traceback, and one delivery."""
    async with connect(reconnect=[]) as connection:
        await server.reset_all()
        await wait_all_tasks_blocked()
        failures: list[ReconnectFailed] = []
        for _ in range(2):
            with pytest.raises(ReconnectFailed) as failure:
                await connection.wait_open()
            failures.append(failure.value)
        assert failures[0] is not failures[1]
        assert failures[0].attempts == failures[1].attempts == 0
        assert failures[0].__cause__ is failures[1].__cause__


def test_two_event_loops_one_after_the_other_share_nothing() -> None:
    """P1: the same configuration serves connections of two runs of Trio."""
    timeouts, keepalive, policy = Timeouts(), Keepalive(), ReconnectPolicy()

    async def main() -> str:
        async with (
            open_test_server() as server,
            server.open_client(
                timeouts=timeouts, keepalive=keepalive, reconnect=policy
            ) as connection,
        ):
            return (await connection.create(model="m", input="hi")).output_text

    clocks = MockClock(autojump_threshold=0), MockClock(autojump_threshold=0)
    assert [trio.run(main, clock=clock) for clock in clocks] == ['Turn 1: you said "hi".'] * 2


# --- In a nursery of one's own -------------------------------------------------------------


async def test_a_connection_in_a_nursery_lives_until_it_is_closed(server: ResponsesServer) -> None:
    """P1: ``connect_responses`` beside ``open_responses``, as trio-websocket has both."""
    async with nothing_is_left(server), trio.open_nursery() as nursery:
        connection = await connect_responses(
            nursery, server.url, api_key="k", dial=server.dial, reconnect=[1, 1]
        )
        await connection.create(model="m", input="hi")
        await server.reset_all()
        await connection.create(model="m", input="hi")
        await connection.aclose()
        assert server.connections[-1].close_code == 1000


async def test_a_connection_in_a_nursery_ends_with_it(server: ResponsesServer) -> None:
    """P1: cancelling the nursery closes it, with code 1000."""
    async with nothing_is_left(server):
        async with trio.open_nursery() as nursery:
            connection = await connect_responses(nursery, server.url, api_key="k", dial=server.dial)
            nursery.cancel_scope.cancel()
        assert server.connections[0].close_code == 1000
        assert connection.state is ConnectionState.CLOSED
        with pytest.raises(ConnectionClosed):
            await connection.create(model="m", input="hi")


async def test_a_failed_opening_in_a_nursery_leaves_nothing(server: ResponsesServer) -> None:
    """P1: the exception comes from the call, and the nursery goes on."""
    server.refuse(403)
    async with trio.open_nursery() as nursery:
        async with nothing_is_left(server):
            with pytest.raises(AuthenticationError):
                await connect_responses(nursery, server.url, api_key="k", dial=server.dial)
        assert not nursery.child_tasks
        assert not nursery.cancel_scope.cancel_called


async def test_a_cancelled_opening_in_a_nursery_leaves_nothing(server: ResponsesServer) -> None:
    """P1: likewise."""
    server.hang_handshake()
    async with trio.open_nursery() as nursery:
        async with nothing_is_left(server):
            with trio.move_on_after(3) as scope:
                await connect_responses(nursery, server.url, api_key="k", dial=server.dial)
            assert scope.cancelled_caught
            assert trio.current_time() == 3
        assert not nursery.child_tasks


async def test_a_connection_in_a_nursery_that_gives_up_does_not_cancel_the_nursery(
    server: ResponsesServer,
) -> None:
    """P2: the calls of the connection raise the failure."""
    async with trio.open_nursery() as nursery:
        connection = await connect_responses(
            nursery, server.url, api_key="k", dial=server.dial, reconnect=[], transport="websocket"
        )
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert not nursery.cancel_scope.cancel_called
        with pytest.raises(ReconnectFailed):
            await connection.create(model="m", input="hi")


async def test_sockets_are_opened_one_at_a_time(
    server: ResponsesServer, connect: "Connect", dialler: "Dialler"
) -> None:
    """P2: the server never sees two of them."""
    async with connect(dial=dialler) as connection:
        for _ in range(3):
            await server.reset_all()
            await connection.create(model="m", input="hi")
    assert server.statistics().max_open == 1
    assert dialler.times == [0, 1, 2, 3]


async def test_the_exception_of_a_failed_dial_is_in_the_chain_of_causes(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P2: `ReconnectFailed`, `ConnectError`, and the operating system's error."""
    server.stop_accepting()
    with pytest.raises(ReconnectFailed) as failure:
        async with connect(reconnect=[]):
            pytest.fail("the block began")  # pragma: no cover
    assert isinstance(failure.value.__cause__, ConnectError)
    assert isinstance(failure.value.__cause__.__cause__, ConnectionRefusedError)


@pytest.fixture
def ctrl_c() -> Iterator[None]:
    """Have Ctrl-C do as in a terminal: a shell lets its jobs in the background ignore it."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("ctrl_c")
@pytest.mark.parametrize(
    ("owner", "name"),
    [
        (WebSocketTransport, "__init__"),
        (Router, "route"),
        (Scheduler, "close"),
        (SocketSet, "stop_opening"),
        (ControlStream, "drop_pending"),
    ],
)
def test_ctrl_c_does_not_interrupt_the_code_that_closes_sockets(
    owner: type, name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P1: an interrupted clean-up would leave a task behind a shield.

    The functions are private: Ctrl-C has to come in the middle of each of them.
    """
    torn: list[str] = []
    pressed: list[str] = []
    original: Callable[..., Any] = getattr(owner, name)

    def press_once(*args: Any, **kwargs: Any) -> Any:
        if not pressed:
            pressed.append(name)
            try:
                signal.raise_signal(signal.SIGINT)
            except KeyboardInterrupt:
                torn.append(name)
        return original(*args, **kwargs)

    async def main() -> None:
        async with open_test_server() as server, nothing_is_left(server):
            server.reply("Hello!")
            async with open_pool(server.websocket_url, dial=server.dial) as pool:
                await pool.create(model="m", input="hi")

    monkeypatch.setattr(owner, name, press_once)
    with pytest.raises(KeyboardInterrupt):
        trio.run(main, clock=MockClock(autojump_threshold=0))
    assert pressed == [name]
    assert torn == []


def a_client(server: ResponsesServer) -> AbstractAsyncContextManager[object]:
    return server.open_client()


def a_pool(server: ResponsesServer) -> AbstractAsyncContextManager[object]:
    return open_pool(server.url, api_key="", dial=server.dial)


@asynccontextmanager
async def a_server_with_a_client(_: ResponsesServer) -> AsyncGenerator[None, None]:
    async with open_test_server() as another, another.open_client():
        yield


@pytest.mark.parametrize("block", [a_client, a_pool, a_server_with_a_client])
async def test_an_exception_of_a_finally_clause_survives_a_cancellation(
    server: ResponsesServer,
    block: Callable[[ResponsesServer], AbstractAsyncContextManager[object]],
) -> None:
    """P1: it leaves a cancelled block unchanged."""
    error = ValueError("of the clean-up")
    with pytest.raises(ValueError, match="clean-up") as failure, trio.move_on_after(1):  # noqa: PT012
        async with block(server):
            try:
                await trio.sleep_forever()
            finally:
                raise error
    assert failure.value is error
