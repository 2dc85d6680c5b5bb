"""The exception tree: everything that this library raises of its own accord.

An exception carries facts as attributes (codes, sizes, ages, ids) and says them in one
sentence. It never carries a key, and its message never carries content: request and response
bodies are attributes, for code that asks for them.

What belongs elsewhere: the decision what to do about a failure (`core/delivery.py`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

import trio

from trio_responses._protocol.delivery import Delivery, Failure

if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Self

    from trio_responses._wire import ErrorEvent, Response, UndecodableFrame

__all__ = [
    "APIError",
    "AnswerError",
    "AnswerIncomplete",
    "AnswerMismatch",
    "AnswerRefused",
    "AuthenticationError",
    "BufferExceeded",
    "ConfigurationError",
    "ConnectError",
    "ConnectTimeout",
    "ConnectionClosed",
    "ConnectionLimitReached",
    "ConnectionLost",
    "Delivery",
    "FirstEventTimeout",
    "HandshakeRejected",
    "InvalidStreamId",
    "KeepaliveTimeout",
    "MessageTooLarge",
    "PreviousResponseNotFound",
    "ProxyError",
    "RateLimited",
    "ReconnectFailed",
    "RequestTooLarge",
    "ResponseFailedError",
    "ResponsesError",
    "RoundsExceeded",
    "SendTimeout",
    "ServerOverloaded",
    "StallTimeout",
    "StreamLimitReached",
    "UnanswerableCall",
    "UndecodableResponse",
    "UnexpectedOutput",
    "UpgradeUnsupported",
]


class ResponsesError(Exception):
    """The root: catch it to catch everything of this library.

    :ivar delivery: set on every exception that ends a turn, `None` on the others.
    """

    delivery: Delivery | None = None

    def copy_for_raise(self) -> Self:
        """Make an exception of its own for one more task that is told the same."""
        copy_for_raise = type(self).__new__(type(self), *self.args)
        copy_for_raise.args = self.args
        copy_for_raise.__dict__.update(self.__dict__)
        copy_for_raise.__cause__ = self.__cause__
        return copy_for_raise


class ConfigurationError(ResponsesError, ValueError):
    """The arguments or the environment cannot work: nothing was dialled or sent."""


# --- Opening -----------------------------------------------------------------------------


class ConnectError(ResponsesError):
    """A socket could not be opened.

    :ivar retryable: whether another attempt can help. A refused port may open; a bad
        certificate or URL stays bad.
    :ivar retry_after: seconds that the server asked to wait, if it did.
    """

    retryable: bool = True
    retry_after: float | None = None

    def __init__(self, message: str, *, retryable: bool = True) -> None:
        super().__init__(message)
        self.retryable = retryable


class ConnectTimeout(ConnectError, trio.TooSlowError):
    """Dial, TLS and upgrade together, or ``api_key()``, took longer than ``timeouts.connect``.

    :ivar phase: what was under way: ``key``, ``dial``, ``tls`` or ``upgrade``.
    :ivar seconds: the limit.
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
    :ivar body: the beginning of the response body, at most 16 KiB.
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
        """Add a hint to the message: where to look for the cause."""
        self.args: tuple[object, ...] = (f"{self}: {hint}",)


class AuthenticationError(HandshakeRejected):
    """HTTP 401 or 403: the key is missing, wrong, expired or not allowed.

    The message names the variable or the argument that the key is from.
    """


class UpgradeUnsupported(HandshakeRejected):
    """HTTP 404 or 426: this endpoint does not offer the WebSocket mode.

    The message names the host and the path that were asked for: ``/v1`` may be missing there.
    """


class ProxyError(ConnectError):
    """The proxy opened no way to the server. The server itself was not dialled.

    :ivar proxy: its host and port.
    :ivar status: the HTTP status of its answer; `None` where there was none, as with SOCKS5.
    """

    def __init__(
        self,
        what: str,
        *,
        proxy: str,
        status: int | None = None,
        retryable: bool = True,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"the proxy {proxy}: {what}", retryable=retryable)
        self.proxy = proxy
        self.status = status
        self.retry_after = retry_after


class ReconnectFailed(ResponsesError):
    """The reconnect policy is spent. The last failure is the ``__cause__``.

    :param opened: whether there ever was a socket: the message says so.

    :ivar attempts: how many attempts followed the first failure.
    """

    def __init__(self, attempts: int, cause: BaseException, *, opened: bool = True) -> None:
        if opened:
            what = f"gave up after {_counted(attempts)} to reconnect"
        else:
            what = f"could not connect in {_counted(attempts + 1)}"
        super().__init__(f"{what}: {cause}")
        self.attempts = attempts
        self.__cause__: BaseException | None = cause


def _counted(attempts: int) -> str:
    return "1 attempt" if attempts == 1 else f"{attempts} attempts"


# --- Losing ------------------------------------------------------------------------------


