"""The faults of a server, one action each. The tables say when they happen."""

from __future__ import annotations

from itertools import cycle
from typing import TYPE_CHECKING, Final

import trio

from tests.transport.peer import BINARY, CLOSE, PING, PONG, TEXT, close, frame, text
from tests.turn.rig import encoded

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import Json, ServerPeer

CONTINUATION: Final = 0x0


# --- The end of a socket ----------------------------------------------------------------------


async def reset(peer: ServerPeer) -> None:
    await trio.lowlevel.checkpoint()
    peer.reset()


async def fin(peer: ServerPeer) -> None:
    await peer.send_eof()


async def half_open(peer: ServerPeer) -> None:
    """Stop reading and writing, and leave the socket open."""
    await trio.lowlevel.checkpoint()
    peer.deaf = True


async def unwritable(peer: ServerPeer) -> None:
    """Let the client's writes fail, and send nothing."""
    await trio.lowlevel.checkpoint()
    peer.stop_taking()


async def stall(peer: ServerPeer) -> None:
    """Send nothing; pings are answered."""
    await trio.lowlevel.checkpoint()
    assert not peer.deaf


def without_end(*pieces: bytes, every: float) -> Action:
    """Return an action that sends these pieces again and again, and reads nothing."""

    async def action(peer: ServerPeer) -> None:
        for piece in cycle(pieces):
            await peer.send(piece)
            await trio.sleep(every)

    return action


def close_with(code: int | None) -> Action:
    async def action(peer: ServerPeer) -> None:
        peer.has_closed = True
        await peer.send(close(code))

    return action


def close_and_reset(code: int) -> Action:
    """Return an action that sends a close frame and a RST at the same time."""

    async def action(peer: ServerPeer) -> None:
        await peer.send(close(code))
        peer.reset()

    return action


def raw(*frames: bytes) -> Action:
    """Return an action that sends bytes as they are."""

    async def action(peer: ServerPeer) -> None:
        for one in frames:
            await peer.send(one)

    return action


def say_raw(event: Json) -> Action:
    """Return an action that sends an event without the lane of the request."""
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
