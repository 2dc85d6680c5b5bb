"""The tables of a transport's states keep the rules that stand above them."""

from __future__ import annotations

import pytest

from trio_responses._transport.state import (
    TRANSPORT_TRANSITIONS,
    WRITE_TRANSITIONS,
    TransportState,
    TransportStates,
    TransportTrigger,
    WriteState,
    WriteTrigger,
)

AFTER_UPGRADE = list(TransportState)[2:]
LOSS_KNOWN = [TransportState.VIOLATED, TransportState.LOST]


def reachable(start: TransportState) -> set[TransportState]:
    """Return the states that some events lead to from `start`."""
    found: set[TransportState] = set()
    waiting = [start]
    while waiting:
        following = set(TRANSPORT_TRANSITIONS[waiting.pop()].values()) - found
        found |= following
        waiting += following
    return found


def test_every_state_is_in_its_table() -> None:
    assert set(TRANSPORT_TRANSITIONS) == set(TransportState)
    assert set(WRITE_TRANSITIONS) == set(WriteState)


def test_every_state_can_be_reached_and_the_upgrade_happens_once() -> None:
    assert reachable(TransportState.OPENING) == set(TransportState) - {TransportState.OPENING}
    for state in AFTER_UPGRADE:
        assert reachable(state) <= set(AFTER_UPGRADE)


@pytest.mark.parametrize("state", AFTER_UPGRADE)
def test_a_transport_is_never_open_again(state: TransportState) -> None:
    assert TransportState.OPEN not in reachable(state)


@pytest.mark.parametrize("state", AFTER_UPGRADE)
def test_aclose_may_be_called_in_every_state_after_the_upgrade(state: TransportState) -> None:
    closing = TRANSPORT_TRANSITIONS[state][TransportTrigger.CLOSE_STARTED]
    closed = TRANSPORT_TRANSITIONS[closing][TransportTrigger.STREAM_CLOSED]
    assert closed in {TransportState.CLOSED, TransportState.LOST}
    again = TRANSPORT_TRANSITIONS[closed][TransportTrigger.CLOSE_STARTED]
    assert TRANSPORT_TRANSITIONS[again][TransportTrigger.STREAM_CLOSED] is closed


@pytest.mark.parametrize("state", LOSS_KNOWN)
def test_a_known_loss_stays_known(state: TransportState) -> None:
    assert reachable(state) <= set(LOSS_KNOWN)


@pytest.mark.parametrize("state", AFTER_UPGRADE)
def test_the_end_of_a_socket_makes_the_loss_known(state: TransportState) -> None:
    assert TRANSPORT_TRANSITIONS[state][TransportTrigger.SOCKET_ENDED] in LOSS_KNOWN


def test_nothing_is_written_after_a_write_that_was_cancelled() -> None:
    for state in (WriteState.READY, WriteState.CLOSE_SENT):
        assert WRITE_TRANSITIONS[state][WriteTrigger.WRITE_CANCELLED] is WriteState.CUT
    assert WRITE_TRANSITIONS[WriteState.CUT] == {}


@pytest.mark.parametrize(
    "event", [TransportTrigger.CLOSE_STARTED, TransportTrigger.UPGRADE_ACCEPTED]
)
def test_an_event_that_cannot_happen_changes_nothing(event: TransportTrigger) -> None:
    states = TransportStates()
    with pytest.raises(RuntimeError, match=event.name):
        states.process(event)
    assert repr(states) == "<TransportStates OPENING READY>"
