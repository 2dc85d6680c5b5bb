"""Replays of recordings: the client gets the recorded frames again."""

from __future__ import annotations

import io
from collections.abc import Callable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING, connect
from tests.turn.rig import NEVER_AGAIN, STEADY, ask, created, delta, ended, heard
from trio_responses import (
    ConnectionLost,
    Instrument,
    RateLimitError,
    Recorder,
    Recording,
    ResponsesConnection,
    ResponsesError,
    StallTimeout,
    Timeouts,
    function_tool,
)
from trio_responses.testing import Call, open_test_server
from trio_responses.testing._scripts import Recorded  # the class of the answers of a replay

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._protocol.frames import Message
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import SocketRecord

pytestmark = NO_WAITING
CAPTURES = sorted((Path(__file__).parent.parent / "data" / "captures").glob("*.jsonl"))

Session = Callable[[ResponsesConnection], Coroutine[Any, Any, Any]]


class Frames(Instrument):
    """Keeps the received frames, by lane, since the order of frames of different lanes varies."""

    def __init__(self) -> None:
        self.received: list[Any] = []

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        del socket
        self.received += [msgspec.json.decode(one) for one in batch if isinstance(one, bytes)]

    def of_lanes(self) -> dict[str, list[Any]]:
        lanes: dict[str, list[Any]] = {}
        for frame in self.received:
            lanes.setdefault(str(frame.get("stream_id")), []).append(frame)
        return lanes


async def record(
    server: ResponsesServer, session: Session, **options: Any
) -> tuple[Recording, Frames]:
    file, frames = io.BytesIO(), Frames()
    instruments = [Recorder(file), frames]
    async with server.open_client(instruments=instruments, **options) as connection:
        await session(connection)
    return Recording.parse(file.getvalue()), frames


async def replay(recording: Recording, session: Session, **options: Any) -> Frames:
    frames = Frames()
    async with open_test_server() as server:
        server.replay(recording)
        async with server.open_client(instruments=[frames], **options) as connection:
            await session(connection)
        server.assert_all_scripts_used()
        assert server.errors == []
    return frames


@function_tool
async def get_weather(city: str) -> str:
    """Return the weather in a city."""
    return f"sunny in {city}"


async def whole_session(connection: ResponsesConnection) -> list[Any]:
    """Run turns with text, tools, an error and two lanes; return the results."""
    seen: list[Any] = []
    async with connection.stream(model="m", input="Hello") as stream:
        seen += [event async for event in stream]
    async with connection.conversation(model="m", tools=[get_weather]) as conversation:
        seen.append(await conversation.run("Is it warm in Oslo?"))
    with pytest.raises(RateLimitError) as caught:
        await connection.create(model="m", input="Too much", max_retries=0)
    seen.append(caught.value.code)
    texts: dict[str, str] = {}

    async def turn(name: str) -> None:
        async with connection.lane(name) as lane:
            texts[name] = (await lane.create(model="m", input=f"On {name}")).output_text

    async with trio.open_nursery() as nursery:
        nursery.start_soon(turn, "a")
        nursery.start_soon(turn, "b")
    return [*seen, texts]


async def test_a_replay_gives_the_client_the_recorded_events(server: ResponsesServer) -> None:
    server.reply("Good morning", reasoning="A greeting")
    server.calls(Call("get_weather", {"city": "Oslo"}), Call("get_weather", {"city": "Rome"}))
    server.reply("It is sunny.")
    server.fail("rate_limit_exceeded", status=429)
    seen: list[Any] = []

    async def session(connection: ResponsesConnection) -> None:
        seen.append(await whole_session(connection))

    recording, then = await record(server, session)
    now = await replay(recording, session)
    assert seen[0][:-1] == seen[1][:-1]
    assert then.of_lanes().keys() == now.of_lanes().keys() >= {"None", "a", "b"}
    assert sum(map(len, then.of_lanes().values())) > 40
    texts = {*seen[0][-1].values()}
    assert {*seen[1][-1].values()} == texts == {heard("On a"), heard("On b")}


async def test_a_replay_sends_the_recorded_frames_in_the_same_order(
    server: ResponsesServer,
) -> None:
    async def session(connection: ResponsesConnection) -> None:
        await ask(connection, "one")
        async with connection.conversation(model="m", store=False) as conversation:
            await conversation.warm_up()
            await conversation.create("two")
            await conversation.create("three")

    server.answer().inject({"type": "keepalive"}, after_events=3)
    recording, then = await record(server, session)
    now = await replay(recording, session)
    assert now.received == then.received
    assert {"type": "keepalive"} in now.received


