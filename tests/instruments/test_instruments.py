"""The hooks for sockets, turns and tools are called once each, and can break nothing."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.instruments.tape import Notes
from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask, heard
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    Instrument,
    LoggingInstrument,
    ReconnectFailed,
    ResponsesConnection,
    RotationPolicy,
    connect_responses,
    function_tool,
)
from trio_responses._instruments.instrument import Instruments, ServerAddress

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import ToolRecord, TurnRecord

pytestmark = NO_WAITING
A_TURN = ["turn_started", "turn_sent", "turn_first_event", "turn_ended"]


# --- Turns -------------------------------------------------------------------------------


async def test_the_tokens_of_a_failed_response_that_is_repeated_are_in_the_record(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    server.reply("one", status="failed", usage={"input_tokens": 100, "output_tokens": 10})
    server.reply("two", usage={"input_tokens": 200, "output_tokens": 20})
    async with server.open_client(instruments=[notes]) as connection:
        await connection.create(model="m", input="Hello", delivery="at_least_once")
    (turn,) = notes.turns
    assert len(turn.responses) == 1
    assert [one.total_tokens for one in turn.usages] == [110, 220]


async def test_the_hooks_of_a_turn_are_called_from_start_to_end(server: ResponsesServer) -> None:
    notes = Notes()
    server.reply("one two three", delay=1.0, usage={"input_tokens": 7, "output_tokens": 3})
    async with server.open_client(instruments=[notes]) as connection:
        response = await connection.create(model="m-1", input="Hello")
    assert notes.of_turns() == A_TURN
    (turn,) = notes.turns
    assert (turn.model, turn.attempts, turn.lane) == ("m-1", 1, None)
    assert (turn.response_id, turn.status) == (response.id, "completed")
    assert [one.total_tokens for one in turn.usages] == [10]
    assert turn.request_bytes == connection.statistics().bytes_sent
    assert (turn.error, turn.error_code, turn.previous_response_id) == (None, None, None)
    assert not turn.left_early
    assert turn.sent_at is not None
    assert turn.first_event_at is not None
    assert turn.ended_at is not None
    assert turn.started_at <= turn.sent_at <= turn.first_event_at
    assert turn.ended_at - turn.first_event_at == pytest.approx(len("iadttt.....") - 1, abs=3)
    assert turn.host == "localhost"
    assert "one two" not in repr(turn)


async def test_the_first_event_has_the_id_of_the_response(server: ResponsesServer) -> None:
    class Ids(Notes):
        def turn_first_event(self, turn: TurnRecord) -> None:
            super().turn_first_event(turn)
            ids.append(turn.response_id)

    ids: list[str | None] = []
    async with server.open_client(instruments=[Ids()]) as connection:
        response = await connection.create(model="m", input="Hello")
    assert ids == [response.id]


async def test_a_first_event_before_the_end_of_sending_is_notified_after_it() -> None:
    notes = Notes()
    observer = Instruments([notes]).observe_turn("m")
    assert observer is not None
    for _ in range(2):
        observer.sending(
            ServerAddress("host", 1), b"{}", transport="websocket", lane=None, parent=None
        )
        observer.first_event("resp_1", trio.current_time())
        observer.sent(trio.current_time())
    assert notes.of_turns() == [A_TURN[0], *A_TURN[1:3] * 2]
    assert observer.turn.first_event_at == observer.turn.sent_at


async def test_a_turn_that_is_left_early_has_neither_response_nor_error(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    async with server.open_client(instruments=[notes]) as connection:
        async with connection.stream(model="m", input="Hello") as stream:
            async for _ in stream:
                break
        assert notes.of_turns() == A_TURN
    assert notes.turns[0].left_early
    assert notes.turns[0].response_id == stream.response_id is not None


async def test_a_turn_that_is_cancelled_before_it_is_sent_has_ended(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    async with server.open_client(instruments=[notes]) as connection:
        with trio.CancelScope() as scope:
            scope.cancel()
            await connection.create(model="m", input="Hello")
    assert notes.of_turns() == ["turn_started", "turn_ended"]
    assert notes.turns[0].left_early


async def test_a_refused_turn_has_its_error(server: ResponsesServer) -> None:
    notes = Notes()
    server.fail("rate_limit_exceeded", status=429)
    async with server.open_client(instruments=[notes], max_retries=0) as connection:
        with pytest.raises(APIError) as caught:
            await connection.create(model="m", input="Hello")
    assert notes.of_turns() == ["turn_started", "turn_sent", "turn_ended"]
    assert notes.turns[0].error is caught.value
    assert notes.turns[0].error_code == "rate_limit_exceeded"


async def test_a_failed_response_has_its_code(server: ResponsesServer) -> None:
    notes = Notes()
    server.reply("one", status="failed", error="server_error")
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.stream(model="m", input="Hello") as stream,
    ):
        async for _ in stream:
            pass
    assert (notes.turns[0].status, notes.turns[0].error_code) == ("failed", "server_error")


async def test_a_turn_that_is_sent_again_is_one_turn(server: ResponsesServer) -> None:
    notes = Notes()
    server.drop(after_events=2)
    async with server.open_client(instruments=[notes], reconnect=STEADY) as connection:
        await connection.create(model="m", input="Hello", delivery="at_least_once")
    assert notes.of_turns() == [*A_TURN[:3], "turn_sent", "turn_first_event", "turn_ended"]
    (turn,) = notes.turns
    assert (turn.attempts, turn.status) == (2, "completed")
    assert turn.sent_at is not None
    assert turn.first_event_at is not None
    assert turn.sent_at <= turn.first_event_at


async def test_turns_of_every_kind_call_the_hooks(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    server.reply("one")
    server.call("lookup", {})
    async with server.open_client(instruments=[notes]) as connection:
        async with connection.conversation(model="m", tools=[lookup]) as conversation:
            await conversation.create("Hello")
            await conversation.run("Look it up")
        async with connection.lane("mine") as lane:
            await ask(lane, "again")
    assert notes.of_turns() == A_TURN * 4
    first, second, third, fourth = notes.turns
    assert (first.previous_response_id, second.previous_response_id) == (None, first.response_id)
    assert third.previous_response_id == second.response_id
    assert fourth.lane == "mine"
    assert [turn.number for turn in notes.turns] == sorted(turn.number for turn in notes.turns)
    assert notes.hooks.index("tool_started") < notes.hooks.index("tool_finished")


async def test_all_responses_of_a_steered_turn_are_counted(server: ResponsesServer) -> None:
    notes = Notes()
    server.reply("one two", more=["three"], delay=0.1)
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.stream(model="m", input="Hello") as stream,
    ):
        await stream.steer("Shorter")
        await stream.get_final_response()
    assert len(stream.responses) == 2
    assert notes.turns[0].responses == stream.responses
    assert notes.turns[0].response_id == stream.responses[-1].id


# --- Tools -------------------------------------------------------------------------------


@function_tool
async def lookup() -> str:
    """Look it up."""
    return "found"


@function_tool
async def fail() -> str:
    """Fail."""
    raise LookupError("content")


async def test_the_hooks_of_a_tool_are_called_in_its_own_task(server: ResponsesServer) -> None:
    tasks: list[trio.lowlevel.Task] = []

    @function_tool
    async def wait(seconds: float) -> str:
        """Wait."""
        tasks.append(trio.lowlevel.current_task())
        await trio.sleep(seconds)
        return "waited"

    class Tasks(Notes):
        def tool_started(self, tool: ToolRecord) -> None:
            super().tool_started(tool)
            tasks.append(trio.lowlevel.current_task())

        def tool_finished(self, tool: ToolRecord) -> None:
            super().tool_finished(tool)
            tasks.append(trio.lowlevel.current_task())

    notes = Tasks()
    server.call("wait", {"seconds": 5}, call_id="call_1")
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.conversation(model="m", tools=[wait]) as conversation,
    ):
        await conversation.run("Hello")
    (tool,) = notes.tools
    assert (tool.name, tool.kind, tool.call_id) == ("wait", "function_call", "call_1")
    assert tool.ended_at == tool.started_at + 5
    assert tool.error is None
    assert len(tasks) == 3
    assert len(set(tasks)) == 1


@pytest.mark.parametrize("on_tool_error", ["return", "raise"])
async def test_the_record_of_a_tool_has_its_error(
    server: ResponsesServer, on_tool_error: Any
) -> None:
    notes = Notes()
    server.call("fail", {})
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.conversation(model="m", tools=[fail]) as conversation,
    ):
        try:
            await conversation.run("Hello", on_tool_error=on_tool_error)
        except LookupError:
            assert on_tool_error == "raise"
    assert isinstance(notes.tools[0].error, LookupError)
    assert "content" not in repr(notes.tools[0])
    assert notes.hooks.count("tool_finished") == 1


async def test_the_record_of_a_cancelled_tool_is_marked(server: ResponsesServer) -> None:
    @function_tool
    async def wait() -> str:
        """Wait."""
        await trio.sleep_forever()
        raise AssertionError

    notes = Notes()
    server.call("wait", {})
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.conversation(model="m", tools=[wait]) as conversation,
    ):
        with trio.move_on_after(3):
            await conversation.run("Hello")
    assert notes.tools[0].cancelled
    assert notes.hooks.count("tool_finished") == 1


# --- Sockets -----------------------------------------------------------------------------


async def test_the_hooks_of_a_connection_are_called_from_handshake_to_end(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    async with server.open_client(instruments=[notes]):
        await trio.sleep(7)
    assert notes.hooks == ["socket_opening", "socket_opened", "socket_ended", "connection_ended"]
    (socket,) = notes.sockets
    assert socket.ended_at is not None
    assert socket.opened_at is not None
    assert socket.ended_at - socket.opened_at == 7
    assert socket.error is None
    assert isinstance(notes.ends[0], ConnectionClosed)


async def test_the_hooks_of_a_loss_and_a_reconnection_are_called(
    server: ResponsesServer,
) -> None:
    notes = Notes()
    async with server.open_client(instruments=[notes], reconnect=STEADY) as connection:
        server.refuse(503)
        await server.close_all(1012, "restart")
        assert await ask(connection, "Hello") == heard("Hello")
    assert notes.of_sockets() == [
        *("socket_opening", "socket_opened", "socket_ended"),
        *("reconnecting", "socket_opening", "socket_failed"),
        *("reconnecting", "socket_opening", "socket_opened", "socket_ended"),
        "connection_ended",
    ]
    assert notes.delays == [(1, 1.0, "ConnectionLost"), (2, 2.0, "ServerOverloaded")]
    assert [socket.attempt for socket in notes.sockets] == [0, 1, 2]
    lost = notes.sockets[0].error
    assert isinstance(lost, ConnectionLost)
    assert lost.code == 1012


async def test_the_hook_of_a_rotation_is_called(server: ResponsesServer) -> None:
    notes = Notes()
    rotation = RotationPolicy(max_age=100.0, stagger=0.0)
    async with server.open_client(instruments=[notes], rotation=rotation):
        await trio.sleep(150)
    assert notes.of_sockets() == [
        *("socket_opening", "socket_opened"),
        *("socket_opening", "socket_opened", "rotated", "socket_ended"),
        *("socket_ended", "connection_ended"),
    ]
    assert [socket.rotation for socket in notes.sockets] == [False, True]
    assert [socket.error for socket in notes.sockets] == [None, None]


async def test_the_end_of_a_connection_has_its_error(server: ResponsesServer) -> None:
    notes = Notes()
    server.refuse(503, times=None)
    with pytest.raises(ReconnectFailed):
        async with server.open_client(instruments=[notes], reconnect=[1.0]):
            raise AssertionError
    assert notes.hooks.count("socket_failed") == 2
    assert isinstance(notes.ends[0], ReconnectFailed)
    assert len(notes.ends) == 1


async def test_a_cancelled_handshake_has_no_error(server: ResponsesServer) -> None:
    notes = Notes()
    server.hang_handshake()
    with trio.move_on_after(2):
        async with server.open_client(instruments=[notes]):
            raise AssertionError
    assert notes.of_sockets()[:2] == ["socket_opening", "socket_failed"]
    assert notes.sockets[0].error is None


# --- The wire ----------------------------------------------------------------------------


class Frames(Instrument):
    """An instrument that collects all frames."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.received: list[Message] = []

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:
        del socket
        self.sent.append(payload)

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        del socket
        self.received += batch


