"""Exceptions of tools: what the model reads about them, and whether it may try again."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeGuard

import trio

from trio_responses._errors import ResponsesError
from trio_responses._tools.function import InvalidArguments

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["ModelRetry", "asks_for_retry", "describe_exception", "is_model_retry"]

MAX_EXCEPTIONS = 10
"""The number of exceptions of a group that are described."""


class ModelRetry(ResponsesError):
    """Raised by a tool to ask the model for another call: the model reads the message.

    For example::

        raise ModelRetry("There are two cities of this name: write the country, too.")

    Unlike other exceptions, it does not end a run with ``on_tool_error="raise"``.

    :param message: the text for the model.

    :ivar message: the text for the model.
    """

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message: str = message


def is_model_retry(error: Any) -> bool:
    """Whether an exception is a `ModelRetry`, or a group of them, as a nursery raises it."""
    if issubclass(type(error), BaseExceptionGroup):
        return all(map(is_model_retry, error.exceptions))
    return isinstance(error, ModelRetry)


def asks_for_retry(error: Exception) -> bool:
    """Whether an error of a call is for the model alone, which can call again."""
    return isinstance(error, InvalidArguments) or is_model_retry(error)


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
        return _message_of(error) or "the tool took too long"
    if isinstance(error, ModelRetry):
        return error.message
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
