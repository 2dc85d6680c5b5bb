"""The state of the test server: what all connections share, and the lanes of each connection.

A lane runs its requests one after another; lanes run in parallel, with at most `MAX_ACTIVE`
responses at once and at most `MAX_NAMES` lane names in the life of a connection. Each lane keeps
its latest response and no older one (docs/protocol.md 5.1, 5.2). Nothing in this module does I/O.
"""

import inspect
from collections import deque
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Generic, Protocol, TypeVar

import trio

from trio_responses.testing._frames import Frame
from trio_responses.testing._item_checks import SentNames
from trio_responses.testing._records import (
    Connection,
    HTTPRequest,
    Records,
    Request,
    ServerTransport,
    SteerRequest,
    Transport,
)
from trio_responses.testing._responder import default_answer
from trio_responses.testing._response_plans import IdGenerator
from trio_responses.testing._scripts import (
    Answer,
    CutEnd,
    HandshakeFault,
    How,
    Responder,
    Script,
)
from trio_responses.testing._stored import ResponseStore, StoredResponse

MAX_ACTIVE: Final = 16
MAX_NAMES: Final = 32

_EPOCH: Final = 1_790_000_000.0
"""The wall clock of every server starts here, so that two runs give the same frames."""

_T = TypeVar("_T")
_RequestT = TypeVar("_RequestT")


# One connection


@dataclass(slots=True)
class _Lane(Generic[_RequestT]):
    name: str | None
    latest: StoredResponse | None = None
    running: bool = False
    queue: deque[_RequestT] = field(default_factory=deque[_RequestT])


class ServerLanes(Generic[_RequestT]):
    """The lanes (``stream_id``) of one connection: queued requests, limits and cached responses.

    :param stored: Responses with ``store`` set: shared by all connections of a server.
    """

    def __init__(self, stored: ResponseStore) -> None:
        self._lanes: dict[str | None, _Lane[_RequestT]] = {None: _Lane(None)}
        self._stored = stored
        self._arrivals: deque[str | None] = deque()
        self.active: int = 0
        self.max_active: int = 0

    def accepts(self, name: str | None) -> bool:
        """Whether a request may use this lane (``stream_id``): a known one, or within the limit."""
        return name in self._lanes or len(self._lanes) <= MAX_NAMES

    def enqueue(self, name: str | None, request: _RequestT) -> None:
        """Queue a request after the other requests of its lane (``stream_id``)."""
        lane = self._lanes.setdefault(name, _Lane(name))
        lane.queue.append(request)
        self._arrivals.append(name)

    def next_request(self, name: str | None) -> _RequestT | None:
        """Return the next waiting request of a lane (``stream_id``), or None."""
        queue = self._lanes[name].queue
        return queue[0] if queue else None

    def start_next(self) -> _RequestT | None:
        """Return the oldest request whose lane (``stream_id``) is free, now active, or None."""
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
        """Release a lane (``stream_id``) when its request has ended."""
        self._lanes[name].running = False
        self.active -= 1

    def find(self, response_id: str) -> StoredResponse | None:
        """Return a response that a request on any lane (``stream_id``) may continue, or None."""
        for lane in self._lanes.values():
            if lane.latest is not None and lane.latest.id == response_id:
                return lane.latest
        return self._stored.get(response_id)

    def save(self, name: str | None, response: StoredResponse, *, store: bool) -> None:
        """Make a response the latest one of its lane (``stream_id``), and store it if ``store``."""
        self._lanes[name].latest = response
        if store:
            self._stored.save(response)

    def evict(self, name: str | None, parent_id: object) -> None:
        """Remove the parent of a failed continuation if the parent is the latest of its lane."""
        lane = self._lanes[name]
        if lane.latest is not None and lane.latest.id == parent_id:
            lane.latest = None

    def forget(self, response_id: str | None) -> None:
        """Remove a response, or all (None), from all lanes; stored responses remain."""
        for lane in self._lanes.values():
            if lane.latest is not None and response_id in {None, lane.latest.id}:
                lane.latest = None


