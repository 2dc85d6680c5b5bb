"""A nursery raises a single failure unchanged. P1."""

from __future__ import annotations

import traceback

import pytest
import trio

from tests.testing.driver import NO_WAITING
from trio_responses._concurrency import open_collapsing_nursery

pytestmark = NO_WAITING


async def fail(error: BaseException) -> None:
    raise error


async def test_a_nursery_without_failures_raises_nothing() -> None:
    async with open_collapsing_nursery() as nursery:
        nursery.start_soon(trio.sleep, 1.0)


@pytest.mark.parametrize("where", ["block", "task"])
async def test_a_single_failure_keeps_its_cause_and_context(where: str) -> None:
    error, cause, context = KeyError("lone"), ValueError("cause"), ValueError("context")
    error.__cause__, error.__context__ = cause, context
    with pytest.raises(KeyError) as caught:  # noqa: PT012 - the block is what is tested
        async with open_collapsing_nursery() as nursery:
            if where == "block":
                raise error
            nursery.start_soon(fail, error)
            await trio.sleep_forever()
    assert caught.value is error
    assert (error.__cause__, error.__context__) == (cause, context)
    assert "Exceptions from Trio nursery" not in "".join(traceback.format_exception(error))


async def test_a_failure_without_cause_and_context_gets_none() -> None:
    with pytest.raises(KeyError) as caught:
        async with open_collapsing_nursery():
            raise KeyError
    assert caught.value.__context__ is None
    assert caught.value.__cause__ is None


@pytest.mark.parametrize("error", [StopIteration(), StopAsyncIteration(), RuntimeError()])
async def test_the_exceptions_of_generators_pass_unchanged(error: Exception) -> None:
    with pytest.raises(type(error)) as caught:
        async with open_collapsing_nursery():
            raise error
    assert caught.value is error


async def test_several_failures_are_raised_as_a_group() -> None:
    with pytest.raises(ExceptionGroup) as caught:  # noqa: PT012 - likewise
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(fail, KeyError())
            nursery.start_soon(fail, ValueError())
    assert {type(error) for error in caught.value.exceptions} == {KeyError, ValueError}


async def test_nested_nurseries_raise_a_single_failure_unchanged() -> None:
    error = KeyError()
    with pytest.raises(KeyError) as caught:
        async with open_collapsing_nursery(), open_collapsing_nursery() as inner:
            inner.start_soon(fail, error)
    assert caught.value is error


async def test_a_group_that_the_block_raises_is_not_unwrapped() -> None:
    group = ExceptionGroup("on purpose", [KeyError()])
    with pytest.raises(ExceptionGroup, match="on purpose") as caught:
        async with open_collapsing_nursery():
            raise group
    assert caught.value.exceptions == group.exceptions


async def test_a_failure_beside_cancellations_is_raised_alone() -> None:
    with pytest.raises(KeyError):  # noqa: PT012 - likewise
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            nursery.start_soon(fail, KeyError())
            await trio.sleep_forever()


async def test_a_failure_beside_outer_cancellations_is_raised_alone() -> None:
    error = KeyError()
    with pytest.raises(KeyError) as caught, trio.CancelScope() as scope:  # noqa: PT012 - likewise
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            await trio.lowlevel.checkpoint()
            scope.cancel()
            raise error
    assert caught.value is error


async def test_a_cancellation_passes_through_the_nursery() -> None:
    with trio.CancelScope() as scope:
        async with open_collapsing_nursery() as nursery:
            nursery.start_soon(trio.sleep_forever)
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
