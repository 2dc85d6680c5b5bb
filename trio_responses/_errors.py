"""The exceptions of this library, all below `ResponsesError`.

An exception carries facts as attributes (codes, sizes, ages, ids), and its message states them in
one line: what happened, why, and what to do. Where the server gave a reason, the message quotes it,
as `printable` shows it. Invariants: no exception of this library holds a key, and no message shows
one; no message quotes a request or an answer, unless the server's own sentence does.

What the server refuses is an `APIError`, whichever way the refusal came: as the answer to an
upgrade, as an ``error`` event, or as ``response.failed``. One table (`CLASS_OF_CODE`,
`CLASS_OF_STATUS`) decides the class. Where the way matters, a second base class states it: a
refused handshake is a `HandshakeRejected`, a failed response a `ResponseFailedError`.
"""

from __future__ import annotations

import re
from copy import copy
from typing import TYPE_CHECKING, Any, ClassVar, Final, Literal, TypeVar, cast

import trio

from trio_responses._protocol.delivery import CLIENT_ERRORS, DeliveryStatus, Failure
from trio_responses._safe_text import printable
from trio_responses._wire.errors import ErrorEvent, decode_error_body

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from typing import Self

    from trio_responses._wire import ComputerCall, OutputItem, Response, ToolCall, UndecodableFrame

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
    "SafetyChecksPending",
    "SendTimeout",
    "ServerOverloaded",
    "StallTimeout",
    "StreamLimitReached",
    "ToolRetriesExceeded",
    "UndecodableCall",
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
        made = copy(self)
        made.__cause__ = self.__cause__
        return made

    def copy_as_unsent(self) -> Self:
        """Return such a copy for a request that was not sent."""
        made = self.copy_for_raise()
        made.delivery = DeliveryStatus.NOT_SENT
        return made

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what `copy` and `pickle` need, whatever arguments the class takes."""
        classes = type(self).__dict__.get("_combined", (type(self),))
        return _restore, (classes, self.args), self.__dict__


def _restore(classes: tuple[type[Any], ...], args: tuple[Any, ...]) -> ResponsesError:
    """Return an exception as it was before it had attributes.

    :param classes: its class, or the two that `_combine` has combined.
    """
    cls: Any = classes[0] if len(classes) == 1 else _combine(*classes)
    error: ResponsesError = cls.__new__(cls, *args)
    error.args = args
    return error


class ConfigurationError(ResponsesError, ValueError):
    """An argument, option or environment variable is invalid; nothing was dialled or sent.

    The message names the option or variable. It quotes the value unless that may hold a secret.
    """


# --- What the server refuses -------------------------------------------------------------

SERVER_ERRORS: Final = range(500, 600)
RETRYABLE_CLIENT_ERRORS: Final = frozenset({408, 425, 429})
NOT_FOUND: Final = 404
NO_SUCH_PATH: Final = re.compile(
    r"|(?:(?:404 )?(?:file |page )?not found|"
    r"(?:unknown path|invalid url|cannot post|no route)\b.*)\.?",
    re.IGNORECASE | re.DOTALL,
)
"""What servers say of a path that they do not have: OpenAI, FastAPI, Express, llama.cpp, ours."""
TOO_MANY_REQUESTS: Final = 429
NOT_IMPLEMENTED: Final = 501
SERVER_ERROR_CODE: Final = "server_error"
QUOTA_CODES: Final = frozenset(
    {"billing_hard_limit_reached", "credit_balance_exhausted", "insufficient_quota"}
)
QUOTA_PREFIX: Final = "usage_"
"""The start of the codes of a plan that is used up, such as ``usage_limit_reached``."""
SHORT: Final = 128
"""The greatest length of a code, a parameter or an id in a message."""


class APIError(ResponsesError):
    """The server refused a request or a handshake, or failed while it worked on a request.

    The message quotes the server's sentence: without keys, with control characters escaped, and
    cut at 500 characters. It also has the status, the code, the parameter and the ids, and what to
    do where that is known. The attributes have everything as the server sent it.

    :ivar status: the HTTP status; `None` where the server sent none, as for a failed response.
    :ivar code: the error code, such as ``rate_limit_exceeded``; `None` when the server sent none.
    :ivar param: the parameter of the request that caused the error; `None` when it names none.
    :ivar type: the type of the error, such as ``invalid_request_error``; `None` likewise.
    :ivar message: the server's sentence, as sent; empty when the server sent none.
    :ivar event: the ``error`` event, decoded; `None` for a handshake and for a failed response.
    :ivar headers: the headers that came with the error, names in lower case.
    :ivar body: the ``error`` event as received, or the beginning of the body of an HTTP response,
        at most 16 KiB.
    :ivar request_id: the id of the HTTP request (``x-request-id``); `None` when there is none.
    :ivar response_id: the id of the response that the error ended; `None` when none had started.
    :ivar retryable: whether the same request or handshake may succeed later. For a quota that is
        used up this is false.
    :ivar retry_after: the seconds that the server asked to wait; `None` when it did not.
    """

    hint: ClassVar[str] = ""
    """What to do about errors of this class; part of the message."""

    def __init__(self, event: ErrorEvent, *, response_id: str | None = None) -> None:
        self.event: ErrorEvent | None = event
        self._describe("the server answered with an error", event, response_id=response_id)

    def _describe(
        self,
        summary: str,
        error: ErrorEvent,
        *,
        response_id: str | None = None,
        location: str | None = None,
    ) -> None:
        """Set the attributes and the message.

        :param summary: what happened, for the beginning of the message.
        :param error: what the server sent, in the form of an ``error`` event.
        :param location: the URL to which the server redirects.
        """
        self.status: int | None = error.status
        self.code: str | None = error.code
        self.param: str | None = error.param
        self.type: str | None = error.error_type
        self.message: str = error.message
        self.headers: Mapping[str, str] = error.headers
        self.body: bytes = error.raw
        self.request_id: str | None = error.headers.get("x-request-id")
        self.response_id: str | None = response_id
        self.retryable: bool = _is_retryable(self)
        self.retry_after: float | None = error.retry_after
        facts = {
            "status": self.status,
            "code": self.code,
            "type": None if self.code else self.type,
            "parameter": self.param,
            "response": self.response_id,
            "request": self.request_id,
            "redirect to": location,
        }
        known = [f"{name} {printable(str(fact), SHORT)}" for name, fact in facts.items() if fact]
        sentence = printable(self.message).removesuffix(".")
        text = f"{summary}: {sentence}" if sentence else summary
        ResponsesError.__init__(self, f"{text} ({', '.join(known)})" if known else text)
        hint = _hint_for(self)
        if hint:
            self.add_hint(hint)

    def add_hint(self, hint: str) -> None:
        """Add to the message what to do, after a semicolon."""
        self.args: tuple[object, ...] = (f"{self}; {hint}",)


class AuthenticationError(APIError):
    """The key is missing, wrong, expired or not allowed to do this: HTTP status 401 or 403.

    Raised when a handshake is refused and when a request is. After a handshake, the message names
    the argument or the environment variable that the key was taken from.
    """


class RateLimitError(APIError):
    """The server limits requests or tokens: status 429, ``rate_limit_exceeded`` and similar codes.

    With ``delivery`` ``rejected``, the request did not run. While ``retryable`` is true, it was
    sent ``max_retries`` times again, or ``retry_after`` is over ``max_retry_wait``: it can be sent
    again after ``retry_after`` seconds. If ``retryable`` is false, a quota or a plan is used up
    (``insufficient_quota``, ``usage_limit_reached``): another attempt fails as well.

    :ivar response: the failed Response, if the rate ended a response that had started; else `None`.
    """

    response: Response | None = None


class ServerOverloaded(APIError):
    """The server is overloaded: status 503, ``server_is_overloaded`` or ``slow_down``.

    The request may have run: see ``delivery``.
    """

    hint: ClassVar[str] = "try again later"


class PreviousResponseNotFound(APIError):
    """The server does not have the response in ``previous_response_id``.

    The code is ``previous_response_not_found``, or a gateway quotes this code in its message. Send
    the full input instead; a conversation does so by itself.
    """

    hint: ClassVar[str] = (
        "send the whole input without previous_response_id, or use connection.conversation(),"
        " which does so by itself"
    )


class ConnectionLimitReached(APIError):
    """The socket has reached the server's age limit.

    The code is ``websocket_connection_limit_reached``. The connection opens a new socket by itself.
    """

    hint: ClassVar[str] = "send the request again: the connection opens a new socket by itself"


class StreamLimitReached(APIError):
    """The request used one lane name more than the server allows on a socket.

    The code is ``websocket_stream_limit_reached``.
    """

    hint: ClassVar[str] = "use fewer lane names, or connection.lane() without a name"


class InvalidStreamId(APIError):
    """The server does not allow the lane name: the code is ``invalid_stream_id``."""

    hint: ClassVar[str] = "use connection.lane() without a name"


class ResponseFailedError(APIError):
    """The response ended with ``response.failed``.

    A response that failed because of its rate is a `RateLimitError` as well, one that failed
    because of an overload is a `ServerOverloaded`: ``except`` clauses find both.

    :ivar response: the failed Response, with its ``error`` and the output until then.
    """

    def __init__(self, response: Response) -> None:
        self.event: ErrorEvent | None = None
        self.response = response
        self._describe(
            f"the response {printable(response.id, SHORT)} failed", _error_of_response(response)
        )
        self.response_id: str | None = response.id


CLASS_OF_CODE: Final[dict[str, type[APIError]]] = {
    "authentication_error": AuthenticationError,
    "invalid_api_key": AuthenticationError,
    "invalid_authentication": AuthenticationError,
    "missing_api_key": AuthenticationError,
    "permission_denied": AuthenticationError,
    "permission_error": AuthenticationError,
    "rate_limit_error": RateLimitError,
    "rate_limit_exceeded": RateLimitError,
    "too_many_requests": RateLimitError,
    **dict.fromkeys(QUOTA_CODES, RateLimitError),
    "usage_limit_exceeded": RateLimitError,
    "usage_limit_reached": RateLimitError,
    "usage_not_included": RateLimitError,
    "overloaded_error": ServerOverloaded,
    "server_is_overloaded": ServerOverloaded,
    "service_unavailable_error": ServerOverloaded,
    "slow_down": ServerOverloaded,
    "previous_response_not_found": PreviousResponseNotFound,
    "websocket_connection_limit_reached": ConnectionLimitReached,
    "websocket_stream_limit_reached": StreamLimitReached,
    "invalid_stream_id": InvalidStreamId,
}
"""The class of an error by its code or, where that is not listed, by its type."""
CLASS_OF_STATUS: Final[dict[int, type[APIError]]] = {
    401: AuthenticationError,
    403: AuthenticationError,
    429: RateLimitError,
    503: ServerOverloaded,
    529: ServerOverloaded,
}
"""The class of an error whose code and type are not listed."""
PERMANENT_REFUSALS: Final = (
    AuthenticationError,
    PreviousResponseNotFound,
    StreamLimitReached,
    InvalidStreamId,
)
"""The classes of errors that the same request meets again, whatever the status."""
HINT_OF_CODE: Final[dict[str, str]] = {
    "context_length_exceeded": "send less input, or compact the conversation",
    "invalid_api_key": "check the API key",
    "model_not_found": "check the name of the model, and whether the key may use it",
    "server_error": "try again later",
    "string_above_max_length": "send less input",
}
"""What to do about errors that have no class of their own."""

Origin = TypeVar("Origin", bound=APIError)


def api_error(event: ErrorEvent, *, response_id: str | None = None) -> APIError:
    """Return the exception for an ``error`` event, by the table.

    :param response_id: the id of the response that the event ended.
    """
    return _class_of(event)(event, response_id=response_id)


def failed_response_error(response: Response) -> ResponseFailedError:
    """Return the exception for a response that failed, by the table.

    The ``delivery`` is ``accepted``: the response had started.
    """
    kind = _class_of(_error_of_response(response))
    error = _combine(kind, ResponseFailedError)(response)
    error.delivery = DeliveryStatus.ACCEPTED
    return error


def _error_of_response(response: Response) -> ErrorEvent:
    """Return the error of a failed response in the form of an ``error`` event."""
    error = response.error
    if error is None:
        return ErrorEvent()
    return ErrorEvent(
        code=error.code, message=error.message, param=error.param, error_type=error.type
    )


def _class_of(error: ErrorEvent) -> type[APIError]:
    """Return the class of an error: by its code, its type, a quoted code or its status."""
    for word in (error.code, error.error_type):
        kind = CLASS_OF_CODE.get(word or "")
        if kind is not None:
            return kind
    if "previous_response_not_found" in error.message:  # gateways quote the error of their server
        return PreviousResponseNotFound
    return CLASS_OF_STATUS.get(error.status or 0, APIError)


_combinations: Final[dict[tuple[type[APIError], type[APIError]], type[APIError]]] = {}


def _combine(kind: type[APIError], origin: type[Origin]) -> type[Origin]:
    """Return the class of errors that have both a kind and an origin.

    It has the name of the kind: a traceback shows ``AuthenticationError`` for a refused handshake
    as it does for a refused request.
    """
    if issubclass(origin, kind):
        return origin
    if (kind, origin) not in _combinations:
        namespace: dict[str, Any] = {"__doc__": kind.__doc__, "__module__": kind.__module__}
        namespace["_combined"] = kind, origin
        _combinations[kind, origin] = type(kind.__name__, (kind, origin), namespace)
    return cast("type[Origin]", _combinations[kind, origin])


def _is_quota(error: APIError) -> bool:
    """Whether a quota or a plan is used up, so that waiting a little does not help."""
    words = [word for word in (error.code, error.type) if word]
    return any(word in QUOTA_CODES or word.startswith(QUOTA_PREFIX) for word in words)


def _is_retryable(error: APIError) -> bool:
    if _is_quota(error) or isinstance(error, PERMANENT_REFUSALS):
        return False
    if isinstance(error, RateLimitError | ConnectionLimitReached):
        return True
    if error.status in CLIENT_ERRORS:
        return error.status in RETRYABLE_CLIENT_ERRORS
    if error.status in SERVER_ERRORS:
        return error.status != NOT_IMPLEMENTED
    return isinstance(error, ServerOverloaded) or SERVER_ERROR_CODE in {error.code, error.type}


def _hint_for(error: APIError) -> str:
    """Return what to do about an error; empty where that is not known."""
    if isinstance(error, RateLimitError):
        if not error.retryable:
            return "trying again does not help: check the plan and the billing of the account"
        if error.retry_after is None:
            return "try again later"
        return f"try again after {error.retry_after:g} s"
    no_such_path = error.status == NOT_FOUND and NO_SUCH_PATH.fullmatch(error.message)
    if no_such_path and not isinstance(error, HandshakeRejected):
        return "is the base URL right? /v1 may be missing in it"
    if error.param == "model" and error.code == "missing_required_parameter":
        return "pass model= to the turn, or to its conversation"
    return error.hint or HINT_OF_CODE.get(error.code or "", "")


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


PHASES: Final = {
    "dial": "the dial got no answer",
    "tls": "the TLS handshake did not finish",
    "upgrade": "the server did not answer the WebSocket upgrade",
}
"""The steps of opening a socket, as a message names them when they do not finish."""


class ConnectTimeout(ConnectError, trio.TooSlowError):
    """Dial, TLS and upgrade together, or ``api_key()``, took longer than ``timeouts.connect``.

    :ivar phase: the step that had not finished: ``key``, ``dial``, ``tls`` or ``upgrade``.
    :ivar seconds: the limit, in seconds.
    """

    def __init__(self, phase: str, seconds: float, *, address: str = "the server") -> None:
        if phase == "key":
            problem = f"api_key() returned no key within {seconds:g} s"
        else:
            problem = f"no connection to {address} within {seconds:g} s: {PHASES[phase]}"
        super().__init__(f"{problem} (timeouts.connect)")
        self.phase = phase
        self.seconds = seconds


UNAUTHORIZED: Final = 401
NO_SUCH_ROUTE: Final = frozenset({404, 405, 426, 501})
"""The statuses that servers without a WebSocket mode answer to an upgrade."""
AMBIGUOUS_STATUSES: Final = frozenset({*range(200, 400), 400, 403})
"""The statuses that mean the same, unless the response has an error or asks for a key."""


class HandshakeRejected(APIError, ConnectError):
    """The server answered the upgrade with an HTTP status other than 101.

    Most are of a second class as well, by the same table as errors of requests: a refused key is an
    `AuthenticationError`, status 429 a `RateLimitError`, status 503 a `ServerOverloaded`. The
    message quotes the error in the body of the response, if that is JSON.
    """

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.event: ErrorEvent | None = None
        self._describe(
            "the server refused the WebSocket upgrade",
            decode_error_body(status, headers, body),
            location=headers.get("location", "").partition("?")[0],
        )
        self.headers: Mapping[str, str] = headers
        self.body: bytes = body


class UpgradeUnsupported(HandshakeRejected):
    """The server has no WebSocket mode at this URL.

    It answered the upgrade with 404, 405, 426 or 501; or with 400, 403, a redirect or a page,
    without a JSON error and without ``WWW-Authenticate``. Servers that speak only HTTP do so. The
    message names the host and the path. Check the URL: ``/v1`` may be missing in it.
    """


def handshake_error(status: int, headers: Mapping[str, str], body: bytes) -> HandshakeRejected:
    """Return the exception for a refused upgrade, by the table.

    :param headers: the headers of the response, names in lower case.
    :param body: the beginning of the body.
    """
    error = decode_error_body(status, headers, body)
    has_reason = bool(error.code or error.message) or "www-authenticate" in headers
    if status in NO_SUCH_ROUTE or (status in AMBIGUOUS_STATUSES and not has_reason):
        return UpgradeUnsupported(status, headers, body)
    return _combine(_class_of(error), HandshakeRejected)(status, headers, body)


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

    The connection is closed, and every use of it raises this. The message begins with the last
    failure, which is the ``__cause__``: fix what it names, or pass a `ReconnectPolicy` with more
    attempts, and open a new connection.

    :ivar attempts: the number of attempts after the first failure.
    :ivar seconds: the seconds from the first failure to the last.
    """

    def __init__(self, attempts: int, cause: BaseException, *, seconds: float = 0.0) -> None:
        reason = str(cause) or type(cause).__name__
        if attempts:
            more = "1 more attempt" if attempts == 1 else f"{attempts} more attempts"
            effort = f"gave up after {more} in {seconds:.0f} s"
        else:
            effort = "no other attempt was made"
        retry_after = getattr(cause, "retry_after", None)
        if retry_after is not None:
            effort += f"; the server asks to wait {retry_after:g} s"
        super().__init__(f"{reason}; {effort}")
        self.attempts = attempts
        self.seconds = seconds
        self.__cause__: BaseException | None = cause