class ResponseSink(Protocol):
    """The interface through which a running response sends its events.

    It is a WebSocket, or the answer to one HTTP request.
    """

    record: Connection

    @property
    def is_closed(self) -> bool:
        """Whether the connection has ended."""
        ...

    async def send(self, frame: Frame) -> None:
        """Send one frame; do nothing on a connection that has ended."""

    async def drop(self, how: How, reason: str = "") -> None:
        """End the connection with a close code, a FIN or a reset."""

    def freeze(self) -> None:
        """Make the connection half-open."""

    def slow_down(self, piece: int | None, delay: float) -> None:
        """Write ``piece`` bytes every ``delay`` seconds from now on; None ends the slow writing."""

    def cut_after(self, size: int, how: CutEnd) -> None:
        """End the connection after ``size`` more bytes."""

    def add_headers(self, headers: Mapping[str, str]) -> None:
        """Add headers to the HTTP answer; do nothing on a WebSocket."""


class OpenWebSocket(ResponseSink, Protocol):
    """The interface through which the server controls an open WebSocket."""

    def forget(self, response_id: str | None) -> None:
        """Remove a response, or all (None), from all lanes of the connection."""


class OpenHTTPConnection(Protocol):
    """The interface through which the server controls an open HTTP connection."""

    async def drop(self, how: How, reason: str = "") -> None:
        """End the connection with a FIN or a reset."""

    def freeze(self) -> None:
        """Make the connection half-open."""


# The whole server


@dataclass(frozen=True, slots=True)
class ServerOptions:
    """The options of a server, see `open_test_server`."""

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
    strict: bool
    max_remembered: int | None
    transport: ServerTransport
    finish_lost: bool


