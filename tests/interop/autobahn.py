"""A client for Autobahn's fuzzing server: our transport, as the echo that its cases ask for.

The server (`wstest -m fuzzingserver`, PyPI's `autobahntestsuite`) plays one case a connection, and
judges it by what comes back: text as text, binary as binary. Our transport sends text only, so
binary messages go back by the trio-websocket connection that it has below it.

What belongs elsewhere: how the server is started, and what is expected of it
(`test_autobahn.py`).
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import trio

from tests.transport.opened import open_transport
from trio_responses._endpoint import Endpoint
from trio_responses._errors import ConnectionLost
from trio_responses._protocol.frames import BinaryMessage
from trio_responses._settings import Keepalive, Limits, Timeouts
from trio_responses._transport.websocket import ConnectionConfig, dial_tcp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._protocol.frames import Message
    from trio_responses._transport.websocket import Transport

AGENT = "trio-responses"
AT_ONCE = 8
"""Connections at a time: many cases do nothing but wait for a second or two."""
PONG_TURNS = 4
"""Turns of Trio's loop in which a pong goes out: some cases want to see it before the message that
came behind their ping. RFC 6455 (5.5.2) asks for "as soon as is practical" and for no order."""


@dataclass(frozen=True)
class Verdict:
    """What the server says of one case."""

    frames: str
    """How they were dealt with: ``OK``, ``NON-STRICT``, ``INFORMATIONAL`` or ``FAILED``."""
    ending: str
    """How the connection ended: likewise, or ``UNCLEAN`` or ``WRONG CODE``."""


class FuzzingServer:
    """A running fuzzing server.

    :param port: of 127.0.0.1.
    """

    def __init__(self, port: int) -> None:
        self._origin = f"ws://127.0.0.1:{port}"

    async def cases(self) -> dict[str, int]:
        """Ask for its cases: their names, and the numbers it counts them by."""
        count = await self._ask("getCaseCount")
        names: dict[str, int] = {}
        for number in range(1, count + 1):
            names[(await self._ask(f"getCaseInfo?case={number}"))["id"]] = number
        return names

    async def play(self, cases: Iterable[int]) -> None:
        """Play cases, several at a time, and have it write what it thinks of them."""
        limiter = trio.CapacityLimiter(AT_ONCE)
        async with trio.open_nursery() as nursery:
            for case in cases:
                nursery.start_soon(self._play_one, case, limiter)
        async with open_transport(self._config(f"updateReports?agent={AGENT}"), ()) as transport:
            await echo(transport)

    async def _play_one(self, case: int, limiter: trio.CapacityLimiter) -> None:
        async with (
            limiter,
            open_transport(self._config(f"runCase?case={case}&agent={AGENT}"), ()) as transport,
        ):
            await echo(transport)

    async def _ask(self, resource: str) -> Any:
        async with open_transport(self._config(resource), ()) as transport:
            answer: list[Message] = await transport.receive()
        assert isinstance(answer[0], bytes)
        return json.loads(answer[0])

    def _config(self, resource: str) -> ConnectionConfig:
        return ConnectionConfig(
            endpoint=exactly(f"{self._origin}/{resource}"),
            dial=dial_tcp,
            ssl_context=None,
            timeouts=Timeouts(close=10.0),
            keepalive=Keepalive(interval=math.inf),
            limits=Limits(),
        )


def exactly(url: str) -> Endpoint:
    """Make a profile of a URL as it is, with no ``/responses`` behind it."""
    endpoint = Endpoint.compatible(url)
    object.__setattr__(endpoint, "url", url)
    return endpoint


async def echo(transport: Transport) -> None:
    """Send every message back until the socket ends."""
    try:
        while True:
            messages = await transport.receive()
            for _ in range(PONG_TURNS):
                await trio.lowlevel.checkpoint()
            for message in messages:
                await send_back(transport, message)
    except ConnectionLost:
        pass


async def send_back(transport: Transport, message: Message) -> None:
    """Send one message as it came."""
    match message:
        case bytes():
            await transport.send(message)
        case BinaryMessage(data=data):
            await transport._websocket.send_message(data)
        case _:
            raise AssertionError(f"no case sends {message!r}")