# --- Lost sockets ------------------------------------------------------------------------------


CLOSE_CODES: Final = {
    1000: "closed by the server",
    1001: "the server is going away",
    1002: "a protocol error",
    1006: "the network or the server ended it without a close frame",
    1007: "invalid data",
    1008: "the server's policy refuses the request or the account",
    1009: "a message was too large for the server",
    1011: "the server failed",
    1012: "the server restarts",
    1013: "the server is overloaded",
}
"""The meaning of close codes, as a message states it (RFC 6455, section 7.4)."""


class ConnectionLost(ResponsesError, trio.BrokenResourceError):
    """The socket ended: the server closed it, the network dropped it, or this side gave it up.

    A turn raises this, with its ``delivery``; the raw channel *yields* it in its place among the
    events. The connection opens a new socket by itself. The server's last error frame on the
    socket, if one came, is the ``__cause__``.

    :ivar code: the close code; 1006 when no close frame came (RFC 6455, section 7.1.5); `None` for
        a request over HTTP.
    :ivar reason: the server's reason, as sent. The message quotes it as `APIError` does.
    :ivar age: the seconds since the socket was opened.
    """

    __match_args__ = ("code", "reason")
    type: ClassVar[Literal["trio_responses.connection_lost"]] = "trio_responses.connection_lost"

    def __init__(self, code: int | None, reason: str = "", *, age: float = 0.0) -> None:
        closed = ""
        if code is not None:
            meaning = CLOSE_CODES.get(code)
            closed = f" (close code {code}, {meaning})" if meaning else f" (close code {code})"
        quoted = f": {printable(reason)}" if reason else ""
        super().__init__(f"the connection was lost after {age:.1f} s{closed}{quoted}")
        self.code = code
        self.reason = reason
        self.age = age


