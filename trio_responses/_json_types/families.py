"""Choose the adapter for an annotation: that of pydantic, or that of msgspec.

An annotation that contains a type or metadata of pydantic goes to pydantic as a whole. pydantic is
never imported to find this out: without a type of the user that comes from pydantic, no type is
pydantic's.
"""

from __future__ import annotations

import sys
from types import NoneType
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, get_args, get_origin, get_type_hints

import msgspec

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.annotations import resolve_alias, rewrite
from trio_responses._json_types.msgspec_types import MsgspecType, embed

if TYPE_CHECKING:
    import dataclasses
    from collections.abc import Iterator

    from trio_responses._json_types.adapter import Adapter, FieldAdapter

__all__ = [
    "Compiled",
    "compile_annotation",
    "field_annotation",
    "is_field_of_pydantic",
    "is_of_pydantic",
]

LIBRARIES = frozenset({"pydantic", "pydantic_core", "annotated_types"})
"""The modules whose types and metadata only pydantic understands."""
FIELD_INFO = ("pydantic.fields", "FieldInfo")


class Compiled(NamedTuple):
    """The adapter of an annotation.

    :ivar wrapped: whether the JSON is ``{"value": ...}``, because that of the type is no object.
    """

    adapter: Adapter
    wrapped: bool


def compile_annotation(annotation: Any, place: str) -> Compiled:
    """Return the adapter of an annotation.

    :param place: the name of the type in messages.
    :raises ConfigurationError: if the type has no JSON schema.
    """
    foreign = _foreign_adapter(annotation, place)
    field = rewrite(annotation, place) if foreign is None else embed(foreign)
    adapter: Adapter = foreign or MsgspecType(field, place)
    if adapter.is_object:
        if foreign is not None and foreign.description is not None:
            adapter.schema = {**adapter.schema, "description": foreign.description}
        return Compiled(adapter, wrapped=False)
    wrapper = msgspec.defstruct("Wrapped", [("value", field)], forbid_unknown_fields=True)
    return Compiled(MsgspecType(wrapper, place), wrapped=True)


def field_annotation(annotation: Any, place: str) -> Any:
    """Return an annotation for a field of a Struct that is compiled afterwards.

    :param place: the name of the field in messages.
    :raises ConfigurationError: if the type has no JSON schema.
    """
    foreign = _foreign_adapter(annotation, place)
    return rewrite(annotation, place) if foreign is None else embed(foreign)


def is_of_pydantic(part: Any) -> bool:
    """Whether only pydantic understands a part of an annotation: a type, or metadata."""
    cls: type = part if isinstance(part, type) else type(part)
    return (
        any(base.__module__.partition(".")[0] in LIBRARIES for base in cls.__mro__)
        or hasattr(cls, "__pydantic_validator__")  # a dataclass
        or (hasattr(cls, "__get_pydantic_core_schema__") and not issubclass(cls, msgspec.Struct))
    )


def is_field_of_pydantic(default: Any) -> bool:
    """Whether a default is a ``pydantic.Field(...)``."""
    bases = type(default).__mro__
    return any((base.__module__, base.__name__) == FIELD_INFO for base in bases)


def _foreign_adapter(annotation: Any, place: str) -> FieldAdapter | None:
    """Return the adapter of pydantic for an annotation of pydantic; `None` for any other."""
    if LIBRARIES.isdisjoint(sys.modules):
        return None
    parts = list(_walk(annotation, set()))
    found = next(filter(is_of_pydantic, parts), None)
    if found is None:
        return None
    try:
        from trio_responses._json_types.pydantic_types import PydanticType  # noqa: PLC0415
    except ImportError as error:
        raise ConfigurationError(
            f"{place}: {found!r} needs pydantic 2.7 or later: {error}; install or upgrade it, or"
            " use a Struct and msgspec.Meta"
        ) from error
    return PydanticType(annotation, place, parts=parts)


def _walk(annotation: Any, seen: set[type | str]) -> Iterator[Any]:
    """Yield the parts of an annotation at any depth: types, metadata, and the types of fields."""
    alias = resolve_alias(annotation)
    if alias is not annotation:
        if str(annotation) not in seen:
            seen.add(str(annotation))
            yield from _walk(alias, seen)
        return
    yield annotation
    if get_origin(annotation) is Annotated:
        yield from annotation.__metadata__
        yield from _walk(annotation.__origin__, seen)
        return
    for each in get_args(annotation):
        yield from _walk(each, seen)
    if hasattr(annotation, "__supertype__"):  # of NewType
        yield from _walk(annotation.__supertype__, seen)
    cls = get_origin(annotation) or annotation
    if isinstance(cls, type) and cls not in seen and cls is not NoneType:
        seen.add(cls)
        for each in _types_of_fields(cls):
            yield from _walk(each, seen)


def _types_of_fields(cls: type) -> Iterator[Any]:
    """Yield the annotations of the fields of a class, and defaults that only pydantic reads."""
    if cls.__module__ in ("builtins", "typing", "collections.abc"):
        return
    fields: dict[str, dataclasses.Field[Any]] = getattr(cls, "__dataclass_fields__", {})
    yield from filter(is_field_of_pydantic, (each.default for each in fields.values()))
    try:
        yield from get_type_hints(cls, include_extras=True).values()
    except Exception:  # noqa: BLE001 - reported when the class is compiled
        return
