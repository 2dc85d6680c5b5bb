"""The chat in a terminal: keys, pasted text, a window that changes its size, and answers meanwhile.

Each test runs the program in tmux, with a server in this process, and compares the whole pane.
"""

from __future__ import annotations

import json
import os
import signal
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import trio

from tests.cli.cli_driver import clear_environment

if TYPE_CHECKING:
    from tests.cli.cli_driver import Patch
    from tests.terminal.tmux import Tmux
    from trio_responses.testing import ResponsesServer

IDLE = "gpt-5.5 · connected, 0 reconnects"
USED = f"{IDLE} · ... written"
BUSY = f"Ctrl-C stops · {IDLE}"
TOP = ["$ chat", "connected to 127.0.0.1; /help lists the commands", ""]
COUNT = "one two three four five six seven eight nine ten"
CUT = "one two three"
EVENTS_BEFORE_CUT = 7
"""Four events before the first word, and a word each."""


@pytest.fixture(autouse=True)
def no_environment(monkeypatch: Patch) -> None:
    clear_environment(monkeypatch)


async def start(
    tmux: Tmux, service: ResponsesServer, *options: str, columns: int = 80, rows: int = 24
) -> None:
    await tmux.start("chat", "--base-url", service.url, *options, columns=columns, rows=rows)
    await tmux.wait_for(*TOP, "you>", IDLE)


async def enter(tmux: Tmux, text: str) -> None:
    await tmux.type(text)
    await tmux.press("Enter")


def questions(service: ResponsesServer) -> list[str]:
    return [request.text for request in service.requests]


# --- Editing -----------------------------------------------------------------------------


async def test_arrow_keys_edit_the_line(tmux: Tmux, service: ResponsesServer) -> None:
    await start(tmux, service)
    await tmux.type("Helo")
    await tmux.press("Left")
    await enter(tmux, "l")
    await tmux.wait_for(*TOP, "you> Hello", 'Turn 1: you said "Hello".', "", "you>", USED)
    assert questions(service) == ["Hello"]


async def test_three_pasted_lines_are_one_message(tmux: Tmux, service: ResponsesServer) -> None:
    service.reply("Three lines.")
    await start(tmux, service)
    await tmux.paste("one\ntwo\nthree")
    await tmux.wait_for(*TOP, "you> one", "     two", "     three", IDLE)
    await tmux.press("Enter")
    shown = ["you> one", "     two", "     three", "Three lines."]
    await tmux.wait_for(*TOP, *shown, "", "you>", USED)
    assert questions(service) == ["one\ntwo\nthree"]


@pytest.mark.parametrize("key", ["M-Enter", "C-j"])
async def test_a_key_begins_a_new_line(key: str, tmux: Tmux, service: ResponsesServer) -> None:
    service.reply("Two lines.")
    await start(tmux, service)
    await tmux.type("one")
    await tmux.press(key)
    await enter(tmux, "two")
    await tmux.wait_for(*TOP, "you> one", "     two", "Two lines.", "", "you>", USED)
    assert questions(service) == ["one\ntwo"]


async def test_the_next_chat_has_the_lines_of_this_one(
    tmux: Tmux, service: ResponsesServer
) -> None:
    for text, options in (("Hello", []), ("A secret", ["--no-history"])):
        await start(tmux, service, *options)
        await enter(tmux, text)
        await tmux.wait_for(*TOP, f"you> {text}", "Turn 1: ...", "", "you>", USED)
        await tmux.press("C-d")
        await tmux.wait_for_text("exit 0")
    path = tmux.folder / "trio-responses" / "chat_history"
    assert path.stat().st_mode & 0o777 == 0o600
    assert [json.loads(line) for line in path.read_text().splitlines()] == ["Hello"]
    await start(tmux, service)
    await tmux.press("Up")
    await tmux.wait_for(*TOP, "you> Hello", IDLE)


async def test_tab_completes_commands_and_files(tmux: Tmux, service: ResponsesServer) -> None:
    (tmux.folder / "my chat.json").touch()
    await start(tmux, service)
    await tmux.type("/lo")
    await tmux.wait_for(*TOP, "you> /lo", " /load  continue a saved conversation", IDLE)
    await tmux.press("Tab")
    await tmux.wait_for_text("you> /load")
    await tmux.type("my")
    await tmux.wait_for(*TOP, "you> /load my", " my chat.json", IDLE)
    await tmux.press("Tab")
    await tmux.wait_for_text("you> /load my chat.json")


# --- Ctrl-C and Ctrl-D -------------------------------------------------------------------


