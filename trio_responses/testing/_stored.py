"""The responses that a server stores: to be continued by their id, and to be retrieved over HTTP.

A response can be retrieved from its first event on, and continued once it has ended well. Nothing
in this module does I/O.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final, cast, final

import trio

from trio_responses.testing._frames import Frame, Json
from trio_responses.testing._history import History
from trio_responses.testing._records import Request

_RUNNING: Final = ("queued", "in_progress")


@dataclass(frozen=True, slots=True)
class StoredResponse:
    """A finished response that a request can continue."""

    id: str
    history: History
    """Every input item and output item of the chain that ends with this response, oldest first;
    after a compaction, the items from the compaction item on."""


@final
class RetrievableResponse:
    """A response as a client can retrieve it, while it runs and afterwards.

    :param request: The request that the response answers.
    """

    def __init__(self, request: Request) -> None:
        self.request = request
        self.response: Json | None = None
        """The Response as the latest event left it; None before the first event."""
        self.scope: trio.CancelScope = trio.CancelScope()
        """Cancels the response."""
        self.has_ended: bool = False
        """Whether no more events will come."""
        self.keeps_events: bool = request.is_background and bool(request.get("stream"))
        """Whether the events can be streamed again: those of a streamed background response."""
        self._events: list[Json] = []
        self._changed = trio.Event()

    def add(self, frame: Frame) -> None:
        """Record an event that the server sends."""
        if not isinstance(frame, Mapping):
            return
        response: Any = frame.get("response")
        if isinstance(response, Mapping):
            self.response = dict(cast("Json", response))
        elif frame.get("type") == "error" and self.response is not None:
            error = error_of(frame)
            fields = {name: error.get(name) for name in ("code", "message")}
            self.response |= {"status": "failed", "error": fields}
        if self.keeps_events:
            self._events.append(dict(frame))
            self._wake()

    def end(self, *, cancelled: bool) -> None:
        """Record that no more events will come.

        :param cancelled: Whether the server stopped the response.
        """
        if self.has_ended:
            return
        self.has_ended = True
        if cancelled and self.response is not None and self.response.get("status") in _RUNNING:
            self.response = self.response | {"status": "cancelled"}
        self._wake()

    def cancel(self) -> None:
        """Stop the response, if it still runs."""
        if not self.has_ended:
            self.scope.cancel()
            self.end(cancelled=True)

    async def next_events(self, place: int) -> list[Json]:
        """Wait for the events from a place on; return no events at the end of the response.

        :param place: The number of events that came before.
        """
        while place >= len(self._events) and not self.has_ended:
            await self._changed.wait()
        return self._events[place:]

    def _wake(self) -> None:
        self._changed.set()
        self._changed = trio.Event()


def error_of(frame: Mapping[str, Any]) -> Json:
    """Return the error object of an ``error`` event of any shape."""
    error: Any = frame.get("error")
    if isinstance(error, Mapping):
        return dict(cast("Json", error))
    return {name: frame.get(name) for name in ("code", "message", "param")}


class ResponseStore:
    """The responses with ``store`` set that a server keeps: the latest ones.

    :param limit: The number of responses to keep; None is all.
    """

    def __init__(self, limit: int | None) -> None:
        self._limit = limit
        self._responses: dict[str, StoredResponse] = {}
        self._retrievable: dict[str, RetrievableResponse] = {}
        self.has_dropped: bool = False
        """Whether a response was dropped for a later one."""

    def get(self, response_id: str) -> StoredResponse | None:
        """Return a response that a request can continue, or None."""
        return self._responses.get(response_id)

    def find(self, response_id: str) -> RetrievableResponse | None:
        """Return a response that a client can retrieve, or None."""
        return self._retrievable.get(response_id)

    def save(self, response: StoredResponse) -> None:
        """Keep a finished response, and drop the oldest one beyond the limit."""
        self._responses[response.id] = response
        if self._limit is not None and len(self._responses) > self._limit:
            del self._responses[next(iter(self._responses))]
            self.has_dropped = True

    def keep(self, response_id: str, response: RetrievableResponse) -> None:
        """Keep a response that has started, and drop the oldest one beyond the limit."""
        self._retrievable[response_id] = response
        if self._limit is not None and len(self._retrievable) > self._limit:
            del self._retrievable[next(iter(self._retrievable))]

    def forget(self, response_id: str | None) -> None:
        """Remove a response, or all (None)."""
        if response_id is None:
            self._responses.clear()
            self._retrievable.clear()
        else:
            self._responses.pop(response_id, None)
            self._retrievable.pop(response_id, None)
