"""What a turn says, before it is known where it goes.

A stream does not send a command but a *draft*, which is written for a place: one lane of one
socket. So a conversation can decide there what the server lacks.

What belongs elsewhere: the draft of a conversation (`conversation/exchange.py`), sending
(`connection/sending.py`).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeAlias, final

import msgspec

from trio_responses import _wire as wire
from trio_responses._errors import ConfigurationError
from trio_responses._protocol.continuation import canonical, with_encrypted_reasoning
from trio_responses._protocol.raw_items import RawItems
from trio_responses._tools.toolbox import plain_tools

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_responses._errors import ResponsesError
    from trio_responses._instruments.instrument import TurnObserver
    from trio_responses._protocol.continuation import Placement, RequestInput
    from trio_responses._protocol.requests import SteerInput
    from trio_responses._wire import Input, Response, ResponseCreate

__all__ = [
    "Latest",
    "RequestBuilder",
    "StaticRequest",
    "TurnSettings",
    "create_command",
    "raw_input",
    "raw_items",
    "taken",
]

CREATE_FIELDS: Final = frozenset(wire.ResponseCreate.__struct_fields__)

Latest: TypeAlias = Callable[[str | None], str | None]
"""Tells the latest response of a lane, on the socket in question."""


class RequestBuilder(Protocol):
    """A request that is written when it is known where it goes."""

    observer: TurnObserver | None
    """Who tells the instruments of its turn."""

    @property
    def model(self) -> str | None:
        """The model that it asks for."""
        ...

    @property
    def parent(self) -> str | None:
        """The response that it continues."""
        ...

    def write(self, place: Placement, latest: Latest) -> bytes:
        """Write it for a place; once for every attempt."""
        ...

    def repairs(self, error: ResponsesError) -> bool:
        """Whether writing it anew mends this."""
        ...

    def advance(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Take note of a Response that was not the last one: its successor has begun.

        :param steers: what the successor began with.
        """
        ...

    def settle(self, response: Response, waiting: Sequence[SteerInput]) -> None:
        """Take note of the Response that it ended with.

        :param waiting: what the server holds back for the request that continues it.
        """
        ...


class StaticRequest:
    """A request that is the same wherever it goes."""

    def __init__(self, command: ResponseCreate) -> None:
        parent = command.previous_response_id
        self.parent: str | None = parent if isinstance(parent, str) else None
        self.model: str | None = command.model if isinstance(command.model, str) else None
        self.observer: TurnObserver | None = None
        self._payload = wire.encode(command)

    def write(self, place: Placement, latest: Latest) -> bytes:  # noqa: ARG002 - the form of a Draft
        """Give it."""
        return self._payload

    def repairs(self, error: ResponsesError) -> bool:  # noqa: ARG002 - likewise
        """Nothing can be mended by sending the same again."""
        return False

    def advance(self, response: Response, steers: Sequence[SteerInput]) -> None:
        """Nothing depends on it."""

    def settle(self, response: Response, waiting: Sequence[SteerInput]) -> None:
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

NOT_SETTINGS: Final = frozenset(
    {"conversation", "input", "previous_response_id", "stream_id", "generate"}
)


@final
class TurnSettings:
    """What a turn asks for, apart from its input. They are taken as they are now, in depth.

    :param given: settings; what is as good as not given is left out.
    :param of: whose settings they are, for the message.
    :raises ConfigurationError: for what is no setting, and for a plain function as a tool.
    :raises TypeError: for what cannot be JSON.
    """

    def __init__(self, given: Mapping[str, Any], of: str) -> None:
        wrong = NOT_SETTINGS.intersection(given)
        if wrong:
            raise ConfigurationError(f"not a setting of a {of}: {', '.join(sorted(wrong))}")
        plain = {name: value for name, value in given.items() if value is not msgspec.UNSET}
        if plain.get("tools"):
            plain["tools"] = plain_tools(plain["tools"])
        model = plain.get("model")
        self.plain: dict[str, Any] = plain
        """As they were given, tools as their definitions."""
        self.model: str | None = model if isinstance(model, str) else None
        """The model that they ask for."""
        self.stored: bool = plain.get("store") is True
        """Whether the server is told to keep the response for every socket."""
        self._head = _encode(plain)
        self.canonical: bytes = canonical(self._head)
        """All of them, in a form in which equal ones are equal bytes."""

    def request(self, plan: RequestInput, *, generate: bool | None, instructions: bool) -> bytes:
        """Write a request.

        :param generate: `False` for a warm-up.
        :param instructions: whether the server takes them beside a response to continue from.
        """
        head, parent = self._head, plan.previous_response_id
        rest: dict[str, Any] = {}
        if parent is not None:
            rest["previous_response_id"] = parent
            if not instructions and "instructions" in self.plain:
                head = _encode({**self.plain, "instructions": msgspec.UNSET})
        if generate is not None:
            rest["generate"] = generate
        said = b",".join([items.json for items in plan.input if items.count])
        more = b"," + msgspec.json.encode(rest)[1:-1] if rest else b""
        return b'%b%b,"input":[%b]}' % (head[:-1], more, said)


def taken(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Copy settings in depth, as plain JSON."""
    copy: dict[str, Any] = msgspec.json.decode(wire.encode(create_command(dict(settings))))
    del copy["type"]
    return copy


def _encode(settings: Mapping[str, Any]) -> bytes:
    return wire.encode(create_command(with_encrypted_reasoning(settings)))
