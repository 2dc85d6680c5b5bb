"""Checks of the parameters and the input of a request, before anything is sent.

A wrong name and a wrong type raise `TypeError`, a wrong value raises `ValueError`. The checks are
made from the annotations of the typed dicts in ``params``, each on the first use of its key: a key,
a type or a word that these do not allow is refused, at every depth. Objects that servers extend
(tools, items, JSON schemas) may have any keys; only missing keys are refused there, and numbers
that JSON lacks.
"""

import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any, Final, TypeAlias, cast

import msgspec

from trio_responses._wire.base import Item, Part, UnknownItem
from trio_responses._wire.items import InputItem
from trio_responses._wire.params import (
    ConversationParams,
    HasToolDefinition,
    ResponseCreateParams,
)
from trio_responses._wire.tools import Tool, ToolDefinition

Check: TypeAlias = Callable[[Any], None]
"""Raises TypeError or ValueError for a wrong value of one field."""

DECIDED_BY_LIBRARY: Final = frozenset(
    {"type", "stream_id", "generate", "stream", "background_options"}
)
"""Fields of ``response.create`` that are no parameters."""

_NO_SUCH_PARAMETER: Final = {
    "timeout": "use timeouts=Timeouts(...) or trio.fail_after(seconds)",
    "timeouts": "timeouts=Timeouts(...) is an option of the connection and of each turn",
    "extra_headers": "use headers= of the connection",
    "extra_query": "put the query into the URL of the connection",
    "api_key": "use api_key= of the connection",
    "base_url": "use the URL of the connection",
    "http_client": "use dial= or proxy= of the connection",
    "stream": "use stream() for events, create() for the response alone",
    "background_options": "the library sets it",
    "stream_id": "use connection.lane(name) to reserve a lane",
    "generate": "use warm_up() to prepare a response without output",
    "type": "the library sets it",
    "extra": "use extra_body=",
    "messages": "use the first argument, input",
    "message": "use the first argument, input",
    "contents": "use the first argument, input",
    "max_tokens": "use max_output_tokens=",
    "max_completion_tokens": "use max_output_tokens=",
    "response_format": 'use text={"format": ...}, or parse() for a Python type',
    "text_format": "use parse(), stream() or run_stream()",
    "output_type": "use parse()",
    "format": 'use text={"format": ...}',
    "verbosity": 'use text={"verbosity": ...}',
    "system": "use instructions=",
    "system_prompt": "use instructions=",
    "system_instruction": "use instructions=",
    "developer": "use instructions=",
    "reasoning_effort": 'use reasoning={"effort": ...}',
    "effort": 'use reasoning={"effort": ...}',
    "thinking": 'use reasoning={"effort": ...}',
    "functions": "use tools=",
    "function_call": "use tool_choice=",
    "logprobs": 'use include=["message.output_text.logprobs"] and top_logprobs=',
    "conversation_id": "use conversation=",
    "thread_id": "use conversation=",
    "response_id": "use previous_response_id=",
    "stop": "the Responses API has no stop sequences",
    "n": "the Responses API returns one answer for each request",
    "seed": "the Responses API has no seed",
}
"""Names that other APIs and clients have, with what to use here."""

_NOT_OF_A_CONVERSATION: Final = {
    "previous_response_id": "a conversation continues its last response itself",
    "conversation": "a conversation of this library keeps its own history",
    "input": "pass the input to create(), stream(), run() or parse() of the conversation",
}


# --- Names --------------------------------------------------------------------------------------


def check_params(
    params: Mapping[str, Any],
    *,
    of: str,
    allowed: Any = ResponseCreateParams,
    options: Collection[str] = (),
) -> None:
    """Check the keyword arguments of a method.

    :param of: the name of the method, for messages.
    :param allowed: the typed dict with the parameters of the method.
    :param options: names of the method's own keyword arguments, for the closest match.
    :raises TypeError: for an unknown name and a value of a wrong type.
    :raises ValueError: for a word that a closed field does not have, a missing key of an object,
        and a number that JSON lacks.
    """
    names = allowed.__annotations__
    for name, value in params.items():
        if name not in names:
            raise TypeError(_describe_unknown(name, of, allowed, options))
        if value is not msgspec.UNSET:
            _check_of_key(allowed, name)(value)
    extra_body = params.get("extra_body")
    if extra_body:
        _check_extra_body(extra_body, of, allowed)