class ConnectionLost(ResponsesError, trio.BrokenResourceError):
    """The socket ended.

    A turn raises it; the raw channel *yields* it, in its place among the events. The last error
    frame of the server, if there was one, is the ``__cause__``.

    :ivar code: the close code; 1006 where no close frame came (RFC 6455, 7.1.5).
    :ivar reason: the peer's reason, as sent; not part of the message.
    :ivar age: seconds since the socket was opened.
    """

    __match_args__ = ("code", "reason")
    type: ClassVar[Literal["trio_responses.connection_lost"]] = "trio_responses.connection_lost"

    def __init__(self, code: int, reason: str = "", *, age: float = 0.0) -> None:
        super().__init__(f"the connection was lost with close code {code} after {age:.1f} s")
        self.code = code
        self.reason = reason
        self.age = age


class KeepaliveTimeout(ConnectionLost, trio.TooSlowError):
    """Nothing was heard from the server for the interval and timeout of the keepalive.

    :ivar silence: seconds since the last byte from the server.
    """

    def __init__(self, silence: float, *, age: float) -> None:
        super().__init__(1006, "keepalive timeout", age=age)
        self.args: tuple[object, ...] = (f"no sign of life from the server for {silence:.1f} s",)
        self.silence = silence


class SendTimeout(ConnectionLost, trio.TooSlowError):
    """One frame took longer than ``timeouts.send`` to write.

    Half of it is on the wire, so the socket was given up.

    :ivar size: the size of the frame's payload, in bytes.
    """

    def __init__(self, size: int, *, age: float) -> None:
        super().__init__(1006, "send timeout", age=age)
        self.args: tuple[object, ...] = (f"a frame of {size} bytes could not be written in time",)
        self.size = size


class ConnectionClosed(ResponsesError, trio.ClosedResourceError):
    """The connection was used after it was closed on this side."""


# --- Turns -------------------------------------------------------------------------------


class APIError(ResponsesError):
    """The server answered a request with an error frame.

    Code and parameter are in ``str()``; the server's own words are in ``message``.

    :ivar event: the normalised frame, with its raw bytes.
    """

    def __init__(self, event: ErrorEvent) -> None:
        words = [word for word in (event.code or event.error_type, event.param) if word]
        status = f" (status {event.status})" if event.status is not None else ""
        super().__init__(f"the server answered with an error: {' at '.join(words)}{status}")
        self.event = event

    @property
    def status(self) -> int | None:
        """The HTTP-like status of the frame."""
        return self.event.status

    @property
    def code(self) -> str | None:
        """The machine-readable code."""
        return self.event.code

    @property
    def param(self) -> str | None:
        """The parameter at fault."""
        return self.event.param

    @property
    def type(self) -> str | None:
        """The class of the error, as ``invalid_request_error``."""
        return self.event.error_type

    @property
    def message(self) -> str:
        """The server's text; it may quote content, so it is not in ``str()``."""
        return self.event.message

    @property
    def retry_after(self) -> float | None:
        """Seconds that the server asked to wait."""
        return self.event.retry_after


class RateLimited(APIError):
    """Code ``rate_limit_exceeded`` or status 429."""


class PreviousResponseNotFound(APIError):
    """Code ``previous_response_not_found``: the parent is in no cache."""


class ConnectionLimitReached(APIError):
    """Code ``websocket_connection_limit_reached``: the socket is as old as it may get."""


class StreamLimitReached(APIError):
    """Code ``websocket_stream_limit_reached``: one lane name too many on this socket."""


class InvalidStreamId(APIError):
    """Code ``invalid_stream_id``: a lane name outside the grammar."""


class ServerOverloaded(APIError):
    """Code ``server_is_overloaded`` or ``slow_down``."""


API_ERRORS_BY_CODE: dict[str, type[APIError]] = {
    "rate_limit_exceeded": RateLimited,
    "previous_response_not_found": PreviousResponseNotFound,
    "websocket_connection_limit_reached": ConnectionLimitReached,
    "websocket_stream_limit_reached": StreamLimitReached,
    "invalid_stream_id": InvalidStreamId,
    "server_is_overloaded": ServerOverloaded,
    "slow_down": ServerOverloaded,
}
RATE_LIMIT_STATUS = 429


def api_error(event: ErrorEvent) -> APIError:
    """Make the exception that fits an error frame (codes: protocol, section "Error frames")."""
    kind = API_ERRORS_BY_CODE.get(event.code or "")
    if kind is None:
        kind = RateLimited if event.status == RATE_LIMIT_STATUS else APIError
    return kind(event)


class ResponseFailedError(ResponsesError):
    """The response ended with ``response.failed``.

    :ivar response: the Response, with its ``error`` and whatever output there was.
    """

    def __init__(self, response: Response) -> None:
        code = response.error.code if response.error is not None else None
        super().__init__(f"response {response.id} failed: {code}")
        self.response = response


