"""The base of all server events."""

from .base import Tagged


class Event(Tagged, frozen=True, kw_only=True):
    """What a server said.

    ``sequence_number`` counts within one response. ``stream_id`` names the lane; it is absent on
    the default lane (guide, WebSocket mode). Servers leave either out.
    """

    sequence_number: int | None = None
    """Counts the events of a response, from 0 (docs/protocol.md, 3)."""
    stream_id: str | None = None
    """The lane; `None` is the default lane (docs/protocol.md, 5.2)."""
