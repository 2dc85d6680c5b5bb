"""The settings of the turns of a conversation: all fields of a request except its input.

Settings are copied and encoded once, when a conversation begins, because each turn repeats them
all. Later changes to the objects that the caller passed have no effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, final

import msgspec

from trio_responses import _wire as wire
from trio_responses._protocol.continuation import canonical_settings, with_encrypted_reasoning
from trio_responses._protocol.replay import Origin
from trio_responses._tools.choosing import choice_among
from trio_responses._tools.namespace import definitions_of, tool_definitions
from trio_responses._turn.request_builder import command_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from trio_responses._protocol.continuation import ServerTraits
    from trio_responses._protocol.raw_items import RawItems
    from trio_responses._tools.namespace import ToolLike

__all__ = ["TurnSettings", "copy_settings"]


@final
class TurnSettings:
    """The settings of a turn, already encoded: all request fields except the input.

    :param given: checked settings by name; those that are ``UNSET`` are left out.
    :raises TypeError: for a value that has no JSON form.
    """

    def __init__(self, given: Mapping[str, Any]) -> None:
        plain = {name: value for name, value in given.items() if value is not msgspec.UNSET}
        if plain.get("tools"):
            plain["tools"] = tool_definitions(plain["tools"])
        model = plain.get("model")
        self.plain: dict[str, Any] = plain
        """The settings as they were given, tools as their definitions."""
        self.model: str | None = model if isinstance(model, str) else None
        """The model."""
        self.stored: bool = plain.get("store") is True
        """Whether the server stores the response, so that every socket can continue it."""
        self.origin: Origin = Origin(self.model, stored=plain.get("store") is not False)
        """The settings that items of the turn are kept with."""
        self._head = _encode(plain)
        self.canonical: bytes = canonical_settings(self._head)
        """All settings in a form in which equal settings are equal bytes."""

    def with_tools(self, tools: Sequence[ToolLike]) -> TurnSettings:
        """Return the settings of a turn with the tools that a run has chosen for it.

        :raises ConfigurationError: for a ``tool_choice`` that needs a tool which they lack.
        """
        plain = {**self.plain, "tools": definitions_of(tools)}
        if "tool_choice" in plain and "prompt" not in plain:  # a stored prompt may have more tools
            plain["tool_choice"] = choice_among(plain["tool_choice"], tools)
        return TurnSettings(plain)

    def encode_request(
        self,
        items: Sequence[RawItems],
        previous_response_id: str | None,
        *,
        generate: bool | None,
        server: ServerTraits,
    ) -> bytes:
        """Return an encoded request with these settings.

        :param items: the input.
        :param previous_response_id: the parent; `None` for full input.
        :param generate: `False` for a warm-up; `None` leaves the field out.
        :param server: the server that the request is sent to.
        """
        rest: dict[str, Any] = {}
        changes: dict[str, Any] = {}
        if previous_response_id is not None:
            rest["previous_response_id"] = previous_response_id
            if not server.instructions_with_parent and "instructions" in self.plain:
                changes["instructions"] = msgspec.UNSET
        if self.model is not None and self.model in server.models:
            changes["model"] = server.models[self.model]
        head = _encode({**self.plain, **changes}) if changes else self._head
        if generate is not None:
            rest["generate"] = generate
        joined = b",".join([some.json for some in items if some.count])
        more = b"," + msgspec.json.encode(rest)[1:-1] if rest else b""
        return b'%b%b,"input":[%b]}' % (head[:-1], more, joined)


def copy_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return a deep copy of settings as plain JSON values."""
    copy: dict[str, Any] = msgspec.json.decode(wire.encode(command_of(settings)))
    del copy["type"]
    return copy


def _encode(settings: Mapping[str, Any]) -> bytes:
    return wire.encode(command_of(with_encrypted_reasoning(settings)))
