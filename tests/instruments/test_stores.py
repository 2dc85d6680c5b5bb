"""Leases and operations of stores: the hooks, the spans, the metrics and the log."""

from __future__ import annotations

import logging
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any, cast

import pytest
import trio
from opentelemetry.trace import SpanKind, StatusCode

from tests.conversation.durable.rig import FaultyStore, Killed, ProcessStore, unavailable
from tests.instruments.telemetry import attributes, is_child, shown_spans, telemetry
from tests.pool.rig import open_to
from tests.testing.driver import NO_WAITING
from trio_responses import Instrument
from trio_responses.stores import ConversationBusy, LeaseLost, MemoryStore, StoreUnavailable

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.instruments.telemetry import Telemetry
    from trio_responses import Conversation
    from trio_responses.stores import ConversationStore
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import LeaseRecord, StoreOperationRecord

__all__ = ["telemetry"]
pytestmark = NO_WAITING
CONTENT = "the-content-of-it-all"
HOLD = ["acquire", "get", "append", "release"]
"""The operations of a new conversation in which no turn runs."""


class StoreNotes(Instrument):
    """An instrument that collects the records of leases and operations."""

    def __init__(self) -> None:
        self.hooks: list[str] = []
        self.leases: list[LeaseRecord] = []
        self.operations: list[StoreOperationRecord] = []

    def lease_requested(self, lease: LeaseRecord) -> None:
        self.hooks.append("requested")
        self.leases.append(lease)

    def lease_acquired(self, lease: LeaseRecord) -> None:
        assert lease in self.leases
        self.hooks.append("acquired")

    def lease_failed(self, lease: LeaseRecord) -> None:
        assert lease in self.leases
        self.hooks.append("failed")

    def lease_ended(self, lease: LeaseRecord) -> None:
        assert lease in self.leases
        self.hooks.append("ended")

    def store_started(self, operation: StoreOperationRecord) -> None:
        self.operations.append(operation)

    def store_finished(self, operation: StoreOperationRecord) -> None:
        assert operation in self.operations
        assert operation.ended_at is not None


@asynccontextmanager
async def own(
    server: ResponsesServer,
    store: ConversationStore | ProcessStore,
    *instruments: Instrument,
    **options: Any,
) -> AsyncGenerator[Conversation, None]:
    """Open the durable conversation ``work`` on a connection with some instruments."""
    async with (
        server.open_client(instruments=instruments) as connection,
        connection.durable_conversation(
            cast("ConversationStore", store), "work", model="m", **options
        ) as conversation,
    ):
        yield conversation


async def lose(server: ResponsesServer, instrument: Instrument) -> None:
    """Open a durable conversation, and delete it meanwhile."""
    async with MemoryStore() as store, own(server, store, instrument) as conversation:
        await store.delete("work")
        await conversation.create("one")


async def fail_to_save(server: ResponsesServer, instrument: Instrument) -> None:
    """Open a durable conversation whose store is away when its turn is saved."""
    async with FaultyStore() as store, own(server, store, instrument) as conversation:
        store.before["append"] = unavailable
        await conversation.create(CONTENT)


# --- Hooks -------------------------------------------------------------------------------


async def test_a_lease_and_the_operations_of_its_store_have_records(
    server: ResponsesServer,
) -> None:
    notes = StoreNotes()
    async with MemoryStore() as store, own(server, store, notes):
        assert notes.hooks == ["requested", "acquired"]
    assert notes.hooks == ["requested", "acquired", "ended"]
    (lease,) = notes.leases
    assert (lease.system, lease.conversation_id) == ("memory", "work")
    assert (lease.attempts, lease.taken_over, lease.error) == (0, False, None)
    assert [one.operation for one in notes.operations] == HOLD
    assert {one.conversation_id for one in notes.operations} == {"work"}
    assert {one.system for one in notes.operations} == {"memory"}