class KeepaliveTimeout(ConnectionLost, trio.TooSlowError):
    """No byte came from the server for the interval and timeout of the `Keepalive`.

    :ivar silence: the seconds since the last byte from the server.
    """

    def __init__(self, silence: float, *, age: float) -> None:
        super().__init__(1006, "keepalive timeout", age=age)
        self.args: tuple[object, ...] = (
            f"no sign of life from the server for {silence:.1f} s: keepalive gave the socket up",
        )
        self.silence = silence


class UnsupportedByTransport(ResponsesError):
    """The request needs a WebSocket, and the connection sends its requests over HTTP.

    Warm-ups, and commands of the raw channel other than ``response.create``, exist in WebSocket
    mode only. Nothing was sent.
    """


class SendTimeout(ConnectionLost, trio.TooSlowError):
    """One frame took longer than ``timeouts.send`` to write.

    A part of the frame may be on the wire, so no other frame can follow and the socket was closed.

    :ivar size: the size of the frame's payload, in bytes.
    """

    def __init__(self, size: int, *, age: float) -> None:
        super().__init__(1006, "send timeout", age=age)
        problem = f"a frame of {size} bytes could not be written within timeouts.send"
        self.args: tuple[object, ...] = (f"{problem}: the other side takes no more bytes",)
        self.size = size


