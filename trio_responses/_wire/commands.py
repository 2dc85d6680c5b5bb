"""The client events: ``response.create``, ``response.steer`` and ``response.inject``.

A field that is ``UNSET`` is omitted, a field that is ``None`` is sent as null: some settings treat
the two differently. Settings that are objects have no records; they are plain JSON.
"""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal, TypeAlias

import msgspec
from msgspec import UNSET, UnsetType

from trio_responses._wire.base import JSON
from trio_responses._wire.items import InputItem
from trio_responses._wire.tools import Tool

Input: TypeAlias = (
    str
    | InputItem
    | Mapping[str, Any]
    | msgspec.Raw
    | Sequence[InputItem | Mapping[str, Any] | msgspec.Raw]
)
"""The input of a turn: text, which is one user message, or one item, or items. An item is a record,
a dict or raw JSON."""


class ResponseCreate(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="response.create"
):
    """The client event that requests a response.

    The fields are those of ``POST /v1/responses``, at the top level, and two that only WebSocket
    mode has: ``stream_id``, the lane, and ``generate``, which is false for a warm-up. Settings are
    not inherited through ``previous_response_id``; each request needs its own.

    ``stream`` and ``background`` are fields because the official SDK types them. Do not send them
    on a WebSocket: it always streams, and has no background mode (guide, WebSocket mode).

    ``extra`` holds fields that this version does not know. They are sent at the top level::

        ResponseCreate(model=MODEL, input="hi", extra={"brand_new": {"enabled": True}})
    """

    type: ClassVar[Literal["response.create"]] = "response.create"
    model: str | UnsetType = UNSET
    """The model, or the name of a deployment. The handshake names no model."""
    input: str | Sequence[InputItem | Mapping[str, Any] | msgspec.Raw] | UnsetType = UNSET
    """The new input: the part of the conversation that ``previous_response_id`` does not cover."""
    instructions: str | UnsetType | None = UNSET
    """System or developer instructions, for this response alone."""
    previous_response_id: str | UnsetType | None = UNSET
    """The response that this one continues. A response that was not stored can be continued only
    on its own lane and socket (docs/protocol.md, 5.1)."""
    stream_id: str | UnsetType = UNSET
    """The lane. Turns set it automatically (docs/protocol.md, 5.2)."""
    generate: bool | UnsetType = UNSET
    """`False` prepares the state without output, as a warm-up (docs/protocol.md, 5.4)."""
    store: bool | UnsetType | None = UNSET
    """Whether the server keeps the response after the socket closes; the server's default is
    true."""
    tools: Sequence[Tool | Mapping[str, Any]] | UnsetType = UNSET
    """The tools that the model may call, as definitions."""
    tool_choice: str | Mapping[str, Any] | UnsetType = UNSET
    """Which tools the model calls: ``auto``, ``none``, ``required``, or a mapping."""
    parallel_tool_calls: bool | UnsetType | None = UNSET
    """Whether the model may call several tools at once; the server's default is true."""
    max_tool_calls: int | UnsetType | None = UNSET
    """Maximum number of calls of the server's own tools."""
    max_output_tokens: int | UnsetType | None = UNSET
    """Maximum number of output tokens, reasoning tokens included."""
    reasoning: Mapping[str, Any] | UnsetType | None = UNSET
    """Reasoning settings: ``effort``, ``summary``."""
    text: Mapping[str, Any] | UnsetType = UNSET
    """Text settings: ``format``, ``verbosity``."""
    temperature: float | UnsetType | None = UNSET
    """Sampling temperature from 0 to 2; lower values vary less."""
    top_p: float | UnsetType | None = UNSET
    """Share of the probability mass that sampling considers, from 0 to 1."""
    top_logprobs: int | UnsetType | None = UNSET
    """Number of most likely tokens to return at each position."""
    include: Sequence[str] | UnsetType | None = UNSET
    """Additional output to return, such as ``reasoning.encrypted_content``."""
    metadata: Mapping[str, str] | UnsetType | None = UNSET
    """The caller's own keys and values, stored with the response."""
    context_management: Sequence[Mapping[str, Any]] | UnsetType | None = UNSET
    """When the server compacts the conversation (docs/protocol.md, 5.5)."""
    conversation: str | Mapping[str, Any] | UnsetType | None = UNSET
    """A conversation that the server stores. Cannot be combined with ``previous_response_id``."""
    prompt: Mapping[str, Any] | UnsetType | None = UNSET
    """A prompt template that the server stores: ``id``, ``version``, ``variables``."""
    prompt_cache_key: str | UnsetType | None = UNSET
    """Key by which requests with the same prefix use the same cache."""
    prompt_cache_options: Mapping[str, Any] | UnsetType = UNSET
    """Settings of the prompt cache: ``mode``, ``ttl``, ``prewarm``."""
    prompt_cache_retention: str | UnsetType | None = UNSET
    """Deprecated: use the ``ttl`` of ``prompt_cache_options``."""
    safety_identifier: str | UnsetType | None = UNSET
    """Identifies the end user, as a hash."""
    service_tier: str | UnsetType | None = UNSET
    """The service tier, such as ``default``, ``flex`` or ``priority``."""
    truncation: str | UnsetType | None = UNSET
    """``auto`` drops the oldest items when the context is full; ``disabled`` fails."""
    moderation: Mapping[str, Any] | UnsetType | None = UNSET
    """The moderation of input and output: ``model``, ``policy``."""
    access_programs: Mapping[str, Any] | UnsetType = UNSET
    """The access programs that the request uses: ``cyber``."""
    image: Mapping[str, Any] | UnsetType = UNSET
    """Settings of the images in the input: ``context_compression``."""
    multi_agent: Mapping[str, Any] | UnsetType | None = UNSET
    """Settings of subagents (beta, multi-agent)."""
    user: str | UnsetType = UNSET
    """Deprecated: use ``safety_identifier`` and ``prompt_cache_key``."""
    stream: bool | UnsetType | None = UNSET
    """Only for HTTP: whether the answer is a stream of events."""
    stream_options: Mapping[str, Any] | UnsetType | None = UNSET
    """Settings of the events: ``include_obfuscation``."""
    background: bool | UnsetType | None = UNSET
    """Only for HTTP: whether the response continues if its events are not read."""
    background_options: Mapping[str, Any] | UnsetType = UNSET
    """Only for HTTP: settings of a response in the background."""
    extra: Mapping[str, JSON] | UnsetType = UNSET
    """Fields that this version does not know, sent at the top level."""


class ResponseSteer(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="response.steer"
):
    """The client event that adds user input to a response in progress (guide, steering).

    ``input`` is text or user messages; tool outputs are not allowed. The lane is that of the
    response, so the event has no ``stream_id``.
    """

    type: ClassVar[Literal["response.steer"]] = "response.steer"
    previous_response_id: str
    """Id of the response in progress."""
    input: str | Sequence[InputItem | Mapping[str, Any] | msgspec.Raw]
    """The text or the messages to add."""


class ResponseInject(
    msgspec.Struct, frozen=True, kw_only=True, gc=False, tag_field="type", tag="response.inject"
):
    """The client event that adds tool outputs to an active response (beta, multi-agent).

    The outputs wake an agent that waits for them. The server adds all of them, or none: its answer
    is `InjectCreated` or `InjectFailed`.
    """

    type: ClassVar[Literal["response.inject"]] = "response.inject"
    response_id: str
    """Id of the active response."""
    input: Sequence[InputItem | Mapping[str, Any] | msgspec.Raw]
    """The outputs to add."""


ClientEvent: TypeAlias = ResponseCreate | ResponseSteer | ResponseInject
"""An event that a client sends, as ``connection.send`` takes it (docs/protocol.md, 2)."""
