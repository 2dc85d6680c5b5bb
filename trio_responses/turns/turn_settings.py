"""The settings of a conversation's turns, encoded once for all turns that have the same.

What belongs elsewhere: which items go along with them (`core/continuation.py`), the draft of a
turn (`conversation/exchange.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, final

import msgspec

from trio_responses import wire
from trio_responses.core.continuation import canonical, with_encrypted_reasoning
from trio_responses.errors import ConfigurationError
from trio_responses.tools.toolbox import plain_tools
from trio_responses.turns.drafts import create_command

if TYPE_CHECKING:
    from collections.abc import Mapping

    from trio_responses.core.continuation import Plan

__all__ = ["TurnSettings", "taken"]

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

    def request(self, plan: Plan, *, generate: bool | None, instructions: bool) -> bytes:
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
