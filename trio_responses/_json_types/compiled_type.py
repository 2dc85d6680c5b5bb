"""A type with its schema in the chosen mode, strict or full, and its decoder."""

from __future__ import annotations

from decimal import Decimal
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.families import compile_annotation
from trio_responses._json_types.null_defaults import drop_null_defaults, has_null_defaults
from trio_responses._json_types.strict_mode import derive_strict

if TYPE_CHECKING:
    from trio_responses._json_types.adapter import Adapter

__all__ = ["CompiledType", "compile_type"]

# Decimals keep every digit of a number that is decoded and encoded again.
_any_decoder = msgspec.json.Decoder[Any](float_hook=Decimal)
_any_encoder = msgspec.json.Encoder(decimal_format="number")


class CompiledType(NamedTuple):
    """A type, its JSON schema in the chosen mode (strict or full), and its decoder.

    :ivar adapter: the adapter of the type, wrapped or not.
    :ivar schema: the schema.
    :ivar reason: the place that strict mode cannot express, and why; `None` if the schema is
        strict.
    :ivar wrapped: whether the JSON is ``{"value": ...}``, because that of the type is no object.
    :ivar has_null_defaults: whether some property accepts ``null`` in place of its default.
    """

    adapter: Adapter
    schema: dict[str, Any]
    reason: str | None
    wrapped: bool
    has_null_defaults: bool

    def decode(self, json: str | bytes) -> Any:
        """Decode a value of the type.

        :raises ValueError: if the JSON does not match the type: `InvalidJSON`, or an exception of
            msgspec.
        """
        if self.has_null_defaults and _contains_null(json):
            value = _any_decoder.decode(json)
            drop_null_defaults(value, self.adapter.schema)
            json = _any_encoder.encode(value)
        value = self.adapter.decode(json)
        return value.value if self.wrapped else value


def compile_type(annotation: Any, place: str, *, strict: bool | None) -> CompiledType:
    """Return a type with its JSON schema and its decoder.

    :param place: the name of the type in messages.
    :param strict: `None` for the strict schema if the type has one, `True` to require it, `False`
        for the full schema.
    :raises ConfigurationError: if the type has no JSON schema, or no strict schema although
        ``strict`` requires one.
    """
    adapter, wrapped = compile_annotation(annotation, place)
    schema, reason = derive_strict(adapter.schema, place)
    if reason is not None and strict:
        raise ConfigurationError(
            f"strict=True, but strict mode cannot express this type: {reason}; "
            "change the type, or leave strict out"
        )
    if strict is False:
        reason = reason or "strict=False was given"
    if reason is not None:
        schema = adapter.schema
    return CompiledType(adapter, schema, reason, wrapped, has_null_defaults(adapter.schema))


def _contains_null(json: str | bytes) -> bool:
    return "null" in json if isinstance(json, str) else b"null" in json
