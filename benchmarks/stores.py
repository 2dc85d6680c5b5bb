"""What durable conversations cost, and what a machine holds: ``python -m benchmarks.stores``.

The engines run on this machine, and the model is the replay server. ``--only`` and ``--engines``
choose what to measure, ``--quick`` takes fewer samples. Times are medians. Read the ratios: times
depend on the disk, and on what else the machine does. CPU is that of this process, with its worker
threads, and not that of the engine.
"""

from __future__ import annotations

import argparse
import base64
import gc
import json
import random
import statistics
import subprocess
import sys
import time
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Final, TypeVar

import trio

from benchmarks.engines import NAMES, make_store, open_engine
from benchmarks.processors import resident_bytes
from benchmarks.programs import ROOT, clean_environment, open_benchmark_server
from trio_responses import Endpoint, open_pool
from trio_responses.stores import MemoryStore
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
    from contextlib import AbstractAsyncContextManager

    from benchmarks.engines import Engine, Store
    from trio_responses import Conversation, ResponsesConnection, ResponsesPool
    from trio_responses.stores import ConversationStore, Lease, Record

T = TypeVar("T")

MODEL: Final = "gpt-5.5"
SCRIPT: Final = "text-8"
QUESTION: Final = base64.b64encode(random.Random(0).randbytes(1500)).decode()  # noqa: S311
"""2 kB that do not compress; the answer is a few words."""
TURNS: Final = 50
"""The turns of a conversation that is not said to have another size."""
SIZES: Final = (10, 100, 1000, 10_000)
"""The items of the histories that grow; a turn has two."""
COPIED: Final = 200
"""How many records are copied at once."""
WIDTH: Final = 32
"""How many conversations have turns at the same time."""
PROGRAM: Final = (sys.executable, "-m", "benchmarks.stores")
LEASES: Final = (1.0, 3.0)
KIB: Final = 1024


@dataclass
class Appends:
    """The appends to a store since the latest `clear`."""

    count: int = 0
    bytes: int = 0
    seconds: list[float] = field(default_factory=list[float])

    def clear(self) -> None:
        """Forget all."""
        self.count = self.bytes = 0
        self.seconds.clear()


def watch(store: Store) -> Appends:
    """Count and time the appends to a store from now on."""
    appends, append = Appends(), store.append

    async def counted(
        lease: Lease, position: int, records: Sequence[Record], *, base: int | None = None
    ) -> None:
        start = time.perf_counter()
        await append(lease, position, records, base=base)
        appends.seconds.append(time.perf_counter() - start)
        appends.count += 1
        appends.bytes += sum(len(each.data) + len(each.key or "") for each in records)

    store.append = counted  # type: ignore[method-assign]
    return appends


def durable(
    source: ResponsesConnection | ResponsesPool,
    store: ConversationStore,
    name: str,
    *,
    wait: float = 0.0,
    lease: float = 30.0,
) -> AbstractAsyncContextManager[Conversation]:
    """Return the block of a durable conversation."""
    return source.durable_conversation(store, name, model=MODEL, wait=wait, lease_seconds=lease)


async def make_log(pool: ResponsesPool, turns: int) -> Sequence[Record]:
    """Return the records of a conversation."""
    async with MemoryStore() as store:
        async with durable(pool, store, "model") as conversation:
            for _ in range(turns):
                await conversation.create(QUESTION)
        return await store.read("model", 0)


async def copy_log(store: ConversationStore, records: Sequence[Record], name: str) -> None:
    """Store a conversation under a name of its own."""
    lease = await store.acquire(name, "copy", seconds=600)
    for position in range(0, len(records), COPIED):
        base = 0 if not position else None
        await store.append(lease, position, records[position : position + COPIED], base=base)
    await store.release(lease)


def show(*cells: Any) -> None:
    """Print a row of a table, in the form of the documentation."""
    print("|", " | ".join(str(cell) for cell in cells), "|", flush=True)


def header(title: str, *cells: str) -> None:
    """Print the title and the head of a table."""
    print(f"\n### {title}\n", flush=True)
    show(*cells)
    show(*("---" if not number else "---:" for number in range(len(cells))))


# --- Memory of idle conversations -----------------------------------------------------------


