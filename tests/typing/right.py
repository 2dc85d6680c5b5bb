"""Correct programs: mypy and pyright, both strict, report nothing here.

``mistakes.py`` is the twin of this module: both report each of its lines with ``# error``.
"""

from typing import Any, Literal, Unpack, assert_never, assert_type

import trio
from pydantic import BaseModel, TypeAdapter

from trio_responses import (
    BufferOverflow,
    ConnectionLost,
    ConnectionRestored,
    ConnectionRotated,
    Conversation,
    FunctionTool,
    JSONType,
    ParsedResponse,
    RateLimiter,
    ResponsesConnection,
    ResponsesPool,
    Timeouts,
    ToolContext,
    ToolFinished,
    ToolProgress,
    ToolStarted,
    TransportChanged,
    TurnRestarted,
    connect_responses,
    function_tool,
    open_pool,
    open_responses,
)
from trio_responses.testing import ResponsesServer
from trio_responses.types import (
    ComputerCall,
    ContentPart,
    ErrorEvent,
    FunctionCall,
    FunctionToolParam,
    InputItem,
    InputText,
    ItemReference,
    McpTool,
    Message,
    OutputItem,
    OutputText,
    OutputTextDelta,
    Refusal,
    ResponseCompleted,
    ServerEvent,
    ShellOutcome,
    Tool,
    ToolCall,
    UndecodableFrame,
    UnknownEvent,
    UnknownItem,
    UnknownPart,
    WebSearchPreviewTool,
)
from trio_responses.typing import (
    ConnectionOptions,
    ConversationParams,
    Event,
    RequestParams,
    ResponseCreateParams,
    RunEvent,
    StreamEvent,
)


def narrow_server_event(event: ServerEvent) -> str | None:
    if event.type == "response.output_text.delta":
        assert_type(event, OutputTextDelta)
        return event.delta
    if event.type == "response.completed":
        assert_type(event, ResponseCompleted)
        return event.response.output_text
    if event.type == "error":
        assert_type(event, ErrorEvent)
        return event.message
    if event.type == "trio_responses.unknown_event":
        assert_type(event, UnknownEvent)
        return event.wire_type
    if event.type == "trio_responses.undecodable_frame":
        assert_type(event, UndecodableFrame)
        return event.error
    return event.wire_type


def narrow_stream_event(event: StreamEvent) -> str | None:
    if event.type == "response.output_text.delta":
        assert_type(event, OutputTextDelta)
        return event.delta
    if event.type == "trio_responses.turn_restarted":
        assert_type(event, TurnRestarted)
        return str(event.error)
    return event.wire_type


def narrow_run_event(event: RunEvent) -> str | None:
    if event.type == "response.output_text.delta":
        assert_type(event, OutputTextDelta)
        return event.delta
    if event.type == "trio_responses.tool_started":
        assert_type(event, ToolStarted)
        return event.name
    if event.type == "trio_responses.tool_progress":
        assert_type(event, ToolProgress)
        return event.name
    if event.type == "trio_responses.tool_finished":
        assert_type(event, ToolFinished)
        return event.name
    if event.type == "trio_responses.turn_restarted":
        assert_type(event, TurnRestarted)
        return None
    return event.wire_type


def narrow_channel_event(event: Event) -> str | None:
    if event.type == "response.output_text.delta":
        assert_type(event, OutputTextDelta)
        return event.delta
    if event.type == "trio_responses.buffer_overflow":
        assert_type(event, BufferOverflow)
        return str(event.buffered)
    return narrow_event_of_the_library(event)


def narrow_event_of_the_library(event: Event) -> str | None:
    if event.type == "trio_responses.connection_lost":
        assert_type(event, ConnectionLost)
        return event.reason
    if event.type == "trio_responses.connection_restored":
        assert_type(event, ConnectionRestored)
        return str(event.outage)
    if event.type == "trio_responses.connection_rotated":
        assert_type(event, ConnectionRotated)
        return None
    if event.type == "trio_responses.transport_changed":
        assert_type(event, TransportChanged)
        return event.transport
    return str(event)


def narrow_output_item(item: OutputItem) -> str:
    if item.type == "message":
        assert_type(item, Message)
        return item.output_text
    if item.type == "function_call":
        assert_type(item, FunctionCall)
        return item.arguments
    if item.type == "trio_responses.unknown_item":
        assert_type(item, UnknownItem)
    return item.wire_type


