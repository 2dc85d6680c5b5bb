"""The chat in a terminal that shows Markdown by way of rich."""

from __future__ import annotations

import io
import re
from typing import TYPE_CHECKING

import pytest

pytest.importorskip("rich")

from rich.console import Console

from trio_responses._cli.chat import choose_renderer
from trio_responses._cli.markdown_renderer import MarkdownRenderer, split_blocks

if TYPE_CHECKING:
    from tests.cli.cli_driver import Patch


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def renderer_on(
    out: io.StringIO, *, terminal: bool = False, interactive: bool = False
) -> MarkdownRenderer:
    console = Console(file=out, width=40, force_terminal=terminal, color_system=None)
    return MarkdownRenderer(console, interactive=interactive)


@pytest.mark.parametrize(
    ("text", "ended"),
    [
        ("one", ""),
        ("one\n", ""),
        ("one\n\n", ""),
        ("one\n\ntwo", "one\n\n"),
        ("one\n\ntwo\n\nthree", "one\n\ntwo\n\n"),
        ("- one\n\n  more of it", ""),
        ("```\na\n\nb\n", ""),
        ("```\na\n\nb\n```\n\nc", "```\na\n\nb\n```\n\n"),
        ("~~~\n```\n\nx\n~~~\n\ny", "~~~\n```\n\nx\n~~~\n\n"),
    ],
)
def test_a_block_is_complete_when_no_line_can_be_added_to_it(text: str, ended: str) -> None:
    assert split_blocks(text) == (ended, text.removeprefix(ended))


@pytest.mark.parametrize("terminal", [True, False])
def test_an_answer_is_printed_once_however_it_was_split(*, terminal: bool) -> None:
    out = io.StringIO()
    renderer = renderer_on(out, terminal=terminal)
    for piece in ("The **answer**", " is:\n", "\n- forty", "-two\n\nThat is", " all."):
        renderer.append_text(piece)
    renderer.end_text()
    last = re.split(r"\x1b\[2K", out.getvalue())[-1]
    assert last.count("That is all.") == 1
    assert "• forty-two" in out.getvalue()
    assert "**" not in out.getvalue()


def test_lines_are_not_parsed_as_markup() -> None:
    out = io.StringIO()
    renderer = renderer_on(out)
    renderer.show_line("tool", "f([bold]x[/bold]) \x1b[2J")
    assert out.getvalue() == "⚙ f([bold]x[/bold]) \\x1b[2J\n"


def test_a_tool_line_ends_the_answer_and_a_notification_does_not() -> None:
    out = io.StringIO()
    renderer = renderer_on(out, terminal=True)
    renderer.append_text("one")
    renderer.show_line("notification", "the connection was replaced")
    renderer.append_text(" two")
    renderer.show_line("tool", "f()")
    renderer.append_text("three")
    renderer.end_text()
    shown = out.getvalue()
    assert "one two" in shown
    assert shown.rindex("one two") < shown.rindex("f()") < shown.rindex("three")


def test_a_notification_at_the_prompt_is_followed_by_a_new_prompt() -> None:
    out = io.StringIO()
    renderer = renderer_on(out, interactive=True)
    renderer.show_prompt()
    renderer.show_line("notification", "lost")
    assert out.getvalue() == "you> \n~ lost\nyou> "


def test_a_terminal_gets_markdown(monkeypatch: Patch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    renderer = choose_renderer(Terminal(), io.StringIO(), interactive=True, plain=False)
    assert isinstance(renderer, MarkdownRenderer)
