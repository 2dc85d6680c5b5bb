"""Checks of the values in scripts: an invalid value raises where the test passes it.

Every check raises with the name of the value, the allowed values and the value itself. One check
needs the request that takes the script: whether it offers the functions that the script calls.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any, Final, Literal, cast, get_args, get_origin

from trio_responses._wire import qualified_name
from trio_responses.testing._frames import KNOWN_CODES
from trio_responses.testing._records import Request

if TYPE_CHECKING:
    from dataclasses import Field

    from trio_responses.testing._frames import Json

_TEXT_TYPES: Final = (str, bytes)
_CLOSE_CODES: Final = range(1000, 5000)
_NEVER_SENT: Final = (1005, 1006, 1015)
"""Codes that stand for the lack of a close frame and are never sent: RFC 6455, section 7.4.1."""
_TYPE_NAMES: Final[Mapping[type, str]] = {
    str: "a string",
    int: "an int",
    type(None): "None",
    Mapping: "a dict",
    Sequence: "a list",
}


def repr_without_defaults(self: Any) -> str:
    """Return the repr of a dataclass without the fields that have their default value."""
    shown = ", ".join(filter(None, (_shown_field(self, each) for each in fields(self))))
    return f"{type(self).__name__}({shown})"


def _shown_field(self: Any, each: "Field[Any]") -> str:
    value = getattr(self, each.name)
    default = each.default if each.default_factory is MISSING else each.default_factory()
    if default is not MISSING and value == default:
        return ""
    return f"{each.name}={value!r}" if each.kw_only else repr(value)


def check_type(name: str, value: object, *types: type) -> None:
    """Raise unless a value is an instance of one of the types.

    :raises TypeError: With the allowed types.
    """
    if not isinstance(value, types):
        allowed = " or ".join(_TYPE_NAMES.get(each, f"a {each.__name__}") for each in types)
        raise TypeError(f"{name} must be {allowed}, not {value!r}")


def check_types(name: str, values: object, *types: type) -> None:
    """Raise unless a value is a sequence, no string, of instances of the types.

    :raises TypeError: With the allowed types.
    """
    if isinstance(values, _TEXT_TYPES) or not isinstance(values, Sequence):
        raise TypeError(f"{name} must be a list, not {values!r}")
    for index, value in enumerate(cast("Sequence[object]", values)):
        check_type(f"{name}[{index}]", value, *types)


def check_choice(name: str, value: object, choices: Sequence[str]) -> None:
    """Raise unless a value is one of the allowed strings.

    :raises ValueError: With the allowed strings.
    """
    if value not in choices:
        allowed = " or ".join(repr(choice) for choice in choices)
        raise ValueError(f"{name} must be {allowed}, not {value!r}")


def check_literal_fields(script: Any) -> None:
    """Raise unless each field of a script with a `Literal` type has one of the allowed values.

    :raises ValueError: With the allowed values.
    """
    for each in fields(script):
        if get_origin(each.type) is Literal:
            check_choice(each.name, getattr(script, each.name), get_args(each.type))


def check_at_least(name: str, value: float | None, minimum: float) -> None:
    """Raise unless a value is None or a number that is not below the minimum.

    :raises TypeError: If the value is no number.
    :raises ValueError: With the minimum.
    """
    check_type(name, value, int, float, type(None))
    if value is not None and not value >= minimum:
        raise ValueError(f"{name} must be {minimum} or more, not {value!r}")


def check_connection_end(how: str | int) -> None:
    """Raise unless a value is a way to end a connection: ``reset``, ``fin`` or a close code.

    :raises ValueError: If ``how`` is an unknown string, or a number that no close frame carries.
    """
    if not isinstance(how, int):
        check_choice("how", how, ("reset", "fin"))
    elif how not in _CLOSE_CODES or how in _NEVER_SENT:
        hint = "; for an end without a close frame, pass how='reset' or how='fin'"
        raise ValueError(
            "a close code must be 1000 to 4999, except 1005, 1006 and 1015 (never sent), not"
            f" {how!r}{hint if how in _NEVER_SENT else ''}"
        )


def check_arguments(arguments: object) -> None:
    """Raise unless the arguments of a call are a mapping or text that starts as a JSON object.

    The rest of the text may be anything: the arguments of a model can be cut off or broken.

    :raises TypeError: If the arguments are neither a mapping nor text.
    :raises ValueError: If the text starts otherwise.
    """
    check_type("the arguments of a call", arguments, Mapping, str)
    if isinstance(arguments, str) and arguments and not arguments.lstrip().startswith("{"):
        raise ValueError(
            f"the arguments of a call must be a dict or a JSON object as text, not {arguments!r}"
        )


def check_code(code: object, *, message: str | None) -> None:
    """Raise unless an error code is known, None, or comes with a message of its own.

    :raises TypeError: If the code is no string.
    :raises ValueError: If the code is unknown and has no message; with the closest known code.
    """
    check_type("the code of an error", code, str, type(None))
    if code is None or message is not None or code in KNOWN_CODES:
        return
    close = get_close_matches(cast("str", code), KNOWN_CODES, 1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    raise ValueError(f"unknown error code {code!r}{hint}; to send it anyway, pass message=...")


def describe_unoffered_call(names: Iterable[str], request: Request) -> str | None:
    """Return an error message if the request does not offer one of the functions, or None.

    A request offers the functions in its ``tools``, namespaces included, and those that a tool
    search found. Every name passes if the request uses a stored prompt, whose tools are unknown.
    """
    if request.get("prompt") is not None:
        return None
    offered = list(dict.fromkeys(_functions_of(request)))
    for name in names:
        if name not in offered:
            return (
                f"the script calls the function {name!r}, but the request offers:"
                f" {', '.join(offered) or 'none'}; if this is intended, pass unoffered=True"
            )
    return None


def _functions_of(request: Request) -> Iterator[str]:
    yield from _functions_in(request.tools)
    for item in request.history:
        if item.get("type") == "tool_search_output":
            yield from _functions_in(item.get("tools"))


def _functions_in(tools: Any, namespace: str | None = None) -> Iterator[str]:
    if not isinstance(tools, list):
        return
    for tool in cast("Any", tools):
        if isinstance(tool, dict):
            fields_of_tool = cast("Json", tool)
            name = str(fields_of_tool.get("name"))
            if fields_of_tool.get("type") == "function":
                yield qualified_name(name, namespace)
            yield from _functions_in(fields_of_tool.get("tools"), name)