def narrow_input_item(item: InputItem) -> str:
    match item.type:
        case "item_reference":
            assert_type(item, ItemReference)
            return item.id
        case "function_call":
            assert_type(item, FunctionCall)
            return item.name
        case _:
            return item.wire_type


def narrow_part(part: ContentPart) -> str:
    if part.type == "output_text":
        assert_type(part, OutputText)
        return part.text
    if part.type == "input_text":
        assert_type(part, InputText)
        return part.text
    if part.type == "refusal":
        assert_type(part, Refusal)
        return part.refusal
    if part.type == "trio_responses.unknown_part":
        assert_type(part, UnknownPart)
    return part.wire_type


def narrow_exhaustively(outcome: ShellOutcome) -> int | None:
    if outcome.type == "exit":
        return outcome.exit_code
    if outcome.type == "timeout":
        return None
    if outcome.type == "trio_responses.unknown_part":
        return None
    assert_never(outcome)


def narrow_tool(tool: Tool) -> str:
    if tool.type == "function":
        assert_type(tool, FunctionToolParam)
        return tool.name
    if tool.type == "mcp":
        assert_type(tool, McpTool)
        return tool.server_label
    if tool.type == "web_search_preview":
        assert_type(tool, WebSearchPreviewTool)
    return tool.wire_type


def read_call(call: ToolCall) -> str | None:
    if call.type == "computer_call":
        assert_type(call, ComputerCall)
        return call.call_id
    if call.type == "function_call":
        assert_type(call, FunctionCall)
        return call.arguments
    if call.type == "trio_responses.unknown_item":
        assert_type(call, UnknownItem)
    return call.call_id


def read_notifications(event: ToolStarted | ToolProgress | ToolFinished) -> str:
    assert_type(event.call, ToolCall)
    assert_type(event.call_id, str | None)
    assert_type(event.call.call_id, str | None)
    return f"{event.call.wire_type} {event.name}({event.arguments})"


async def approve(call: ToolCall) -> bool | str:
    return isinstance(call, FunctionCall) and call.name == "get_weather"


async def answer_computer_call(call: ComputerCall) -> Message | None:
    return Message(role="user", content=str(call.actions))


async def decide_interrupted_call(call: ToolCall) -> str:
    return "rerun" if call.type == "function_call" else "report"


def read_types(started: ToolStarted, delta: OutputTextDelta) -> None:
    assert_type(started.type, Literal["trio_responses.tool_started"])
    assert_type(delta.type, Literal["response.output_text.delta"])


def take_response_params(**params: Unpack[ResponseCreateParams]) -> ResponseCreateParams:
    return params


def take_conversation_params(**params: Unpack[ConversationParams]) -> ConversationParams:
    return params


@function_tool
async def get_weather(city: str) -> str:
    """Return the weather of a city."""
    return f"It is warm in {city}."


async def is_warm(context: ToolContext[str]) -> bool:
    return context.dependencies == "warm"


@function_tool(is_enabled=is_warm)
def swim(context: ToolContext[str], minutes: int) -> str:
    return f"{minutes} {context.dependencies}"


async def choose_tools(context: ToolContext[str]) -> list[FunctionTool[..., Any] | McpTool]:
    return [swim] if await is_warm(context) else []


class Shop:
    """Tools that are methods: the types are those of the bound methods."""

    @function_tool
    def sell(self, what: str, number: int = 1) -> int:
        return len(what) * number

    @function_tool(timeout=3, max_retries=2)
    async def buy(self, what: str) -> str:
        return what

    async def use(self, other: "Shop") -> None:
        assert_type(self.sell("tea", number=3), int)
        assert_type(await other.buy("tea"), str)
        assert_type(Shop.sell(self, "tea"), int)
        take_response_params(tools=[self.sell, other.buy])