def _describe_unknown(name: str, of: str, allowed: Any, options: Collection[str]) -> str:
    problem = f"{of} has no parameter {name!r}"
    hint = None
    if allowed is not ResponseCreateParams:
        hint = _NOT_OF_A_CONVERSATION.get(name)
    hint = hint or _NO_SUCH_PARAMETER.get(name)
    if hint is not None:
        return f"{problem}: {hint}"
    names = [*allowed.__annotations__, *options]
    unknown = "; a field that this version does not know goes into extra_body={...}"
    return problem + (_closest(name, names) or unknown)


def _closest(name: str, names: Collection[str]) -> str:
    """Return a question for the name that is closest to another, or an empty text."""
    found = difflib.get_close_matches(name, names, n=1)
    return f"; did you mean {found[0]!r}?" if found else ""


def _check_extra_body(body: Mapping[str, Any], of: str, allowed: Any) -> None:
    for name in body:
        if name in DECIDED_BY_LIBRARY or name == "input":
            hint = _NO_SUCH_PARAMETER.get(name, "use the first argument")
            raise TypeError(f"extra_body of {of} cannot set {name!r}: {hint}")
        if allowed is not ResponseCreateParams and name in _NOT_OF_A_CONVERSATION:
            hint = _NOT_OF_A_CONVERSATION[name]
            raise TypeError(f"extra_body of {of} cannot set {name!r}: {hint}")


def merge_extra_body(params: Mapping[str, Any]) -> dict[str, Any]:
    """Return the fields of a request: the parameters, with ``extra_body`` merged into them.

    Objects are merged key by key, at every depth. Any other value of ``extra_body`` replaces the
    value of the parameter.
    """
    fields = dict(params)
    extra_body = fields.pop("extra_body", None)
    return merge_fields(fields, extra_body) if extra_body else fields


def merge_fields(fields: Mapping[str, Any], extra: Mapping[str, Any]) -> dict[str, Any]:
    """Return fields with others merged into them: objects key by key, at every depth."""
    merged = dict(fields)
    for name, value in extra.items():
        old = merged.get(name)
        if isinstance(old, Mapping) and isinstance(value, Mapping):
            merged[name] = merge_fields(
                cast("Mapping[str, Any]", old), cast("Mapping[str, Any]", value)
            )
        else:
            merged[name] = value
    return merged


# --- Values -------------------------------------------------------------------------------------


@functools.cache
def _check_of_key(typed_dict: Any, name: str, path: str = "") -> Check:
    """Return the check of a key of a typed dict, which is made on first use of the key.

    :param path: the place of the typed dict, in front of the name.
    """
    path += name
    if path == "tools" and typed_dict is ConversationParams:
        return _check_tools_of_conversation
    return _SPECIAL.get(path) or _check_of(_hint_of(typed_dict, name), path)


def _hint_of(typed_dict: Any, name: str) -> Any:
    """Return the annotation of a key of a typed dict, without ``Required``."""
    hint = typed_dict.__annotations__[name]
    return typing.get_args(hint)[0] if typing.get_origin(hint) is typing.Required else hint


def _check_of(hint: Any, path: str) -> Check:
    """Return the check of a value with an annotation."""
    if typing.is_typeddict(hint):
        return _check_of_object(hint, path)
    if hint in _TYPES:
        return functools.partial(_check_type, *_TYPES[hint], path)
    make = _GENERIC.get(typing.get_origin(hint))
    return _accept if make is None else make(typing.get_args(hint), path)


def _accept(value: Any) -> None:
    """Accept any value."""


_TYPES: Final[dict[Any, tuple[type | tuple[type, ...], str]]] = {
    str: (str, "text"),
    int: (int, "an integer"),
    float: ((int, float), "a number"),
    bool: (bool, "True or False"),
}


