"""Cancels a task at a chosen step: a scan over all steps finds every checkpoint of its work."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal, TypeAlias

import trio

if TYPE_CHECKING:
    from typing import Self

Moment: TypeAlias = Literal["before", "after"]
"""Just before a step, when the task was woken; or just after it, when the task waits again."""


class CancelledAtStep(trio.abc.Instrument):
    """A context manager that cancels one scope of the present task, once.

    The task opens the scopes one after another, and its steps within all of them are counted.

    :param step: the number of the step, from 1.
    """

    def __init__(self, step: int, moment: Moment) -> None:
        self._step = step
        self._moment = moment
        self._scope = trio.CancelScope()
        self._steps = 0

    def __enter__(self) -> Self:
        self._task = trio.lowlevel.current_task()
        trio.lowlevel.add_instrument(self)
        return self

    def __exit__(self, *_: object) -> None:
        trio.lowlevel.remove_instrument(self)

    def open(self) -> trio.CancelScope:
        """Return a new scope, which may be cancelled."""
        self._scope = trio.CancelScope()
        return self._scope

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._steps += 1
            self._cancel("before")

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        if task is self._task:
            self._cancel("after")

    def _cancel(self, moment: Moment) -> None:
        if self._steps == self._step and moment == self._moment:
            self._scope.cancel()