class ConnectionClosed(ResponsesError, trio.ClosedResourceError):
    """The connection was used after this side closed it.

    Use a connection inside its ``async with`` block only.
    """


# --- Turns -------------------------------------------------------------------------------


class UndecodableResponse(ResponsesError):
    """The last frame of a response could not be decoded.

    The turn is over, and its result is available as raw bytes only.

    :ivar frame: the raw frame and the reason why it could not be decoded.
    """

    def __init__(self, frame: UndecodableFrame) -> None:
        kind = printable(frame.wire_type or "unknown", SHORT)
        super().__init__(f"the final frame, of type {kind}, could not be decoded: see error.frame")
        self.frame = frame


class UnexpectedOutput(ResponsesError):
    """The response to a warm-up has output.

    The endpoint ignores ``generate=False``: it generated, and may bill, output that was not wanted.
    Do not warm up with this endpoint.

    :ivar response: the Response with the output.
    """

    def __init__(self, response: Response) -> None:
        super().__init__(
            f"the warm-up {printable(response.id, SHORT)} produced output: this server ignores"
            " generate=False, so do not warm up"
        )
        self.response = response


class ParseError(ResponsesError):
    """A response has no answer of the type that ``parse`` was asked for.

    :ivar response: the Response.
    """

    def __init__(self, problem: str, response: Response) -> None:
        super().__init__(f"the response {printable(response.id, SHORT)} {problem}")
        self.response = response


