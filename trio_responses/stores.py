"""Stores for durable conversations: in memory, in SQLite, in Redis and in PostgreSQL.

A store is open for the length of an ``async with`` block, and keeps any number of conversations::

    async with SQLiteStore("chats.db") as backend, open_responses() as connection:
        async with connection.durable_conversation(backend, "customer-42", model=MODEL) as chat:
            response = await chat.run("Where were we?", request_id=job.id)

`ConversationStore` is the interface for a store of your own; `trio_responses.testing.check_store`
tests it.
"""

from trio_responses._stores.errors import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    OutdatedCheckpoint,
    RequestSuperseded,
    StoreError,
    StoreUnavailable,
    UnsupportedVersion,
)
from trio_responses._stores.interface import (
    ConversationInfo,
    ConversationStore,
    Lease,
    Record,
)
from trio_responses._stores.memory import MemoryStore
from trio_responses._stores.postgres import PostgresStore
from trio_responses._stores.redis import RedisStore
from trio_responses._stores.sqlite import SQLiteStore

__all__ = [
    "ConversationBusy",
    "ConversationInfo",
    "ConversationStore",
    "ConversationTooLarge",
    "Lease",
    "LeaseLost",
    "MemoryStore",
    "OutdatedCheckpoint",
    "PostgresStore",
    "Record",
    "RedisStore",
    "RequestSuperseded",
    "SQLiteStore",
    "StoreError",
    "StoreUnavailable",
    "UnsupportedVersion",
]
