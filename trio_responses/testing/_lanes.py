"""The lanes of one connection: order, limits and what the server remembers. No I/O.

A lane runs its requests one after the other; lanes run side by side, at most ``max_active``
responses at once, and a connection knows at most ``max_names`` lane names for its life.
Each lane remembers its latest response, and nothing older (docs/protocol.md 5.1, 5.2).
"""

from collections import deque
from collections.abc import MutableMapping
from dataclasses import dataclass, field
from typing import Final, Generic, TypeVar

from trio_responses.testing._errors import Json

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
