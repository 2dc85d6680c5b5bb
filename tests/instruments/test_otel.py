"""Spans and metrics follow the conventions, have the right parents, and hold no content."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest
import trio
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode, get_current_span

from tests.instruments.telemetry import attributes, is_child, shown_spans, telemetry
from tests.pool.rig import open_to
from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask
from trio_responses import (
    APIError,
    ConnectionLost,
    RateLimiter,
    ServerOverloaded,
    function_tool,
)
from trio_responses.otel import OpenTelemetryInstrument
from trio_responses.testing import Call
from trio_responses.typing import ToolRecord, TurnRecord

if TYPE_CHECKING:
    from tests.instruments.telemetry import Telemetry
    from trio_responses.testing import ResponsesServer

__all__ = ["telemetry"]
pytestmark = NO_WAITING
CONTENT = "the-content-of-it-all"


# --- Turns -------------------------------------------------------------------------------


async def test_a_turn_is_a_span_with_the_attributes_of_the_conventions(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    usage = {"input_tokens": 7, "output_tokens": 3, "cached_tokens": 2, "reasoning_tokens": 1}
    server.reply("one", usage=usage)
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        with telemetry.tracer.start_as_current_span("mine") as mine:
            response = await connection.create(model="m-1", input=CONTENT)
    (span,) = telemetry.spans("chat")
    assert span.name == "chat m-1"
    assert span.kind is SpanKind.CLIENT
    assert span.status.status_code is StatusCode.UNSET
    assert is_child(span, mine)
    assert attributes(span) == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "m-1",
        "gen_ai.request.stream": True,
        "gen_ai.response.finish_reasons": ("stop",),
        "gen_ai.response.id": response.id,
        "gen_ai.response.model": "m-1",
        "gen_ai.response.time_to_first_chunk": 0.0,
        "gen_ai.usage.cache_read.input_tokens": 2,
        "gen_ai.usage.input_tokens": 7,
        "gen_ai.usage.output_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 1,
        "network.protocol.name": "websocket",
        "openai.api.type": "responses",
        "openai.response.service_tier": "default",
        "server.address": "localhost",
        "server.port": 80,
        "trio_responses.attempts": 1,
    }
    assert [event.name for event in span.events] == ["request sent", "first event"]
    assert telemetry.instrument._turns == {}  # a record that stays would be a leak


async def test_turns_of_many_tasks_have_their_own_parents(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async def turn(name: str) -> None:
        with telemetry.tracer.start_as_current_span(f"task {name}"):
            await ask(connection, name)

    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        trio.open_nursery() as nursery,
    ):
        for name in "abc":
            nursery.start_soon(turn, name)
    parents = telemetry.spans("task")
    assert len(parents) == 3
    for parent in parents:
        assert len([one for one in telemetry.spans("chat") if is_child(one, parent)]) == 1


async def test_the_time_to_the_first_event_is_measured(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    server.answer().stall(after_events=0, seconds=2.5).stall(after_events=3, seconds=4)
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        await ask(connection, "Hello")
    (span,) = telemetry.spans("chat")
    assert attributes(span)["gen_ai.response.time_to_first_chunk"] == pytest.approx(2.5)
    points = telemetry.points()
    assert points["gen_ai.client.operation.time_to_first_chunk"][0].sum == pytest.approx(2.5)
    assert points["gen_ai.client.operation.duration"][0].sum == pytest.approx(6.5)
    assert points["gen_ai.client.operation.duration"][0].explicit_bounds[:3] == (0.01, 0.02, 0.04)


async def test_tokens_are_counted_by_kind(server: ResponsesServer, telemetry: Telemetry) -> None:
    server.reply("one", usage={"input_tokens": 7, "output_tokens": 3})
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        await ask(connection, "Hello")
    points = telemetry.points()["gen_ai.client.token.usage"]
    assert {one.attributes["gen_ai.token.type"]: one.sum for one in points} == {
        "input": 7,
        "output": 3,
    }
    assert points[0].attributes["gen_ai.response.model"] == "m"


async def test_a_span_has_the_type_of_an_error_and_not_its_message(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    server.fail("rate_limit_exceeded", status=429, message=CONTENT)
    server.drop(after_events=2, how=1011, reason=CONTENT)
    async with server.open_client(
        instruments=[telemetry.instrument], reconnect=STEADY, max_retries=0
    ) as connection:
        with pytest.raises(APIError):
            await connection.create(model="m", input=CONTENT)
        with pytest.raises(ConnectionLost):
            await connection.create(model="m", input=CONTENT)
    refused, lost = telemetry.spans("chat")
    assert attributes(refused)["error.type"] == "rate_limit_exceeded"
    assert attributes(lost)["error.type"] == "ConnectionLost"
    assert refused.status.status_code is lost.status.status_code is StatusCode.ERROR
    assert CONTENT not in shown_spans(telemetry)
    durations = telemetry.points()["gen_ai.client.operation.duration"]
    assert {one.attributes.get("error.type") for one in durations} == {
        "rate_limit_exceeded",
        "ConnectionLost",
    }


@pytest.mark.parametrize(
    ("reply", "reason"),
    [
        ({"status": "incomplete"}, "length"),
        ({"status": "incomplete", "reason": "content_filter"}, "content_filter"),
        ({"status": "incomplete", "reason": "other"}, "other"),
        ({"status": "failed"}, "error"),
    ],
)
async def test_the_finish_reason_is_a_value_of_the_conventions(
    server: ResponsesServer, telemetry: Telemetry, reply: Any, reason: str
) -> None:
    server.reply("one", **reply)
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.stream(model="m", input="Hello") as stream,
    ):
        async for _ in stream:
            pass
    assert attributes(telemetry.spans("chat")[0])["gen_ai.response.finish_reasons"] == (reason,)


async def test_a_turn_that_is_left_early_is_not_an_error_span(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.stream(model="m", input="Hello"),
    ):
        pass
    (span,) = telemetry.spans("chat")
    assert attributes(span)["trio_responses.left_early"] is True
    assert span.status.status_code is StatusCode.UNSET


async def test_each_attempt_is_an_event(server: ResponsesServer, telemetry: Telemetry) -> None:
    server.drop(after_events=2)
    async with server.open_client(
        instruments=[telemetry.instrument], reconnect=STEADY
    ) as connection:
        await connection.create(model="m", input="Hello", delivery="at_least_once")
    (span,) = telemetry.spans("chat")
    assert [event.name for event in span.events] == [
        "request sent",
        "first event",
        "retry",
        "request sent",
        "first event",
    ]
    assert attributes(span)["trio_responses.attempts"] == 2


async def test_a_wait_for_a_rate_limiter_is_an_event_and_is_measured(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    limiter = RateLimiter(requests_per_minute=60, burst=1 / 60)
    async with server.open_client(
        instruments=[telemetry.instrument], rate_limiter=limiter
    ) as connection:
        await connection.create("at once", model="m")
        await connection.create("after 1 s", model="m")
        with trio.move_on_after(0.5):
            await connection.create("given up", model="m")
    at_once, later, given_up = telemetry.spans("chat")
    assert "rate limited" not in [event.name for event in at_once.events]
    assert [event.name for event in later.events][:2] == ["rate limited", "request sent"]
    assert dict(later.events[0].attributes or {}) == {"trio_responses.delay": pytest.approx(1)}
    assert [event.name for event in given_up.events] == ["rate limited"]
    (waits,) = telemetry.points()["trio_responses.rate_limiter.wait.duration"]
    assert (waits.count, waits.sum) == (2, pytest.approx(1.5))
    assert waits.sum == connection.statistics().seconds_delayed
    assert set(waits.attributes) == {"server.address", "server.port"}


@pytest.mark.parametrize(
    ("host", "provider"),
    [
        ("api.openai.com", "openai"),
        ("mine.openai.azure.com", "azure.ai.openai"),
        ("api.x.ai", "x_ai"),
        ("example.org", "openai"),
    ],
)
async def test_the_provider_depends_on_the_host(
    telemetry: Telemetry, host: str, provider: str
) -> None:
    turn = TurnRecord(host=host, port=443, model="m")
    telemetry.instrument.turn_started(turn)
    turn.ended_at = turn.started_at
    telemetry.instrument.turn_ended(turn)
    assert attributes(telemetry.spans("chat")[0])["gen_ai.provider.name"] == provider


async def test_the_provider_may_be_set() -> None:
    exporter = InMemorySpanExporter()
    tracers = TracerProvider()
    tracers.add_span_processor(SimpleSpanProcessor(exporter))
    instrument = OpenTelemetryInstrument(tracers, provider="mine")
    turn = TurnRecord(host="localhost", port=443)
    instrument.turn_started(turn)
    instrument.turn_ended(turn)
    (span,) = exporter.get_finished_spans()
    assert span.name == "chat"
    assert attributes(span)["gen_ai.provider.name"] == "mine"


# --- Tools -------------------------------------------------------------------------------


async def test_a_tool_is_a_span_and_current_while_it_runs(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    @function_tool
    async def look(place: str) -> str:
        """Look."""
        with telemetry.tracer.start_as_current_span(f"inside {place}"):
            await trio.sleep(1)
        return CONTENT

    @function_tool
    async def fail() -> str:
        """Fail."""
        raise LookupError(CONTENT)

    server.calls(Call("look", {"place": "a"}, call_id="call_1"), Call("fail", {}))
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.conversation(model="m", tools=[look, fail]) as conversation,
    ):
        with telemetry.tracer.start_as_current_span("mine") as mine:
            await conversation.run("Hello")
    (looked,) = telemetry.spans("execute_tool look")
    (failed,) = telemetry.spans("execute_tool fail")
    (inside,) = telemetry.spans("inside a")
    (run,) = telemetry.spans("invoke_agent")
    assert is_child(run, mine)
    assert is_child(looked, run)
    assert is_child(failed, run)
    assert is_child(inside, looked)
    assert attributes(looked) == {
        "gen_ai.operation.name": "execute_tool",
        "gen_ai.tool.call.id": "call_1",
        "gen_ai.tool.name": "look",
        "gen_ai.tool.type": "function",
    }
    assert attributes(failed)["error.type"] == "LookupError"
    assert failed.status.status_code is StatusCode.ERROR
    first, second = telemetry.spans("chat")
    assert is_child(first, run)
    assert is_child(second, run)
    assert attributes(first)["gen_ai.response.finish_reasons"] == ("tool_call",)
    assert CONTENT not in shown_spans(telemetry)


async def test_the_span_of_a_tool_is_not_current_after_it(telemetry: Telemetry) -> None:
    before = get_current_span()
    tool = ToolRecord(name="look", kind="function_call")
    telemetry.instrument.tool_started(tool)
    assert get_current_span() is not before
    telemetry.instrument.tool_finished(tool)
    assert get_current_span() is before


# --- Sockets -----------------------------------------------------------------------------


async def test_each_handshake_is_a_span(server: ResponsesServer, telemetry: Telemetry) -> None:
    async with server.open_client(
        instruments=[telemetry.instrument], reconnect=STEADY
    ) as connection:
        server.refuse(503)
        await server.close_all(1012)
        await ask(connection, "Hello")
    first, refused, again = telemetry.spans("connect localhost")
    assert [attributes(one)["trio_responses.attempt"] for one in (first, refused, again)] == [
        0,
        1,
        2,
    ]
    assert attributes(refused)["error.type"] == ServerOverloaded.__name__
    assert attributes(refused)["http.response.status_code"] == 503
    assert telemetry.instrument._sockets == {}  # a record that stays would be a leak


async def test_handshakes_of_a_pool_are_children_of_the_span_that_opened_it(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    options: dict[str, Any] = {"instruments": [telemetry.instrument], "per_connection": 1}
    with telemetry.tracer.start_as_current_span("program") as program:
        async with open_to(server, size=2, **options) as pool:
            with telemetry.tracer.start_as_current_span("customer"):
                async with pool.lane(), pool.lane():
                    pass
            await server.close_all(1012)
            await trio.sleep(60)
            assert len(pool.connections) == 2
    handshakes = telemetry.spans("connect localhost")
    assert [is_child(one, program) for one in handshakes] == [True] * 4


async def test_the_global_providers_are_the_default(server: ResponsesServer) -> None:
    async with server.open_client(instruments=[OpenTelemetryInstrument()]) as connection:
        await ask(connection, "Hello")
