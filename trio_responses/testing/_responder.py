"""The default answers of the test server: deterministic, and valid for the request.

The default answer calls a tool whose name shares a word with the user's text, reports the outputs
of tools, and otherwise repeats the user's text.
"""

import re
from collections.abc import Iterator, Mapping
from itertools import takewhile
from typing import Any, Final, cast

from trio_responses.testing._frames import Json
from trio_responses.testing._history import item_text
from trio_responses.testing._records import Request
from trio_responses.testing._scripts import Call, Reply

_OUTPUT_TYPES: Final = ("function_call_output", "custom_tool_call_output")
_MAX_DEPTH: Final = 8


def default_answer(request: Request) -> Reply:
    """Return the default answer to ``request``, which is the same for the same history."""
    outputs = list(takewhile(_is_output, reversed(request.conversation)))
    if outputs:
        texts = " and ".join(item_text(item) for item in reversed(outputs))
        return Reply(f"Turn {request.turn}: the tool returned {texts}.")
    tool = choose_tool(request)
    if tool is not None:
        return Reply(calls=[Call(tool["name"], make_arguments(tool, request.text))])
    return Reply(f'Turn {request.turn}: you said "{request.text}".')


def choose_tool(request: Request) -> Json | None:
    """Return the function tool that the default answer calls, or None.

    ``tool_choice`` comes first: ``none`` forbids a call, ``required`` and a named function force a
    call. Otherwise the tool whose name shares the most words with the newest user text is called.
    """
    tools = [tool for tool in request.tools if tool.get("type") == "function"]
    choice = request.get("tool_choice")
    if choice == "none" or not tools:
        return None
    if isinstance(choice, Mapping):
        name = cast("Json", choice).get("name")
        named = [tool for tool in tools if tool["name"] == name]
        if named:
            return named[0]
    words = _words(request.text)
    best = max(tools, key=lambda tool: len(words & _words(tool["name"])))
    if choice == "required" or words & _words(best["name"]):
        return best
    return None


def make_arguments(tool: Json, text: str) -> Json:
    """Return arguments that match the tool's JSON schema, made of capitalised words of ``text``."""
    schema: Json = tool.get("parameters") or {}
    own_words = _words(tool["name"])
    capitalised = (
        word
        for word in re.findall(r"\w+", text)[1:]
        if word[0].isupper() and word.lower() not in own_words
    )
    value = _ValueMaker(schema, capitalised).make(schema, "value", 0)
    return cast("Json", value) if isinstance(value, dict) else {}


class _ValueMaker:
    """A generator of example values for one JSON schema."""

    def __init__(self, root: Json, words: Iterator[str]) -> None:
        self._root = root
        self._words = words

    def make(self, schema: Any, name: str, depth: int) -> Any:
        """Return a value that matches ``schema``, the schema of the property ``name``."""
        if not isinstance(schema, dict) or depth > _MAX_DEPTH:
            return None
        schema = self._resolve_references(cast("Json", schema))
        for fixed in (schema.get("const"), *schema.get("enum", ()), schema.get("default")):
            if fixed is not None:
                return fixed
        return self._make_plausible(schema, name, depth)

    def _make_plausible(self, schema: Json, name: str, depth: int) -> Any:
        kind = _type(schema)
        if kind == "object":
            properties: Json = schema.get("properties") or {}
            wanted: list[str] = schema.get("required", list(properties))
            return {key: self.make(properties.get(key), key, depth + 1) for key in wanted}
        if kind == "array":
            return [self.make(schema.get("items", {}), name, depth + 1)]
        if kind == "string":
            return next(self._words, name)
        return {"boolean": True, "null": None}.get(kind, schema.get("minimum", 1))

    def _resolve_references(self, schema: Json) -> Json:
        for _ in range(_MAX_DEPTH):
            reference = schema.get("$ref")
            options = schema.get("anyOf") or schema.get("oneOf") or schema.get("allOf")
            if isinstance(reference, str):
                target: Any = self._root
                for key in reference.removeprefix("#").strip("/").split("/"):
                    target = target.get(key, {}) if key else target
                schema = cast("Json", target)
            elif options:
                schema = next((o for o in options if o.get("type") != "null"), options[0])
            else:
                break
        return schema


def _type(schema: Json) -> str:
    kind: Any = schema.get("type")
    if isinstance(kind, list):
        kinds = cast("list[str]", kind)
        return next((name for name in kinds if name != "null"), "null")
    return kind or ("object" if "properties" in schema else "string")


def _is_output(item: Json) -> bool:
    return item.get("type") in _OUTPUT_TYPES


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
