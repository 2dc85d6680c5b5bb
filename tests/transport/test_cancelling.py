"""Cancel safety of `WebSocketTransport.receive()`, under any chunks at any times."""

from __future__ import annotations

from contextlib import suppress
from itertools import cycle, pairwise
from typing import TYPE_CHECKING

import trio
from hypothesis import given, settings
from hypothesis import strategies as st
from trio.testing import MockClock

from tests.transport.peer import PING, close, frame, lost, open_pair, text
from trio_responses._errors import ConnectionLost

if TYPE_CHECKING:
    from tests.transport.peer import Peer
    from trio_responses._protocol.frames import Message


@settings(deadline=None, max_examples=60)
@given(data=st.data())
def test_a_cancelled_receive_loses_nothing(data: st.DataObject) -> None:
    """Chunks arrive at any time, and `receive` is cancelled and called again at any time."""
    payloads = data.draw(st.lists(st.binary(max_size=300).map(lambda b: b.hex().encode())))
    stream = bytearray()
    for payload in payloads:
        stream += text(payload)
        if data.draw(st.booleans()):
            stream += frame(PING, b"now and then")
    cuts = sorted(data.draw(st.sets(st.integers(0, len(stream)), max_size=20)))
    edges = [0, *cuts, len(stream)]
    pauses = data.draw(st.lists(st.sampled_from([0.0, 0.5, 1.0]), min_size=1, max_size=5))
    patience = data.draw(st.lists(st.sampled_from([0.0, 0.25, 0.5, 2.0]), min_size=1, max_size=5))
    received: list[Message] = []

    async def script(peer: Peer) -> None:
        await peer.accept()
        for (start, end), pause in zip(pairwise(edges), cycle(pauses), strict=False):
            await trio.sleep(pause)
            await peer.send(bytes(stream[start:end]))
        await peer.send(close(1000))
        await peer.read_frames()

    async def main() -> None:
        async with open_pair(script=script) as (transport, _):
            with suppress(ConnectionLost):
                for seconds in cycle([*patience, 1.0]):
                    with trio.move_on_after(seconds):
                        received.extend(await transport.receive())
            assert (await lost(transport)).code == 1000

    trio.run(main, clock=MockClock(autojump_threshold=0))
    assert received == payloads
