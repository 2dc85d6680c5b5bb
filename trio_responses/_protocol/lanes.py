"""Names for lanes: a fixed set, since the server never forgets one.

A server counts 32 distinct names a socket for as long as it lives (guide, "WebSocket mode"). So
names are leased and given back, and new ones leave room for those that users have chosen.

What belongs elsewhere: which requests a lane has (`lanes.py`).
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Final

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Set as AbstractSet

__all__ = ["LaneRegistry"]

LANE_NAME: Final = re.compile(r"[A-Za-z0-9_.-]{1,256}")
LANE_NAMES: Final = tuple(f"lane-{number}" for number in range(1, 33))


class LaneRegistry:
    """The lanes that somebody has for himself.

    :param offered: whether the endpoint has lanes at all.
    """

    def __init__(self, *, offered: bool) -> None:
        self._offered = offered
        self._leased: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """How many lanes are leased."""
        return len(self._leased)

    @property
    def are_out(self) -> bool:
        """Whether none is left."""
        return self.count >= len(LANE_NAMES)

    def lease(self, name: str | None) -> str | None:
        """Take a name for oneself: a free one, where none is wished for.

        :return: `None` where the endpoint has no lanes: all share the default lane then.
        :raises ConfigurationError: for a name outside the grammar, or one that is in use; for any
            name where there are no lanes; and when all are leased.
        """
        if not self._offered:
            if name is not None:
                raise ConfigurationError("this endpoint has no lanes to name: see Endpoint.lanes")
            return None
        if name is not None and not LANE_NAME.fullmatch(name):
            raise ConfigurationError(f"not a lane name: {name!r}")
        if name in self._leased:
            raise ConfigurationError(f"lane {name!r} is leased already")
        if self.are_out:
            raise ConfigurationError(f"all {len(LANE_NAMES)} lanes are leased")
        if name is None:
            # From the end of the names, since turns without a lease take them from the beginning.
            name = next(name for name in reversed(LANE_NAMES) if name not in self._leased)
        self._leased |= {name}
        return name

    def give_back(self, name: str | None) -> None:
        """Let others have the name."""
        if name is not None:
            self._leased -= {name}

    def unleased(self, used: AbstractSet[str | None]) -> list[str | None]:
        """Give the lanes that any turn may take, the default lane first.

        :param used: the names that the socket has seen; they go before new ones, which leave room
            for the leased ones.
        """
        if not self._offered:
            return [None]
        taken = (used | self._leased) - {None}
        known = [name for name in LANE_NAMES if name in used and name not in self._leased]
        fresh = [name for name in LANE_NAMES if name not in taken]
        return [None, *known, *fresh[: max(0, len(LANE_NAMES) - len(taken))]]
