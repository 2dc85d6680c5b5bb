"""`check_store`: checks that a store of conversations keeps the promises of its interface.

Each check is a function, whose docstring is the promise. `PROMISES` lists them in the order in
which they run. A check uses conversations of its own, with random ids.
"""

from __future__ import annotations

import math
import random
import secrets
from collections import Counter
from contextlib import AsyncExitStack, contextmanager, suppress
from functools import partial
from itertools import pairwise, zip_longest
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._errors import ConfigurationError
from trio_responses._stores.errors import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    StoreError,
)
from trio_responses._stores.interface import Record

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Generator, Sequence
    from contextlib import AbstractAsyncContextManager

    from trio_responses._stores.interface import ConversationInfo, ConversationStore, Lease

__all__ = ["check_store"]

T = TypeVar("T")

LONG: Final = 600.0
"""The length of a lease that does not end during a check, in seconds."""
SHORT: Final = 0.3
"""The length of a lease whose end a check waits for."""
YEAR_2017: Final = 1.5e9
YEAR_5138: Final = 1e11
"""Limits of a plausible time in seconds since 1970. Milliseconds are beyond."""
PATIENCE: Final = 60.0
"""The greatest length of one check, without the time that a cancelled call may take."""
TESTED_LIMIT: Final = 16 * 1024 * 1024
"""The largest limit of a store that is tested, in bytes."""
STORES: Final = 3
"""How many stores are open at once."""
MAX_ID: Final = 512
ASCII_PARTS: Final = [
    chr(code) for code in (*range(1, 0x30), *range(0x3A, 0x61), *range(0x7B, 0x80))
]
OTHER_CODES: Final = (
    *(0x80, 0xDF, 0xE9, 0x130, 0x131, 0x200B, 0x2028, 0xD7FF, 0xE000, 0xFEFF, 0xFFFF),
    *(0x10000, 0x1F600, 0x10FFFF),
)
TEXTS: Final = ("a", "z", "ss", "00", "%s", "{0}", "e\u0301", "日本", "العربية")
ODD_PARTS: Final = (*ASCII_PARTS, *map(chr, OTHER_CODES), *TEXTS)
"""Parts of ids that engines may treat in a special way."""


async def check_store(
    make_store: Callable[[], AbstractAsyncContextManager[ConversationStore]],
) -> None:
    """Check that a store keeps every promise of `trio_responses.stores.ConversationStore`.

    Takes a few seconds, because it waits for leases to end; with ``trio.testing.MockClock`` and a
    store that uses Trio's clock it waits for nothing. The conversations have random ids and are
    deleted at the end, so that the engine may have others.

    The size limits are tested if the store has them as ``max_record_bytes`` and
    ``max_conversation_bytes``, of at most 16 MiB. They must allow records of 128 KiB, and
    conversations of 4 MiB.

    :param make_store: returns an async context manager of a store. Several are open at once, over
        the same data, as in several processes.
    :raises AssertionError: at the first promise that is broken, with a sentence that says which.
    """
    async with AsyncExitStack() as stack:
        stores = [await stack.enter_async_context(make_store()) for _ in range(STORES)]
        rig = _Rig(stores)
        try:
            for promise in PROMISES:
                with _explained(rig, promise), trio.fail_after(PATIENCE):
                    await promise(rig)
        finally:
            await rig.clean_up()


@contextmanager
def _explained(rig: _Rig, promise: Callable[[_Rig], object]) -> Generator[None]:
    """Raise an exception of a check as an AssertionError that states the promise."""
    try:
        yield
    except Exception as error:
        detail = str(error) if isinstance(error, AssertionError) else repr(error)
        if isinstance(error, trio.TooSlowError):
            detail = f"the check did not end within {PATIENCE:g} s"
        raise AssertionError(
            f"{type(rig.store).__name__} breaks a promise: {promise.__doc__} {detail}"
        ) from error


def _require(condition: bool, detail: str) -> None:  # noqa: FBT001 - as in an assert statement
    if not condition:
        raise AssertionError(detail)


@contextmanager
def _refused(expected: type[Exception], action: str) -> Generator[None]:
    """Require that the block raises an exception."""
    try:
        yield
    except expected:
        return
    except Exception as error:
        raise AssertionError(
            f"{action} raised {type(error).__name__} instead of {expected.__name__}: {error}"
        ) from error
    raise AssertionError(f"{action} did not raise {expected.__name__}")


