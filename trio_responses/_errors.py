"""The exceptions of this library, all below `ResponsesError`.

An exception carries facts as attributes (codes, sizes, ages, ids), and its message states them in
one sentence. Invariants: no exception holds a key, and no message holds the content of a request or
response. Bodies and texts of the server are attributes, for code that asks for them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import trio

from trio_responses._protocol.delivery import DeliveryStatus, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from trio_responses._wire import ErrorEvent, Response, UndecodableFrame

__all__ = [
    "APIError",
    "AuthenticationError",
    "BufferOverflow",
    "CallNotRejectable",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionLimitReached",
    "ConnectionLost",
    "DeliveryStatus",
    "FirstEventTimeout",
    "HandshakeRejected",
    "IncompleteError",
    "InvalidStreamId",
    "KeepaliveTimeout",
    "MaxRoundsExceeded",
    "MessageTooLarge",
    "ParseError",
    "ParseMismatchError",
    "PreviousResponseNotFound",
    "ProxyError",
    "RateLimitError",
    "ReconnectFailed",
    "RefusalError",
    "RequestTooLarge",
    "ResponseFailedError",
    "ResponsesError",
    "SendTimeout",
    "ServerOverloaded",
    "StallTimeout",
    "StreamLimitReached",
    "UndecodableResponse",
    "UnexpectedOutput",
    "UpgradeUnsupported",
]


class ResponsesError(Exception):
    """The base class of every exception that this library raises.

    :ivar delivery: how far the request got, on every exception that ends a turn; `None` on the
        others.
    """

    delivery: DeliveryStatus | None = None

    def copy_for_raise(self) -> Self:
        """Return a copy without a traceback, for another task to raise or keep.

        One failure, such as the loss of a socket, ends several turns, each with a ``delivery`` of
        its own. One exception object that several tasks raise would collect the tracebacks of all
        of them, and keep what their frames refer to alive.
        """
        copy = type(self).__new__(type(self), *self.args)
        copy.args = self.args
        copy.__dict__.update(self.__dict__)
        copy.__cause__ = self.__cause__
        return copy


class ConfigurationError(ResponsesError, ValueError):
    """An argument, option or environment variable is invalid; nothing was dialled or sent.

    The message names the option or variable. It quotes the value unless that may hold a secret.
    """


# --- Opening -----------------------------------------------------------------------------


class ConnectError(ResponsesError):
    """A socket could not be opened: the dial, TLS or the upgrade failed, or ``api_key()`` raised.

    A supervised connection tries again while ``retryable`` is true, as its `ReconnectPolicy` says,
    and raises `ReconnectFailed` when no attempt is left.

    :ivar retryable: whether another attempt can help. A refused port may open; a bad certificate
        stays bad.
    :ivar retry_after: the seconds that the server asked to wait; `None` when it did not.
    """

    retryable: bool = True
    retry_after: float | None = None

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ConnectTimeout(ConnectError, trio.TooSlowError):
    """Dial, TLS and upgrade together, or ``api_key()``, took longer than ``timeouts.connect``.

    :ivar phase: the step that had not finished: ``key``, ``dial``, ``tls`` or ``upgrade``.
    :ivar seconds: the limit, in seconds.
    """

    def __init__(self, phase: str, seconds: float) -> None:
        super().__init__(f"not connected within {seconds:g} s: still in phase {phase!r}")
        self.phase = phase
        self.seconds = seconds


RETRYABLE_STATUSES = frozenset({408, 425, 429})
FIRST_SERVER_STATUS = 500


class HandshakeRejected(ConnectError):
    """The server answered the upgrade with an HTTP status other than 101.

    :ivar status: the HTTP status.
    :ivar headers: the response headers, names in lower case.
    :ivar body: the beginning of the response body, at most 16 KiB; it is not in the message.
    """

    def __init__(
        self,
        status: int,
        headers: Mapping[str, str],
        body: bytes,
        *,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(
            f"the server refused the WebSocket upgrade with HTTP status {status}",
            retryable=status in RETRYABLE_STATUSES or status >= FIRST_SERVER_STATUS,
        )
        self.status = status
        self.headers = headers
        self.body = body
        self.retry_after = retry_after

    def add_hint(self, hint: str) -> None:
        """Add to the message what the user should check."""
        self.args: tuple[object, ...] = (f"{self}: {hint}",)


class AuthenticationError(HandshakeRejected):
    """The server answered the upgrade with HTTP 401 or 403.

    The key is missing, wrong, expired or not allowed. The message names the argument or the
    environment variable that the key was taken from.
    """


class UpgradeUnsupported(HandshakeRejected):
    """The server answered the upgrade with HTTP 404 or 426: it has no WebSocket mode at this URL.

    The message names the host and the path that were requested. Check the URL: ``/v1`` may be
    missing in it.
    """


class ProxyError(ConnectError):
    """The proxy could not be reached, or did not open a tunnel to the server.

    The server itself was not dialled. Check the ``proxy`` option or the environment's variables.

    :ivar proxy: the proxy's host and port, without credentials.
    :ivar status: the HTTP status of the proxy's answer; `None` when it gave none, as with SOCKS5.
    """

    def __init__(
        self,
        problem: str,
        *,
        proxy: str,
        status: int | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"the proxy {proxy}: {problem}", retryable=retryable)
        self.proxy = proxy
        self.status = status
        self.retry_after = retry_after


class ReconnectFailed(ResponsesError):
    """Every attempt to connect that the reconnect policy allows has failed.

    The connection is closed, and every use of it raises this. The last failure is the
    ``__cause__``: fix what it names, or pass a `ReconnectPolicy` with more attempts, and open a new
    connection.

    :param opened: whether a socket was open before: the message depends on it.

    :ivar attempts: the number of attempts after the first failure.
    """

    def __init__(self, attempts: int, cause: BaseException, *, opened: bool = True) -> None:
        if opened:
            summary = f"gave up after {_count_attempts(attempts)} to reconnect"
        else:
            summary = f"could not connect in {_count_attempts(attempts + 1)}"
        super().__init__(f"{summary}: {cause}")
        self.attempts = attempts
        self.__cause__: BaseException | None = cause


def _count_attempts(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


# --- Lost sockets ------------------------------------------------------------------------------


class ConnectionLost(ResponsesError, trio.BrokenResourceError):
    """The socket ended: the server closed it, the network dropped it, or this side gave it up.

    A turn raises this, with its ``delivery``; the raw channel *yields* it in its place among the
    events. The connection opens a new socket by itself. The server's last error frame on the
    socket, if one came, is the ``__cause__``.

    :ivar code: the close code; 1006 when no close frame came (RFC 6455, section 7.1.5).
    :ivar reason: the server's reason, as sent; it is not in the message.
    :ivar age: the seconds since the socket was opened.
    """

    __match_args__ = ("code", "reason")
    type: ClassVar[Literal["trio_responses.connection_lost"]] = "trio_responses.connection_lost"

    def __init__(self, code: int, reason: str = "", *, age: float = 0.0) -> None:
        super().__init__(f"the connection was lost with close code {code} after {age:.1f} s")
        self.code = code
        self.reason = reason
        self.age = age


class KeepaliveTimeout(ConnectionLost, trio.TooSlowError):
    """No byte came from the server for the interval and timeout of the `Keepalive`.

    :ivar silence: the seconds since the last byte from the server.
    """

    def __init__(self, silence: float, *, age: float) -> None:
        super().__init__(1006, "keepalive timeout", age=age)
        self.args: tuple[object, ...] = (f"no sign of life from the server for {silence:.1f} s",)
        self.silence = silence


class SendTimeout(ConnectionLost, trio.TooSlowError):
    """One frame took longer than ``timeouts.send`` to write.

    A part of the frame may be on the wire, so no other frame can follow and the socket was closed.

    :ivar size: the size of the frame's payload, in bytes.
    """

    def __init__(self, size: int, *, age: float) -> None:
        super().__init__(1006, "send timeout", age=age)
        self.args: tuple[object, ...] = (f"a frame of {size} bytes could not be written in time",)
        self.size = size


class ConnectionClosed(ResponsesError, trio.ClosedResourceError):
    """The connection was used after this side closed it.

    Use a connection inside its ``async with`` block only.
    """


# --- Turns -------------------------------------------------------------------------------


class APIError(ResponsesError):
    """The server answered a request with an error frame.

    The code, the parameter and the status are in ``str()``; the server's text is in ``message``.

    :ivar event: the error frame, decoded, with its raw bytes.
    """

    def __init__(self, event: ErrorEvent) -> None:
        parts = [part for part in (event.code or event.error_type, event.param) if part]
        status = f" (status {event.status})" if event.status is not None else ""
        super().__init__(f"the server answered with an error: {' at '.join(parts)}{status}")
        self.event = event

    @property
    def status(self) -> int | None:
        """The HTTP-like status of the frame; `None` when the frame has none."""
        return self.event.status

    @property
    def code(self) -> str | None:
        """The error code, such as ``rate_limit_exceeded``; `None` when the frame has none."""
        return self.event.code

    @property
    def param(self) -> str | None:
        """The request parameter that caused the error; `None` when the frame names none."""
        return self.event.param

    @property
    def type(self) -> str | None:
        """The error's type, such as ``invalid_request_error``; `None` when the frame has none."""
        return self.event.error_type

    @property
    def message(self) -> str:
        """The server's text. It may quote content, so it is not in ``str()``."""
        return self.event.message

    @property
    def retry_after(self) -> float | None:
        """The seconds that the server asked to wait; `None` when it did not."""
        return self.event.retry_after


