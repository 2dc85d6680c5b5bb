"""Iteration over the partial values of an answer while its JSON is written."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar, cast

import msgspec

from trio_responses._protocol.answer_text import AnswerText
from trio_responses._tools.partial_values import PartialValue

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Self

    from trio_responses._protocol.accumulator import Accumulator
    from trio_responses._turn.answer_format import AnswerType

__all__ = ["PartialValues"]

T = TypeVar("T")


class PartialValues(Generic[T]):
    """An iterator over the values of an answer so far; the last one is complete.

    Not a generator, so that the iteration may be left by ``break``. All text is read again from the
    accumulator of the stream by the next iterator.

    :param answer: the type of the answer.
    :param read_batch: reads the next events of the stream.
    :param accumulator: returns the accumulator of the response that is being received; `None` if
        there is none.
    :param parse: returns the complete value, once all events are read.
    """

    def __init__(
        self,
        answer: AnswerType,
        *,
        read_batch: Callable[[], Awaitable[object]],
        accumulator: Callable[[], Accumulator | None],
        parse: Callable[[], T],
    ) -> None:
        self._answer = answer
        self._read_batch = read_batch
        self._accumulator = accumulator
        self._parse = parse
        self._text = AnswerText()
        self._value: PartialValue | None = self._new_value()
        """The value of the message that is being read; `None` if its text is not JSON."""
        self._ended = False

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> T:
        value: Any = msgspec.UNSET
        while value is msgspec.UNSET:
            if self._ended:
                raise StopAsyncIteration
            try:
                await self._read_batch()
            except StopAsyncIteration:
                self._ended = True
                value = self._parse()
            else:
                value = self._read_text()
        return cast("T", value)

    def _new_value(self) -> PartialValue:
        annotation, json_type = self._answer
        return PartialValue(annotation, wrapped=json_type.wrapped)

    def _read_text(self) -> Any:
        """Return the value with the text of the last batch; ``UNSET`` if there is nothing new.

        Text that is not JSON has no value. Whether that is an error is known at the end of the
        response: the answer may be a later message.
        """
        accumulator = self._accumulator()
        if accumulator is None:
            return msgspec.UNSET
        text, restarted = self._text.read(accumulator)
        if restarted:
            self._value = self._new_value()
        if self._value is None:
            return msgspec.UNSET
        try:
            return self._value.feed(text)
        except (ValueError, RecursionError):
            self._value = None
            return msgspec.UNSET