class RefusalError(ParseError):
    """The model refused to answer.

    :ivar refusal: the model's text; it is not in ``str()``.
    """

    def __init__(self, response: Response) -> None:
        super().__init__("is a refusal: error.refusal has the model's text", response)
        answers = response.answer_messages
        self.refusal: str = (answers[-1].refusal if answers else "") or response.refusal


class IncompleteError(ParseError):
    """The answer was cut off.

    :ivar reason: the server's reason, such as ``max_output_tokens``; `None` when it gave none.
    """

    def __init__(self, response: Response) -> None:
        details = response.incomplete_details
        self.reason: str | None = details.reason if details is not None else None
        reason = self.reason or response.status
        super().__init__(f"is incomplete: {printable(str(reason), SHORT)}", response)


class ParseMismatchError(ParseError, ValueError):
    """The answer does not fit the type, or the response has no answer.

    :ivar text: the text of the answer; it is not in ``str()``.
    :ivar message: the reason why the text does not fit, or why there is no answer. The reason may
        quote the text, so ``str()`` has it without the text, or not at all.
    :ivar place: the path of the value that does not fit, such as ``$.city``; `None` when unknown.
    :ivar calls: the calls of tools in the response that have no output.
    """

    def __init__(
        self,
        response: Response,
        message: str | None = None,
        *,
        summary: str | None = None,
        place: str | None = None,
        calls: Sequence[ToolCall] = (),
    ) -> None:
        reason = _missing_answer(response, calls)
        problem = f"has no answer: {reason}"
        if message is not None:
            where = f" at {printable(place, SHORT)}" if place else ""
            hint = f"; {reason}" if calls else ""
            found = f"{where}: error.message has the reason, error.text the answer"
            if summary is not None:
                found = f": {printable(summary)}; error.text has the answer"
            problem = f"does not fit the type that was asked for{found}{hint}"
        super().__init__(problem, response)
        answers = response.answer_messages
        self.text: str = answers[-1].output_text if answers else ""
        self.message: str = reason if message is None else message
        self.place = place
        self.calls: tuple[ToolCall, ...] = tuple(calls)


