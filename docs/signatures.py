"""Signatures for the reference, with the types as written in the source.

An alias such as ``Input`` is shown by its name instead of its forty types. A record that programs
receive and do not create has no signature.
"""

from __future__ import annotations

import ast
import inspect
import re
import textwrap
from dataclasses import fields, is_dataclass
from enum import Enum
from typing import TYPE_CHECKING, Any

import msgspec

from trio_responses._wire.base import Event as TaggedEvent

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HELD = re.compile(
    r"~?(?:\w+\.)*(?:AsyncGenerator\[(.*), None\]|AbstractAsyncContextManager\[(.*)\])"
)
"""Matches the annotation of an async context manager; a group has the type of its value."""


def parse(thing: object) -> ast.stmt | None:
    """Return the syntax tree of a class or a function, or `None` without its source."""
    try:
        return ast.parse(textwrap.dedent(inspect.getsource(thing))).body[0]  # type: ignore[arg-type]
    except (OSError, TypeError, SyntaxError, IndentationError):
        return None


def fields_in_source(record: type) -> dict[str, tuple[str, str | None]]:
    """Return the annotation and the default of each field of a record, as written."""
    found: dict[str, tuple[str, str | None]] = {}
    for base in reversed(record.__mro__):
        node = parse(base) if base.__module__.startswith("trio_responses") else None
        for each in node.body if isinstance(node, ast.ClassDef) else ():
            if isinstance(each, ast.AnnAssign) and isinstance(each.target, ast.Name):
                default = default_in_source(each.value)
                annotation = ast.unparse(each.annotation).replace(" | UnsetType", "")
                annotation = re.sub(r"\bJSONText\b", "str", annotation)
                found[each.target.id] = (annotation, default)
    return found


def default_in_source(value: ast.expr | None) -> str | None:
    """Return the default of a field as written, and for a factory a call of it."""
    if not isinstance(value, ast.Call):
        return ast.unparse(value) if value is not None else None
    options = {each.arg: each.value for each in value.keywords}
    if "default_factory" in options:
        factory = options["default_factory"]
        return f"{ast.unparse(factory).partition('[')[0]}()"
    return ast.unparse(options["default"]) if "default" in options else None


def record_signature(record: type) -> str | None:
    """Return the signature of a record, with the types as written in the source."""
    if issubclass(record, msgspec.Struct):
        of_all = (
            {"sequence_number", "stream_id", "agent"} if issubclass(record, TaggedEvent) else set()
        )
        named = [(name, True) for name in record.__struct_fields__ if name not in of_all]
    elif is_dataclass(record):
        named = [(each.name, each.kw_only) for each in fields(record) if each.init]
    else:
        return None
    source = fields_in_source(record)
    parts = ["self"]
    for name, keyword in named:
        if keyword and "*" not in parts:
            parts.append("*")
        annotation, default = source[name]
        parts.append(f"{name}: {annotation}" + (f" = {default}" if default else ""))
    return f"({', '.join(parts[1:])})"


def is_for_users(thing: type) -> bool:
    """Whether users create instances of a class: the docstrings of others have "made by"."""
    if issubclass(thing, BaseException | Enum):
        return False
    return re.search(r"\b[Mm]ade by\b", thing.__doc__ or "") is None


def annotations_in_source(function: Any) -> dict[str, str]:
    """Return the annotations of a function as written, ``return`` included."""
    node = parse(inspect.unwrap(function))
    if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return {}
    every = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
    every += [one for one in (node.args.vararg, node.args.kwarg) if one is not None]
    found = {one.arg: ast.unparse(one.annotation) for one in every if one.annotation is not None}
    if node.returns is not None:
        found["return"] = ast.unparse(node.returns)
    return found


def write_signature(
    _app: Sphinx,
    what: str,
    _name: str,
    thing: Any,
    _options: object,
    signature: str | None,
    returns: str | None,
) -> tuple[str | None, str | None] | None:
    """Return a signature and a return type in place of those of autodoc."""
    if what == "class" and isinstance(thing, type):
        written = record_signature(thing) if is_for_users(thing) else ""
        return (written, None) if written is not None else None
    if what == "exception":
        return "", None
    if what in {"function", "method"} and returns is not None:
        held = HELD.fullmatch(returns)
        returns = held[1] or held[2] if held is not None else returns
    if what == "property" or "trio_responses.testing" not in str(getattr(thing, "__module__", "")):
        return signature, returns
    if what not in {"function", "method"} or signature is None:
        return None
    source = annotations_in_source(thing)
    plain = inspect.signature(thing)
    parameters = [
        each.replace(annotation=Verbatim(source[each.name])) if each.name in source else each
        for each in plain.parameters.values()
        if each.name != "self"
    ]
    shown = plain.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    if HELD.fullmatch(source.get("return", "")) is None:
        returns = source.get("return", returns)
    return str(shown), returns


class Verbatim:
    """An annotation that is shown as written in the source."""

    def __init__(self, text: str) -> None:
        self._text = text.strip("'\"")

    def __repr__(self) -> str:
        return self._text
