"""P3: a turn ends exactly once; the events, snapshots and responses of a stream."""

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.turn.rig import (
    ask,
    ask_strictly,
    assert_at_rest,
    created,
    delta,
    ended,
    heard,
    item_done,
    message,
    numbers,
    types,
)
from trio_responses import (
    APIError,
    DeliveryStatus,
    PreviousResponseNotFound,
    RateLimitError,
    ResponseFailedError,
    UndecodableResponse,
)
from trio_responses.testing import ERROR_SHAPES, Call, ErrorShape, Reply, WireBytes
from trio_responses.types import (
    ErrorEvent,
    OutputTextDelta,
    ResponseCompleted,
    ResponseFailed,
    ResponseIncomplete,
    UndecodableFrame,
    UnknownEvent,
)

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING


async def test_a_stream_yields_the_events_in_order(server: "ResponsesServer") -> None:
    """P3: each of them once, up to the one that ends the response."""
    server.reply("one two three")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert numbers(events) == list(range(len(events)))
        assert types(events) == [
            "response.created",
            "response.in_progress",
            "response.output_item.added",
            "response.content_part.added",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.delta",
            "response.output_text.done",
            "response.content_part.done",
            "response.output_item.done",
            "response.completed",
        ]
        assert_at_rest(connection)


