"""Nurseries whose single failure stays that failure.

P1: what goes wrong alone leaves a block as itself, not wrapped in an ``ExceptionGroup``. A
nursery always wraps; this is the one place that unwraps.
"""

from __future__ import annotations

from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import trio

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

__all__ = ["open_plain_nursery"]


@asynccontextmanager
async def open_plain_nursery() -> AsyncGenerator[trio.Nursery, None]:
    """Open a nursery that raises a lone exception as it is.

    Several at once still make a group; cancellations beside an exception are not counted, as
    Trio itself sees to. A group that the block raises of its own accord is a lone exception.
    """
    try:
        async with trio.open_nursery() as nursery:
            yield nursery
    except BaseExceptionGroup as group:
        lone, *others = group.exceptions
        if others:
            raise
        # The group's own context is the nursery's business, not the reader's.
        context = lone.__context__
        try:
            raise lone
        finally:
            lone.__context__ = context
