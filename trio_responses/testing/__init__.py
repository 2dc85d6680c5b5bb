"""A Responses server for tests, examples and the command line.

The server speaks the WebSocket mode of the API and HTTP, in memory or over TCP. A test scripts the
answers and faults, and reads the received requests.
"""

from trio_responses.testing._frames import ERROR_SHAPES, ErrorShape, Frame, WireBytes
from trio_responses.testing._records import (
    Connection,
    HTTPRequest,
    Records,
    Request,
    ServerTransport,
    SteerRequest,
    SteerState,
    Transport,
)
from trio_responses.testing._responder import default_answer
from trio_responses.testing._scripts import (
    Answer,
    Call,
    CutEnd,
    Fail,
    How,
    OnSteer,
    Reply,
    Responder,
    Script,
)
from trio_responses.testing._server import ResponsesServer, ServerStatistics, open_test_server
from trio_responses.testing._steering import MAX_PENDING_STEERS
from trio_responses.testing._store_checks import check_store
from trio_responses.testing._streams import MemoryStream, memory_connection

__all__ = [
    "ERROR_SHAPES",
    "MAX_PENDING_STEERS",
    "Answer",
    "Call",
    "Connection",
    "CutEnd",
    "ErrorShape",
    "Fail",
    "Frame",
    "HTTPRequest",
    "How",
    "MemoryStream",
    "OnSteer",
    "Records",
    "Reply",
    "Request",
    "Responder",
    "ResponsesServer",
    "Script",
    "ServerStatistics",
    "ServerTransport",
    "SteerRequest",
    "SteerState",
    "Transport",
    "WireBytes",
    "check_store",
    "default_answer",
    "memory_connection",
    "open_test_server",
]
