"""Types that msgspec does not decode by itself: paths, and unions of classes without tags."""

from __future__ import annotations

from pathlib import PurePath
from typing import Any, ClassVar, TypeGuard, Union

import msgspec

from trio_responses._json_types.null_defaults import best_objects

__all__ = ["Choice", "decode_custom", "is_path"]


class _AnyInstance(type):
    """A metaclass for types of which every value is an instance: msgspec asks after decoding."""

    def __instancecheck__(cls, instance: object) -> bool:
        return True


class Choice(metaclass=_AnyInstance):
    """A union of classes without tags. Each subclass is one such union.

    msgspec decodes an object by one class. The keys of an object, and the literals in it, say which
    class that is.
    """

    classes: ClassVar[dict[Any, dict[str, Any]]]
    """The classes whose JSON is an object, with their full schemas."""
    others: ClassVar[tuple[Any, ...]]
    """The types of the union whose JSON is no object."""

    @classmethod
    def decode(cls, value: Any) -> Any:
        """Return a value of the union for decoded JSON.

        :raises ValueError: if the value matches none of the types.
        """
        if not issubclass(type(value), dict):
            others: Any = Union[cls.others or (next(iter(cls.classes)),)]  # noqa: UP007 - computed
            return _convert(value, others)
        best = best_objects(value, cls.classes.values())
        for each, schema in cls.classes.items():
            if best and schema is best[0]:
                return _convert(value, each)
        needs = " or ".join(
            f"{', '.join(f'`{key}`' for key in schema['required'])} of `{name_of(each)}`"
            for each, schema in cls.classes.items()
        )
        raise ValueError(f"Object matches no type: it needs the fields {needs}")


def decode_custom(cls: Any, value: Any) -> Any:
    """Return a value of a type that msgspec does not know, for decoded JSON.

    :raises ValueError: if the value does not match the type.
    """
    if issubclass(cls, Choice):
        return cls.decode(value)
    return cls(_convert(value, str))


def is_path(cls: Any) -> TypeGuard[type[PurePath]]:
    """Whether a type is a path, such as `pathlib.Path`."""
    return isinstance(cls, type) and issubclass(cls, PurePath)


def name_of(cls: Any) -> str:
    """Return the name of a type for a message."""
    return cls.__name__ if isinstance(cls, type) else str(cls)


def _convert(value: Any, cls: Any) -> Any:
    try:
        return msgspec.convert(value, cls, dec_hook=decode_custom, str_keys=True)
    except msgspec.ValidationError as error:
        # Any other exception than its own gets the place of the value from msgspec.
        raise ValueError(str(error)) from error
