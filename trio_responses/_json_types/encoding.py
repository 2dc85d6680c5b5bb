"""Encode the result of a tool as JSON, whatever family its type belongs to."""

from __future__ import annotations

import collections.abc
import sys
from pathlib import PurePath
from typing import TYPE_CHECKING, Any, cast

import msgspec

from trio_responses._wire.lenient import replace_surrogates

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["encode_json", "to_builtins"]

CONTAINERS: frozenset[object] = frozenset({list, tuple, set, frozenset, dict})


def encode_json(value: Any) -> bytes:
    """Return a value as JSON, with U+FFFD in place of lone surrogates.

    Models and dataclasses of pydantic are encoded by pydantic, with their aliases, also in lists,
    dicts and dataclasses. Paths and other mappings, sequences and sets are encoded as well.

    :raises TypeError: for a value without a JSON form. msgspec and pydantic also raise
        `ValueError`, `OverflowError` and `RecursionError`.
    """
    if "pydantic" in sys.modules:
        value = _convert_models(value)
    try:
        return msgspec.json.encode(value, enc_hook=to_builtins)
    except UnicodeEncodeError:
        builtins = msgspec.to_builtins(value, str_keys=True, enc_hook=to_builtins)
        return msgspec.json.encode(replace_surrogates(builtins))


def to_builtins(value: Any) -> Any:
    """Return a value that msgspec cannot encode as one that it can.

    :raises TypeError: if the value has no JSON form.
    """
    kind = cast("object", type(value))
    serializer: Any = getattr(kind, "__pydantic_serializer__", None)
    if serializer is not None:
        return serializer.to_python(value, mode="json", by_alias=True)
    if issubclass(type(value), PurePath):
        return str(value)
    if issubclass(type(value), collections.abc.Mapping):
        return dict(value)
    if issubclass(type(value), collections.abc.Sequence | collections.abc.Set):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")


def _convert_models(value: Any) -> Any:
    """Return a value with what pydantic makes of each model in the place of the model.

    msgspec takes a dataclass of pydantic for a plain one, and so does not ask how to encode it.
    """
    kind = cast("object", type(value))
    if hasattr(kind, "__pydantic_serializer__"):
        return to_builtins(value)
    names: Any = getattr(kind, "__dataclass_fields__", None)
    if kind not in CONTAINERS and names is None:
        return value
    parts = value if names is None else _fields_of(value, names)
    is_object = kind is dict or names is not None
    elements = parts.values() if is_object else parts
    if not any(_may_contain_models(each) for each in set(map(type, elements))):
        return value
    if is_object:
        return {key: _convert_models(each) for key, each in parts.items()}
    return list(map(_convert_models, parts))


def _fields_of(value: Any, names: Iterable[str]) -> Any:
    """Return the fields of a dataclass that msgspec encodes."""
    fields = {name: getattr(value, name, msgspec.UNSET) for name in names}
    return {name: each for name, each in fields.items() if each is not msgspec.UNSET}


def _may_contain_models(kind: Any) -> bool:
    if kind in CONTAINERS or hasattr(kind, "__pydantic_serializer__"):
        return True
    return hasattr(kind, "__dataclass_fields__")
