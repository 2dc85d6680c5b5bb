"""What may be sent by hand: JSON, text, bytes, and frames that no WebSocket library would write.

What belongs elsewhere: the answers that are made of it (``scripts.py``).
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, TypeAlias


@dataclass(frozen=True, slots=True)
class WireBytes:
    """Bytes written to the connection below WebSocket, as they are.

    :meth:`frame` makes a WebSocket frame of any content, valid or not.
    """

    data: bytes
    """The bytes: whole frames, parts of one, or none at all."""

    @classmethod
    def frame(cls, payload: bytes, *, opcode: int = 1, final: bool = True) -> Self:
        """Return one unmasked frame: by default a text frame, whatever the bytes are."""
        size = len(payload)
        first = bytes([(0x80 if final else 0) | opcode])
        if size < 126:  # noqa: PLR2004 - RFC 6455, section 5.2
            header = first + bytes([size])
        elif size < 1 << 16:
            header = first + b"\x7e" + size.to_bytes(2)
        else:
            header = first + b"\x7f" + size.to_bytes(8)
        return cls(header + payload)


Frame: TypeAlias = Mapping[str, Any] | str | bytes | WireBytes
"""Something to send: JSON, a text frame, a binary frame, or bytes below WebSocket."""
