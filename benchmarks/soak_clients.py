"""The client tasks of the soak test: turns, lanes, conversations, forks and steering, by chance."""

from __future__ import annotations

from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_responses import (
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    Keepalive,
    ReconnectPolicy,
    ResponsesError,
    RotationPolicy,
    SteerState,
    Timeouts,
    open_responses,
)
from trio_responses.types import Message, OutputTextDelta, ResponseCreate

if TYPE_CHECKING:
    import random

    from trio_responses import Conversation, Lane, ResponsesConnection, ResponseStream
    from trio_responses.types import Response

KEY: Final = "sk-secret-soak"
TIMEOUTS: Final = Timeouts(connect=2, send=3, first_event=3, stall=3, close=1)
KEEPALIVE: Final = Keepalive(interval=1.5, timeout=1.5)
RECONNECT: Final = ReconnectPolicy(initial=0.05, cap=1.0, attempts=8)
ROTATIONS: Final = (4.0, 8.0, None)
LONGEST_TURN: Final = 60.0
LONGEST_LIFE: Final = 120.0
LONGEST_HISTORY: Final = 12
EACH_WITH_CHANNEL: Final = 5
SETTLED: Final = frozenset({SteerState.COMMITTED, SteerState.FAILED, SteerState.UNKNOWN})
COUNTED: Final = (
    "sockets_opened",
    "events_received",
    "requests_sent",
    "undecodable_frames",
    "dropped_events",
)


@dataclass
class SoakLog:
    """The counters and the failed checks of a soak test."""

    dice: random.Random
    turns: int = 0
    endings: Counter[str] = field(default_factory=Counter[str])
    extras: Counter[str] = field(default_factory=Counter[str])
    wrong: list[str] = field(default_factory=list[str])
    samples: list[int] = field(default_factory=list[int])
    leaving: list[float] = field(default_factory=list[float])
    lag: float = 0.0
    longest_pass: float = 0.0
    connections: Counter[str] = field(default_factory=Counter[str])

    def token(self) -> str:
        """Return a text that no other turn has."""
        self.turns += 1
        return f"turn{self.turns}x"

    def check(self, holds: object, complaint: str) -> None:
        """Store a complaint if a check fails."""
        if not holds:
            self.wrong.append(complaint)

    def chance(self, part: float) -> bool:
        """Return `True` with a probability."""
        return self.dice.random() < part


# --- One turn -----------------------------------------------------------------------------


async def run_turn(
    log: SoakLog, turns: ResponsesConnection | Lane | Conversation, **options: Any
) -> tuple[str, Response | None]:
    """Run one turn and count how it ended."""
    token = log.token()
    response: Response | None = None
    steered = False
    patience = log.dice.uniform(0, 0.1) if log.chance(0.15) else LONGEST_TURN
    ending = "NEVER ENDED"
    try:
        with trio.move_on_after(patience) as scope:
            async with turns.stream(token, delivery=random_delivery(log), **options) as stream:
                response, steered = await read(log, stream)
            ending = "left early" if response is None else f"Response, {response.status}"
        if scope.cancelled_caught:
            log.check(patience < LONGEST_TURN, f"no end in time: {token}")
            ending = "cancelled"
    except ResponsesError as error:
        log.check(isinstance(error.delivery, DeliveryStatus), f"no delivery: {error!r}")
        ending = f"{type(error).__name__}, {error.delivery}"
    except trio.Cancelled:
        ending = "cancelled"
        raise
    except Exception as error:  # noqa: BLE001 - any other exception is a failed check
        log.check(holds=False, complaint=f"untyped: {error!r}")
    finally:
        log.endings[ending] += 1
    if response is not None and response.status == "completed" and not steered:
        log.check(token in response.output_text, f"mix-up: {token}, {response.output_text!r}")
    return token, response


def random_delivery(log: SoakLog) -> Any:
    """Return a random value for ``delivery``."""
    return "at_least_once" if log.chance(0.3) else "at_most_once"


async def read(log: SoakLog, stream: ResponseStream) -> tuple[Response | None, bool]:
    """Read a stream quickly, slowly, up to some event, or with steering."""
    pause = log.dice.choice([0, 0, 0, 0, 0.01, 0.1])
    stop_after = log.dice.randrange(1, 8) if log.chance(0.1) else None
    steers = log.chance(0.2)
    receipt = None
    count = 0
    async for event in stream:
        count += 1
        if count == stop_after:
            return None, False
        await trio.sleep(pause)
        if steers and receipt is None and isinstance(event, OutputTextDelta):
            receipt = await stream.steer("and now to something else")
    if receipt is not None:
        with trio.move_on_after(LONGEST_TURN):
            await receipt.wait_settled()
        log.check(receipt.state in SETTLED, f"a steering input stayed {receipt.state}")
        log.extras[f"steered, {receipt.state}"] += 1
    return stream.response, receipt is not None


# --- The tasks of one connection ----------------------------------------------------------


async def ask_on_lanes(log: SoakLog, connection: ResponsesConnection, pause: float) -> None:
    """Run turns on the connection or on a leased lane until cancelled."""
    while True:
        if log.chance(0.5):
            await run_turn(log, connection, model="m")
        else:
            async with connection.lane() as lane:
                for _ in range(log.dice.randrange(1, 4)):
                    await run_turn(log, lane, model="m")
        await trio.sleep(log.dice.expovariate(1 / pause))