async def test_ctrl_c_stops_the_answer_then_clears_then_asks_then_leaves(
    tmux: Tmux, service: ResponsesServer
) -> None:
    service.reply(COUNT).stall(after_events=EVENTS_BEFORE_CUT)
    await start(tmux, service)
    await enter(tmux, "Count")
    await tmux.wait_for(*TOP, "you> Count", CUT, "", "you>", BUSY)
    await tmux.type("typed ahead")
    await tmux.press("C-c")
    stopped = [*TOP, "you> Count", CUT, "cancelled: the conversation is as it was before", ""]
    await tmux.wait_for(*stopped, "you> typed ahead", IDLE)
    await tmux.press("C-c")
    await tmux.wait_for(*stopped, "you>", IDLE)
    await tmux.press("C-c")
    await tmux.wait_for(*stopped, "you>", "press Ctrl-C again to leave")
    await tmux.press("x")
    await tmux.wait_for(*stopped, "you> x", IDLE)
    await tmux.press("C-c", "C-c", "C-c")
    await tmux.wait_for(*stopped[:-1], "exit 130")


async def test_the_conversation_survives_ctrl_c_at_the_prompt(
    tmux: Tmux, service: ResponsesServer
) -> None:
    await start(tmux, service)
    await enter(tmux, "Hello")
    await tmux.wait_for(*TOP, "you> Hello", "...", "", "you>", USED)
    await tmux.press("C-c")
    await tmux.wait_for_text("press Ctrl-C again to leave")
    await enter(tmux, "And you?")
    await tmux.wait_for_text('Turn 2: you said "And you?".')


async def test_ctrl_d_leaves_on_an_empty_line_only(tmux: Tmux, service: ResponsesServer) -> None:
    await start(tmux, service)
    await tmux.type("x")
    await tmux.press("C-d")
    await tmux.type("y")
    await tmux.wait_for(*TOP, "you> xy", IDLE)
    await tmux.press("BSpace", "BSpace", "C-d")
    await tmux.wait_for(*TOP, "you> /quit", "exit 0")


# --- While an answer arrives -------------------------------------------------------------


async def test_text_typed_while_an_answer_arrives_stays_at_the_prompt(
    tmux: Tmux, service: ResponsesServer
) -> None:
    go_on = trio.Event()
    service.reply(f"First.\n\n{COUNT}").hold(go_on, after_events=EVENTS_BEFORE_CUT)
    await start(tmux, service)
    await enter(tmux, "Count")
    await tmux.wait_for(*TOP, "you> Count", "First.", "", CUT, "", "you>", BUSY)
    await tmux.type("typed")
    await tmux.wait_for(*TOP, "you> Count", "First.", "", CUT, "", "you> typed", BUSY)
    go_on.set()
    await tmux.wait_for(*TOP, "you> Count", "First.", "", COUNT, "", "you> typed", USED)
    await enter(tmux, " ahead")
    await tmux.wait_for_text('Turn 2: you said "typed ahead".')


async def test_a_message_entered_meanwhile_is_sent_after_the_answer(
    tmux: Tmux, service: ResponsesServer
) -> None:
    go_on = trio.Event()
    service.reply(COUNT).hold(go_on, after_events=EVENTS_BEFORE_CUT)
    service.reply("Fine.")
    await start(tmux, service)
    await enter(tmux, "Count")
    await tmux.wait_for(*TOP, "you> Count", CUT, "", "you>", BUSY)
    await enter(tmux, "And you?")
    await tmux.wait_for(*TOP, "you> Count", CUT, "waiting: And you?", "", "you>", BUSY)
    go_on.set()
    turns = ["you> Count", COUNT, "", "you> And you?", "Fine."]
    await tmux.wait_for(*TOP, *turns, "", "you>", USED)


async def test_a_waiting_message_goes_back_to_the_prompt_when_the_answer_is_stopped(
    tmux: Tmux, service: ResponsesServer
) -> None:
    service.reply(COUNT).stall(after_events=EVENTS_BEFORE_CUT)
    await start(tmux, service)
    await enter(tmux, "Count")
    await tmux.wait_for(*TOP, "you> Count", CUT, "", "you>", BUSY)
    await enter(tmux, "And you?")
    await tmux.wait_for(*TOP, "you> Count", CUT, "waiting: And you?", "", "you>", BUSY)
    await tmux.press("C-c")
    stopped = ["you> Count", CUT, "cancelled: the conversation is as it was before"]
    await tmux.wait_for(*TOP, *stopped, "", "you> And you?", IDLE)


async def test_a_long_answer_is_whole_in_the_scrollback(
    tmux: Tmux, service: ResponsesServer
) -> None:
    paragraphs = [f"Paragraph {number} of many." for number in range(40)]
    service.reply("\n\n".join(paragraphs))
    await start(tmux, service, columns=60, rows=10)
    await enter(tmux, "Tell")
    rows = [row for paragraph in paragraphs for row in (paragraph, "")]
    await tmux.wait_for(*TOP, "you> Tell", *rows, "you>", "gpt-5.5 · ...")


def pid_of(command: str) -> int:
    """Return the process id of the program with this command line."""
    for folder in Path("/proc").glob("[0-9]*"):
        with suppress(OSError):
            if (folder / "cmdline").read_bytes().replace(b"\0", b" ").endswith(command.encode()):
                return int(folder.name)
    raise LookupError(command)