def _missing_answer(response: Response, calls: Sequence[ToolCall]) -> str:
    """Return the reason why a response has no answer."""
    if calls:
        return (
            f"the model called {', '.join(map(_describe_call, calls))}, which have no output:"
            " pass the tools to conversation.parse(), or send the outputs in the next turn"
        )
    if response.output_text:
        return "its output has commentary alone"
    return "its output has no message"


def _describe_call(call: ToolCall) -> str:
    """Return the name of a call, or else its type, and its id."""
    name = getattr(call, "name", None) or call.wire_type or "a tool"
    namespace = getattr(call, "namespace", None)
    qualified = f"{namespace}.{name}" if namespace else str(name)
    call_id = getattr(call, "call_id", None) or getattr(call, "id", None)
    return f"{printable(qualified, SHORT)} ({printable(str(call_id), SHORT)})"


class MaxRoundsExceeded(ResponsesError):
    """The model still called tools in the last round that a run allows.

    The conversation is intact: the next run answers the calls of the last response first. Raise
    ``max_rounds`` when the model needs more rounds.

    :ivar rounds: the number of rounds.
    :ivar response: the Response of the last round.
    """

    def __init__(self, rounds: int, response: Response) -> None:
        super().__init__(
            f"the model still calls tools in the last of {rounds} rounds (max_rounds): raise it, or"
            " start another run, which answers these calls first"
        )
        self.rounds = rounds
        self.response = response


