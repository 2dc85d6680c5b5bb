"""Rewrite annotations that msgspec does not know into ones that it decodes.

- ``Iterable[T]`` becomes ``list[T]``.
- A union of classes without tags becomes a `Choice`, if the keys of an object tell the classes
  apart.
- A `TypedDict` with ``ReadOnly`` keys becomes one without ``ReadOnly``.
- An alias (``type X = ...``) becomes the type that it stands for.

Only the annotation itself is rewritten, not the fields of the classes in it.
"""

from __future__ import annotations

import collections.abc
from itertools import combinations
from types import NoneType, UnionType
from typing import (
    TYPE_CHECKING,
    Annotated,
    Any,
    NotRequired,
    Required,
    TypedDict,
    Union,
    cast,
    get_args,
    get_origin,
    get_type_hints,
)

from msgspec import inspect as mi

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.custom_types import Choice, name_of
from trio_responses._json_types.msgspec_types import UNSUPPORTED, MsgspecType

if TYPE_CHECKING:
    from collections.abc import Mapping

__all__ = ["resolve_alias", "rewrite"]


def rewrite(annotation: Any, place: str) -> Any:
    """Return an annotation that msgspec decodes, or the annotation as it is.

    :param place: the name of the annotation in messages.
    :raises ConfigurationError: for a union of classes that cannot be told apart, and for an alias
        that refers to itself.
    """
    try:
        return _rewrite(annotation, place)
    except RecursionError as error:
        raise ConfigurationError(
            f"{place}: {annotation} refers to itself: use a class that does"
        ) from error


def _rewrite(annotation: Any, place: str) -> Any:
    alias = resolve_alias(annotation)
    if alias is not annotation:
        return _rewrite(alias, place)
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return Annotated[_rewrite(args[0], place), *annotation.__metadata__]
    if origin in (Union, UnionType):
        return _rewrite_union([_rewrite(each, place) for each in args], place)
    if collections.abc.Iterable in (origin, annotation):
        return list[_rewrite(args[0] if args else Any, place)]  # type: ignore[misc]
    if isinstance(origin, type) and args and not any(isinstance(each, list) for each in args):
        return cast("Any", origin)[tuple(_rewrite(each, place) for each in args)]
    return _without_read_only(annotation)


def resolve_alias(annotation: Any) -> Any:
    """Return the type that an alias stands for; any other annotation as it is."""
    origin = get_origin(annotation) or annotation
    if type(origin).__name__ != "TypeAliasType":
        return annotation
    args = get_args(annotation)
    return origin.__value__[args] if args else origin.__value__


def _rewrite_union(members: list[Any], place: str) -> Any:
    union: Any = Union[tuple(members)]  # noqa: UP007 - computed
    try:
        mi.type_info(union)
    except TypeError:
        classes = {each: schema for each in members if (schema := _object_schema(each, place))}
        if len(classes) > 1:
            return _choose(members, classes, place)
    except UNSUPPORTED:
        pass  # reported when the whole annotation is compiled
    return union


def _object_schema(annotation: Any, place: str) -> dict[str, Any] | None:
    """Return the full schema of a class whose JSON is an object; `None` for any other type.

    :raises ConfigurationError: if the type has no JSON schema.
    """
    adapter = MsgspecType(annotation, place)
    return adapter.schema if adapter.is_object and "properties" in adapter.schema else None


def _choose(members: list[Any], classes: Mapping[Any, dict[str, Any]], place: str) -> Any:
    """Return a `Choice` of the members of a union.

    :raises ConfigurationError: if two classes cannot be told apart.
    """
    for first, second in combinations(classes, 2):
        if not _differ(classes[first], classes[second]):
            raise ConfigurationError(
                f"{place}: {name_of(first)} and {name_of(second)} cannot be told apart in a union:"
                " no required field of one is unknown to the other, and no literal differs; make"
                " them tagged Structs (class A(Struct, tag=True)), or pydantic models with a"
                " discriminator"
            )
    others = tuple(each for each in members if each not in classes and each is not NoneType)
    choice = type("Choice", (Choice,), {"classes": dict(classes), "others": others})
    return Union[choice, None] if NoneType in members else choice  # noqa: UP007 - computed


def _differ(first: dict[str, Any], second: dict[str, Any]) -> bool:
    """Whether each object matches at most one of two schemas better."""
    required, other_required = set(first["required"]), set(second["required"])
    if required - second["properties"].keys() or other_required - first["properties"].keys():
        return True
    return any(
        {"enum"} <= first["properties"][key].keys() & second["properties"][key].keys()
        and not set(first["properties"][key]["enum"]) & set(second["properties"][key]["enum"])
        for key in required & other_required
    )


def _without_read_only(annotation: Any) -> Any:
    """Return a `TypedDict` with ``ReadOnly`` keys as one without; any other annotation as it is."""
    if not hasattr(annotation, "__required_keys__"):
        return annotation
    try:
        hints = get_type_hints(annotation, include_extras=True)
    except NameError:
        return annotation  # reported when the whole annotation is compiled
    fields: dict[str, Any] = {}
    is_read_only = False
    for name, hint in hints.items():
        presence: Any = Required if name in annotation.__required_keys__ else NotRequired
        inner = hint
        while (origin := get_origin(inner)) in (Required, NotRequired) or _is_read_only(origin):
            is_read_only = is_read_only or _is_read_only(origin)
            presence = presence if _is_read_only(origin) else origin
            (inner,) = get_args(inner)
        fields[name] = presence[inner]
    if not is_read_only:
        return annotation
    rewritten = cast("Any", TypedDict)(annotation.__name__, fields)
    rewritten.__doc__ = annotation.__doc__
    return rewritten


def _is_read_only(origin: Any) -> bool:
    return getattr(origin, "_name", None) == "ReadOnly"