def _check_type(kinds: type | tuple[type, ...], wanted: str, path: str, value: Any) -> None:
    if not isinstance(value, kinds) or (value.__class__ is bool and kinds is not bool):
        raise TypeError(_describe_type(path, wanted, value))
    if value.__class__ is float and not math.isfinite(value):
        raise ValueError(f"{path} is {value}, which JSON cannot express")


def _describe_type(path: str, wanted: str, value: Any) -> str:
    what = "None" if value is None else type(value).__name__
    hint = ": leave it out instead" if value is None else ""
    return f"{path} must be {wanted}, not {what}{hint}"


def _check_word(words: tuple[str, ...], path: str, value: Any) -> None:
    if not isinstance(value, str):
        raise TypeError(_describe_type(path, _listed(words), value))
    if value not in words:
        raise ValueError(f"{path} must be {_listed(words)}, not {value!r}" + _closest(value, words))


def _listed(words: Sequence[str]) -> str:
    *others, last = map(repr, words)
    return f"{', '.join(others)} or {last}" if others else last


def _check_list(check: Check, path: str, value: Any) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        raise TypeError(_describe_type(path, "a list", value))
    for index, element in enumerate(cast("Sequence[object]", value)):
        try:
            check(element)
        except (TypeError, ValueError) as error:
            message = str(error).replace(f"{path}[]", f"{path}[{index}]", 1)
            raise type(error)(message) from None


def _check_mapping(check: Check | None, path: str, value: Any) -> None:
    """Check an object with any keys: its values, or only their numbers."""
    if not isinstance(value, Mapping):
        raise TypeError(_describe_type(path, "a mapping", value))
    if check is None:
        check_numbers(value, path)
        return
    for key, each in cast("Mapping[str, Any]", value).items():
        try:
            check(each)
        except TypeError as error:
            raise TypeError(str(error).replace("[...]", f"[{key!r}]", 1)) from None


def _check_of_list(members: Sequence[Any], path: str) -> Check:
    return functools.partial(_check_list, _check_of(members[0], f"{path}[]"), path)


def _check_of_mapping(members: Sequence[Any], path: str) -> Check:
    """Return the check of an object with any keys; text as values is checked."""
    check = _check_of(str, f"{path}[...]") if members[1] is str else None
    return functools.partial(_check_mapping, check, path)


def _check_of_words(members: Sequence[Any], path: str) -> Check:
    return functools.partial(_check_word, tuple(members), path)


def _check_of_object(typed_dict: Any, path: str) -> Check:
    keys = typed_dict.__annotations__
    required = sorted(cast("frozenset[str]", typed_dict.__required_keys__))
    field = path.partition(".")[0].removesuffix("[]")
    unknown = f"; a key that this version does not know goes into extra_body={{{field!r}: ...}}"

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            if path == "prompt":
                raise TypeError("prompt names a stored prompt; text for the model is the input")
            example = f"a mapping such as {{{next(iter(keys))!r}: ...}}"
            raise TypeError(_describe_type(path, example, value))
        for key, each in cast("Mapping[str, Any]", value).items():
            if key not in keys:
                problem = f"{path} has no key {key!r}"
                raise TypeError(problem + (_closest(str(key), keys) or unknown))
            if each is not msgspec.UNSET:
                _check_of_key(typed_dict, key, f"{path}.")(each)
        for key in required:
            if key not in value:
                raise ValueError(f"{path} needs the key {key!r}")

    return check


def _check_of_union(members: Sequence[Any], path: str) -> Check:
    """Return the check of a union: of one annotation and `None`, or of words and objects."""
    others = [member for member in members if member is not type(None)]
    objects = [member for member in others if typing.is_typeddict(member)]
    scalars = [member for member in others if not typing.is_typeddict(member)]
    check_scalar = _check_of(scalars[0], path) if scalars else None
    check_object = _check_of_variants(objects, path) if objects else check_scalar or _accept
    nullable = len(others) < len(members)

    def check(value: Any) -> None:
        if value is None and nullable:
            return
        if isinstance(value, Mapping) or check_scalar is None:
            check_object(value)
        else:
            check_scalar(value)

    return check


