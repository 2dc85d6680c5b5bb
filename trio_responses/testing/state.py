"""What all connections of one server share: options, scripts, stored responses, records."""

import inspect
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final

import trio

from trio_responses.testing.events import Ids
from trio_responses.testing.handshake import HandshakeFault
from trio_responses.testing.lanes import Remembered
from trio_responses.testing.request import Connection, Request
from trio_responses.testing.responder import default_answer
from trio_responses.testing.scripts import Answer, Responder, Script

if TYPE_CHECKING:
    from trio_responses.testing.session import Session

_EPOCH: Final = 1_790_000_000.0
"""The wall clock of a server starts here, so that two runs give the same frames."""


@dataclass(frozen=True, slots=True)
class Options:
    """How a server behaves towards every connection."""

    api_key: str | None = field(repr=False)
    max_age: float | None
    lanes: bool
    ping_interval: float | None
    ping_timeout: float
    max_message_size: int
    close_timeout: float
    wall_clock: Callable[[], float] | None


@dataclass(slots=True, kw_only=True)
class ServerState:
    """The shared state of one server; nothing in it waits."""

    options: Options
    responder: Responder = default_answer
    scripts: deque[Script] = field(default_factory=deque[Script])
    handshake_faults: deque[tuple[HandshakeFault, int | None]] = field(
        default_factory=deque[tuple[HandshakeFault, int | None]]
    )
    """What happens to the next handshakes, and how many times; None is for ever."""
    stored: dict[str, Remembered] = field(default_factory=dict[str, Remembered])
    requests: list[Request] = field(default_factory=list[Request])
    connections: list[Connection] = field(default_factory=list[Connection])
    sessions: "list[Session]" = field(default_factory=list["Session"])
    """The open connections, oldest first."""
    ids: Ids = field(default_factory=Ids)
    crashes: list[Exception] = field(default_factory=list[Exception])
    max_open: int = 0
    active: int = 0
    max_active: int = 0
    responses: int = 0
    _started: float = field(default_factory=trio.current_time)

    def now(self) -> float:
        """Return the server's wall clock, in Unix seconds."""
        if self.options.wall_clock is not None:
            return self.options.wall_clock()
        return _EPOCH + trio.current_time() - self._started

    def take_handshake_fault(self) -> HandshakeFault | None:
        """Return what is to happen to this handshake, or None."""
        if not self.handshake_faults:
            return None
        fault, times = self.handshake_faults.popleft()
        if times is None:
            self.handshake_faults.appendleft((fault, None))
        elif times > 1:
            self.handshake_faults.appendleft((fault, times - 1))
        return fault

    def take_script(self, request: Request) -> Script:
        """Take the first script that fits ``request``, or one without any order in it."""
        for script in self.scripts:
            if script.fits(request):
                self.scripts.remove(script)
                return script
        return Script()

    async def answer(self, request: Request) -> Answer:
        """Return what the responder answers."""
        answer = self.responder(request)
        if inspect.isawaitable(answer):
            return await answer
        return answer

    def began(self) -> None:
        """Count a response that begins."""
        self.active += 1
        self.max_active = max(self.max_active, self.active)

    def ended(self, *, well: bool) -> None:
        """Count a response that ends."""
        self.active -= 1
        self.responses += well