async def measure_memory(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure how much open conversations add to the memory of a process, a new one each time."""
    del engines
    count = 100 if quick else 400
    header(
        f"Memory of an idle conversation ({count} open)",
        "conversation",
        "items, KiB",
        "memory, KiB each",
    )
    log = await make_log(pool, TURNS)
    items = sum(len(each.data) for each in log) / KIB
    async with open_engine("sqlite") as engine:
        assert engine is not None  # noqa: S101 - SQLite comes with Python
        async with engine.store() as store:
            for number in range(count):
                await copy_log(store, log, f"long-{number}")
        for kind in ("plain", "durable"):
            for history in ("new", "long"):
                weighed = await trio.run_process(
                    [*PROGRAM, "--weigh", engine.place, kind, history, str(count)],
                    cwd=ROOT,
                    env=clean_environment(),
                    capture_stdout=True,
                )
                size = f"{items:.0f}" if history == "long" else "0"
                show(kind, size, f"{float(weighed.stdout) / KIB:.1f}")


async def weigh(place: str, kind: str, history: str, count: str) -> None:
    """Print the bytes that each of some open conversations adds to the memory."""
    async with (
        make_store("sqlite", place) as store,
        open_test_server() as server,
        server.open_client(endpoint=Endpoint.compatible(server.url)) as connection,
    ):

        @asynccontextmanager
        async def open_one(number: int) -> AsyncGenerator[Conversation, None]:
            name = f"{history}-{number}"
            if kind == "durable":
                async with durable(connection, store, name, lease=600) as conversation:
                    yield conversation
                return
            async with connection.conversation(model=MODEL) as conversation:
                if history == "long":
                    await conversation.replace_history(json.loads(items))
                yield conversation

        async with durable(connection, store, "long-0") as conversation:
            items = b"[" + b",".join(bytes(item) for item in conversation.raw_items) + b"]"
        async with open_one(0):  # so that everything was used once
            gc.collect()
        before = resident_bytes()
        async with AsyncExitStack() as stack:
            for number in range(int(count)):
                await stack.enter_async_context(open_one(number))
            gc.collect()
            print((resident_bytes() - before) / int(count), flush=True)


# --- Bytes ----------------------------------------------------------------------------------


async def measure_bytes(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure what conversations of 50 turns of 2 kB write, and how much the engine stores."""
    count = 5 if quick else 20
    header(
        f"Bytes of a conversation of {TURNS} turns of 2 kB",
        "engine",
        "items, kB",
        "written, kB",
        "written / items (limit 1.5)",
        "stored by the engine, kB",
    )
    for engine in engines:
        async with engine.store() as store:
            appends, items = watch(store), 0
            before = await engine.stored_bytes()
            for number in range(count):
                async with durable(pool, store, f"bytes-{number}") as conversation:
                    for _ in range(TURNS):
                        await conversation.create(QUESTION)
                    items += sum(len(bytes(item)) for item in conversation.raw_items)
        stored = (await engine.stored_bytes() - before) / count / 1000
        show(
            engine.name,
            f"{items / count / 1000:.0f}",
            f"{appends.bytes / count / 1000:.0f}",
            f"{appends.bytes / items:.2f}",
            f"{stored:.0f}" if stored else "",
        )


# --- Growth ---------------------------------------------------------------------------------


@dataclass
class TurnTimes:
    """The medians of some turns, in microseconds."""

    cpu: float
    wall: float


async def take_turns(conversation: Conversation, count: int) -> TurnTimes:
    """Run turns one after another, and return the times of one."""
    cpu: list[float] = []
    wall: list[float] = []
    for _ in range(count):
        started, used = time.perf_counter(), time.process_time()
        await conversation.create(QUESTION)
        wall.append((time.perf_counter() - started) * 1e6)
        cpu.append((time.process_time() - used) * 1e6)
    return TurnTimes(statistics.median(cpu), statistics.median(wall))


async def measure_growth(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure the save of a turn and the opening of a conversation, as its history grows."""
    count = 20 if quick else 60
    log = await make_log(pool, max(SIZES) // 2)
    header(
        "Saving a turn, as the history grows",
        "engine",
        "items",
        "CPU of a turn, us",
        "of a plain one, us",
        "append, us",
        "written a turn, bytes",
        "opening, ms",
        "opening, us CPU an item",
    )
    plain: dict[int, TurnTimes] = {}
    for engine in engines:
        async with engine.store() as store:
            appends = watch(store)
            for size in SIZES:
                name = f"growth-{size}"
                await copy_log(store, log[: 1 + size // 2], name)
                opened = [await open_once(pool, store, name) for _ in range(3)]
                async with durable(pool, store, name) as conversation:
                    if size not in plain:
                        items = [json.loads(bytes(item)) for item in conversation.raw_items]
                        async with pool.conversation(model=MODEL) as other:
                            await other.replace_history(items)
                            await other.create(QUESTION)
                            plain[size] = await take_turns(other, count)
                    await conversation.create(QUESTION)
                    appends.clear()
                    times = await take_turns(conversation, count)
                show(
                    engine.name,
                    f"{size:,}",
                    f"{times.cpu:.0f}",
                    f"{plain[size].cpu:.0f}",
                    f"{statistics.median(appends.seconds) * 1e6:.0f}",
                    f"{appends.bytes / appends.count:.0f}",
                    f"{statistics.median(one.wall for one in opened) / 1000:.1f}",
                    f"{statistics.median(one.cpu for one in opened) / size:.1f}",
                )


async def open_once(pool: ResponsesPool, store: ConversationStore, name: str) -> TurnTimes:
    """Open and close a conversation, and return how long the opening takes."""
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    async with durable(pool, store, name):
        wall, cpu = time.perf_counter() - started, time.process_time() - used
    return TurnTimes(cpu * 1e6, wall * 1e6)


# --- Takeover -------------------------------------------------------------------------------


async def measure_takeover(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure the time from a `SIGKILL` of an owner to the block of the next one."""
    header(
        "From the kill of an owner to the block of the next one",
        "engine",
        "lease, s",
        "median, s",
        "longest, s",
        "longest / lease",
    )
    for engine in engines:
        if engine.name == "memory":
            continue
        async with engine.store() as store:
            for lease in LEASES:
                taken = [
                    await take_over(pool, store, engine, lease, f"taken-{lease:g}-{number}")
                    for number in range(3 if quick else 9)
                ]
                show(
                    engine.name,
                    f"{lease:g}",
                    f"{statistics.median(taken):.2f}",
                    f"{max(taken):.2f}",
                    f"{max(taken) / lease:.2f}",
                )


async def take_over(
    pool: ResponsesPool, store: ConversationStore, engine: Engine, lease: float, name: str
) -> float:
    """Kill an owner at a random time, and return after how many seconds it has a successor."""
    owner = await trio.lowlevel.open_process(
        [*PROGRAM, "--own", engine.name, engine.place, name, str(lease)],
        cwd=ROOT,
        env=clean_environment(),
        stdout=subprocess.PIPE,
    )
    assert owner.stdout is not None  # noqa: S101 - a pipe
    await owner.stdout.receive_some()
    await trio.sleep(random.uniform(0, lease))  # noqa: S311 - no secret depends on it
    owner.kill()
    start = time.perf_counter()
    async with durable(pool, store, name, wait=10 * lease, lease=lease):
        seconds = time.perf_counter() - start
    await owner.wait()
    await owner.stdout.aclose()
    return seconds


async def own(engine: str, place: str, name: str, lease: str) -> None:
    """Own a conversation until this process is killed."""
    async with (
        make_store(engine, place) as store,
        open_test_server() as server,
        server.open_client() as connection,
        durable(connection, store, name, lease=float(lease)),
    ):
        print("open", flush=True)
        await trio.sleep_forever()


# --- A machine ------------------------------------------------------------------------------


async def measure_machine(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure turns a second of one process, against conversations without a store."""
    rounds, turns = (3, 10) if quick else (7, 30)
    header(
        f"Turns a second of one process, {WIDTH} conversations at once",
        "engine",
        "turns/s",
        "plain / it",
        "CPU of a turn, us",
        "CPU / plain",
        "opened for each turn, turns/s",
        "CPU of such a turn, us",
    )
    for engine in engines:
        async with engine.store() as store:
            found: dict[str, list[tuple[float, float]]] = {"plain": [], "kept": [], "each": []}
            for number in range(rounds):
                for kind in random.sample(list(found), len(found)):
                    names = [f"{kind}-{number}-{place}" for place in range(WIDTH)]
                    work = partial(talk, pool, store, kind, turns)
                    found[kind].append(await run_wide(work, names, turns))
        (kept, kept_cpu), (plain, plain_cpu), (each, each_cpu) = (
            [statistics.median(column) for column in zip(*found[kind], strict=True)]
            for kind in ("kept", "plain", "each")
        )
        show(
            engine.name,
            f"{kept:.0f}",
            f"{plain / kept:.2f}",
            f"{kept_cpu:.0f}",
            f"{kept_cpu / plain_cpu:.2f}",
            f"{each:.0f}",
            f"{each_cpu:.0f}",
        )


async def talk(
    pool: ResponsesPool, store: ConversationStore, kind: str, turns: int, name: str
) -> None:
    """Run the turns of one conversation."""
    if kind == "each":
        for _ in range(turns):
            async with durable(pool, store, name) as conversation:
                await conversation.create(QUESTION)
        return
    kept = kind == "kept"
    block = durable(pool, store, name) if kept else pool.conversation(model=MODEL)
    async with block as conversation:
        for _ in range(turns):
            await conversation.create(QUESTION)


async def run_wide(
    work: Callable[[T], Awaitable[None]], places: Sequence[T], each: int
) -> tuple[float, float]:
    """Run work for all places at once; return how much is done a second, and its CPU in us."""
    gc.collect()
    started, used = time.perf_counter(), time.process_time()
    async with trio.open_nursery() as nursery:
        for place in places:
            nursery.start_soon(work, place)
    count = len(places) * each
    return (
        count / (time.perf_counter() - started),
        (time.process_time() - used) / count * 1e6,
    )


async def measure_renewals(pool: ResponsesPool, engines: Iterable[Engine], *, quick: bool) -> None:
    """Measure how many leases one process can renew."""
    del pool
    each = 10 if quick else 50
    header(
        "Renewals of one process",
        "engine",
        "renewals/s",
        "CPU, us",
        "leases of 30 s that this is",
    )
    for engine in engines:
        async with engine.store() as store:
            leases = [
                await store.acquire(f"renewed-{number}", "owner", seconds=600)
                for number in range(WIDTH)
            ]
            rate, cpu = await run_wide(partial(renew, store, each), leases, each)
        show(engine.name, f"{rate:.0f}", f"{cpu:.0f}", f"{rate * 10:.0f}")


async def renew(store: ConversationStore, times: int, lease: Lease) -> None:
    """Renew a lease several times."""
    for _ in range(times):
        await store.renew(lease, seconds=600)


MEASURES: Final = {
    "memory": measure_memory,
    "bytes": measure_bytes,
    "growth": measure_growth,
    "takeover": measure_takeover,
    "machine": measure_machine,
    "renewals": measure_renewals,
}


async def measure(arguments: argparse.Namespace) -> None:
    """Run the chosen measurements on the chosen engines that are installed."""
    with open_benchmark_server() as server:
        url = server.url(SCRIPT, secure=False)
        async with AsyncExitStack() as stack:
            pool = await stack.enter_async_context(open_pool(url, size=WIDTH, api_key="sk-none"))
            engines: list[Engine] = []
            for name in arguments.engines:
                engine = await stack.enter_async_context(open_engine(name))
                if engine is None:
                    print(f"{name}: not installed", file=sys.stderr)
                else:
                    engines.append(engine)
            for name in arguments.only:
                await MEASURES[name](pool, engines, quick=arguments.quick)


def main() -> None:
    """Run the measurements, or a process of one of them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.stores", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=list(MEASURES), default=list(MEASURES))
    parser.add_argument("--engines", nargs="+", choices=NAMES, default=NAMES)
    parser.add_argument("--quick", action="store_true", help="take fewer samples")
    for name in ("--own", "--weigh"):
        parser.add_argument(name, nargs=4, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.own:
        trio.run(own, *arguments.own)
    elif arguments.weigh:
        trio.run(weigh, *arguments.weigh)
    else:
        trio.run(measure, arguments)


if __name__ == "__main__":
    main()
