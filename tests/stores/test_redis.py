"""What is particular to `RedisStore`; what every store does is in the conformance suite."""

from __future__ import annotations

import signal
import socket
import ssl
import subprocess
import sys
import time
from functools import partial
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest
import trio
import trio.testing
import trustme

from tests.stores.redis_server import needs_redis, open_proxy, open_redis_server
from trio_responses import ConfigurationError
from trio_responses._stores import redis as redis_module
from trio_responses._stores.base import EngineError
from trio_responses.stores import (
    ConversationBusy,
    ConversationTooLarge,
    LeaseLost,
    Record,
    RedisStore,
    StoreError,
    StoreUnavailable,
    UnsupportedVersion,
)

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.stores.redis_server import RedisServer

pytestmark = needs_redis

PASSWORD = "sk-secret-p{a}s:s/w@rd"
QUOTED = quote(PASSWORD, safe="")
HEAD = "trio-responses:{work}:head"


@pytest.fixture
async def server() -> AsyncGenerator[RedisServer, None]:
    async with open_redis_server() as server:
        yield server


@pytest.fixture
async def store(server: RedisServer) -> AsyncGenerator[RedisStore, None]:
    # With one connection, a call that kept the connection or its place would block the next call.
    async with RedisStore(server.url, max_connections=1, timeout=60) as store:
        yield store


async def save(store: RedisStore, name: str, *data: bytes) -> None:
    """Append records to a conversation of nobody."""
    lease = await store.acquire(name, "somebody", seconds=60)
    known = await store.get(name)
    await store.append(lease, known.length if known else 0, [Record(each) for each in data])
    await store.release(lease)


async def open_and_close(store: RedisStore) -> None:
    async with store:
        pass


async def names(store: RedisStore, **options: Any) -> list[str]:
    return [found.conversation_id for found in await store.list(**options)]


# --- Opening -----------------------------------------------------------------------------


def test_a_missing_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "coredis", None)
    with pytest.raises(ConfigurationError, match=r"trio-responses\[redis\]"):
        RedisStore("redis://localhost")


def test_the_import_of_stores_does_not_import_coredis() -> None:
    program = "import sys, trio_responses.stores; assert 'coredis' not in sys.modules"
    subprocess.run([sys.executable, "-c", program], check=True)  # noqa: S603 - fixed command


@pytest.mark.parametrize(
    ("option", "value"),
    [("prefix", "a{b"), ("prefix", "a}b"), ("prefix", ""), ("max_connections", 0), ("timeout", 0)],
)
def test_an_invalid_option_is_named(option: str, value: object) -> None:
    options: dict[str, Any] = {option: value}
    with pytest.raises(ConfigurationError, match=option):
        RedisStore("redis://localhost", **options)


@pytest.mark.parametrize(
    "url",
    [
        f"redis://:{PASSWORD}@host:6379",
        f"redis://:{QUOTED}@host:many",
        f"redis://:{QUOTED}@host:6379/first",
        f"redis://:{QUOTED}@host:6379/-1",
        f"redis://:{QUOTED}@",
        f"http://:{QUOTED}@host",
        f"unix://:{QUOTED}@host/path",
        f"unix://:{QUOTED}@",
        f"redis://host?password={QUOTED}",
        f"redis://host?{QUOTED}",
        "",
    ],
)
def test_an_invalid_url_is_refused_and_not_quoted(url: str) -> None:
    with pytest.raises(ConfigurationError, match="url must be like") as caught:
        RedisStore(url)
    assert "secret" not in str(caught.value)
    assert caught.value.__context__ is None


def test_no_repr_shows_the_password() -> None:
    store = RedisStore(f"redis://me:{QUOTED}@host:6379/1")
    assert "secret" not in repr(store) + repr(store._address)  # what a debugger shows


