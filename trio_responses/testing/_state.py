"""What all connections of one server share, and the lanes of each of them."""

import inspect
from collections import deque
from collections.abc import Callable, MutableMapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, Generic, TypeVar

import trio

from trio_responses.testing._events import Ids
from trio_responses.testing._frames import Json
from trio_responses.testing._records import Connection, Request, SteerRequest
from trio_responses.testing._responder import default_answer
from trio_responses.testing._scripts import Answer, HandshakeFault, Responder, Script

if TYPE_CHECKING:
    from trio_responses.testing._session import Session

MAX_ACTIVE: Final = 16
MAX_NAMES: Final = 32

_RequestT = TypeVar("_RequestT")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished response as the server remembers it."""

    id: str
    history: tuple[Json, ...]
    """Every input item and output item of the chain that ends here, oldest first; of a chain
    that was compacted, what came since."""


@dataclass(slots=True)
class _Lane(Generic[_RequestT]):
    name: str | None
    latest: StoredResponse | None = None
    running: bool = False
    queue: deque[_RequestT] = field(default_factory=deque[_RequestT])


class ServerLanes(Generic[_RequestT]):
    """The lanes of one connection.

    :param persisted: Responses that were stored, by id: shared by all connections of a server.
    """

    def __init__(self, persisted: MutableMapping[str, StoredResponse]) -> None:
        self._lanes: dict[str | None, _Lane[_RequestT]] = {None: _Lane(None)}
        self._persisted = persisted
        self._arrivals: deque[str | None] = deque()
        self.active: int = 0
        self.max_active: int = 0

    def knows(self, name: str | None) -> bool:
        """Whether a request may use this name: a known one, or one within the limit."""
        return name in self._lanes or len(self._lanes) <= MAX_NAMES

    def add(self, name: str | None, request: _RequestT) -> None:
        """Queue a request behind those of its lane."""
        lane = self._lanes.setdefault(name, _Lane(name))
        lane.queue.append(request)
        self._arrivals.append(name)

    def next_of(self, name: str | None) -> _RequestT | None:
        """Return the request that waits next on a lane, or None."""
        queue = self._lanes[name].queue
        return queue[0] if queue else None

    def start_next(self) -> _RequestT | None:
        """Take the oldest request whose lane is free, or None; it is active from now on."""
        if self.active >= MAX_ACTIVE:
            return None
        for name in self._arrivals:
            lane = self._lanes[name]
            if not lane.running:
                self._arrivals.remove(name)
                lane.running = True
                self.active += 1
                self.max_active = max(self.max_active, self.active)
                return lane.queue.popleft()
        return None

    def finish(self, name: str | None) -> None:
        """Free the lane of a request that has ended."""
        self._lanes[name].running = False
        self.active -= 1

    def find(self, response_id: str) -> StoredResponse | None:
        """Return a response that a request on any lane may continue from, or None."""
        for lane in self._lanes.values():
            if lane.latest is not None and lane.latest.id == response_id:
                return lane.latest
        return self._persisted.get(response_id)

    def remember(self, name: str | None, response: StoredResponse, *, store: bool) -> None:
        """Make ``response`` the latest of its lane, and persist it if ``store``."""
        self._lanes[name].latest = response
        if store:
            self._persisted[response.id] = response

    def evict(self, name: str | None, parent_id: object) -> None:
        """Forget the parent of a failed continuation, if it is this very lane's latest."""
        lane = self._lanes[name]
        if lane.latest is not None and lane.latest.id == parent_id:
            lane.latest = None

    def forget(self, response_id: str | None) -> None:
        """Forget a response on all lanes; None is every response. What is persisted stays."""
        for lane in self._lanes.values():
            if lane.latest is not None and response_id in {None, lane.latest.id}:
                lane.latest = None


_OrderT = TypeVar("_OrderT")

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
    steering: bool
    unknown_parameters: bool


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
    steer_refusals: deque[tuple[str, int | None]] = field(
        default_factory=deque[tuple[str, int | None]]
    )
    """The codes with which the next steering inputs are refused, and how many times."""
    stored: dict[str, StoredResponse] = field(default_factory=dict[str, StoredResponse])
    requests: list[Request] = field(default_factory=list[Request])
    steers: list[SteerRequest] = field(default_factory=list[SteerRequest])
    connections: list[Connection] = field(default_factory=list[Connection])
    sessions: "list[Session]" = field(default_factory=list["Session"])
    """The open connections, oldest first."""
    ids: Ids = field(default_factory=Ids)
    crashes: list[Exception] = field(default_factory=list[Exception])
    max_open: int = 0
    active: int = 0
    max_active: int = 0
    responses: int = 0
    replay: deque[Script] = field(default_factory=deque[Script])
    """The scripts of a recording: one for each request that is to come, whatever it is."""
    steer_gates: deque[trio.Event] = field(default_factory=deque[trio.Event])
    """What goes on, in a recording, with each steering input that is to come."""
    _replayed: dict[int, Script] = field(default_factory=dict[int, Script])
    _started: float = field(default_factory=trio.current_time)

    def now(self) -> float:
        """Return the server's wall clock, in Unix seconds."""
        if self.options.wall_clock is not None:
            return self.options.wall_clock()
        return _EPOCH + trio.current_time() - self._started

    def take_handshake_fault(self) -> HandshakeFault | None:
        """Return what is to happen to this handshake, or None."""
        return _take(self.handshake_faults)

    def take_steer_refusal(self) -> str | None:
        """Return the code with which this steering input is to be refused, or None."""
        return _take(self.steer_refusals)

    def arrived(self, request: Request) -> None:
        """Note a request; in a replay, the order of arrival says what it is answered with."""
        self.requests.append(request)
        if self.replay:
            self._replayed[id(request)] = self.replay.popleft()

    def take_replayed(self, request: Request) -> Script | None:
        """Take the script that a recording has for ``request``, or None."""
        return self._replayed.pop(id(request), None)

    def take_steer_gate(self) -> trio.Event | None:
        """Return what a steering input sets off in a replay, or None."""
        return self.steer_gates.popleft() if self.steer_gates else None

    def take_script(self, request: Request) -> Script:
        """Take the first script that fits ``request``, or one without any order in it."""
        for script in self.scripts:
            if script.fits(request):
                self.scripts.remove(script)
                return script
        return Script()

    def unused_orders(self) -> list[str]:
        """Name the orders that nothing has taken, but those that are good for ever."""
        orders = [repr(script) for script in (*self.replay, *self.scripts)]
        for code, times in self.steer_refusals:
            if times is not None:
                orders.append(f"refuse_steers({code!r}, times={times})")
        for fault, times in self.handshake_faults:
            if times is not None:
                orders.append(f"{fault!r} for {times} handshakes")
        return orders

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

    def forget(self, response_id: str | None) -> None:
        """Forget a response everywhere; None is every response."""
        if response_id is None:
            self.stored.clear()
        else:
            self.stored.pop(response_id, None)
        for session in self.sessions:
            session.forget(response_id)


def _take(orders: deque[tuple[_OrderT, int | None]]) -> _OrderT | None:
    """Take one order off the front, where each stands with the times it is good for."""
    if not orders:
        return None
    order, times = orders.popleft()
    if times is None or times > 1:
        orders.appendleft((order, None if times is None else times - 1))
    return order
