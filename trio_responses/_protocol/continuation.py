"""The decision whether a turn is sent as a delta (new items only) or with full input.

The server keeps the latest response of each lane of each socket in memory, and loses it with the
socket (guide, "WebSocket mode"). So the next turn is sent in one of two ways:

* **Delta**: the new items alone, with ``previous_response_id``. Every setting has to equal that of
  the request before, because settings are not inherited. And the server has to be known to hold
  the response: it is the latest one of its lane on this very socket, or it was stored for every
  socket to this endpoint (``store=True`` in the request; the default of the server is not relied
  on). Another endpoint never has it.
* **Full input**: the whole history and the new items, without a parent. In every other case.

This module decides; the state that it decides about is kept by `History`
(`_conversation/history.py`).
"""

from __future__ import annotations

from collections.abc import Mapping  # noqa: TC003 - msgspec reads the annotations
from typing import Any, Final

import msgspec

__all__ = [
    "ContinuationPoint",
    "Placement",
    "ServerTraits",
    "canonical_settings",
    "parent_of_delta",
    "with_encrypted_reasoning",
]

ENCRYPTED_REASONING: Final = "reasoning.encrypted_content"
_encoder = msgspec.json.Encoder(order="deterministic")


class ServerTraits(msgspec.Struct, frozen=True, kw_only=True):
    """What requests depend on at the server that they are sent to."""

    name: str | None = None
    """The name of the endpoint, whose responses no other endpoint has; `None` if not known."""
    models: Mapping[str, str] = msgspec.field(default_factory=dict[str, str])
    """The names of models at this server, by the names in requests; others are the same."""
    instructions_with_parent: bool = True
    """Whether the server accepts instructions together with a ``previous_response_id``."""

    def may_have(self, other: str | None) -> bool:
        """Whether the server may know what the endpoint with another name made."""
        return other is None or self.name is None or other == self.name


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """The place where a request is sent: one lane (``stream_id``) of one socket."""

    socket: object
    """The socket; sockets are compared by identity."""
    lane: str | None
    """The ``stream_id``; `None` for the default lane."""
    server: ServerTraits = ServerTraits()
    """The server of the socket."""


class ContinuationPoint(msgspec.Struct, frozen=True, kw_only=True):
    """The response that the next turn can continue, as far as the server is known to hold it."""

    placement: Placement
    """Where the request of the response was sent."""
    response_id: str
    """The id of the response, from which the next turn may continue."""
    settings: bytes
    """All settings of the request, in the form of `canonical_settings`."""
    stored: bool = False
    """Whether the response can be continued on every socket to its server."""


def parent_of_delta(
    server: ContinuationPoint | None,
    settings: bytes | None,
    placement: Placement,
    latest: str | None,
) -> str | None:
    """Return the ``previous_response_id`` of a turn, or `None` if it is sent with full input.

    :param server: what the server holds of the conversation, as far as it is known.
    :param settings: the settings of the request in the form of `canonical_settings`; `None` if
        they need not equal those of the request before.
    :param placement: where the request is sent. A fork sends on another lane than its parent.
    :param latest: the latest response of the lane of ``server.placement``, on the socket of
        ``placement``.
    """
    if server is None or settings not in {None, server.settings}:
        return None
    same_socket = server.placement.socket is placement.socket
    stored = server.stored and placement.server.may_have(server.placement.server.name)
    held = stored or (same_socket and server.response_id == latest)
    return server.response_id if held else None


def canonical_settings(settings: bytes) -> bytes:
    """Return JSON settings in canonical form: equal settings have equal bytes."""
    return _encoder.encode(msgspec.json.decode(settings))


def with_encrypted_reasoning(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return settings that request encrypted reasoning if ``store`` is `False`.

    Reasoning can be sent again in full input only in its encrypted form.
    """
    asked = dict(settings)
    if asked.get("store") is False:
        include: list[str] = list(asked.get("include") or ())
        if ENCRYPTED_REASONING not in include:
            asked["include"] = [*include, ENCRYPTED_REASONING]
    return asked
