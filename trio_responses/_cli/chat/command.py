"""The command ``chat``: a conversation with a model in the terminal.

With the extra ``cli``, a terminal has a prompt with line editing, and shows answers as Markdown.
Without it, and in pipes, lines are read as they come and answers are plain text.
"""

from __future__ import annotations

import os
import signal
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from functools import partial
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import trio

from trio_responses._cli.chat.demo_tools import CHAT_TOOLS, answer_with_tools
from trio_responses._cli.chat.line_reader import TextLineReader
from trio_responses._cli.chat.prices import PRICE_VARIABLE, Prices
from trio_responses._cli.chat.renderer import PlainRenderer
from trio_responses._cli.chat.session import Chat
from trio_responses._cli.conversations import open_store
from trio_responses._cli.parameters import request_options
from trio_responses._cli.recording import record_into
from trio_responses._cli.running import WRONG_USAGE, UsageError, print_error, print_note, run
from trio_responses._cli.server_choice import endpoint_from_arguments, open_server
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._extras import install_hint

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Sequence
    from contextlib import AbstractAsyncContextManager
    from typing import TextIO

    from trio_responses._cli.chat.line_reader import LineReader
    from trio_responses._cli.chat.renderer import Renderer
    from trio_responses._cli.chat.terminal import Terminal
    from trio_responses._cli.server_choice import ServerChoice
    from trio_responses._tools.namespace import ToolLike

__all__ = ["chat", "has_editing"]

NO_EXTRA: Final = (
    "plain text without line editing, because prompt_toolkit or rich is not installed:"
    f" {install_hint('cli')}"
)


def chat(arguments: argparse.Namespace) -> int:
    """Run a chat: read lines from the standard input and print the answers of the model."""
    endpoint = endpoint_from_arguments(arguments)
    demo = CHAT_TOOLS if arguments.demo_tools else ()
    options = request_options(arguments, conversation=True, tools=demo)
    if arguments.max_age is not None and endpoint is not None:
        print_error("--max-age is an option of the embedded server: add --embedded")
        return WRONG_USAGE
    if arguments.key is not None and arguments.store is None:
        print_error("--key is the name of a conversation in a store: add --store")
        return WRONG_USAGE
    beginning = Beginning(
        settings={"store": arguments.server_store, **options.params},
        tools=options.tools,
        prices=_prices(arguments.price),
        checkpoint=arguments.load,
        place=arguments.store,
        key="chat" if arguments.key is None else arguments.key,
    )
    with record_into(arguments.record, force=arguments.force) as instruments:
        server = open_server(
            endpoint,
            transport=arguments.transport,
            max_age=arguments.max_age,
            responder=answer_with_tools if arguments.demo_tools else None,
            instruments=instruments,
            allow_insecure=arguments.allow_insecure,
        )
        edits = not arguments.plain and has_editing(sys.stdin, sys.stdout)
        display = _open_terminal(keep_history=arguments.history) if edits else _open_lines()
        return run(partial(_chat, server, beginning, display))


def _prices(option: str | None) -> Prices | None:
    """Return the prices of the option, or else of the environment.

    :raises UsageError: for text that is no prices.
    """
    text = os.environ.get(PRICE_VARIABLE) if option is None else option
    if not text:
        return None
    try:
        return Prices.parse(text)
    except ValueError as error:
        source = PRICE_VARIABLE if option is None else "--price"
        raise UsageError(f"{source}: {error}") from None


def has_editing(stdin: TextIO, stdout: TextIO) -> bool:
    """Return whether lines can be edited: in a terminal, where the extra ``cli`` is installed.

    A terminal without the extra gets a note that names it. On Windows the console edits lines.
    """
    if not (stdin.isatty() and stdout.isatty()) or os.environ.get("TERM") == "dumb":
        return False
    if sys.platform == "win32":
        return False
    if not (find_spec("prompt_toolkit") and find_spec("rich")):
        print_note(NO_EXTRA)
        return False
    return True


class Beginning(NamedTuple):
    """What a chat begins with.

    :param settings: the settings of a new conversation.
    :param tools: the tools that the model may call.
    :param prices: the prices of tokens, if they are known.
    :param checkpoint: the file of a saved conversation.
    :param place: the store that keeps the conversation.
    :param key: the id of the conversation in the store.
    """

    settings: dict[str, Any]
    tools: Sequence[ToolLike]
    prices: Prices | None
    checkpoint: str | None
    place: str | None
    key: str


class Display(NamedTuple):
    """Where a chat is shown, and where its lines come from."""

    renderer: Renderer
    lines: LineReader
    terminal: Terminal | None = None


@asynccontextmanager
async def _open_lines() -> AsyncGenerator[Display, None]:
    interactive = sys.stdin.isatty() and sys.stdout.isatty()
    renderer = PlainRenderer(sys.stdout, sys.stderr, interactive=interactive)
    yield Display(renderer, TextLineReader(sys.stdin))


@asynccontextmanager
async def _open_terminal(*, keep_history: bool) -> AsyncGenerator[Display, None]:
    from trio_responses._cli.chat.terminal import open_terminal  # noqa: PLC0415 - slow to import

    async with open_terminal(keep_history=keep_history) as terminal:
        yield Display(terminal, terminal, terminal)


async def _chat(
    opening: AbstractAsyncContextManager[ServerChoice],
    beginning: Beginning,
    showing: AbstractAsyncContextManager[Display],
) -> int:
    async with (
        opening as server,
        server.connect() as connection,
        AsyncExitStack() as stack,
    ):
        stored_as = None
        if beginning.place is not None:
            store = await stack.enter_async_context(open_store(beginning.place, create=True))
            stored_as = store, beginning.key
        renderer, lines, terminal = await stack.enter_async_context(showing)
        session = Chat(
            connection,
            renderer,
            beginning.settings,
            tools=beginning.tools,
            prices=beginning.prices,
            in_terminal=terminal is not None,
            stack=stack,
            stored_as=stored_as,
        )
        if terminal is not None:
            terminal.connect(stop=session.stop, leave=session.leave)
        await session.start(beginning.checkpoint)
        way = " over HTTP" if connection.statistics().transport == "http" else ""
        note = f"connected to {server.endpoint.host}{way}; /help lists the commands"
        renderer.show_line("note", note)
        return await _run_with_interrupts(session, lines)


async def _run_with_interrupts(session: Chat, lines: LineReader) -> int:
    """Run a chat, which each SIGINT interrupts. Where lines are edited, Ctrl-C sends none."""

    async def handle_interrupts() -> None:
        async for _ in interrupts:
            session.interrupt()

    with trio.open_signal_receiver(signal.SIGINT) as interrupts:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(handle_interrupts)
            code = await session.run(lines)
            nursery.cancel_scope.cancel()
    return code