class _Rig:
    """Stores over the same data, and the conversations of a check."""

    def __init__(self, stores: Sequence[ConversationStore]) -> None:
        self.store = stores[0]
        self.other = stores[-1]
        self.stores = stores
        self.prefix = f"check-{secrets.token_hex(8)}-"
        self.ids: list[str] = []

    def new_id(self, end: str = "") -> str:
        """Return the id of a conversation that does not exist yet."""
        return self.note(f"{self.prefix}{len(self.ids)}-{end}")

    def note(self, conversation_id: str) -> str:
        """Return an id, after a note that its conversation is to be deleted."""
        self.ids.append(conversation_id)
        return conversation_id

    async def acquire(self, conversation_id: str, *, seconds: float = LONG) -> Lease:
        return await self.store.acquire(conversation_id, _new_owner(), seconds=seconds)

    async def make(self, *records: Record, end: str = "", base: int | None = None) -> Lease:
        """Return the lease of a new conversation that has these records."""
        lease = await self.acquire(self.new_id(end))
        if records:
            await self.store.append(lease, 0, records, base=base)
        return lease

    async def describe(self, conversation_id: str) -> ConversationInfo:
        """Return what another process knows about a conversation that has records."""
        found = await self.other.get(conversation_id)
        if found is None:
            raise AssertionError("get() returned None for a conversation that has records")
        return found

    async def read(self, conversation_id: str, position: int = 0) -> list[Record]:
        """Return all records from a position on, page by page, as another process reads them."""
        found = await self.describe(conversation_id)
        records: list[Record] = []
        while position + len(records) < found.length:
            page = await self.other.read(conversation_id, position + len(records))
            _require(len(page) > 0, "read() returned no records before the end of the log")
            records += page
        return records

    async def require_log(
        self, conversation_id: str, expected: Sequence[Record], *, base: int = 0
    ) -> None:
        """Require that the records from the base on are these."""
        found = await self.describe(conversation_id)
        _require(found.base == base, f"the base is {found.base} instead of {base}")
        end = base + len(expected)
        _require(found.length == end, f"the length is {found.length} instead of {end}")
        records = await self.read(conversation_id, base)
        _require(
            records == list(expected), f"the log has {_show(records)} instead of {_show(expected)}"
        )

    async def clean_up(self) -> None:
        """Delete the conversations, as far as the engine can be reached."""
        with trio.move_on_after(PATIENCE, shield=True):
            for conversation_id in self.ids:
                with suppress(Exception):
                    await self.store.delete(conversation_id)


def _new_owner() -> str:
    return secrets.token_hex(8)


def _records(*data: bytes) -> list[Record]:
    return [Record(each) for each in data]


def _show(records: Sequence[Record]) -> str:
    return repr([(record.data[:20], record.key) for record in records])[:500]


def _describe(found: Sequence[ConversationInfo]) -> list[str]:
    return [each.conversation_id for each in found]


# --- Leases ------------------------------------------------------------------------------


async def one_owner_at_a_time(rig: _Rig) -> None:
    """A second owner gets ConversationBusy as long as the lease lasts."""
    lease = await rig.acquire(rig.new_id())
    for store in rig.stores:
        with _refused(ConversationBusy, "acquire() of a leased conversation"):
            await store.acquire(lease.conversation_id, _new_owner(), seconds=LONG)
    await rig.store.append(lease, 0, _records(b"a"))
    try:
        await rig.other.acquire(lease.conversation_id, _new_owner(), seconds=LONG)
    except ConversationBusy as busy:
        _require(busy.conversation_id == lease.conversation_id, "ConversationBusy has another id")
        _require(
            0 < busy.seconds_left <= LONG + 1,
            f"ConversationBusy.seconds_left is {busy.seconds_left} for a lease of {LONG:g} s",
        )
    else:
        raise AssertionError("acquire() of a leased conversation did not raise ConversationBusy")


async def acquire_is_repeatable(rig: _Rig) -> None:
    """The same owner gets the same lease again, with a new end."""
    conversation_id, owner = rig.new_id(), _new_owner()
    first = await rig.store.acquire(conversation_id, owner, seconds=SHORT)
    _require(
        (first.conversation_id, first.owner) == (conversation_id, owner),
        f"acquire() returned {first!r} for {conversation_id!r} and {owner!r}",
    )
    again = await rig.other.acquire(conversation_id, owner, seconds=LONG)
    _require(again == first, f"the same owner got {again!r} after {first!r}")
    await trio.sleep(2 * SHORT)
    with _refused(ConversationBusy, "acquire() by another owner, after the old end,"):
        await rig.store.acquire(conversation_id, _new_owner(), seconds=LONG)


async def one_of_many_wins(rig: _Rig) -> None:
    """Of owners that acquire a conversation at the same time, exactly one succeeds."""
    conversation_id = rig.new_id()
    outcomes: Counter[str] = Counter()

    async def acquire(store: ConversationStore) -> None:
        try:
            await store.acquire(conversation_id, _new_owner(), seconds=LONG)
        except ConversationBusy:
            outcomes["busy"] += 1
        else:
            outcomes["acquired"] += 1

    async with open_collapsing_nursery() as nursery:
        for number in range(12):
            nursery.start_soon(acquire, rig.stores[number % len(rig.stores)])
    _require(outcomes["acquired"] == 1, f"{outcomes['acquired']} of 12 owners got the lease")


async def a_lease_ends(rig: _Rig) -> None:
    """Another owner acquires the conversation after the lease has ended, and not long before."""
    asked_at = trio.current_time()
    old = await rig.acquire(rig.new_id(), seconds=SHORT)
    await rig.store.append(old, 0, _records(b"a"))
    new = await _take_over(rig, old)
    waited = trio.current_time() - asked_at
    _require(waited >= SHORT / 2, f"a lease of {SHORT} s ended after {waited:.3f} s")
    _require(new.token > old.token, f"the token {new.token} follows {old.token}")


async def _take_over(rig: _Rig, old: Lease) -> Lease:
    """Acquire a conversation as soon as its lease has ended."""
    owner = _new_owner()
    with trio.move_on_after(PATIENCE / 2):
        while True:
            with suppress(ConversationBusy):
                return await rig.other.acquire(old.conversation_id, owner, seconds=LONG)
            await trio.sleep(SHORT / 6)
    raise AssertionError(f"a lease of {SHORT} s had not ended after {PATIENCE / 2:g} s")