async def test_the_hooks_of_frames_get_them_unchanged(server: ResponsesServer) -> None:
    frames = Frames()
    async with server.open_client(instruments=[frames]) as connection:
        await ask(connection, "Hello")
        counted = connection.statistics()
        assert sum(map(len, frames.sent)) == counted.bytes_sent > 0
        assert len(frames.received) == counted.events_received > 8


async def test_frames_are_not_observed_without_a_hook_for_them(server: ResponsesServer) -> None:
    async with server.open_client(instruments=[Notes()]) as connection:
        # No public name shows that frames are not observed, which saves time for every frame.
        (socket,) = connection._engine.sockets
        assert socket.transport.frame_observer is None


# --- What may go wrong -------------------------------------------------------------------


class Broken(Notes):
    """Fails at its first turn."""

    def turn_started(self, turn: TurnRecord) -> None:
        super().turn_started(turn)
        raise ValueError("sk-secret-content")


async def test_an_instrument_that_raises_is_removed(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    broken, notes = Broken(), Notes()
    async with server.open_client(instruments=[broken, notes]) as connection:
        assert await ask(connection, "Hello") == heard("Hello")
    assert broken.hooks == ["socket_opening", "socket_opened", "turn_started"]
    assert notes.hooks[-1] == "connection_ended"
    (record,) = [one for one in caplog.records if one.levelname == "ERROR"]
    said = record.getMessage()
    assert said.startswith("instrument Broken raised ValueError in turn_started (")
    assert "test_instruments.py" in said
    assert "content" not in said
    assert record.exc_info is None


@pytest.mark.parametrize("wrong", [object(), Notes])
async def test_an_object_of_another_class_is_refused(server: ResponsesServer, wrong: Any) -> None:
    with pytest.raises(ConfigurationError, match="must derive from Instrument"):
        async with server.open_client(instruments=[wrong]):
            raise AssertionError


async def test_an_async_hook_is_refused(server: ResponsesServer) -> None:
    class Waits(Instrument):
        async def turn_ended(self, turn: TurnRecord) -> None:  # type: ignore[override]
            """Never get called."""

    with pytest.raises(ConfigurationError, match=r"Waits\.turn_ended must be a plain function"):
        async with server.open_client(instruments=[Waits()]):
            raise AssertionError


class DerivedLog(LoggingInstrument):
    """A log with a hook of its own, which gets the turns at every level."""

    def turn_started(self, turn: TurnRecord) -> None:
        """Do nothing."""


@pytest.mark.parametrize(
    ("instruments", "level", "recorded"),
    [
        ([], logging.WARNING, False),
        ([], logging.DEBUG, True),
        ([Notes()], logging.WARNING, True),
        ([LoggingInstrument(), Notes()], logging.WARNING, True),
        ([DerivedLog()], logging.WARNING, True),
    ],
)
async def test_a_turn_has_a_record_where_an_instrument_uses_it(
    server: ResponsesServer,
    caplog: pytest.LogCaptureFixture,
    instruments: list[Instrument],
    level: int,
    *,
    recorded: bool,
) -> None:
    caplog.set_level(level, "trio_responses")
    async with server.open_client(instruments=instruments) as connection:
        stream = connection.stream(model="m", input="Hello")
        async with stream:
            await stream.get_final_response()
        # As below.
        assert (stream._request.observer is not None) is recorded


async def test_without_instruments_there_are_no_records(server: ResponsesServer) -> None:
    async with server.open_client(logging=False) as connection:
        stream = connection.stream(model="m", input="Hello")
        async with stream:
            await stream.get_final_response()
        # No public name shows whether records are made, and making none is the promise.
        assert stream._request.observer is None


async def test_connect_responses_uses_instruments_too(server: ResponsesServer) -> None:
    notes = Notes()
    async with trio.open_nursery() as nursery:
        connection = await connect_responses(
            nursery, server.url, api_key="any", dial=server.dial, instruments=[notes]
        )
        assert isinstance(connection, ResponsesConnection)
        await ask(connection, "Hello")
        await connection.aclose()
    assert notes.of_turns() == A_TURN
