"""The parameters of a request, as typed dicts.

``ResponseCreateParams`` lists the fields of ``response.create`` that callers set, and
``ConversationParams`` those of them that hold for a whole conversation. Both have the
``RequestParams``; they differ in ``tools``, which the runs of a conversation may choose. The
methods of connections and conversations take them as keyword arguments; ``param_checks`` checks
them at run time. `WORDS` says which fields take a fixed set of words.

The fields that the library sets itself (``stream_id``, ``generate``, ``stream``)
are no parameters. Fields that this version does not know go through ``extra_body``.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple, Protocol, Required, TypeAlias, TypedDict

from trio_responses._wire.tools import Tool


class HasToolDefinition(Protocol):
    """A tool with a definition, such as a function tool or a namespace."""

    @property
    def definition(self) -> Tool:
        """The definition that the model sees."""
        ...


ChooseTools: TypeAlias = Callable[
    [Any],
    Sequence[Tool | Mapping[str, Any] | HasToolDefinition]
    | Awaitable[Sequence[Tool | Mapping[str, Any] | HasToolDefinition]],
]
"""Called with a `ToolContext` before each turn of a run: returns the tools of the turn."""


class ReasoningParam(TypedDict, total=False):
    """Settings of reasoning models."""

    effort: str | None
    """How much the model reasons: ``none``, ``minimal``, ``low``, ``medium``, ``high``, ``xhigh``,
    ``max``. Not every model accepts every word."""
    summary: Literal["auto", "concise", "detailed"] | None
    """The kind of summary of the reasoning to return; without it, the server returns none."""
    context: Literal["auto", "current_turn", "all_turns"] | None
    """The turns whose reasoning the model sees."""
    mode: str
    """``standard`` or ``pro``."""
    generate_summary: Literal["auto", "concise", "detailed"] | None
    """Deprecated: use ``summary``."""


class TextFormatText(TypedDict, total=False):
    """The format of plain text, the default."""

    type: Required[Literal["text"]]


class TextFormatJsonSchema(TypedDict, total=False):
    """The format of JSON that matches a schema; ``parse()`` sets it for a Python type."""

    type: Required[Literal["json_schema"]]
    name: Required[str]
    """Name of the format: letters, digits, underscores and dashes, at most 64 characters."""
    schema: Required[Mapping[str, Any]]
    """The JSON schema."""
    description: str
    """What the format is for; the model reads this text."""
    strict: bool | None
    """Whether the output always matches the schema. Strict mode allows a subset of JSON Schema."""


class TextFormatJsonObject(TypedDict, total=False):
    """The older format of JSON without a schema. The input must ask for JSON."""

    type: Required[Literal["json_object"]]


TextFormatParam: TypeAlias = TextFormatText | TextFormatJsonSchema | TextFormatJsonObject
"""The format of the output text."""


class TextParam(TypedDict, total=False):
    """Settings of the output text."""

    format: TextFormatParam
    """The format of the text; the default is plain text."""
    verbosity: Literal["low", "medium", "high"] | None
    """How long the answers of the model are; the default is ``medium``."""


class ToolChoiceAllowed(TypedDict, total=False):
    """A choice that restricts the model to some of the tools."""

    type: Required[Literal["allowed_tools"]]
    mode: Required[Literal["auto", "required"]]
    """``auto`` lets the model answer without a tool, ``required`` does not."""
    tools: Required[Sequence[Mapping[str, Any]]]
    """The allowed tools, such as ``{"type": "function", "name": "get_weather"}``."""


class ToolChoiceFunction(TypedDict, total=False):
    """A choice that requires a call of one function."""

    type: Required[Literal["function"]]
    name: Required[str]
    """Name of the function."""
    namespace: str
    """Name of the function's namespace, if it has one."""


class ToolChoiceCustom(TypedDict, total=False):
    """A choice that requires a call of one custom tool."""

    type: Required[Literal["custom"]]
    name: Required[str]
    """Name of the custom tool."""
    namespace: str
    """Name of the tool's namespace, if it has one."""


class ToolChoiceMcp(TypedDict, total=False):
    """A choice that requires a call of a tool of one MCP server."""

    type: Required[Literal["mcp"]]
    server_label: Required[str]
    """Label of the MCP server."""
    name: str | None
    """Name of the tool; any tool of the server without it."""


class ToolChoiceType(TypedDict, total=False):
    """A choice that requires a tool of one type, such as ``{"type": "file_search"}``."""

    type: Required[str]
    """The type of the tool: ``file_search``, ``web_search_preview``, ``computer``,
    ``image_generation``, ``code_interpreter``, ``programmatic_tool_calling``, ``apply_patch``,
    ``shell`` and others."""


ToolChoiceParam: TypeAlias = (
    Literal["none", "auto", "required"]
    | ToolChoiceAllowed
    | ToolChoiceFunction
    | ToolChoiceCustom
    | ToolChoiceMcp
    | ToolChoiceType
)
"""Which tools the model calls: ``none``, its own choice (``auto``), at least one (``required``), or
the tool that an object names."""


