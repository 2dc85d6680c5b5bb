"""Names for annotations: aliases, records, and the parameters of a request as typed dicts."""

from trio_responses._client import ConnectionOptions
from trio_responses._conversation.durable import OnInterruptedCall
from trio_responses._conversation.run import RunEvent
from trio_responses._endpoint import ApiKey, Headers
from trio_responses._instruments.recording import RecordingLine, Redact
from trio_responses._lifecycle import Event, StreamEvent
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses._rate_limiter import RateLimiterStatistics
from trio_responses._settings import OnAbandonedTurn, RecoverOption, TransportOption
from trio_responses._tools.namespace import ToolLike
from trio_responses._tools.schema import Schema
from trio_responses._tools.toolbox import Approve, Handler, OnToolError
from trio_responses._transport.dialing import Dial
from trio_responses._transport.proxy import ProxyOption
from trio_responses._wire.params import (
    AccessProgramsParam,
    ContextManagementParam,
    ConversationParam,
    ConversationParams,
    HasToolDefinition,
    ImageParam,
    ModerationParam,
    ModerationPolicyParam,
    ModerationRuleParam,
    MultiAgentParam,
    PromptCacheOptionsParam,
    PromptParam,
    ReasoningParam,
    ResponseCreateParams,
    StreamOptionsParam,
    TextFormatJsonObject,
    TextFormatJsonSchema,
    TextFormatParam,
    TextFormatText,
    TextParam,
    ToolChoiceAllowed,
    ToolChoiceCustom,
    ToolChoiceFunction,
    ToolChoiceMcp,
    ToolChoiceParam,
    ToolChoiceType,
)

__all__ = [
    "AccessProgramsParam",
    "ApiKey",
    "Approve",
    "ConnectionOptions",
    "ContextManagementParam",
    "ConversationParam",
    "ConversationParams",
    "DeliveryMode",
    "Dial",
    "Event",
    "Handler",
    "HasToolDefinition",
    "Headers",
    "ImageParam",
    "ModerationParam",
    "ModerationPolicyParam",
    "ModerationRuleParam",
    "MultiAgentParam",
    "OnAbandonedTurn",
    "OnInterruptedCall",
    "OnToolError",
    "PromptCacheOptionsParam",
    "PromptParam",
    "ProxyOption",
    "RateLimiterStatistics",
    "ReasoningParam",
    "RecordingLine",
    "RecoverOption",
    "Redact",
    "ResponseCreateParams",
    "RunEvent",
    "Schema",
    "StreamEvent",
    "StreamOptionsParam",
    "TextFormatJsonObject",
    "TextFormatJsonSchema",
    "TextFormatParam",
    "TextFormatText",
    "TextParam",
    "ToolChoiceAllowed",
    "ToolChoiceCustom",
    "ToolChoiceFunction",
    "ToolChoiceMcp",
    "ToolChoiceParam",
    "ToolChoiceType",
    "ToolLike",
    "TransportOption",
]
