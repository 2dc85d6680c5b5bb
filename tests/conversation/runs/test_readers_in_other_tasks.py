"""Somebody reads in a task of his own, and the block is left meanwhile: nobody waits for ever."""

from typing import Any

import pytest
import trio

from tests.conversation.rig import open_talk
from trio_responses import function_tool
from trio_responses.testing import ResponsesServer


async def test_leaving_a_stream_wakes_a_reader_in_another_task(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        server.reply("a b c d", delay=5)

        async def read(stream: Any) -> None:
            with pytest.raises(RuntimeError, match="inside its async with block"):
                async for _ in stream:
                    pass

        with trio.fail_after(1000):
            async with trio.open_nursery() as nursery, talk.stream("hi") as stream:
                nursery.start_soon(read, stream)
                await trio.sleep(6)
        assert (await talk.create("again")).output_text


async def test_leaving_a_run_wakes_a_reader_in_another_task(server: ResponsesServer) -> None:
    @function_tool
    async def slow(x: int) -> int:
        await trio.sleep(100)
        return x

    async def read(run: Any) -> None:
        with pytest.raises(RuntimeError, match="inside its async with block"):
            async for _ in run:
                pass

    async with open_talk(server, tools=[slow]) as talk:
        server.call("slow", {"x": 1})
        async with trio.open_nursery() as nursery, talk.run_stream("hi") as run:
            nursery.start_soon(read, run)
            await trio.sleep(5)
        server.reply("on")
        assert (await talk.run()).output_text == "on"