class PromptParam(TypedDict, total=False):
    """A prompt template that the server stores, with the values of its variables."""

    id: Required[str]
    """Id of the template."""
    variables: Mapping[str, Any] | None
    """The values of the variables: text, or content parts such as `InputText`."""
    version: str | None
    """Version of the template."""


class StreamOptionsParam(TypedDict, total=False):
    """Settings of the events of a response."""

    include_obfuscation: bool
    """Whether delta events have padding that hides their length; `False` saves bandwidth."""


class ContextManagementParam(TypedDict, total=False):
    """A rule by which the server shortens the context."""

    type: Required[str]
    """``compaction``."""
    compact_threshold: int | None
    """Number of tokens from which the server compacts the conversation."""


class PromptCacheOptionsParam(TypedDict, total=False):
    """Settings of the prompt cache."""

    mode: Literal["implicit", "explicit"]
    """Whether the server places a cache breakpoint itself, in addition to those in the input."""
    ttl: str
    """Minimum lifetime of what the request caches: ``30m`` or ``12h``."""
    prewarm: bool
    """Whether to fill the cache without output; this overrides ``generate``."""
    comparison_response_id: str | None
    """Id of a response to compare with, for diagnostics of the cache."""


class ModerationRuleParam(TypedDict, total=False):
    """What moderation does with a text."""

    mode: Literal["score", "block"]
    """``score`` only reports, ``block`` stops the response."""


class ModerationPolicyParam(TypedDict, total=False):
    """The moderation of the input and of the output."""

    input: ModerationRuleParam | None
    """The rule for the input."""
    output: ModerationRuleParam | None
    """The rule for the output."""


class ModerationParam(TypedDict, total=False):
    """The moderation of a response."""

    model: Required[str]
    """The moderation model, such as ``omni-moderation-latest``."""
    policy: ModerationPolicyParam | None
    """What moderation does with the input and the output."""


class AccessProgramsParam(TypedDict, total=False):
    """The access programs that the request uses."""

    cyber: str
    """The program for cyber security: ``standard``, ``daybreak_blue`` or ``daybreak_red``."""


class ImageParam(TypedDict, total=False):
    """Settings of the images in the input."""

    context_compression: Literal["auto", "enabled", "disabled"]
    """Whether the server compresses images in the context; the default is ``auto``."""


class MultiAgentParam(TypedDict, total=False):
    """Settings of subagents (beta, multi-agent)."""

    enabled: Required[bool]
    """Whether the model may start subagents."""
    max_concurrent_subagents: int
    """Maximum number of subagents at the same time."""


class ConversationParam(TypedDict, total=False):
    """A conversation that the server stores."""

    id: Required[str]
    """Id of the conversation."""


class RequestParams(TypedDict, total=False):
    """The parameters of a response that are the same for a whole conversation.

    A parameter that is left out is not sent. `None` is sent as null.
    """

    model: str
    """The model, or the name of a deployment."""
    instructions: str | None
    """System or developer instructions. The server does not take them over from a previous
    response; a conversation sends them with each turn."""
    tool_choice: ToolChoiceParam
    """Which tools the model calls; the default is ``auto``."""
    parallel_tool_calls: bool | None
    """Whether the model may call several tools at once; the default is true."""
    max_tool_calls: int | None
    """Maximum number of calls of the server's own tools in a response."""
    max_output_tokens: int | None
    """Maximum number of output tokens, reasoning tokens included."""
    reasoning: ReasoningParam | None
    """Settings of reasoning models."""
    text: TextParam
    """Format and verbosity of the output text."""
    temperature: float | None
    """Sampling temperature from 0 to 2; lower values vary less."""
    top_p: float | None
    """Share of the probability mass that sampling considers, from 0 to 1."""
    top_logprobs: int | None
    """Number of most likely tokens to return at each position, from 0 to 20."""
    include: Sequence[str] | None
    """Additional output to return, such as ``reasoning.encrypted_content``,
    ``message.output_text.logprobs``, ``file_search_call.results``, ``web_search_call.results``,
    ``web_search_call.action.sources``, ``code_interpreter_call.outputs``,
    ``message.input_image.image_url`` and ``computer_call_output.output.image_url``."""
    metadata: Mapping[str, str] | None
    """At most 16 keys and values of the caller, which the server stores with the response."""
    background: bool | None
    """Whether the response goes on at the server when its events are not read. Such a turn is sent
    over HTTP, and its stream is resumed when it is lost. Needs the extra ``trio-responses[http]``.
    """
    store: bool | None
    """Whether the server stores the response; the server's default is true."""
    truncation: Literal["auto", "disabled"] | None
    """``auto`` drops the oldest items when the context is full; ``disabled`` fails."""
    context_management: Sequence[ContextManagementParam] | None
    """When the server compacts the conversation."""
    prompt: PromptParam | None
    """A prompt template that the server stores. Text for the model is the input."""
    prompt_cache_key: str | None
    """Key by which requests with the same prefix share a cache."""
    prompt_cache_options: PromptCacheOptionsParam
    """Settings of the prompt cache."""
    prompt_cache_retention: Literal["in_memory", "24h"] | None
    """Deprecated: use the ``ttl`` of ``prompt_cache_options``."""
    safety_identifier: str | None
    """A stable identifier of the end user, such as a hash; at most 128 characters."""
    service_tier: str | None
    """The service tier: ``auto``, ``default``, ``flex``, ``scale``, ``priority``, ``fast`` or
    ``ultrafast``."""
    moderation: ModerationParam | None
    """The moderation of input and output."""
    access_programs: AccessProgramsParam
    """The access programs that the request uses."""
    image: ImageParam
    """Settings of the images in the input."""
    multi_agent: MultiAgentParam | None
    """Settings of subagents (beta, multi-agent)."""
    stream_options: StreamOptionsParam | None
    """Settings of the events of a response."""
    user: str
    """Deprecated: use ``safety_identifier`` and ``prompt_cache_key``."""
    extra_body: Mapping[str, Any]
    """Fields that this version does not know. They are merged into the request: objects key by
    key, at every depth; any other value replaces the value of the parameter."""


