"""A structured-concurrency client for the Responses API in WebSocket mode, on Trio.

Records of the wire format are in `trio_responses.types`, aliases for annotations in
`trio_responses.typing`.
"""

from trio_responses._client import ResponsesConnection, connect_responses, open_responses
from trio_responses._conversation.conversation import (
    Conversation,
    ConversationStatistics,
    ToolContext,
)
from trio_responses._conversation.run import RunStream
from trio_responses._endpoint import VERSION, Endpoint
from trio_responses._errors import (
    APIError,
    AuthenticationError,
    BufferOverflow,
    CallInterrupted,
    CallNotRejectable,
    ConfigurationError,
    ConnectError,
    ConnectionClosed,
    ConnectionLimitReached,
    ConnectionLost,
    ConnectTimeout,
    DeliveryStatus,
    FirstEventTimeout,
    HandshakeRejected,
    IncompleteError,
    InvalidStreamId,
    KeepaliveTimeout,
    MaxRoundsExceeded,
    MessageTooLarge,
    ParseError,
    ParseMismatchError,
    PreviousResponseNotFound,
    ProxyError,
    RateLimitError,
    ReconnectFailed,
    RefusalError,
    RequestTooLarge,
    ResponseFailedError,
    ResponsesError,
    SafetyChecksPending,
    SendTimeout,
    ServerOverloaded,
    StallTimeout,
    StreamLimitReached,
    ToolRetriesExceeded,
    UndecodableCall,
    UndecodableResponse,
    UnexpectedOutput,
    UnsupportedByTransport,
    UpgradeUnsupported,
)
from trio_responses._instruments.instrument import Instrument
from trio_responses._instruments.log import LoggingInstrument
from trio_responses._instruments.recording import Recorder, Recording
from trio_responses._json_types.json_type import InvalidJSON, JSONType, strict_schema
from trio_responses._lifecycle import (
    ConnectionRestored,
    ConnectionRotated,
    ConnectionState,
    ConnectionStatistics,
    TransportChanged,
    TurnRestarted,
)
from trio_responses._pool import PoolEndpoint, PoolStatistics, ResponsesPool, open_pool
from trio_responses._protocol.accumulator import ItemSnapshot, Snapshot
from trio_responses._protocol.requests import SteerState
from trio_responses._rate_limiter import RateLimiter
from trio_responses._settings import (
    Keepalive,
    Limits,
    ReconnectPolicy,
    ReplayPolicy,
    RotationPolicy,
    Timeouts,
)
from trio_responses._tools.exceptions import ModelRetry
from trio_responses._tools.function import (
    FunctionTool,
    InvalidArguments,
    InvalidResult,
    function_tool,
)
from trio_responses._tools.namespace import Namespace
from trio_responses._tools.parsing import ParsedResponse
from trio_responses._tools.toolbox import ToolFinished, ToolProgress, ToolStarted
from trio_responses._turn.methods import Lane
from trio_responses._turn.responses import Responses
from trio_responses._turn.steering import SteerReceipt
from trio_responses._turn.stream import ResponseStream

__all__ = [
    "APIError",
    "AuthenticationError",
    "BufferOverflow",
    "CallInterrupted",
    "CallNotRejectable",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionLimitReached",
    "ConnectionLost",
    "ConnectionRestored",
    "ConnectionRotated",
    "ConnectionState",
    "ConnectionStatistics",
    "Conversation",
    "ConversationStatistics",
    "DeliveryStatus",
    "Endpoint",
    "FirstEventTimeout",
    "FunctionTool",
    "HandshakeRejected",
    "IncompleteError",
    "Instrument",
    "InvalidArguments",
    "InvalidJSON",
    "InvalidResult",
    "InvalidStreamId",
    "ItemSnapshot",
    "JSONType",
    "Keepalive",
    "KeepaliveTimeout",
    "Lane",
    "Limits",
    "LoggingInstrument",
    "MaxRoundsExceeded",
    "MessageTooLarge",
    "ModelRetry",
    "Namespace",
    "ParseError",
    "ParseMismatchError",
    "ParsedResponse",
    "PoolEndpoint",
    "PoolStatistics",
    "PreviousResponseNotFound",
    "ProxyError",
    "RateLimitError",
    "RateLimiter",
    "ReconnectFailed",
    "ReconnectPolicy",
    "Recorder",
    "Recording",
    "RefusalError",
    "ReplayPolicy",
    "RequestTooLarge",
    "ResponseFailedError",
    "ResponseStream",
    "Responses",
    "ResponsesConnection",
    "ResponsesError",
    "ResponsesPool",
    "RotationPolicy",
    "RunStream",
    "SafetyChecksPending",
    "SendTimeout",
    "ServerOverloaded",
    "Snapshot",
    "StallTimeout",
    "SteerReceipt",
    "SteerState",
    "StreamLimitReached",
    "Timeouts",
    "ToolContext",
    "ToolFinished",
    "ToolProgress",
    "ToolRetriesExceeded",
    "ToolStarted",
    "TransportChanged",
    "TurnRestarted",
    "UndecodableCall",
    "UndecodableResponse",
    "UnexpectedOutput",
    "UnsupportedByTransport",
    "UpgradeUnsupported",
    "__version__",
    "connect_responses",
    "function_tool",
    "open_pool",
    "open_responses",
    "strict_schema",
]

__version__: str = VERSION
"""The version of the installed package, for example ``"0.2.0"``."""
