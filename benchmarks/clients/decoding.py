"""The work that all peers with msgspec share: this project's union of events, a plain request.

What belongs elsewhere: what is done when that fails (`trio_responses._wire`); here it cannot.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.clients.session import MODEL
from trio_responses._wire.events import KnownEvent

if TYPE_CHECKING:
    from benchmarks.clients.session import Input

decode: Final = msgspec.json.Decoder[Any](KnownEvent).decode
"""Decode one message, in bytes or as text."""

_encode: Final = msgspec.json.Encoder().encode


def request(given: Input) -> bytes:
    """Encode a request."""
    return _encode({"type": "response.create", "model": MODEL, "input": given})