async def converse(log: SoakLog, connection: ResponsesConnection, pause: float) -> None:
    """Run one conversation after another, with forks, some saved and restored."""
    while True:
        settings = {"model": "m", "store": log.chance(0.5)}
        async with connection.conversation(**settings) as conversation:
            saved = await talk(log, conversation, pause, [])
        if saved is not None:
            checkpoint, said = saved
            log.extras["restored"] += 1
            async with connection.restore_conversation(checkpoint) as restored:
                await talk(log, restored, pause, said)


async def talk(
    log: SoakLog, conversation: Conversation, pause: float, said: list[str]
) -> tuple[bytes, list[str]] | None:
    """Run turns of a conversation, and sometimes return a checkpoint with the texts up to it."""
    while len(said) < LONGEST_HISTORY:
        if log.chance(0.1):
            branch = await conversation.fork()
            log.extras["forks"] += 1
            async with trio.open_nursery() as nursery:
                nursery.start_soon(say, log, conversation, said)
                nursery.start_soon(say, log, branch, list(said))
        else:
            await say(log, conversation, said)
        if log.chance(0.08):
            return conversation.checkpoint(), said
        await trio.sleep(log.dice.expovariate(1 / pause))
    return None


async def say(log: SoakLog, conversation: Conversation, said: list[str]) -> None:
    """Run one turn of a conversation and check the history."""
    before = len(conversation.items)
    token, response = await run_turn(log, conversation)
    words = [
        item.content
        for item in conversation.items
        if isinstance(item, Message) and str(item.content).startswith("turn")
    ]
    ended_well = response is not None and response.status in {"completed", "incomplete"}
    if not ended_well and words != said:  # cancelled or left after its last event
        ended_well = True
        log.extras["turns that ended before they were left"] += 1
        log.check(response is None, f"a {token} that failed is in the history")
    if ended_well:
        said.append(token)
    else:
        log.check(len(conversation.items) == before, f"{token} changed the history")
    log.check(words == said, f"history: {words}, not {said}")


async def use_channel(log: SoakLog, connection: ResponsesConnection, pause: float) -> None:
    """Send and receive on the raw channel, and count the events."""

    async def send() -> None:
        while True:
            await trio.sleep(log.dice.expovariate(1 / pause))
            try:
                await connection.send(ResponseCreate(model="m", input="raw"))
                log.extras["raw requests"] += 1
            except ResponsesError as error:
                log.extras[f"raw requests: {type(error).__name__}"] += 1

    async with trio.open_nursery() as nursery:
        nursery.start_soon(send)
        with suppress(ResponsesError):
            async for event in connection:
                is_notification = not hasattr(event, "sequence_number")
                name = f"notifications: {type(event).__name__}" if is_notification else "raw events"
                log.extras[name] += 1
        nursery.cancel_scope.cancel()


async def live(log: SoakLog, url: str, number: int, pause: float, until: float) -> None:
    """Keep one connection in use, and open another one when it has ended."""
    endpoint = Endpoint.compatible(url, lanes=True, max_age=None, after_error="reuse")
    rotation = RotationPolicy(max_age=ROTATIONS[number % 3], stagger=0.5)
    while trio.current_time() < until:
        connection: ResponsesConnection | None = None
        try:
            async with open_responses(
                endpoint=endpoint, api_key=KEY, timeouts=TIMEOUTS, keepalive=KEEPALIVE,
                reconnect=RECONNECT, rotation=rotation,
            ) as connection:  # fmt: skip
                with trio.move_on_at(min(until, trio.current_time() + LONGEST_LIFE)):
                    await use(log, connection, number, pause)
                left_at = trio.current_time()
                ended = connection.state is ConnectionState.CLOSED
            log.leaving.append(trio.current_time() - left_at)
            log.connections["ended by the server" if ended else "left"] += 1
        except ResponsesError as error:
            log.connections[f"given up: {type(error).__name__}"] += 1
            await trio.sleep(0.2)
        if connection is not None:
            settle(log, connection, reads_channel=number % EACH_WITH_CHANNEL == 0)


async def use(log: SoakLog, connection: ResponsesConnection, number: int, pause: float) -> None:
    """Run the tasks of one connection until it ends or the time is over."""

    async def end_with_connection() -> None:
        while connection.state is not ConnectionState.CLOSED:  # noqa: ASYNC110 - the state has no event to wait for
            await trio.sleep(0.1)
        nursery.cancel_scope.cancel()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(end_with_connection)
        nursery.start_soon(ask_on_lanes, log, connection, pause)
        nursery.start_soon(ask_on_lanes, log, connection, pause)
        nursery.start_soon(converse, log, connection, pause)
        if number % EACH_WITH_CHANNEL == 0:
            nursery.start_soon(use_channel, log, connection, pause)


def settle(log: SoakLog, connection: ResponsesConnection, *, reads_channel: bool) -> None:
    """Count the statistics of a closed connection, and check that nothing is left."""
    counts = connection.statistics()
    unread = 0 if reads_channel else counts.unread_bytes
    is_idle = (counts.state, counts.requests_active, unread) == (ConnectionState.CLOSED, 0, 0)
    log.check(is_idle, f"not idle after closing: {counts}")
    for name in COUNTED:
        log.extras[name.replace("_", " ")] += getattr(counts, name)
