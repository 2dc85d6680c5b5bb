"""The clocks of the suite: `tests/jumping_clock.py`."""

import threading

import pytest
import trio

from tests import jumping_clock
from tests.testing.driver import NO_WAITING

A_LONG_TIME = 3600


class IdlePasses(trio.abc.Instrument):
    """Sets an event when all tasks have been blocked in several passes of Trio's loop."""

    def __init__(self, passes: int) -> None:
        self.event = threading.Event()
        self._passes = self._left = passes

    def task_scheduled(self, task: trio.lowlevel.Task) -> None:
        del task
        self._left = self._passes

    def after_io_wait(self, timeout: float) -> None:
        del timeout
        self._left -= 1
        if self._left <= 0:
            self.event.set()


@NO_WAITING
async def test_no_deadline_passes_while_a_thread_works() -> None:
    idle = IdlePasses(5)
    trio.lowlevel.add_instrument(idle)
    with trio.fail_after(A_LONG_TIME):
        await trio.to_thread.run_sync(idle.event.wait, 60, abandon_on_cancel=True)
    assert idle.event.is_set()
    since = trio.current_time()
    await trio.sleep(A_LONG_TIME)
    assert trio.current_time() - since == A_LONG_TIME


@NO_WAITING
async def test_a_thread_may_wait_for_the_clock(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jumping_clock, "PATIENCE", 0.01)
    since = trio.current_time()
    await trio.to_thread.run_sync(trio.from_thread.run, trio.sleep, A_LONG_TIME)
    assert trio.current_time() - since == A_LONG_TIME
