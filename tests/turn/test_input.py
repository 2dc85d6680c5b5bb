"""The input of a turn: the first argument everywhere, as text, one item or a list of items."""

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, Final, Literal, TypeAlias

import msgspec
import pytest

from trio_responses import open_pool
from trio_responses.testing import Reply, ResponsesServer
from trio_responses.types import Message

PLACES: Final = ("connection", "lane", "pool", "conversation")
Place: TypeAlias = Literal["connection", "lane", "pool", "conversation"]

MESSAGE: Final = {"type": "message", "role": "user", "content": "hi"}


@asynccontextmanager
async def open_place(server: ResponsesServer, place: Place) -> AsyncGenerator[Any, None]:
    async with AsyncExitStack() as stack:
        if place == "pool":
            yield await stack.enter_async_context(open_pool(server.url, dial=server.dial))
            return
        connection = await stack.enter_async_context(server.open_client())
        if place == "lane":
            yield await stack.enter_async_context(connection.lane())
        elif place == "conversation":
            yield await stack.enter_async_context(connection.conversation(model="m"))
        else:
            yield connection


@pytest.mark.parametrize("place", PLACES)
async def test_the_input_is_the_first_argument_of_every_method(
    server: ResponsesServer, place: Place
) -> None:
    async with open_place(server, place) as turns:
        model = {} if place == "conversation" else {"model": "m"}
        await turns.create([MESSAGE], **model)
        async with turns.stream([MESSAGE], **model) as stream:
            await stream.get_final_response()
        await turns.warm_up([MESSAGE], **model)
        server.reply('{"value":1}')
        await turns.parse(int, [MESSAGE], **model)
        server.reply('{"value":1}')
        await turns.parse(int, input=[MESSAGE], **model)
        await turns.create(input=[MESSAGE], **model)
    assert [request.input_items[-1] for request in server.requests] == [MESSAGE] * 6


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize(
    "item",
    [
        MESSAGE,
        Message(role="user", content="hi"),
        msgspec.Raw(msgspec.json.encode(MESSAGE)),
    ],
    ids=["dict", "record", "raw"],
)
async def test_one_item_alone_is_an_input(
    server: ResponsesServer, place: Place, item: object
) -> None:
    async with open_place(server, place) as turns:
        model = {} if place == "conversation" else {"model": "m"}
        await turns.create(item, **model)
    [request] = server.requests
    assert request["input"] == [MESSAGE]


async def test_without_an_input_the_field_is_left_out(server: ResponsesServer) -> None:
    """A stored prompt may stand for the input."""
    async with server.open_client() as connection:
        await connection.create(prompt={"id": "pmpt_1"}, model="m")
    assert "input" not in server.requests[0].body


async def test_a_steering_input_may_be_one_item(server: ResponsesServer) -> None:
    server.answer(Reply("one", more=["two"]))
    async with (
        server.open_client() as connection,
        connection.stream("hi", model="m") as stream,
    ):
        receipt = await stream.steer(Message(role="user", content="Stop."))
        assert [msgspec.json.decode(raw) for raw in receipt.items] == [
            {**MESSAGE, "content": "Stop."}
        ]


# --- openai-python's names ---------------------------------------------------------------


@pytest.mark.parametrize("place", ["connection", "pool"])
async def test_responses_has_the_methods_of_openai_python(
    server: ResponsesServer, place: Place
) -> None:
    """Only the line that makes the client differs from a program for openai-python."""
    server.reply("one")
    server.reply("two")
    server.reply('{"value":3}')
    async with open_place(server, place) as client:
        response = await client.responses.create(model="m", input="hi")
        assert response.output_text == "one"
        async with client.responses.stream(model="m", input="hi") as stream:
            kinds = [event.type async for event in stream]
            response = await stream.get_final_response()
        assert kinds[-1] == "response.completed"
        assert response.output_text == "two"
        parsed = await client.responses.parse(model="m", input="hi", text_format=int)
        assert parsed.output_parsed == parsed.parsed == 3
        assert repr(client.responses) == f"<Responses of {client!r}>"
    assert [request["input"] for request in server.requests] == ["hi"] * 3