@dataclass(slots=True, kw_only=True)
class ServerState:
    """The state that all connections of a server share: scripts, records and stored responses."""

    options: ServerOptions
    nursery: trio.Nursery
    """Runs the responses that go on without their connection."""
    responder: Responder = default_answer
    scripts: deque[Script] = field(default_factory=deque[Script])
    handshake_faults: dict[Transport, deque[tuple[HandshakeFault, int | None]]] = field(
        default_factory=lambda: {"websocket": deque(), "http": deque()}
    )
    """The faults of the next upgrades and of the next HTTP requests, each with its remaining uses;
    None is no limit."""
    steer_refusals: deque[tuple[str, int | None]] = field(
        default_factory=deque[tuple[str, int | None]]
    )
    """The error codes for the next steering inputs, each with its remaining uses; None is no
    limit."""
    stored: ResponseStore = field(init=False)
    requests: Records[Request] = field(init=False)
    steers: Records[SteerRequest] = field(init=False)
    connections: Records[Connection] = field(init=False)
    http_requests: Records[HTTPRequest] = field(init=False)
    open_connections: list[OpenWebSocket] = field(default_factory=list[OpenWebSocket])
    """The open WebSockets, oldest first."""
    http_connections: list[OpenHTTPConnection] = field(default_factory=list[OpenHTTPConnection])
    """The open HTTP connections, oldest first."""
    ids: IdGenerator = field(default_factory=IdGenerator)
    errors: list[Exception] = field(default_factory=list[Exception])
    max_open: int = 0
    active: int = 0
    max_active: int = 0
    responses: int = 0
    replay_scripts: deque[Script] = field(default_factory=deque[Script])
    """The scripts of a recording: one for each coming request, in the order of arrival."""
    replay_steers: deque[trio.Event] = field(default_factory=deque[trio.Event])
    """The events of a recording, to be set one by one when steering inputs arrive."""
    sent_names: SentNames = field(default_factory=dict[str, set[str]])
    """The names in the output items that scripts have sent."""
    _refused_and_dropped: int = 0
    """The number of refused upgrades without a record."""
    _assigned: dict[int, Script] = field(default_factory=dict[int, Script])
    _started_at: float = field(default_factory=trio.current_time)

    def __post_init__(self) -> None:
        """Set the limits of what the server remembers."""
        limit = self.options.max_remembered
        self.stored = ResponseStore(limit)
        self.requests = Records("requests", limit)
        self.steers = Records("steers", limit)
        self.connections = Records("connections", limit)
        self.http_requests = Records("http_requests", limit)

    def now(self) -> float:
        """Return the time on the server's wall clock, in Unix seconds."""
        if self.options.wall_clock is not None:
            return self.options.wall_clock()
        return _EPOCH + trio.current_time() - self._started_at

    def add_handshake(self) -> Connection:
        """Return the record of a stream that is opened to the server."""
        record = Connection(len(self.connections) + 1)
        dropped = self.connections.append(record)
        self._refused_and_dropped += dropped is not None and dropped.is_refused
        return record

    @property
    def refused(self) -> int:
        """The number of upgrades answered with an HTTP error."""
        kept = self.connections[-(self.options.max_remembered or 0) :]
        return self._refused_and_dropped + sum(each.is_refused for each in kept)

    def add_connection(self, connection: OpenWebSocket) -> None:
        """Record a WebSocket that opens."""
        self.open_connections.append(connection)
        self.max_open = max(self.max_open, len(self.open_connections))
        connection.record.is_open = True

    def remove_connection(self, connection: OpenWebSocket) -> None:
        """Record a WebSocket that has ended."""
        connection.record.is_open = False
        self.open_connections.remove(connection)

    def add_request(self, request: Request) -> None:
        """Record a request that arrives and, in a replay, assign the next script to it."""
        self.requests.append(request)
        if self.replay_scripts:
            self._assigned[id(request)] = self.replay_scripts.popleft()

    def take_replay_script(self, request: Request) -> Script | None:
        """Return the script of the recording for ``request``, or None."""
        return self._assigned.pop(id(request), None)

    def take_replay_steer(self) -> trio.Event | None:
        """Return the event to set for a steering input that arrives in a replay, or None."""
        return self.replay_steers.popleft() if self.replay_steers else None

    def take_script(self, request: Request) -> Script:
        """Return the first script that fits ``request``, or an empty script."""
        for script in self.scripts:
            if script.fits(request):
                self.scripts.remove(script)
                return script
        return Script()

    def add_handshake_fault(
        self, fault: HandshakeFault, times: int | None, over: ServerTransport
    ) -> None:
        """Add a fault for the next upgrades, HTTP requests, or both, each with its own count."""
        for transport, faults in self.handshake_faults.items():
            if over in {transport, "both"}:
                faults.append((fault, times))

    def take_handshake_fault(self, transport: Transport) -> HandshakeFault | None:
        """Return the fault for the upgrade or HTTP request that arrives, or None."""
        return _take_next_use(self.handshake_faults[transport])

    def outlives_connection(self, request: Request) -> bool:
        """Whether the response to ``request`` goes on when its connection has ended."""
        return request.is_background or (self.options.finish_lost and request.stores)

    def take_steer_refusal(self) -> str | None:
        """Return the error code for the steering input that arrives, or None."""
        return _take_next_use(self.steer_refusals)

    def clear_scripts(self) -> None:
        """Remove all scripts that no request, steering input or handshake has taken."""
        self.scripts.clear()
        self.replay_scripts.clear()
        self.replay_steers.clear()
        self.steer_refusals.clear()
        for faults in self.handshake_faults.values():
            faults.clear()

    def unused_scripts(self) -> list[str]:
        """Return a description of each unused script, except those without a limit of uses."""
        unused = [repr(script) for script in (*self.replay_scripts, *self.scripts)]
        for code, times in self.steer_refusals:
            if times is not None:
                unused.append(f"refuse_steers({code!r}, times={times})")
        for transport, faults in self.handshake_faults.items():
            what = "handshakes" if transport == "websocket" else "HTTP requests"
            unused += [
                f"{fault!r} for {times} {what}" for fault, times in faults if times is not None
            ]
        return unused

    async def respond(self, request: Request) -> Answer:
        """Return the responder's answer to ``request``."""
        answer = self.responder(request)
        if inspect.isawaitable(answer):
            return await answer
        return answer

    def count_start(self) -> None:
        """Count a response that starts."""
        self.active += 1
        self.max_active = max(self.max_active, self.active)

    def count_end(self, *, succeeded: bool) -> None:
        """Count a response that ends."""
        self.active -= 1
        self.responses += succeeded

    def forget(self, response_id: str | None) -> None:
        """Remove a response, or all (None), from the store and from all connections."""
        self.stored.forget(response_id)
        for connection in self.open_connections:
            connection.forget(response_id)


def _take_next_use(entries: deque[tuple[_T, int | None]]) -> _T | None:
    """Return the first entry and count down its remaining uses, or None."""
    if not entries:
        return None
    entry, times = entries.popleft()
    if times is None or times > 1:
        entries.appendleft((entry, None if times is None else times - 1))
    return entry