async def a_renewal_moves_the_end(rig: _Rig) -> None:
    """A renewed lease lasts until its new end, also if it was renewed after its old one."""
    for pause in (0.0, 2 * SHORT):
        lease = await rig.make(Record(b"a"))
        await rig.store.renew(lease, seconds=SHORT)
        await trio.sleep(pause)
        await rig.store.renew(lease, seconds=LONG)
        await trio.sleep(2 * SHORT)
        with _refused(ConversationBusy, "acquire() of a renewed conversation"):
            await rig.other.acquire(lease.conversation_id, _new_owner(), seconds=LONG)
    await rig.store.renew(lease, seconds=SHORT)
    await _take_over(rig, lease)


async def a_lease_that_ended_is_still_valid(rig: _Rig) -> None:
    """An owner whose lease has ended appends, as long as no other owner took over."""
    lease = await rig.acquire(rig.new_id(), seconds=SHORT)
    await trio.sleep(2 * SHORT)
    await rig.store.append(lease, 0, _records(b"a"))
    again = await rig.store.acquire(lease.conversation_id, lease.owner, seconds=LONG)
    _require(again == lease, f"the same owner got {again!r} after {lease!r}")
    await rig.require_log(lease.conversation_id, _records(b"a"))


async def an_old_token_is_refused(rig: _Rig) -> None:
    """After a takeover, the former owner gets LeaseLost and changes nothing."""
    old = await rig.acquire(rig.new_id(), seconds=SHORT)
    await rig.store.append(old, 0, _records(b"a"))
    new = await _take_over(rig, old)
    await _require_lost(rig, old, after="a takeover")
    await rig.require_log(new.conversation_id, _records(b"a"))
    await rig.other.append(new, 1, _records(b"b"))
    await _require_lost(rig, old, after="a takeover")
    await rig.require_log(new.conversation_id, _records(b"a", b"b"))
    with _refused(ConversationBusy, "acquire(), after the release by the former owner,"):
        await rig.store.acquire(new.conversation_id, _new_owner(), seconds=LONG)


async def _require_lost(rig: _Rig, lease: Lease, *, after: str) -> None:
    """Require that nothing can be done with a lease."""
    for position in range(3):
        with _refused(LeaseLost, f"append() at {position} with the lease before {after}"):
            await rig.store.append(lease, position, _records(b"late"))
    with _refused(LeaseLost, f"append() of a base with the lease before {after}"):
        await rig.store.append(lease, 1, _records(b"late"), base=1)
    with _refused(LeaseLost, f"renew() with the lease before {after}"):
        await rig.store.renew(lease, seconds=SHORT)
    await rig.store.release(lease)


async def a_release_ends_the_lease(rig: _Rig) -> None:
    """After a release, others acquire the conversation at once, and the lease is lost."""
    lease = await rig.make(Record(b"a"))
    await rig.store.release(lease)
    await rig.store.release(lease)
    found = await rig.describe(lease.conversation_id)
    _require(found.leased_until is None, f"after a release, get() returned {found!r}")
    await _require_lost(rig, lease, after="a release")
    new = await rig.other.acquire(lease.conversation_id, _new_owner(), seconds=LONG)
    _require(new.token > lease.token, f"the token {new.token} follows {lease.token}")
    await _require_lost(rig, lease, after="a release")
    await rig.require_log(lease.conversation_id, _records(b"a"))


async def an_owner_that_released_gets_a_new_lease(rig: _Rig) -> None:
    """The owner of a released lease that acquires again gets a larger token."""
    old = await rig.make(Record(b"a"))
    await rig.store.release(old)
    new = await rig.store.acquire(old.conversation_id, old.owner, seconds=LONG)
    _require(new.token > old.token, f"the token {new.token} follows {old.token}")
    await rig.store.append(new, 1, _records(b"b"))
    await rig.require_log(new.conversation_id, _records(b"a", b"b"))


async def tokens_only_grow(rig: _Rig) -> None:
    """Each lease has a larger token than all leases before, also after the deletion of all."""
    conversation_id = rig.new_id()
    tokens: list[int] = []
    for number in range(9):
        lease = await rig.stores[number % len(rig.stores)].acquire(
            conversation_id, _new_owner(), seconds=LONG
        )
        _require(isinstance(lease.token, int), f"the token {lease.token!r} is no int")
        tokens.append(lease.token)
        if number % 3:  # otherwise the conversation is empty, so that its release removes it
            found = await rig.store.get(conversation_id)
            await rig.store.append(lease, found.length if found else 0, _records(b"a"))
        if number % 2:
            await rig.store.release(lease)
        else:
            await rig.other.delete(conversation_id)
    _require(all(a < b for a, b in pairwise(tokens)), f"the tokens were {tokens}")


async def leases_are_of_one_conversation(rig: _Rig) -> None:
    """The lease of one conversation does not affect another one."""
    first, second = await rig.make(Record(b"1")), await rig.make(Record(b"2"))
    await rig.store.release(first)
    await rig.store.renew(second, seconds=LONG)
    await rig.store.append(second, 1, _records(b"3"))
    with _refused(ConversationBusy, "acquire(), after the release of another conversation,"):
        await rig.store.acquire(second.conversation_id, _new_owner(), seconds=LONG)
    await rig.require_log(first.conversation_id, _records(b"1"))
    await rig.require_log(second.conversation_id, _records(b"2", b"3"))


# --- The log -----------------------------------------------------------------------------


