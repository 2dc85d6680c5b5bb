"""Mistakes: mypy and pyright, both strict, report each line with ``# error``, and no other line."""

from typing import Unpack

from trio_responses import (
    Conversation,
    ResponsesConnection,
    ResponsesPool,
    Timeouts,
    connect_responses,
    function_tool,
    open_pool,
    open_responses,
)
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
    take_response_params(tools=lambda _: [])  # error
    take_conversation_params(tools=len)  # error
    take_response_params(prompt="hi")  # error
    take_response_params(metadata={"a": 1})  # error
    take_response_params(conversation={"i": "conv_1"})  # error
    take_response_params(context_management=[{"compact_threshold": 9}])  # error
    take_response_params(extra_body=[1])  # error
    take_conversation_params(previous_response_id="resp_1")  # error


class Shop:
    @function_tool
    def sell(self, what: str, number: int = 1) -> int:
        return len(what) * number

    @function_tool(max_retry=2)  # error
    def buy(self, what: str) -> str:
        return what

    def use(self) -> None:
        self.sell(3)  # error
        self.sell()  # error
        self.sell("tea", nummer=3)  # error
        Shop.sell("tea")  # error
        _ = self.sell("tea").text  # error


async def run_turns(connection: ResponsesConnection, pool: ResponsesPool) -> None:
    await connection.create("hi", model="m", delivry="at_least_once")  # error
    await connection.create("hi", model="m", delivery="at_lest_once")  # error
    await connection.create("hi", model="m", temprature=0.5)  # error
    await connection.create("hi", model="m", extra={"brand_new": 1})  # error
    await connection.create(5, model="m")  # error
    await connection.responses.create(input="hi", model="m", timeout=3)  # error
    await connection.create("hi", model="m", timeouts=3)  # error
    await connection.responses.create(input="hi", model="m", stream=True)  # error
    await connection.parse(int, "hi", model="m", text={"verbosty": "low"})  # error
    await pool.warm_up(model="m", generate=False)  # error
    connection.create("hi", model="m")  # error
    _ = (await connection.create("hi", model="m")).output_txt  # error
    async with connection.lane() as lane:
        lane.stream("hi", model="m", snapshots=False)  # error
    connection.conversation(model="m", previous_response_id="resp_1")  # error
    pool.conversation(modle="m")  # error


async def run_conversation(conversation: Conversation) -> None:
    await conversation.run("hi", max_round=3)  # error
    await conversation.run("hi", on_tool_eror="raise")  # error
    await conversation.run("hi", on_tool_error="rise")  # error
    await conversation.create("hi", input="hi")  # error
    await conversation.create("hi", max_rounds=3)  # error
    await conversation.parse(int, "hi", tool_timeot=3)  # error
    conversation.run_stream("hi", tools=print)  # error
    await conversation.warm_up(previous_response_id="resp_1")  # error
    conversation.create("hi")  # error
    await conversation.checkpoint()  # error


async def open_connections() -> None:
    open_responses(timeout=3)  # error
    open_responses(timeouts=3)  # error
    open_responses(timeouts=Timeouts(stal=3))  # error
    open_pool(max_retry=3)  # error
    await connect_responses("https://localhost/v1")  # error
