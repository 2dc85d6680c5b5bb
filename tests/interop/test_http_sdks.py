"""Tests of the test server with the official SDKs, and what is built on them, over HTTP."""

from __future__ import annotations

import asyncio
import inspect
import json
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from tests.interop.clients import KEY, MODEL
from tests.interop.programs import HANG_GUARD, node_script

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

HELLO = 'Turn 1: you said "Say hello".'
WEATHER: dict[str, Any] = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
    "strict": True,
}


class Sdk:
    """The sync or async client of openai-python, called alike."""

    def __init__(self, client: Any, runner: asyncio.Runner) -> None:
        self.client = client
        self._runner = runner

    def __call__(self, call: str, *arguments: Any, **options: Any) -> Any:
        """Call a method below ``client.responses``, and return what it returns in the end."""
        method = self.client.responses
        for name in call.split("."):
            method = getattr(method, name)
        return self.wait(method(*arguments, **options))

    def wait(self, result: Any) -> Any:
        if not inspect.isawaitable(result):
            return result

        async def wait() -> Any:
            return await result

        return self._runner.run(wait())

    def take(self, stream: Any, count: int | None = None) -> list[Any]:
        """Return events of a stream, and close the stream."""

        async def take() -> list[Any]:
            events: list[Any] = []
            async for event in stream:
                events.append(event)
                if len(events) == count:
                    break
            await stream.close()
            return events

        if hasattr(stream, "__aiter__"):
            return self._runner.run(take())
        events: list[Any] = []
        for event in stream:
            events.append(event)
            if len(events) == count:
                break
        stream.close()
        return events


@pytest.fixture(params=["sync", "async"])
def sdk(request: pytest.FixtureRequest, openai_sdk: Any, server_url: str) -> Iterator[Sdk]:
    kind = openai_sdk.OpenAI if request.param == "sync" else openai_sdk.AsyncOpenAI
    with asyncio.Runner() as runner:
        client = kind(api_key=KEY, base_url=server_url, max_retries=0, timeout=HANG_GUARD)
        sdk = Sdk(client, runner)
        yield sdk
        sdk.wait(client.close())


def create(sdk: Sdk, text: str = "Say hello", **options: Any) -> Any:
    return sdk("create", model=MODEL, input=text, **options)


def test_a_chain_of_responses(sdk: Sdk) -> None:
    first = create(sdk)
    second = create(sdk, "more", previous_response_id=first.id)
    assert first.output_text == HELLO
    assert second.output_text == 'Turn 2: you said "more".'
    assert first.usage.total_tokens > 0
    assert first._request_id.startswith("req_")


def test_a_stream_of_events(sdk: Sdk) -> None:
    events = sdk.take(create(sdk, stream=True))
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert "".join(e.delta for e in events if e.type == "response.output_text.delta") == HELLO
    assert events[-1].response.output_text == HELLO


def test_a_typed_answer(sdk: Sdk) -> None:
    pydantic = pytest.importorskip("pydantic", reason="the package pydantic is not installed")
    city = pydantic.create_model("City", name=(str, ...))
    response = sdk("parse", model=MODEL, input="Is it Paris", text_format=city)
    assert response.output_parsed == city(name="Paris")


def test_a_tool_is_called_and_its_output_received(sdk: Sdk) -> None:
    response = create(sdk, "What is the weather in Paris?", tools=[WEATHER])
    [call] = response.output
    assert json.loads(call.arguments) == {"city": "Paris"}
    output = {"type": "function_call_output", "call_id": call.call_id, "output": "21 degrees"}
    answer = sdk(
        "create", model=MODEL, input=[output], tools=[WEATHER], previous_response_id=response.id
    )
    assert answer.output_text == "Turn 1: the tool returned 21 degrees."


def test_a_response_is_retrieved_listed_and_deleted(sdk: Sdk, openai_sdk: Any) -> None:
    response = create(sdk)
    assert sdk("retrieve", response.id).output == response.output
    page = sdk("input_items.list", response.id)
    assert [item.content[0].text for item in page.data] == ["Say hello"]
    assert sdk("delete", response.id) is None
    with pytest.raises(openai_sdk.NotFoundError, match="not found"):
        sdk("retrieve", response.id)


def test_a_list_of_input_items_goes_on_over_pages(sdk: Sdk) -> None:
    items = [{"role": "user", "content": f"line {number}"} for number in range(45)]
    response = sdk("create", model=MODEL, input=items)

    async def all_of(pages: Any) -> list[Any]:
        return [item async for item in pages]

    pages = sdk.client.responses.input_items.list(response.id, order="asc", limit=10)
    found = sdk.wait(all_of(pages)) if hasattr(pages, "__aiter__") else list(pages)
    assert [item.content[0].text for item in found] == [item["content"] for item in items]


def test_a_background_response_is_polled_until_its_end(sdk: Sdk) -> None:
    response = create(sdk, background=True)
    assert response.status == "queued"
    while response.status in {"queued", "in_progress"}:
        response = sdk("retrieve", response.id)
    assert (response.status, response.output_text) == ("completed", HELLO)
    assert sdk("cancel", response.id).status == "completed"


