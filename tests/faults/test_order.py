"""P6, P10: events that came before a fault are read before it, also where both come in one read."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from tests.faults.cells import THE_TURN
from tests.faults.rig import ask_strictly, leaving_in_time, nothing_is_left
from tests.faults.servers import open_fake_net
from tests.testing.driver import NO_WAITING
from tests.turn.rig import numbers
from trio_responses import DeliveryStatus, MessageTooLarge

if TYPE_CHECKING:
    from tests.faults.servers import ServerPeer

pytestmark = NO_WAITING


@pytest.mark.parametrize("kind", ["response.output_text.delta", "unknown"])
async def test_the_events_before_an_oversize_message_are_not_dropped(kind: str) -> None:
    async def all_at_once(peer: ServerPeer) -> None:
        events = peer.events()
        events[3] |= {"type": kind, "delta": "x" * 60_000}
        await peer.finish(events)

    async with nothing_is_left(), open_fake_net() as net:
        net.actions.append(all_at_once)
        async with leaving_in_time(net, net.open_client()) as connection:
            await ask_strictly(connection, "before")
            events: list[Any] = []
            async with connection.stream(model="m", input=THE_TURN) as stream:
                with pytest.raises(MessageTooLarge) as failure:  # noqa: PT012 - one by one
                    async for event in stream:
                        events.append(event)  # noqa: PERF401 - what came before it raised
            assert numbers(events) == [0, 1, 2]
            assert failure.value.delivery is DeliveryStatus.ACCEPTED
            await ask_strictly(connection, "next")
