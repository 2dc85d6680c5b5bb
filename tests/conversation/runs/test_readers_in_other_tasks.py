"""A task that reads a stream or a run gets an error when another task leaves the block."""

from typing import Any

import pytest
import trio

from tests.conversation.rig import open_conversation
from trio_responses import function_tool
from trio_responses.testing import ResponsesServer


async def test_leaving_a_stream_wakes_a_reader_in_another_task(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        server.reply("a b c d", delay=5)

        async def read(stream: Any) -> None:
            with pytest.raises(RuntimeError, match="inside its async with block"):
                async for _ in stream:
                    pass

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery, conversation.stream("hi") as stream:
                nursery.start_soon(read, stream)
                await trio.sleep(6)
        assert (await conversation.create("again")).output_text


async def test_leaving_a_run_wakes_a_reader_in_another_task(server: ResponsesServer) -> None:
    @function_tool
    async def slow(x: int) -> int:
        await trio.sleep(100)
        return x

    async def read(run: Any) -> None:
        with pytest.raises(RuntimeError, match="inside its async with block"):
            async for _ in run:
                pass

    async with open_conversation(server, tools=[slow]) as conversation:
        server.call("slow", {"x": 1})
        async with trio.open_nursery() as nursery, conversation.run_stream("hi") as run:
            nursery.start_soon(read, run)
            await trio.sleep(5)
        server.reply("on")
        assert (await conversation.run()).output_text == "on"