async def test_a_replay_uses_the_lanes_of_the_new_requests(server: ResponsesServer) -> None:
    async def on_a_lane(connection: ResponsesConnection) -> None:
        async with connection.lane("then") as lane:
            await ask(lane, "Hello")

    async def plain(connection: ResponsesConnection) -> None:
        await ask(connection, "Hello")

    async def on_another(connection: ResponsesConnection) -> None:
        async with connection.lane("now") as lane:
            assert await ask(lane, "Other words") == heard("Hello")

    async def on_none(connection: ResponsesConnection) -> None:
        assert await ask(connection, "Other words") == heard("Hello")

    recording, _ = await record(server, on_a_lane)
    assert (await replay(recording, on_another)).of_lanes().keys() == {"now"}
    assert (await replay(recording, on_none)).of_lanes().keys() == {"None"}
    recording, _ = await record(server, plain)
    assert (await replay(recording, on_another)).of_lanes().keys() == {"now"}


async def test_recorded_answers_go_to_requests_in_the_order_of_arrival(
    server: ResponsesServer,
) -> None:
    async def session(connection: ResponsesConnection) -> None:
        for number in range(5):
            await ask(connection, f"{number}")

    async def at_once(connection: ResponsesConnection) -> None:
        async def turn(number: int) -> None:
            async with connection.lane(f"lane-{number}") as lane:
                answers[number] = await ask(lane, "Hello")

        answers: dict[int, str] = {}
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(turn, number)
                await trio.testing.wait_all_tasks_blocked()
        assert answers == {number: heard(f"{number}") for number in range(5)}

    recording, _ = await record(server, session)
    await replay(recording, at_once)


