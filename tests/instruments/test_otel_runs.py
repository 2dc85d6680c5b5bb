"""A run is a span, current in its block; the log has its trace, and content is opt-in."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from opentelemetry.trace import StatusCode, get_current_span

from tests.instruments.telemetry import (
    attributes,
    is_child,
    make_telemetry,
    shown_spans,
    telemetry,
)
from tests.testing.driver import NO_WAITING
from trio_responses import ConfigurationError, Instrument, MaxRoundsExceeded, function_tool
from trio_responses.testing import Call
from trio_responses.types import McpTool
from trio_responses.typing import TurnRecord

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import ReadableSpan

    from tests.instruments.telemetry import Telemetry
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import ConversationParam, RunRecord

__all__ = ["telemetry"]
pytestmark = NO_WAITING
CONTENT = "the-content-of-it-all"
SECRET = "a-token-of-the-user"


@function_tool
async def echo(text: str) -> str:
    """Say it again."""
    await trio.sleep(2)
    return text


def id_of(span: ReadableSpan) -> int:
    assert span.context is not None
    span_id: int = span.context.span_id
    return span_id


class RunNotes(Instrument):
    """An instrument that collects the records of runs."""

    def __init__(self) -> None:
        self.started: list[RunRecord] = []
        self.ended: list[RunRecord] = []

    def run_started(self, run: RunRecord) -> None:
        self.started.append(run)

    def run_ended(self, run: RunRecord) -> None:
        self.ended.append(run)


async def test_the_record_of_a_run_counts_turns_calls_and_tokens(server: ResponsesServer) -> None:
    notes = RunNotes()
    server.calls(Call("echo", {"text": "a"}), Call("echo", {"text": "b"}))
    async with (
        server.open_client(instruments=[notes]) as connection,
        connection.conversation(model="m", tools=[echo]) as conversation,
    ):
        await conversation.run("Hello")
    assert notes.started == notes.ended
    (run,) = notes.ended
    assert (run.model, run.turns, run.tool_calls, run.completed) == ("m", 2, 2, True)
    assert len(run.usages) == 2
    assert run.ended_at is not None
    assert run.ended_at - run.started_at == pytest.approx(2)
    assert run.conversation_id is None  # the conversation was opened without an id


async def test_a_run_that_is_left_early_has_neither_response_nor_error(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    notes = RunNotes()
    async with (
        server.open_client(instruments=[notes, telemetry.instrument]) as connection,
        connection.conversation(model="m") as conversation,
        conversation.run_stream("Hello") as run,
    ):
        async for _ in run:
            break
    (record,) = notes.ended
    assert (record.completed, record.error) == (False, None)
    (span,) = telemetry.spans("invoke_agent")
    assert attributes(span)["trio_responses.left_early"] is True
    assert span.status.status_code is StatusCode.UNSET


async def test_a_run_has_the_error_that_it_raised(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    server.call("echo", {"text": CONTENT})
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.conversation(model="m", tools=[echo]) as conversation,
    ):
        with pytest.raises(MaxRoundsExceeded):
            await conversation.run(CONTENT, max_rounds=1)
    (span,) = telemetry.spans("invoke_agent")
    assert attributes(span)["error.type"] == "MaxRoundsExceeded"
    assert span.status.status_code is StatusCode.ERROR
    (point,) = telemetry.points()["gen_ai.invoke_agent.duration"]
    assert point.attributes["error.type"] == "MaxRoundsExceeded"
    assert telemetry.instrument._runs == {}  # a record that stays would be a leak


async def test_the_span_of_a_run_is_current_in_its_block_only(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    before = get_current_span()
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.conversation(model="m-1") as conversation,
    ):
        async with conversation.run_stream("Hello") as run:
            with telemetry.tracer.start_as_current_span("mine"):
                await run.get_final_response()
        assert get_current_span() is before
    (agent,) = telemetry.spans("invoke_agent")
    (mine,) = telemetry.spans("mine")
    (turn,) = telemetry.spans("chat")
    assert is_child(mine, agent)
    assert is_child(turn, mine)
    shown = attributes(agent)
    assert shown["gen_ai.operation.name"] == "invoke_agent"
    assert shown["gen_ai.request.model"] == "m-1"
    assert shown["gen_ai.usage.output_tokens"] > 0
    points = telemetry.points()
    assert points["gen_ai.invoke_agent.inference_calls"][0].sum == 1
    assert points["gen_ai.invoke_agent.tool_calls"][0].sum == 0
    assert points["gen_ai.invoke_agent.tool_calls"][0].explicit_bounds[-1] == 128


async def test_the_parameters_of_a_request_are_attributes(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        first = await connection.create(model="m", input="Hello")
        await connection.create(
            model="m",
            input="Hello",
            previous_response_id=first.id,
            max_output_tokens=9000,
            temperature=0.5,
            top_p=0.9,
            reasoning={"effort": "low"},
            service_tier="flex",
            text={"format": {"type": "json_object"}},
        )
    shown = attributes(telemetry.spans("chat")[1])
    expected: dict[str, Any] = {
        "gen_ai.output.type": "json",
        "gen_ai.request.max_tokens": 9000,
        "gen_ai.request.previous_response.id": first.id,
        "gen_ai.request.reasoning.level": "low",
        "gen_ai.request.temperature": 0.5,
        "gen_ai.request.top_p": 0.9,
        "openai.request.service_tier": "flex",
    }
    assert {name: shown.get(name) for name in expected} == expected


async def test_the_conversation_of_the_server_is_the_conversation(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        given: tuple[str | ConversationParam, ...] = ("conv_1", {"id": "conv_2"})
        for conversation in given:
            async with connection.stream(model="m", input="Hello", conversation=conversation):
                pass
    ids = [attributes(one)["gen_ai.conversation.id"] for one in telemetry.spans("chat")]
    assert ids == ["conv_1", "conv_2"]


# --- Content -----------------------------------------------------------------------------


async def test_content_is_captured_where_the_user_asks_for_it(server: ResponsesServer) -> None:
    telemetry = make_telemetry(capture_content=True)
    hosted = McpTool(server_label="files", server_url="https://example.org", authorization=SECRET)
    server.call("echo", {"text": "again"}, call_id="call_1")
    server.reply("Done.")
    async with (
        server.open_client(instruments=[telemetry.instrument]) as connection,
        connection.conversation(
            model="m", tools=[echo, hosted], instructions="Be brief."
        ) as conversation,
    ):
        await conversation.run(
            [
                {
                    "role": "user",
                    "content": [
                        {"type": "input_text", "text": "Look"},
                        {"type": "input_image", "image_url": "https://example.org/a.png"},
                        {"type": "input_image", "image_url": "data:image/png;base64,QUJD"},
                    ],
                }
            ]
        )
    first, second = (attributes(one) for one in telemetry.spans("chat"))
    decoded = {
        name: msgspec.json.decode(first[f"gen_ai.{name}"])
        for name in ("system_instructions", "input.messages", "output.messages", "tool.definitions")
    }
    call = {
        "type": "tool_call",
        "id": "call_1",
        "name": "echo",
        "arguments": {"text": "again"},
    }
    assert decoded == {
        "system_instructions": [{"type": "text", "content": "Be brief."}],
        "input.messages": [
            {
                "role": "user",
                "parts": [
                    {"type": "text", "content": "Look"},
                    {"type": "uri", "modality": "image", "uri": "https://example.org/a.png"},
                    {
                        "type": "blob",
                        "modality": "image",
                        "mime_type": "image/png",
                        "content": "QUJD",
                    },
                ],
            }
        ],
        "output.messages": [{"role": "assistant", "parts": [call], "finish_reason": "tool_call"}],
        "tool.definitions": [
            {"type": "function", "name": "echo"},
            {"type": "mcp", "name": "files"},
        ],
    }
    assert msgspec.json.decode(second["gen_ai.input.messages"])[-1] == {
        "role": "tool",
        "parts": [{"type": "tool_call_response", "id": "call_1", "response": "again"}],
    }
    assert msgspec.json.decode(second["gen_ai.output.messages"]) == [
        {
            "role": "assistant",
            "parts": [{"type": "text", "content": "Done."}],
            "finish_reason": "stop",
        }
    ]
    (tool,) = telemetry.spans("execute_tool")
    assert msgspec.json.decode(attributes(tool)["gen_ai.tool.call.arguments"]) == {"text": "again"}
    assert attributes(tool)["gen_ai.tool.call.result"] == "again"
    assert SECRET not in shown_spans(telemetry)


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"content": "Hi"}, {"role": "user", "parts": [{"type": "text", "content": "Hi"}]}),
        (
            {"role": "assistant", "content": [{"type": "refusal", "refusal": "No."}]},
            {"role": "assistant", "parts": [{"type": "text", "content": "No."}]},
        ),
        (
            {"type": "reasoning", "summary": [{"type": "summary_text", "text": "Think"}]},
            {"role": "assistant", "parts": [{"type": "reasoning", "content": "Think"}]},
        ),
        (
            {"type": "custom_tool_call", "call_id": "c", "name": "sql", "input": "SELECT 1"},
            {
                "role": "assistant",
                "parts": [{"type": "tool_call", "id": "c", "name": "sql", "arguments": "SELECT 1"}],
            },
        ),
        (
            {"type": "web_search_call", "id": "ws_1"},
            {"role": "assistant", "parts": [{"type": "web_search_call", "id": "ws_1"}]},
        ),
        (None, {"role": "user", "parts": []}),
        ({"content": [1]}, {"role": "user", "parts": []}),
        ({"type": ["message"]}, {"role": "user", "parts": []}),
        ({"type": "reasoning", "summary": "none"}, {"role": "user", "parts": []}),
    ],
)
async def test_each_item_is_a_message_of_the_conventions(item: Any, message: Any) -> None:
    telemetry = make_telemetry(capture_content=True)
    turn = TurnRecord(host="localhost", port=80, request=msgspec.json.encode({"input": [item]}))
    telemetry.instrument.turn_started(turn)
    telemetry.instrument.turn_sent(turn)
    telemetry.instrument.turn_ended(turn)
    (span,) = telemetry.spans("chat")
    assert msgspec.json.decode(attributes(span)["gen_ai.input.messages"]) == [message]


async def test_metrics_hold_no_content_where_spans_do(server: ResponsesServer) -> None:
    telemetry = make_telemetry(capture_content=True)
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        await connection.create(model="m", input=CONTENT)
    assert CONTENT in shown_spans(telemetry)
    data = telemetry.reader.get_metrics_data()
    assert data is not None
    assert CONTENT not in data.to_json()


async def test_content_that_nests_too_deeply_is_left_out(server: ResponsesServer) -> None:
    telemetry = make_telemetry(capture_content=True)
    deep = b"[" * 100_000 + b"]" * 100_000
    raw = {"type": "message", "role": "user", "content": "Hi", "extra": msgspec.Raw(deep)}
    async with server.open_client(instruments=[telemetry.instrument]) as connection:
        async with connection.stream(model="m", input=[raw]):
            pass
        async with connection.stream(model="m", input="Hello"):
            pass
    first, second = telemetry.spans("chat")
    assert "gen_ai.input.messages" not in attributes(first)
    assert "gen_ai.input.messages" in attributes(second)  # the instrument was not removed


# --- The log -----------------------------------------------------------------------------


async def test_opentelemetry_does_not_remove_the_log(
    server: ResponsesServer, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    notes = RunNotes()
    async with (
        server.open_client(instruments=[telemetry.instrument, notes]) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.run("Hello")
    lines = [one.getMessage().split()[0] for one in caplog.records if one.name == "trio_responses"]
    assert lines == ["socket", "socket", "connection"]
    assert len(notes.ended) == len(telemetry.spans("invoke_agent")) == 1


async def test_log_records_of_turns_and_tools_are_made_within_their_trace(
    server: ResponsesServer, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    def add_span(record: logging.LogRecord) -> bool:
        vars(record)["span_id"] = get_current_span().get_span_context().span_id
        return True

    caplog.set_level(logging.DEBUG)
    caplog.handler.addFilter(add_span)
    server.call("echo", {"text": "again"})
    try:
        async with (
            server.open_client(instruments=[telemetry.instrument]) as connection,
            connection.conversation(model="m", tools=[echo]) as conversation,
        ):
            await conversation.run("Hello")
    finally:
        caplog.handler.removeFilter(add_span)
    (run,) = telemetry.spans("invoke_agent")
    (tool,) = telemetry.spans("execute_tool")
    lines = [(one.getMessage().split()[0], vars(one)["span_id"]) for one in caplog.records]
    of_turns = [span_id for word, span_id in lines if word == "turn"]
    assert of_turns == [id_of(run)] * 4
    assert [one for one in lines if one[0] == "tool"] == [("tool", id_of(tool))]


async def test_unknown_names_of_metrics_are_refused() -> None:
    names: Any = "latest"
    with pytest.raises(ConfigurationError, match=r"'genai-0.1', '1.41' or 'both', not 'latest'"):
        make_telemetry(metric_names=names)
