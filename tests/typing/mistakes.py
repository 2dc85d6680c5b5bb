"""Mistakes: mypy and pyright, both strict, report each line with ``# error``, and no other line."""

from typing import Unpack

from trio_responses.types import (
    ContentPart,
    InputItem,
    OutputItem,
    OutputTextDelta,
    ServerEvent,
    Tool,
    UnknownEvent,
)
from trio_responses.typing import (
    ConversationParams,
    Event,
    ResponseCreateParams,
    RunEvent,
    StreamEvent,
)


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


def take_response_params(**params: Unpack[ResponseCreateParams]) -> ResponseCreateParams:
    return params


def take_conversation_params(**params: Unpack[ConversationParams]) -> ConversationParams:
    return params


def write_params() -> None:
    take_response_params(modle="m")  # error
    take_response_params(model=5)  # error
    take_response_params(temperature="hot")  # error
    take_response_params(max_output_tokens=1.5)  # error
    take_response_params(truncation="atuo")  # error
    take_response_params(timeout=3)  # error
    take_response_params(stream=True)  # error
    take_response_params(messages=[])  # error
    take_response_params(stream_id="a")  # error
    take_response_params(reasoning="high")  # error
    take_response_params(reasoning={"efort": "high"})  # error
    take_response_params(reasoning={"summary": "long"})  # error
    take_response_params(text={"fromat": {"type": "text"}})  # error
    take_response_params(text={"format": {"type": "json"}})  # error
    take_response_params(text={"format": {"type": "json_schema", "name": "n"}})  # error
    take_response_params(text={"verbosity": "loud"})  # error
    take_response_params(tool_choice="requried")  # error
    take_response_params(tool_choice={"type": "function", "nam": "f"})  # error
    take_response_params(tools=[print])  # error
    take_response_params(tools="get_weather")  # error
    take_response_params(prompt="hi")  # error
    take_response_params(metadata={"a": 1})  # error
    take_response_params(conversation={"i": "conv_1"})  # error
    take_response_params(context_management=[{"compact_threshold": 9}])  # error
    take_response_params(extra_body=[1])  # error
    take_conversation_params(previous_response_id="resp_1")  # error
