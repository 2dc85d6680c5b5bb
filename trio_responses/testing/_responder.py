"""The default answers of the test server: deterministic, and valid for the request.

The default answer calls a tool whose name shares a word with the user's text, reports the outputs
of tools, and otherwise repeats the user's text. Where the request asks for JSON, the text is JSON.
"""

import re
from collections.abc import Collection, Iterator, Mapping
from itertools import takewhile
from typing import Any, Final, cast

import msgspec

from trio_responses.testing._example_values import make_example
from trio_responses.testing._frames import Json
from trio_responses.testing._history import item_text
from trio_responses.testing._records import Request
from trio_responses.testing._scripts import Call, Reply

_OUTPUT_TYPES: Final = ("function_call_output", "custom_tool_call_output")


def default_answer(request: Request) -> Reply:
    """Return the default answer to ``request``, which is the same for the same history."""
    outputs = list(takewhile(_is_output, request.conversation.newest_first()))
    if outputs:
        texts = " and ".join(item_text(item) for item in reversed(outputs))
        return Reply(format_answer(request, f"Turn {request.turn}: the tool returned {texts}."))
    tool = choose_tool(request)
    if tool is not None:
        arguments = make_arguments(tool, request.text)
        return Reply(calls=[Call(tool["name"], arguments, namespace=tool.get("namespace"))])
    return Reply(format_answer(request, f'Turn {request.turn}: you said "{request.text}".'))


def choose_tool(request: Request) -> Json | None:
    """Return the function tool that the default answer calls, or None.

    ``tool_choice`` comes first: ``none`` forbids a call, ``required`` and a named function force a
    call. Otherwise the tool whose name shares the most words with the newest user text is called.
    """
    tools = [tool for tool in _tools_of(request) if tool.get("type") == "function"]
    choice = request.get("tool_choice")
    if choice == "none" or not tools:
        return None
    if isinstance(choice, Mapping):
        wanted = [cast("Json", choice).get(key) for key in ("name", "namespace")]
        named = [tool for tool in tools if [tool["name"], tool.get("namespace")] == wanted]
        if named:
            return named[0]
    words = _words(request.text)
    best = max(tools, key=lambda tool: len(words & _words(tool["name"])))
    if choice == "required" or words & _words(best["name"]):
        return best
    return None


def _tools_of(request: Request) -> Iterator[Json]:
    """Yield the tools of a request; a tool in a namespace has the field ``namespace`` as well."""
    for tool in request.tools:
        inner = tool.get("tools") if tool.get("type") == "namespace" else None
        if isinstance(inner, list):
            for one in cast("Any", inner):
                if isinstance(one, dict):
                    yield {**cast("Json", one), "namespace": tool.get("name")}
        else:
            yield tool


def make_arguments(tool: Json, text: str) -> Json:
    """Return arguments that match the tool's JSON schema, made of capitalised words of ``text``."""
    schema: Json = tool.get("parameters") or {}
    value = make_example(schema, _capitalised_words(text, _words(tool["name"])), "value")
    return cast("Json", value) if isinstance(value, dict) else {}


def format_answer(request: Request, text: str) -> str:
    """Return the text of an answer in the format that the request asks for (``text.format``).

    For a JSON schema, the text is an example value, and for any JSON an object with the answer.
    """
    settings: Json = request.get("text") or {}
    wanted: Json = settings.get("format") or {}
    match wanted.get("type"):
        case "json_schema":
            name = str(wanted.get("name") or "value")
            words = _capitalised_words(request.text, set())
            value = make_example(wanted.get("schema") or {}, words, name)
        case "json_object":
            value = {"answer": text}
        case _:
            return text
    return msgspec.json.encode(value).decode()


def _capitalised_words(text: str, without: Collection[str]) -> Iterator[str]:
    """Return the capitalised words of a text except its first word."""
    words = re.findall(r"\w+", text)[1:]
    return (word for word in words if word[0].isupper() and word.lower() not in without)


def _is_output(item: Json) -> bool:
    return item.get("type") in _OUTPUT_TYPES


def _words(text: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", text.lower()))
