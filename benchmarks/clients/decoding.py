"""The decoder and the request that all peers with msgspec share.

A frame that cannot be decoded raises, because the replay server sends known events only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import msgspec

from benchmarks.clients.session import MODEL
from trio_responses.types import KnownEvent

if TYPE_CHECKING:
    from benchmarks.clients.session import Input

decode: Final = msgspec.json.Decoder[Any](KnownEvent).decode
"""Decode one message from bytes or text."""

_encode: Final = msgspec.json.Encoder().encode


def request(given: Input) -> bytes:
    """Return an encoded request."""
    return _encode({"type": "response.create", "model": MODEL, "input": given})
