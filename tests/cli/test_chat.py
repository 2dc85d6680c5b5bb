"""The chat of the command line: over memory streams, in pipes, and in a pseudo-terminal."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import select
import signal
import subprocess
import sys
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.cli.cli_driver import HANG_GUARD, running
from tests.testing.driver import NO_WAITING
from trio_responses import AuthenticationError, ConfigurationError, Limits, ReconnectFailed
from trio_responses._cli import main
from trio_responses._cli.chat import command as chat_module
from trio_responses._cli.chat.command import has_editing
from trio_responses._cli.chat.demo_tools import (
    CHAT_TOOLS,
    answer_with_tools,
    calculate,
    current_time,
)
from trio_responses._cli.chat.images import MAX_IMAGE_BYTES, pasted_image, read_image
from trio_responses._cli.chat.line_reader import TextLineReader
from trio_responses._cli.chat.prices import Prices
from trio_responses._cli.chat.renderer import PlainRenderer
from trio_responses._cli.chat.session import Chat
from trio_responses._cli.chat.slash_commands import SLASH_COMMANDS, quote_path, split_path
from trio_responses.testing import Call, open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from tests.cli.cli_driver import Capture, Patch, PrepareServer
    from trio_responses._cli.chat.renderer import LineKind
    from trio_responses.testing import ResponsesServer

SETTINGS = {"model": "gpt-test", "store": False}


class RecordingRenderer:
    """A renderer that records every call: the text of each answer, and lines with their kind."""

    def __init__(self) -> None:
        self.shown: list[tuple[str, str]] = []
        self.prompts = 0
        self.statuses: list[str] = []
        self.text_arrived = trio.Event()

    def show_prompt(self) -> None:
        self.prompts += 1

    def append_text(self, piece: str) -> None:
        self.text_arrived.set()
        if self.shown and self.shown[-1][0] == "text":
            piece = self.shown.pop()[1] + piece
        self.shown.append(("text", piece))

    def end_text(self) -> None:
        self.shown.append(("end", ""))

    def show_line(self, kind: LineKind, text: str) -> None:
        self.shown.append((kind, text))

    def show_status(self, text: str) -> None:
        self.statuses.append(text)

    async def flush(self) -> None:
        await trio.lowlevel.checkpoint()

    def lines_of(self, kind: str) -> list[str]:
        return [text for each, text in self.shown if each == kind]


class Script:
    """A source of lines: text, and functions to await before the next text."""

    def __init__(self, *lines: str | Callable[[], Awaitable[object]]) -> None:
        self._lines = list(lines)

    async def read_line(self) -> str | None:
        await trio.lowlevel.checkpoint()
        while self._lines:
            line = self._lines.pop(0)
            if isinstance(line, str):
                return line
            await line()
        return None


@asynccontextmanager
async def chatting(
    server: ResponsesServer,
    renderer: RecordingRenderer,
    *,
    with_tools: bool = False,
    prices: Prices | None = None,
    **options: Any,
) -> AsyncGenerator[Chat, None]:
    tools = CHAT_TOOLS if with_tools else ()
    async with server.open_client(**options) as connection, AsyncExitStack() as stack:
        chat = Chat(connection, renderer, SETTINGS, tools=tools, prices=prices, stack=stack)
        await chat.start()
        yield chat


async def talk(server: ResponsesServer, *lines: Any, **options: Any) -> RecordingRenderer:
    renderer = RecordingRenderer()
    async with chatting(server, renderer, **options) as chat:
        assert await chat.run(Script(*lines)) == 0
    return renderer


# --- Turns -------------------------------------------------------------------------------


@NO_WAITING
async def test_turns_are_one_conversation(server: ResponsesServer) -> None:
    renderer = await talk(server, "Hello", "", "   ", "And you?")
    assert renderer.lines_of("text") == [
        'Turn 1: you said "Hello".',
        'Turn 2: you said "And you?".',
    ]
    assert [len(request.input_items) for request in server.requests] == [1, 1]
    assert renderer.lines_of("tokens")[0].endswith("1 sent, 1 of them with the whole history")
    assert renderer.lines_of("tokens")[1].endswith("1 sent, 0 of them with the whole history")


@NO_WAITING
async def test_the_token_line_sums_all_rounds_of_a_turn(server: ResponsesServer) -> None:
    server.respond_with(None)
    server.call("calculate", {"expression": "6 * 7"})
    server.reply("It is 42.", usage={"input_tokens": 100, "cached_tokens": 90, "output_tokens": 7})
    renderer = await talk(server, "What is 6 * 7?", with_tools=True)
    spent = re.match(
        r"(\d+) read \((\d+) cached\), (\d+) written; 2 sent", renderer.lines_of("tokens")[0]
    )
    assert spent is not None
    assert int(spent[1]) > 100
    assert int(spent[2]) >= 90
    assert int(spent[3]) > 7


@NO_WAITING
async def test_tool_calls_and_their_outputs_are_shown(server: ResponsesServer) -> None:
    server.respond_with(answer_with_tools)
    renderer = await talk(server, "What is 6 * 7?", with_tools=True)
    assert renderer.lines_of("tool") == ['calculate({"expression":"6 * 7"})', "calculate -> 42"]
    assert server.last_request.output_of("calculate") == "42"
    assert renderer.lines_of("text") == ["Turn 1: the tool returned 42."]


@NO_WAITING
async def test_without_the_option_no_tool_is_offered(server: ResponsesServer) -> None:
    await talk(server, "What is 6 * 7?")
    assert server.last_request.tools == []


@NO_WAITING
async def test_commentary_is_shown_apart_from_the_answer(server: ResponsesServer) -> None:
    server.respond_with(None)
    calls = [Call("calculate", {"expression": "6 * 7"})]
    server.reply(commentary=["I will calculate."], calls=calls)
    server.reply("It is 42.", commentary=["I see."])
    renderer = await talk(server, "What is 6 * 7?", with_tools=True)
    assert renderer.lines_of("commentary") == ["I will calculate.", "I see."]
    assert renderer.lines_of("text") == ["It is 42."]


@NO_WAITING
async def test_an_error_ends_one_turn_and_not_the_chat(server: ResponsesServer) -> None:
    server.fail("server_error", status=500, message="Slow down.")
    renderer = await talk(server, "Hello", "Hello again")
    assert len(renderer.lines_of("error")) == 1
    assert "Slow down" in renderer.lines_of("error")[0]
    assert renderer.lines_of("text") == ['Turn 1: you said "Hello again".']


@NO_WAITING
async def test_an_incomplete_answer_is_noted(server: ResponsesServer) -> None:
    server.reply("cut sh", status="incomplete")
    renderer = await talk(server, "Hello")
    assert renderer.lines_of("note") == ["the answer is incomplete: max_output_tokens"]


# --- The connection ----------------------------------------------------------------------


@NO_WAITING
async def test_a_lost_connection_is_shown_and_the_conversation_continues(
    server: ResponsesServer,
) -> None:
    async def lose() -> None:
        await server.reset_all()
        await trio.sleep(5)

    renderer = await talk(server, "Hello", lose, "And you?")
    lost, restored = renderer.lines_of("notification")
    assert lost.startswith("the connection was lost")
    assert re.fullmatch(r"reconnected after \d\.\d s, at attempt 1", restored)
    assert renderer.lines_of("text")[-1] == 'Turn 2: you said "And you?".'
    assert renderer.lines_of("tokens")[1].endswith("1 sent, 1 of them with the whole history")


@NO_WAITING
async def test_a_change_of_the_transport_is_shown_both_ways(server: ResponsesServer) -> None:
    async def break_websockets() -> None:
        server.refuse(403, body=b"<p>blocked</p>", times=None)
        await server.reset_all()
        await trio.sleep(60)

    async def repair_websockets() -> None:
        server.clear_scripts()
        await trio.sleep(600)

    renderer = await talk(
        server, "Hello", break_websockets, "And you?", repair_websockets, "And now?"
    )
    _, over_http, by_websocket = renderer.lines_of("notification")
    assert over_http.startswith("requests go over HTTP from now on: ")
    assert "status 403" in over_http
    assert by_websocket == "a WebSocket is open again: requests go over it from now on"
    assert renderer.lines_of("text")[-1] == 'Turn 3: you said "And now?".'
    ways = [request.transport for request in server.requests]
    assert ways == ["websocket", "http", "websocket"]


@NO_WAITING
async def test_a_socket_replaced_before_its_maximum_age_is_shown() -> None:
    async def wait() -> None:
        await trio.sleep(3000)

    async with open_test_server(max_age=3600) as aging:
        renderer = await talk(aging, "Hello", wait, "And you?")
        assert [request.connection for request in aging.requests] == [1, 2]
    assert renderer.lines_of("notification") == [
        "the socket was replaced before it reached its maximum age"
    ]


@NO_WAITING
async def test_a_connection_that_cannot_be_reopened_ends_the_chat(server: ResponsesServer) -> None:
    async def lose() -> None:
        server.stop_accepting()
        await server.reset_all()
        await trio.sleep(1000)
        raise AssertionError("the chat goes on")

    renderer = RecordingRenderer()
    async with chatting(server, renderer, reconnect=[1]) as chat:
        with pytest.raises(ReconnectFailed):
            await chat.run(Script("Hello", lose))


@NO_WAITING
async def test_a_turn_on_a_closed_connection_ends_the_chat(
    server: ResponsesServer,
) -> None:
    renderer = RecordingRenderer()
    async with chatting(server, renderer, reconnect=[1]) as chat:
        server.drop(after_events=0)
        server.refuse(401, times=None)
        with pytest.raises(AuthenticationError):
            await chat.run(Script("Hello", "Hello?"))
    assert len(renderer.lines_of("error")) == 1  # of the first turn
    assert "the server may have processed it" in renderer.lines_of("error")[0]


# --- Ctrl-C ------------------------------------------------------------------------------


@NO_WAITING
async def test_ctrl_c_cancels_the_turn_and_a_second_one_leaves(server: ResponsesServer) -> None:
    server.reply("one two three").stall(after_events=6)
    renderer = RecordingRenderer()

    async def press_twice(chat: Chat) -> None:
        await renderer.text_arrived.wait()
        chat.interrupt()
        while not renderer.lines_of("note"):  # noqa: ASYNC110 - a renderer has no event for it
            await trio.sleep(0.1)
        assert renderer.prompts == 2
        chat.interrupt()

    async with chatting(server, renderer) as chat, trio.open_nursery() as nursery:
        nursery.start_soon(press_twice, chat)
        assert await chat.run(Script("Count", trio.sleep_forever)) == 130
        assert len(chat.conversation.items) == 0
    assert renderer.lines_of("note") == ["cancelled: the conversation is as it was before"]


@NO_WAITING
async def test_the_conversation_continues_after_ctrl_c(server: ResponsesServer) -> None:
    server.reply("one two three").stall(after_events=6, seconds=60)
    renderer = RecordingRenderer()

    async def press(chat: Chat) -> None:
        await renderer.text_arrived.wait()
        chat.interrupt()

    async with chatting(server, renderer) as chat, trio.open_nursery() as nursery:
        nursery.start_soon(press, chat)
        assert await chat.run(Script("Count", "Hello")) == 0
    assert renderer.lines_of("text")[-1] == 'Turn 1: you said "Hello".'


@NO_WAITING
async def test_a_second_ctrl_c_during_a_turn_ends_the_chat(server: ResponsesServer) -> None:
    server.stall(after_events=6)
    renderer = RecordingRenderer()

    async def press(chat: Chat) -> None:
        await renderer.text_arrived.wait()
        chat.interrupt()
        chat.interrupt()

    async with chatting(server, renderer) as chat, trio.open_nursery() as nursery:
        nursery.start_soon(press, chat)
        assert await chat.run(Script("Count", trio.sleep_forever)) == 130


# --- Commands ----------------------------------------------------------------------------


@NO_WAITING
async def test_reset_starts_a_new_conversation(server: ResponsesServer) -> None:
    renderer = await talk(server, "Hello", "/reset", "Hello")
    assert renderer.lines_of("text") == ['Turn 1: you said "Hello".'] * 2


@NO_WAITING
async def test_quit_leaves_the_remaining_lines_unread(server: ResponsesServer) -> None:
    await talk(server, "/quit", "Hello")
    assert server.requests == []


@NO_WAITING
async def test_a_saved_conversation_continues_after_loading(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "my chat.json"
    renderer = await talk(server, "Hello", f"/save {path}", "/reset", f"/load {path}", "And you?")
    assert renderer.lines_of("text")[-1] == 'Turn 2: you said "And you?".'
    assert path.stat().st_mode & 0o777 == 0o600
    assert json.loads(path.read_text(encoding="utf-8"))["settings"]["model"] == "gpt-test"


@NO_WAITING
async def test_the_status_names_the_model_of_a_conversation_that_is_loaded(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "chat.json"
    await talk(server, "Hello", f"/save {path}")
    path.write_text(path.read_text(encoding="utf-8").replace("gpt-test", "another"))
    renderer = await talk(server, f"/load {path}", "And you?")
    assert renderer.statuses[-1].startswith("another · connected")
    assert server.last_request["model"] == "another"


@NO_WAITING
@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("/nonsense", "unknown command /nonsense"),
        ("/reset now", "unknown command /reset now"),
        ("/image", "needs the name of a file: /image FILE [TEXT]"),
        ("/image /nowhere/at/all", "No such file"),
        ("/image {broken}", "is not an image: send a PNG, JPEG, GIF or WebP file"),
        ("/image /dev/null", "is not a regular file"),
        ("/image 'x", "a quotation mark around the name of the file is not closed"),
        ("/save", "needs the name of a file"),
        ("/load", "needs the name of a file"),
        ("/save /nowhere/at/all", "No such file"),
        ("/load /nowhere/at/all", "No such file"),
        ("/load {broken}", "not a checkpoint"),
    ],
)
async def test_a_wrong_command_is_an_error_line(
    line: str, words: str, server: ResponsesServer, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("{")
    renderer = await talk(server, "Hello", line.format(broken=broken), "And you?")
    assert len(renderer.lines_of("error")) == 1
    assert words in renderer.lines_of("error")[0]
    assert renderer.lines_of("text")[-1] == 'Turn 2: you said "And you?".'


@NO_WAITING
async def test_help_names_every_command(server: ResponsesServer) -> None:
    renderer = await talk(server, "/help")
    for name in (*SLASH_COMMANDS, "Ctrl-C"):
        assert name in renderer.lines_of("note")[0]


@NO_WAITING
async def test_another_model_answers_from_then_on(server: ResponsesServer) -> None:
    renderer = await talk(server, "/model", "/model other", "Hello", "And you?")
    assert renderer.lines_of("note") == ["the model is gpt-test", "the model is other"]
    assert [request["model"] for request in server.requests] == ["other", "other"]
    assert renderer.statuses[-1].startswith("other · ")


@NO_WAITING
@pytest.mark.parametrize(
    ("with_tools", "shown"),
    [
        (False, "the model may call no tool: start the chat with --tools"),
        (
            True,
            (
                "current_time: Tell the date and the time.\n"
                "calculate: Work out an arithmetic expression."
            ),
        ),
    ],
)
async def test_tools_are_listed(
    with_tools: bool,  # noqa: FBT001 - of the table above
    shown: str,
    server: ResponsesServer,
) -> None:
    renderer = await talk(server, "/tools", with_tools=with_tools)
    assert renderer.lines_of("note") == [shown]


@NO_WAITING
async def test_the_usage_is_that_of_all_turns_and_the_status_has_the_newest(
    server: ResponsesServer,
) -> None:
    for tokens in (1_000_000, 2_000_000):
        usage = {"input_tokens": tokens, "cached_tokens": tokens // 2, "output_tokens": tokens}
        server.reply("Yes.", usage=usage)
    prices = Prices.parse("2,1,10")
    renderer = await talk(server, "Hello", "And you?", "/usage", prices=prices)
    assert renderer.statuses[0] == "gpt-test · connected, 0 reconnects"
    newest = "2000000 read (1000000 cached), 2000000 written, cost 23.0000"
    assert renderer.statuses[-1] == f"gpt-test · connected, 0 reconnects · {newest}"
    assert renderer.lines_of("tokens")[-1].startswith(f"{newest}; ")
    assert renderer.lines_of("note") == [
        "this chat: 3000000 read (1500000 cached), 3000000 written, cost 34.5000"
    ]


@pytest.mark.parametrize("text", ["", "1,2", "1,2,3,4", "a,b,c", "1,-2,3", "nan,1,1", "1,inf,1"])
def test_prices_are_three_numbers(text: str, monkeypatch: Patch, capsys: Capture) -> None:
    with pytest.raises(ValueError, match="is not INPUT,CACHED,OUTPUT"):
        Prices.parse(text)
    if text:
        assert main(["chat", "--embedded", "--price", text]) == 2
        assert capsys.readouterr().err.startswith("error: --price: ")
        monkeypatch.setenv("TRIO_RESPONSES_PRICE", text)
        assert main(["chat", "--embedded"]) == 2
        assert capsys.readouterr().err.startswith("error: TRIO_RESPONSES_PRICE: ")


# --- Images ------------------------------------------------------------------------------

IMAGES = {
    "image/png": b"\x89PNG\r\n\x1a\n",
    "image/jpeg": b"\xff\xd8\xff\xe0",
    "image/gif": b"GIF89a",
    "image/webp": b"RIFF\0\0\0\0WEBPVP8 ",
}


@NO_WAITING
@pytest.mark.parametrize("media_type", IMAGES)
async def test_an_image_is_sent_as_a_data_url_of_its_type(
    media_type: str, server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "my image"  # its name has no suffix
    path.write_bytes(IMAGES[media_type])
    server.reply("A cat.")
    renderer = await talk(server, f'/image "{path}"  What\'s this?')
    assert renderer.lines_of("text") == ["A cat."]
    [item] = server.last_request.input_items
    encoded = base64.b64encode(IMAGES[media_type]).decode()
    assert item["content"] == [
        {"type": "input_text", "text": "What's this?"},
        {"type": "input_image", "image_url": f"data:{media_type};base64,{encoded}"},
    ]


@NO_WAITING
async def test_an_image_without_a_text_is_sent_alone(
    server: ResponsesServer, tmp_path: Path
) -> None:
    (tmp_path / "a b.gif").write_bytes(IMAGES["image/gif"])
    server.reply("A cat.")
    await talk(server, f"/image {tmp_path}/a\\ b.gif")
    [item] = server.last_request.input_items
    assert [part["type"] for part in item["content"]] == ["input_image"]


def test_an_image_that_is_too_large_is_not_read(tmp_path: Path) -> None:
    path = tmp_path / "large.png"
    with path.open("wb") as file:
        file.write(IMAGES["image/png"])
        file.truncate(MAX_IMAGE_BYTES + 1)
    with pytest.raises(ConfigurationError, match="larger than 10 MiB: send a smaller image"):
        read_image(str(path))


def test_the_largest_image_fits_into_a_request() -> None:
    assert Limits().max_request_bytes > MAX_IMAGE_BYTES * 4 / 3


@pytest.mark.parametrize(
    "pasted", ["{}", " {}\n", "'{}'", '"{}"', "{escaped}", "file://{url}"], ids=str
)
def test_the_path_of_an_image_is_recognized_when_pasted(pasted: str, tmp_path: Path) -> None:
    path = str(tmp_path / "my cat.PNG")
    text = pasted.format(path, escaped=path.replace(" ", "\\ "), url=path.replace(" ", "%20"))
    assert pasted_image(text) is None
    Path(path).touch()
    assert pasted_image(text) == path
    assert split_path(f"{quote_path(path)} and more") == (path, "and more")


@pytest.mark.parametrize("pasted", ["", "{0}\n{0}", "see {0}", "{0}.txt", "'{0}", "\0.png"])
def test_other_text_that_is_pasted_names_no_image(pasted: str, tmp_path: Path) -> None:
    path = tmp_path / "cat.png"
    path.touch()
    assert pasted_image(pasted.format(path)) is None


# --- Its tools ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("expression", "value"),
    [("6 * 7", 42), ("-(1 + 2) ** 2 / 3", -3.0), ("7 // 2 % 2", 1), (" 1.5 + 1 ", 2.5)],
)
def test_calculate_evaluates_arithmetic(expression: str, value: float) -> None:
    assert calculate(expression) == value


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os')",
        "open",
        "(1).real",
        "'a' * 9",
        "True",
        "1 if 1 else 2",
        "9 ** 9 ** 9",
        "9 ** 2000",
        "(10 ** 999) * (10 ** 999)",
        "(-8) ** 0.5",
        "1e308 * 10",
        "1 +",
        "1" * 201,
        "1j",
    ],
)
def test_calculate_rejects_everything_else(expression: str) -> None:
    with pytest.raises(ValueError, match=r"an |not |the "):
        calculate(expression)


@pytest.mark.parametrize(
    ("place", "zones"),
    [("UTC", ["UTC"]), ("oslo", ["CET", "CEST"]), ("Europe/Oslo", ["CET", "CEST"])],
)
def test_the_time_is_in_the_time_zone_of_the_place(place: str, zones: list[str]) -> None:
    assert current_time(place).split()[-1] in zones


def test_an_unknown_place_is_named_in_the_error() -> None:
    with pytest.raises(ValueError, match="no time zone is known for 'Atlantis'"):
        current_time("Atlantis")


# --- What it looks like ------------------------------------------------------------------


def test_answers_go_to_stdout_and_other_lines_to_stderr() -> None:
    out, err = io.StringIO(), io.StringIO()
    renderer = PlainRenderer(out, err, interactive=False)
    renderer.show_prompt()
    renderer.append_text("Hel")
    renderer.append_text("lo")
    renderer.end_text()
    renderer.show_line("tool", "f(1)\nand so on")
    renderer.append_text("There\n")
    renderer.end_text()
    assert out.getvalue() == "Hello\nThere\n"
    assert err.getvalue() == "tool: f(1)\ntool: and so on\n"


def test_a_notification_at_the_prompt_is_followed_by_a_new_prompt() -> None:
    out = io.StringIO()
    renderer = PlainRenderer(out, out, interactive=True)
    renderer.show_prompt()
    renderer.show_line("notification", "the connection was lost")
    assert out.getvalue() == "you> \nnotification: the connection was lost\nyou> "


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.skipif(sys.platform == "win32", reason="the console of Windows edits lines")
@pytest.mark.parametrize("missing", ["rich", "prompt_toolkit"])
def test_without_the_extra_the_chat_is_plain_and_a_note_gives_the_reason(
    missing: str, monkeypatch: Patch, capsys: Capture
) -> None:
    def find_spec(name: str) -> str | None:
        return None if name == missing else name

    monkeypatch.setattr(chat_module, "find_spec", find_spec)
    monkeypatch.setenv("TERM", "xterm")
    assert not has_editing(Terminal(), Terminal())
    assert 'pip install "trio-responses[cli]"' in capsys.readouterr().err


@pytest.mark.parametrize(
    ("stdin", "stdout", "term", "edits"),
    [
        (Terminal, Terminal, "xterm", sys.platform != "win32"),
        (io.StringIO, Terminal, "xterm", False),
        (Terminal, io.StringIO, "xterm", False),
        (Terminal, Terminal, "dumb", False),
    ],
)
def test_lines_are_edited_in_a_terminal_only(
    *,
    stdin: type[io.StringIO],
    stdout: type[io.StringIO],
    term: str,
    edits: bool,
    monkeypatch: Patch,
    capsys: Capture,
) -> None:
    monkeypatch.setenv("TERM", term)
    assert has_editing(stdin(), stdout()) is edits
    assert capsys.readouterr().err == ""


# --- In a process of its own -------------------------------------------------------------


def test_stdout_has_the_answers_alone(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\nAnd you?\n"))
    assert main(["chat", "--embedded"]) == 0
    out, err = capsys.readouterr()
    assert out == 'Turn 1: you said "Hello".\nTurn 2: you said "And you?".\n'
    assert "tokens: " in err


def test_the_embedded_server_calls_the_tools(capsys: Capture, monkeypatch: Patch) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("What is 6 * 7?\nWhat time is it in Oslo?\n"))
    assert main(["chat", "--embedded", "--demo-tools"]) == 0
    out, err = capsys.readouterr()
    assert "the tool returned 42." in out
    assert 'tool: current_time({"place":"Oslo"})' in err


def test_responses_are_stored_by_the_server_only_with_the_option(
    prepare_server: PrepareServer, monkeypatch: Patch
) -> None:
    stored: list[bool] = []
    for options in ([], ["--server-store"]):
        servers = prepare_server(lambda _: None)
        monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
        assert main(["chat", "--embedded", "--instructions", "Be brief.", *options]) == 0
        stored.append(servers[0].last_request.stores)
        assert servers[0].last_request["instructions"] == "Be brief."
    assert stored == [False, True]


def test_a_saved_conversation_can_be_loaded_at_the_start(
    capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    path = str(tmp_path / "chat.json")
    monkeypatch.setattr(sys, "stdin", io.StringIO(f"Hello\n/save {path}\n"))
    assert main(["chat", "--embedded"]) == 0
    monkeypatch.setattr(sys, "stdin", io.StringIO("And you?\n"))
    assert main(["chat", "--embedded", "--load", path]) == 0
    assert 'Turn 2: you said "And you?".' in capsys.readouterr().out


def test_a_missing_file_is_one_line_on_stderr(capsys: Capture) -> None:
    assert main(["chat", "--embedded", "--load", "/nowhere/at/all"]) == 2
    assert re.fullmatch(r"error: .*No such file.*\n", capsys.readouterr().err)


def test_chat_without_a_key_lists_the_ways_to_continue(capsys: Capture) -> None:
    assert main(["chat"]) == 2
    assert "trio-responses chat --embedded" in capsys.readouterr().err


@pytest.mark.parametrize("ending", ["\n", ""])
def test_lines_are_read_from_a_file(ending: str, tmp_path: Path) -> None:
    path = tmp_path / "lines"
    path.write_bytes(b"one\r\ntw\xffo" + ending.encode())

    async def read_all() -> list[str | None]:
        with path.open(encoding="utf-8") as file:
            lines = TextLineReader(file)
            return [await lines.read_line() for _ in range(4)]

    assert trio.run(read_all) == ["one", "tw�o", None, None]


def test_a_cancelled_read_loses_no_input() -> None:
    async def read_twice() -> str | None:
        reader, writer = os.pipe()
        with os.fdopen(reader) as file, os.fdopen(writer, "w", buffering=1) as peer:
            lines = TextLineReader(file)
            peer.write("Hel")
            peer.flush()
            with trio.move_on_after(0.01):
                await lines.read_line()
            peer.write("lo\n")
            return await lines.read_line()

    assert trio.run(read_twice) == "Hello"


def read_until(terminal: int, words: str) -> str:
    """Read what a program shows, until it has shown something, without the codes for colours."""
    shown = ""
    while not re.search(words, shown):
        ready, _, _ = select.select([terminal], [], [], HANG_GUARD)
        assert ready, shown
        piece = os.read(terminal, 4096).decode(errors="replace")
        shown += re.sub(r"\x1b\[[\d;?]*[a-zA-Z]", "", piece)
    return shown


@pytest.mark.skipif(sys.platform == "win32", reason="needs a pseudo-terminal")
@pytest.mark.parametrize("plain", [True, False])
def test_sigint_at_the_prompt_of_a_terminal_exits_with_130(*, plain: bool, tmp_path: Path) -> None:
    if not plain:
        pytest.importorskip("prompt_toolkit")
    import pty  # noqa: PLC0415 - not on every system

    master, slave = pty.openpty()
    command = [sys.executable, "-m", "trio_responses", "chat", "--embedded"]
    kept = {name: value for name, value in os.environ.items() if not name.startswith("OPENAI")}
    with subprocess.Popen(  # noqa: S603 - our own program
        [*command, *(["--plain"] if plain else [])],
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env={**kept, "TERM": "xterm", "XDG_STATE_HOME": str(tmp_path)},
        start_new_session=True,
    ) as process:
        os.close(slave)
        try:
            read_until(master, "you> ")
            os.write(master, b"Hello\r")
            # The prompt that is edited stays where it is; the status below it comes last.
            shown = read_until(master, r"written(?s:.*)you> " if plain else "written")
            assert 'Turn 1: you said "Hello".' in shown
            process.send_signal(signal.SIGINT)
            assert process.wait(HANG_GUARD) == 130
        finally:
            process.kill()
            os.close(master)


def test_a_signal_ends_a_chat_in_a_pipe() -> None:
    with running("chat", "--embedded", stdin=subprocess.PIPE) as process:
        assert process.stderr is not None
        process.stderr.readline()  # it is connected
        process.send_signal(signal.SIGTERM)
        assert process.wait(HANG_GUARD) == 143


@pytest.mark.parametrize(
    ("options", "way"), [([], ""), (["--transport", "http"], " over HTTP")], ids=str
)
def test_the_first_note_names_http(
    options: list[str], way: str, capsys: Capture, monkeypatch: Patch
) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(["chat", "--embedded", *options]) == 0
    out, err = capsys.readouterr()
    assert out == 'Turn 1: you said "Hello".\n'
    assert f"note: connected to 127.0.0.1{way}; /help lists the commands\n" in err
