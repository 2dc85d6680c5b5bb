"""The context of a tool call: a parameter that the run passes to a tool, hidden from the model.

The context contains what a run knows about a call besides its arguments. A function tool receives
the context in the parameter that is annotated with a subclass of `CallContext`. The schema does not
contain this parameter.
"""

from __future__ import annotations

from types import NoneType, UnionType
from typing import Annotated, Any, Union, get_args, get_origin

__all__ = ["CallContext", "is_context"]


class CallContext:
    """The base class of `ToolContext`."""

    __slots__ = ()


def is_context(annotation: Any) -> bool:
    """Whether a parameter with an evaluated annotation is for the context of a call.

    The context class may be generic, optional or in an ``Annotated``.
    """
    origin = get_origin(annotation)
    if origin is Annotated:
        return is_context(get_args(annotation)[0])
    if origin in {Union, UnionType}:
        others = [each for each in get_args(annotation) if each is not NoneType]
        return len(others) == 1 and is_context(others[0])
    kind = annotation if origin is None else origin
    return isinstance(kind, type) and issubclass(kind, CallContext)