async def what_was_appended_is_read(rig: _Rig) -> None:
    """Records are read in their order, with their data and keys, through each store."""
    records = [Record(b"a"), Record(b"b", "key"), Record(b""), Record(b"", "empty")]
    lease = await rig.make(*records)
    await rig.require_log(lease.conversation_id, records)
    more = [Record(b"c", "key"), Record(b"d")]
    await rig.store.append(lease, 4, more)
    await rig.require_log(lease.conversation_id, [*records, *more])
    for position in range(7):
        read = await rig.read(lease.conversation_id, position)
        _require(
            read == [*records, *more][position:],
            f"read() from {position} on returned {_show(read)}",
        )


async def data_is_any_bytes(rig: _Rig) -> None:
    """Data comes back as it was, whatever bytes it has."""
    records = _records(
        b"",
        b"\0",
        bytes(range(256)),
        b"\xff\xfe\0\n\r\n",
        "\0é\u2028".encode(),
        b'{"a": "\\u0000"}',
    )
    records.append(Record(random.randbytes(100_000), "large"))  # noqa: S311 - no secret
    lease = await rig.make(*records)
    await rig.require_log(lease.conversation_id, records)
    found = await rig.other.find(lease.conversation_id, "large")
    _require(found == records[-1], "find() returned other data than was appended")


async def a_long_log_is_read_in_pages(rig: _Rig) -> None:
    """A reader that follows the pages gets all records, also large and many ones."""
    large = [Record(bytes([number]) * 60_000) for number in range(40)]
    small = [Record(b"%d" % number, f"{number}" if number % 2 else None) for number in range(1500)]
    for records in (large, small):
        lease = await rig.make(*records)
        await rig.require_log(lease.conversation_id, records)
        await rig.store.append(lease, len(records), _records(b"last"))
        await rig.require_log(lease.conversation_id, [*records, Record(b"last")])


async def appends_are_repeatable(rig: _Rig) -> None:
    """Records that the log has already are not appended again, however the append overlaps."""
    log = _records(b"0", b"1", b"2", b"3")
    lease = await rig.make(*log[:2])
    for start, end in ((0, 2), (1, 2), (0, 3), (0, 3), (2, 3), (1, 4), (0, 4), (3, 4)):
        await rig.stores[start % len(rig.stores)].append(lease, start, log[start:end])
        await rig.require_log(lease.conversation_id, log[:end])
    await _require_size(rig, lease, 4)


async def gaps_are_refused(rig: _Rig) -> None:
    """Records that do not continue the log are refused, and change nothing."""
    lease = await rig.acquire(rig.new_id())
    for position in (1, 2, 100, -1):
        with _refused(StoreError, f"append() at {position} of an empty log"):
            await rig.store.append(lease, position, _records(b"x"))
    await rig.store.append(lease, 0, _records(b"a", b"b", b"c"))
    for position, count in ((4, 1), (100, 2), (0, 2), (1, 1), (0, 1), (-1, 3), (-1, 5)):
        with _refused(StoreError, f"append() of {count} records at {position} of a log of 3"):
            await rig.store.append(lease, position, _records(*[b"x"] * count))
    for base in (2, 4, 5, -1):
        with _refused(StoreError, f"append() of the record 3 with the base {base}"):
            await rig.store.append(lease, 3, _records(b"x"), base=base)
    with suppress(StoreError, ConfigurationError):  # an append of nothing may be refused
        await rig.store.append(lease, 3, [])
    await rig.require_log(lease.conversation_id, _records(b"a", b"b", b"c"))


async def an_append_of_nothing_makes_nothing(rig: _Rig) -> None:
    """An append without records is refused, or has no effect."""
    lease = await rig.acquire(rig.new_id())
    with suppress(StoreError, ConfigurationError):
        await rig.store.append(lease, 0, [])
    await _require_invisible(rig, lease.conversation_id)


async def positions_outside_of_the_log_are_refused(rig: _Rig) -> None:
    """A read from a position that the log does not have raises StoreError; its end is no error."""
    lease = await rig.make(*_records(b"a", b"b"))
    _require(
        list(await rig.store.read(lease.conversation_id, 2)) == [],
        "read() from the end of the log on returned records",
    )
    for position in (-1, 3, 100):
        with _refused(StoreError, f"read() from {position} on, of a log of 2 records,"):
            await rig.store.read(lease.conversation_id, position)
    for position in (0, 1):
        with _refused(StoreError, f"read() from {position} on, of an unknown conversation,"):
            await rig.store.read(rig.new_id(), position)


async def a_new_base_removes_what_is_before(rig: _Rig) -> None:
    """A new base removes the records before it, but those with keys, in the same step."""
    lease = await rig.make(Record(b"0"), Record(b"11", "kept"), Record(b"222"))
    new = [Record(b"4444"), Record(b"55555", "new"), Record(b"666666"), Record(b"7777777")]
    for _ in range(2):  # the second one is a repetition
        await rig.store.append(lease, 3, new, base=5)
        await rig.require_log(lease.conversation_id, new[2:], base=5)
        await _require_size(rig, lease, 2 + 5 + 6 + 7)
    for position in range(5):
        with _refused(StoreError, f"read() from {position} on, before the base,"):
            await rig.store.read(lease.conversation_id, position)
    await _require_found(rig, lease, kept=b"11", new=b"55555")
    await rig.store.append(lease, 7, [Record(b"88", "new")])
    await rig.require_log(lease.conversation_id, [*new[2:], Record(b"88", "new")], base=5)
    await rig.store.append(lease, 8, _records(b"9"), base=8)
    await rig.require_log(lease.conversation_id, _records(b"9"), base=8)
    await _require_found(rig, lease, kept=b"11", new=b"88")


