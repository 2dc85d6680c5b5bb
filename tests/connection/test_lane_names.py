"""Lane names are reserved from a fixed set, and a socket sees 32 of them at most."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses import ConfigurationError
from trio_responses._connection.lanes import LANE_NAMES, LaneRegistry


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "0", ".", "-" * 256])
def test_a_name_within_the_grammar_is_reserved(name: str) -> None:
    assert LaneRegistry(offered=True).reserve(name) == name


@pytest.mark.parametrize("name", ["", "a b", "ä", "a/b", "a\n", "\na", "a" * 257, '"', "lane:1"])
def test_a_name_outside_the_grammar_is_refused(name: str) -> None:
    with pytest.raises(ConfigurationError, match="not a lane name"):
        LaneRegistry(offered=True).reserve(name)


def test_a_name_is_reserved_once_at_a_time() -> None:
    registry = LaneRegistry(offered=True)
    registry.reserve("mine")
    with pytest.raises(ConfigurationError, match="'mine' is reserved already"):
        registry.reserve("mine")
    registry.release("mine")
    assert registry.reserve("mine") == "mine"


def test_a_chosen_name_is_never_one_that_is_reserved() -> None:
    registry = LaneRegistry(offered=True)
    assert registry.reserve("lane-32") == "lane-32"
    chosen = {registry.reserve(None) for _ in range(31)}
    assert chosen == set(LANE_NAMES) - {"lane-32"}


def test_names_are_chosen_from_the_end_and_chosen_again_after_release() -> None:
    """Turns without a reserved lane take names from the beginning, so that the two seldom meet."""
    registry = LaneRegistry(offered=True)
    assert [registry.reserve(None), registry.reserve(None)] == ["lane-32", "lane-31"]
    registry.release("lane-32")
    assert registry.reserve(None) == "lane-32"


@pytest.mark.parametrize("wished", [None, "mine"])
@pytest.mark.parametrize("named", [0, 7, 32])
def test_32_names_are_reserved_and_no_more(wished: str | None, named: int) -> None:
    """A socket could not serve another one, whether the caller or the library chose the names."""
    registry = LaneRegistry(offered=True)
    for number in range(named):
        registry.reserve(f"mine-{number}")
    for _ in range(32 - named):
        registry.reserve(None)
    with pytest.raises(ConfigurationError, match="all 32 lanes of the connection are reserved"):
        registry.reserve(wished)


def test_releasing_a_name_that_is_not_reserved_does_nothing() -> None:
    registry = LaneRegistry(offered=True)
    registry.release(None)
    registry.release("never-reserved")
    assert registry.reserve("never-reserved") == "never-reserved"


def test_without_lanes_all_share_the_default_lane() -> None:
    registry = LaneRegistry(offered=False)
    assert registry.reserve(None) is None
    assert registry.reserve(None) is None
    assert registry.unreserved(set()) == [None]
    registry.release(None)
    with pytest.raises(ConfigurationError, match="has no lanes"):
        registry.reserve("mine")


def test_unreserved_turns_take_the_default_lane_then_used_names_then_new_ones() -> None:
    registry = LaneRegistry(offered=True)
    assert registry.unreserved(set()) == [None, *LANE_NAMES]
    assert registry.unreserved({None, "lane-3"})[:3] == [None, "lane-3", "lane-1"]


def test_unreserved_turns_leave_reserved_names_alone() -> None:
    registry = LaneRegistry(offered=True)
    registry.reserve("lane-2")
    assert "lane-2" not in registry.unreserved({None, "lane-2"})


def test_new_names_leave_room_for_the_reserved_ones() -> None:
    registry = LaneRegistry(offered=True)
    registry.reserve("mine")
    offered = registry.unreserved({f"given-back-{number}" for number in range(30)})
    assert offered == [None, "lane-1"]


@given(
    named=st.sets(st.sampled_from([f"mine-{number}" for number in range(40)])),
    used=st.sets(st.sampled_from([None, *LANE_NAMES, *(f"mine-{n}" for n in range(40))])),
    chosen=st.integers(0, 32),
)
def test_a_socket_never_sees_more_than_32_names(
    named: set[str], used: set[str | None], chosen: int
) -> None:
    """For all used and reserved names, the registry offers names up to 32, each of them once."""
    registry = LaneRegistry(offered=True)
    reserved = {registry.reserve(name) for name in sorted(named)[: 32 - chosen]}
    reserved |= {registry.reserve(None) for _ in range(min(chosen, 32 - len(reserved)))}
    offered = registry.unreserved(used)
    assert offered[0] is None
    assert len(offered) == len(set(offered))
    assert reserved.isdisjoint(offered)
    before = (used | reserved) - {None}
    assert len(before | set(offered) - {None}) <= max(32, len(before))