class ToolRetriesExceeded(ResponsesError):
    """The calls of a tool failed in more responses in a row than its limit of retries allows.

    The conversation is intact: the next run sends the outputs of these calls, which have the
    errors, and counts anew. The ``__cause__`` is the last error of the tool.

    :ivar tool: the name of the tool, with its namespace.
    :ivar max_retries: the limit.
    """

    def __init__(self, tool: str, max_retries: int) -> None:
        super().__init__(
            f"the calls of the tool {printable(tool, SHORT)!r} failed more often in a row than its"
            f" limit of retries allows (max_retries={max_retries}): __cause__ is the last error,"
            " which the next run sends to the model"
        )
        self.tool = tool
        self.max_retries = max_retries


class CallNotRejectable(ResponsesError):
    """A call must not run, and its type of output cannot express the reason.

    :ivar kind: the type of the call, such as ``computer_call``.
    :ivar reason: the reason why it must not run, such as the text of ``approve``.
    """

    def __init__(self, kind: str, reason: str) -> None:
        super().__init__(
            f"a {printable(kind, SHORT)} must not run, and its output cannot express a refusal:"
            f" {reason}"
        )
        self.kind = kind
        self.reason = reason


class CallInterrupted(ResponsesError):
    """A call was interrupted in an earlier run, and its type of output cannot express this.

    Whether the call had an effect is not known, so it does not run again by itself. Send its output
    in the input of the next run, or pass ``repeat_interrupted=True`` to run it again.

    :ivar kind: the type of the call, such as ``computer_call``.
    :ivar call: the call.
    """

    def __init__(self, call: ToolCall) -> None:
        kind = printable(call.wire_type, SHORT)
        super().__init__(
            f"a {kind} was interrupted in an earlier run, and may have had an effect: send its"
            " output in the input, or pass repeat_interrupted=True to run it again"
        )
        self.kind: str = call.wire_type
        self.call = call


