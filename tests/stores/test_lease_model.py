"""A model check of leases: owners that pause, clocks that jump, and calls whose effect is late.

Hypothesis chooses the steps of several owners over one store. The model knows each effect, and what
each owner was told. A call of an owner has one of these outcomes: its effect, and an answer; its
effect, and no answer; or no answer, and its effect with a later step, perhaps never. An owner
without an answer repeats its call or goes on. To pause, an owner has no steps for a while.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
)

from trio_responses.stores import (
    ConversationBusy,
    Lease,
    LeaseLost,
    MemoryStore,
    Record,
    StoreError,
)

if TYPE_CHECKING:
    from trio_responses._stores.base import StoreBase

NAMES: Final = ("a", "b")
"""The conversations."""
OWNERS: Final = ("Ada", "Bob", "Cy")
SECONDS: Final = 10.0
"""The length of each lease."""
WHEN: Final = st.sampled_from(["answered", "answered", "answered", "unanswered", "late"])
"""The outcome of a call."""

Call = Callable[[], Awaitable[Any]]


@dataclass
class Log:
    """What the model knows about the log of a conversation since its latest deletion."""

    records: dict[int, Record] = field(default_factory=dict[int, Record])
    """Each record that was ever read."""
    length: int = 0
    base: int = 0


@dataclass
class Owner:
    """One process, which believes that it owns a conversation."""

    name: str
    starts: int = 0
    """How often it has begun, each time with a random name of its own."""
    acquiring: str | None = None
    """The conversation that it tries to acquire."""
    lease: Lease | None = None
    position: int = 0
    unsaved: list[Record] = field(default_factory=list[Record])
    base: int | None = None

    @property
    def random_name(self) -> str:
        return f"{self.name}-{self.starts}"

    def forget(self) -> None:
        """Forget everything, as a process that was killed."""
        self.starts += 1
        self.acquiring = self.lease = self.base = None
        self.unsaved = []


@dataclass
class Reader:
    """A process that reads a log page by page, in several steps."""

    name: str = "a"
    generation: int = -1
    records: dict[int, Record] = field(default_factory=dict[int, Record])
    position: int = 0


class Leases(RuleBasedStateMachine):
    """Owners, readers and a store."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = 1e9
        self.store = self.make_store()
        self.owners = {name: Owner(name) for name in OWNERS}
        self.reader = Reader()
        self.late: list[tuple[str, Call]] = []
        """Calls that were abandoned, and whose effect is to come: the conversation, and the call."""
        self.logs = {name: Log() for name in NAMES}
        self.generations = dict.fromkeys(NAMES, 0)
        """How often each conversation was deleted, or removed because it was empty."""
        self.largest = dict.fromkeys(NAMES, 0)
        """The largest token of each conversation that any owner has got."""
        self.latest_writer = dict.fromkeys(NAMES, 0)
        """The token of the latest save of each conversation, also before its deletion."""
        self.serial = 0

    def make_store(self) -> StoreBase:
        return use_clock(MemoryStore(), self)

    def run(self, call: Call) -> Any:
        """Run a call in the store, as one step."""

        async def main() -> Any:
            async with self.store:
                return await call()

        return trio.run(main)

    # --- Calls -----------------------------------------------------------------------------

    def call(self, when: str, name: str, call: Call) -> tuple[bool, Any]:
        """Return whether a call was answered, and the answer: a result or an exception."""
        if when == "late":
            self.late.append((name, call))
            return False, None
        answer = self.effect(name, call)
        return when == "answered", answer

    def effect(self, name: str, call: Call) -> Any:
        """Let a call have its effect, and compare the log with what it was before."""
        try:
            answer = self.run(call)
        except StoreError as error:
            answer = error
        self.compare(name)
        return answer

    @rule(data=st.data())
    @precondition(lambda self: self.late)
    def late_effect(self, data: st.DataObject) -> None:
        """An abandoned call has its effect at last, in any order."""
        number = data.draw(st.integers(0, len(self.late) - 1))
        self.effect(*self.late.pop(number))

    def compare(self, name: str) -> None:
        """Check how the log has changed with one effect."""
        found = self.run(partial(self.store.get, name))
        log = self.logs[name]
        if found is None:
            if log.length:
                self.generations[name] += 1
            self.logs[name] = Log()
            return
        assert found.length >= log.length, "the log became shorter"
        assert found.base >= log.base, "the base went back"
        read = self.run(partial(self.store.read, name, found.base))
        assert found.base + len(read) == found.length
        for number, record in enumerate(read, found.base):
            assert log.records.setdefault(number, record) == record, "a record has changed"
        for number in range(log.length, found.length):
            if number not in log.records:  # a new base has removed it with the same effect
                continue
            token = token_of(log.records[number])
            assert token >= self.latest_writer[name], "an older owner saved after a newer one"
            self.latest_writer[name] = token
        for record in log.records.values():
            if record.key is not None:
                assert self.run(partial(self.store.find, name, record.key)) == record
        log.length, log.base = found.length, found.base

    # --- Owners ----------------------------------------------------------------------------

    owners_strategy = st.sampled_from(OWNERS)

    @rule(who=owners_strategy, name=st.sampled_from(NAMES), when=WHEN)
    def acquire(self, who: str, name: str, when: str) -> None:
        owner = self.owners[who]
        if owner.lease is not None:
            return
        if owner.acquiring != name:
            owner.forget()
        owner.acquiring = name
        call = partial(self.store.acquire, name, owner.random_name, seconds=SECONDS)
        answered, answer = self.call(when, name, call)
        if not answered or isinstance(answer, ConversationBusy):
            return
        assert isinstance(answer, Lease)
        assert answer.token >= self.largest[name], "a token did not grow"
        self.largest[name] = answer.token
        owner.lease = answer
        found = self.run(partial(self.store.get, name))
        owner.position = found.length if found is not None else 0

    @rule(who=owners_strategy, count=st.integers(1, 3), keyed=st.booleans())
    def record(self, who: str, count: int, keyed: bool) -> None:  # noqa: FBT001 - a strategy
        """An owner records something, to save it later."""
        owner = self.owners[who]
        if owner.lease is None:
            return
        for _ in range(count):
            self.serial += 1
            data = f"{owner.lease.token} {who} {self.serial}".encode()
            owner.unsaved.append(Record(data, f"key {self.serial}" if keyed else None))

    @rule(who=owners_strategy)
    def replace_history(self, who: str) -> None:
        """An owner makes its latest unsaved record the base."""
        owner = self.owners[who]
        if owner.unsaved:
            owner.base = owner.position + len(owner.unsaved) - 1

    @rule(who=owners_strategy, when=WHEN)
    def append(self, who: str, when: str) -> None:
        owner = self.owners[who]
        if owner.lease is None or not owner.unsaved:
            return
        lease, records = owner.lease, tuple(owner.unsaved)
        name = lease.conversation_id
        generation = self.generations[name]
        call = partial(self.store.append, lease, owner.position, records, base=owner.base)
        answered, answer = self.call(when, name, call)
        if not answered:
            return
        if isinstance(answer, LeaseLost):
            owner.forget()
            return
        assert answer is None, f"the owner {who} was told {answer!r}"
        assert self.largest[name] == lease.token, "an owner saved after another one took over"
        assert self.generations[name] == generation, "an owner saved after the deletion"
        log, end = self.logs[name], owner.position + len(records)
        assert log.length == end
        for number, record in enumerate(records, owner.position):
            if number >= log.base:
                assert log.records[number] == record, "what was said to be saved is not in the log"
        owner.position, owner.unsaved, owner.base = end, [], None

    @rule(who=owners_strategy, when=WHEN)
    def renew(self, who: str, when: str) -> None:
        owner = self.owners[who]
        if owner.lease is None:
            return
        name = owner.lease.conversation_id
        call = partial(self.store.renew, owner.lease, seconds=SECONDS)
        answered, answer = self.call(when, name, call)
        if answered and isinstance(answer, LeaseLost):
            owner.forget()
        elif answered:
            assert self.largest[name] == owner.lease.token, "an owner renewed a lost lease"

    @rule(who=owners_strategy, when=WHEN)
    def release(self, who: str, when: str) -> None:
        owner = self.owners[who]
        if owner.lease is None:
            return
        call = partial(self.store.release, owner.lease)
        answered, _ = self.call(when, owner.lease.conversation_id, call)
        if answered:
            owner.forget()

    @rule(who=owners_strategy)
    def kill(self, who: str) -> None:
        """A process ends. Calls that it has begun may still have their effect."""
        self.owners[who].forget()

    # --- Others ------------------------------------------------------------------------------

    @rule(name=st.sampled_from(NAMES), when=WHEN)
    def delete(self, name: str, when: str) -> None:
        self.call(when, name, partial(self.store.delete, name))

    @rule(seconds=st.sampled_from([1.0, SECONDS / 2, SECONDS + 1, 1e6, -1.0, -SECONDS, -1e6]))
    def clock_jumps(self, seconds: float) -> None:
        self.clock += seconds

    @rule(name=st.sampled_from(NAMES))
    def begin_to_read(self, name: str) -> None:
        found = self.run(partial(self.store.get, name))
        position = found.base if found is not None else 0
        self.reader = Reader(name, self.generations[name], {}, position)

    @rule()
    def read_on(self) -> None:
        """A reader reads one more record, with others writing in between."""
        reader = self.reader
        try:
            page = self.run(partial(self.store.read, reader.name, reader.position))
        except StoreError:
            # A new base, or a deletion, is the only reason.
            assert (
                self.generations[reader.name] != reader.generation
                or reader.position < self.logs[reader.name].base
                or not self.logs[reader.name].length
            )
            self.begin_to_read(reader.name)
            return
        if page:
            reader.records[reader.position] = page[0]
            reader.position += 1

    @invariant()
    def the_tokens_of_a_log_never_decrease(self) -> None:
        for log in self.logs.values():
            tokens = [token_of(record) for _, record in sorted(log.records.items())]
            assert tokens == sorted(tokens)

    @invariant()
    def a_reader_has_a_part_of_one_history(self) -> None:
        reader = self.reader
        if self.generations[reader.name] == reader.generation:
            known = self.logs[reader.name].records
            assert all(known.get(number) == record for number, record in reader.records.items())


def token_of(record: Record) -> int:
    return int(record.data.split()[0])


def use_clock(store: MemoryStore, machine: Leases) -> MemoryStore:
    """Replace the clock of a store."""
    store._now = lambda: machine.clock  # type: ignore[method-assign]
    return store
