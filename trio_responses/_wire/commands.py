"""What a client says: ``response.create`` and ``response.steer``.

A field that is ``UNSET`` is left out, a field that is ``None`` is sent as null: to some settings
that makes a difference. Settings that are objects are plain JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from trio_responses._wire.base import JSON
from trio_responses._wire.items import InputItem
from trio_responses._wire.tools import Tool

Input: TypeAlias = str | Sequence[InputItem | Mapping[str, Any] | msgspec.Raw]
"""Text, which is one message of the user, or items: typed, as dicts, or raw."""


class ResponseCreate(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="response.create"
):
    """Ask for a response.

    The fields are those of ``POST /v1/responses``, at the top level, with two that only this mode
    has: ``stream_id``, the lane, and ``generate``, which is false for a warm-up. Settings are not
    inherited through ``previous_response_id``; each request carries its own.

    ``stream`` and ``background`` are here since the official SDK types them. Do not send them:
    this mode always streams, and has no background (guide, WebSocket mode).

    ``extra`` holds fields that are not known here. They are sent at the top level::

        ResponseCreate(model=MODEL, input="hi", extra={"multi_agent": {"enabled": True}})
    """

    model: str | UnsetType = UNSET
    """The model, or the name of a deployment. A handshake names none."""
    input: Input | UnsetType = UNSET
    """What is new: all of the conversation that does not stand behind ``previous_response_id``."""
    instructions: str | UnsetType | None = UNSET
    """What the model is told first, for this response alone."""
    previous_response_id: str | UnsetType | None = UNSET
    """The response that this one continues. One that was not stored is known to its lane and
    socket only (docs/protocol.md, 5.1)."""
    stream_id: str | UnsetType = UNSET
    """The lane: turns get theirs by themselves (docs/protocol.md, 5.2)."""
    generate: bool | UnsetType = UNSET
    """`False` prepares without output (docs/protocol.md, 5.4)."""
    store: bool | UnsetType | None = UNSET
    """Whether the response is kept beyond this socket: without this, it is."""
    tools: Sequence[Tool | Mapping[str, Any]] | UnsetType = UNSET
    tool_choice: str | Mapping[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_tool_calls: int | UnsetType | None = UNSET
    """The most calls of the server's own tools."""
    max_output_tokens: int | UnsetType | None = UNSET
    """The most tokens, those of reasoning among them."""
    reasoning: Mapping[str, Any] | UnsetType | None = UNSET
    """How much the model thinks: ``effort``, ``summary``."""
    text: Mapping[str, Any] | UnsetType = UNSET
    """The form of the answer: ``format``, ``verbosity``."""
    temperature: float | UnsetType | None = UNSET
    top_p: float | UnsetType | None = UNSET
    top_logprobs: int | UnsetType | None = UNSET
    """How many of the likeliest tokens are shown at each place."""
    include: Sequence[str] | UnsetType | None = UNSET
    """What is to be shown besides, such as ``reasoning.encrypted_content``."""
    metadata: Mapping[str, str] | UnsetType | None = UNSET
    """What the caller wants stored with the response."""
    context_management: Sequence[Mapping[str, Any]] | UnsetType | None = UNSET
    """When the server compacts what came before (docs/protocol.md, 5.5)."""
    conversation: str | Mapping[str, Any] | UnsetType | None = UNSET
    """A conversation that the server stores; not along with ``previous_response_id``."""
    prompt: Mapping[str, Any] | UnsetType | None = UNSET
    prompt_cache_key: str | UnsetType | None = UNSET
    """Brings requests with the same beginning to the same cache."""
    prompt_cache_options: Mapping[str, Any] | UnsetType = UNSET
    prompt_cache_retention: str | UnsetType | None = UNSET
    safety_identifier: str | UnsetType | None = UNSET
    """Stands for the end user, as a hash."""
    service_tier: str | UnsetType | None = UNSET
    truncation: str | UnsetType | None = UNSET
    """``auto`` leaves out the oldest where the context is full; ``disabled`` fails."""
    moderation: Mapping[str, Any] | UnsetType | None = UNSET
    access_programs: Mapping[str, Any] | UnsetType = UNSET
    image: Mapping[str, Any] | UnsetType = UNSET
    user: str | UnsetType = UNSET
    """The older form of ``safety_identifier`` and ``prompt_cache_key``."""
    stream: bool | UnsetType | None = UNSET
    stream_options: Mapping[str, Any] | UnsetType | None = UNSET
    background: bool | UnsetType | None = UNSET
    background_options: Mapping[str, Any] | UnsetType = UNSET
    extra: Mapping[str, JSON] | UnsetType = UNSET
    """Fields that are not known here, sent at the top level."""

    @property
    def type(self) -> str:
        """``response.create``."""
        return str(self.__struct_config__.tag)


class ResponseSteer(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="response.steer"
):
    """Give a response that is under way a new turn (guide, steering).

    ``input`` is text or messages of the user. Tool outputs do not belong here. The lane is that
    of the response, so there is no ``stream_id``.
    """

    previous_response_id: str
    """The response that is under way."""
    input: Input

    @property
    def type(self) -> str:
        """``response.steer``."""
        return str(self.__struct_config__.tag)


ClientEvent: TypeAlias = ResponseCreate | ResponseSteer
"""What a client can say: what ``connection.send`` takes (docs/protocol.md, 2)."""
