"""Markdown in a terminal, as rich draws it: what is printed for good, and what may still grow."""

from __future__ import annotations

import pytest

pytest.importorskip("rich")

from trio_responses._cli.chat.markdown_renderer import MarkdownRenderer, split_blocks


@pytest.mark.parametrize(
    "blocks",
    [
        [""],
        ["one"],
        ["one\n\n"],
        ["one\n\n", "two"],
        ["one\n\n", "two\n\n", "three"],
        ["- one\n\n  more of it"],
        ["```\na\n\nb\n"],
        ["```\na\n\nb\n```\n\n", "c"],
        ["~~~\n```\n\nx\n~~~\n\n", "y"],
    ],
)
def test_a_block_is_complete_when_no_line_can_be_added_to_it(blocks: list[str]) -> None:
    assert split_blocks("".join(blocks)) == blocks


@pytest.mark.parametrize("size", [1, 2, 7, 100])
def test_an_answer_is_printed_once_however_it_was_split(size: int) -> None:
    renderer = MarkdownRenderer(color_system=None)
    answer = "The **answer** is:\n\n- forty-two\n\n```python\nx = 1\n```\n\nThat is all."
    pieces = [answer[start : start + size] for start in range(0, len(answer), size)]
    printed = "".join(renderer.append(piece, 40) for piece in pieces)
    assert "That is all" not in printed
    printed += renderer.end(40)
    assert printed == "The answer is:\n\n • forty-two\n\n x = 1\n\nThat is all.\n"


def test_the_last_block_is_drawn_as_it_grows() -> None:
    renderer = MarkdownRenderer(color_system=None)
    assert renderer.append("The **ans", 40) == ""
    assert renderer.growing_lines(40) == ["The **ans"]
    renderer.append("wer**", 40)
    assert renderer.growing_lines(40) == ["The answer"]
    assert renderer.append("\n\nIt", 40) == "The answer\n"
    assert renderer.growing_lines(40) == ["", "It"]
    assert renderer.end(40) == "\nIt\n"
    assert renderer.growing_lines(40) == []


def test_the_next_answer_begins_without_an_empty_row() -> None:
    renderer = MarkdownRenderer(color_system=None)
    renderer.append("one\n\ntwo", 40)
    renderer.end(40)
    assert renderer.append("three", 40) + renderer.end(40) == "three\n"


@pytest.mark.parametrize("color_system", [None, "standard"])
def test_no_row_is_padded(color_system: None) -> None:
    renderer = MarkdownRenderer(color_system)
    renderer.append("# Title\n\n- one\n- two\n\n```\nx = 1\n```\n\n|a|b|\n|-|-|\n|1|2|", 40)
    for row in renderer.end(40).split("\n"):
        assert not row.removesuffix("\x1b[0m").endswith(" ")


def test_lines_are_not_parsed_as_markup() -> None:
    renderer = MarkdownRenderer(color_system=None)
    shown = renderer.line("tool", "f([bold]x[/bold]) \x1b[2J", 40)
    assert shown == "⚙ f([bold]x[/bold]) \\x1b[2J\n"


def test_the_lines_of_a_question_are_aligned() -> None:
    renderer = MarkdownRenderer(color_system=None)
    assert renderer.question("you> ", "one\n[b]two", 40) == "you> one\n     [b]two\n"