@pytest.mark.parametrize(
    ("options", "ttl", "problem"),
    [
        (["--appendonly", "no"], None, "no append-only file"),
        (["--maxmemory-policy", "allkeys-lru"], None, "maxmemory-policy allkeys-lru"),
        (["--maxmemory-policy", "volatile-ttl"], 60.0, "maxmemory-policy volatile-ttl"),
    ],
)
async def test_a_server_that_may_lose_conversations_needs_consent(
    options: list[str], ttl: float | None, problem: str
) -> None:
    async with open_redis_server(*options) as server:
        with pytest.raises(ConfigurationError, match=problem) as caught:
            await open_and_close(RedisStore(server.url, ttl=ttl))
        assert "allow_volatile=True" in str(caught.value)
        assert await server.command("keys", "*") == ""
        async with RedisStore(server.url, ttl=ttl, allow_volatile=True) as store:
            await save(store, "work", b"1")


async def test_eviction_of_keys_that_expire_does_not_matter_without_expiry() -> None:
    async with (
        open_redis_server("--maxmemory-policy", "volatile-ttl") as server,
        RedisStore(server.url) as store,
    ):
        await save(store, "work", b"1")


async def test_data_of_a_later_release_is_refused(server: RedisServer) -> None:
    await server.command("set", "trio-responses:version", 2)
    with pytest.raises(UnsupportedVersion) as caught:
        await open_and_close(RedisStore(server.url))
    assert caught.value.version == 2


async def test_a_server_that_is_not_there_is_unavailable() -> None:
    with pytest.raises(StoreUnavailable, match="No such file") as caught:
        await open_and_close(RedisStore(f"unix://me:{QUOTED}@/nowhere/redis", timeout=0.2))
    assert caught.value.operation == "open"


# --- Addresses and credentials -----------------------------------------------------------


@pytest.mark.parametrize("database", [0, 3])
async def test_a_database_is_chosen_by_the_url(server: RedisServer, database: int) -> None:
    async with RedisStore(f"{server.url}?db={database}") as store:
        await save(store, "work", b"1")
    assert await server.command("-n", database, "exists", HEAD) == "1"


@pytest.mark.parametrize("is_trusted", [True, False])
async def test_tls_checks_the_certificate(
    server: RedisServer, tmp_path: Path, *, is_trusted: bool
) -> None:
    authority, certificate = trustme.CA(), tmp_path / "certificate.pem"
    issued = authority.issue_cert("localhost")
    issued.private_key_and_cert_chain_pem.write_to_path(certificate)
    authority.cert_pem.write_to_path(tmp_path / "authority.pem")
    for option in "tls-cert-file", "tls-key-file":
        await server.command("config", "set", option, str(certificate))
    await server.command("config", "set", "tls-ca-cert-file", str(tmp_path / "authority.pem"))
    await server.command("config", "set", "tls-auth-clients", "no")
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    if await server.command("config", "set", "tls-port", port) != "OK":
        pytest.skip("this redis-server has no TLS")
    context = ssl.create_default_context()
    if is_trusted:
        context.load_verify_locations(tmp_path / "authority.pem")
        async with RedisStore(f"rediss://localhost:{port}", ssl_context=context) as store:
            await save(store, "work", b"1")
    else:
        with pytest.raises(StoreError, match="certificate of Redis is not accepted"):
            await open_and_close(RedisStore(f"rediss://localhost:{port}"))


@pytest.mark.parametrize(
    ("credentials", "accepted"),
    [
        (f":{QUOTED}@", True),
        (f"default:{QUOTED}@", True),
        ("", False),
        (":sk-secret-wrong@", False),
        (f"nobody:{QUOTED}@", False),
    ],
)
async def test_wrong_credentials_are_a_store_error(credentials: str, *, accepted: bool) -> None:
    async with open_redis_server("--requirepass", PASSWORD) as server:
        store = RedisStore(server.url.replace("unix://", f"unix://{credentials}"))
        if accepted:
            async with store:
                await save(store, "work", b"1")
        else:
            with pytest.raises(StoreError, match="Redis refuses the user or pass") as caught:
                await open_and_close(store)
            assert "secret" not in repr(caught.value)


