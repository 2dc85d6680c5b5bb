"""What a server may do wrong, one thing each.

`losing` faults cost the socket; behind `harmless` ones the answer goes on as if nothing had
happened. What belongs elsewhere: when they happen and what is expected of it (the tables).
"""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from tests.transport.peer import BINARY, CLOSE, PING, PONG, TEXT, close, frame, text
from tests.turn.rig import encoded

if TYPE_CHECKING:
    from tests.faults.cells import Strike
    from tests.faults.servers import Json, Seat

CONTINUATION: Final = 0x0


# --- The end of a socket ----------------------------------------------------------------------


async def reset(seat: Seat) -> None:
    await trio.lowlevel.checkpoint()
    seat.reset()


async def fin(seat: Seat) -> None:
    await seat.send_eof()


async def half_open(seat: Seat) -> None:
    """Neither read nor write any more, and close nothing."""
    await trio.lowlevel.checkpoint()
    seat.deaf = True


async def unwritable(seat: Seat) -> None:
    """Let the client's writes fail, and say nothing."""
    await trio.lowlevel.checkpoint()
    seat.stop_taking()


async def stall(seat: Seat) -> None:
    """Say nothing; pings are answered."""
    await trio.lowlevel.checkpoint()
    assert not seat.deaf


def without_end(*pieces: bytes, every: float) -> Strike:
    """Send these again and again, and heed nothing."""

    async def strike(seat: Seat) -> None:
        for piece in cycle(pieces):
            await seat.send(piece)
            await trio.sleep(every)

    return strike


def close_with(code: int | None) -> Strike:
    async def strike(seat: Seat) -> None:
        seat.has_closed = True
        await seat.send(close(code))

    return strike


def close_and_reset(code: int) -> Strike:
    """Send a close frame and the RST of unread bytes behind it, both at once."""

    async def strike(seat: Seat) -> None:
        await seat.send(close(code))
        seat.reset()

    return strike


def raw(*frames: bytes) -> Strike:
    """Send bytes as they are."""

    async def strike(seat: Seat) -> None:
        for one in frames:
            await seat.send(one)

    return strike


def say_raw(event: Json) -> Strike:
    """Send an event without a lane, whatever the request's was."""
    return raw(text(encoded(event)))


masked = raw(bytes([0x81, 0x85]) + b"\x01\x02\x03\x04" + b"hello")
reserved_bits = raw(bytes([0xC1, 0x02]) + b"{}")
unknown_opcode = raw(bytes([0x83, 0x00]))
fragmented_control = raw(frame(PING, b"x", fin=False))
large_control = raw(bytes([0x80 | PING, 126, 0, 126]) + bytes(126))
stray_continuation = raw(frame(CONTINUATION, b"{}"))
interleaved = raw(frame(TEXT, b"{", fin=False) + frame(TEXT, b"}"))
overlong_length = raw(bytes([0x81, 126, 0, 2]) + b"{}")
bad_utf8 = raw(frame(TEXT, b'{"type":"\xff"}'))
close_of_one_byte = raw(frame(CLOSE, b"\x03"))
close_1006 = raw(close(1006))


# --- What a socket gets over ------------------------------------------------------------------


bad_json = raw(text('{"type": "response.output_text.delta", "delta": '))
no_object = raw(text("[]"))
untyped = raw(text('{"hello": 1}'))
binary = raw(frame(BINARY, b"\x00\x01"))
empty = raw(text(""))
unknown_event = raw(text('{"type": "keepalive", "sequence_number": 7}'))
rate_limits = raw(text('{"type": "codex.rate_limits", "plan_type": "plus"}'))
ping_flood = raw(b"".join(frame(PING, b"%d" % n) for n in range(500)))
unasked_pong = raw(frame(PONG, b"?"))
pings_within_a_message = raw(
    frame(TEXT, b'{"type": "keep', fin=False) + frame(PING) + frame(CONTINUATION, b'alive"}')
)
