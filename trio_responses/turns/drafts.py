"""What a turn says, before it is known where it goes.

A stream does not send a command but a *draft*, which is written for a place: one lane of one
socket. So a conversation can decide there what the server lacks.

What belongs elsewhere: the draft of a conversation (`conversation/exchange.py`), sending
(`connection/sending.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias

import msgspec

from trio_responses import wire
from trio_responses.core.history import RawItems
from trio_responses.errors import ConfigurationError
from trio_responses.tools.toolbox import plain_tools

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.core.continuation import Place
    from trio_responses.core.steering import Submission
    from trio_responses.errors import ResponsesError
    from trio_responses.instruments.instrument import TurnWatch
    from trio_responses.wire import Input, Response, ResponseCreate

__all__ = ["Draft", "Latest", "PlainDraft", "create_command", "raw_input", "raw_items"]

CREATE_FIELDS: Final = frozenset(wire.ResponseCreate.__struct_fields__)

Latest: TypeAlias = Callable[[str | None], str | None]
"""Tells the latest response of a lane, on the socket in question."""


class Draft(Protocol):
    """A request that is written when it is known where it goes."""

    watch: TurnWatch | None
    """Who tells the instruments of its turn."""

    @property
    def model(self) -> str | None:
        """The model that it asks for."""
        ...

    @property
    def parent(self) -> str | None:
        """The response that it continues."""
        ...

    def write(self, place: Place, latest: Latest) -> bytes:
        """Write it for a place; once for every attempt."""
        ...

    def repairs(self, error: ResponsesError) -> bool:
        """Whether writing it anew mends this."""
        ...

    def advance(self, response: Response, steers: Sequence[Submission]) -> None:
        """Take note of a Response that was not the last one: its successor has begun.

        :param steers: what the successor began with.
        """
        ...

    def settle(self, response: Response, waiting: Sequence[Submission]) -> None:
        """Take note of the Response that it ended with.

        :param waiting: what the server holds back for the request that continues it.
        """
        ...


class PlainDraft:
    """A request that is the same wherever it goes."""

    def __init__(self, command: ResponseCreate) -> None:
        parent = command.previous_response_id
        self.parent: str | None = parent if isinstance(parent, str) else None
        self.model: str | None = command.model if isinstance(command.model, str) else None
        self.watch: TurnWatch | None = None
        self._payload = wire.encode(command)

    def write(self, place: Place, latest: Latest) -> bytes:  # noqa: ARG002 - the form of a Draft
        """Give it."""
        return self._payload

    def repairs(self, error: ResponsesError) -> bool:  # noqa: ARG002 - likewise
        """Nothing can be mended by sending the same again."""
        return False

    def advance(self, response: Response, steers: Sequence[Submission]) -> None:
        """Nothing depends on it."""

    def settle(self, response: Response, waiting: Sequence[Submission]) -> None:
        """Nothing depends on it."""


def create_command(params: dict[str, Any]) -> ResponseCreate:
    """Make a command of keyword arguments: what it has no field for goes into ``extra``.

    :raises ConfigurationError: for ``stream_id``, which is the connection's business, and for a
        plain function as a tool.
    """
    known = {name: params[name] for name in params if name in CREATE_FIELDS}
    unknown = {name: params[name] for name in params if name not in CREATE_FIELDS}
    if unknown:
        known["extra"] = {**unknown, **known.get("extra", {})}
    if known.get("tools"):
        known["tools"] = plain_tools(known["tools"])
    command = wire.ResponseCreate(**known)
    if command.stream_id is not msgspec.UNSET:
        raise ConfigurationError("not stream_id: connection.lane(name) gives a lane of one's own")
    return command


def raw_items(given: Input) -> list[msgspec.Raw]:
    """Bring input into the raw JSON of its items.

    :raises TypeError: for what cannot be JSON; the message names the place.
    """
    return list(raw_input(given))


def raw_input(given: Input) -> RawItems:
    """Bring input into the raw JSON of its items, in one piece.

    :raises TypeError: for what cannot be JSON; the message names the place.
    """
    if isinstance(given, str):
        given = [wire.Message(role="user", content=given)]
    command = wire.encode(wire.ResponseCreate(input=given))
    array = bytes(_decoder.decode(command).input)
    if not array.startswith(b"["):
        raise TypeError(f"input is text or a sequence of items, not {type(given).__qualname__}")
    return RawItems(array[1:-1], len(given))


class _Input(msgspec.Struct):
    input: msgspec.Raw


_decoder: Final = msgspec.json.Decoder(_Input)