class RateLimitError(APIError):
    """The server refused the request with ``rate_limit_exceeded`` or status 429.

    Wait for ``retry_after`` seconds, then send the request again.
    """


class PreviousResponseNotFound(APIError):
    """The server does not have the response in ``previous_response_id``.

    The code is ``previous_response_not_found``. Send the full input instead; a conversation does so
    by itself.
    """


class ConnectionLimitReached(APIError):
    """The socket has reached the server's age limit.

    The code is ``websocket_connection_limit_reached``. The connection opens a new socket by itself.
    """


class StreamLimitReached(APIError):
    """The request used one lane name more than the server allows on a socket.

    The code is ``websocket_stream_limit_reached``.
    """


class InvalidStreamId(APIError):
    """The server does not allow the lane name: the code is ``invalid_stream_id``."""


class ServerOverloaded(APIError):
    """The server is overloaded: the code is ``server_is_overloaded`` or ``slow_down``."""


API_ERRORS_BY_CODE: dict[str, type[APIError]] = {
    "rate_limit_exceeded": RateLimitError,
    "previous_response_not_found": PreviousResponseNotFound,
    "websocket_connection_limit_reached": ConnectionLimitReached,
    "websocket_stream_limit_reached": StreamLimitReached,
    "invalid_stream_id": InvalidStreamId,
    "server_is_overloaded": ServerOverloaded,
    "slow_down": ServerOverloaded,
}
RATE_LIMIT_STATUS = 429