async def test_a_user_without_the_rights_gets_an_error_at_once(server: RedisServer) -> None:
    await server.command("acl", "setuser", "reader", "on", f">{PASSWORD}", "~*", "+@read", "+info")
    url = server.url.replace("unix://", f"unix://reader:{QUOTED}@")
    with pytest.raises(StoreError, match="may not do what is needed"):
        await open_and_close(RedisStore(url))


async def test_a_password_that_was_changed_is_a_store_error(
    server: RedisServer, store: RedisStore
) -> None:
    await save(store, "work", b"1")
    await server.command("config", "set", "requirepass", PASSWORD)
    await server.command("-a", PASSWORD, "client", "kill", "type", "normal", "skipme", "yes")
    with pytest.raises(StoreError, match="Redis refuses the user or password"):
        await store.get("work")


# --- Tokens and leases -------------------------------------------------------------------


@pytest.mark.parametrize("loss", ["delete", "flush", "expiry"])
async def test_a_token_is_larger_than_those_before_a_loss(
    server: RedisServer, store: RedisStore, loss: str
) -> None:
    before = await store.acquire("work", "one", seconds=60)
    assert abs(before.token / 1e6 - time.time()) < 300
    if loss == "delete":
        await store.delete("work")
    else:
        await server.command(*(["flushall"] if loss == "flush" else ["pexpire", HEAD, -1]))
    after = await store.acquire("work", "two", seconds=60)
    assert after.token > before.token
    with pytest.raises(LeaseLost, match="another owner"):
        await store.append(before, 0, [Record(b"late")])


async def test_a_token_grows_when_the_clock_is_set_back(
    server: RedisServer, store: RedisStore
) -> None:
    ahead = 2**53 - 3  # the largest whole numbers that a script can hold
    await server.command("hset", HEAD, "token", ahead, "owner", "one", "until", 1)
    lease = await store.acquire("work", "two", seconds=60)
    assert lease.token == ahead + 1
    await store.append(lease, 0, [Record(b"1")])


async def test_the_longest_lease_is_longer_than_a_life(store: RedisStore) -> None:
    lease = await store.acquire("work", "one", seconds=1e300)
    await store.append(lease, 0, [Record(b"1")])
    found = await store.get("work")
    assert found is not None
    assert found.leased_until is not None
    assert found.leased_until > time.time() + 100 * 365 * 86400


async def test_a_conversation_without_records_is_removed_by_redis(
    server: RedisServer, store: RedisStore
) -> None:
    lease = await store.acquire("work", "one", seconds=60)
    assert 86_000_000 < int(await server.command("pttl", HEAD)) <= 86_460_000
    await store.renew(lease, seconds=7200)
    assert int(await server.command("pttl", HEAD)) > 93_000_000
    await store.append(lease, 0, [Record(b"1")])
    assert await server.command("pttl", HEAD) == "-1"


# --- Records -----------------------------------------------------------------------------


async def test_what_is_too_large_changes_nothing(server: RedisServer) -> None:
    async with RedisStore(server.url, max_conversation_bytes=10) as store:
        lease = await store.acquire("work", "one", seconds=60)
        await store.append(lease, 0, [Record(b"12345"), Record(b"6", "key")])
        before = await server.command("hgetall", HEAD)
        with pytest.raises(ConversationTooLarge) as caught:
            await store.append(lease, 2, [Record(b"1234", "key"), Record(b"1")])
        assert caught.value.size == 11
        assert await server.command("hgetall", HEAD) == before
        assert await store.find("work", "key") == Record(b"6", "key")
        # What a new base removes makes room for what comes with it.
        await store.append(lease, 2, [Record(b"9"), Record(b"12345678")], base=3)
        assert await store.read("work", 3) == [Record(b"12345678")]
        found = await store.get("work")
        assert found is not None
        assert (found.base, found.length, found.size) == (3, 4, 9)


async def test_records_are_read_in_pages(store: RedisStore) -> None:
    records = [Record(bytes([number]) * 400_000) for number in range(6)]
    lease = await store.acquire("work", "one", seconds=60)
    await store.append(lease, 0, records)
    read: list[Record] = []
    pages = 0
    while page := await store.read("work", len(read)):
        read += page
        pages += 1
    assert read == records
    assert pages == 2