async def test_a_pool_notifies_its_instruments_of_leases(server: ResponsesServer) -> None:
    notes = StoreNotes()
    async with (
        MemoryStore() as store,
        open_to(server, size=1, instruments=[notes]) as pool,
        pool.durable_conversation(store, "work", model="m"),
    ):
        pass
    assert notes.hooks == ["requested", "acquired", "ended"]
    assert [one.operation for one in notes.operations] == HOLD


async def test_a_fork_has_a_lease_of_its_own(server: ResponsesServer) -> None:
    notes = StoreNotes()
    async with MemoryStore() as store, own(server, store, notes) as conversation:
        await conversation.fork("branch")
        assert [one.conversation_id for one in notes.leases] == ["work", "branch"]
    assert notes.hooks == ["requested", "acquired"] * 2 + ["ended"] * 2


async def test_waiting_for_a_lease_counts_the_attempts(server: ResponsesServer) -> None:
    notes = StoreNotes()
    async with MemoryStore() as store, trio.open_nursery() as nursery, own(server, store):

        async def wait() -> None:
            async with own(server, store, notes, wait=100):
                pass

        nursery.start_soon(wait)
        await trio.sleep(5)
    (lease,) = notes.leases
    assert lease.attempts > 1
    assert lease.acquired_at is not None
    assert lease.acquired_at - lease.started_at == pytest.approx(5, abs=1.1)
    assert not lease.taken_over  # the owner before released it


async def test_a_lease_that_ended_by_itself_is_taken_over(server: ResponsesServer) -> None:
    notes = StoreNotes()
    async with MemoryStore() as store:
        with pytest.raises(Killed):
            async with own(server, ProcessStore(store, 2)) as conversation:
                await conversation.create("one")
        async with own(server, store, notes, wait=100):
            pass
    assert notes.leases[0].taken_over


async def test_a_lease_that_is_not_acquired_has_its_error(server: ResponsesServer) -> None:
    notes = StoreNotes()
    async with MemoryStore() as store, own(server, store):
        with pytest.raises(ConversationBusy):
            async with own(server, store, notes):
                pass
        with trio.move_on_after(2):
            async with own(server, store, notes, wait=100):
                pass
    assert notes.hooks == ["requested", "failed"] * 2
    refused, cancelled = notes.leases
    assert isinstance(refused.error, ConversationBusy)
    assert cancelled.error is None
    assert cancelled.acquired_at is None


async def test_a_lost_lease_has_its_error(server: ResponsesServer) -> None:
    notes = StoreNotes()
    with pytest.raises(LeaseLost):
        await lose(server, notes)
    assert notes.hooks == ["requested", "acquired", "ended"]
    assert isinstance(notes.leases[0].error, LeaseLost)


async def test_without_hooks_for_stores_the_store_is_used_directly(
    server: ResponsesServer,
) -> None:
    async with (
        MemoryStore() as store,
        server.open_client(logging=False) as connection,
        connection.durable_conversation(store, "work", model="m") as conversation,
    ):
        # No public name shows the store, and the store itself is the promise.
        assert conversation._block is not None
        assert conversation._block.store is store


# --- OpenTelemetry -----------------------------------------------------------------------


