"""The parameters of a function as a Struct, which msgspec can decode.

What belongs elsewhere: the schema of that Struct (`json_schema.py`), and the docstring
(`docstrings.py`).
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, cast, get_origin, get_type_hints

import msgspec

from trio_responses._errors import ConfigurationError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["arguments_type"]

EMPTY: dict[type, Callable[[], Any]] = {list: list, dict: dict, set: set}
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def arguments_type(
    function: Callable[..., Any], signature: inspect.Signature, descriptions: Mapping[str, str]
) -> type[msgspec.Struct]:
    """Make a Struct of the parameters.

    Its fields have numbers, and the names of the parameters in JSON only: any name is allowed.
    """
    fields: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    known = _known_names(function)
    for number, parameter in enumerate(signature.parameters.values()):
        annotation = _annotation(function, parameter, known)
        described = _described(annotation, descriptions.get(parameter.name))
        names[f"p{number}"] = parameter.name
        fields.append((f"p{number}", described, _default(parameter)))
    return msgspec.defstruct(
        "Arguments", fields, rename=names, kw_only=True, forbid_unknown_fields=True
    )


def _annotation(
    function: Callable[..., Any], parameter: inspect.Parameter, known: dict[str, Any]
) -> Any:
    place = f"the parameter {parameter.name!r} of {function.__name__}"
    if parameter.kind in VARIADIC:
        raise ConfigurationError(f"{place} takes any number: make it a list or a dict")
    if parameter.annotation is inspect.Parameter.empty:
        raise ConfigurationError(f"{place} has no annotation")
    holder = SimpleNamespace(__annotations__={"it": parameter.annotation})
    try:
        return get_type_hints(cast("Any", holder), {}, known, include_extras=True)["it"]
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ConfigurationError(
            f"{place}: the annotation {parameter.annotation!r} cannot be read: {error}"
        ) from error


def _known_names(function: Callable[..., Any]) -> dict[str, Any]:
    """Collect what annotations given as text may name.

    A function inside a function sees names of the outer one, which only its frame knows while it
    runs: the frames of the module that are under way are asked, and the innermost wins.
    """
    inner: Any = inspect.unwrap(function)
    module: dict[str, Any] = getattr(inner, "__globals__", {})
    scopes: list[dict[str, Any]] = []
    frame = inspect.currentframe() if "<locals>" in inner.__qualname__ else None
    while frame is not None:
        if frame.f_globals is module:
            scopes.append(frame.f_locals)
        frame = frame.f_back
    names = dict(module)
    for scope in reversed(scopes):
        names.update(scope)
    return names


def _described(annotation: Any, text: str | None) -> Any:
    """Give a type its description: the annotation's own, or else the docstring's."""
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            if isinstance(extra, msgspec.Meta) and extra.description is not None:
                return annotation
        text = next((extra for extra in annotation.__metadata__ if isinstance(extra, str)), text)
    return Annotated[annotation, msgspec.Meta(description=text)] if text else annotation


def _default(parameter: inspect.Parameter) -> Any:
    """Give the default of a field: the very object that the function has."""
    default: Any = parameter.default
    if default is inspect.Parameter.empty:
        return msgspec.NODEFAULT
    factory = EMPTY.get(default.__class__)
    if factory is not None and not default:
        return msgspec.field(default_factory=factory)
    if isinstance(default, msgspec.Struct) or not isinstance(default, Hashable):
        return msgspec.field(default_factory=lambda: default)
    return msgspec.field(default=default)
