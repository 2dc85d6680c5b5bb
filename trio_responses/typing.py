"""Names for annotations: aliases, records, and the parameters of a request as typed dicts."""

from trio_responses._client import ConnectionOptions
from trio_responses._conversation.durable import OnInterruptedCall
from trio_responses._conversation.run import RunEvent
from trio_responses._endpoint import ApiKey, Headers
from trio_responses._instruments.recording import RecordingLine, Redact
from trio_responses._instruments.records import (
    ConnectionRecord,
    LeaseRecord,
    RunRecord,
    SocketRecord,
    StoreOperationRecord,
    ToolRecord,
    TurnRecord,
)
from trio_responses._json_types.adapter import TypeAdapterLike
from trio_responses._json_types.json_type import Schema
from trio_responses._lifecycle import Event, StreamEvent
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses._rate_limiter import RateLimiterStatistics
from trio_responses._settings import OnAbandonedTurn, RecoverOption, TransportOption
from trio_responses._tools.function import IsEnabled
from trio_responses._tools.namespace import ToolLike
from trio_responses._tools.toolbox import Approve, Handler, OnToolError
from trio_responses._transport.dialing import Dial
from trio_responses._transport.proxy import ProxyOption
from trio_responses._wire.params import (
    AccessProgramsParam,
    ChooseTools,
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
    RequestParams,
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
    "ChooseTools",
    "ConnectionOptions",
    "ConnectionRecord",
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
    "IsEnabled",
    "LeaseRecord",
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
    "RequestParams",
    "ResponseCreateParams",
    "RunEvent",
    "RunRecord",
    "Schema",
    "SocketRecord",
    "StoreOperationRecord",
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
    "ToolRecord",
    "TransportOption",
    "TurnRecord",
    "TypeAdapterLike",
]