async def test_an_operation_of_a_store_is_a_span_of_a_database(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async with MemoryStore() as store:
        with telemetry.tracer.start_as_current_span("mine") as mine:
            async with own(server, store, telemetry.instrument) as conversation:
                await conversation.create(CONTENT)
    (waiting,) = telemetry.spans("acquire_lease")
    (acquire,) = telemetry.spans("acquire conversation")
    assert is_child(waiting, mine)
    assert is_child(acquire, waiting)
    first, turn = telemetry.spans("append")
    assert is_child(first, mine)
    assert is_child(turn, mine)
    assert turn.kind is SpanKind.INTERNAL  # the memory of the process is no server
    assert attributes(turn) == {
        "db.operation.name": "append",
        "db.query.summary": "append conversation",
        "db.system.name": "memory",
        "gen_ai.conversation.id": "work",
    }
    assert attributes(telemetry.spans("chat")[0])["gen_ai.conversation.id"] == "work"
    assert CONTENT not in shown_spans(telemetry)
    points = telemetry.points()
    operations = points["db.client.operation.duration"]
    assert {one.attributes["db.operation.name"] for one in operations} == set(HOLD)
    assert operations[0].explicit_bounds == (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0)
    (held,) = points["trio_responses.lease.held"]
    assert held.value == 0
    assert telemetry.instrument._operations == {}  # a record that stays would be a leak
    assert telemetry.instrument._leases == {}
    assert telemetry.instrument._lease_requests == {}


async def test_a_store_in_another_process_is_a_client_span(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    class Mine(MemoryStore):
        """A store of the user."""

        system_name = "postgresql"

    async with Mine() as store, own(server, store, telemetry.instrument):
        pass
    (got,) = telemetry.spans("get")
    assert got.kind is SpanKind.CLIENT
    assert attributes(got)["db.system.name"] == "postgresql"


async def test_an_operation_that_fails_is_an_error_span(
    server: ResponsesServer, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(StoreUnavailable):
        await fail_to_save(server, telemetry.instrument)
    failed = telemetry.spans("append")[-1]
    assert attributes(failed)["error.type"] == "StoreUnavailable"
    assert failed.status.status_code is StatusCode.ERROR
    errors = {
        one.attributes.get("error.type")
        for one in telemetry.points()["db.client.operation.duration"]
    }
    assert errors == {None, "StoreUnavailable"}
    warnings = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert {vars(one)["operation"] for one in warnings} == {"append"}
    assert {vars(one)["error_type"] for one in warnings} == {"StoreUnavailable"}


async def test_a_lost_lease_is_a_span_with_a_link_to_its_acquisition(
    server: ResponsesServer, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(LeaseLost):
        await lose(server, telemetry.instrument)
    (lost,) = telemetry.spans("lose_lease")
    (acquired,) = telemetry.spans("acquire_lease")
    assert attributes(lost)["error.type"] == "LeaseLost"
    assert [one.context for one in lost.links] == [acquired.get_span_context()]
    (point,) = telemetry.points()["trio_responses.lease.lost"]
    assert (point.value, dict(point.attributes)) == (1, {"db.system.name": "memory"})
    (line,) = [one for one in caplog.records if one.levelno == logging.WARNING]
    assert line.getMessage().startswith("lease of the conversation work lost (LeaseLost)")


async def test_a_lease_that_was_waited_for_is_measured_and_logged(
    server: ResponsesServer, telemetry: Telemetry, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    async with MemoryStore() as store:
        with pytest.raises(Killed):
            async with own(server, ProcessStore(store, 2)) as conversation:
                await conversation.create("one")
        caplog.clear()
        async with own(server, store, telemetry.instrument, wait=100):
            pass
        async with own(server, store):
            with pytest.raises(ConversationBusy):
                async with own(server, store, telemetry.instrument):
                    pass
    taken, refused = telemetry.spans("acquire_lease")
    assert attributes(taken)["trio_responses.lease.taken_over"] is True
    assert attributes(taken)["trio_responses.lease.attempts"] > 1
    assert attributes(refused)["error.type"] == "ConversationBusy"
    waits = telemetry.points()["trio_responses.lease.wait.duration"]
    assert {one.attributes.get("error.type"): one.sum for one in waits} == {
        None: pytest.approx(30, abs=1.1),
        "ConversationBusy": 0.0,
    }
    lines = [one for one in caplog.records if "lease" in one.getMessage()]
    assert [(one.levelname, one.getMessage().split()[5:7]) for one in lines] == [
        ("WARNING", ["taken", "over"]),
        ("WARNING", ["not", "acquired:"]),
    ]