class ConversationParams(RequestParams, total=False):
    """The parameters that hold for a whole conversation.

    A parameter that is left out is not sent. `None` is sent as null.
    """

    tools: Sequence[Tool | Mapping[str, Any] | HasToolDefinition] | ChooseTools
    """The tools that the model may call: function tools, or definitions of any tools. For runs also
    a function, sync or async, that is called before each turn and returns them."""


class ResponseCreateParams(RequestParams, total=False):
    """The parameters of one response, but for its input."""

    tools: Sequence[Tool | Mapping[str, Any] | HasToolDefinition]
    """The tools that the model may call: function tools, or definitions of any tools."""
    previous_response_id: str | None
    """Id of the response that this one continues. A response that was not stored can be continued
    only on its own lane and socket."""
    conversation: str | ConversationParam | None
    """A conversation that the server stores. Cannot be combined with ``previous_response_id``."""


class WordList(NamedTuple):
    """The words of a field: all words that the API accepts, or those that are known."""

    kind: Literal["closed", "open"]
    """``closed`` refuses any other word before the request is sent, ``open`` sends any text."""
    words: tuple[str, ...]
    reason: str
    """Why the field is closed or open."""


_SWITCH = "a switch of the protocol, with the same words since it exists"
_SHAPE = "the word decides which other keys the object has"
_MODELS = "new models add words"
_SERVERS = "servers add words"

WORDS: dict[str, WordList] = {
    "reasoning.effort": WordList(
        "open", ("none", "minimal", "low", "medium", "high", "xhigh", "max"), _MODELS
    ),
    "reasoning.summary": WordList("closed", ("auto", "concise", "detailed"), _SWITCH),
    "reasoning.generate_summary": WordList("closed", ("auto", "concise", "detailed"), _SWITCH),
    "reasoning.context": WordList("closed", ("auto", "current_turn", "all_turns"), _SWITCH),
    "reasoning.mode": WordList("open", ("standard", "pro"), _MODELS),
    "text.format.type": WordList("closed", ("text", "json_schema", "json_object"), _SHAPE),
    "text.verbosity": WordList("closed", ("low", "medium", "high"), _SWITCH),
    "tool_choice": WordList("closed", ("none", "auto", "required"), _SWITCH),
    "tool_choice.type": WordList(
        "open", ("allowed_tools", "function", "custom", "mcp"), "any type of tool is a word"
    ),
    "tool_choice.mode": WordList("closed", ("auto", "required"), _SWITCH),
    "context_management.type": WordList("open", ("compaction",), _SERVERS),
    "prompt_cache_options.mode": WordList("closed", ("implicit", "explicit"), _SWITCH),
    "prompt_cache_options.ttl": WordList("open", ("30m", "12h"), _SERVERS),
    "prompt_cache_retention": WordList(
        "closed", ("in_memory", "24h"), "deprecated, so nothing is added"
    ),
    "truncation": WordList("closed", ("auto", "disabled"), _SWITCH),
    "moderation.policy.input.mode": WordList("closed", ("score", "block"), _SWITCH),
    "moderation.policy.output.mode": WordList("closed", ("score", "block"), _SWITCH),
    "access_programs.cyber": WordList(
        "open", ("standard", "daybreak_blue", "daybreak_red"), _SERVERS
    ),
    "image.context_compression": WordList("closed", ("auto", "enabled", "disabled"), _SWITCH),
    "service_tier": WordList(
        "open", ("auto", "default", "flex", "scale", "priority", "fast", "ultrafast"), _SERVERS
    ),
    "include": WordList(
        "open",
        (
            "file_search_call.results",
            "web_search_call.results",
            "web_search_call.action.sources",
            "message.input_image.image_url",
            "computer_call_output.output.image_url",
            "code_interpreter_call.outputs",
            "reasoning.encrypted_content",
            "message.output_text.logprobs",
        ),
        _SERVERS,
    ),
}
"""Which fields are closed: a word that is not in the list is refused. The others are open: their
words are known ones, and any text is sent. The table is the only place of this decision."""
