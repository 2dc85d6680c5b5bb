"""The list of workloads, each with the script of the server, its clients and its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

EVERYONE: Final = (
    "stream",
    "batches",
    "channel",
    "conversation",
    "openai",
    "openai-raw",
    "agents",
    "websockets",
    "websockets-trio",
    "picows",
    "trio-websocket",
    "httpx-ws",
    "node",
    "floor",
    "floor-2026",
)
LIVE: Final = (
    "stream",
    "batches",
    "openai",
    "websockets",
    "websockets-trio",
    "picows",
    "trio-websocket",
    "node",
    "floor",
    "floor-2026",
)
"""The clients of work with sparse events."""
OVER_HTTP: Final = ("http", "stream", "httpx", "httpx2", "openai-http")
CROWD: Final = (
    "stream",
    "openai",
    "websockets",
    "websockets-trio",
    "picows",
    "trio-websocket",
    "floor-2026",
)
BURST: Final = 2000
LONG_BURST: Final = 10_000
RATE: Final = 5
"""The deltas a second of each stream, where many streams run at once."""
WAKES: Final = 1000
"""The deltas a second of all connections together, as the connections grow."""
EVENTS_OF_A_TURN: Final = 7
"""The events of a streamed response without its deltas."""
MB: Final = 1_000_000
LEAST: Final = 0.2
"""The shortest duration of a sample in seconds."""
MILLISECOND: Final = 1e-3
KIB: Final = 1 / 1024


@dataclass(frozen=True)
class Column:
    """A number of a measurement: its key, its heading with the unit, and a factor."""

    key: str
    heading: str
    scale: float = 1.0
    digits: int = 1


@dataclass(frozen=True)
class Workload:
    """A comparison of clients in the same run.

    The ratios are those of the first column.
    """

    name: str
    title: str
    script: str
    order: dict[str, Any]
    columns: tuple[Column, ...]
    clients: tuple[str, ...] = EVERYONE
    secure: bool = False
    fresh: bool = False
    rounds: int = 3
    peer: str = "openai"
    group: str = ""
    drawn: bool = False
    """Whether there is a picture of the first column."""

    @property
    def seconds(self) -> float:
        """The time limit of a sample in seconds."""
        return 180.0


def per_event(events: int) -> tuple[Column, ...]:
    """Return the columns of a burst with ``events`` events a turn."""
    return (
        Column("cpu", "CPU, us an event", 1 / events, 2),
        Column("wall", "wall, us an event", 1 / events, 2),
    )


def burst(
    name: str,
    title: str,
    how: str,
    *,
    deltas: int = BURST,
    secure: bool = False,
    clients: tuple[str, ...] = EVERYONE,
    peer: str = "openai",
    drawn: bool = False,
) -> Workload:
    """Return a workload with a burst of deltas."""
    return Workload(
        name,
        title,
        f"burst-{deltas}-{how}",
        {"measure": "turns", "warm": 1, "count": 3, "least": LEAST},
        per_event(deltas + EVENTS_OF_A_TURN),
        clients=clients,
        secure=secure,
        rounds=7,
        peer=peer,
        drawn=drawn,
    )


def over(transport: str) -> tuple[str, str]:
    """Return what a transport adds to the name and to the title of a workload."""
    title = {"": "", "tls": " over TLS", "http": " over HTTP"}[transport]
    return (f"-{transport}" if transport else ""), title


LATENCY: Final = (
    Column("p50", "latency p50, us", digits=0),
    Column("p99", "latency p99, us", digits=0),
)


def paced(rate: int, transport: str = "", *, clients: tuple[str, ...] = EVERYONE) -> Workload:
    """Return a workload of two seconds with ``rate`` events a second."""
    suffix, title = over(transport)
    return Workload(
        f"paced-{rate}{suffix}",
        f"Paced: {rate:,} events a second{title}",
        f"paced-{rate}-{2 * rate}",
        {"measure": "paced", "count": 2 * rate},
        (Column("cpu", "CPU, us an event"), *LATENCY),
        clients=clients,
        secure=transport == "tls",
        rounds=7,
        peer="openai-http" if transport == "http" else "openai",
        drawn=transport == "",
    )


def streams(width: int, transport: str = "", *, clients: tuple[str, ...] = LIVE) -> Workload:
    """Return a workload with ``width`` streams at once, each with few events."""
    suffix, title = over(transport)
    return Workload(
        f"streams-{width}{suffix}",
        f"{width:,} streams, {RATE} events a second each{title}",
        f"steady-{RATE}-{60 * RATE}",
        {"measure": "streams", "width": width, "rate": RATE, "seconds": 2.0},
        (
            Column("cpu", "CPU, us an event"),
            Column("streams", "streams a processor", digits=0),
            *LATENCY,
        ),
        clients=tuple(name for name in clients if name != "node"),
        secure=transport == "tls",
        fresh=True,
        rounds=7,
        peer="openai-http" if transport == "http" else "openai",
        drawn=transport == "",
    )


def round_trip(transport: str = "", *, clients: tuple[str, ...] = EVERYONE) -> Workload:
    """Return a workload with small turns, one after another."""
    suffix, title = over(transport)
    return Workload(
        f"rtt{suffix}",
        f"Round trip: a turn of nine events{title}",
        "turn",
        {"measure": "turns", "warm": 20, "count": 100, "least": LEAST},
        (Column("cpu", "CPU, us a turn", digits=0), Column("wall", "wall, us a turn", digits=0)),
        clients=clients,
        secure=transport == "tls",
        rounds=7,
        peer="openai-http" if transport == "http" else "openai",
    )


def opening(
    measure: str, transport: str = "", *, clients: tuple[str, ...] = EVERYONE, count: int = 30
) -> Workload:
    """Return a workload that opens connections, until they are open or until the first text."""
    suffix, title = over(transport)
    until = "Opening a connection" if measure == "connect" else "From opening to the first text"
    return Workload(
        f"{measure}{suffix}",
        f"{until}{title}",
        "turn",
        {"measure": measure, "count": count},
        (Column("cpu", "CPU, ms", MILLISECOND, 2), Column("wall", "wall, ms", MILLISECOND, 2)),
        clients=clients,
        secure=transport == "tls",
        rounds=7,
        peer="openai-http" if transport == "http" else "openai",
    )


LARGE: Final = (
    Column("cpu", "CPU, ms a turn", MILLISECOND, 2),
    Column("wall", "wall, ms a turn", MILLISECOND, 2),
)


def large(name: str, title: str, script: str, *, rounds: int = 3) -> Workload:
    """Return a workload with a large response."""
    order = {"measure": "turns", "warm": 1, "count": 1, "least": LEAST}
    return Workload(name, title, script, order, LARGE, rounds=rounds)


def sent(name: str, title: str, **given: int) -> Workload:
    """Return a workload with a large request."""
    order = {"measure": "turns", "warm": 1, "count": 1, "least": LEAST, **given}
    return Workload(name, title, "turn", order, LARGE)


def crowd(width: int, *, secure: bool = False, rounds: int = 3) -> Workload:
    """Return a workload with ``width`` connections."""
    seconds = 3
    return Workload(
        f"connections-{width}{'-tls' if secure else ''}",
        f"{width:,} connections{' over TLS' if secure else ''}",
        f"idle-{seconds}",
        {"measure": "crowd", "width": width, "quiet": 1.0},
        (
            Column("bytes", "memory, KiB each", KIB),
            Column("cpu", "CPU, us an event", 1 / (seconds + EVENTS_OF_A_TURN - 1)),
            Column("idle", "idle, us CPU a second", digits=0),
            Column("connect", "connecting, ms CPU each", MILLISECOND, 2),
        ),
        clients=CROWD,
        secure=secure,
        fresh=True,
        rounds=rounds,
    )


OPENED: Final = tuple(name for name in EVERYONE if name not in {"agents", "conversation"})

COMPARED: Final = (
    burst("burst", f"A burst of {BURST:,} deltas", "whole", drawn=True),
    burst("burst-tls", "The same over TLS, in full records", "whole", secure=True),
    burst("burst-records", "The same over TLS, one record an event", "single", secure=True),
    burst(
        "burst-http",
        "The same over HTTP, one chunk an event",
        "whole",
        clients=OVER_HTTP,
        peer="openai-http",
    ),
    burst(
        "burst-http-long",
        f"{LONG_BURST:,} deltas over HTTP, one chunk an event",
        "whole",
        deltas=LONG_BURST,
        clients=OVER_HTTP,
        peer="openai-http",
    ),
    burst(
        "burst-http-joined",
        f"{BURST:,} deltas over HTTP, 20 events a chunk",
        "joined",
        clients=OVER_HTTP,
        peer="openai-http",
    ),
    Workload(
        "lanes",
        "Eight lanes at once, 250 deltas each",
        "side-8-250",
        {"measure": "lanes", "warm": 1, "count": 5, "width": 8},
        per_event(8 * (250 + EVENTS_OF_A_TURN)),
        clients=("lanes", "openai-lanes"),
        rounds=7,
        peer="openai-lanes",
    ),
    round_trip(),
    round_trip("tls", clients=LIVE),
    round_trip("http", clients=OVER_HTTP),
    paced(200),
    paced(1000),
    paced(1000, "tls", clients=LIVE),
    paced(1000, "http", clients=OVER_HTTP),
    streams(1000),
    streams(300, "tls"),
    streams(100, "http", clients=OVER_HTTP),
    large("text-1mb", "A response of 1 MB: one text", f"text-{MB}", rounds=7),
    large("items-1mb", "A response of 1 MB: function calls", f"items-{MB}", rounds=7),
    large("text-16mb", "A response of 16 MB: one text", f"text-{16 * MB}"),
    Workload(
        "items-16mb",
        "A response of 16 MB: function calls",
        f"items-{16 * MB}",
        {"measure": "turns", "warm": 0, "count": 1},
        LARGE,
    ),
    sent("input-1mb", "A request of 1 MB: one string", size=MB),
    sent("input-1000", "A request of 1,000 items", items=1000),
    crowd(100),
    crowd(1000, rounds=5),
    crowd(300, secure=True),
    opening("connect", clients=OPENED),
    opening("connect", "tls", clients=LIVE),
    opening("first", clients=OPENED),
    opening("first", "tls", clients=LIVE),
    opening(
        "first", "http", clients=tuple(name for name in OVER_HTTP if name != "stream"), count=5
    ),
)

IMPORT: Final = Workload(
    "import",
    "Importing it, in a fresh process",
    "",
    {},
    (Column("wall", "ms", MILLISECOND),),
    clients=("stream", "openai", "agents", "websockets", "trio-websocket"),
    rounds=7,
)
CALLS: Final = "calls"
"""The name of the counts of the guard among the results."""
IMPORTS: Final = {
    "stream": ("import trio", "import trio_responses"),
    "openai": ("pass", "import openai; openai.AsyncOpenAI(api_key='key').responses"),
    "agents": ("pass", "from agents.models.openai_responses import OpenAIResponsesWSModel"),
    "websockets": ("import asyncio", "from websockets.asyncio.client import connect"),
    "trio-websocket": ("import trio", "import trio_websocket"),
}
"""For each client, what is imported before the clock starts, and the measured import."""


@dataclass(frozen=True)
class Growth:
    """A cost at several sizes of something that grows."""

    name: str
    title: str
    axis: str
    unit: str
    steps: tuple[Workload, ...]
    drawn: bool = True
    """Whether there is a picture. There is none where the steps are no numbers."""


def growing(
    name: str, title: str, axis: str, widths: tuple[int, ...], script: str = "turn"
) -> Growth:
    """Return a growth with small turns."""
    steps = tuple(
        Workload(
            f"{name}-{width}",
            f"{width:,}",
            script,
            {"measure": name, "width": width, "count": 50},
            (Column("cpu", "CPU, us a turn", digits=0),),
            clients=("growth",),
            group=name,
            rounds=5,
        )
        for width in widths
    )
    return Growth(name, title, axis, "CPU, us a turn", steps)


def events(*widths: int) -> Growth:
    """Return a growth with the events of one response."""
    steps = tuple(
        Workload(
            f"events-{width}",
            f"{width:,}",
            f"burst-{width}-whole",
            {"measure": "events", "width": width, "count": max(1, 20_000 // width)},
            (Column("cpu", "CPU, us an event", 1 / (width + EVENTS_OF_A_TURN), 2),),
            clients=("growth",),
            group="events",
            rounds=5,
        )
        for width in widths
    )
    return Growth("events", "An event, as a response grows", "deltas", "CPU, us an event", steps)


def wakes(*widths: int) -> Growth:
    """Return a growth with the same events a second over more and more connections."""
    steps = tuple(
        Workload(
            f"wakes-{width}",
            f"{width:,}",
            f"steady-{WAKES // width}-{60 * WAKES // width}",
            {"measure": "wakes", "width": width, "total": WAKES},
            (Column("cpu", "CPU, us an event", digits=1),),
            clients=("growth",),
            group="wakes",
            rounds=5,
        )
        for width in widths
    )
    title = f"An event, as {WAKES:,} events a second come over more connections"
    return Growth("wakes", title, "connections", "CPU, us an event", steps)


FLOOD_KINDS: Final = (
    "deltas",
    "empty pongs",
    "empty pings",
    "pings of 4 bytes",
    "messages of one byte",
    "empty messages",
    "binary messages of one byte",
    "a message in fragments of one byte",
    "empty objects",
    "unknown events",
    "deltas with a wrong type",
    "deltas with half a surrogate pair",
    "deltas of unused lanes",
    "errors",
    "steering reports",
    "responses that begin",
    "one event, all escapes",
    "one event, all brackets",
)


def floods() -> Growth:
    """Return the longest pass of Trio's loop for each kind of flood."""
    steps = tuple(
        Workload(
            f"floods-{kind.replace(' ', '-').replace(',', '')}",
            kind,
            "turn",
            {"measure": "floods", "kind": kind},
            (Column("longest", "longest pass, us of CPU", digits=0),),
            clients=("growth",),
            group="floods",
            rounds=15,
        )
        for kind in FLOOD_KINDS
    )
    title = "How long one read of 64 KiB keeps the loop"
    return Growth("floods", title, "64 KiB of", "longest pass, us of CPU", steps, drawn=False)


GROWTHS: Final = (
    growing("history", "A delta turn, as the history grows", "items", (10, 100, 1000, 10_000)),
    events(100, 1000, 10_000, 100_000),
    growing("idle-lanes", "A turn, as idle lanes grow", "other lanes", (1, 8, 16, 31), "lane"),
    growing("idle-connections", "A turn, as idle connections grow", "others", (1, 10, 100, 1000)),
    wakes(1, 10, 100, 1000),
    floods(),
)

ALL: Final = (*COMPARED, IMPORT, *(step for growth in GROWTHS for step in growth.steps))


def chosen(names: set[str]) -> list[Workload]:
    """Return the workloads or growths with these names, or all for no name.

    :raises ValueError: for an unknown name.
    """
    known = {CALLS} | {workload.name for workload in ALL} | {growth.name for growth in GROWTHS}
    unknown = names - known
    if unknown:
        raise ValueError(f"no such workload: {', '.join(sorted(unknown))}")
    return [one for one in ALL if not names or one.name in names or one.group in names - {""}]
