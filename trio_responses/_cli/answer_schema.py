"""The option ``--schema``: the JSON schema of an answer, read from a file."""

from __future__ import annotations

import re
from pathlib import PurePath
from typing import Any, Final, cast

import msgspec

from trio_responses._cli.files import read_file
from trio_responses._cli.running import UsageError

__all__ = ["check_json", "read_schema"]

MAX_NAME: Final = 64
FIELDS: Final = ("name", "description", "schema", "strict")
"""The fields of ``text.format`` that a file may have."""


def read_schema(path: str) -> dict[str, Any]:
    """Return ``text.format`` for a file with a JSON schema.

    The file has the schema itself, or an object with ``name``, ``schema`` and ``strict``. A schema
    alone is sent as strict if it follows the rules of strict mode: every object is closed, and
    requires all its properties.

    :raises OSError: when the file cannot be read.
    :raises UsageError: when the file has no JSON schema.
    """
    try:
        content: Any = msgspec.json.decode(read_file(path))
    except msgspec.DecodeError as error:
        raise UsageError(f"{path} is not valid JSON: {error}") from error
    if not isinstance(content, dict):
        raise UsageError(f"{path} has no JSON schema: it holds no object")
    found = cast("dict[str, Any]", content)
    form: dict[str, Any] = {"type": "json_schema"}
    if isinstance(found.get("schema"), dict):
        form["name"] = _name_of(path, None)
        form |= {key: found[key] for key in FIELDS if key in found}
    elif found.keys() & {"type", "properties", "$ref", "anyOf"}:
        form |= {"name": _name_of(path, found.get("title")), "schema": found}
        form["strict"] = found.get("type") == "object" and is_strict(found)
    else:
        raise UsageError(f'{path} has no JSON schema: it has no "type", and no "schema"')
    return form


def check_json(text: str) -> str | None:
    """Return why a text is not a JSON value; `None` if it is one."""
    try:
        msgspec.json.decode(text)
    except msgspec.DecodeError as error:
        return str(error)
    return None


def is_strict(schema: Any) -> bool:
    """Whether every object in a JSON schema is closed, and requires all its properties."""
    if isinstance(schema, list):
        return all(map(is_strict, cast("Any", schema)))
    if not isinstance(schema, dict):
        return True
    fields = cast("dict[str, Any]", schema)
    is_object = fields.get("type") == "object" or isinstance(fields.get("properties"), dict)
    if is_object and fields.get("additionalProperties") is not False:
        return False
    if is_object and set(fields.get("required", ())) != set(fields.get("properties", ())):
        return False
    return all(is_strict(each) for each in fields.values())


def _name_of(path: str, title: Any) -> str:
    name = title if isinstance(title, str) and title else PurePath(path).stem
    return re.sub(r"[^a-zA-Z0-9_-]+", "_", name)[:MAX_NAME] or "answer"
