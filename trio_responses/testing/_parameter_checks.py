"""Checks of the values of parameters: ranges, words, names, and the schemas of strict mode.

The types of parameters are checked in ``_request_checks``, input items in ``_item_checks``.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, TypeAlias, cast, get_args

from trio_responses._wire import Tool
from trio_responses._wire.params import WORDS
from trio_responses.testing._frames import Json, RequestRefusal
from trio_responses.testing._refusals import refuse, refuse_type, refuse_value

_NAME_PATTERN: Final = "^[a-zA-Z0-9_-]+$"
"""The pattern of the names of functions and schemas, as the error message quotes it."""

_RANGES: Final[Mapping[str, tuple[float, float]]] = {
    "temperature": (0, 2),
    "top_p": (0, 1),
    "top_logprobs": (0, 20),
    "max_output_tokens": (16, float("inf")),
    "max_tool_calls": (1, float("inf")),
}
_DECIMALS: Final = ("temperature", "top_p")
_TOOL_TYPES: Final = tuple(str(tool.__struct_config__.tag) for tool in get_args(Tool))
_GROWING: Final = ("reasoning.effort", "include")
"""Parameters to which new models and servers add words; OpenAI refuses any other word."""
_HIDES_TOOLS: Final = ("previous_response_id", "prompt", "conversation")
"""Parameters with which a request may have tools that it does not list."""
_NAMES: Final = ("name", "server_label")
"""The fields that name a tool, where its type does not."""
_MAX_NAME: Final = 64
_MAX_METADATA: Final = 16
_MAX_KEY: Final = 64
_MAX_VALUE: Final = 512
_MAX_IDENTIFIER: Final = 128

_Context: TypeAlias = tuple[str, ...]


def check_parameters(body: Json) -> RequestRefusal | None:
    """Return a refusal of the first parameter with an invalid value, or None.

    Each check is left at its first refusal.

    :param body: A request whose parameters have the right types.
    """
    checks = (
        _check_ranges,
        _check_words,
        _check_metadata,
        _check_tools,
        _check_tool_choice,
        _check_format,
    )
    return next((refusal for check in checks for refusal in check(body)), None)


def _check_ranges(body: Json) -> Iterator[RequestRefusal]:
    for name, (low, high) in _RANGES.items():
        value = body.get(name)
        if value is None:
            continue
        kind = "decimal" if name in _DECIMALS else "integer"
        if value < low:
            yield refuse("minimum", name, kind=kind, minimum=low, value=value)
        elif value > high:
            yield refuse("maximum", name, kind=kind, maximum=high, value=value)
    identifier = body.get("safety_identifier")
    if isinstance(identifier, str) and len(identifier) > _MAX_IDENTIFIER:
        length = len(identifier)
        yield refuse("too_long", "safety_identifier", maximum=_MAX_IDENTIFIER, length=length)


def _check_words(body: Json) -> Iterator[RequestRefusal]:
    for path, words in WORDS.items():
        if words.kind != "closed" and path not in _GROWING:
            continue
        value: Any = body
        for name in path.split("."):
            value = cast("Json", value).get(name) if isinstance(value, dict) else None
        places: list[tuple[str, Any]] = [(path, value)]
        if isinstance(value, list):
            elements = enumerate(cast("Any", value))
            places = [(f"{path}[{index}]", each) for index, each in elements]
        for place, word in places:
            if isinstance(word, str) and word not in words.words:
                yield refuse_value(place, word, words.words)


def _check_metadata(body: Json) -> Iterator[RequestRefusal]:
    metadata: Json = body.get("metadata") or {}
    if len(metadata) > _MAX_METADATA:
        yield refuse("too_many", "metadata", maximum=_MAX_METADATA, length=len(metadata))
    for key, value in metadata.items():
        at = f"metadata.{key}"
        if not isinstance(value, str):
            yield refuse_type(at, "a string", value)
        elif len(value) > _MAX_VALUE:
            yield refuse("too_long", at, maximum=_MAX_VALUE, length=len(value))
        if len(key) > _MAX_KEY:
            yield refuse("too_long", "metadata", maximum=_MAX_KEY, length=len(key))


def _check_name(name: str, at: str) -> Iterator[RequestRefusal]:
    """Yield a refusal of an invalid name of a function or a schema."""
    if not re.search(_NAME_PATTERN, name):
        yield refuse("pattern", at, pattern=_NAME_PATTERN)
    elif len(name) > _MAX_NAME:
        yield refuse("too_long", at, maximum=_MAX_NAME, length=len(name))


def _check_tools(body: Json) -> Iterator[RequestRefusal]:
    for index, tool in enumerate(cast("list[Json]", body.get("tools") or [])):
        at = f"tools[{index}]"
        if tool["type"] not in _TOOL_TYPES:
            yield refuse_value(f"{at}.type", tool["type"], _TOOL_TYPES)
        if tool["type"] != "function":
            continue
        yield from _check_name(tool["name"], f"{at}.name")
        if tool.get("strict") is True and isinstance(tool.get("parameters"), dict):
            problem = _find_not_strict(tool["parameters"])
            if problem is not None:
                what = f"function '{tool['name']}'"
                yield refuse("function_schema", f"{at}.parameters", what=what, problem=problem)


def _check_tool_choice(body: Json) -> Iterator[RequestRefusal]:
    """Yield a refusal of a choice of a tool that the request does not have."""
    choice: Any = body.get("tool_choice")
    if not isinstance(choice, dict) or _may_have_other_tools(body):
        return
    fields = cast("Json", choice)
    chosen = _dicts(fields.get("tools")) if fields.get("type") == "allowed_tools" else [fields]
    tools = _dicts(body.get("tools"))
    offered = [*tools, *(inner for tool in tools for inner in _dicts(tool.get("tools")))]
    for each in chosen:
        if not any(_is_chosen(each, tool) for tool in offered):
            name = next((each[key] for key in _NAMES if key in each), each.get("type"))
            yield refuse("no_such_tool", "tool_choice", name=name)


def _may_have_other_tools(body: Json) -> bool:
    """Whether the model may have tools that the request itself does not list."""
    return (
        any(body.get(name) is not None for name in _HIDES_TOOLS)
        or any("tools" in item for item in _dicts(body.get("input")))
        or any(tool.get("type") == "tool_search" for tool in _dicts(body.get("tools")))
    )


def _dicts(value: Any) -> list[Json]:
    """Return the objects in a list; none for any other value."""
    elements: list[Any] = cast("Any", value) if isinstance(value, list) else []
    return [element for element in elements if isinstance(element, dict)]


def _is_chosen(choice: Json, tool: Json) -> bool:
    """Whether a choice means a tool: by its type, of which some have versions, and its name."""
    kind, other = str(choice.get("type")), str(tool.get("type"))
    if not (kind.startswith(other) or other.startswith(kind)):
        return False
    return all(choice[key] == tool.get(key) for key in _NAMES if key in choice)


def _check_format(body: Json) -> Iterator[RequestRefusal]:
    text: Json = body.get("text") or {}
    form: Json = text["format"] if isinstance(text.get("format"), dict) else {}
    if form.get("type") != "json_schema":
        return
    for name, kind, expected in (("name", str, "a string"), ("schema", dict, "an object")):
        if name not in form:
            yield refuse("missing", f"text.format.{name}")
        elif not isinstance(form[name], kind):
            yield refuse_type(f"text.format.{name}", expected, form[name])
    yield from _check_name(form["name"], "text.format.name")
    problem = _find_not_strict(form["schema"]) if form.get("strict") is True else None
    if problem is not None:
        what = f"response_format '{form['name']}'"
        yield refuse("format_schema", "text.format.schema", what=what, problem=problem)


def _find_not_strict(root: Json) -> str | None:
    """Return why strict mode refuses a schema, or None."""
    if root.get("type") != "object":
        kind = root.get("type")
        return (
            "schema must be a JSON Schema of 'type: \"object\"', got"
            f" 'type: \"{'None' if kind is None else kind}\"'."
        )
    waiting: list[tuple[_Context, Any]] = [((), root)]
    while waiting:
        context, value = waiting.pop()
        if isinstance(value, list):
            elements = enumerate(cast("Any", value))
            waiting += [((*context, str(index)), one) for index, one in elements]
        if not isinstance(value, dict):
            continue
        schema = cast("Json", value)
        problem = _find_open(schema)
        if problem is not None:
            return f"In context={context}, {problem}"
        for key in ("properties", "$defs", "definitions"):
            inner: Json = schema.get(key) or {}
            waiting += [((*context, key, name), one) for name, one in inner.items()]
        waiting += [
            ((*context, key), schema[key]) for key in ("items", "anyOf", "allOf") if key in schema
        ]
    return None


def _find_open(schema: Json) -> str | None:
    """Return why an object of a schema is open, or None."""
    properties: Json = schema.get("properties") or {}
    if schema.get("type") != "object" and not properties:
        return None
    if schema.get("additionalProperties") is not False:
        return "'additionalProperties' is required to be supplied and to be false."
    required: Any = schema.get("required") or []
    missing = next((name for name in properties if name not in required), None)
    if missing is None:
        return None
    return (
        "'required' is required to be supplied and to be an array including every key in"
        f" properties. Missing '{missing}'."
    )