async def test_the_response_id_is_there_with_the_first_event(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        stream = connection.stream(model="m", input="hi")
        assert stream.response_id is None
        async with stream:
            assert stream.response_id is None
            await stream.__anext__()
            assert stream.response_id == server.requests[0].response_id
            response = await stream.get_final_response()
        assert stream.response_id == response.id == server.requests[0].response_id


async def test_a_snapshot_grows_during_the_turn_and_stays_after_it(
    server: "ResponsesServer",
) -> None:
    """Text, reasoning summary and arguments, item by item."""
    asked = Call("weather", {"in": "Oslo"}, unoffered=True)
    server.answer(Reply("warm and dry", reasoning="think it over", calls=[asked]))
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            assert not stream.snapshot.items
            text = ""
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    text += event.delta
                    reasoning, spoken = stream.snapshot.items
                    assert (spoken.text, spoken.item) == (text, None)
                    assert reasoning.item is not None
        snapshot = stream.snapshot
        reasoning, spoken, call = snapshot.items
        assert (snapshot.text, spoken.text) == ("warm and dry", "warm and dry")
        assert snapshot.reasoning_summary == reasoning.reasoning_summary == "think it over"
        assert call.arguments == '{"in":"Oslo"}'
        assert [item.output_index for item in snapshot.items] == [0, 1, 2]
        assert [item.item_id for item in snapshot.items] == [
            getattr(item, "id", None) for item in stream.response.output
        ]
        assert [item.item for item in snapshot.items] == list(stream.response.output)


async def test_a_snapshot_has_the_refusal(server: "ResponsesServer") -> None:
    at = {"item_id": "msg_1", "output_index": 0, "content_index": 0, "sequence_number": 1}
    server.answer(
        [
            created(),
            {"type": "response.refusal.delta", "delta": "I will ", **at},
            {"type": "response.refusal.delta", "delta": "not.", **at},
            ended(),
        ]
    )
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await stream.get_final_response()
    assert stream.snapshot.refusal == stream.snapshot.items[0].refusal == "I will not."
    assert stream.snapshot.text == ""


async def test_without_a_snapshot_no_pieces_are_kept(server: "ResponsesServer") -> None:
    """P6: a long answer costs its finished items only."""
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi", snapshot=False) as stream:
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    assert stream.snapshot.text == ""
        assert stream.response.output_text == heard("hi")


async def test_text_deltas_are_the_text_alone(server: "ResponsesServer") -> None:
    server.reply(chunks=["on", "e t", "wo"], reasoning="not this")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            pieces = [piece async for piece in stream.text_deltas()]
        assert pieces == ["on", "e t", "wo"]
        assert stream.response.output_text == "one two"


@pytest.mark.parametrize("snapshot", [True, False])
async def test_text_deltas_can_leave_out_commentary(
    server: "ResponsesServer",
    snapshot: bool,  # noqa: FBT001
) -> None:
    pieces: list[str] = []
    for final_only in (True, False):
        server.reply("It is warm.", commentary=["I will check.", "I see."], more=["Bye."])
        async with server.open_client() as connection:
            async with connection.stream(model="m", input="hi", snapshot=snapshot) as stream:
                async for piece in stream.text_deltas(final_only=final_only):
                    pieces.append(piece)  # noqa: PERF401 - the test is about the iteration
                response = stream.response
            assert response.final_text == "It is warm.Bye."
            assert response.output_text == "I will check.I see.It is warm.Bye."
            assert stream.snapshot.final_text == response.final_text
    assert "".join(pieces) == response.final_text + response.output_text


@pytest.mark.parametrize(
    ("phase", "text"),
    [(None, "one"), ("draft", "one"), ("final_answer", "one"), ("commentary", "")],
)
async def test_text_without_a_phase_or_of_an_unknown_one_is_no_commentary(
    server: "ResponsesServer", phase: str | None, text: str
) -> None:
    server.reply("one", phase=phase)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        pieces = [piece async for piece in stream.text_deltas(final_only=True)]
    assert "".join(pieces) == text


async def test_the_phase_of_each_event_is_known_while_streaming(server: "ResponsesServer") -> None:
    server.reply("two", commentary=["one"], calls=[Call("look", unoffered=True)])
    phases: list[tuple[str, str | None]] = []
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        async for event in stream:
            phases.append((event.type.removeprefix("response."), stream.phase_of(event)))
            if isinstance(event, OutputTextDelta):
                assert stream.snapshot.items[-1].phase == stream.phase_of(event)
    events = ["output_item.added", "content_part.added", "output_text.delta", "output_text.done"]
    events += ["content_part.done", "output_item.done"]
    assert phases[2:14] == [
        (name, phase) for phase in ("commentary", "final_answer") for name in events
    ]
    assert {phase for _, phase in phases[:2] + phases[14:]} == {None}


async def test_text_deltas_can_be_left_and_read_on(server: "ResponsesServer") -> None:
    """A ``break`` loses none of the later events."""
    server.reply(chunks=["a", "b", "c"])
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            async for piece in stream.text_deltas():
                assert piece == "a"
                break
            rest = [piece async for piece in stream.text_deltas()]
        assert rest == ["b", "c"]


async def test_get_final_response_reads_the_rest(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            response = await stream.get_final_response()
            assert await stream.get_final_response() is response
            with pytest.raises(StopAsyncIteration):
                await stream.__anext__()
        assert stream.response is response
        assert await stream.get_final_response() is response


async def test_a_response_is_not_there_before_its_end(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        stream = connection.stream(model="m", input="hi")
        with pytest.raises(RuntimeError, match="read the stream to its end first"):
            _ = stream.response
        async with stream:
            await stream.__anext__()
            with pytest.raises(RuntimeError, match="read the stream to its end first"):
                _ = stream.response
        with pytest.raises(RuntimeError, match="read the stream to its end first"):
            _ = stream.response


async def test_a_stream_is_read_inside_its_block(server: "ResponsesServer") -> None:
    """P3: before and after the block, a read raises instead of waiting."""
    async with server.open_client() as connection:
        stream = connection.stream(model="m", input="hi")
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await stream.__anext__()
        with trio.fail_after(1):
            async with stream:
                await stream.__anext__()
            with pytest.raises(RuntimeError, match="inside its async with block"):
                await stream.__anext__()
            with pytest.raises(RuntimeError, match="inside its async with block"):
                await stream.get_final_response()


async def test_a_stream_is_entered_once(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        stream = connection.stream(model="m", input="hi")
        async with stream:
            with pytest.raises(RuntimeError, match="entered only once"):
                await stream.__aenter__()
            await stream.get_final_response()
        with pytest.raises(RuntimeError, match="entered only once"):
            await stream.__aenter__()
        assert len(server.requests) == 1


async def test_a_stream_that_is_not_entered_sends_nothing(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        connection.stream(model="m", input="hi")
        await trio.sleep(10)
        assert server.requests == []


async def test_a_failed_response_ends_a_stream_as_an_event(server: "ResponsesServer") -> None:
    """P3: the stream yields the event, and keeps the Response."""
    server.reply("half", status="failed", error="server_error")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], ResponseFailed)
        assert stream.response.status == "failed"
        assert stream.response.error is not None
        assert stream.response.error.code == "server_error"
        assert stream.response.output_text == "half"


async def test_get_final_response_raises_a_failed_response(server: "ResponsesServer") -> None:
    server.reply("half", status="failed", error="server_error")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            with pytest.raises(ResponseFailedError) as failure:
                await stream.get_final_response()
        assert failure.value.response is stream.response
        assert failure.value.delivery is DeliveryStatus.ACCEPTED


async def test_create_raises_a_failed_response(server: "ResponsesServer") -> None:
    """P3: the Response is on the exception; a request that would fail again is sent once."""
    server.reply("half", status="failed", error="invalid_prompt")
    async with server.open_client() as connection:
        with pytest.raises(ResponseFailedError, match="invalid_prompt") as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.response.status == "failed"
        assert failure.value.response.output_text == "half"
        assert "half" not in str(failure.value)
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert len(server.requests) == 1
        await ask_strictly(connection, "next")


async def test_a_cancelled_response_ends_the_turn(server: "ResponsesServer") -> None:
    """P3: some servers end a response with ``response.cancelled``."""
    server.answer([created(), ended((), status="cancelled")])
    async with server.open_client() as connection:
        response = await connection.create(model="m", input="hi")
        assert response.status == "cancelled"
        assert trio.current_time() == 0
        await ask_strictly(connection, "next")


async def test_an_incomplete_response_is_a_response(server: "ResponsesServer") -> None:
    """P3: the answer, up to a limit that the caller set."""
    server.reply("half", status="incomplete", reason="max_output_tokens")
    server.reply("half", status="incomplete", reason="content_filter")
    async with server.open_client() as connection:
        response = await connection.create(model="m", input="hi")
        assert (response.status, response.output_text) == ("incomplete", "half")
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert isinstance(events[-1], ResponseIncomplete)
        assert stream.response.incomplete_details is not None
        assert stream.response.incomplete_details.reason == "content_filter"


@pytest.mark.parametrize("after_events", [0, 1, 4])
@pytest.mark.parametrize("shape", [shape for shape in ERROR_SHAPES if shape != "failed"])
async def test_an_error_frame_of_any_shape_ends_a_turn(
    server: "ResponsesServer", shape: ErrorShape, after_events: int
) -> None:
    """P3, P8: the stream yields the frame and raises after it; ``create()`` raises.

    Code, status, message, parameter and delay are on the exception; its text quotes the message.
    """
    for _ in range(2):
        server.fail(
            "rate_limit_exceeded",
            status=429,
            message="slow down",
            param="model",
            shape=shape,
            headers={"retry-after": 7},
            after_events=after_events,
        )
    async with server.open_client(max_retries=0) as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [await stream.__anext__() for _ in range(after_events + 1)]
            assert isinstance(events[-1], ErrorEvent)
            with pytest.raises(APIError) as failure:
                await stream.__anext__()
            assert failure.value.event is events[-1]
        with pytest.raises(APIError) as later:
            _ = stream.response
        assert later.value is failure.value
        with pytest.raises(APIError) as created_failure:
            await ask(connection, "hi")
        for error in (failure.value, created_failure.value):
            assert error.delivery is (
                DeliveryStatus.ACCEPTED if after_events else DeliveryStatus.REJECTED
            )
            assert (error.message, error.retry_after) == ("slow down", 7)
            assert "slow down" in str(error)
            if shape != "detail":
                assert isinstance(error, RateLimitError)
                assert (error.code, error.param) == ("rate_limit_exceeded", "model")
            if shape not in {"flat", "sequenced"}:
                assert error.status == 429
        await ask_strictly(connection, "next")
        assert trio.current_time() == 0
        assert server.statistics().handshakes == 1
        assert_at_rest(connection)


@pytest.mark.parametrize("final_output", ["empty", "null", "missing"])
@pytest.mark.parametrize("snapshot", [True, False])
async def test_a_missing_final_output_is_filled_from_the_items(
    server: "ResponsesServer", final_output: Any, *, snapshot: bool
) -> None:
    """The finished items are the output where the terminal event leaves it out."""
    call = Call("f", unoffered=True)
    server.reply("hello", reasoning="so", calls=[call], final_output=final_output)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi", snapshot=snapshot) as stream:
            response = await stream.get_final_response()
        assert response.output_text == "hello"
        assert [item.type for item in response.output] == ["reasoning", "message", "function_call"]


async def test_the_final_output_takes_precedence_over_the_items(server: "ResponsesServer") -> None:
    final = message("the final word")
    server.answer([created(), item_done(message("a draft")), ended([final])])
    async with server.open_client() as connection:
        assert await ask(connection, "hi") == "the final word"


@pytest.mark.parametrize("events", ["deltas", "items", "terminal"])
async def test_events_before_the_deltas_may_be_missing(
    server: "ResponsesServer", events: Any
) -> None:
    """docs/protocol.md, 3."""
    server.reply("one two", calls=[Call("f", {"a": 1}, unoffered=True)], events=events)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            response = await stream.get_final_response()
        assert response.output_text == "one two"
        assert stream.response_id == response.id
        if events == "deltas":
            assert stream.snapshot.text == "one two"
            assert stream.snapshot.items[1].arguments == '{"a":1}'


async def test_a_delta_may_be_the_first_event_of_an_item(
    server: "ResponsesServer",
) -> None:
    server.answer([delta("a", output_index=3), delta("b", output_index=3), ended()])
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await stream.get_final_response()
    assert [(item.output_index, item.text) for item in stream.snapshot.items] == [(3, "ab")]


async def test_the_stream_yields_unknown_events_of_its_response(server: "ResponsesServer") -> None:
    """P5, P8: unsolicited events are left out, and nothing ends."""
    script = server.reply("one")
    script.inject({"type": "response.brand_new", "sequence_number": 9}, after_events=2)
    script.inject({"type": "keepalive", "sequence_number": 9}, after_events=3)
    script.inject({"type": "codex.rate_limits"}, after_events=3)
    script.inject("this is no JSON", after_events=4)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        unknown = [event for event in events if isinstance(event, UnknownEvent)]
        assert [event.wire_type for event in unknown] == ["response.brand_new"]
        assert sum(isinstance(event, UndecodableFrame) for event in events) <= 1
        assert isinstance(events[-1], ResponseCompleted)
        assert stream.response.output_text == "one"
        assert connection.statistics().undecodable_frames == 1


@pytest.mark.parametrize(
    "kind",
    ["response.cancelled", "response.completed", "response.failed", "response.incomplete"],
)
async def test_a_final_frame_that_cannot_be_decoded_ends_the_turn(
    server: "ResponsesServer", kind: str
) -> None:
    """P3, P8: the exception has the bytes."""
    server.answer([created(), {"type": kind, "response": 7}])
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            last = await stream.__anext__()
            with pytest.raises(UndecodableResponse) as failure:
                await stream.__anext__()
        assert failure.value.frame is last
        assert failure.value.frame.wire_type == kind
        assert b'"response":7' in failure.value.frame.raw
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert connection.statistics().undecodable_frames == 1
        await ask_strictly(connection, "next")
        assert server.statistics().handshakes == 1


@pytest.mark.parametrize("response", [{"id": 5}, {"id": ["x"]}, {}, 5, None, "resp_1"])
async def test_the_id_of_a_response_is_text_or_the_response_is_undecodable(
    server: "ResponsesServer", response: Any
) -> None:
    """P8: a value of another type is never taken for the id."""
    server.answer([{"type": "response.completed", "response": response}])
    async with server.open_client() as connection:
        try:
            done = await connection.create(model="m", input="hi")
        except UndecodableResponse:
            assert connection.previous_response_id is None
        else:
            assert isinstance(done.id, str)
            assert isinstance(connection.previous_response_id, str | None)


async def test_events_that_come_in_one_read_are_yielded_one_at_a_time(
    server: "ResponsesServer",
) -> None:
    """The batch is the library's business."""
    frames = [created(), *(delta(str(number)) for number in range(10)), ended()]
    whole = b"".join(WireBytes.frame(msgspec.json.encode(frame)).data for frame in frames)
    server.answer([WireBytes(whole)])
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            pieces = [piece async for piece in stream.text_deltas()]
        assert pieces == [str(number) for number in range(10)]


async def test_a_stream_has_one_reader_at_a_time(server: "ResponsesServer") -> None:
    """As Trio's streams: two readers could not both see the end."""
    server.stall(after_events=1, seconds=5)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            await stream.__anext__()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(stream.get_final_response)
                await trio.testing.wait_all_tasks_blocked()
                with pytest.raises(trio.BusyResourceError, match="another task"):
                    await stream.__anext__()
        assert stream.response.output_text == heard("hi")


async def test_a_reader_of_a_burst_lets_others_run(server: "ResponsesServer") -> None:
    """P6: reading events that are there already is a checkpoint now and then."""
    server.reply(chunks=["x"] * 500)
    rounds = 0

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await trio.lowlevel.checkpoint()

    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await stream.__anext__()
        await trio.testing.wait_all_tasks_blocked()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(count)
            async for _ in stream:
                pass
            nursery.cancel_scope.cancel()
    assert rounds >= 10


async def test_an_error_after_deltas_is_an_error_of_a_turn_that_ran(
    server: "ResponsesServer",
) -> None:
    """P4: ``response.created`` may be missing."""
    error = {"code": "previous_response_not_found", "message": "gone"}
    server.answer([delta("a"), {"type": "error", "status": 400, "error": error}])
    async with server.open_client() as connection:
        with pytest.raises(PreviousResponseNotFound) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is DeliveryStatus.ACCEPTED


async def test_create_refuses_a_stream_id(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        with pytest.raises(TypeError, match=r"connection\.lane"):
            await ask(connection, "hi", stream_id="main")
        assert server.requests == []


async def test_unknown_parameters_go_to_the_server(server: "ResponsesServer") -> None:
    async with server.open_client() as connection:
        metadata = {"more": "yes"}
        body = {"multi_agent": {"a": 1}, "client_metadata": metadata}
        await ask(connection, "hi", multi_agent={"enabled": True}, extra_body=body)
        assert server.requests[0]["multi_agent"] == {"enabled": True, "a": 1}
        assert server.requests[0]["client_metadata"] == metadata
