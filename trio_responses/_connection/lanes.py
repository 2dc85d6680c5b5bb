"""Reservations of lanes (``stream_id`` values) for one connection.

A server counts at most 32 distinct lane names a socket and forgets none for as long as the
socket lives (guide, "WebSocket mode"). So names come from a fixed set, are reserved and
released, and new names leave room for those that a user chose.
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
    """The lanes (``stream_id`` values) of one connection, and which of them are reserved.

    :param offered: whether the endpoint has lanes.
    :param over_http: whether all requests are sent over HTTP, where any number of them may run at
        once: a lane only orders its requests, and needs no name.
    """

    def __init__(self, *, offered: bool, over_http: bool = False) -> None:
        self._offered = offered and not over_http
        self._over_http = over_http
        self._reserved: frozenset[str] = frozenset()

    @property
    def count(self) -> int:
        """The number of reserved lanes."""
        return len(self._reserved)

    @property
    def exhausted(self) -> bool:
        """Whether all lanes are reserved."""
        return self.count >= len(LANE_NAMES) and not self._over_http

    def reserve(self, name: str | None) -> str | None:
        """Reserve the lane with a name (``stream_id``), or any free lane.

        :return: the reserved name; `None` where the endpoint has no lanes and all turns share
            the default lane, and over HTTP.
        :raises ConfigurationError: for a malformed or reserved name; for any name where the
            endpoint has no lanes; and when all lanes are reserved.
        """
        if not self._offered:
            if name is None:
                return None
            if not self._over_http:
                raise ConfigurationError(
                    f"cannot reserve lane {name!r}: this endpoint has no lanes (Endpoint.lanes is"
                    " False)"
                )
        if name is not None and not LANE_NAME.fullmatch(name):
            raise ConfigurationError(
                f"not a lane name: {name!r} (1 to 256 letters, digits, '_', '-' and '.')"
            )
        if name in self._reserved:
            raise ConfigurationError(f"lane {name!r} is reserved already")
        if self.exhausted:
            raise ConfigurationError(f"all {len(LANE_NAMES)} lanes of the connection are reserved")
        if name is None:
            # From the end of the set, since unreserved turns use names from its beginning.
            name = next(name for name in reversed(LANE_NAMES) if name not in self._reserved)
        self._reserved |= {name}
        return name

    def release(self, name: str | None) -> None:
        """Release a reserved lane (``stream_id``)."""
        if name is not None:
            self._reserved -= {name}

    def unreserved(self, used: AbstractSet[str | None]) -> list[str | None]:
        """Return the lanes (``stream_id``) that any turn may use, the default lane (`None`) first.

        :param used: the names that the socket has used. They come before new names, so that new
            ones leave room for the reserved ones.
        """
        if not self._offered:
            return [None]
        taken = (used | self._reserved) - {None}
        known = [name for name in LANE_NAMES if name in used and name not in self._reserved]
        fresh = [name for name in LANE_NAMES if name not in taken]
        return [None, *known, *fresh[: max(0, len(LANE_NAMES) - len(taken))]]
