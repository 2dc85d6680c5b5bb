"""Aliases for annotations of programs that use this library."""

from trio_responses._conversation.run import RunEvent
from trio_responses._endpoint import ApiKey, Headers
from trio_responses._instruments.recording import Redact
from trio_responses._lifecycle import Event, StreamEvent
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses._settings import OnAbandonedTurn
from trio_responses._tools.toolbox import Approve, Handler, OnToolError, ToolLike
from trio_responses._transport.proxy import ProxyOption
from trio_responses._transport.websocket import Dial

__all__ = [
    "ApiKey",
    "Approve",
    "DeliveryMode",
    "Dial",
    "Event",
    "Handler",
    "Headers",
    "OnAbandonedTurn",
    "OnToolError",
    "ProxyOption",
    "Redact",
    "RunEvent",
    "StreamEvent",
    "ToolLike",
]