def write_params() -> None:
    take_response_params()
    take_response_params(model="m", instructions=None, previous_response_id="resp_1")
    take_response_params(reasoning={"effort": "high", "summary": "auto"})
    take_response_params(text={"format": {"type": "text"}, "verbosity": "low"})
    take_response_params(
        text={"format": {"type": "json_schema", "name": "n", "schema": {"type": "object"}}}
    )
    take_response_params(tool_choice="required")
    take_response_params(tool_choice={"type": "function", "name": "get_weather"})
    take_response_params(tool_choice={"type": "web_search"})
    take_response_params(tools=[get_weather, WebSearchPreviewTool(), {"type": "shell"}])
    take_response_params(prompt={"id": "p", "variables": {"city": "Oslo"}})
    take_response_params(context_management=[{"type": "compaction", "compact_threshold": 9}])
    take_response_params(conversation={"id": "conv_1"})
    take_response_params(extra_body={"brand_new": 1})
    take_conversation_params(model="m", store=False, temperature=0.5, metadata={"a": "b"})


async def run_turns(connection: ResponsesConnection, pool: ResponsesPool) -> None:
    await connection.create("hi", model="m", delivery="at_least_once", temperature=0.5)
    await connection.create(Message(role="user", content="hi"), model="m", max_retries=0)
    await connection.create("hi", model="m", timeouts=Timeouts(first_event=5, stall=30))
    await connection.responses.create("hi", model="m", timeouts=None)
    await connection.create([{"role": "user", "content": "hi"}], extra_body={"brand_new": 1})
    await connection.responses.create(input="hi", model="m")
    params: ResponseCreateParams = {"model": "m", "text": {"verbosity": "low"}}
    answer = await connection.parse(int, "hi", model="m", text={"verbosity": "low"})
    assert_type(answer, ParsedResponse[int])
    await pool.warm_up(model="m", tools=[get_weather])
    async with connection.lane() as lane, lane.stream("hi", snapshot=False, **params) as stream:
        assert_type((await stream.get_final_response()).output_text, str)


async def share_params(connection: ResponsesConnection, **params: Unpack[RequestParams]) -> None:
    await connection.create("hi", **params)
    async with connection.conversation(**params, tools=choose_tools) as conversation:
        await conversation.run("hi")


async def run_conversation(connection: ResponsesConnection, pool: ResponsesPool) -> None:
    params: ConversationParams = {"model": "m", "instructions": "Be brief."}
    async with pool.conversation(**params) as conversation:
        assert_type(conversation, Conversation)
    async with connection.conversation(**params) as conversation:
        await conversation.create("hi", temperature=0.5)
        await conversation.warm_up(timeouts=Timeouts(stall=30))
        await conversation.run("hi", tools=[get_weather], max_rounds=3, on_tool_error="raise")
        await conversation.run("hi", timeouts=Timeouts(stall=30))
        await conversation.run("hi", tools=lambda _: [get_weather, WebSearchPreviewTool()])
        await conversation.run("hi", tools=choose_tools, max_tool_retries=2)
        await conversation.run(
            "hi", approve=approve, handlers={"computer_call": answer_computer_call}
        )
        answer = await conversation.parse(int, "hi", tools=[get_weather], tool_timeout=3)
        assert_type(answer.parsed, int)
        async with conversation.run_stream("hi", tool_choice="required", snapshot=False) as run:
            await run.get_final_response()


class City(BaseModel):
    name: str


async def parse_types_of_pydantic(
    connection: ResponsesConnection, conversation: Conversation
) -> None:
    cities = TypeAdapter(list[City])
    assert_type((await connection.parse(City, "hi", model="m")).parsed, City)
    assert_type((await connection.parse(cities, "hi", model="m")).parsed, list[City])
    assert_type((await connection.responses.parse(cities, "hi", model="m")).parsed, list[City])
    assert_type((await conversation.parse(City, "hi")).parsed, City)
    assert_type((await conversation.parse(cities, "hi")).parsed, list[City])
    assert_type(JSONType(City).decode("{}"), City)
    assert_type(JSONType(cities).decode("[]"), list[City])


async def open_connections(server: ResponsesServer) -> None:
    options = ConnectionOptions(
        timeouts=Timeouts(stall=3), max_retries=3, rate_limiter=RateLimiter(requests_per_minute=60)
    )
    async with open_responses(**options) as connection:
        assert_type(connection, ResponsesConnection)
    async with open_pool(size=2, **options), trio.open_nursery() as nursery:
        await connect_responses(nursery, **options)
    async with server.open_client(**options):
        pass
