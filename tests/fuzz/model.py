"""A reference model of a conversation: what runs, what is kept and what is sent, over plain dicts.

Written from the documentation (docs/conversations.md, docs/tools.md) and the schema of the API, and
without the library: lists, dicts and loops, as slow as they are obvious.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final

from tests.fuzz.inputs import SCHEMA
from tests.fuzz.shapes import is_array, is_object

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from tests.fuzz.shapes import ResponseShape

Json = Any
Key = tuple[str, str]


class AnyText(str):
    """A text that is equal to every text for the model but that of a tool that has run."""

    __slots__ = ()

    def __eq__(self, other: object) -> bool:
        """Whether the other value may be the text of an error."""
        return isinstance(other, str) and other != "" and not other.startswith("ran ")

    __hash__ = str.__hash__


# --- Calls --------------------------------------------------------------------------------

OUTPUT_OF: Final[Mapping[str, str]] = {
    "function_call": "function_call_output",
    "custom_tool_call": "custom_tool_call_output",
    "computer_call": "computer_call_output",
    "shell_call": "shell_call_output",
    "local_shell_call": "local_shell_call_output",
    "apply_patch_call": "apply_patch_call_output",
    "mcp_approval_request": "mcp_approval_response",
    "tool_search_call": "tool_search_output",
}
CALL_OF: Final = {output: call for call, output in OUTPUT_OF.items()}
WITHOUT_TEXT: Final = ("computer_call", "tool_search_call")
UNHANDLED: Final = ("local_shell_call", "apply_patch_call", "tool_search_call")
SCREENSHOT: Final = {"type": "computer_screenshot", "image_url": "data:,"}
SHELL: Final = [{"stdout": "ran ls", "stderr": "", "outcome": {"type": "exit", "exit_code": 0}}]
NEEDED: Final[Mapping[str, Mapping[str, type]]] = {
    "function_call": {"call_id": str, "name": str},
    "custom_tool_call": {"call_id": str, "name": str},
    "computer_call": {"call_id": str},
    "shell_call": {"call_id": str, "action": dict},
    "local_shell_call": {"call_id": str, "action": dict},
    "apply_patch_call": {"call_id": str, "operation": dict},
    "mcp_approval_request": {"id": str, "name": str},
    "tool_search_call": {},
}
"""The fields without which a call cannot run."""


def kind_of(item: Json) -> str:
    """Return the type of an item; an empty text if it has none."""
    kind = item.get("type") if is_object(item) else None
    return kind if isinstance(kind, str) else ""


def is_hosted(item: Json) -> bool:
    """Whether the server itself runs a call, or has made an output."""
    return bool(item.get("execution") == "server" or in_container(item))


def in_container(item: Json) -> bool:
    """Whether a call is of a shell that runs at the server."""
    place = item.get("environment")
    return bool(is_object(place) and place.get("type") == "container_reference")


def key_of(item: Json) -> Key | None:
    """Return what a call and its output have in common; `None` for other items."""
    kind = CALL_OF.get(kind_of(item), kind_of(item))
    if kind not in OUTPUT_OF or is_hosted(item):
        return None
    if kind == "mcp_approval_request":
        names = [item.get("approval_request_id"), item.get("id")]
    elif kind == "local_shell_call":
        names = [item.get("call_id"), item.get("id")]
    else:
        names = [item.get("call_id")]
    found = [name for name in names if isinstance(name, str) and name]
    return (kind, found[0]) if found else None


def is_call(item: Json) -> bool:
    """Whether an item is a call of a type that the client answers."""
    return kind_of(item) in OUTPUT_OF


def is_unanswerable(output: Sequence[Json]) -> bool:
    """Whether an output has a call that no output can answer."""
    last = max((n for n, item in enumerate(output) if is_message(item)), default=-1)
    outputs = {
        (kind_of(item), item.get("call_id"))
        for item in output
        if is_object(item) and isinstance(item.get("call_id"), str)
    }
    for number, item in enumerate(output):
        kind = kind_of(item)
        lacks_id = is_call(item) and key_of(item) is None and not is_hosted(item)
        if lacks_id and (kind != "tool_search_call" or item.get("execution") == "client"):
            return True
        if lacks_id:
            continue
        if kind not in SCHEMA["output_items"] and number > last:
            if not kind:
                return True
            call_id = item.get("call_id")
            waits = kind.endswith("_call") and isinstance(call_id, str)
            if waits and (f"{kind}_output", call_id) not in outputs:
                return True
    return False


def is_message(item: Json) -> bool:
    """Whether an item is a message; some servers leave out the type."""
    if not is_object(item) or not isinstance(item.get("role"), str):
        return False
    return bool(item.get("type", "message") == "message")


# --- Texts --------------------------------------------------------------------------------


def text_of(message: Json, kind: str = "output_text", name: str = "text") -> str:
    """Return the text of a message, of the parts of one type."""
    content = message.get("content")
    if isinstance(content, str):
        return content if kind == "output_text" else ""
    parts = content if is_array(content) else []
    return "".join(
        part[name]
        for part in parts
        if is_object(part) and part.get("type") == kind and isinstance(part.get(name), str)
    )


def answers_in(output: Sequence[Json]) -> list[Json]:
    """Return the messages that are the answer."""
    messages = [item for item in output if is_message(item)]
    final = [one for one in messages if one.get("phase") == "final_answer"]
    return final or [one for one in messages if one.get("phase") != "commentary"]


def parsed(output: Sequence[Json], *, complete: bool) -> tuple[str, Json]:
    """Return what ``parse`` of an object with a number ``n`` does: an exception, or a value."""
    answers = answers_in(output)
    messages = answers[-1:] or [item for item in output if is_message(item)]
    if any(text_of(one, "refusal", "refusal") for one in messages):
        return "RefusalError", None
    if not complete:
        return "IncompleteError", None
    if not answers:
        return "ParseMismatchError", None
    return ("", 3) if text_of(answers[-1]) == '{"n":3}' else ("ParseMismatchError", None)


# --- Input --------------------------------------------------------------------------------

FORMS: Final[dict[str, dict[str, tuple[str, bool]]]] = {
    kind: {name: (one["json_type"], one["required"]) for name, one in entry["fields"].items()}
    for kind, entry in SCHEMA["input_items"].items()
}
"""The type of each field of an input item, and whether it is required."""
STATUSES: Final = 'string("in_progress","completed","incomplete")'
FORMS["message"] |= {"id": ("string", False), "status": (STATUSES, False)}
FORMS["custom_tool_call"]["status"] = (STATUSES, False)
FORMS["custom_tool_call_output"]["id"] = ("string", False)
for _kind in ("tool_search_call", "local_shell_call"):
    FORMS[_kind].setdefault("id", ("string", False))
FORMS["reasoning"]["id"] = ("string", False)
DEFAULTS: Final[Mapping[str, Json]] = {
    "status": "completed",
    "pending_safety_checks": [],
    "summary": [],
}
TEXTS: Final = {"function_call": "arguments", "custom_tool_call": "input"}
ID_PREFIXES: Final = {
    "function_call": "fc",
    "custom_tool_call": "ctc",
    "reasoning": "rs",
    "message": "msg",
}


def fits(value: Json, kind: str) -> bool:
    """Whether a value has one of the types of a field; what is inside of it is not looked at."""
    if kind.startswith("string("):
        return isinstance(value, str) and f'"{value}"' in kind
    for one in re.sub("<.*>", "", kind).split(" | "):
        match one.split(":")[0]:
            case "string":
                found = isinstance(value, str)
            case "boolean":
                found = isinstance(value, bool)
            case "integer":
                found = isinstance(value, int) and not isinstance(value, bool)
            case "object":
                found = is_object(value)
            case "any":
                found = True
            case _:
                found = is_array(value)
        if found:
            return True
    return False


def in_input_form(item: Json) -> Json:  # noqa: C901, PLR0912 - rule by rule
    """Return the input form of one item by itself; `None` if it has none."""
    if not is_object(item):
        return None
    kind = "message" if "role" in item and "type" not in item else kind_of(item)
    item = {name: value for name, value in item.items() if name != "created_by"}
    if kind in TEXTS:
        if not isinstance(item.get("name"), str) or not item["name"]:
            return None
        value = item.get(TEXTS[kind])
        if not isinstance(value, str):
            text = "" if value is None else json.dumps(value, separators=(",", ":"))
            item[TEXTS[kind]] = text
    if kind in {"reasoning", "custom_tool_call_output"}:
        item.pop("status", None)
    if kind == "reasoning" and item.get("summary") is None:
        item["summary"] = []
    if kind == "additional_tools" and item.get("role") != "developer":
        item["role"] = "developer"
    if is_call(item) and key_of(item) is None and not is_hosted(item):
        return None
    prefix = ID_PREFIXES.get(kind, "")
    for name, (types, required) in FORMS.get(kind, {}).items():
        if name == "type" or (name not in item and not required):
            continue
        good = name in item and fits(item[name], types)
        if name == "id" and good:
            good = item["id"].startswith(prefix)
        if name in item and item[name] is None and not required:
            good = True
        if not good and required and name in DEFAULTS:
            item[name] = DEFAULTS[name]
        elif not good and required:
            return None
        elif not good:
            del item[name]
    if kind == "message" and is_array(item["content"]):
        item["content"] = [part for part in item["content"] if is_part(part)]
    return item


def is_part(part: Json) -> bool:
    """Whether a content part of a message has a type, and the text that its type needs."""
    name = {"output_text": "text", "refusal": "refusal"}.get(kind_of(part))
    return bool(kind_of(part)) and (name is None or isinstance(part.get(name), str))


@dataclass
class Entry:
    """An item of a history, with the settings of its turn."""

    item: Json
    model: str
    stored: bool


def full_input(  # noqa: C901, PLR0912 - rule by rule
    history: Sequence[Entry], answered: Iterable[Key], *, model: str, stored: bool
) -> list[Json]:
    """Return a history as a request sends it, before the new items."""
    kept: list[Json] = []
    open_calls: dict[Key, Json] = {}
    ids: set[str] = set()
    hosted: set[Key | None] = set()
    for entry in history:
        item = in_input_form(entry.item)
        if item is None:
            continue
        kind = kind_of(item)
        if kind == "reasoning":
            readable = isinstance(item.get("encrypted_content"), str) and item["encrypted_content"]
            if entry.model != model or not (readable or (stored and entry.stored)):
                continue
        item_id = item.get("id")
        if isinstance(item_id, str) and item_id and kind != "local_shell_call_output":
            if item_id in ids:
                form = FORMS.get(kind, {}).get("id", ("", True))
                if form[1] or kind == "reasoning":
                    continue
                del item["id"]
            ids.add(item_id)
        key = key_of(item)
        if is_call(item) and key is not None:
            if key in open_calls:
                continue
            open_calls[key] = item
        elif kind in CALL_OF and not is_hosted(item):
            if key in hosted:  # the server made both
                hosted.discard(key)
            elif key is None or open_calls.pop(key, None) is None:
                continue
        elif is_call(item) and in_container(item):
            hosted.add((kind, item["call_id"]))
        kept.append(item)
    answered = set(answered)
    unanswered = [
        call
        for key, call in open_calls.items()
        if key not in answered and call.get("async") is not True
    ]
    kept = [item for item in kept if not any(item is one for one in unanswered)]
    return without_loose_reasoning(kept)


def without_loose_reasoning(items: Sequence[Json]) -> list[Json]:
    """Return items without reasoning that is not followed by what the model made of it."""
    result: list[Json] = []
    followed = False
    for item in reversed(items):
        if kind_of(item) == "reasoning":
            if followed:
                result.append(item)
            continue
        followed = kind_of(item) not in CALL_OF and item.get("role") not in {
            "user",
            "system",
            "developer",
        }
        result.append(item)
    return result[::-1]


# --- The conversation ---------------------------------------------------------------------


class Failed(Exception):
    """A turn or a run ends with an exception of the library.

    :ivar kind: the name of its class.
    """

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


Served = tuple["ResponseShape", bool]
"""The response to a request, and whether the request was a delta."""


@dataclass
class SentInput:
    """What a request has to send: the new items, and the history as full input."""

    new: list[Json]
    full: list[Json]
    parent: str | None


@dataclass
class Model:
    """A conversation, by the book."""

    stored: bool
    history: list[Entry] = field(default_factory=list[Entry])
    pending: dict[Key, Json] = field(default_factory=dict[Key, Json])
    outputs: dict[Key, Json] = field(default_factory=dict[Key, Json])
    ambiguous: set[Key] = field(default_factory=set[Key])
    last_id: str | None = None
    ran: list[tuple[str, Json]] = field(default_factory=list[tuple[str, Json]])
    """The calls that ran, in order: the qualified name, and the arguments."""
    sent: list[SentInput] = field(default_factory=list[SentInput])

    def copy(self) -> Model:
        """Return a copy that goes on by itself."""
        return Model(
            self.stored,
            list(self.history),
            dict(self.pending),
            dict(self.outputs),
            set(self.ambiguous),
            self.last_id,
        )

    @property
    def items(self) -> list[Json]:
        """The items of the history."""
        return [entry.item for entry in self.history]

    # --- Turns ------------------------------------------------------------------------------

    def turn(  # noqa: C901 - rule by rule
        self, given: list[Json], served: Served, model: str
    ) -> list[Json]:
        """Take one turn, and return the output of its response."""
        shape, is_delta = served
        given_keys = {key_of(item) for item in given}
        before: list[Json] = []
        left_out: list[Key] = []
        for key, call in self.pending.items():
            if key in given_keys:
                continue
            if key in self.outputs:
                before.append(self.outputs[key])
            elif call.get("async") is True:
                continue
            elif in_input_form(call) is None or key[0] in WITHOUT_TEXT:
                left_out.append(key)
            else:
                before.append(error_for(key, call))
        new = before + given
        keys = [one for one in map(key_of, new) if one is not None]
        full = full_input(self.history, keys, model=model, stored=self.stored)
        if not is_delta:  # the server never has the calls that have no input form
            known = {key_of(item) for item in full if is_call(item)}
            lost = [key for key in self.pending if key not in known]
            new = [item for item in new if kind_of(item) not in CALL_OF or key_of(item) not in lost]
            left_out += lost
        self.sent.append(SentInput(new, full, self.last_id))
        output = shape.expected
        if shape.outcome == "failed":
            raise Failed("ResponseFailedError")
        usable = shape.outcome == "incomplete" and shape.reason == "max_output_tokens"
        if shape.outcome == "completed" or usable:
            for item in [*new, *(item for item in output if is_object(item))]:
                self.history.append(Entry(item, model, self.stored))
                self.track(item)
            for key in left_out:
                self.pending.pop(key, None)
            self.last_id = shape.response_id
        return output

    def track(self, item: Json) -> None:
        """Follow the calls without output."""
        key = key_of(item)
        if key is None:
            return
        known = self.pending.get(key)
        if is_call(item) and known == item:
            return
        self.pending.pop(key, None) if not is_call(item) else self.pending.update({key: item})
        self.outputs.pop(key, None)
        self.ambiguous.discard(key)
        if is_call(item) and known is not None:
            self.ambiguous.add(key)

    def run(
        self, text: str, take: Callable[[], Served], model: str
    ) -> tuple[list[Json], ResponseShape]:
        """Take turns and run the tools between them, until the model answers."""
        new: list[Json] = [user(text)]
        output: list[Json] = []
        shape: ResponseShape | None = None
        while True:
            pending = dict(self.pending)
            for key, call in pending.items():
                if key not in self.outputs and self.handles(key, call):
                    self.outputs[key] = self.answer(key, call)
            outputs = [self.outputs[key] for key in pending if key in self.outputs]
            if shape is not None and len(outputs) < len(pending):
                return output, shape
            served = take()
            shape = served[0]
            output = self.turn(outputs + new, served, model)
            new = []
            if shape.outcome == "completed" and is_unanswerable(output):
                raise Failed("UndecodableCall")
            if shape.outcome != "completed" or not self.pending:
                return output, shape

    # --- Calls ------------------------------------------------------------------------------

    def handles(self, key: Key, call: Json) -> bool:
        """Whether the run answers a call."""
        return self.reason(key, call) is not None or key[0] not in UNHANDLED

    def reason(self, key: Key, call: Json) -> str | None:
        """Return why a call cannot even be looked at; `None` if it can."""
        for name, kind in NEEDED[key[0]].items():
            if not isinstance(call.get(name), kind):
                return name
        if call.get("namespace") is not None and not isinstance(call["namespace"], str):
            return "namespace"
        checks = call.get("pending_safety_checks")
        if checks is not None and not (
            is_array(checks)
            and all(is_object(one) and isinstance(one.get("id"), str) for one in checks)
        ):
            return "pending_safety_checks"
        return None

    def answer(self, key: Key, call: Json) -> Json:
        """Return the output of a call, which runs if it may."""
        kind, _ = key
        stopped = (
            self.reason(key, call) is not None
            or (call.get("status") == "incomplete" and kind != "mcp_approval_request")
            or key in self.ambiguous
        )
        if kind in {"function_call", "custom_tool_call"} and not stopped:
            return self.answer_named(key, call)
        if stopped:
            if kind in WITHOUT_TEXT:
                raise Failed("CallNotRejectable")
            return error_for(key, call)
        if kind == "computer_call" and call.get("pending_safety_checks"):
            raise Failed("SafetyChecksPending")
        self.ran.append((kind, None))
        match kind:
            case "shell_call":
                return {**output_for(key, call), "output": SHELL}
            case "computer_call":
                return {**output_for(key, call), "output": SCREENSHOT}
            case _:
                return {**output_for(key, call), "approve": True}

    def answer_named(self, key: Key, call: Json) -> Json:
        """Return the output of a call of a function or a custom tool."""
        kind, _ = key
        namespace = call.get("namespace")
        name = call["name"]
        if namespace not in {None, "functions", ""}:
            name = f"{namespace}.{name}"
        text = call.get(TEXTS[kind])
        if not isinstance(text, str):
            text = "" if text is None else json.dumps(text, separators=(",", ":"))
        if kind == "custom_tool_call":
            if name != "sql":
                return error_for(key, call)
            self.ran.append((name, text))
            return {**output_for(key, call), "output": "ran sql"}
        arguments = FUNCTIONS[name](text) if name in FUNCTIONS else None
        if arguments is None:
            return error_for(key, call)
        self.ran.append((name, arguments))
        return {**output_for(key, call), "output": f"ran {name}"}


def read_object(text: str) -> Json:
    """Return the object that a JSON text has; an empty one for any other text."""
    try:
        value = json.loads(text)
    except ValueError:
        return {}
    return value if is_object(value) else {}


def read_path(text: str) -> Json:
    """Return the arguments of a function ``(path: str, force: bool = True)``, or `None`."""
    value = read_object(text)
    path, force = value.get("path"), value.get("force")
    fits = isinstance(path, str) and (force is None or isinstance(force, bool))
    return {"path": path, "force": force is not False} if fits else None


def read_number(text: str) -> Json:
    """Return the arguments of a function ``(number: int)``, or `None`."""
    value = read_object(text)
    number = value.get("number")
    return {"number": number} if isinstance(number, int) and len(value) == 1 else None


FUNCTIONS: Final[Mapping[str, Callable[[str], Json]]] = {
    "delete": read_path,
    "add": read_number,
    "crm.delete": read_number,
}
"""How each function reads its arguments."""


def output_for(key: Key, call: Json) -> Json:
    """Return the fields of an output that name its call."""
    kind, name = key
    names = {"mcp_approval_request": "approval_request_id", "local_shell_call": "id"}
    output = {"type": OUTPUT_OF[kind], names.get(kind, "call_id"): name}
    return {**output, "caller": call["caller"]} if call.get("caller") is not None else output


def error_for(key: Key, call: Json) -> Json:
    """Return the output that tells the model that a call has not run."""
    output = output_for(key, call)
    match key[0]:
        case "mcp_approval_request":
            return {**output, "approve": False, "reason": AnyText("error")}
        case "shell_call":
            outcome = {"type": "exit", "exit_code": 1}
            one = {"stdout": "", "stderr": AnyText("error"), "outcome": outcome}
            return {**output, "output": [one]}
        case "apply_patch_call":
            return {**output, "status": "failed", "output": AnyText("error")}
        case _:
            return {**output, "output": AnyText("error")}


def user(text: str) -> Json:
    """Return the item as which a text is sent."""
    return {"type": "message", "role": "user", "content": text}
