"""What every record on the wire has in common: its tag, and what stands in for an unknown one.

Here are the base classes of events, items and parts. The records themselves are in
:mod:`~trio_responses._wire.events`, :mod:`~trio_responses._wire.items` and their neighbours; how an
unknown tag is replaced is in :mod:`~trio_responses._wire.lenient`.
"""

from __future__ import annotations

from typing import Any, ClassVar, TypeAlias

import msgspec

__all__ = []

JSON: TypeAlias = Any
"""Any JSON value. Fields that only echo a setting have this type: an odd shape costs no turn."""


class Tagged(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag_field="type"
):
    """A JSON object whose ``type`` says what it is. ``gc=False``: decoded JSON has no cycles."""

    @property
    def type(self) -> str:
        """The ``type`` of this object on the wire."""
        return str(self.__struct_config__.tag)


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A JSON object that is known by its place, not by a ``type``."""


class Unknown:
    """An object of a type that this version does not know, or that does not fit its type.

    It holds the JSON as it came, and is encoded as exactly that.

    :param type: the object's ``type``, or ``""`` where it has none.
    :param raw: its JSON.
    """

    __slots__ = ("_raw", "_type")
    __match_args__ = ("type", "raw")

    def __init__(self, type: str, raw: msgspec.Raw) -> None:  # noqa: A002 - the protocol's word
        self._type = type
        self._raw = raw

    @property
    def type(self) -> str:
        """The object's ``type``, or ``""``."""
        return self._type

    @property
    def raw(self) -> msgspec.Raw:
        """The JSON as it came."""
        return self._raw

    def json(self) -> JSON:
        """Parse the JSON.

        :raises ValueError: or one of its like, if it nests too deeply or is not UTF-8.
        """
        return msgspec.json.decode(self._raw)

    def __eq__(self, other: object) -> bool:
        """Compare class and JSON, byte by byte."""
        if not isinstance(other, Unknown):
            return NotImplemented
        return self.__class__ is other.__class__ and bytes(self._raw) == bytes(other._raw)

    def __hash__(self) -> int:
        """Hash the JSON."""
        return hash(bytes(self._raw))

    def __repr__(self) -> str:
        """Show type and size: the content may be anybody's."""
        return f"{self.__class__.__name__}(type={self._type!r}, size={len(bytes(self._raw))})"


class UnknownItem(Unknown):
    """An input or output item that this version does not know. It can be replayed as it is."""

    __slots__ = ()


class UnknownPart(Unknown):
    """A tagged object inside an item, or a part of an event, that this version does not know."""

    __slots__ = ()


class Item(Tagged, frozen=True, kw_only=True):
    """An element of a conversation. A field that is ``None`` is left out when the item is sent."""

    unknown: ClassVar[type[Unknown]] = UnknownItem


class Part(Tagged, frozen=True, kw_only=True):
    """A tagged object inside an item: content, annotation, action, outcome."""

    unknown: ClassVar[type[Unknown]] = UnknownPart


class Event(Tagged, frozen=True, kw_only=True):
    """What a server said.

    ``sequence_number`` counts within one response. ``stream_id`` names the lane; it is absent on
    the default lane (guide, WebSocket mode). Servers leave either out.
    """

    sequence_number: int | None = None
    """Counts the events of a response, from 0 (docs/protocol.md, 3)."""
    stream_id: str | None = None
    """The lane; `None` is the default lane (docs/protocol.md, 5.2)."""
