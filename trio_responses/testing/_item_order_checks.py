"""Checks of the items of a request together: calls and outputs, reasoning, ids.

The items of the chain that ends with ``previous_response_id`` were checked with their own request.
Of them, the calls without an output matter, and the ids.
"""

import base64
import binascii
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, Final, TypeAlias, cast

from trio_responses.testing._frames import Json, RequestRefusal
from trio_responses.testing._history import CALL_TYPES, History, call_key, hosted_key, output_key
from trio_responses.testing._refusals import refuse

_SEAL: Final = "encrypted"
_CLIENT_ROLES: Final = ("user", "system", "developer")
_NOT_UNIQUE: Final = ("local_shell_call_output",)
"""Items whose id is that of another item."""


@dataclass(frozen=True, slots=True)
class _Input:
    """The input of a request in its conversation."""

    items: Sequence[Json]
    """The new items."""
    past: History
    """The items of the chain."""
    conversation: History
    """The items of the chain, then the new ones."""
    body: Json

    @property
    def is_complete(self) -> bool:
        """Whether the server knows all items of the conversation."""
        return self.body.get("conversation") is None and not any(
            item.get("type") == "item_reference" for item in self.items
        )


def check_order(body: Json, past: History, conversation: History) -> RequestRefusal | None:
    """Return a refusal of input items that do not fit together, or None.

    :param body: A request whose items have a valid form.
    :param past: The items of the chain that the request continues.
    :param conversation: The items of the chain, then those of the request.
    """
    items: Any = body.get("input")
    new = cast("list[Json]", items) if isinstance(items, list) else []
    given = _Input(new, past, conversation, body)
    return next((refusal for check in _CHECKS for refusal in check(given)), None)


def seal(model: Any, number: str) -> str:
    """Return the ``encrypted_content`` of a reasoning item, which names the model."""
    return f"{_SEAL}.{base64.urlsafe_b64encode(str(model).encode()).decode()}.{number}"


def _sealed_model(content: str) -> str | None:
    try:
        _, model, _ = content.split(".")
        return base64.urlsafe_b64decode(model).decode()
    except (ValueError, binascii.Error):
        return None


def _check_ids(given: _Input) -> Iterator[RequestRefusal]:
    ids = [_unique_id(item) for item in given.items]
    if not any(ids):
        return
    known = {_unique_id(item) for item in given.past.newest_first()} - {None}
    for item_id in filter(None, ids):
        if item_id in known:
            yield refuse("duplicate", id=item_id)
        known.add(item_id)


def _unique_id(item: Json) -> str | None:
    item_id: Any = item.get("id")
    is_unique = isinstance(item_id, str) and item.get("type") not in _NOT_UNIQUE
    return item_id if is_unique else None


def _check_calls(given: _Input) -> Iterator[RequestRefusal]:
    if not given.is_complete:
        return
    for call in given.conversation.open_calls.values():
        kind: str = call["type"].replace("_", " ")
        yield refuse("call_without_output", call=kind, call_id=call.get("call_id"))


def _check_outputs(given: _Input) -> Iterator[RequestRefusal]:
    if not given.is_complete:
        return
    calls = dict(given.past.open_calls)
    for item in given.items:
        if (key := call_key(item) or hosted_key(item)) is not None:
            calls[key] = item
        elif (key := output_key(item)) is not None:
            call = calls.get(key) or _find_call(given.past, key)
            if call is None:
                kind = CALL_TYPES[item["type"]].replace("_", " ")
                yield refuse("output_without_call", call=kind, call_id=key[1])
            else:
                yield from _check_acknowledged(call, item)


def _find_call(past: History, key: tuple[str, str]) -> Json | None:
    return next(
        (item for item in past.newest_first() if (call_key(item) or hosted_key(item)) == key), None
    )


def _check_acknowledged(call: Json, output: Json) -> Iterator[RequestRefusal]:
    acknowledged = _ids(output.get("acknowledged_safety_checks"))
    missing = [each for each in _ids(call.get("pending_safety_checks")) if each not in acknowledged]
    if missing:
        yield refuse("safety_checks", ids=missing)


def _ids(checks: Any) -> list[Any]:
    values: list[Any] = cast("Any", checks) if isinstance(checks, list) else []
    return [cast("Json", check).get("id") for check in values if isinstance(check, dict)]


def _check_reasoning(given: _Input) -> Iterator[RequestRefusal]:
    for item, following in pairwise([*given.items, None]):
        if (
            item is not None
            and item.get("type") == "reasoning"
            and (
                following is None or following.get("role") in _CLIENT_ROLES or output_key(following)
            )
        ):
            yield refuse("reasoning_alone", id=item.get("id"))


def _check_persistence(given: _Input) -> Iterator[RequestRefusal]:
    if given.body.get("store") is not False:
        return
    for item in given.items:
        is_open = item.get("type") == "reasoning" and not item.get("encrypted_content")
        if is_open or item.get("type") == "item_reference":
            yield refuse("not_persisted", id=item.get("id"))


def _check_encrypted_content(given: _Input) -> Iterator[RequestRefusal]:
    """Yield a refusal of content that this server made for another model, or that is damaged.

    Content made elsewhere passes, since the server cannot know whether it is valid.
    """
    for item in given.items:
        content: Any = item.get("encrypted_content")
        if (
            item.get("type") == "reasoning"
            and isinstance(content, str)
            and content.startswith(f"{_SEAL}.")
            and _sealed_model(content) != given.body["model"]
        ):
            yield refuse("encrypted_content", content=f"{content[:4]}...{content[-4:]}")


_Check: TypeAlias = Callable[[_Input], Iterator[RequestRefusal]]
_CHECKS: Final[Sequence[_Check]] = (
    _check_ids,
    _check_persistence,
    _check_calls,
    _check_outputs,
    _check_reasoning,
    _check_encrypted_content,
)
