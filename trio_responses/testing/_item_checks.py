"""Checks of the form of input items: fields, types, allowed values and lengths.

`ITEMS` has the fields of each type of item as the API takes them. They differ from the fields of
output items: ``status`` of a reasoning item and ``created_by`` are output only.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeAlias, cast

from trio_responses.testing._frames import Json, RequestRefusal
from trio_responses.testing._refusals import refuse, refuse_type, refuse_value

MAX_STRING: Final = 10_485_760
"""The number of characters in the longest string of a request."""

_MAX_ID: Final = 64
_LONGER_STRINGS: Final = ("image_url", "file_data")
"""Strings with a higher limit than `MAX_STRING`: no frame is large enough to reach it."""
_NEVER_EMPTY: Final = ("call_id", "name")
_URL: Final = re.compile(r"https?://[^\s/]+|data:(?P<type>[^;,]*)(;[^;,]+)*;base64,")
_SOURCES: Final[Mapping[str, tuple[str, ...]]] = {
    "input_image": ("image_url", "file_id"),
    "input_file": ("file_id", "file_data", "file_url"),
}
"""The fields of which a content part needs one."""
_ID_PREFIXES: Final[Mapping[str, str]] = {
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "reasoning": "rs",
}
_ASSISTANT_MESSAGE_PREFIX: Final = "msg"


@dataclass(frozen=True, slots=True)
class Value:
    """The allowed values of one field."""

    expected: str
    """The types in words, as an error message names them."""
    types: tuple[type, ...]
    choices: tuple[str, ...] = ()
    """The supported strings; empty allows every string."""
    parts: "Mapping[str, Fields] | None" = None
    """The fields of the objects in an array, by their ``type``; None does not check them."""


@dataclass(frozen=True, slots=True)
class Fields:
    """The fields of one kind of object, besides ``type``."""

    required: Mapping[str, Value]
    optional: Mapping[str, Value] = field(default_factory=dict[str, Value])
    """Fields that may be missing or null."""


def _one_of(*choices: str) -> Value:
    return Value("a string", (str,), choices)


_ANY: Final = Value("a value", (object,))
_TEXT: Final = Value("a string", (str,))
_FLAG: Final = Value("a boolean", (bool,))
_INTEGER: Final = Value("an integer", (int,))
_OBJECT: Final = Value("an object", (dict,))
_ARRAY: Final = Value("an array", (list,))
_STATUS: Final = _one_of("in_progress", "completed", "incomplete")
_TOOL_SIDE: Final = _one_of("server", "client")
_ID: Final[Mapping[str, Value]] = {"id": _TEXT}
_ID_AND_STATUS: Final[Mapping[str, Value]] = {"id": _TEXT, "status": _STATUS}

_BREAKPOINT: Final[Mapping[str, Value]] = {"prompt_cache_breakpoint": _OBJECT}
_INPUT_PARTS: Final[Mapping[str, Fields]] = {
    "input_text": Fields({"text": _TEXT}, _BREAKPOINT),
    "input_image": Fields(
        {},
        {
            "detail": _one_of("low", "high", "auto", "original"),
            "file_id": _TEXT,
            "image_url": _TEXT,
            **_BREAKPOINT,
        },
    ),
    "input_file": Fields(
        {},
        {
            "detail": _one_of("auto", "low", "high"),
            "file_data": _TEXT,
            "file_id": _TEXT,
            "file_url": _TEXT,
            "filename": _TEXT,
            **_BREAKPOINT,
        },
    ),
}
_OUTPUT_PARTS: Final[Mapping[str, Fields]] = {
    "output_text": Fields({"text": _TEXT}, {"annotations": _ARRAY, "logprobs": _ARRAY}),
    "refusal": Fields({"refusal": _TEXT}),
}


def _content(parts: Mapping[str, Fields]) -> Value:
    return Value("one of an array of objects or string", (str, list), parts=parts)


_TOOL_OUTPUT: Final = _content(_INPUT_PARTS)
_ROLES: Final = ("user", "assistant", "system", "developer")
_MESSAGE_OPTIONS: Final[Mapping[str, Value]] = {
    **_ID_AND_STATUS,
    "phase": _one_of("commentary", "final_answer"),
}
_MESSAGE: Final = Fields(
    {"role": _one_of(*_ROLES), "content": _content(_INPUT_PARTS)}, _MESSAGE_OPTIONS
)
_ASSISTANT_MESSAGE: Final = Fields(
    {"role": _one_of(*_ROLES), "content": _content(_OUTPUT_PARTS)}, _MESSAGE_OPTIONS
)

ITEMS: Final[Mapping[str, Fields]] = {
    "message": _MESSAGE,
    "function_call": Fields(
        {"arguments": _TEXT, "call_id": _TEXT, "name": _TEXT},
        {**_ID_AND_STATUS, "async": _FLAG, "caller": _OBJECT, "namespace": _TEXT},
    ),
    "function_call_output": Fields(
        {"call_id": _TEXT, "output": _TOOL_OUTPUT},
        {**_ID_AND_STATUS, "caller": _OBJECT, "name": _TEXT, "namespace": _TEXT},
    ),
    "custom_tool_call": Fields(
        {"call_id": _TEXT, "input": _TEXT, "name": _TEXT},
        {**_ID_AND_STATUS, "async": _FLAG, "caller": _OBJECT, "namespace": _TEXT},
    ),
    "custom_tool_call_output": Fields(
        {"call_id": _TEXT, "output": _TOOL_OUTPUT}, {**_ID_AND_STATUS, "caller": _OBJECT}
    ),
    "computer_call": Fields(
        {"id": _TEXT, "call_id": _TEXT, "pending_safety_checks": _ARRAY, "status": _STATUS},
        {"action": _OBJECT, "actions": _ARRAY},
    ),
    "computer_call_output": Fields(
        {"call_id": _TEXT, "output": _OBJECT},
        {**_ID_AND_STATUS, "acknowledged_safety_checks": _ARRAY},
    ),
    "shell_call": Fields(
        {"action": _OBJECT, "call_id": _TEXT},
        {**_ID_AND_STATUS, "caller": _OBJECT, "environment": _OBJECT},
    ),
    "shell_call_output": Fields(
        {"call_id": _TEXT, "output": _ARRAY},
        {**_ID_AND_STATUS, "caller": _OBJECT, "max_output_length": _INTEGER},
    ),
    "local_shell_call": Fields(
        {"id": _TEXT, "action": _OBJECT, "call_id": _TEXT, "status": _STATUS}
    ),
    "local_shell_call_output": Fields({"id": _TEXT, "output": _TEXT}, {"status": _STATUS}),
    "apply_patch_call": Fields(
        {
            "call_id": _TEXT,
            "operation": _OBJECT,
            "status": _one_of("in_progress", "completed"),
        },
        {**_ID, "caller": _OBJECT},
    ),
    "apply_patch_call_output": Fields(
        {"call_id": _TEXT, "status": _one_of("completed", "failed")},
        {**_ID, "caller": _OBJECT, "output": _TEXT},
    ),
    "tool_search_call": Fields(
        {"arguments": _ANY}, {**_ID_AND_STATUS, "call_id": _TEXT, "execution": _TOOL_SIDE}
    ),
    "tool_search_output": Fields(
        {"tools": _ARRAY}, {**_ID_AND_STATUS, "call_id": _TEXT, "execution": _TOOL_SIDE}
    ),
    "reasoning": Fields(
        {"summary": _ARRAY}, {**_ID, "content": _ARRAY, "encrypted_content": _TEXT}
    ),
    "compaction": Fields({"encrypted_content": _TEXT}, _ID),
    "compaction_trigger": Fields({}, _ID),
    "configuration_update": Fields({}, {**_ID, "reasoning": _OBJECT, "text": _OBJECT}),
    "additional_tools": Fields({"role": _one_of("developer"), "tools": _ARRAY}, _ID),
    "item_reference": Fields({"id": _TEXT}),
    "file_search_call": Fields(
        {
            "id": _TEXT,
            "queries": _ARRAY,
            "status": _one_of("in_progress", "searching", "completed", "incomplete", "failed"),
        },
        {"results": _ARRAY},
    ),
    "web_search_call": Fields(
        {
            "id": _TEXT,
            "action": _OBJECT,
            "status": _one_of("in_progress", "searching", "completed", "failed", "incomplete"),
        }
    ),
    "image_generation_call": Fields(
        {
            "id": _TEXT,
            "status": _one_of("in_progress", "completed", "generating", "failed"),
        },
        {
            "result": _TEXT,
            "action": _one_of("generate", "edit", "auto"),
            "background": _one_of("transparent", "opaque", "auto"),
            "error": _OBJECT,
            "output_format": _one_of("png", "webp", "jpeg", "gif", "svg"),
            "quality": _one_of("low", "medium", "high", "xhigh", "max", "auto"),
            "revised_prompt": _TEXT,
            "size": _TEXT,
            "svg_usage": _OBJECT,
        },
    ),
    "code_interpreter_call": Fields(
        {
            "id": _TEXT,
            "container_id": _TEXT,
            "status": _one_of("in_progress", "completed", "incomplete", "interpreting", "failed"),
        },
        {"code": _TEXT, "outputs": _ARRAY},
    ),
    "mcp_list_tools": Fields(
        {"id": _TEXT, "server_label": _TEXT, "tools": _ARRAY}, {"error": _TEXT}
    ),
    "mcp_approval_request": Fields(
        {"id": _TEXT, "arguments": _TEXT, "name": _TEXT, "server_label": _TEXT}
    ),
    "mcp_approval_response": Fields(
        {"approval_request_id": _TEXT, "approve": _FLAG}, {**_ID, "reason": _TEXT}
    ),
    "mcp_call": Fields(
        {"id": _TEXT, "arguments": _TEXT, "name": _TEXT, "server_label": _TEXT},
        {
            "approval_request_id": _TEXT,
            "error": _OBJECT,
            "output": _TEXT,
            "status": _one_of("in_progress", "completed", "incomplete", "calling", "failed"),
        },
    ),
    "program": Fields({"id": _TEXT, "call_id": _TEXT, "code": _TEXT, "fingerprint": _TEXT}),
    "program_output": Fields(
        {
            "id": _TEXT,
            "call_id": _TEXT,
            "result": _TEXT,
            "status": _one_of("completed", "incomplete"),
        }
    ),
    # in the beta API
    "agent_message": Fields(
        {"id": _TEXT, "author": _TEXT, "content": _ARRAY, "recipient": _TEXT}, {"agent": _OBJECT}
    ),
    "multi_agent_call": Fields(
        {"id": _TEXT, "action": _TEXT, "arguments": _TEXT, "call_id": _TEXT}, {"agent": _OBJECT}
    ),
    "multi_agent_call_output": Fields(
        {"id": _TEXT, "action": _TEXT, "call_id": _TEXT, "output": _ARRAY}, {"agent": _OBJECT}
    ),
}
"""The fields of each type of input item. A message by the assistant has other content parts."""

_OUTPUT_ONLY: Final[Mapping[str, str]] = {"reasoning": "status"}
_OUTPUT_ONLY_EVERYWHERE: Final = "created_by"

SentNames: TypeAlias = dict[str, set[str]]
"""By the type of an object: fields of output items that scripts have sent and that are not known
from the API. As the API does, the server accepts what it may send itself."""


def learn_names(item: Any, names: SentNames) -> None:
    """Add the types and fields of an output item and of the objects in it to ``names``."""
    if isinstance(item, dict):
        fields = cast("Json", item)
        kind = str(fields.get("type", "message" if "role" in fields else ""))
        output_only = {_OUTPUT_ONLY_EVERYWHERE, _OUTPUT_ONLY.get(kind)}
        names.setdefault(kind, set()).update(fields.keys() - output_only)
        for value in fields.values():
            learn_names(value, names)
    elif isinstance(item, list):
        for value in cast("Any", item):
            learn_names(value, names)


def check_items(items: list[Any], names: SentNames) -> RequestRefusal | None:
    """Return a refusal of the first input item whose form is invalid, or None."""
    check = _ItemCheck(names)
    found = (refusal for n, item in enumerate(items) for refusal in check.check_item(n, item))
    return next(found, None)


def check_strings(value: Any, at: str) -> RequestRefusal | None:
    """Return a refusal of the first string in a JSON value that is too long, or None."""
    return next(_iterate_long_strings(value, at), None)


def _iterate_long_strings(value: Any, at: str) -> Iterator[RequestRefusal]:
    if isinstance(value, str):
        if len(value) > MAX_STRING:
            yield refuse("too_long", at, maximum=MAX_STRING, length=len(value))
    elif isinstance(value, dict):
        for name, inner in cast("Json", value).items():
            if name not in _LONGER_STRINGS:
                yield from _iterate_long_strings(inner, f"{at}.{name}" if at else name)
    elif isinstance(value, list):
        for index, inner in enumerate(cast("Any", value)):
            yield from _iterate_long_strings(inner, f"{at}[{index}]")


class _ItemCheck:
    """A check of items, given the names that scripts have sent."""

    def __init__(self, names: SentNames) -> None:
        self._names = names

    def check_item(self, index: int, item: Any) -> Iterator[RequestRefusal]:
        at = f"input[{index}]"
        if not isinstance(item, dict):
            yield refuse_type(at, "an object", item)
            return
        value = cast("Json", item)
        kind: Any = value.get("type", "message" if "role" in value else "")
        known = ITEMS.get(str(kind))
        if known is None:
            if str(kind) not in self._names:
                yield refuse_value(at, kind, sorted(ITEMS))
            return
        is_assistant = kind == "message" and value.get("role") == "assistant"
        yield from self._check_fields(
            kind, at, value, _ASSISTANT_MESSAGE if is_assistant else known
        )
        prefix = _ASSISTANT_MESSAGE_PREFIX if is_assistant else _ID_PREFIXES.get(kind)
        item_id: str | None = value.get("id")
        if prefix and item_id is not None and not item_id.startswith(prefix):
            yield refuse("id", f"{at}.id", value=item_id, prefix=prefix)

    def _check_fields(
        self, kind: str, at: str, value: Json, fields: Fields
    ) -> Iterator[RequestRefusal]:
        sent = self._names.get(kind, ())
        for name in value:
            known = name == "type" or name in fields.required or name in fields.optional
            if not known and name not in sent:
                yield refuse("unknown", f"{at}.{name}")
        for name, allowed in fields.required.items():
            if name not in value:
                yield refuse("missing", f"{at}.{name}")
            else:
                yield from self._check_value(f"{at}.{name}", name, value[name], allowed)
        for name, allowed in fields.optional.items():
            if value.get(name) is not None:
                yield from self._check_value(f"{at}.{name}", name, value[name], allowed)

    def _check_value(
        self, at: str, name: str, value: Any, allowed: Value
    ) -> Iterator[RequestRefusal]:
        if not isinstance(value, allowed.types) or (
            isinstance(value, bool) and allowed.types == (int,)  # true is no number in JSON
        ):
            yield refuse_type(at, allowed.expected, value)
        elif isinstance(value, str):
            if allowed.choices and value not in allowed.choices:
                yield refuse_value(at, value, allowed.choices)
            elif not value and name in _NEVER_EMPTY:
                yield refuse("empty", at)
            elif name == "call_id" and len(value) > _MAX_ID:
                yield refuse("too_long", at, maximum=_MAX_ID, length=len(value))
        elif allowed.parts is not None:
            if not value and allowed.parts is _INPUT_PARTS:
                yield refuse("empty_array", at)
            for index, part in enumerate(cast("Any", value)):
                yield from self._check_part(f"{at}[{index}]", part, allowed.parts)

    def _check_part(
        self, at: str, part: Any, parts: Mapping[str, Fields]
    ) -> Iterator[RequestRefusal]:
        if not isinstance(part, dict):
            yield refuse_type(at, "an object", part)
            return
        value = cast("Json", part)
        kind: Any = value.get("type", "")
        fields = parts.get(str(kind))
        if fields is not None:
            yield from self._check_fields(kind, at, value, fields)
            yield from _check_sources(kind, at, value)
        elif str(kind) not in self._names:
            yield refuse_value(at, kind, parts)


def _check_sources(kind: str, at: str, part: Json) -> Iterator[RequestRefusal]:
    """Yield refusals of an image or a file without a source, and of an image without a URL."""
    sources = _SOURCES.get(kind, ())
    if sources and all(part.get(name) is None for name in sources):
        yield refuse("missing", f"{at}.{sources[0]}")
    url = part.get("image_url")
    if kind == "input_image" and url is not None:
        found = _URL.match(url)
        if found is None:
            yield refuse("url", f"{at}.image_url")
        elif found["type"] is not None and not found["type"].startswith("image/"):
            yield refuse("image_type", f"{at}.image_url", value=found["type"])
