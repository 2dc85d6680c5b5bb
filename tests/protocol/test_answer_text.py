"""The text of the answer is read piece by piece, from the message that a response ends with."""

from __future__ import annotations

import json
from typing import Any

import pytest

from trio_responses import _wire as wire
from trio_responses._protocol.accumulator import Accumulator
from trio_responses._protocol.answer_text import AnswerText

Json = dict[str, Any]


def event(kind: str, index: int, part: int = 0, **fields: Any) -> Json:
    place = {"output_index": index, "item_id": f"item_{index}", "content_index": part}
    return {"type": f"response.{kind}", **place, **fields}


def delta(text: str, item: int = 0, part: int = 0) -> Json:
    return event("output_text.delta", item, part, delta=text)


def done(text: str, item: int = 0, part: int = 0) -> Json:
    return event("output_text.done", item, part, text=text)


def added(item: int, kind: str = "message", phase: str | None = None) -> Json:
    raw: Json = {"type": kind, "id": f"item_{item}", "role": "assistant", "phase": phase}
    content: Json = {"content": []} if kind == "message" else {"summary": []}
    return event("output_item.added", item, item=raw | content)


def finished(text: str, item: int = 0) -> Json:
    parts = [{"type": "output_text", "text": text}]
    raw = {"type": "message", "id": f"item_{item}", "role": "assistant", "content": parts}
    return event("output_item.done", item, item=raw)


def read(*batches: list[Json]) -> list[tuple[str, bool]]:
    """Return what is read after each batch: the new text, and whether it starts again."""
    accumulator, answer = Accumulator(), AnswerText()
    found: list[tuple[str, bool]] = []
    for batch in batches:
        accumulator.feed([wire.decode(json.dumps(frame).encode()) for frame in batch])
        new = answer.read(accumulator)
        found.append((new.text, new.restarted))
    return found


def test_each_piece_is_read_once() -> None:
    batches = [[delta("a"), delta("b")], [], [delta("c")], [added(1, "reasoning")]]
    assert read(*batches) == [("ab", True), ("", False), ("c", False), ("", False)]


def test_nothing_is_read_before_there_is_a_message() -> None:
    assert read([], [added(0, "reasoning")]) == [("", False), ("", False)]


def test_the_whole_text_at_the_end_of_a_part_adds_what_was_not_sent() -> None:
    assert read([delta("ab")], [done("abc")], [done("abc")]) == [
        ("ab", True),
        ("c", False),
        ("", False),
    ]
    assert read([done("abc")], [finished("abc")]) == [("abc", True), ("", False)]


def test_the_parts_of_a_message_are_one_text() -> None:
    batches = [[delta("a")], [done("ab"), delta("c", part=1)], [delta("d", part=1)]]
    assert read(*batches) == [("a", True), ("bc", False), ("d", False)]
    assert read([delta("a"), delta("b", part=2)], [delta("x")], [delta("c", part=2)]) == [
        ("ab", True),
        ("", False),  # an earlier part does not grow
        ("c", False),
    ]


def test_another_message_starts_again() -> None:
    assert read([delta("a")], [added(1)], [delta("b", 1), delta("c", 1)]) == [
        ("a", True),
        ("", True),
        ("bc", False),
    ]


@pytest.mark.parametrize(
    ("phases", "text"),
    [
        (("commentary", "final_answer"), "b"),
        (("final_answer", "commentary"), "a"),
        (("final_answer", None), "a"),
        ((None, None), "b"),
        ((None, "commentary"), "a"),
        (("commentary", "commentary"), ""),
    ],
)
def test_the_message_is_the_one_that_a_response_ends_with(
    phases: tuple[str | None, str | None], text: str
) -> None:
    frames = [added(0, phase=phases[0]), delta("a"), added(1, phase=phases[1]), delta("b", 1)]
    ((found, _),) = read(frames)
    assert found == text


def test_a_refusal_is_a_message_without_text() -> None:
    refusal = event("refusal.delta", 1, delta="No.")
    assert read([delta("a")], [refusal]) == [("a", True), ("", True)]


def test_the_response_of_another_attempt_starts_again() -> None:
    answer = AnswerText()
    for text in ("ab", "abc"):
        accumulator = Accumulator()
        accumulator.feed([wire.decode(json.dumps(delta(text)).encode())])
        assert answer.read(accumulator) == (text, True)
    assert answer.read(Accumulator()) == ("", True)
    assert answer.read(Accumulator()) == ("", False)