class UndecodableResponse(ResponsesError):
    """The frame that ended the response could not be decoded.

    The turn is over, and its result is only there as raw bytes.

    :ivar frame: the frame and what was wrong with it.
    """

    def __init__(self, frame: UndecodableFrame) -> None:
        super().__init__(f"the final frame of type {frame.wire_type!r} could not be decoded")
        self.frame = frame


class UnexpectedOutput(ResponsesError):
    """A warm-up came back with output.

    The endpoint generates, and bills, where it was asked not to.

    :ivar response: what came back.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(f"the warm-up {response.id} produced output")
        self.response = response


class AnswerError(ResponsesError):
    """A response is no answer of the type that was asked for.

    :ivar response: what came back.
    """

    def __init__(self, what: str, response: Response) -> None:
        super().__init__(f"the response {response.id} {what}")
        self.response = response


class AnswerRefused(AnswerError):
    """The model refused to answer.

    :ivar refusal: its words; they are not in ``str()``.
    """

    def __init__(self, response: Response) -> None:
        super().__init__("is a refusal", response)
        self.refusal: str = response.refusal


class AnswerIncomplete(AnswerError):
    """The answer was cut off.

    :ivar reason: why, such as ``max_output_tokens``.
    """

    def __init__(self, response: Response) -> None:
        details = response.incomplete_details
        self.reason: str | None = details.reason if details is not None else None
        super().__init__(f"is incomplete: {self.reason}", response)


class AnswerMismatch(AnswerError, ValueError):
    """The answer does not fit the type, or there is none.

    :ivar text: the answer; it is not in ``str()``.
    :ivar message: what is wrong with it, and where; it may quote the text.
    :ivar place: the place as a path (``$.city``), where one is known.
    """

    def __init__(self, response: Response, message: str, *, place: str | None = None) -> None:
        where = f" at {place}" if place else ""
        super().__init__(f"does not fit the type that was asked for{where}", response)
        self.text: str = response.output_text
        self.message = message
        self.place = place


class RoundsExceeded(ResponsesError):
    """The model went on calling tools through all rounds of a run.

    The conversation is intact: the next run answers the calls of the last response first.

    :ivar rounds: how many there were.
    :ivar response: the last one.
    """

    def __init__(self, rounds: int, response: Response) -> None:
        super().__init__(f"after {rounds} rounds the model still calls tools")
        self.rounds = rounds
        self.response = response


class UnanswerableCall(ResponsesError):
    """A call was declined, and its kind of answer has no place to say so.

    :ivar kind: the type of the call.
    :ivar reason: why it was declined.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(f"a {kind} was declined, and cannot be answered: {reason}")
        self.kind = kind
        self.reason = reason


class FirstEventTimeout(ResponsesError, trio.TooSlowError):
    """The request was sent and no event of its response came within ``timeouts.first_event``.

    :ivar seconds: the limit.
    :ivar sent: seconds since the request was written.
    """

    def __init__(self, seconds: float, *, sent: float) -> None:
        super().__init__(f"no event within {seconds:g} s: the request was sent {sent:.1f} s ago")
        self.seconds = seconds
        self.sent = sent


class StallTimeout(ResponsesError, trio.TooSlowError):
    """The response began and then fell silent for ``timeouts.stall``.

    :ivar seconds: the limit.
    :ivar last_event: the type of the last event.
    :ivar silence: seconds since that event.
    """

    def __init__(self, seconds: float, *, last_event: str, silence: float) -> None:
        super().__init__(f"silent for {silence:.1f} s after {last_event} (limit {seconds:g} s)")
        self.seconds = seconds
        self.last_event = last_event
        self.silence = silence


# --- Sizes -------------------------------------------------------------------------------


class RequestTooLarge(ResponsesError):
    """The request is over ``limits.max_request_bytes``, or the server closed with 1009.

    :ivar size: the size of the encoded request, in bytes.
    :ivar limit: the limit, in bytes; `None` where the server did not say.
    """

    def __init__(self, size: int, limit: int | None) -> None:
        bound = "the server's limit" if limit is None else f"{limit} bytes"
        super().__init__(f"a request of {size} bytes is over {bound}")
        self.size = size
        self.limit = limit


class MessageTooLarge(ResponsesError):
    """A message from the server was over ``limits.max_message_bytes``.

    It was discarded as it came; the connection lives on.

    :ivar size: the size of the message, in bytes.
    :ivar limit: the limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(f"a message of {size} bytes is over the limit of {limit} bytes")
        self.size = size
        self.limit = limit


class BufferExceeded(ResponsesError):
    """The unread events of this turn held up others for longer than ``timeouts.stall``.

    :ivar buffered: the bytes that waited to be read.
    """

    type: ClassVar[Literal["trio_responses.buffer_exceeded"]] = "trio_responses.buffer_exceeded"

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
