"""What a script must look like, and whether the request that takes it offers its calls."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from difflib import get_close_matches
from typing import Any, Final, Literal, cast, get_args, get_origin

from trio_responses.testing._frames import KNOWN_CODES, Json
from trio_responses.testing._records import Request
from trio_responses.testing._scripts import Call

_TEXTS: Final = (str, bytes)
_CLOSE_CODES: Final = range(1000, 5000)
_NEVER_SENT: Final = (1005, 1006, 1015)
"""What an end is told as that had no code: RFC 6455, section 7.4.1."""


def as_ordered(self: Any) -> str:
    """Show an order as a test writes it, without what is left at its default: a ``__repr__``."""
    shown = ", ".join(filter(None, (_shown(self, each) for each in fields(self))))
    return f"{type(self).__name__}({shown})"


def check_type(what: str, value: object, *types: type) -> None:
    """See that a value is of one of the types.

    :raises TypeError: naming what it should be.
    """
    if not isinstance(value, types):
        words = {
            str: "a string",
            int: "an int",
            type(None): "None",
            Mapping: "a dict",
            Sequence: "a list",
        }
        wanted = " or ".join(words.get(each, f"a {each.__name__}") for each in types)
        raise TypeError(f"{what} is {wanted}, not {value!r}")


def check_types(what: str, values: object, *types: type) -> None:
    """See that each value of a sequence is of one of the types; a lone string is no sequence.

    :raises TypeError: naming what it should be.
    """
    if isinstance(values, _TEXTS) or not isinstance(values, Sequence):
        raise TypeError(f"{what} are a list, not {values!r}")
    for index, value in enumerate(cast("Sequence[object]", values)):
        check_type(f"{what}[{index}]", value, *types)


def check_word(what: str, value: object, words: Sequence[str]) -> None:
    """See that a value is one of some words.

    :raises ValueError: naming them.
    """
    if value not in words:
        known = " or ".join(repr(word) for word in words)
        raise ValueError(f"{what} is {known}, not {value!r}")


def check_at_least(what: str, value: float | None, least: float) -> None:
    """See that a number, where there is one, is not too small.

    :raises TypeError: for what is no number.
    :raises ValueError: naming the smallest one.
    """
    check_type(what, value, int, float, type(None))
    if value is not None and not value >= least:
        raise ValueError(f"{what} is {least} or more, not {value!r}")


def check_how(how: str | int) -> None:
    """See that a connection can end in a way.

    :raises ValueError: for another word, and for a number that no close frame carries.
    """
    if not isinstance(how, int):
        check_word("how", how, ("reset", "fin"))
    elif how not in _CLOSE_CODES or how in _NEVER_SENT:
        hint = ": how='reset' or how='fin' is an end without one" if how in _NEVER_SENT else ""
        raise ValueError(f"no close frame carries the code {how!r}{hint}")


def check_words(order: Any) -> None:
    """See that each field of an order that may hold certain words only holds one of them.

    :raises ValueError: naming them.
    """
    for each in fields(order):
        if get_origin(each.type) is Literal:
            check_word(each.name, getattr(order, each.name), get_args(each.type))


def check_arguments(arguments: object) -> None:
    """See that the arguments of a call are an object: a mapping, or text that begins as one.

    Text may end as it likes: a model's arguments may be cut off, or broken otherwise.

    :raises TypeError: for what is neither.
    :raises ValueError: for text that begins as something else.
    """
    check_type("the arguments of a call", arguments, Mapping, str)
    if isinstance(arguments, str) and arguments and not arguments.lstrip().startswith("{"):
        raise ValueError(f"the arguments of a call are a JSON object, not {arguments!r}")


def check_code(code: object, *, message: str | None) -> None:
    """See that a code of an error is a known one, or comes with a message of its own.

    :raises TypeError: for what is no text.
    :raises ValueError: for an unknown code without a message.
    """
    check_type("the code of an error", code, str, type(None))
    if code is None or message is not None or code in KNOWN_CODES:
        return
    close = get_close_matches(cast("str", code), KNOWN_CODES, 1)
    hint = f" ({close[0]!r}?)" if close else ""
    raise ValueError(f"no code {code!r} is known{hint}: give it a message= if it is meant")


def _shown(order: Any, each: "Field[Any]") -> str:
    value = getattr(order, each.name)
    default = each.default if each.default_factory is MISSING else each.default_factory()
    if default is not MISSING and value == default:
        return ""
    return f"{each.name}={value!r}" if each.kw_only else repr(value)


def unoffered(calls: Iterable[Call], request: Request) -> str | None:
    """Say which of the ordered calls is one that no model would make, or None.

    Functions are offered in ``tools``, by themselves and in namespaces, or found by a search
    for tools. Where a stored prompt is named, nobody here knows what it brings along.
    """
    if request.get("prompt") is not None:
        return None
    offered = list(dict.fromkeys(_functions_of(request)))
    for call in calls:
        if not call.unoffered and call.name not in offered:
            return (
                f"the order calls {call.name!r}, and the request offers:"
                f" {', '.join(offered) or 'none'} (unoffered=True, if that is meant)"
            )
    return None


def _functions_of(request: Request) -> Iterator[str]:
    yield from _functions_in(request.tools)
    for item in request.history:
        if item.get("type") == "tool_search_output":
            yield from _functions_in(item.get("tools"))


def _functions_in(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list):
        return
    for tool in cast("Any", tools):
        if isinstance(tool, dict):
            fields = cast("Json", tool)
            if fields.get("type") == "function":
                yield str(fields.get("name"))
            yield from _functions_in(fields.get("tools"))
