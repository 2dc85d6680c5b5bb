"""Turn the parameters of a function into a Struct, from which msgspec builds schema and decoder.

The fields of the Struct are numbered (``p0``, ``p1``), and the names of the parameters occur only
in JSON. So a parameter may have any name, such as ``self`` or ``__init__``.
"""

from __future__ import annotations

import inspect
from collections.abc import Hashable
from types import SimpleNamespace
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple, cast, get_origin, get_type_hints

import msgspec

from trio_responses._errors import ConfigurationError
from trio_responses._json_types.families import (
    field_annotation,
    is_field_of_pydantic,
    is_of_pydantic,
)
from trio_responses._tools.context import is_context

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

__all__ = ["ParameterTypes", "parameter_types", "signature_of"]

FACTORIES: dict[type, Callable[[], Any]] = {list: list, dict: dict, set: set}
VARIADIC = (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


def signature_of(function: Any) -> inspect.Signature:
    """Return the signature of a function that can become a tool.

    :raises ConfigurationError: if the object is no function, yields, or has no signature.
    """
    if not inspect.isroutine(function):
        raise ConfigurationError(f"a tool must be made from a function, not from {function!r}")
    name = function.__name__
    if inspect.isgeneratorfunction(function) or inspect.isasyncgenfunction(function):
        raise ConfigurationError(f"{name} is a generator: a tool must return its result, not yield")
    try:
        signature = inspect.signature(function)
    except ValueError as error:
        raise ConfigurationError(
            f"{name} has no signature: wrap it in a function with annotated parameters"
        ) from error
    return signature


class ParameterTypes(NamedTuple):
    """The parameters of a function, apart by who gives their values."""

    arguments: type[msgspec.Struct]
    """A Struct with one field for each parameter that the model sees, in order."""
    context: str | None
    """The name of the parameter for the context of a call; `None` if the function has none."""


def parameter_types(
    function: Callable[..., Any], signature: inspect.Signature, descriptions: Mapping[str, str]
) -> ParameterTypes:
    """Return the types of the parameters of a function.

    :param descriptions: the descriptions of parameters from the docstring.
    :raises ConfigurationError: if a parameter is variadic, or its annotation is missing or cannot
        be evaluated, and for two parameters for the context.
    """
    fields: list[tuple[str, Any, Any]] = []
    names: dict[str, str] = {}
    contexts: list[str] = []
    visible = _visible_names(function)
    for number, parameter in enumerate(signature.parameters.values()):
        annotation = _annotation(function, parameter, visible)
        if is_context(annotation):
            contexts.append(parameter.name)
            continue
        place = f"parameters.{parameter.name}"
        if is_field_of_pydantic(parameter.default):  # def f(city: str = pydantic.Field(...))
            annotation = Annotated[annotation, parameter.default]
        described = _describe(annotation, descriptions.get(parameter.name))
        names[f"p{number}"] = parameter.name
        fields.append((f"p{number}", field_annotation(described, place), _default(parameter)))
    if len(contexts) > 1:
        raise ConfigurationError(
            f"{function.__name__} has two parameters for the context of a call,"
            f" {contexts[0]!r} and {contexts[1]!r}: remove one"
        )
    arguments = msgspec.defstruct(
        "Arguments", fields, rename=names, kw_only=True, forbid_unknown_fields=True
    )
    return ParameterTypes(arguments, contexts[0] if contexts else None)


def _annotation(
    function: Callable[..., Any], parameter: inspect.Parameter, visible: dict[str, Any]
) -> Any:
    place = f"the parameter {parameter.name!r} of {function.__name__}"
    if parameter.kind in VARIADIC:
        raise ConfigurationError(
            f"{place} accepts any number of arguments, which a JSON schema cannot describe: use a"
            " parameter that is a list or a dict"
        )
    if parameter.annotation is inspect.Parameter.empty:
        raise ConfigurationError(f"{place} has no annotation: add its type")
    holder = SimpleNamespace(__annotations__={"parameter": parameter.annotation})
    try:
        return get_type_hints(cast("Any", holder), {}, visible, include_extras=True)["parameter"]
    except (NameError, TypeError, AttributeError, SyntaxError) as error:
        raise ConfigurationError(
            f"{place}: the annotation {parameter.annotation!r} cannot be evaluated: {error}; define"
            " or import its names where the function is defined"
        ) from error


def _visible_names(function: Callable[..., Any]) -> dict[str, Any]:
    """Return the names that the annotations of a function may refer to.

    A nested function also sees the local names of the functions around, which exist only in their
    frames while they run. So the running frames of the same module are read; the innermost frame
    has priority.
    """
    unwrapped: Any = inspect.unwrap(function)
    module: dict[str, Any] = getattr(unwrapped, "__globals__", {})
    scopes: list[dict[str, Any]] = []
    frame = inspect.currentframe() if "<locals>" in unwrapped.__qualname__ else None
    while frame is not None:
        if frame.f_globals is module:
            scopes.append(frame.f_locals)
        frame = frame.f_back
    names = dict(module)
    for scope in reversed(scopes):
        names.update(scope)
    return names


def _describe(annotation: Any, text: str | None) -> Any:
    """Return an annotation with a description: its own one, otherwise that of the docstring."""
    if get_origin(annotation) is Annotated:
        for extra in annotation.__metadata__:
            own = isinstance(extra, msgspec.Meta) or is_of_pydantic(extra)
            if own and getattr(extra, "description", None) is not None:
                return annotation
        text = next((extra for extra in annotation.__metadata__ if isinstance(extra, str)), text)
    return Annotated[annotation, msgspec.Meta(description=text)] if text else annotation


def _default(parameter: inspect.Parameter) -> Any:
    """Return the default of a field: the same object that the function has as its default."""
    default: Any = parameter.default
    if default is inspect.Parameter.empty:
        return msgspec.NODEFAULT
    if is_field_of_pydantic(default):
        return _default_of_pydantic(default)
    factory = FACTORIES.get(default.__class__)
    if factory is not None and not default:
        return msgspec.field(default_factory=factory)
    if isinstance(default, msgspec.Struct) or not isinstance(default, Hashable):
        return msgspec.field(default_factory=lambda: default)
    return msgspec.field(default=default)


def _default_of_pydantic(field: Any) -> Any:
    """Return the default of a field for a default that is a ``pydantic.Field``."""
    if field.is_required():
        return msgspec.NODEFAULT
    return msgspec.field(default_factory=lambda: field.get_default(call_default_factory=True))