async def _require_found(rig: _Rig, lease: Lease, **expected: bytes) -> None:
    for key, data in expected.items():
        found = await rig.other.find(lease.conversation_id, key)
        _require(found == Record(data, key), f"find({key!r}) returned {found!r}, not {data!r}")


async def _require_size(rig: _Rig, lease: Lease, size: int) -> None:
    found = await rig.describe(lease.conversation_id)
    _require(found.size == size, f"the size is {found.size} instead of {size}")


async def a_base_in_an_overlap(rig: _Rig) -> None:
    """A base takes effect also if the log has some of the records of its append already."""
    log = _records(b"0", b"1", b"2", b"3")
    lease = await rig.make(*log[:2])
    await rig.store.append(lease, 1, log[1:3], base=1)
    await rig.require_log(lease.conversation_id, log[1:3], base=1)
    await rig.store.append(lease, 1, log[1:4], base=3)
    await rig.require_log(lease.conversation_id, log[3:], base=3)
    await _require_size(rig, lease, 1)


async def the_latest_record_with_a_key_is_found(rig: _Rig) -> None:
    """A record is found by its key; of several, the latest one."""
    odd = [f"{part}-{number}" for number, part in enumerate(ODD_PARTS)]
    records = [Record(b"first", "key"), Record(b"second", "key"), Record(b"K", "KEY")]
    records += [Record(key.encode(), key) for key in odd]
    lease = await rig.make(*records)
    other = await rig.make(Record(b"other", "key"))
    await _require_found(rig, lease, key=b"second", KEY=b"K", **{key: key.encode() for key in odd})
    await rig.store.append(lease, len(records), [Record(b"third", "key"), Record(b"none")])
    await _require_found(rig, lease, key=b"third")
    await _require_found(rig, other, key=b"other")
    for missing in ("none", "ke", "key ", "Key", "%"):
        found = await rig.store.find(lease.conversation_id, missing)
        _require(found is None, f"find({missing!r}) returned {found!r} for a key that is unknown")
    found = await rig.store.find(rig.new_id(), "key")
    _require(found is None, f"find() in an unknown conversation returned {found!r}")


async def conversations_are_separate(rig: _Rig) -> None:
    """Conversations whose ids look alike have separate logs."""
    leases = [await rig.make(end="x")]
    common = leases[0].conversation_id
    leases += [
        await rig.acquire(rig.note(f"{common}{part}"))
        for part in ("X", " ", "%", "_", ":", "é", "e\u0301", ":0", "\u200b")
    ]
    for lease in leases:
        await rig.store.append(lease, 0, [Record(lease.conversation_id.encode(), "key")])
    await rig.store.append(leases[0], 1, _records(b"base"), base=1)
    await rig.store.delete(leases[1].conversation_id)
    for lease in leases[2:]:
        expected = Record(lease.conversation_id.encode(), "key")
        await rig.require_log(lease.conversation_id, [expected])
        await _require_found(rig, lease, key=expected.data)


async def many_write_at_once(rig: _Rig) -> None:
    """Appends to many conversations at the same time, through several stores, are all kept."""

    async def write(store: ConversationStore, conversation_id: str) -> None:
        lease = await store.acquire(conversation_id, _new_owner(), seconds=LONG)
        for number in range(4):
            await store.append(lease, number, [Record(b"%d" % number, f"{number}")])
        await store.release(lease)

    ids = [rig.new_id() for _ in range(15)]
    async with open_collapsing_nursery() as nursery:
        for number, conversation_id in enumerate(ids):
            nursery.start_soon(write, rig.stores[number % len(rig.stores)], conversation_id)
    for conversation_id in ids:
        expected = [Record(b"%d" % number, f"{number}") for number in range(4)]
        await rig.require_log(conversation_id, expected)


async def one_owner_writes_at_once(rig: _Rig) -> None:
    """Of the same append, sent several times at the same time, one takes effect."""
    lease = await rig.acquire(rig.new_id())
    records = [Record(b"a", "key"), Record(b"b")]
    async with open_collapsing_nursery() as nursery:
        for number in range(6):
            store = rig.stores[number % len(rig.stores)]
            nursery.start_soon(store.append, lease, 0, records)
    await rig.require_log(lease.conversation_id, records)
    await _require_size(rig, lease, 2)


async def readers_see_whole_appends(rig: _Rig) -> None:
    """A reader sees all records of an append, or none; with a new base, nothing in between."""
    lease = await rig.make(*_records(b"0", b"1", b"2"))
    ended = False

    async def watch(store: ConversationStore) -> None:
        while not ended:
            found = await store.get(lease.conversation_id)
            _require(
                found is not None
                and found.length % 3 == 0
                and found.base in {0, found.length - 1, found.length - 3}
                and found.size == found.length - found.base,
                f"during appends of 3 records, get() returned {found!r}",
            )
            await trio.sleep(0.001)

    async with open_collapsing_nursery() as nursery:
        for store in rig.stores[1:]:
            nursery.start_soon(watch, store)
        for position in range(3, 60, 3):
            base = position + 2 if position % 2 else position
            await rig.store.append(lease, position, _records(b"x", b"y", b"z"), base=base)
            await trio.sleep(0.001)
        ended = True


# --- What is known about conversations ---------------------------------------------------


