"""The input items of a stored response, as the API lists them: with ids, page by page. No I/O."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, Final

import msgspec

from trio_responses.testing._frames import Json, RequestRefusal
from trio_responses.testing._refusals import refuse_type, refuse_value

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100

_PREFIXES: Final[Mapping[str, str]] = {
    "message": "msg",
    "function_call": "fc",
    "function_call_output": "fco",
    "custom_tool_call": "ctc",
    "custom_tool_call_output": "ctco",
    "reasoning": "rs",
}
_TEXT_TYPES: Final[Mapping[bool, str]] = {True: "output_text", False: "input_text"}


def list_items(items: Sequence[Json]) -> list[Json]:
    """Return items as the API lists them: each with an id, and messages with a list of parts.

    An item without an id gets the same one each time.
    """
    return [_with_id(_with_parts(item), index) for index, item in enumerate(items)]


def _with_parts(item: Json) -> Json:
    if item.get("type", "message") != "message":
        return item
    content: Any = item.get("content")
    if isinstance(content, str):
        is_output = item.get("role") == "assistant"
        part: Json = {"type": _TEXT_TYPES[is_output], "text": content}
        content = [part | {"annotations": []} if is_output else part]
    return {"status": "completed", **item, "type": "message", "content": content}


def _with_id(item: Json, index: int) -> Json:
    if isinstance(item.get("id"), str):
        return item
    digest = hashlib.sha256(msgspec.json.encode([index, item])).hexdigest()
    return {"id": f"{_PREFIXES.get(item['type'], 'item')}_{digest[:24]}", **item}


def make_page(items: Sequence[Json], query: Mapping[str, list[str]]) -> Json | RequestRefusal:
    """Return one page of items, or the refusal of an invalid query.

    :param query: ``order`` (``desc`` by default), ``after`` (an id) and ``limit``.
    """
    order = _last(query, "order") or "desc"
    if order not in {"asc", "desc"}:
        return refuse_value("order", order, ["asc", "desc"])
    limit = number_in(query, "limit")
    if isinstance(limit, RequestRefusal):
        return limit
    if limit is not None and not 1 <= limit <= MAX_LIMIT:
        return RequestRefusal(
            message=f"Invalid 'limit': {limit}. Expected a value from 1 to {MAX_LIMIT}.",
            code="invalid_value",
            param="limit",
        )
    ordered = list(items) if order == "asc" else list(reversed(items))
    after = _last(query, "after")
    if after is not None:
        ids = [item["id"] for item in ordered]
        if after not in ids:
            return RequestRefusal(
                message=f"Item with id '{after}' not found.", code=None, param="after", status=404
            )
        ordered = ordered[ids.index(after) + 1 :]
    page = ordered[: limit or DEFAULT_LIMIT]
    return {
        "object": "list",
        "data": page,
        "first_id": page[0]["id"] if page else None,
        "last_id": page[-1]["id"] if page else None,
        "has_more": len(page) < len(ordered),
    }


def number_in(query: Mapping[str, list[str]], name: str) -> int | RequestRefusal | None:
    """Return an integer of a query, None if it is missing, or the refusal of another value."""
    text = _last(query, name)
    if text is None:
        return None
    try:
        return int(text)
    except ValueError:
        return refuse_type(name, "an integer", text)


def _last(query: Mapping[str, list[str]], name: str) -> str | None:
    values = query.get(name)
    return values[-1] if values else None