async def test_a_record_may_have_any_bytes(store: RedisStore) -> None:
    records = [
        Record(b""),
        Record(b"\0\xff\r\n"),
        Record(b"", "k\xe9y \U0001f600"),
        Record(b"\0", "k"),
    ]
    lease = await store.acquire("work", "one", seconds=60)
    await store.append(lease, 0, records)
    assert await store.read("work", 0) == records
    assert await store.find("work", "k") == records[3]


# --- Names, lists and expiry -------------------------------------------------------------


async def test_the_keys_of_any_id_are_in_one_slot_of_a_cluster() -> None:
    async with open_redis_server("--cluster-enabled", "yes") as server:
        await server.command("cluster", "addslotsrange", 0, 16383)
        with trio.fail_after(300):
            while "cluster_state:ok" not in await server.command("cluster", "info"):  # noqa: ASYNC110 - another process
                await trio.sleep(0.05)
        async with RedisStore(server.url) as store:
            for name in "work", "}{", "{}", "{a}{b}", "a:b", "\xe9\U0001f600 %", "x" * 512:
                lease = await store.acquire(name, "one", seconds=60)
                await store.renew(lease, seconds=60)
                await store.append(lease, 0, [Record(b"1"), Record(b"2", "key")])
                assert await store.find(name, "key") == Record(b"2", "key")
                assert len(await store.read(name, 0)) == 2
                assert (await names(store)) == [name]
                await store.release(lease)
                assert await store.delete(name)
        assert await server.command("keys", "*") == "trio-responses:version"


async def test_a_list_is_in_the_order_of_code_points(store: RedisStore) -> None:
    ids = sorted(
        ["a", "ab", "a\x7f", "a\x80", "a\xff", "a\uffff", "a\U0010ffff", "b", "B", "[", "("]
    )
    for name in ids:
        await save(store, name, b"1")
    assert await names(store) == ids
    assert await names(store, prefix="a") == [name for name in ids if name.startswith("a")]
    for name in ids:
        assert await names(store, after=name) == [each for each in ids if each > name]
        assert (
            await names(store, prefix="a", after=name, limit=2)
            == [each for each in ids if each.startswith("a") and each > name][:2]
        )


