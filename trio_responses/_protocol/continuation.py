"""The choice between delta and full input for the next turn of a conversation.

The server keeps the latest response of each lane of each socket in memory, and loses it with the
socket (guide, "WebSocket mode"). So the next request has one of two forms:

* **Delta**: the new items alone, with ``previous_response_id``. Used if every setting is equal to
  that of the previous request, since settings are not inherited, and the server is known to hold
  the history: either the latest response of this socket and lane is the conversation's, or its
  response was stored for every socket (an explicit ``store=True``, not a default).
* **Full input**: the whole history and the new items, as a new chain. Used in every other case.

The history is raw JSON as it was sent and received, so that unknown fields and types are replayed
unchanged. It changes only when a turn has ended well.
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
    """The place that a request is sent to: one lane of one socket."""

    socket: object
    """The socket. Only its identity matters."""
    lane: str | None
    """The ``stream_id``; `None` for the default lane."""


class Baseline(msgspec.Struct, frozen=True, kw_only=True):
    """The response of a conversation that the server is known to hold."""

    placement: Placement
    """The lane and the socket whose latest response it is."""
    response_id: str
    """The id of the response, to continue from."""
    settings: bytes
    """Every setting of its request, in the form of `canonical`."""
    stored: bool = False
    """Whether a request on any socket can continue from the response."""


class RequestInput(msgspec.Struct, frozen=True, kw_only=True):
    """The input of a request: its items, and the response that they continue."""

    items: list[RawItems]
    previous_response_id: str | None
    """`None` for full input."""


class Continuation(msgspec.Struct):
    """The history of a conversation, and the response that the server holds of it."""

    history: list[RawItems] = msgspec.field(default_factory=list[RawItems])
    """The items of each turn, oldest first. None is empty."""
    baseline: Baseline | None = None
    """The response that stands for the whole history; `None` if no server holds it."""
    last_response_id: str | None = None
    """The response of the last turn that ended well, whether or not a server holds it."""

    def plan(
        self, new: RawItems, settings: bytes | None, placement: Placement, latest: str | None
    ) -> RequestInput:
        """Return the input of the next request: a delta if the server holds the rest.

        :param new: the new items.
        :param settings: `canonical` settings of the request; `None` if they may differ in a delta.
        :param placement: where it is sent. A fork uses another lane of the baseline's socket.
        :param latest: the current latest response of the *baseline's* lane on that socket.
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
        """Whether the server holds the baseline in the memory of a socket."""
        return baseline.placement.socket is placement.socket and baseline.response_id == latest

    def commit(
        self,
        *items: RawItems,
        response_id: str,
        settings: bytes,
        placement: Placement,
        stored: bool = False,
    ) -> None:
        """Add a turn that has ended well to the history.

        :param items: the input and the output of the turn.
        :param stored: whether the server stores the response for every socket.
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
        """Return an independent copy."""
        return Continuation(list(self.history), self.baseline, self.last_response_id)


def canonical(settings: bytes) -> bytes:
    """Return settings, as JSON, in a form in which equal settings are equal bytes."""
    return _encoder.encode(msgspec.json.decode(settings))


def with_encrypted_reasoning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that request replayable reasoning if the server stores nothing.

    Without it, a history that is sent in full would lack the reasoning.
    """
    result = dict(settings)
    if result.get("store") is False:
        include: list[str] = list(result.get("include") or ())
        if ENCRYPTED_REASONING not in include:
            result["include"] = [*include, ENCRYPTED_REASONING]
    return result
