"""A client for the fuzzing server of Autobahn: the transport, which echoes every message.

The server (``wstest -m fuzzingserver`` of the PyPI package ``autobahntestsuite``) runs one case in
each connection and judges the echo: text as text, binary as binary. The transport sends text only,
so a binary message goes back through the trio-websocket connection below the transport.
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
from trio_responses._transport.dialing import ConnectionConfig, dial_tcp

if TYPE_CHECKING:
    from collections.abc import Iterable

    from trio_responses._protocol.frames import Message
    from trio_responses._transport.websocket import WebSocketTransport

AGENT = "trio-responses"
CONCURRENT_CASES = 8
"""Many cases only wait for a second or two."""
CHECKPOINTS_FOR_PONG = 4
"""Checkpoints during which a pong is sent. Some cases expect the pong before the echo of the
message that followed their ping; RFC 6455 (5.5.2) only asks for "as soon as is practical"."""


@dataclass(frozen=True)
class Verdict:
    """The result of one case, as the server reports it."""

    frames: str
    """The result for the messages: ``OK``, ``NON-STRICT``, ``INFORMATIONAL`` or ``FAILED``."""
    closing: str
    """The result for the closing of the connection: likewise, or ``UNCLEAN`` or ``WRONG CODE``."""


class FuzzingServer:
    """A running fuzzing server on a port of 127.0.0.1."""

    def __init__(self, port: int) -> None:
        self._origin = f"ws://127.0.0.1:{port}"

    async def cases(self) -> dict[str, int]:
        """Return the number of each case by the name of the case."""
        count = await self._ask("getCaseCount")
        names: dict[str, int] = {}
        for number in range(1, count + 1):
            names[(await self._ask(f"getCaseInfo?case={number}"))["id"]] = number
        return names

    async def run(self, cases: Iterable[int]) -> None:
        """Run cases, several at a time, and make the server write its reports."""
        limiter = trio.CapacityLimiter(CONCURRENT_CASES)
        async with trio.open_nursery() as nursery:
            for case in cases:
                nursery.start_soon(self._run_case, case, limiter)
        async with open_transport(self._config(f"updateReports?agent={AGENT}"), ()) as transport:
            await echo(transport)

    async def _run_case(self, case: int, limiter: trio.CapacityLimiter) -> None:
        async with (
            limiter,
            open_transport(self._config(f"runCase?case={case}&agent={AGENT}"), ()) as transport,
        ):
            await echo(transport)

    async def _ask(self, resource: str) -> Any:
        async with open_transport(self._config(resource), ()) as transport:
            messages: list[Message] = await transport.receive()
        assert isinstance(messages[0], bytes)
        return json.loads(messages[0])

    def _config(self, resource: str) -> ConnectionConfig:
        return ConnectionConfig(
            endpoint=endpoint_at(f"{self._origin}/{resource}"),
            dial=dial_tcp,
            ssl_context=None,
            timeouts=Timeouts(close=10.0),
            keepalive=Keepalive(interval=math.inf),
            limits=Limits(),
        )


def endpoint_at(url: str) -> Endpoint:
    """Return an endpoint with exactly this URL, without ``/responses`` appended."""
    endpoint = Endpoint.compatible(url)
    object.__setattr__(endpoint, "url", url)
    return endpoint


async def echo(transport: WebSocketTransport) -> None:
    """Send every message back until the socket is closed."""
    try:
        while True:
            messages = await transport.receive()
            for _ in range(CHECKPOINTS_FOR_PONG):
                await trio.lowlevel.checkpoint()
            for message in messages:
                await send_back(transport, message)
    except ConnectionLost:
        pass


async def send_back(transport: WebSocketTransport, message: Message) -> None:
    """Send one message back with its own type."""
    match message:
        case bytes():
            await transport.send(message)
        case BinaryMessage(data=data):
            await transport._websocket.send_message(data)
        case _:
            raise AssertionError(f"unexpected message: {message!r}")
