"""The list of workloads, each with the script of the server, its clients and its columns."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

EVERYONE: Final = (
    "stream",
    "channel",
    "conversation",
    "openai",
    "openai-raw",
    "agents",
    "websockets",
    "picows",
    "trio-websocket",
    "httpx-ws",
    "node",
    "baseline",
)
OVER_HTTP: Final = ("http", "stream", "httpx2", "openai-http")
CROWD: Final = ("stream", "openai", "websockets", "trio-websocket")
BURST: Final = 2000
LONG_BURST: Final = 10_000
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
        rounds=5 if secure else 7,
        peer=peer,
    )


def paced(rate: int, *, http: bool = False) -> Workload:
    """Return a workload of two seconds with ``rate`` events a second."""
    return Workload(
        f"paced-{rate}{'-http' if http else ''}",
        f"Paced: {rate:,} events a second{' over HTTP' if http else ''}",
        f"paced-{rate}-{2 * rate}",
        {"measure": "paced", "count": 2 * rate},
        (
            Column("p50", "latency p50, us", digits=0),
            Column("p99", "latency p99, us", digits=0),
            Column("cpu", "CPU, us an event"),
        ),
        clients=OVER_HTTP if http else EVERYONE,
        peer="openai-http" if http else "openai",
    )


LARGE: Final = (
    Column("cpu", "CPU, ms a turn", MILLISECOND, 2),
    Column("wall", "wall, ms a turn", MILLISECOND, 2),
)


def large(name: str, title: str, script: str) -> Workload:
    """Return a workload with a large response."""
    order = {"measure": "turns", "warm": 1, "count": 1, "least": LEAST}
    return Workload(name, title, script, order, LARGE)


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


COMPARED: Final = (
    burst("burst", f"A burst of {BURST:,} deltas", "whole"),
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
    Workload(
        "rtt",
        "Round trip: a turn of nine events",
        "turn",
        {"measure": "turns", "warm": 20, "count": 100, "least": LEAST},
        (Column("wall", "wall, us a turn", digits=0), Column("cpu", "CPU, us a turn", digits=0)),
        rounds=7,
    ),
    paced(200),
    paced(1000),
    paced(1000, http=True),
    large("text-1mb", "A response of 1 MB: one text", f"text-{MB}"),
    large("items-1mb", "A response of 1 MB: function calls", f"items-{MB}"),
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
    crowd(1000),
    crowd(300, secure=True),
    Workload(
        "connect",
        "Opening a connection",
        "turn",
        {"measure": "connect", "count": 30},
        (
            Column("cpu", "CPU, ms", MILLISECOND, 2),
            Column("wall", "wall, ms", MILLISECOND, 2),
        ),
        clients=tuple(name for name in EVERYONE if name not in {"agents", "conversation"}),
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
    floods(),
)

ALL: Final = (*COMPARED, IMPORT, *(step for growth in GROWTHS for step in growth.steps))


def chosen(names: set[str]) -> list[Workload]:
    """Return the workloads or growths with these names, or all for no name.

    :raises ValueError: for an unknown name.
    """
    unknown = names - {workload.name for workload in ALL} - {growth.name for growth in GROWTHS}
    if unknown:
        raise ValueError(f"no such workload: {', '.join(sorted(unknown))}")
    return [one for one in ALL if not names or one.name in names or one.group in names - {""}]