def test_a_background_stream_is_resumed(sdk: Sdk) -> None:
    seen = sdk.take(create(sdk, background=True, stream=True), 4)
    rest = sdk(
        "retrieve", seen[0].response.id, stream=True, starting_after=seen[-1].sequence_number
    )
    events = [*seen, *sdk.take(rest)]
    assert [event.sequence_number for event in events] == list(range(len(events)))
    assert events[-1].response.output_text == HELLO


def test_a_foreground_response_cannot_be_cancelled(sdk: Sdk, openai_sdk: Any) -> None:
    response = create(sdk)
    with pytest.raises(openai_sdk.BadRequestError, match="synchronous"):
        sdk("cancel", response.id)


@pytest.mark.filterwarnings("ignore:Pydantic serializer warnings")
def test_a_compacted_conversation_goes_on(sdk: Sdk) -> None:
    compacted = sdk("compact", model=MODEL, input="Say hello")
    output = [item.model_dump(exclude_unset=True) for item in compacted.output]
    response = sdk("create", model=MODEL, input=[*output, {"role": "user", "content": "more"}])
    assert response.output_text == 'Turn 2: you said "more".'


def test_input_tokens_are_counted(sdk: Sdk) -> None:
    assert sdk("input_tokens.count", model=MODEL, input="one two three").input_tokens == 3


def test_a_refused_request_has_status_and_code(sdk: Sdk, openai_sdk: Any) -> None:
    with pytest.raises(openai_sdk.BadRequestError, match="Unknown parameter") as caught:
        create(sdk, extra_body={"foo": 1})
    assert (caught.value.code, caught.value.param) == ("unknown_parameter", "foo")


# What is built on the SDK


@pytest.fixture
def agents() -> Any:
    agents = pytest.importorskip("agents", reason="openai-agents is not installed")
    agents.set_tracing_disabled(disabled=True)
    return agents


def with_async_client(openai_sdk: Any, url: str, body: Callable[[Any], Awaitable[Any]]) -> Any:
    async def main() -> Any:
        async with openai_sdk.AsyncOpenAI(api_key=KEY, base_url=url, max_retries=0) as client:
            return await body(client)

    return asyncio.run(main())


@pytest.mark.parametrize("streamed", [True, False])
def test_an_agent_of_openai_agents_calls_a_tool(
    agents: Any, openai_sdk: Any, server_url: str, *, streamed: bool
) -> None:
    def get_weather(city: str) -> str:
        return f"rain in {city}"

    async def body(client: Any) -> Any:
        agent = agents.Agent(
            name="weather",
            tools=[agents.function_tool(get_weather)],
            model=agents.OpenAIResponsesModel(model=MODEL, openai_client=client),
        )
        if not streamed:
            return (await agents.Runner.run(agent, "What is the weather in Paris?")).final_output
        run = agents.Runner.run_streamed(agent, "What is the weather in Paris?")
        async for _ in run.stream_events():
            pass
        return run.final_output

    answer = with_async_client(openai_sdk, server_url, body)
    assert answer == "Turn 1: the tool returned rain in Paris."


@pytest.mark.parametrize("streamed", [True, False])
def test_eight_agents_of_pydantic_ai_run_at_once(
    openai_sdk: Any, server_url: str, *, streamed: bool
) -> None:
    pydantic_ai = pytest.importorskip("pydantic_ai", reason="pydantic-ai is not installed")
    models = pytest.importorskip("pydantic_ai.models.openai")
    providers = pytest.importorskip("pydantic_ai.providers.openai")

    def get_weather(city: str) -> str:
        return f"rain in {city}"

    async def body(client: Any) -> list[str]:
        provider = providers.OpenAIProvider(openai_client=client)
        model = models.OpenAIResponsesModel(MODEL, provider=provider)
        agent = pydantic_ai.Agent(model, tools=[get_weather])

        async def ask(city: str) -> str:
            question = f"What is the weather in {city}?"
            if not streamed:
                return str((await agent.run(question)).output)
            async with agent.run_stream(question) as run:
                return str(await run.get_output())

        return await asyncio.gather(*(ask(f"City{number}") for number in range(8)))

    answers = with_async_client(openai_sdk, server_url, body)
    assert answers == [f"Turn 1: the tool returned rain in City{number}." for number in range(8)]


def test_every_call_of_the_npm_package(modules: Path, server_url: str) -> None:
    node_script(modules, "openai", "package.json")
    script = node_script(Path(__file__).parent, "node", "responses_http.mjs")
    done = subprocess.run(  # noqa: S603 - a script of this folder
        [*script, str(modules), server_url],
        capture_output=True,
        text=True,
        timeout=HANG_GUARD,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["created"] == result["final"] == result["retrieved"] == HELLO
    assert result["events"][0] == "response.created"
    assert result["events"][-1] == "response.completed"
    assert result["items"] == ["message"]
    assert result["numbers"] == list(range(len(result["numbers"])))
    assert result["cancelled"] == "completed"
    assert result["compacted"] == "compaction"
    assert result["tokens"] == 3
    assert result["deleted"] == 404
    assert result["refused"] == "unknown_parameter"
