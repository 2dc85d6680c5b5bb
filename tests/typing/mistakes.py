"""Mistakes: mypy and pyright, both strict, report each line with ``# error``, and no other line."""

from trio_responses.types import (
    ContentPart,
    InputItem,
    OutputItem,
    OutputTextDelta,
    ServerEvent,
    Tool,
    UnknownEvent,
)
from trio_responses.typing import Event, RunEvent, StreamEvent


def narrow_events(server: ServerEvent, stream: StreamEvent, run: RunEvent, event: Event) -> None:
    if server.type == "response.output_text.delta":
        _ = server.text  # error
    if server.type == "response.completed":
        _ = server.delta  # error
    _ = server.delta  # error
    if stream.type == "trio_responses.turn_restarted":
        _ = stream.sequence  # error
    if run.type == "trio_responses.tool_started":
        _ = run.seconds  # error
    if event.type == "trio_responses.connection_lost":
        _ = event.outage  # error


def narrow_items(output: OutputItem, given: InputItem, part: ContentPart, tool: Tool) -> None:
    if output.type == "message":
        _ = output.arguments  # error
    if given.type == "item_reference":
        _ = given.content  # error
    if part.type == "refusal":
        _ = part.text  # error
    if tool.type == "custom":
        _ = tool.parameters  # error


def make_events() -> None:
    OutputTextDelta(delta=3)  # error
    OutputTextDelta(text="x")  # error
    UnknownEvent(type="x", raw=b"")  # error
