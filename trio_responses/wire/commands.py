"""What a client says: ``response.create`` and ``response.steer``.

A field that is ``UNSET`` is left out, a field that is ``None`` is sent as null: to some settings
that makes a difference. Settings that are objects are plain JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from .base import JSON
from .items import InputItem
from .tools import Tool

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
    input: Input | UnsetType = UNSET
    instructions: str | UnsetType | None = UNSET
    previous_response_id: str | UnsetType | None = UNSET
    stream_id: str | UnsetType = UNSET
    generate: bool | UnsetType = UNSET
    store: bool | UnsetType | None = UNSET
    tools: Sequence[Tool | Mapping[str, Any]] | UnsetType = UNSET
    tool_choice: str | Mapping[str, Any] | UnsetType = UNSET
    parallel_tool_calls: bool | UnsetType | None = UNSET
    max_tool_calls: int | UnsetType | None = UNSET
    max_output_tokens: int | UnsetType | None = UNSET
    reasoning: Mapping[str, Any] | UnsetType | None = UNSET
    text: Mapping[str, Any] | UnsetType = UNSET
    temperature: float | UnsetType | None = UNSET
    top_p: float | UnsetType | None = UNSET
    top_logprobs: int | UnsetType | None = UNSET
    include: Sequence[str] | UnsetType | None = UNSET
    metadata: Mapping[str, str] | UnsetType | None = UNSET
    context_management: Sequence[Mapping[str, Any]] | UnsetType | None = UNSET
    conversation: str | Mapping[str, Any] | UnsetType | None = UNSET
    prompt: Mapping[str, Any] | UnsetType | None = UNSET
    prompt_cache_key: str | UnsetType | None = UNSET
    prompt_cache_options: Mapping[str, Any] | UnsetType = UNSET
    prompt_cache_retention: str | UnsetType | None = UNSET
    safety_identifier: str | UnsetType | None = UNSET
    service_tier: str | UnsetType | None = UNSET
    truncation: str | UnsetType | None = UNSET
    moderation: Mapping[str, Any] | UnsetType | None = UNSET
    access_programs: Mapping[str, Any] | UnsetType = UNSET
    image: Mapping[str, Any] | UnsetType = UNSET
    user: str | UnsetType = UNSET
    stream: bool | UnsetType | None = UNSET
    stream_options: Mapping[str, Any] | UnsetType | None = UNSET
    background: bool | UnsetType | None = UNSET
    background_options: Mapping[str, Any] | UnsetType = UNSET
    extra: Mapping[str, JSON] | UnsetType = UNSET

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
    input: Input

    @property
    def type(self) -> str:
        """``response.steer``."""
        return str(self.__struct_config__.tag)


ClientEvent: TypeAlias = ResponseCreate | ResponseSteer