def _check_of_variants(objects: Sequence[Any], path: str) -> Check:
    """Return the check of an object whose ``type`` decides its keys."""
    if len(objects) == 1:
        return _check_of_object(objects[0], path)
    variants: dict[str, Check] = {}
    other: Check | None = None
    for each in objects:
        kind = _hint_of(each, "type")
        check_variant = _check_of_object(each, path)
        if kind is str:
            other = check_variant
        for word in typing.get_args(kind):
            variants[word] = check_variant

    def check(value: Any) -> None:
        if not isinstance(value, Mapping):
            raise TypeError(_describe_type(path, 'a mapping with a "type"', value))
        fields = cast("Mapping[str, Any]", value)
        kind = fields.get("type")
        variant = variants.get(kind) if isinstance(kind, str) else None
        if variant is not None:
            variant(value)
        elif kind is None:
            raise ValueError(f"{path} needs the key 'type'" + _closest_key("type", fields))
        elif other is None:
            _check_word(tuple(variants), f"{path}.type", kind)
        else:
            check_numbers(value, path)

    return check


_GENERIC: Final[dict[Any, Callable[[Sequence[Any], str], Check]]] = {
    typing.Union: _check_of_union,
    types.UnionType: _check_of_union,
    typing.Literal: _check_of_words,
    Sequence: _check_of_list,
    Mapping: _check_of_mapping,
}


def _closest_key(name: str, value: Mapping[Any, Any]) -> str:
    """Return a question about the key of an object that is closest to a missing one."""
    found = difflib.get_close_matches(name, [key for key in value if isinstance(key, str)], n=1)
    return f"; is {found[0]!r} meant?" if found else ""


# --- Numbers ------------------------------------------------------------------------------------


def check_numbers(value: Any, path: str) -> None:
    """Refuse NaN and infinities inside a JSON value: JSON cannot express them.

    :raises ValueError: for such a number; the message has its place.
    """
    try:
        place = _place_of_non_finite(value)
    except RecursionError:
        return  # encoding refuses the value with its own message
    if place is not None:
        raise ValueError(f"{path}{place} is not a finite number, which JSON cannot express")


def _place_of_non_finite(value: Any) -> str | None:
    if isinstance(value, float):
        return None if math.isfinite(value) else ""
    children: Any = ()
    if isinstance(value, Mapping):
        children = cast("Mapping[object, object]", value).items()
    elif isinstance(value, Sequence) and not isinstance(value, str | bytes | bytearray):
        children = enumerate(cast("Sequence[object]", value))
    elif isinstance(value, msgspec.Struct):
        for name in value.__struct_fields__:
            place = _place_of_non_finite(getattr(value, name))
            if place is not None:
                return f".{name}{place}"
    for key, child in children:
        if child.__class__ is not str:
            place = _place_of_non_finite(child)
            if place is not None:
                return f"[{key!r}]{place}"
    return None


# --- Tools and items ----------------------------------------------------------------------------


_RECORDS: Final[Mapping[str, Mapping[str, type[msgspec.Struct]]]] = {
    field: {str(record.__struct_config__.tag): record for record in typing.get_args(union)}
    for field, union in (("tools", Tool), ("input", InputItem))
}
"""The records of the objects in a field, by their types."""


def _required_keys(field: str, kind: str) -> Sequence[str]:
    """Return the keys without which an object of a type has no meaning; none for other types."""
    record = _RECORDS[field].get(kind)
    return () if record is None else _required_fields(record)


@functools.cache
def _required_fields(record: type[msgspec.Struct]) -> list[str]:
    fields = msgspec.structs.fields(record)
    return [field.encode_name for field in fields if field.required]


def _check_required(value: Mapping[Any, Any], required: Sequence[str], path: str) -> None:
    for key in required:
        if key not in value:
            raise ValueError(f"{path} needs the key {key!r}" + _closest_key(key, value))