async def _require_invisible(rig: _Rig, conversation_id: str) -> None:
    found = await rig.other.get(conversation_id)
    _require(found is None, f"get() returned {found!r} for a conversation without records")
    listed = _describe(await rig.other.list(prefix=conversation_id))
    _require(conversation_id not in listed, "list() has a conversation without records")


async def empty_conversations_are_invisible(rig: _Rig) -> None:
    """A conversation without records is neither returned nor listed, also while it is leased."""
    lease = await rig.acquire(rig.new_id())
    await _require_invisible(rig, lease.conversation_id)
    await rig.store.release(lease)
    await _require_invisible(rig, lease.conversation_id)
    with _refused(LeaseLost, "append() after the release of a conversation without records"):
        await rig.store.append(lease, 0, _records(b"late"))
    await _require_invisible(rig, lease.conversation_id)


async def deletion_ends_the_lease(rig: _Rig) -> None:
    """A deletion removes the conversation with its lease, and its owner gets LeaseLost."""
    lease = await rig.make(Record(b"a", "key"), Record(b"b"))
    _require(await rig.other.delete(lease.conversation_id), "delete() of records returned False")
    _require(not await rig.store.delete(lease.conversation_id), "a second delete() returned True")
    await _require_lost(rig, lease, after="a deletion")
    await _require_invisible(rig, lease.conversation_id)
    found = await rig.store.find(lease.conversation_id, "key")
    _require(found is None, f"find() returned {found!r} after the deletion")
    with _refused(StoreError, "read() after the deletion"):
        await rig.store.read(lease.conversation_id, 1)
    new = await rig.acquire(lease.conversation_id)
    _require(new.token > lease.token, f"the token {new.token} follows {lease.token}")
    await _require_lost(rig, lease, after="a deletion")
    found = await rig.store.find(lease.conversation_id, "key")
    _require(found is None, f"find() returned {found!r}, of the deleted conversation")
    await rig.store.append(new, 0, _records(b"new"))
    await rig.require_log(new.conversation_id, _records(b"new"))
    await _require_size(rig, new, 3)


async def deletion_of_an_empty_conversation(rig: _Rig) -> None:
    """A deletion returns False for a conversation without records, and ends its lease."""
    lease = await rig.acquire(rig.new_id())
    _require(not await rig.other.delete(lease.conversation_id), "delete() of nothing returned True")
    await _require_lost(rig, lease, after="a deletion")
    _require(not await rig.store.delete(rig.new_id()), "delete() of an unknown id returned True")


async def conversations_are_listed_in_order(rig: _Rig) -> None:
    """Conversations are listed in the order of the code points of their ids."""
    prefix = rig.new_id()
    ids = sorted({rig.note(f"{prefix}{part}") for part in ODD_PARTS} | {rig.note(prefix)})
    for conversation_id in reversed(ids):
        await rig.store.append(await rig.acquire(conversation_id), 0, _records(b"a"))
    await _require_listed(rig, ids, prefix=prefix, limit=1000)
    for limit in (1, 7):
        after = ""
        for start in range(0, len(ids) + 1, limit):
            page = ids[start : start + limit]
            await _require_listed(rig, page, prefix=prefix, after=after, limit=limit)
            after = page[-1] if page else after
    for name in ids:
        expected = [each for each in ids if each.startswith(name)]
        await _require_listed(rig, expected, prefix=name, limit=1000)
    for after in (f"{ids[5]}!", prefix[:3], f"{prefix}\U0010ffff\U0010ffff"):
        expected = [each for each in ids if each > after]
        await _require_listed(rig, expected, prefix=prefix, after=after, limit=1000)
    await rig.store.delete(ids[3])
    await _require_listed(rig, [*ids[:3], *ids[4:]], prefix=prefix, limit=1000)


async def _require_listed(
    rig: _Rig, expected: Sequence[str], *, prefix: str, after: str = "", limit: int
) -> None:
    listed = _describe(await rig.other.list(prefix=prefix, after=after, limit=limit))
    if listed == expected:
        return
    pairs = enumerate(zip_longest(listed, expected))
    first = next(number for number, (one, other) in pairs if one != other)
    raise AssertionError(
        f"list({prefix=}, {after=}, {limit=}) returned {len(listed)} conversations instead of"
        f" {len(expected)}; from number {first} on they are {listed[first : first + 3]} instead of"
        f" {expected[first : first + 3]}"
    )


async def what_is_known_is_true(rig: _Rig) -> None:
    """What get() and list() return is the same, and plausible."""
    lease = await rig.make(Record(b"12345"), Record(b"678", "key"))
    first = await rig.describe(lease.conversation_id)
    listed = await rig.other.list(prefix=lease.conversation_id)
    _require(list(listed) == [first], f"get() returned {first!r}, and list() {listed!r}")
    _require(first.conversation_id == lease.conversation_id, "get() returned another id")
    _require((first.base, first.length, first.size) == (0, 2, 8), f"get() returned {first!r}")
    _require(
        YEAR_2017 < first.created_at < YEAR_5138 and first.created_at == first.updated_at,
        f"after the first append, get() returned {first!r}: times are seconds since 1970",
    )
    left = (first.leased_until or -math.inf) - first.updated_at
    _require(
        0 < left <= LONG + 1, f"a lease of {LONG:g} s ends {left} s after the time of an append"
    )
    _require(
        first.expires_at is None or first.expires_at > first.updated_at,
        f"expires_at is {first.expires_at}, and updated_at {first.updated_at}",
    )
    await trio.sleep(0.01)
    await rig.store.append(lease, 2, _records(b"9"))
    second = await rig.describe(lease.conversation_id)
    _require(second.created_at == first.created_at, "a later append changed created_at")
    _require(second.updated_at > first.updated_at, "a later append did not change updated_at")


