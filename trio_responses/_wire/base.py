"""The base classes of the wire records.

Every event, item, part and tool is an immutable msgspec Struct. A record whose JSON object has a
``type`` derives from :class:`Tagged`, any other record from :class:`Record`. Objects of a ``type``
that this version does not know are instances of :class:`Unknown`, which keep their JSON.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, TypeAlias

import msgspec

from trio_responses._wire.nesting import decode_checked

__all__ = []

JSON: TypeAlias = Any
"""Any JSON value. Fields that echo a setting have this type, so that no shape of them fails."""

JSONText: TypeAlias = Annotated[str, msgspec.Meta(extra={"is_json_text": True})]
"""The text that a model wrote for a call, mostly JSON. Where a server sends any other value than
text, the text is the JSON of the value; null and a missing field are an empty text."""


def _encode_unknown(value: Any) -> msgspec.Raw:
    if isinstance(value, Unknown):
        return value.raw
    raise TypeError(f"an object of type {type(value).__qualname__} has no JSON form")


_encoder = msgspec.json.Encoder(enc_hook=_encode_unknown)


class Tagged(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, tag_field="type"
):
    """A JSON object whose ``type`` field names its record class.

    Each class repeats its tag as ``type``, a `ClassVar` of a literal: so a comparison with ``type``
    narrows a union of records in type checkers, and costs no more than a look-up.

    ``gc=False`` is safe: decoded JSON contains no reference cycles.
    """

    type: ClassVar[str]

    @property
    def wire_type(self) -> str:
        """The ``type`` on the wire, which known and unknown objects have."""
        return self.type

    def to_json(self) -> str:
        """Return the object as JSON text: the known fields that differ from their defaults."""
        return _encoder.encode(self).decode()

    def to_dict(self) -> dict[str, JSON]:
        """Return the object as a dict, with the content of `to_json`."""
        value: dict[str, JSON] = decode_checked(self.to_json())
        return value


class Record(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
    """A JSON object whose class is known from the field that contains it, not from a ``type``."""

    def to_json(self) -> str:
        """Return the object as JSON text: the known fields that differ from their defaults."""
        return _encoder.encode(self).decode()

    def to_dict(self) -> dict[str, JSON]:
        """Return the object as a dict, with the content of `to_json`."""
        value: dict[str, JSON] = decode_checked(self.to_json())
        return value


class Unknown:
    """A JSON object of an unknown ``type``, or one that does not match the record of its ``type``.

    The object keeps its JSON as received, and is encoded as exactly that JSON.

    :param wire_type: the object's ``type`` on the wire, or ``""`` if the object has none.
    :param raw: the object's JSON.
    """

    __slots__ = ("_raw", "_wire_type")
    __match_args__ = ("wire_type", "raw")

    def __init__(self, wire_type: str, raw: msgspec.Raw) -> None:
        self._wire_type = wire_type
        self._raw = raw

    @property
    def wire_type(self) -> str:
        """The object's ``type`` on the wire, or ``""`` if the object has none."""
        return self._wire_type

    @property
    def raw(self) -> msgspec.Raw:
        """The JSON as received."""
        return self._raw

    def json(self) -> JSON:
        """Return the parsed JSON.

        :raises ValueError: if the JSON is malformed or not UTF-8.
        :raises RecursionError: if the JSON nests too deeply.
        """
        return decode_checked(self._raw)

    def to_json(self) -> str:
        """Return the JSON text as received.

        :raises ValueError: if the text is not UTF-8.
        """
        return bytes(self._raw).decode()

    def to_dict(self) -> dict[str, JSON]:
        """Return the object as a dict, every field included.

        :raises ValueError: if the JSON is no object.
        :raises RecursionError: if the JSON nests too deeply.
        """
        value: dict[str, JSON] = decode_checked(self._raw, dict[str, JSON])
        return value

    def __eq__(self, other: object) -> bool:
        """Whether both objects have the same class and the same JSON, byte by byte."""
        if not isinstance(other, Unknown):
            return NotImplemented
        return self.__class__ is other.__class__ and bytes(self._raw) == bytes(other._raw)

    def __hash__(self) -> int:
        """Return the hash of the JSON."""
        return hash(bytes(self._raw))

    def __repr__(self) -> str:
        """Return the type and the size; the content may be private."""
        size = len(bytes(self._raw))
        return f"{self.__class__.__name__}(wire_type={self._wire_type!r}, size={size})"


class UnknownItem(Unknown):
    """An input or output item of a type that this version does not know.

    The item can be sent again as received.
    """

    __slots__ = ()
    type: ClassVar[Literal["trio_responses.unknown_item"]] = "trio_responses.unknown_item"

    @property
    def call_id(self) -> str | None:
        """The item's ``call_id``, as calls have one; `None` where it has none that is text."""
        try:
            return _call_decoder.decode(self.raw).call_id
        except (msgspec.MsgspecError, ValueError, RecursionError):
            return None


class _Call(msgspec.Struct):
    call_id: str | None = None


_call_decoder: msgspec.json.Decoder[_Call] = msgspec.json.Decoder(_Call)


class UnknownPart(Unknown):
    """A content part, annotation, action or outcome of a type that this version does not know."""

    __slots__ = ()
    type: ClassVar[Literal["trio_responses.unknown_part"]] = "trio_responses.unknown_part"


class Agent(Record, frozen=True, kw_only=True):
    """The agent that an event or an item comes from (beta, multi-agent)."""

    agent_name: str
    """Name of the agent, such as ``/root``."""


class Item(Tagged, frozen=True, kw_only=True, gc=True, dict=True):
    """An item of a conversation. Fields that are ``None`` are omitted when the item is sent.

    A received item keeps its JSON, so that no field is lost when the item is sent again.
    """

    unknown: ClassVar[type[Unknown]] = UnknownItem
    agent: Agent | None = None
    """The agent that made the item (beta, multi-agent)."""

    @property
    def raw(self) -> msgspec.Raw | None:
        """The JSON as received; `None` for an item that was made by a program."""
        return self.__dict__.get("raw_json")

    def to_json(self) -> str:
        """Return the item as JSON text: exactly as received, if it was received."""
        raw = self.raw
        return super().to_json() if raw is None else bytes(raw).decode()


class Part(Tagged, frozen=True, kw_only=True):
    """An object inside an item whose ``type`` names its class: content, annotation, action, ..."""

    unknown: ClassVar[type[Unknown]] = UnknownPart


class Event(Tagged, frozen=True, kw_only=True):
    """An event that the server sends.

    ``sequence_number`` counts the events of one response. ``stream_id`` names the lane; events of
    the default lane have none (guide, WebSocket mode). Servers may omit each of the fields.
    """

    sequence_number: int | None = None
    """Number of the event within its response, from 0 (docs/protocol.md, 3)."""
    stream_id: str | None = None
    """Name of the lane; `None` is the default lane (docs/protocol.md, 5.2)."""
    agent: Agent | None = None
    """The agent that the event comes from (beta, multi-agent)."""