def api_error(event: ErrorEvent) -> APIError:
    """Return the exception for an error frame, by its code (docs/protocol.md, section 4)."""
    kind = API_ERRORS_BY_CODE.get(event.code or "")
    if kind is None:
        kind = RateLimitError if event.status == RATE_LIMIT_STATUS else APIError
    return kind(event)


class ResponseFailedError(ResponsesError):
    """The response ended with ``response.failed``.

    :ivar response: the failed Response, with its ``error`` and the output until then.
    """

    def __init__(self, response: Response) -> None:
        code = response.error.code if response.error is not None else None
        super().__init__(f"response {response.id} failed: {code}")
        self.response = response


class UndecodableResponse(ResponsesError):
    """The last frame of a response could not be decoded.

    The turn is over, and its result is available as raw bytes only.

    :ivar frame: the raw frame and the reason why it could not be decoded.
    """

    def __init__(self, frame: UndecodableFrame) -> None:
        super().__init__(f"the final frame of type {frame.wire_type!r} could not be decoded")
        self.frame = frame


class UnexpectedOutput(ResponsesError):
    """The response to a warm-up has output.

    The endpoint ignores ``generate=False``: it generated, and may bill, output that was not wanted.
    Do not warm up with this endpoint.

    :ivar response: the Response with the output.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"the warm-up {response.id} produced output")
        self.response = response


class ParseError(ResponsesError):
    """A response has no answer of the type that ``parse`` was asked for.

    :ivar response: the Response.
    """

    def __init__(self, problem: str, response: Response) -> None:
        super().__init__(f"the response {response.id} {problem}")
        self.response = response


class RefusalError(ParseError):
    """The model refused to answer.

    :ivar refusal: the model's text; it is not in ``str()``.
    """

    def __init__(self, response: Response) -> None:
        super().__init__("is a refusal", response)
        self.refusal: str = response.refusal


class IncompleteError(ParseError):
    """The answer was cut off.

    :ivar reason: the server's reason, such as ``max_output_tokens``; `None` when it gave none.
    """

    def __init__(self, response: Response) -> None:
        details = response.incomplete_details
        self.reason: str | None = details.reason if details is not None else None
        super().__init__(f"is incomplete: {self.reason}", response)


class ParseMismatchError(ParseError, ValueError):
    """The answer does not fit the type, or the response has no text.

    :ivar text: the text of the answer; it is not in ``str()``.
    :ivar message: the reason why the text does not fit. It may quote the text, so it is not in
        ``str()``.
    :ivar place: the path of the value that does not fit, such as ``$.city``; `None` when unknown.
    """

    def __init__(self, response: Response, message: str, *, place: str | None = None) -> None:
        where = f" at {place}" if place else ""
        super().__init__(f"does not fit the type that was asked for{where}", response)
        self.text: str = response.output_text
        self.message = message
        self.place = place


class MaxRoundsExceeded(ResponsesError):
    """The model still called tools in the last round that a run allows.

    The conversation is intact: the next run answers the calls of the last response first. Raise
    ``max_rounds`` when the model needs more rounds.

    :ivar rounds: the number of rounds.
    :ivar response: the Response of the last round.
    """

    def __init__(self, rounds: int, response: Response) -> None:
        super().__init__(f"after {rounds} rounds the model still calls tools")
        self.rounds = rounds
        self.response = response


class CallNotRejectable(ResponsesError):
    """A call was declined, and its type of output cannot express a refusal.

    :ivar kind: the type of the call, such as ``computer_call``.
    :ivar reason: the reason why it was declined.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"a {kind} was declined, and cannot be answered: {reason}")
        self.kind = kind
        self.reason = reason


