"""Delta or full input: what a conversation sends for its next turn.

The server of a chain holds the latest response of each lane of each socket, in memory, and loses
it with the socket (guide, "WebSocket mode"). So there are two ways to go on:

* **Delta**: the new items alone, with ``previous_response_id``. Only where every setting is equal
  to the request's before, since settings are not inherited, and the server is known to hold what
  the conversation has: the latest response of this very socket and lane is the conversation's,
  or its response was stored for any socket (``store=True``, said and not left to a default).
* **Full input**: the whole history and the new items, as a new chain. In every other case.

The history is the raw JSON that went over the wire, in both directions: what this version does not
know goes back as it came. It changes only when a turn has ended well.

What belongs elsewhere: how items are kept (`history.py`), sending, and what is done about refusals
(`conversation/exchange.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from trio_responses._protocol.raw_items import RawItems

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["Baseline", "Continuation", "Placement", "RequestInput"]

ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"
_encoder = msgspec.json.Encoder(order="deterministic")


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where a request would go: one lane of one socket."""

    socket: object
    """The socket, known by its identity."""
    lane: str | None
    """The ``stream_id``; `None` for the default lane."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """What a server is known to hold of a conversation."""

    placement: Placement
    """Whose latest response it is."""
    response_id: str
    """The response to continue from."""
    settings: bytes
    """Every setting of its request, in one canonical form."""
    stored: bool = False
    """Whether every socket can continue from it."""


class RequestInput(msgspec.Struct, frozen=True, kw_only=True):
    """What goes out: the input items, and what they continue."""

    items: list[RawItems]
    previous_response_id: str | None
    """`None` for full input."""


class Continuation(msgspec.Struct):
    """The history of a conversation, and what the server holds of it."""

    history: list[RawItems] = msgspec.field(default_factory=list[RawItems])
    """None of them is empty."""
    baseline: Baseline | None = None
    """What a server holds: the whole history, since that changes only with it."""
    last_response_id: str | None = None
    """The response of the last turn that ended well, whoever holds it."""

    def plan(
        self, new: RawItems, settings: bytes | None, placement: Placement, latest: str | None
    ) -> RequestInput:
        """Decide what the next request carries.

        :param new: the new items.
        :param settings: `canonical` settings of the request; `None` for a delta with any.
        :param placement: where it goes. A fork goes to another lane of the baseline's socket.
        :param latest: the latest response of the *baseline's* lane, on that socket, now.
        """
        baseline = self.baseline
        if (
            baseline is not None
            and (baseline.stored or self._is_held(baseline, placement, latest))
            and settings in {None, baseline.settings}
        ):
            return RequestInput(items=[new], previous_response_id=baseline.response_id)
        return RequestInput(items=[*self.history, new], previous_response_id=None)

    @staticmethod
    def _is_held(baseline: Baseline, placement: Placement, latest: str | None) -> bool:
        """Whether a socket has the baseline in its memory."""
        return baseline.placement.socket is placement.socket and baseline.response_id == latest

    def commit(
        self,
        *items: RawItems,
        response_id: str,
        settings: bytes,
        placement: Placement,
        stored: bool = False,
    ) -> None:
        """Take a turn that has ended well into the history.

        :param items: its input and its output.
        :param stored: whether the server keeps its response for every socket.
        """
        self.history += [some for some in items if some.count]
        self.last_response_id = response_id or None
        self.baseline = (
            Baseline(
                placement=placement,
                response_id=response_id,
                settings=settings,
                stored=stored,
            )
            if response_id
            else None
        )

    def branch(self) -> Continuation:
        """Copy it: what one of the two does later does not concern the other."""
        return Continuation(list(self.history), self.baseline, self.last_response_id)


def canonical(settings: bytes) -> bytes:
    """Bring settings, as JSON, into a form in which equal ones are equal bytes."""
    return _encoder.encode(msgspec.json.decode(settings))


def with_encrypted_reasoning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Ask for reasoning in a form that can be replayed, where the server stores nothing.

    Without it, a chain that has to be sent in full would go on without its reasoning.
    """
    asked = dict(settings)
    if asked.get("store") is False:
        include: list[str] = list(asked.get("include") or ())
        if ENCRYPTED_REASONING not in include:
            asked["include"] = [*include, ENCRYPTED_REASONING]
    return asked
