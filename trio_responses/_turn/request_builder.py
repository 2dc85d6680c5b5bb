"""Builders of the requests of turns, which run once socket and lane (``stream_id``) are known.

A stream does not send a fixed command but a *request builder*, which writes the request for a
placement: one lane of one socket. So a conversation can decide at that point which items the
server lacks. This module also encodes input items.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from trio_responses import _wire as wire
from trio_responses._protocol.raw_items import RawItems
from trio_responses._tools.namespace import tool_definitions
from trio_responses._wire.param_checks import check_input, merge_extra_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._protocol.continuation import Placement
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._settings import Timeouts
    from trio_responses._wire import Input, Response, ResponseCreate, Usage

__all__ = [
    "Latest",
    "RequestBuilder",
    "StaticRequest",
    "command_of",
    "create_command",
    "map_model",
    "raw_input",
    "raw_items",
]

CREATE_FIELDS: Final = frozenset(wire.ResponseCreate.__struct_fields__)

Latest: TypeAlias = Callable[[str | None], str | None]
"""Returns the id of the latest response of a lane, on the socket of the placement."""


class RequestBuilder(Protocol):
    """The interface of a builder, which encodes a turn's request for one lane of one socket."""

    observer: TurnObserver | None
    """Notifies the instruments about the turn; `None` before the first attempt."""
    timeouts: Timeouts | None
    """The deadlines of each attempt; `None` for those of the connection."""

    @property
    def is_warm_up(self) -> bool:
        """Whether the request generates no output."""
        ...

    @property
    def is_background(self) -> bool:
        """Whether the server continues the response even if no client reads its events."""
        ...

    @property
    def model(self) -> str | None:
        """The model of the request."""
        ...

    @property
    def max_output_tokens(self) -> int | None:
        """The limit of the output, if the request has one."""
        ...

    def count_input_bytes(self) -> int:
        """Return about how many bytes of input the model reads, those that the server has too."""
        ...

    @property
    def parent(self) -> str | None:
        """The ``previous_response_id`` of the request."""
        ...

    @property
    def conversation_id(self) -> str | None:
        """The id of the conversation, if the user has chosen one."""
        ...

    def write(self, placement: Placement, latest: Latest) -> bytes:
        """Return the encoded request for one lane of one socket; called once for each attempt."""
        ...

    def prepare_retry(self, error: ResponsesError) -> bool:
        """Prepare a retry that avoids an error; return whether the request can avoid the error."""
        ...

    def handle_successor(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Called when a steered turn continues with a successor of a Response.

        :param steers: the steering inputs that the successor began with.
        """
        ...

    def count_usage(self, usage: Usage) -> None:
        """Called when a Response has ended whose tokens the server counted, kept or not."""
        ...

    def commit(self, response: Response, pending: Sequence[SteerInput]) -> None:
        """Called when the turn has ended with a Response, which the builder may store.

        :param pending: the steering inputs that the server applies in the next request.
        """
        ...

    async def save(self) -> None:
        """Save what `commit` has stored; called before the caller gets the last event.

        Not a checkpoint if there is nothing to save.

        :raises ResponsesError: when that is not possible.
        """
        ...


class StaticRequest:
    """A request builder whose request is the same on every socket and lane (``stream_id``).

    Only the name of the model depends on the server.
    """

    def __init__(self, command: ResponseCreate, timeouts: Timeouts | None = None) -> None:
        parent = command.previous_response_id
        self.parent: str | None = parent if isinstance(parent, str) else None
        self.model: str | None = command.model if isinstance(command.model, str) else None
        self.conversation_id: str | None = None
        self.observer: TurnObserver | None = None
        self.timeouts: Timeouts | None = timeouts
        self.is_warm_up: bool = command.generate is False
        self.is_background: bool = command.background is True
        limit = command.max_output_tokens
        self.max_output_tokens: int | None = limit if isinstance(limit, int) else None
        self._payload = wire.encode(command)

    def count_input_bytes(self) -> int:
        """Return the size of the request. What its parent has is not known."""
        return len(self._payload)

    def write(self, placement: Placement, latest: Latest) -> bytes:  # noqa: ARG002 - the Protocol
        """Return the encoded request, with the name that its model has at the server."""
        return map_model(self._payload, placement.server.models)

    def prepare_retry(self, error: ResponsesError) -> bool:  # noqa: ARG002 - the Protocol
        """Return `False`: the same request would fail again."""
        return False

    def handle_successor(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Do nothing."""

    def count_usage(self, usage: Usage) -> None:
        """Do nothing."""

    def commit(self, response: Response, pending: Sequence[SteerInput]) -> None:
        """Do nothing."""

    async def save(self) -> None:
        """Do nothing."""


def create_command(
    params: Mapping[str, Any], given: Input | None = None, *, generate: bool | None = None
) -> ResponseCreate:
    """Return the command for checked parameters and an input.

    :param params: parameters that `check_params` accepts.
    :param given: the input; `None` leaves the field out.
    :param generate: `False` for a warm-up; `None` leaves the field out.
    :raises TypeError: for a value that is no input.
    :raises ValueError: for an item without the keys of its type.
    """
    fields = merge_extra_body(params)
    if given is not None:
        fields["input"] = check_input(given)
    if generate is not None:
        fields["generate"] = generate
    return command_of(fields)


def command_of(fields: Mapping[str, Any]) -> ResponseCreate:
    """Return a command with the given fields; those that this version does not know are kept."""
    known = dict(fields)
    if not CREATE_FIELDS.issuperset(known):
        known["extra"] = {name: known.pop(name) for name in fields if name not in CREATE_FIELDS}
    if known.get("tools"):
        known["tools"] = tool_definitions(known["tools"])
    return wire.ResponseCreate(**known)


def raw_items(given: Input | None) -> list[msgspec.Raw]:
    """Return the raw JSON of each item of an input.

    :raises TypeError: for a value that is no input or has no JSON form; the message names its
        place.
    :raises ValueError: for an item without the keys of its type.
    """
    return list(raw_input(given))


def raw_input(given: Input | None) -> RawItems:
    """Return the raw JSON of all items of an input.

    :raises TypeError: for a value that is no input or has no JSON form; the message names its
        place.
    :raises ValueError: for an item without the keys of its type.
    """
    if given is None:
        return RawItems()
    items = check_input(given)
    if isinstance(items, str):
        items = [{"type": "message", "role": "user", "content": items}]
    command = wire.encode(wire.ResponseCreate(input=items))
    return RawItems(bytes(_decoder.decode(command).input)[1:-1], len(items))


def map_model(payload: bytes, models: Mapping[str, str]) -> bytes:
    """Return an encoded request with the name that its model has at a server.

    All other values keep their bytes.

    :param models: the names at the server, by the names in requests; mostly empty.
    """
    if not models:
        return payload
    fields = _object_decoder.decode(payload)
    model = msgspec.json.decode(fields.get("model", b"null"))
    if not isinstance(model, str) or model not in models:
        return payload
    fields["model"] = msgspec.Raw(msgspec.json.encode(models[model]))
    return msgspec.json.encode(fields)


class _EncodedInput(msgspec.Struct):
    """The field ``input`` of an encoded ``response.create``, as raw JSON."""

    input: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(_EncodedInput)
_object_decoder: Final = msgspec.json.Decoder(dict[str, msgspec.Raw])
