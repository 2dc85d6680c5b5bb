"""A model check of leases: owners that pause, clocks that jump, and calls whose effect is late.

Hypothesis chooses the steps of several owners over one store. A call of an owner has its effect and
an answer; or its effect and no answer; or no answer, and its effect with a later step, or never.
An owner without an answer repeats its call, or goes on. An owner pauses by having no steps.

The model knows the valid token of each conversation and the end of its lease. It compares the
answer to each effect with them, and the log after each effect with the log before.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field
from functools import partial
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any, Final, TypeAlias

import pytest
import trio
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from tests.stores.test_conformance import BROKEN
from trio_responses._stores import sqlite
from trio_responses.stores import (
    ConversationBusy,
    Lease,
    LeaseLost,
    MemoryStore,
    Record,
    SQLiteStore,
    StoreError,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from trio_responses._stores.base import StoreBase
    from trio_responses.stores import ConversationInfo

    StoreMaker: TypeAlias = Callable[[Callable[[], float]], StoreBase]

SECONDS: Final = 10.0
"""The length of each lease."""


CALLS_OF_OWNERS: Final = {"append", "renew", "release"}
"""Steps of an owner that has a lease; one that has none acquires one instead."""


@dataclass(frozen=True)
class Step:
    """A step of an example. A part that the step does not need is ignored."""

    kind: str
    """A method of `Leases`."""
    owner: int
    name: str
    outcome: str
    keys: Sequence[bool]
    """Whether each new record has a key."""
    base: int
    """Which of the new records is a base; none if there are not so many."""
    seconds: float
    """How far the clock of the store jumps."""
    number: int
    """Which of the late calls has its effect."""


def often(*values: Any, rarely: Sequence[Any]) -> st.SearchStrategy[Any]:
    return st.sampled_from([*values * 3, *rarely])


STEPS: Final = st.lists(
    st.builds(
        Step,
        kind=often(
            *("append", "take_effect", "jump"),
            rarely=["renew", "release", "kill", "delete", "read", "read", "begin_to_read"],
        ),
        owner=st.integers(0, 2),
        name=often("a", rarely=["b"]),
        outcome=often("answered", rarely=["unanswered", "late"]),
        keys=st.lists(st.booleans(), max_size=3),
        base=st.integers(0, 9),
        seconds=often(1.0, 11.0, rarely=[5.0, 1000.0, -1.0, -11.0, -1000.0]),
        number=st.integers(0, 9),
    ),
    min_size=30,
    max_size=60,
)


@dataclass
class Call:
    """A call of a store that has not had its effect yet."""

    kind: str
    name: str
    run: Callable[[], Awaitable[Any]]
    lease: Lease | None = None
    owner: str = ""


@dataclass
class Conversation:
    """What the model knows about a conversation."""

    token: int = 0
    """The token that is valid; 0 if none is."""
    owner: str = ""
    leased_until: float = 0.0
    largest: int = 0
    """The largest token that was ever valid."""
    writer: int = 0
    """The token of the latest record, also of those that were deleted."""
    generation: int = 0
    """How many times records were deleted."""
    records: dict[int, Record] = field(default_factory=dict[int, Record])
    """Each record that was read since the latest deletion."""
    length: int = 0
    base: int = 0

    def end_lease(self) -> None:
        self.token, self.owner, self.leased_until = 0, "", 0.0


@dataclass
class Owner:
    """A process, and what it knows about the conversation that it acquires or owns."""

    name: str
    starts: int = 0
    wanted: str | None = None
    lease: Lease | None = None
    generation: int = 0
    position: int = 0
    unsaved: list[Record] = field(default_factory=list[Record])
    base: int | None = None

    def forget(self) -> None:
        """Forget everything, like a process that was killed and starts again."""
        self.starts += 1
        self.wanted = self.lease = self.base = None
        self.unsaved = []


@dataclass
class Reader:
    """A process that reads a log record by record, while owners append."""

    name: str = "a"
    generation: int = 0
    position: int = 0
    records: dict[int, Record] = field(default_factory=dict[int, Record])


class Leases:
    """Owners, a reader and a store."""

    def __init__(self, make_store: StoreMaker) -> None:
        self.clock = 1e9
        self.store = make_store(lambda: self.clock)
        self.known = {"a": Conversation(), "b": Conversation()}
        self.owners = [Owner("Ada"), Owner("Bob"), Owner("Cy")]
        self.reader = Reader()
        self.late: list[Call] = []
        """Calls that were abandoned, and whose effect may come."""
        self.serial = 0

    def in_store(self, run: Callable[[], Awaitable[Any]]) -> Any:
        async def main() -> Any:
            async with self.store:
                return await run()

        return trio.run(main)

    # --- Effects ---------------------------------------------------------------------------

    def call(self, step: Step, call: Call) -> tuple[bool, Any]:
        """Return whether a call was answered, and its result or its exception."""
        if step.outcome == "late":
            self.late.append(call)
            return False, None
        answer = self.effect(call)
        return step.outcome == "answered", answer

    def effect(self, call: Call) -> Any:
        """Let a call have its effect, and compare everything with what is known."""
        answer: Any
        keys = [each.key for each in self.known[call.name].records.values() if each.key]

        async def run() -> tuple[Any, ConversationInfo | None, Sequence[Record], list[Any]]:
            try:
                answer = await call.run()
            except StoreError as error:
                answer = error
            found = await self.store.get(call.name)
            log = await self.store.read(call.name, found.base) if found is not None else ()
            return answer, found, log, [await self.store.find(call.name, key) for key in keys]

        answer, found, log, keyed = self.in_store(run)
        self.compare_answer(call, answer)
        self.compare_log(self.known[call.name], found, log, keyed)
        return answer

    def compare_answer(self, call: Call, answer: Any) -> None:
        """Compare an answer with the valid token, and with the end of the lease."""
        known = self.known[call.name]
        is_valid = call.lease is not None and call.lease.token == known.token
        match call.kind:
            case "acquire" if known.token and known.owner == call.owner:
                assert answer == Lease(call.name, call.owner, known.token)
                known.leased_until = self.clock + SECONDS
            case "acquire" if self.clock < known.leased_until:
                assert isinstance(answer, ConversationBusy), f"{answer} while leased"
            case "acquire":
                assert isinstance(answer, Lease), f"{answer!r} after the end of a lease"
                assert answer.token > known.largest, "a token did not grow"
                known.token = known.largest = answer.token
                known.owner, known.leased_until = call.owner, self.clock + SECONDS
            case "append":
                assert isinstance(answer, LeaseLost) is not is_valid, f"{answer!r}, {is_valid=}"
            case "renew":
                assert isinstance(answer, LeaseLost) is not is_valid, f"{answer!r}, {is_valid=}"
                if is_valid:
                    known.leased_until = self.clock + SECONDS
            case "release":
                assert answer is None
                if is_valid:
                    known.end_lease()
            case _:
                assert call.kind == "delete"
                assert answer == bool(known.length)
                known.end_lease()

    def compare_log(
        self,
        known: Conversation,
        found: ConversationInfo | None,
        log: Sequence[Record],
        keyed: list[Record | None],
    ) -> None:
        """Check how a log has changed with one effect."""
        if found is None:
            assert all(record is None for record in keyed)
            if known.length:
                known.generation += 1
                assert not known.token, "records are gone, and were not deleted"
            known.records, known.length, known.base = {}, 0, 0
            return
        assert keyed == [record for record in known.records.values() if record.key]
        assert found.length >= known.length, "the log became shorter"
        assert found.base >= known.base, "the base went back"
        assert found.base + len(log) == found.length
        for number, record in enumerate(log, found.base):
            assert known.records.setdefault(number, record) == record, "a record has changed"
            if number >= known.length:
                assert token_of(record) >= known.writer, "an older owner saved after a newer one"
                known.writer = token_of(record)
        known.length, known.base = found.length, found.base

    # --- Owners ----------------------------------------------------------------------------

    def acquire(self, owner: Owner, step: Step) -> None:
        if owner.wanted != step.name:
            owner.forget()
            owner.wanted = step.name
        name, random_name = step.name, f"{owner.name}-{owner.starts}"
        run = partial(self.store.acquire, name, random_name, seconds=SECONDS)
        answered, answer = self.call(step, Call("acquire", name, run, owner=random_name))
        if answered and isinstance(answer, Lease):
            owner.lease = answer
            owner.position = self.known[name].length
            owner.generation = self.known[name].generation

    def append(self, owner: Owner, lease: Lease, step: Step) -> None:
        """An owner appends new records, and those for which it has no answer yet."""
        for number, is_keyed in enumerate(step.keys):
            self.serial += 1
            text = f"{lease.token} {owner.name} {self.serial}"
            owner.unsaved.append(Record(text.encode(), f"key {self.serial}" if is_keyed else None))
            if number == step.base:
                owner.base = owner.position + len(owner.unsaved) - 1
        if not owner.unsaved:
            return
        name, records = lease.conversation_id, tuple(owner.unsaved)
        run = partial(self.store.append, lease, owner.position, records, base=owner.base)
        answered, answer = self.call(step, Call("append", name, run, lease))
        if not answered:
            return
        if isinstance(answer, LeaseLost):
            owner.forget()
            return
        assert answer is None, f"{owner.name} was told {answer!r}"
        known, end = self.known[name], owner.position + len(records)
        assert known.length == end, "what was saved is not the end of the log"
        assert known.generation == owner.generation, "an owner saved after a deletion"
        for number, record in enumerate(records, owner.position):
            assert number < known.base or known.records[number] == record
        owner.position, owner.unsaved, owner.base = end, [], None

    def renew(self, owner: Owner, lease: Lease, step: Step) -> None:
        run = partial(self.store.renew, lease, seconds=SECONDS)
        answered, answer = self.call(step, Call("renew", lease.conversation_id, run, lease))
        if answered and isinstance(answer, LeaseLost):
            owner.forget()

    def release(self, owner: Owner, lease: Lease, step: Step) -> None:
        run = partial(self.store.release, lease)
        answered, _ = self.call(step, Call("release", lease.conversation_id, run, lease))
        if answered:
            owner.forget()

    # --- Steps -----------------------------------------------------------------------------

    def take(self, step: Step) -> None:
        owner = self.owners[step.owner]
        method = getattr(self, step.kind)
        if step.kind not in CALLS_OF_OWNERS:
            method(step)
        elif owner.lease is not None:
            method(owner, owner.lease, step)
        else:
            self.acquire(owner, step)
        self.check_tokens()
        self.check_reader()

    def take_effect(self, step: Step) -> None:
        """Let an abandoned call have its effect; such calls have no order."""
        if step.number < len(self.late):
            self.effect(self.late.pop(step.number))

    def kill(self, step: Step) -> None:
        """End a process. Calls that it has begun may still have their effect."""
        self.owners[step.owner].forget()

    def jump(self, step: Step) -> None:
        self.clock += step.seconds

    def delete(self, step: Step) -> None:
        run = partial(self.store.delete, step.name)
        self.call(step, Call("delete", step.name, run))

    def begin_to_read(self, step: Step) -> None:
        known = self.known[step.name]
        self.reader = Reader(step.name, known.generation, known.base)

    def read(self, step: Step) -> None:
        """The reader reads one more record."""
        reader = self.reader
        known = self.known[reader.name]
        try:
            page = self.in_store(partial(self.store.read, reader.name, reader.position))
        except StoreError:
            is_gone = known.generation != reader.generation or not known.length
            assert is_gone or reader.position < known.base
            self.begin_to_read(step)
            return
        if page:
            reader.records[reader.position] = page[0]
            reader.position += 1

    def check_tokens(self) -> None:
        """Check that the tokens of a log never decrease."""
        for known in self.known.values():
            tokens = [token_of(record) for _, record in sorted(known.records.items())]
            assert tokens == sorted(tokens)

    def check_reader(self) -> None:
        """Check that what the reader has read is a part of one history."""
        reader = self.reader
        known = self.known[reader.name]
        if known.generation == reader.generation:
            assert all(known.records[n] == record for n, record in reader.records.items())


def token_of(record: Record) -> int:
    """Return the token of the owner that wrote a record."""
    return int(record.data.split()[0])


def take_all(steps: list[Step], make_store: StoreMaker) -> None:
    leases = Leases(make_store)
    for step in steps:
        leases.take(step)


def make_memory_store(
    clock: Callable[[], float], kind: type[MemoryStore] = MemoryStore
) -> MemoryStore:
    store = kind()
    store._now = clock  # type: ignore[method-assign]
    return store


def test_two_owners_never_both_save() -> None:
    @settings(max_examples=60)
    @given(steps=STEPS)
    def run(steps: list[Step]) -> None:
        take_all(steps, make_memory_store)

    run()


def test_two_owners_never_both_save_in_sqlite(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    numbers = itertools.count()

    def make_sqlite_store(clock: Callable[[], float]) -> SQLiteStore:
        monkeypatch.setattr(sqlite, "time", SimpleNamespace(time=clock))
        return SQLiteStore(tmp_path / f"{next(numbers)}.db")

    @settings(max_examples=25)
    @given(steps=STEPS)
    def run(steps: list[Step]) -> None:
        take_all(steps, make_sqlite_store)

    run()


DANGEROUS: Final = (
    "append with any token",
    "renew with any token",
    "tokens begin again after a deletion",
    "a takeover keeps the token",
    "each acquire has a new token",
    "a lease excludes nobody",
    "append is not repeatable",
    "delete leaves the lease",
)


@pytest.mark.parametrize("broken", DANGEROUS)
def test_the_model_finds_a_broken_store(broken: str) -> None:
    kind = type("BrokenStore", (MemoryStore,), dict(BROKEN[broken]))

    @settings(max_examples=500, derandomize=True, database=None, phases=[Phase.generate])
    @given(steps=STEPS)
    def run(steps: list[Step]) -> None:
        take_all(steps, partial(make_memory_store, kind=kind))

    with pytest.raises(AssertionError):
        run()
