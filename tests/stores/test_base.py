"""What all stores share: deadlines, attempts and their pauses, checks of options and arguments."""

from __future__ import annotations

import math
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import assert_checkpoints

from tests.testing.driver import NO_WAITING
from trio_responses import ConfigurationError
from trio_responses._stores.base import LAST_PAUSE, EngineError, StoreBase
from trio_responses.stores import (
    ConversationTooLarge,
    Lease,
    Record,
    StoreError,
    StoreUnavailable,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.stores import (
        ConversationInfo,
    )

pytestmark = NO_WAITING

LEASE = Lease("name", "owner", 1)
Attempt = Callable[[int], Awaitable[None]]


async def succeed(_number: int) -> None:
    pass


async def fail(number: int) -> None:
    raise EngineError(f"refused {number}")


async def hang(_number: int) -> None:
    await trio.sleep_forever()


class FakeStore(StoreBase):
    """A store whose engine behaves as a function says, which gets the number of the attempt."""

    def __init__(self, attempt: Attempt = succeed, **options: Any) -> None:
        super().__init__(**options)
        self.attempt = attempt
        self.times: list[float] = []
        self.closed = 0

    async def run(self) -> None:
        self.times.append(trio.current_time())
        await self.attempt(len(self.times))

    @property
    def pauses(self) -> list[float]:
        """The seconds from the beginning of each attempt to the beginning of the next one."""
        return [after - before for before, after in pairwise(self.times)]

    async def _open(self) -> None:
        pass

    async def _close(self) -> None:
        self.closed += 1
        await self.attempt(0)

    async def _acquire(self, conversation_id: str, owner: str, seconds: float) -> Lease:
        assert seconds
        await self.run()
        return Lease(conversation_id, owner, 1)

    async def _renew(self, lease: Lease, seconds: float) -> None:
        assert lease is LEASE
        assert seconds
        await self.run()

    async def _release(self, lease: Lease) -> None:
        assert lease is LEASE
        await self.run()

    async def _append(
        self, lease: Lease, position: int, records: Sequence[Record], base: int | None
    ) -> None:
        assert isinstance(records, tuple)
        assert lease is LEASE
        assert base is None or base >= position
        await self.run()

    async def _get(self, conversation_id: str) -> ConversationInfo | None:
        assert conversation_id
        await self.run()
        return None

    async def _read(self, conversation_id: str, position: int) -> Sequence[Record]:
        assert conversation_id
        await self.run()
        return [Record(b"%d" % position)]

    async def _find(self, conversation_id: str, key: str) -> Record | None:
        assert conversation_id
        await self.run()
        return Record(b"", key)

    async def _list(self, prefix: str, after: str, limit: int) -> Sequence[ConversationInfo]:
        assert prefix >= ""
        assert after >= ""
        assert limit
        await self.run()
        return []

    async def _delete(self, conversation_id: str) -> bool:
        assert conversation_id
        await self.run()
        return True


def calls_of(store: StoreBase) -> dict[str, Callable[[], Awaitable[Any]]]:
    return {
        "acquire": partial(store.acquire, "name", "owner", seconds=1),
        "renew": partial(store.renew, LEASE, seconds=1),
        "release": partial(store.release, LEASE),
        "append": partial(store.append, LEASE, 0, [Record(b"a", "key")], base=0),
        "get": partial(store.get, "name"),
        "read": partial(store.read, "name", 0),
        "find": partial(store.find, "name", "key"),
        "list": partial(store.list, prefix="a", after="b"),
        "delete": partial(store.delete, "name"),
    }


OPERATIONS = [*calls_of(FakeStore())]


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_each_call_is_a_checkpoint_and_has_one_attempt(operation: str) -> None:
    async with FakeStore() as store:
        with assert_checkpoints():
            await calls_of(store)[operation]()
    assert len(store.times) == 1


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_an_engine_that_is_away_is_tried_until_the_timeout(operation: str) -> None:
    async with FakeStore(fail) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await calls_of(store)[operation]()
    assert trio.current_time() == store.timeout
    assert (caught.value.operation, caught.value.seconds) == (operation, 10)
    assert f"did not complete {operation} within 10 s: refused {len(store.times)};" in str(
        caught.value
    )


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_call_succeeds_with_a_later_attempt(operation: str) -> None:
    async with FakeStore(fail) as store:

        async def fail_twice(number: int) -> None:
            if number < 3:
                await fail(number)

        store.attempt = fail_twice
        await calls_of(store)[operation]()
    assert len(store.times) == 3
    assert trio.current_time() < 1


async def test_the_pauses_grow_and_vary_up_to_a_limit() -> None:
    async with FakeStore(fail) as store:
        with suppress(StoreUnavailable):
            await store.get("name")
    for number, pause in enumerate(store.pauses):
        longest = min(0.05 * 2**number, LAST_PAUSE)
        assert longest / 2 - 1e-9 <= pause <= longest + 1e-9
    assert 12 < len(store.times) < 30
    assert len(set(store.pauses)) == len(store.pauses)


async def test_an_engine_that_does_not_answer_is_tried_three_times() -> None:
    async with FakeStore(hang, timeout=6) as store:
        with pytest.raises(StoreUnavailable, match=r"did not complete get within 6 s; check"):
            await store.get("name")
        assert trio.current_time() == 6
    assert len(store.times) == 3
    assert all(2 < pause < 2.11 for pause in store.pauses)


async def test_a_timeout_states_the_latest_reason() -> None:
    async def fail_once(number: int) -> None:
        await (fail if number == 1 else hang)(number)

    async with FakeStore(fail_once) as store:
        with pytest.raises(StoreUnavailable, match=r"refused 1"):
            await store.get("name")


async def test_control_characters_of_a_reason_are_escaped() -> None:
    async def fail_oddly(_number: int) -> None:
        raise EngineError("a\x1b[31mb")

    async with FakeStore(fail_oddly) as store:
        with pytest.raises(StoreUnavailable) as caught:
            await store.get("name")
    assert "\x1b" not in str(caught.value)


async def test_other_exceptions_are_not_repeated() -> None:
    async def refuse(_number: int) -> None:
        raise StoreError("no")

    async with FakeStore(refuse) as store:
        with pytest.raises(StoreError, match=r"^no$"):
            await store.get("name")
        assert len(store.times) == 1
        store.attempt = succeed


@pytest.mark.parametrize("attempt", [fail, hang])
async def test_a_call_is_cancelled_during_an_attempt_and_during_a_pause(attempt: Attempt) -> None:
    async with FakeStore(attempt) as store:
        with trio.move_on_after(1.234) as scope:
            await store.get("name")
        assert scope.cancelled_caught
        assert trio.current_time() == 1.234
        store.attempt = succeed
        await store.get("name")


async def test_a_cancelled_call_makes_no_attempt() -> None:
    async with FakeStore() as store:
        with trio.CancelScope() as scope:
            scope.cancel()
            await store.get("name")
    assert store.times == []


@pytest.mark.parametrize("operation", OPERATIONS)
async def test_a_store_is_used_inside_its_block(operation: str) -> None:
    store = FakeStore()
    message = r"^a FakeStore is used inside its block: async with FakeStore\(\.\.\.\)$"
    with pytest.raises(RuntimeError, match=message):
        await calls_of(store)[operation]()
    async with store:
        pass
    with pytest.raises(RuntimeError, match=message):
        await calls_of(store)[operation]()


async def test_a_store_is_opened_once_at_a_time() -> None:
    store = FakeStore()
    async with store:
        with pytest.raises(RuntimeError, match=r"^the store is open already$"):
            await store.__aenter__()
        await store.get("name")
    async with store:
        await store.get("name")
    assert store.closed == 2


@pytest.mark.parametrize("attempt", [succeed, fail, hang])
async def test_closing_is_bounded_and_is_not_cancelled(attempt: Attempt) -> None:
    store = FakeStore(attempt, timeout=5)
    with trio.CancelScope() as scope:
        async with store:
            scope.cancel()
    assert store.closed == 1
    assert trio.current_time() == (5 if attempt is hang else 0)


async def test_closing_keeps_the_exception_of_the_block() -> None:
    with pytest.raises(KeyError, match="mine"):
        async with FakeStore(fail):
            raise KeyError("mine")


# --- Options and arguments ---------------------------------------------------------------


@pytest.mark.parametrize("option", ["timeout", "ttl", "max_record_bytes", "max_conversation_bytes"])
@pytest.mark.parametrize("value", [0, -1, math.inf, math.nan, None])
async def test_an_option_must_be_greater_than_0(option: str, value: float | None) -> None:
    if option == "ttl" and value is None:
        FakeStore(ttl=None)
        return
    with pytest.raises(
        ConfigurationError, match=rf"^{option} must be greater than 0, not {value!r}$"
    ):
        FakeStore(succeed, **{option: value})


async def test_a_store_states_its_limits() -> None:
    store = FakeStore(timeout=3, max_record_bytes=10, max_conversation_bytes=20)
    assert (store.timeout, store.max_record_bytes, store.max_conversation_bytes) == (3, 10, 20)


INVALID_IDS: list[Any] = ["", "x" * 513, "nul\0", "\ud800", "a\udfff", None, 42, b"bytes"]


@pytest.mark.parametrize("bad", INVALID_IDS)
async def test_an_invalid_id_is_refused_before_any_attempt(bad: Any) -> None:
    async with FakeStore() as store:
        calls: dict[str, Callable[[], Awaitable[Any]]] = {
            "conversation_id": partial(store.acquire, bad, "owner", seconds=1),
            "owner": partial(store.acquire, "name", bad, seconds=1),
            "conversation_id ": partial(store.get, bad),
            "conversation_id  ": partial(store.read, bad, 0),
            "conversation_id   ": partial(store.find, bad, "key"),
            "conversation_id    ": partial(store.delete, bad),
            "key": partial(store.find, "name", bad),
        }
        if bad is not None:
            calls["key "] = partial(store.append, LEASE, 0, [Record(b"", bad)])
        if bad:
            calls["prefix"] = partial(store.list, prefix=bad)
            calls["after"] = partial(store.list, after=bad)
        for name, call in calls.items():
            with pytest.raises(ConfigurationError, match=f"^{name.strip()} must"):
                await call()
    assert store.times == []


async def test_ids_of_512_characters_are_accepted() -> None:
    async with FakeStore() as store:
        await store.acquire("\U0001f600" * 512, "x" * 512, seconds=1)
        await store.list(prefix="x" * 512, after="é" * 512)


@pytest.mark.parametrize("seconds", [0, -1, math.inf, math.nan])
async def test_a_lease_has_a_length(seconds: float) -> None:
    async with FakeStore() as store:
        message = f"^seconds must be greater than 0, not {seconds!r}$"
        with pytest.raises(ConfigurationError, match=message):
            await store.acquire("name", "owner", seconds=seconds)
        with pytest.raises(ConfigurationError, match=message):
            await store.renew(LEASE, seconds=seconds)


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_list_has_a_limit(limit: int) -> None:
    async with FakeStore() as store:
        with pytest.raises(ConfigurationError, match=f"^limit must be at least 1, not {limit}$"):
            await store.list(limit=limit)


@pytest.mark.parametrize(
    ("position", "count", "base"),
    [(-1, 1, None), (0, 0, None), (5, 0, None), (3, 2, 2), (3, 2, 5), (0, 1, -1), (-1, 2, 0)],
)
async def test_records_that_continue_no_log_are_refused(
    position: int, count: int, base: int | None
) -> None:
    async with FakeStore() as store:
        with pytest.raises(StoreError):
            await store.append(LEASE, position, [Record(b"a")] * count, base=base)
    assert store.times == []


async def test_the_largest_record_is_accepted_and_a_larger_one_is_refused() -> None:
    async with FakeStore(max_record_bytes=10) as store:
        await store.append(LEASE, 0, [Record(bytes(10)), Record(bytes(10))])
        with pytest.raises(ConversationTooLarge, match="max_record_bytes=10") as caught:
            await store.append(LEASE, 0, [Record(b""), Record(bytes(11))])
    assert (caught.value.size, caught.value.limit) == (11, 10)
    assert len(store.times) == 1