async def test_a_lost_connection_is_shown_above_the_prompt(
    tmux: Tmux, service: ResponsesServer
) -> None:
    service.reply(COUNT).stall(after_events=EVENTS_BEFORE_CUT)
    await start(tmux, service)
    await enter(tmux, "Count")
    await tmux.wait_for(*TOP, "you> Count", CUT, "", "you>", BUSY)
    await tmux.type("typed")
    await tmux.wait_for(*TOP, "you> Count", CUT, "", "you> typed", BUSY)
    await service.reset_all()
    rows = await tmux.wait_for_text("connected, 1 reconnect")
    assert rows[3] == "you> Count"
    assert rows.count(CUT) == 1
    assert [row[0] for row in rows if row.startswith(("~", "✗"))] == ["~", "✗", "~"]
    assert "you> typed" in rows[-3:]


async def test_a_region_at_the_top_of_the_window_leaves_nothing_behind(
    tmux: Tmux, service: ResponsesServer
) -> None:
    await tmux.start("chat", "--base-url", service.url, before="")
    await tmux.wait_for(*TOP[1:], "you>", IDLE)


async def test_what_a_tool_prints_and_the_log_are_shown_above_the_prompt(
    tmux: Tmux, service: ResponsesServer
) -> None:
    code = "def shout(text: str) -> str:\n    'Shout.'\n    print('heard:', text)\n    return text"
    (tmux.folder / "voice.py").write_text(code)
    service.call("shout", {"text": "hey"})
    service.reply("Done.")
    await start(tmux, service, "--tools", "voice.py:shout")
    await enter(tmux, "Shout")
    call = '⚙ shout({"text":"hey"})'
    shown = ["you> Shout", call, "heard: hey", "⚙ shout -> hey", "Done."]
    await tmux.wait_for(*TOP, *shown, "", "you>", USED)


async def test_sigterm_restores_the_terminal(tmux: Tmux, service: ResponsesServer) -> None:
    await start(tmux, service)
    await tmux.type("typed")
    await tmux.wait_for(*TOP, "you> typed", IDLE)
    os.kill(pid_of(f"trio_responses chat --base-url {service.url} "), signal.SIGTERM)
    await tmux.wait_for(*TOP[:-1], "exit 143")
    await enter(tmux, "echoed")  # by the terminal itself, then by cat
    await tmux.wait_for(*TOP[:-1], "exit 143", "echoed", "echoed")


async def test_the_path_of_an_image_that_is_dropped_begins_a_command(
    tmux: Tmux, service: ResponsesServer
) -> None:
    image = tmux.folder / "my cat.png"
    image.write_bytes(b"\x89PNG\r\n\x1a\n")
    service.reply("A cat.")
    await start(tmux, service, columns=120)
    await tmux.paste(str(image).replace(" ", "\\ "))
    await tmux.wait_for_text(f"you> /image '{image}'")
    await enter(tmux, "What is it?")
    await tmux.wait_for_text("A cat.")
    [item] = service.last_request.input_items
    assert [part["type"] for part in item["content"]] == ["input_text", "input_image"]


LISTED = [f" • item {number}" for number in range(20)]
RESIZED = {
    40: [
        *("connected to 127.0.0.1; /help lists the", "commands", "", "you> List"),
        *(*LISTED, "", "you> Tell"),
        *("word0 word1 word2 word3 word4 word5", "word6"),
    ],
    30: [
        *("connected to 127.0.0.1; /help", "lists the commands", "", "you> List"),
        *(*LISTED, "", "you> Tell"),
        *("word0 word1 word2 word3 word4", "word5 word6"),
    ],
    100: [
        *TOP[1:],
        "you> List",
        *LISTED,
        "",
        "you> Tell",
        "word0 word1 word2 word3 word4 word5 word6",
    ],
}


@pytest.mark.parametrize("widths", [[40], [100], [40, 30], [40, 30, 100]])
async def test_a_change_of_the_width_tears_no_line(
    widths: list[int], tmux: Tmux, service: ResponsesServer
) -> None:
    go_on = trio.Event()
    answer = " ".join(f"word{number}" for number in range(9))
    service.reply("\n".join(row.replace("•", "-").strip() for row in LISTED))
    service.reply(f"{answer}\n\nEnd").hold(go_on, after_events=11)
    await start(tmux, service)
    # Where the window is not full, tmux keeps the empty rows below, and moves the others away.
    await enter(tmux, "List")
    await tmux.wait_for_text(LISTED[-1].strip())
    await tmux.wait_for_text("written")
    await enter(tmux, "Tell")
    await tmux.wait_for_text("word6")
    await tmux.type("typed ahead")
    await tmux.wait_for_text("you> typed ahead")
    for width in widths:
        await tmux.resize(width, 24)
        status = BUSY[:width] if width < len(BUSY) else f"{BUSY} · ... written"
        await tmux.wait_for("$ chat", *RESIZED[width], "", "you> typed ahead", status)
    go_on.set()
    rows = await tmux.wait_for_text("End")
    for once in ("word0", "word8", "typed ahead", "gpt-5.5", "End"):
        assert sum(once in row for row in rows) == 1, rows
