"""Draw the pictures of the documentation: docs/_static/chat.svg. Needs the extra ``cli``.

The chat is a real one, with an embedded server over memory streams. The lines that a person types
and the answers of the model are scripted here. A mock clock makes waiting take no time.
"""

from __future__ import annotations

import io
import logging
from contextlib import AsyncExitStack
from pathlib import Path
from typing import TYPE_CHECKING

import trio
from rich.console import Console
from rich.terminal_theme import MONOKAI
from rich.text import Text
from trio.testing import MockClock

from trio_responses._cli.chat import Chat
from trio_responses._cli.chat_tools import CHAT_TOOLS
from trio_responses._cli.markdown_renderer import MarkdownRenderer
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

SCREENS = Path(__file__).parent / "_static"
WIDTH = 88
TITLE = "trio-responses chat --embedded --demo-tools"
ANSWER = """\
A **nursery** is where child tasks live:

- they start in it with `start_soon()`,
- and the block ends only when *all of them* have ended.

```python
async with trio.open_nursery() as nursery:
    nursery.start_soon(fetch, "a")
    nursery.start_soon(fetch, "b")
```
"""


class Typist:
    """A source of scripted lines; an empty line stands for a lost socket."""

    def __init__(self, console: Console, server: ResponsesServer) -> None:
        self._console = console
        self._server = server
        self._lines = ["What is a nursery in Trio?", "What is 6 * 7?", "", "And times ten?"]

    async def read_line(self) -> str | None:
        """Return the next line, after showing it as a terminal echoes it."""
        if not self._lines:
            self._console.print(Text("/quit"))
            return None
        line = self._lines.pop(0)
        if not line:
            await self._server.reset_all()
            await trio.sleep(5)
            line = self._lines.pop(0)
        self._console.print(Text(line))
        return line


class NoInterrupts:
    """An iterator of interrupts that never yields: no Ctrl-C."""

    def __aiter__(self) -> NoInterrupts:
        return self

    async def __anext__(self) -> int:
        await trio.sleep_forever()
        raise StopAsyncIteration


async def draw_chat() -> str:
    """Run the chat and return its picture as SVG."""
    console = Console(record=True, width=WIDTH, file=io.StringIO(), force_terminal=False)
    async with open_test_server() as server, AsyncExitStack() as stack:
        server.reply(ANSWER)
        server.call("calculate", {"expression": "6 * 7"}, call_id="call_1")
        server.reply("6 times 7 is **42**.")
        server.call("calculate", {"expression": "42 * 10"}, call_id="call_2")
        server.reply("That makes **420**.")
        connection = await stack.enter_async_context(server.open_client(reconnect=[1.0]))
        renderer = MarkdownRenderer(console, interactive=True)
        settings = {"model": "gpt-5.5", "store": False}
        chat = Chat(connection, renderer, settings, tools=CHAT_TOOLS, stack=stack)
        await chat.start()
        await chat.run(Typist(console, server), NoInterrupts())
        server.assert_all_scripts_used()
    return console.export_svg(title=TITLE, theme=MONOKAI, unique_id="chat")


def main() -> None:
    """Write every picture."""
    logging.getLogger("trio_responses").addHandler(logging.NullHandler())
    SCREENS.mkdir(exist_ok=True)
    svg = trio.run(draw_chat, clock=MockClock(autojump_threshold=0))
    (SCREENS / "chat.svg").write_text(svg, encoding="utf-8")
    print(f"{SCREENS.name}/chat.svg")


if __name__ == "__main__":
    main()