async def test_a_list_skips_what_has_expired_and_removes_it_from_the_index(
    server: RedisServer, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(redis_module, "INDEX_PAGE", 2)
    for number in range(9):
        await save(store, f"{number}", b"1")
    for number in 0, 1, 2, 5, 8:
        await server.command("pexpire", f"trio-responses:{{{number}}}:head", -1)
    lease = await store.acquire("5", "one", seconds=60)
    assert await names(store, limit=2) == ["3", "4"]
    assert await names(store) == ["3", "4", "6", "7"]
    assert await server.command("zrange", "trio-responses:index", 0, -1) == "3\n4\n5\n6\n7"
    await store.append(lease, 0, [Record(b"1")])
    assert await names(store, after="4") == ["5", "6", "7"]


async def test_an_id_that_is_used_again_stays_in_the_index(store: RedisStore) -> None:
    await save(store, "work", b"1")
    # A list that had found the conversation deleted removes the id after it was made again.
    await store._remove_from_index(["work", "other"])
    assert await names(store) == ["work"]


async def test_all_keys_expire_together_and_only_an_append_extends_the_time(
    server: RedisServer,
) -> None:
    kinds = ("head", "records", "named", "numbers")
    keys = [f"trio-responses:{{work}}:{kind}" for kind in kinds]

    async def expiry() -> set[str]:
        return {await server.command("pexpiretime", key) for key in keys}

    async with RedisStore(server.url, ttl=1000) as store:
        lease = await store.acquire("work", "one", seconds=60)
        await store.append(lease, 0, [Record(b"1"), Record(b"2", "key")])
        [first] = await expiry()
        found = await store.get("work")
        assert found is not None
        assert found.expires_at is not None
        assert int(first) == int(found.expires_at * 1000)
        assert found.expires_at == pytest.approx(found.updated_at + 1000)
        await store.renew(lease, seconds=5000)
        await store.read("work", 0)
        await store.release(lease)
        lease = await store.acquire("work", "two", seconds=5000)
        assert await expiry() == {first}
        await trio.sleep(0.002)
        await store.append(lease, 2, [Record(b"3")])
        [second] = await expiry()
        assert int(second) > int(first)
    async with RedisStore(server.url) as store:
        await store.append(lease, 3, [Record(b"4")])
        assert await expiry() == {"-1"}
        found = await store.get("work")
        assert found is not None
        assert found.expires_at is None


# --- Failures ----------------------------------------------------------------------------


async def test_flushed_scripts_are_sent_again(server: RedisServer, store: RedisStore) -> None:
    await save(store, "work", b"1")
    await server.command("script", "flush")
    await save(store, "work", b"2")
    assert await store.read("work", 0) == [Record(b"1"), Record(b"2")]


async def test_a_store_outlives_a_crash_of_redis(server: RedisServer, store: RedisStore) -> None:
    lease = await store.acquire("work", "one", seconds=600)
    await store.append(lease, 0, [Record(b"1")])
    async with trio.open_nursery() as nursery:
        server.kill()
        nursery.start_soon(partial(store.append, lease, 1, [Record(b"2")]))
        await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(server.start)
    await store.renew(lease, seconds=600)
    await server.restart()
    assert await store.read("work", 0) == [Record(b"1"), Record(b"2")]
    with pytest.raises(ConversationBusy):
        await store.acquire("work", "two", seconds=60)


async def test_a_paused_redis_is_unavailable_and_a_late_append_is_harmless(
    server: RedisServer,
) -> None:
    async with RedisStore(server.url, timeout=0.3) as store:
        lease = await store.acquire("work", "one", seconds=600)
        await store.append(lease, 0, [Record(b"1")])
        server.send_signal(signal.SIGSTOP)
        with pytest.raises(StoreUnavailable):
            await store.append(lease, 1, [Record(b"2")])
        server.send_signal(signal.SIGCONT)
        store.timeout = 60
        await store.append(lease, 1, [Record(b"2"), Record(b"3")])
        assert await store.read("work", 0) == [Record(b"1"), Record(b"2"), Record(b"3")]


async def test_a_replica_is_tried_again_until_it_is_the_primary(
    server: RedisServer, store: RedisStore
) -> None:
    await save(store, "work", b"1")
    await server.command("replicaof", "127.0.0.1", 1)
    store.timeout = 0.3
    with pytest.raises(StoreUnavailable, match="read only replica"):
        await store.acquire("work", "one", seconds=60)
    store.timeout = 60
    async with trio.open_nursery() as nursery:
        nursery.start_soon(partial(save, store, "work", b"2"))
        await trio.testing.wait_all_tasks_blocked(0.05)
        nursery.start_soon(server.command, "replicaof", "no", "one")
    assert await store.read("work", 0) == [Record(b"1"), Record(b"2")]


def replace_answers(monkeypatch: pytest.MonkeyPatch, answers: list[str]) -> None:
    """Let the next requests of coredis have these errors as answers."""
    from coredis.connection import BaseConnection  # noqa: PLC0415 - an extra
    from coredis.parser import Parser  # noqa: PLC0415 - an extra

    create = BaseConnection.create_request

    def create_request(self: BaseConnection, *arguments: Any, **options: Any) -> Any:
        request = create(self, *arguments, **options)
        if answers:
            request.fail(Parser().parse_error(answers.pop(0)))
        return request

    monkeypatch.setattr(BaseConnection, "create_request", create_request)


async def test_a_connection_that_does_not_answer_is_replaced(server: RedisServer) -> None:
    async with open_proxy(server) as proxy, RedisStore(proxy.url, timeout=6) as store:
        await save(store, "work", b"1")
        proxy.stall()
        assert await store.read("work", 0) == [Record(b"1")]


async def test_after_a_failover_no_connection_to_the_old_primary_is_left(
    server: RedisServer,
) -> None:
    async with (
        open_redis_server() as successor,
        open_proxy(server) as proxy,
        RedisStore(proxy.url, timeout=60) as store,
    ):
        async with trio.open_nursery() as nursery:
            for number in range(5):
                nursery.start_soon(save, store, f"{number}", b"1")
        await server.command("replicaof", "127.0.0.1", 1)
        proxy.target = successor
        await save(store, "work", b"1")
        assert await successor.command("exists", HEAD) == "1"
        with trio.fail_after(300):
            while len((await server.command("client", "list")).splitlines()) > 1:  # noqa: ASYNC110
                await trio.sleep(0.01)


async def test_a_call_that_outlives_the_block_fails(server: RedisServer) -> None:
    async def call(store: RedisStore) -> None:
        with pytest.raises(RuntimeError, match="the block of the store ended"):
            await store.get("work")

    async with trio.open_nursery() as nursery, RedisStore(server.url, timeout=60) as store:
        server.send_signal(signal.SIGSTOP)
        nursery.start_soon(call, store)
        await trio.testing.wait_all_tasks_blocked()


@pytest.mark.parametrize(
    "answer",
    [
        "LOADING Redis is loading the dataset in memory",
        "BUSY Redis is busy running a script. You can only call SCRIPT KILL",
        "MASTERDOWN Link with MASTER is down",
        "MISCONF Errors writing to the AOF file: No space left on device",
        "NOREPLICAS Not enough good replicas to write.",
        "OOM command not allowed when used memory > 'maxmemory'.",
        "ERR max number of clients reached",
        "ERR Error running script (call to f_0): @user_script:1: -READONLY You can't write",
    ],
)
async def test_an_answer_that_may_be_another_soon_is_tried_again(
    answer: str, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers = [answer]
    replace_answers(monkeypatch, answers)
    await save(store, "work", b"1")
    assert answers == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        ("MOVED 7365 10.0.0.1:6379", "this Redis is a node of a cluster"),
        (
            f"ERR unknown command `HELLO`, with args beginning with: `{PASSWORD}`",
            "Redis 6 or later",
        ),
        ("NOPERM this user has no permissions", "may not do what is needed: this user"),
        ("ERR a new kind of error", "Redis refuses a command: a new kind of error"),
    ],
)
async def test_an_answer_that_stays_the_same_is_raised_at_once(
    answer: str, message: str, store: RedisStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    replace_answers(monkeypatch, [answer])
    with pytest.raises(StoreError, match=message) as caught:
        await store.get("work")
    assert not isinstance(caught.value, StoreUnavailable)
    assert "secret" not in str(caught.value)
    assert await store.get("work") is None


async def test_another_refusal_is_raised_at_once(server: RedisServer, store: RedisStore) -> None:
    await server.command("set", HEAD, "text")
    with pytest.raises(StoreError, match="Redis refuses a command") as caught:
        await store.acquire("work", "one", seconds=60)
    assert not isinstance(caught.value, StoreUnavailable)
    assert caught.value.__context__ is None


async def test_no_more_connections_than_allowed_are_opened(server: RedisServer) -> None:
    async with RedisStore(server.url, max_connections=3) as store, trio.open_nursery() as nursery:
        for number in range(30):
            nursery.start_soon(save, store, f"{number}", b"1")
        clients = (await server.command("client", "list")).splitlines()
        assert len(clients) <= 3 + 1  # redis-cli itself
    assert len((await server.command("client", "list")).splitlines()) == 1


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_call_cancelled_at_any_point_leaves_nothing_behind(
    store: RedisStore, *, is_connected: bool
) -> None:
    await save(store, "one", b"1")
    await save(store, "two", b"2")
    finished = checkpoints = 0
    while finished < 3:
        if not is_connected:
            for connection in store._redis._idle:  # the next call has to connect
                connection.invalidate()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(store.read, "one", 0)
            for _ in range(checkpoints):
                await trio.lowlevel.checkpoint()
            finished += not nursery.child_tasks
            nursery.cancel_scope.cancel()
        assert await store.read("two", 0) == [Record(b"2")]
        checkpoints += 1
    assert checkpoints > 5
    assert len(store._redis._idle) == 1


# --- One scope (P1) ----------------------------------------------------------------------


async def test_an_exception_of_the_block_leaves_as_itself(server: RedisServer) -> None:
    problem = KeyError("mine")

    async def fail(*, cancel: bool) -> None:
        with trio.CancelScope() as scope:
            async with RedisStore(server.url) as store:
                await save(store, "work", b"1")
                if cancel:
                    scope.cancel()
                raise problem

    for cancel in False, True:
        with pytest.raises(KeyError) as caught:
            await fail(cancel=cancel)
        assert caught.value is problem


async def test_cancelling_the_block_ends_the_connections(server: RedisServer) -> None:
    store = RedisStore(server.url)
    with trio.CancelScope() as scope:
        async with store:
            await save(store, "work", b"1")
            scope.cancel()
            await trio.sleep_forever()
    assert scope.cancelled_caught
    with pytest.raises(RuntimeError, match="inside its block"):
        await store.get("work")


@pytest.mark.parametrize("is_connected", [True, False])
async def test_a_cancelled_block_can_still_save(server: RedisServer, *, is_connected: bool) -> None:
    with trio.CancelScope() as scope:
        async with RedisStore(server.url, timeout=60) as store:
            lease = await store.acquire("work", "one", seconds=60)
            scope.cancel()
            try:
                await trio.sleep_forever()
            finally:
                with trio.CancelScope(shield=True):
                    for connection in store._redis._idle if not is_connected else ():
                        connection.invalidate()
                    await trio.testing.wait_all_tasks_blocked()
                    await store.append(lease, 0, [Record(b"1")])
                    await store.release(lease)
    async with RedisStore(server.url) as store:
        assert await store.read("work", 0) == [Record(b"1")]
        await store.acquire("work", "two", seconds=60)


@pytest.mark.parametrize("checkpoints", range(0, 30, 3))
async def test_opening_can_be_cancelled_at_any_point(server: RedisServer, checkpoints: int) -> None:
    async with trio.open_nursery() as nursery:
        nursery.start_soon(open_and_close, RedisStore(server.url))
        for _ in range(checkpoints):
            await trio.lowlevel.checkpoint()
        nursery.cancel_scope.cancel()


@pytest.mark.parametrize("part", ["_reader_task", "_writer_task", "run"])
async def test_a_crash_of_a_connection_does_not_end_the_block(
    store: RedisStore, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    from coredis.connection import BaseConnection  # noqa: PLC0415 - an extra

    work = getattr(BaseConnection, part)

    async def crash(self: BaseConnection, **options: Any) -> None:
        try:
            if options:
                await work(self, **options)
        finally:
            raise ZeroDivisionError

    with monkeypatch.context() as patch:
        patch.setattr(BaseConnection, part, crash)
        for connection in store._redis._idle:
            connection.invalidate()
        if part == "run":  # it crashes when it has ended
            await save(store, "work", b"1")
            for connection in store._redis._idle:
                connection.invalidate()
            await trio.testing.wait_all_tasks_blocked()
        else:
            store.timeout = 0.3
            with pytest.raises(StoreUnavailable):
                await store.get("work")
    store.timeout = 60
    await save(store, "work", b"2")


async def test_a_store_is_opened_again_after_its_block(server: RedisServer) -> None:
    store = RedisStore(server.url)
    for _ in range(2):
        async with store:
            await save(store, "work", b"1")
            with pytest.raises(RuntimeError, match="open already"):
                await store.__aenter__()


def test_a_server_that_loads_its_data_is_asked_again() -> None:
    """While Redis reads its append-only file, it reports that it has none."""
    store = RedisStore("redis://localhost")
    with pytest.raises(EngineError, match="loads its data"):
        store._check_durability({"aof_enabled": "0", "loading": "1"})