# --- Limits ------------------------------------------------------------------------------


async def long_ids_are_accepted(rig: _Rig) -> None:
    """Ids, owners and keys have up to 512 characters, of any planes of Unicode."""
    for alphabet in (range(0x61, 0x7B), range(0x20000, 0x2A000)):

        def text(start: str = "", alphabet: range = alphabet) -> str:
            letters = (chr(random.choice(alphabet)) for _ in range(MAX_ID))  # noqa: S311
            return (start + "".join(letters))[: MAX_ID - 1]

        ids, keys = text(rig.prefix), text()
        for end in "ab":
            lease = await rig.store.acquire(rig.note(ids + end), text() + end, seconds=LONG)
            records = [Record(b"a" + end.encode(), f"{keys}a"), Record(b"b", f"{keys}b")]
            await rig.store.append(lease, 0, records)
        for end in "ab":
            found = await rig.other.find(ids + end, f"{keys}a")
            _require(
                found == Record(b"a" + end.encode(), f"{keys}a"),
                "find() did not find a key of 512 characters",
            )
            await _require_listed(rig, [ids + end], prefix=ids + end, limit=10)
            _require(await rig.store.delete(ids + end), "delete() of a long id returned False")


async def invalid_ids_are_refused(rig: _Rig) -> None:
    """Ids and keys that are empty, too long or no text for all engines are refused."""
    lease = await rig.make(Record(b"a"))
    store = rig.store
    for bad in ("", "x" * (MAX_ID + 1), "nul\0", "\ud800", "x\udfff"):
        calls: dict[str, Callable[[], Awaitable[object]]] = {
            "acquire": partial(store.acquire, bad, _new_owner(), seconds=LONG),
            "acquire, owner": partial(store.acquire, rig.new_id(), bad, seconds=LONG),
            "append": partial(store.append, lease, 1, [Record(b"x", bad)]),
            "get": partial(store.get, bad),
            "read": partial(store.read, bad, 0),
            "find": partial(store.find, lease.conversation_id, bad),
            "find, id": partial(store.find, bad, "key"),
            "delete": partial(store.delete, bad),
        }
        for name, call in calls.items():
            with _refused(ConfigurationError, f"{name} with the invalid text {bad[:20]!r}"):
                await call()
    for seconds in (0, -1, math.inf, math.nan):
        with _refused(ConfigurationError, f"acquire() for {seconds} s"):
            await store.acquire(rig.new_id(), _new_owner(), seconds=seconds)
        with _refused(ConfigurationError, f"renew() for {seconds} s"):
            await store.renew(lease, seconds=seconds)
    with _refused(ConfigurationError, "list(limit=0)"):
        await store.list(limit=0)
    await rig.require_log(lease.conversation_id, _records(b"a"))