async def test_a_replay_ends_the_socket_where_the_server_ended_it(server: ResponsesServer) -> None:
    async def session(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await ask(connection, "Hello")
        assert (caught.value.code, caught.value.reason) == (1011, "crashed")
        assert caught.value.delivery == "accepted"
        assert await ask(connection, "Hello again") == heard("Hello again")

    server.drop(after_events=4, how=1011, reason="crashed")
    recording, then = await record(server, session, reconnect=STEADY)
    now = await replay(recording, session, reconnect=STEADY)
    assert now.received == then.received


@pytest.mark.parametrize("idle", [0.0, 30.0])
@pytest.mark.parametrize("code", [1001, None])
async def test_the_recorded_end_of_an_idle_socket_costs_no_answer(
    server: ResponsesServer, idle: float, code: int | None
) -> None:
    ends: list[int | None] = []

    class Ends(Instrument):
        def socket_ended(self, socket: SocketRecord) -> None:
            if isinstance(socket.error, ConnectionLost):
                ends.append(socket.error.code)

    async def lose(connection: ResponsesConnection) -> None:
        assert await ask(connection, "one") == heard("one")
        await trio.sleep(idle)
        await (server.hang_up_all() if code is None else server.close_all(code))
        await trio.sleep(60)
        assert await ask(connection, "two") == heard("two")

    async def wait(connection: ResponsesConnection) -> None:
        assert await ask(connection, "one") == heard("one")
        await trio.sleep(60)
        assert await ask(connection, "two") == heard("two")

    async def ask_on(connection: ResponsesConnection) -> None:
        assert await ask(connection, "one") == heard("one")
        assert await ask(connection, "two") == heard("two")

    recording, _ = await record(server, lose, reconnect=STEADY)
    await replay(recording, ask_on, reconnect=STEADY)
    async with open_test_server() as other:
        other.replay(recording)
        async with other.open_client(reconnect=STEADY, instruments=[Ends()]) as connection:
            await wait(connection)
    assert ends == [code or 1006]


async def test_a_recorded_reset_ends_the_socket_without_a_code(server: ResponsesServer) -> None:
    async def session(connection: ResponsesConnection) -> None:
        with pytest.raises(ConnectionLost) as caught:
            await ask(connection, "Hello")
        assert caught.value.code == 1006

    server.drop(after_events=4)
    recording, then = await record(server, session, reconnect=NEVER_AGAIN)
    now = await replay(recording, session, reconnect=NEVER_AGAIN)
    assert now.received == then.received


async def test_a_replay_repeats_the_effect_of_steering(server: ResponsesServer) -> None:
    seen: list[Any] = []

    async def session(connection: ResponsesConnection) -> None:
        async with connection.stream(model="m", input="A poem") as stream:
            receipt = None
            async for event in stream:
                if event.type == "response.output_item.added" and receipt is None:
                    receipt = await stream.steer("A haiku")
        assert receipt is not None
        seen.append([receipt.state, receipt.id, [one.id for one in stream.responses]])

    server.reply("A poem", more=["and more"], delay=0.1)
    recording, then = await record(server, session)
    now = await replay(recording, session)
    assert seen[0] == seen[1]
    assert seen[0][0] == "committed"
    assert len(seen[0][2]) == 2
    assert now.received == then.received


async def test_a_replay_can_keep_the_recorded_timing(server: ResponsesServer) -> None:
    async def session(connection: ResponsesConnection) -> None:
        before = trio.current_time()
        await ask(connection, "Hello")
        took.append(trio.current_time() - before)

    took: list[float] = []
    server.answer().stall(after_events=0, seconds=2).stall(after_events=5, seconds=3)
    recording, _ = await record(server, session)
    await replay(recording, session)
    async with open_test_server() as other:
        other.replay(recording, timing=True)
        async with other.open_client() as connection:
            await session(connection)
    assert took == [pytest.approx(5), pytest.approx(0), pytest.approx(5)]


async def test_a_replay_takes_extra_faults_and_leaves_later_requests_alone(
    server: ResponsesServer, tmp_path: Path
) -> None:
    async def session(connection: ResponsesConnection) -> None:
        await ask(connection, "Hello")

    path = tmp_path / "session.jsonl"
    steered = by_hand(send(), send("response.steer", previous_response_id="resp_raw", input="x"))
    with Recorder(path) as recorder:
        async with server.open_client(instruments=[recorder]) as connection:
            await session(connection)
    async with open_test_server() as other:
        (script,) = other.replay(path)
        script.drop(after_events=3)
        async with other.open_client(reconnect=STEADY) as connection:
            with pytest.raises(ConnectionLost):
                await session(connection)
            assert await ask(connection, "Later") == heard("Later")
        other.replay(path)
        with pytest.raises(AssertionError, match="unused scripts"):
            other.assert_all_scripts_used()
        other.clear_scripts()
        other.assert_all_scripts_used()
        other.replay(steered)
        other.clear_scripts()
        async with connect(other) as client:
            await client.steer("resp_raw", "x")
            assert (await client.receive())["type"] == "response.steer.failed"


async def test_redacted_content_is_replayed_redacted() -> None:
    def redact(frame: Any) -> Any:
        return {**frame, "delta": "..."} if "delta" in frame else frame

    file = io.BytesIO()
    async with open_test_server() as server:
        server.reply("content")
        async with server.open_client(instruments=[Recorder(file, redact=redact)]) as connection:
            await ask(connection, "Hello")
        server.replay(Recording.parse(file.getvalue()))
        async with (
            server.open_client() as connection,
            connection.stream(model="m", input="Hello") as stream,
        ):
            assert [text async for text in stream.text_deltas()] == ["..."]


# --- Hand-written recordings ---


def by_hand(*lines: dict[str, Any]) -> Recording:
    rows = [msgspec.json.encode({"t": 0.0, **line}) + b"\n" for line in lines]
    return Recording.parse(b"".join(rows))


def send(kind: str = "response.create", **fields: Any) -> dict[str, Any]:
    return {"dir": "send", "frame": {"type": kind, **fields}}


def recv(frame: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {"dir": "recv", "frame": {**frame, **fields}}


async def answers_of(recording: Recording) -> list[Recorded]:
    """Return the answer to each request of a recording."""
    async with open_test_server() as server:
        answers = [script.answer for script in server.replay(recording)]
    return [answer for answer in answers if isinstance(answer, Recorded)]


async def test_a_socket_ends_after_the_frames_of_all_lanes() -> None:
    recording = by_hand(
        send(stream_id="a"),
        send(stream_id="b"),
        *[recv(created("resp_a"), stream_id="a"), recv(created("resp_b"), stream_id="b")],
        *[recv(delta(f"{number}"), stream_id="b") for number in range(30)],
        recv(delta("last"), stream_id="a"),
        {"dir": "close", "by": "server", "code": 1011},
    )
    frames = Frames()

    async def turn(name: str) -> None:
        async with connection.lane(name) as lane:
            with pytest.raises(ConnectionLost) as caught:
                await ask(lane, "Hello")
            assert caught.value.code == 1011

    async with open_test_server() as server:
        server.replay(recording)
        options: dict[str, Any] = {"instruments": [frames], "reconnect": NEVER_AGAIN}
        async with server.open_client(**options) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(turn, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(turn, "b")
    assert {name: len(of_lane) for name, of_lane in frames.of_lanes().items()} == {"a": 2, "b": 31}


async def test_a_recorded_close_without_a_code_becomes_a_normal_closure() -> None:
    recording = by_hand(
        send(), recv(created("resp_1")), {"dir": "close", "by": "server", "code": 1005}
    )
    async with open_test_server() as server:
        server.replay(recording)
        async with server.open_client(reconnect=NEVER_AGAIN) as connection:
            with pytest.raises(ConnectionLost) as caught:
                await ask(connection, "Hello")
    assert caught.value.code == 1000


async def test_frames_after_a_steering_input_wait_for_a_steering_input() -> None:
    accepted = {"type": "response.steer.accepted", "sequence_number": 9, "steer_id": "steer_1"}
    recording = by_hand(
        send(),
        recv(created()),
        recv(delta("one")),
        send("response.steer", previous_response_id="resp_raw", input="x"),
        recv(accepted),
    )
    frames = Frames()
    async with open_test_server() as server:
        server.replay(recording)
        async with (
            server.open_client(instruments=[frames]) as connection,
            connection.stream(model="m", input="Hello") as stream,
        ):
            await anext(stream)
            await trio.testing.wait_all_tasks_blocked()
            assert len(frames.received) == 2
            await stream.steer("Now")
            await trio.testing.wait_all_tasks_blocked()
            assert len(frames.received) == 3
        assert [steer.input[0]["content"] for steer in server.steers] == ["Now"]


async def test_a_replay_answers_invalid_requests_too() -> None:
    recording = by_hand(send(), recv(created()), recv(ended()), send(), recv(ended((), "resp_2")))

    async def session(connection: ResponsesConnection) -> None:
        first = await connection.create(input="without a model")
        second = await connection.create(model="m", previous_response_id="resp_unknown", input="")
        assert (first.id, second.id) == ("resp_raw", "resp_2")

    await replay(recording, session)


async def test_a_second_response_without_steering_belongs_to_the_next_request() -> None:
    recording = by_hand(
        send(), recv(created("resp_1")), send(), recv(created("resp_2")), recv(ended((), "resp_2"))
    )
    one, two = await answers_of(recording)
    assert one.frames == [created("resp_1")]
    assert two.frames == [created("resp_2"), ended((), "resp_2")]


async def test_a_recorded_server_without_lanes_names_no_lanes() -> None:
    frame = created()
    assert Recorded([frame], "then").on("now") == [frame]
    assert Recorded([frame], None).on("now") == [{**frame, "stream_id": "now"}]
    assert Recorded([{**frame, "stream_id": "then"}, "text"], "then").on(None) == [frame, "text"]


# --- Captures of other servers ---


@pytest.mark.parametrize("path", CAPTURES, ids=lambda path: path.stem)
async def test_a_capture_of_another_server_can_be_replayed(path: Path) -> None:
    """Send every request of a capture, one after another on the default lane."""
    recording = Recording.read(path)
    expected = [answer.on(None) for answer in await answers_of(recording)]
    sent = [line.json["type"] for line in recording if line.dir == "send"]
    assert len(expected) == sent.count("response.create")
    frames = Frames()
    async with open_test_server() as server:
        server.replay(path)
        async with connect(server) as client:
            for _ in range(sent.count("response.steer")):
                await client.steer("resp_any", "x")  # no frame waits for a steering input below
            await trio.testing.wait_all_tasks_blocked()
        async with server.open_client(instruments=[frames], max_retries=0) as connection:
            for answer in expected:
                frames.received.clear()
                with trio.move_on_after(10), suppress(ResponsesError):
                    response = await connection.create(model="m", input="Hello")
                    assert response.id in str(answer)
                await trio.testing.wait_all_tasks_blocked()
                assert frames.received == answer
                if not is_complete(answer):
                    break  # the capture ends in this answer
        assert server.errors == []


def is_complete(answer: list[Any]) -> bool:
    ends = {"response.completed", "response.incomplete", "response.failed", "error"}
    return bool(answer) and answer[-1].get("type") in ends


# --- Recordings that were cut off -----------------------------------------------------------------


async def test_a_recording_that_is_cut_in_an_answer_ends_there(server: ResponsesServer) -> None:
    whole, _ = await record(server, lambda connection: ask(connection, "Hello"))
    cut = Recording(whole.lines[:6])
    async with open_test_server() as other:
        other.replay(cut)
        async with other.open_client(reconnect=STEADY) as connection:
            with pytest.raises(ConnectionLost) as caught:
                await ask(connection, "Hello")
            assert trio.current_time() == 0
            assert caught.value.code == 1006
            assert caught.value.delivery == "accepted"
            assert connection.statistics().events_received == 4
            assert await ask(connection, "next") == heard("next")


async def test_a_recording_that_is_cut_after_a_request_ends_there(server: ResponsesServer) -> None:
    whole, _ = await record(server, lambda connection: ask(connection, "Hello"))
    async with open_test_server() as other:
        other.replay(Recording(whole.lines[:2]))
        async with other.open_client(reconnect=NEVER_AGAIN) as connection:
            with pytest.raises(ConnectionLost) as caught:
                await ask(connection, "Hello")
            assert trio.current_time() == 0
            assert caught.value.delivery == "ambiguous"


async def two_turns(connection: ResponsesConnection) -> list[str]:
    async with connection.conversation(model="m", store=False) as conversation:
        return [(await conversation.create(text)).output_text for text in ("one", "two")]


async def test_a_file_that_is_cut_anywhere_is_replayed_up_to_there(server: ResponsesServer) -> None:
    """Also within a line, within its UTF-8, and within the first line."""
    file = io.BytesIO()
    server.reply("na\u00efve " * 3)
    server.reply("\U0001f600")
    async with server.open_client(instruments=[Recorder(file)]) as connection:
        texts = await two_turns(connection)
        size = len(file.getvalue())  # without the line for the end of the socket
    lost = 0
    for end in range(0, size + 1, 61):
        recording = Recording.parse(file.getvalue()[:end])
        requests = [line for line in recording if line.dir == "send"]
        done = [line for line in recording if b'"response.completed"' in bytes(line.frame or b"")]
        async with open_test_server() as other:
            assert len(other.replay(recording)) == len(requests)
            began_at = trio.current_time()
            async with other.open_client(reconnect=NEVER_AGAIN) as connection:
                if len(requests) > len(done):
                    with pytest.raises(ConnectionLost):
                        await two_turns(connection)
                    lost += 1
                else:
                    assert (await two_turns(connection))[: len(done)] == texts[: len(done)]
                assert trio.current_time() == began_at
    assert lost > 20


async def test_a_recording_that_is_cut_in_two_lanes_ends_both() -> None:
    recording = by_hand(
        send(stream_id="a"),
        send(stream_id="b"),
        recv(created("resp_a"), stream_id="a"),
        recv(created("resp_b"), stream_id="b"),
        recv(delta("last"), stream_id="a"),
    )
    lost: list[str] = []

    async def turn(name: str) -> None:
        async with connection.lane(name) as lane:
            with pytest.raises(ConnectionLost):
                await ask(lane, "Hello")
            lost.append(name)

    async with open_test_server() as server:
        server.replay(recording)
        options: dict[str, Any] = {"reconnect": NEVER_AGAIN}
        async with server.open_client(**options) as connection, trio.open_nursery() as nursery:
            nursery.start_soon(turn, "a")
            await trio.testing.wait_all_tasks_blocked()
            nursery.start_soon(turn, "b")
    assert sorted(lost) == ["a", "b"]
    assert trio.current_time() == 0


async def test_a_recorded_silence_that_the_client_has_ended_is_no_cut(
    server: ResponsesServer,
) -> None:
    async def session(connection: ResponsesConnection) -> None:
        with pytest.raises(StallTimeout):
            await ask(connection, "Hello")

    server.stall(after_events=4)
    recording, then = await record(server, session, timeouts=Timeouts(stall=30))
    now = await replay(recording, session, timeouts=Timeouts(stall=30))
    assert now.received == then.received
