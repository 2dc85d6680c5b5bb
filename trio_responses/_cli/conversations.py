"""The command ``conversations``: lists, shows, exports and deletes conversations of a store."""

from __future__ import annotations

import sys
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Final

import msgspec
import trio

from trio_responses import ConfigurationError
from trio_responses import _wire as wire
from trio_responses._cli.files import write_file
from trio_responses._cli.running import (
    FAILED,
    PROG,
    UsageError,
    for_terminal,
    print_error,
    print_note,
    run,
)
from trio_responses._conversation.checkpoint import Checkpoint
from trio_responses._conversation.stored_history import read_history
from trio_responses._protocol.calls import name_of_call
from trio_responses._stores.postgres import PostgresStore
from trio_responses._stores.redis import RedisStore
from trio_responses._stores.sqlite import SQLiteStore
from trio_responses.types import Message, Reasoning

if TYPE_CHECKING:
    import argparse
    from collections.abc import AsyncGenerator, Awaitable, Callable

    from trio_responses._conversation.stored_history import StoredHistory
    from trio_responses._stores.base import StoreBase
    from trio_responses.stores import ConversationInfo, ConversationStore
    from trio_responses.types import OutputItem

__all__ = ["conversations", "make_store", "open_store"]

PAGE: Final = 100
"""How many conversations are listed with one call of the store."""
ROW: Final = "{:20}  {:>17}  {:6}  {}"
HEADER: Final = ROW.format("LAST CHANGE", "SIZE", "STATE", "CONVERSATION")
REDIS_SCHEMES: Final = ("redis://", "rediss://", "unix://")
POSTGRES_SCHEMES: Final = ("postgres://", "postgresql://")


def make_store(place: str) -> StoreBase:
    """Return the store with a URL of Redis or PostgreSQL, or the SQLite file with a path."""
    if place.startswith(REDIS_SCHEMES):
        return RedisStore(place)
    if place.startswith(POSTGRES_SCHEMES):
        return PostgresStore(place)
    scheme, separator, _ = place.partition("://")
    if separator:
        raise ConfigurationError(
            f"--store is the path of an SQLite file, or a URL of Redis or PostgreSQL; {scheme}://"
            " is none of their schemes"
        )
    return SQLiteStore(place)


@asynccontextmanager
async def open_store(place: str, *, create: bool = False) -> AsyncGenerator[StoreBase, None]:
    """Open the store at a place.

    :param create: whether an SQLite file that is missing is created.
    :raises FileNotFoundError: if it is missing, and not to be created.
    """
    store = make_store(place)
    if isinstance(store, SQLiteStore) and not create and not await trio.Path(place).exists():
        raise FileNotFoundError(2, "there is no such store", place)
    async with store:
        yield store


def conversations(arguments: argparse.Namespace) -> int:
    """Run one of the actions on the conversations of a store."""
    action: Callable[[StoreBase], Awaitable[int]]
    match arguments.action:
        case None:
            raise UsageError(
                "conversations needs an action: list, show, export or delete"
                f" (see {PROG} conversations --help)"
            )
        case "list":
            action = partial(_list, prefix=arguments.prefix, as_json=arguments.json)
        case "show":
            action = partial(_show, names=arguments.names)
        case "export":
            action = partial(_export, name=arguments.names[0], file=arguments.file)
        case _:
            action = partial(_delete, names=arguments.names)
    return run(partial(_run_action, arguments.store, action))


async def _run_action(place: str, action: Callable[[StoreBase], Awaitable[int]]) -> int:
    async with open_store(place) as store:
        return await action(store)


# --- list --------------------------------------------------------------------------------


async def _list(store: ConversationStore, *, prefix: str, as_json: bool) -> int:
    after = ""
    if not as_json:
        print(HEADER)
    while page := await store.list(prefix=prefix, after=after, limit=PAGE):
        for stored in page:
            print(_describe(stored, as_json=as_json))
        after = page[-1].conversation_id
    return 0


def _describe(stored: ConversationInfo, *, as_json: bool) -> str:
    """Return a line about a conversation: its id last, since it may have spaces."""
    if as_json:
        return msgspec.json.encode(stored).decode()
    changed = datetime.fromtimestamp(stored.updated_at, UTC).strftime("%Y-%m-%d %H:%M:%SZ")
    state = "open" if stored.leased_until is not None else "closed"
    name = for_terminal(stored.conversation_id, sys.stdout)
    return ROW.format(changed, f"{stored.size:,} bytes", state, name)


# --- show, export, delete ----------------------------------------------------------------


async def _read(store: ConversationStore, name: str) -> StoredHistory | None:
    """Return a conversation; print an error and return `None` if there is none."""
    read, _ = await read_history(store, name)
    if read.is_empty:
        print_error(f"the store has no conversation {name!r}")
        return None
    return read


async def _show(store: ConversationStore, *, names: list[str]) -> int:
    code = 0
    for name in names:
        read = await _read(store, name)
        if read is None:
            code = FAILED
            continue
        history = read.history
        model = read.settings.get("model")
        print_note(f"{name}: {history.item_count} items, revision {history.revision}, {model}")
        for item in map(wire.decode_item, history.raw_items):
            print(for_terminal(_describe_item(item), sys.stdout))
    return code


def _describe_item(item: OutputItem) -> str:
    """Return an item as text: who said what, or which tool was called with what."""
    match item:
        case Message(role=role, content=str(text)):
            return f"{role}: {text}"
        case Message(role=role):
            return f"{role}: {item.output_text or item.content}"
        case Reasoning():
            return "(reasoning)"
        case _ if hasattr(item, "arguments"):
            return f"call: {name_of_call(item)}({getattr(item, 'arguments', '')})"
        case _ if hasattr(item, "output"):
            return f"output: {getattr(item, 'output', '')}"
        case _:
            return f"({item.wire_type})"


async def _export(store: ConversationStore, *, name: str, file: str | None) -> int:
    """Write a conversation as a checkpoint, which ``chat --load`` reads."""
    read = await _read(store, name)
    if read is None:
        return FAILED
    saved = Checkpoint.of(read.settings, read.history, name).encode()
    if file is None:
        sys.stdout.write(saved.decode() + "\n")
        return 0
    path = Path(file)
    if await trio.Path(path).exists():
        raise UsageError(f"{file} exists: choose another file, or remove it first")
    await trio.to_thread.run_sync(write_file, file, saved)
    print_note(f"{read.history.item_count} items exported to {file}")
    return 0


async def _delete(store: ConversationStore, *, names: list[str]) -> int:
    code = 0
    for name in names:
        if await store.delete(name):
            print_note(f"{name} was deleted")
        else:
            print_error(f"the store has no conversation {name!r}")
            code = FAILED
    return code
