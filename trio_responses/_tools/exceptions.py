"""Describe the exception of a tool to the model."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import trio

from trio_responses._tools.function import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["describe_exception"]

MAX_EXCEPTIONS = 10
"""The number of exceptions of a group that are described."""


def describe_exception(error: BaseException) -> str:
    """Return the text about an exception for the model, with the notes of the exception.

    A group is described by the exceptions in it, at any depth: a nursery raises a group even for a
    single exception.
    """
    texts = list(dict.fromkeys(_describe_each(error)))
    left_out = len(texts) - MAX_EXCEPTIONS
    if left_out > 0:
        texts[MAX_EXCEPTIONS:] = [f"(and {left_out} more)"]
    return "\n".join(texts)


def _describe_each(error: Any) -> Iterator[str]:
    """Yield the description of each exception that is no group, then the notes of the group."""
    if issubclass(type(error), BaseExceptionGroup):
        for inner in error.exceptions:
            yield from _describe_each(inner)
        yield from _notes_of(error)
    else:
        yield "\n".join([_describe_one(error), *_notes_of(error)])


def _describe_one(error: BaseException) -> str:
    if isinstance(error, InvalidArguments):
        return error.message
    if isinstance(error, trio.TooSlowError):
        return "the tool took too long"
    return f"{type(error).__name__}: {_message_of(error)}"


def _notes_of(error: BaseException) -> list[str]:
    """Return the notes of an exception; none if the attribute is no list, as any value may be."""
    notes: Any = getattr(error, "__notes__", None)
    return list(filter(_is_text, notes)) if issubclass(type(notes), list) else []


def _is_text(note: Any) -> TypeGuard[str]:
    return isinstance(note, str)


def _message_of(error: BaseException) -> str:
    """Return the message of an exception, even if its ``__str__`` raises."""
    try:
        return str(error)
    except Exception:  # noqa: BLE001 - the class of the exception is the tool's own
        return "(no words)"