class SafetyChecksPending(ResponsesError):
    """A computer call has safety checks that were not acknowledged, so the call did not run.

    Pass ``approve=`` to the run: a call that it approves runs, and its output acknowledges the
    checks.

    :ivar call: the call; its ``pending_safety_checks`` are the checks.
    """

    def __init__(self, call: ComputerCall) -> None:
        codes = ", ".join(check.code or check.id for check in call.pending_safety_checks or ())
        super().__init__(
            f"a computer_call has pending safety checks ({printable(codes, SHORT)}): pass approve="
            " to the run, and approve the call to acknowledge them"
        )
        self.call = call


class UndecodableCall(ResponsesError):
    """A response has a call that no output can answer: a call without an id, or of unknown type.

    The turn is in the history. Send the output in the input of the next run, or replace the
    history.

    :ivar call: the call, as it came.
    :ivar reason: why no output can answer it.
    :ivar response: the Response with the call.
    """

    def __init__(self, call: OutputItem, reason: str, response: Response) -> None:
        kind = printable(call.wire_type or "unknown", SHORT)
        super().__init__(
            f"the response {printable(response.id, SHORT)} has a call of type {kind} that cannot be"
            f" answered: {reason}; error.call has the call"
        )
        self.call = call
        self.reason = reason
        self.response = response


class FirstEventTimeout(ResponsesError, trio.TooSlowError):
    """The request was sent, and no event of its response came within ``timeouts.first_event``.

    :ivar seconds: the limit, in seconds.
    :ivar sent: the seconds since the request was written.
    """

    def __init__(self, seconds: float, *, sent: float) -> None:
        super().__init__(
            f"no event within {seconds:g} s (timeouts.first_event): the request was sent"
            f" {sent:.1f} s ago"
        )
        self.seconds = seconds
        self.sent = sent


class StallTimeout(ResponsesError, trio.TooSlowError):
    """The response started, and then no event came for ``timeouts.stall``.

    :ivar seconds: the limit, in seconds.
    :ivar last_event: the type of the last event.
    :ivar silence: the seconds since that event.
    """

    def __init__(self, seconds: float, *, last_event: str, silence: float) -> None:
        super().__init__(
            f"the response was silent for {silence:.1f} s after {printable(last_event, SHORT)},"
            f" longer than timeouts.stall ({seconds:g} s)"
        )
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
        bound = "the server's limit" if limit is None else f"limits.max_request_bytes ({limit})"
        super().__init__(
            f"a request of {size} bytes is over {bound}: send less input, or compact the"
            " conversation"
        )
        self.size = size
        self.limit = limit


class MessageTooLarge(ResponsesError):
    """A message from the server was over ``limits.max_message_bytes``.

    The message was discarded while it arrived; the connection stays open.

    :ivar size: the size of the message, in bytes.
    :ivar limit: the limit, in bytes.
    """

    def __init__(self, size: int, limit: int) -> None:
        super().__init__(
            f"a message of {size} bytes from the server is over limits.max_message_bytes ({limit})"
        )
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
        super().__init__(
            f"{buffered} unread bytes of this turn held up the other turns of the connection: read"
            " its events faster, or raise limits.connection_buffer_bytes"
        )
        self.buffered = buffered


# --- Sending again -----------------------------------------------------------------------


def failure_of(error: ResponsesError) -> Failure:
    """Return what an exception means for the decision whether to send a request again."""
    match error:
        case ConnectionLost():
            return Failure.CONNECTION_LOST
        case FirstEventTimeout() | StallTimeout():
            return Failure.TIMED_OUT
        case ConnectError():
            return Failure.OTHER
        case ConnectionLimitReached():
            return Failure.CONNECTION_LIMIT
        case APIError():
            return _failure_of_refusal(error)
        case _:
            return Failure.OTHER


def _failure_of_refusal(error: APIError) -> Failure:
    """Return what an error of the server means, by its class and its status."""
    if not error.retryable:
        has_reason = (error.status, error.code, error.type) != (None, None, None)
        return Failure.OTHER if has_reason or error.event is None else Failure.SERVER_ERROR
    if isinstance(error, RateLimitError) or error.status == TOO_MANY_REQUESTS:
        return Failure.RATE_LIMITED
    return Failure.OTHER if error.status in CLIENT_ERRORS else Failure.SERVER_ERROR


def retry_hint(error: ResponsesError) -> float | None:
    """Return the seconds that the server asked to wait before the request is sent again."""
    return error.retry_after if isinstance(error, APIError) else None