def _check_tools(value: Any) -> None:
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        problem = _describe_type("tools", "a list of tools", value)
        if callable(value) and not _has_definition(value):
            problem += ": only the runs of a conversation accept a function that returns the tools"
        raise TypeError(problem)
    for index, tool in enumerate(cast("Sequence[object]", value)):
        if isinstance(tool, Mapping):
            _check_tool(cast("Mapping[str, Any]", tool), f"tools[{index}]")
        elif callable(tool) and not _has_definition(tool):
            name = getattr(tool, "__name__", type(tool).__name__)
            raise TypeError(
                f"tools[{index}] is a plain function: decorate {name} with @function_tool"
            )
        elif not isinstance(tool, ToolDefinition | msgspec.Raw) and not _has_definition(tool):
            raise TypeError(_describe_type(f"tools[{index}]", "a tool or a mapping", tool))


def _check_tools_of_conversation(value: Any) -> None:
    """Check the tools of a conversation: a list, or a function that a run calls for the list."""
    if not callable(value) or _has_definition(value):
        _check_tools(value)


def _has_definition(tool: HasToolDefinition | object) -> bool:
    return isinstance(getattr(tool, "definition", None), ToolDefinition)


def _check_tool(tool: Mapping[Any, Any], path: str) -> None:
    kind = tool.get("type")
    if kind is None:
        raise ValueError(f"{path} needs the key 'type'" + _closest_key("type", tool))
    if not isinstance(kind, str):
        raise TypeError(_describe_type(f"{path}['type']", "text", kind))
    if kind == "function" and isinstance(tool.get("function"), Mapping):
        raise ValueError(
            f"{path} has its name and parameters inside 'function', as Chat Completions has them:"
            " the Responses API has them beside 'type'"
        )
    _check_required(tool, _required_keys("tools", kind), path)
    check_numbers(tool, path)


_SPECIAL: Final[Mapping[str, Check]] = {"tools": _check_tools}


def check_input(given: Any) -> Any:
    """Check the input of a request, and return it as text or as a sequence of items.

    One item alone is accepted.

    :raises TypeError: for a value that is no input; the message has the index of the item.
    :raises ValueError: for an item without the keys of its type, and a number that JSON lacks.
    """
    if isinstance(given, str):
        return given
    if isinstance(given, Item | UnknownItem | msgspec.Raw | Mapping):
        given = [given]
    if not isinstance(given, Sequence) or isinstance(given, bytes | bytearray | memoryview):
        raise TypeError(_describe_input(given))
    items = cast("Sequence[object]", given)
    if set(map(type, items)) != {msgspec.Raw}:
        for index, item in enumerate(items):
            _check_item(item, f"input[{index}]")
    return items


def _describe_input(given: Any) -> str:
    wanted = _describe_type("input", "text, an item or a list of items", given)
    if hasattr(given, "output"):
        return f"{wanted}; for the output of a response, use input=[*response.output]"
    if isinstance(given, Part):
        return f'{wanted}; use Message(role="user", content=[...])'
    if not isinstance(given, Sequence) and hasattr(given, "__iter__"):
        return f"{wanted}; make a list of it"
    return wanted


def _check_item(item: Any, path: str) -> None:
    if isinstance(item, Item | UnknownItem | msgspec.Raw):
        return
    if not isinstance(item, Mapping):
        wanted = _describe_type(path, "an item or a mapping", item)
        if isinstance(item, str | Part):
            content = "..." if isinstance(item, str) else "[...]"
            wanted += f'; use Message(role="user", content={content})'
        raise TypeError(wanted)
    fields = cast("Mapping[str, Any]", item)
    kind = fields.get("type")
    if kind is None and "role" in fields:
        kind = "message"
    if kind is None and "id" not in fields:
        raise ValueError(
            f"{path} needs the key 'type' or 'role'"
            + (_closest_key("role", fields) or _closest_key("type", fields))
        )
    if kind == "message":
        _check_required(fields, ("role", "content"), path)
    elif isinstance(kind, str):
        _check_required(fields, _required_keys("input", kind), path)
    elif kind is not None:
        raise TypeError(_describe_type(f"{path}['type']", "text", kind))
    check_numbers(fields, path)