class FirstEventTimeout(ResponsesError, trio.TooSlowError):
    """The request was sent, and no event of its response came within ``timeouts.first_event``.

    :ivar seconds: the limit, in seconds.
    :ivar sent: the seconds since the request was written.
    """

    def __init__(self, seconds: float, *, sent: float) -> None:
        super().__init__(f"no event within {seconds:g} s: the request was sent {sent:.1f} s ago")
        self.seconds = seconds
        self.sent = sent


class StallTimeout(ResponsesError, trio.TooSlowError):
    """The response started, and then no event came for ``timeouts.stall``.

    :ivar seconds: the limit, in seconds.
    :ivar last_event: the type of the last event.
    :ivar silence: the seconds since that event.
    """

    def __init__(self, seconds: float, *, last_event: str, silence: float) -> None:
        super().__init__(f"silent for {silence:.1f} s after {last_event} (limit {seconds:g} s)")
        self.seconds = seconds
        self.last_event = last_event
        self.silence = silence


# --- Sizes -------------------------------------------------------------------------------


class RequestTooLarge(ResponsesError):
    """The request is over ``limits.max_request_bytes``, or the server closed the socket with 1009.

    In the first case nothing was sent. Send less input, or compact the conversation.

    :ivar size: the size of the encoded request, in bytes.
    :ivar limit: the limit, in bytes; `None` when the server closed, since its limit is unknown.
    """

    def __init__(self, size: int, limit: int | None) -> None:
        bound = "the server's limit" if limit is None else f"{limit} bytes"
        super().__init__(f"a request of {size} bytes is over {bound}")
        self.size = size
        self.limit = limit


class MessageTooLarge(ResponsesError):
    """A message from the server was over ``limits.max_message_bytes``.

    The message was discarded while it arrived; the connection stays open.

    :ivar size: the size of the message, in bytes.
    :ivar limit: the limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class BufferOverflow(ResponsesError):
    """The unread events of this turn blocked other readers for longer than ``timeouts.stall``.

    The connection's buffer was full, and this turn had most of it. Read its events faster, or raise
    ``limits.connection_buffer_bytes``.

    :ivar buffered: the unread bytes of this turn.
    """

    type: ClassVar[Literal["trio_responses.buffer_overflow"]] = "trio_responses.buffer_overflow"

    def __init__(self, buffered: int) -> None:
        super().__init__(f"{buffered} unread bytes held up the other turns of the connection")
        self.buffered = buffered


def failure_of(error: ResponsesError) -> Failure:
    """Return what an exception means for the decision whether to send a request again."""
    match error:
        case ConnectionLost():
            return Failure.CONNECTION_LOST
        case ConnectionLimitReached():
            return Failure.CONNECTION_LIMIT
        case FirstEventTimeout() | StallTimeout():
            return Failure.TIMED_OUT
        case _:
            return Failure.OTHER
