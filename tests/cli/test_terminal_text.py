"""Characters that drive a terminal, in what a server sends: escaped where a terminal shows them."""

from __future__ import annotations

import io
import json
import logging
import sys
from typing import TYPE_CHECKING

import pytest

from trio_responses import APIError, CallNotRejectable, ConnectionLost
from trio_responses._cli import main
from trio_responses._cli.chat.renderer import PlainRenderer
from trio_responses._cli.demo import Screen
from trio_responses._cli.probe import TableReport
from trio_responses._cli.probe_features import Finding, Verdict
from trio_responses._cli.running import EscapingFormatter, print_note, print_traceback
from trio_responses._safe_text import CONTROLS, escape_controls
from trio_responses._wire.errors import ErrorEvent

if TYPE_CHECKING:
    from tests.cli.cli_driver import Capture, Patch, PrepareServer

EVIL = "\x1b[2J \x1b]0;title\x07 \x9b1m \x7f \u202eback\u2066 a\rb"
ESCAPED = r"\x1b[2J \x1b]0;title\x07 \x9b1m \x7f \u202eback\u2066 a\rb"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_newlines_and_tabs_are_kept_and_every_other_control_is_escaped() -> None:
    assert escape_controls(f"a\tb\r\nc\n{EVIL}") == f"a\tb\nc\n{ESCAPED}"
    for code in (*range(0x20), *range(0x7F, 0xA0)):
        kept = chr(code) in "\n\t"
        assert (escape_controls(chr(code)) == chr(code)) is kept
    assert escape_controls("é 日本 \u200f שלום") == "é 日本 \u200f שלום"


def test_ask_escapes_the_answer_on_a_terminal(
    prepare_server: PrepareServer, monkeypatch: Patch
) -> None:
    prepare_server(lambda server: server.reply(EVIL))
    out = Terminal()
    monkeypatch.setattr(sys, "stdout", out)
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert out.getvalue() == f"{ESCAPED}\n"


def test_ask_writes_the_answer_as_it_is_into_a_pipe(
    prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.reply(EVIL))
    assert main(["ask", "--embedded", "Hello"]) == 0
    assert capsys.readouterr().out == f"{EVIL}\n"


def test_ask_json_escapes_within_the_json(prepare_server: PrepareServer, capsys: Capture) -> None:
    prepare_server(lambda server: server.reply(EVIL))
    assert main(["ask", "--embedded", "--json", "Hello"]) == 0
    out = capsys.readouterr().out
    assert CONTROLS.search(out) is None
    assert json.loads(out)["output"][0]["content"][0]["text"] == EVIL


@pytest.mark.parametrize("debug", [[], ["--debug"]])
def test_an_error_of_the_server_is_escaped(
    debug: list[str], prepare_server: PrepareServer, capsys: Capture
) -> None:
    prepare_server(lambda server: server.fail(EVIL, message=EVIL, status=400))
    assert main(["ask", "--embedded", *debug, "Hello"]) == 1
    err = capsys.readouterr().err
    assert CONTROLS.search(err) is None
    assert r"code \x1b[2J" in err


def test_a_note_is_escaped(capsys: Capture) -> None:
    print_note(f"the model refused: {EVIL}")
    assert capsys.readouterr().err == f"note: the model refused: {ESCAPED}\n"


def test_the_lines_of_a_chat_are_escaped_and_its_answers_on_a_terminal_alone() -> None:
    for out, shown in ((Terminal(), ESCAPED), (io.StringIO(), EVIL)):
        err = io.StringIO()
        renderer = PlainRenderer(out, err, interactive=False)
        renderer.append_text(EVIL)
        renderer.show_line("tool", f"{EVIL}(1)")
        assert out.getvalue() == f"{shown}\n"
        assert err.getvalue() == f"tool: {ESCAPED}(1)\n"


@pytest.mark.parametrize("text", [EVIL, "a &#x202e;b &#13;c", "`\x1b[2J`", "[\x9b](http://x)"])
def test_markdown_is_escaped_after_parsing_as_well(text: str) -> None:
    pytest.importorskip("rich")
    from trio_responses._cli.chat.markdown_renderer import MarkdownRenderer  # noqa: PLC0415 - an extra

    renderer = MarkdownRenderer(color_system=None)
    shown = renderer.append(f"{text}\n\nb", 200) + renderer.append(text, 200)
    shown += "\n".join(renderer.growing_lines(200)) + renderer.end(200)
    shown += renderer.line("error", text, 200) + renderer.question("you> ", text, 200)
    assert CONTROLS.search(shown) is None


def test_a_row_of_the_probe_and_a_line_of_the_demo_are_escaped() -> None:
    out = io.StringIO()
    TableReport(out, colour=False).add(
        Finding(name="tool turn", verdict=Verdict.NO, detail=EVIL, seconds=1.0)
    )
    screen = Screen(out, colour=False)
    screen.line(EVIL)
    screen.stream("model: ", EVIL)
    screen.notification(EVIL)
    screen.failed(EVIL)
    assert CONTROLS.search(out.getvalue()) is None
    assert out.getvalue().count(ESCAPED) == 5


def test_tracebacks_and_log_records_of_other_libraries_are_escaped(capsys: Capture) -> None:
    print_traceback(ValueError(EVIL))
    assert rf"ValueError: {ESCAPED}" in capsys.readouterr().err
    record = logging.LogRecord("other", logging.INFO, "f.py", 1, "%s", (EVIL,), None)
    assert EscapingFormatter("%(message)s").format(record) == ESCAPED


def test_messages_of_exceptions_quote_no_control() -> None:
    errors = [
        APIError(
            ErrorEvent(code=EVIL, message=EVIL, param=EVIL, error_type=EVIL), response_id=EVIL
        ),
        APIError(ErrorEvent(error_type=EVIL, headers={"x-request-id": EVIL})),
        ConnectionLost(4000, EVIL),
        CallNotRejectable(EVIL, "no"),
    ]
    for error in errors:
        assert CONTROLS.search(str(error)) is None
        assert r"\u202eback" in str(error)