async def size_limits_hold(rig: _Rig) -> None:
    """What exceeds a limit of the store is refused with ConversationTooLarge, as a whole."""
    record_limit = _limit(rig.store, "max_record_bytes")
    if record_limit is not None:
        lease = await rig.make(Record(b"a"))
        with _refused(ConversationTooLarge, "append() of a record larger than max_record_bytes"):
            await rig.store.append(lease, 1, _records(b"b", bytes(record_limit + 1)))
        await rig.require_log(lease.conversation_id, _records(b"a"))
        await rig.store.append(lease, 1, _records(bytes(record_limit)))
        await rig.require_log(lease.conversation_id, _records(b"a", bytes(record_limit)))
    limit = _limit(rig.store, "max_conversation_bytes")
    if limit is None:
        return
    part = min(record_limit or limit, limit)
    sizes = [part] * (limit // part) + [limit % part]
    lease = await rig.acquire(rig.new_id())
    for number, size in enumerate(sizes):
        await rig.store.append(lease, number, _records(bytes(size)))
    with _refused(ConversationTooLarge, "append() beyond max_conversation_bytes"):
        await rig.store.append(lease, len(sizes), _records(b"", b"x"))
    found = await rig.describe(lease.conversation_id)
    _require(
        (found.length, found.size) == (len(sizes), limit),
        f"after a refused append, the log has {found.length} records of {found.size} bytes instead"
        f" of {len(sizes)} of {limit}",
    )
    # What a new base removes makes room for it.
    await rig.store.append(lease, len(sizes), _records(b"", bytes(part)), base=len(sizes) + 1)
    await rig.require_log(lease.conversation_id, _records(bytes(part)), base=len(sizes) + 1)
    await _require_size(rig, lease, part)


def _limit(store: ConversationStore, name: str) -> int | None:
    """Return a limit that the store states, if it is small enough to be tested."""
    limit = getattr(store, name, None)
    return limit if isinstance(limit, int) and limit <= TESTED_LIMIT else None


# --- Cancellation ------------------------------------------------------------------------


class _CancelAtWait(trio.abc.Instrument):
    """Cancels a scope when a task waits for the n-th time."""

    def __init__(self, waits: int) -> None:
        self.scope = trio.CancelScope()
        self._task = trio.lowlevel.current_task()
        self._waits_left = waits
        if not waits:
            self.scope.cancel()

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Called when a task begins to wait, or has ended."""
        if task is self._task:
            self._waits_left -= 1
            if not self._waits_left:
                self.scope.cancel()


async def _cancel_everywhere(
    make_call: Callable[[], Awaitable[Callable[[], Awaitable[T]]]],
) -> list[T]:
    """Cancel a call at each of its checkpoints, and repeat it after each cancellation.

    :param make_call: makes a call with arguments of its own.
    :return: what the calls returned, each after its repetition.
    """
    results: list[T] = []
    waits = 0
    while True:
        call = await make_call()
        canceller = _CancelAtWait(waits)
        trio.lowlevel.add_instrument(canceller)
        try:
            with canceller.scope:
                await call()
        finally:
            trio.lowlevel.remove_instrument(canceller)
        results.append(await call())
        if not canceller.scope.cancel_called:
            return results
        waits += 1


async def cancelled_leases(rig: _Rig) -> None:
    """acquire(), renew() and release() are repeated safely after each cancellation."""

    async def acquire() -> Callable[[], Awaitable[Lease]]:
        return partial(rig.store.acquire, rig.new_id(), _new_owner(), seconds=LONG)

    for lease in await _cancel_everywhere(acquire):
        again = await rig.other.acquire(lease.conversation_id, lease.owner, seconds=LONG)
        _require(again == lease, f"after a cancellation, acquire() gave {lease!r}, then {again!r}")
        await rig.store.append(lease, 0, _records(b"a"))

    async def renew() -> Callable[[], Awaitable[None]]:
        return partial(rig.store.renew, await rig.make(Record(b"a")), seconds=LONG)

    async def release() -> Callable[[], Awaitable[None]]:
        return partial(rig.store.release, await rig.make(Record(b"a"), end="released"))

    await _cancel_everywhere(renew)
    await _cancel_everywhere(release)
    for conversation_id in rig.ids:
        if conversation_id.endswith("-released"):
            await rig.other.acquire(conversation_id, _new_owner(), seconds=LONG)


async def cancelled_appends(rig: _Rig) -> None:
    """An append that is repeated after a cancellation has its effect once."""
    leases: list[Lease] = []
    records = [Record(b"b", "key"), Record(b"c")]

    async def append() -> Callable[[], Awaitable[None]]:
        leases.append(await rig.make(Record(b"a")))
        return partial(rig.store.append, leases[-1], 1, records, base=2)

    await _cancel_everywhere(append)
    for lease in leases:
        await rig.require_log(lease.conversation_id, records[1:], base=2)
        await _require_found(rig, lease, key=b"b")
        await rig.store.append(lease, 3, _records(b"d"))
        await rig.require_log(lease.conversation_id, [records[1], Record(b"d")], base=2)
        await _require_size(rig, lease, 3)


async def cancelled_deletions(rig: _Rig) -> None:
    """A deletion that is repeated after a cancellation leaves nothing."""
    leases: list[Lease] = []

    async def delete() -> Callable[[], Awaitable[bool]]:
        leases.append(await rig.make(Record(b"a", "key")))
        return partial(rig.store.delete, leases[-1].conversation_id)

    await _cancel_everywhere(delete)
    for lease in leases:
        await _require_invisible(rig, lease.conversation_id)


async def cancelled_reads(rig: _Rig) -> None:
    """A store works as before after calls that read were cancelled."""
    lease = await rig.make(Record(b"a", "key"), Record(b"b"))
    name = lease.conversation_id
    known = await rig.describe(name)
    calls: list[tuple[Callable[[], Awaitable[Any]], Any]] = [
        (partial(rig.store.get, name), known),
        (partial(rig.store.read, name, 0), [Record(b"a", "key"), Record(b"b")]),
        (partial(rig.store.find, name, "key"), Record(b"a", "key")),
        (partial(rig.store.list, prefix=name), [known]),
    ]
    for call, expected in calls:

        async def same(call: Callable[[], Awaitable[Any]] = call) -> Callable[[], Awaitable[Any]]:
            return call

        for result in await _cancel_everywhere(same):
            plain = list(result) if isinstance(expected, list) else result
            _require(plain == expected, f"after a cancellation, a call returned {plain!r}")


PROMISES: Final = (
    one_owner_at_a_time,
    acquire_is_repeatable,
    one_of_many_wins,
    a_lease_ends,
    a_renewal_moves_the_end,
    a_lease_that_ended_is_still_valid,
    an_old_token_is_refused,
    a_release_ends_the_lease,
    an_owner_that_released_gets_a_new_lease,
    tokens_only_grow,
    leases_are_of_one_conversation,
    what_was_appended_is_read,
    data_is_any_bytes,
    a_long_log_is_read_in_pages,
    appends_are_repeatable,
    gaps_are_refused,
    an_append_of_nothing_makes_nothing,
    positions_outside_of_the_log_are_refused,
    a_new_base_removes_what_is_before,
    a_base_in_an_overlap,
    the_latest_record_with_a_key_is_found,
    conversations_are_separate,
    many_write_at_once,
    one_owner_writes_at_once,
    readers_see_whole_appends,
    empty_conversations_are_invisible,
    deletion_ends_the_lease,
    deletion_of_an_empty_conversation,
    conversations_are_listed_in_order,
    what_is_known_is_true,
    long_ids_are_accepted,
    invalid_ids_are_refused,
    size_limits_hold,
    cancelled_leases,
    cancelled_appends,
    cancelled_deletions,
    cancelled_reads,
)
"""The checks, in the order in which they run."""
