"""A soak test: many connections over loopback TCP for many minutes, with a faulty server.

``python benchmarks/soak.py --seconds 600 --connections 50`` (or ``nox -s soak``). The tasks of each
connection run turns on lanes, conversations with forks, and the raw channel. By chance they read
slowly, cancel, steer, and leave early. At the end the program prints a table and checks that

- every turn ended in exactly one way: with a `Response`, with a typed error that has a
  ``delivery``, or cancelled; and no turn had the text of another turn;
- the history of each conversation has exactly the turns that ended well;
- memory is flat: the resident size of the last quarter is compared with the second quarter;
- no request, byte, task or file descriptor is left.
"""

from __future__ import annotations

import argparse
import gc
import json
import os
import random
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any, Final

import trio
from loop_probe import LoopProbe
from soak_clients import TIMEOUTS, SoakLog, live

SERVER: Final = Path(__file__).with_name("soak_server.py")
MIB: Final = 1024 * 1024
GROWTH_BYTES: Final = 8 * MIB
LEEWAY: Final = 1.0
LAG_INTERVAL: Final = 0.05
PAGE: Final = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Return the resident size of this process in bytes."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


def descriptors() -> int:
    """Return the number of open file descriptors of this process."""
    return len(list(Path("/proc/self/fd").iterdir()))


async def sample(log: SoakLog, seconds: float) -> None:
    """Store the memory size sixty times, and print it twenty times."""
    started = trio.current_time()
    for number in range(60):
        await trio.sleep_until(started + (number + 0.99) * seconds / 60)
        log.samples.append(resident())
        if number % 3 == 2:
            print(
                f"{trio.current_time() - started:>6.0f} s {resident() / MIB:>7.1f} MiB"
                f" {log.turns:>8,} turns {len(log.wrong):>3} failed checks",
                flush=True,
            )


async def measure_lag(log: SoakLog) -> None:
    """Measure the largest delay of the event loop, which a busy machine causes."""
    while True:
        due = trio.current_time() + LAG_INTERVAL
        await trio.sleep_until(due)
        log.lag = max(log.lag, trio.current_time() - due)


async def soak(log: SoakLog, seconds: float, connections: int, pause: float, seed: int) -> Any:
    """Run server and clients, and return the counters of the server."""
    server = await trio.lowlevel.open_process(
        [sys.executable, str(SERVER), str(seed)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert server.stdin is not None  # noqa: S101 - both are pipes
    assert server.stdout is not None  # noqa: S101 - likewise
    url = bytes(await server.stdout.receive_some()).decode().strip()
    probe = LoopProbe()
    trio.lowlevel.add_instrument(probe)
    tasks, files = trio.lowlevel.current_statistics().tasks_living, descriptors()
    until = trio.current_time() + seconds
    with trio.move_on_after(seconds + 30) as scope:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(measure_lag, log)
            async with trio.open_nursery() as clients:
                clients.start_soon(sample, log, seconds)
                for number in range(connections):
                    clients.start_soon(live, log, url, number, pause, until)
            nursery.cancel_scope.cancel()
    trio.lowlevel.remove_instrument(probe)
    log.longest_pass = probe.longest
    log.check(not scope.cancelled_caught, "the connections did not close in time")
    await trio.sleep(0.5)
    gc.collect()
    left = trio.lowlevel.current_statistics().tasks_living - tasks, descriptors() - files
    log.check(left == (0, 0), f"not closed: {left[0]} tasks, {left[1]} file descriptors")
    await server.stdin.aclose()
    report = b"".join([bytes(data) async for data in server.stdout])
    await server.wait()
    await server.stdout.aclose()
    return json.loads(report)


def check_totals(log: SoakLog) -> None:
    """Check turns, memory and closing times at the end."""
    ended = sum(log.endings.values())
    log.check(ended == log.turns, f"{log.turns} turns, {ended} endings")
    log.check(not log.endings["NEVER ENDED"], "turns that never ended")
    growth = statistics.median(log.samples[45:]) - statistics.median(log.samples[15:30])
    log.check(growth < GROWTH_BYTES, f"memory grew by {growth / MIB:.1f} MiB")
    slowest = max(log.leaving, default=0.0)
    log.check(
        slowest < TIMEOUTS.close + LEEWAY + 2 * log.lag,
        f"closing a connection took {slowest:.1f} s",
    )


def print_table(log: SoakLog, report: Any) -> None:
    """Print the counters and the failed checks."""

    def rows(title: str, counts: Any) -> None:
        print(f"\n{title}")
        for name, count in sorted(counts.items(), key=lambda row: -row[1]):
            print(f"    {name:<42} {count:>10,}")

    rows(f"{log.turns:,} turns ended with", +log.endings)
    rows("connections", log.connections)
    rows("other counts", log.extras)
    rows("faults of the server", report["faults"])
    quarters = [log.samples[at : at + 15] for at in range(0, 60, 15)]
    sizes = " ".join(f"{statistics.median(part) / MIB:.1f}" for part in quarters)
    print(f"\nmedian resident size of each quarter: {sizes} MiB; now {resident() / MIB:.1f}")
    print(f"slowest closing of a connection: {max(log.leaving, default=0.0):.2f} s;"
          f" the event loop was late by up to {log.lag:.2f} s")  # fmt: skip
    print(f"longest pass of the loop: {log.longest_pass * 1000:.1f} ms of processor time")
    print(f"handshakes at the server: {report['handshakes']:,}; sockets at once: up to"
          f" {report['most sockets at once']}")  # fmt: skip
    print(f"exceptions in the server: {report['errors'] or 'none'}")
    print("", *log.wrong[:20], f"{len(log.wrong)} failed checks", sep="\n")


def main() -> int:
    """Run the soak test and return the exit status."""
    parser = argparse.ArgumentParser(description="Many connections, many faults, many minutes.")
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--connections", type=int, default=50)
    parser.add_argument("--pause", type=float, default=1.5, help="mean seconds between turns")
    parser.add_argument(
        "--seed",
        type=int,
        default=None,
        help="seed of the random choices, by default from the clock",
    )
    options = parser.parse_args()
    seed = int(time.time()) if options.seed is None else options.seed
    log = SoakLog(random.Random(seed))  # noqa: S311 - no secret depends on it
    print(f"{options.connections} connections, {options.seconds:.0f} s, seed {seed}")
    report = trio.run(soak, log, options.seconds, options.connections, options.pause, seed)
    check_totals(log)
    print_table(log, report)
    return 1 if log.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
