"""Descriptions of exceptions for the model."""

from typing import Any

import pytest
import trio

from trio_responses._tools.exceptions import ModelRetry, describe_exception
from trio_responses._tools.function import InvalidArguments


@pytest.mark.parametrize("notes", [None, "note", [1, b"a"], {"a": 1}])
def test_notes_that_are_no_list_of_texts_are_left_out(notes: Any) -> None:
    error = ValueError("a")
    error.__notes__ = notes
    assert describe_exception(error) == "ValueError: a"


def test_a_group_has_the_description_of_each_exception_inside() -> None:
    slow = [trio.TooSlowError(), trio.TooSlowError("over 5 s"), ModelRetry("again")]
    inner = ExceptionGroup("inner", [*slow, InvalidArguments("bad", tool="t")])
    group = BaseExceptionGroup("outer", [inner, KeyError("x"), KeyboardInterrupt()])
    assert describe_exception(group) == (
        "the tool took too long\nover 5 s\nagain\nbad\nKeyError: 'x'\nKeyboardInterrupt: "
    )


def test_an_exception_whose_text_raises_has_its_class() -> None:
    class Mute(Exception):
        def __str__(self) -> str:
            raise RuntimeError

    assert describe_exception(ExceptionGroup("", [Mute()])) == "Mute: (no words)"
