"""The HTTP side of the upgrade: reading the request head, judging it, writing refusals.

WebSocket itself is trio-websocket's; this file sees the head first, so that a plain HTTP
request gets a plain HTTP answer.
"""

import http
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final, Literal, TypeAlias

import msgspec

from trio_responses.testing._errors import RequestRefusal
from trio_responses.testing._script_checks import check_how, check_word
from trio_responses.testing._scripts import How
from trio_responses.testing._streams import FaultyStream

_MAX_HEAD: Final = 65536


@dataclass(frozen=True, slots=True)
class Head:
    """The head of an HTTP request."""

    method: str
    target: str
    headers: Mapping[str, str] = field(repr=False)
    """By lower-case name; of a repeated header the last one."""

    @property
    def path(self) -> str:
        """The target without its query."""
        return self.target.partition("?")[0]

    @property
    def is_upgrade(self) -> bool:
        """Whether it asks for a WebSocket in the way of RFC 6455, section 4.2.1."""
        connection = self.headers.get("connection", "").lower()
        return (
            self.method == "GET"
            and self.headers.get("upgrade", "").lower() == "websocket"
            and "upgrade" in connection
            and "sec-websocket-key" in self.headers
            and "host" in self.headers
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpRefusal:
    """An HTTP answer in place of the upgrade."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict[str, str])
    body: bytes = b""


@dataclass(frozen=True, slots=True)
class Hang:
    """Never answer the upgrade."""


@dataclass(frozen=True, slots=True)
class HangUp:
    """End the connection in place of an answer."""

    how: Literal["fin", "reset"]

    def __post_init__(self) -> None:
        """Refuse an unknown word."""
        check_word("how", self.how, ("fin", "reset"))


@dataclass(frozen=True, slots=True)
class Garbage:
    """Answer with bytes that are no HTTP."""

    data: bytes


@dataclass(frozen=True, slots=True)
class AcceptAndDrop:
    """Accept the upgrade and end the connection at once."""

    how: How
    reason: str = ""

    def __post_init__(self) -> None:
        """Refuse an unknown word, and what no close frame carries."""
        check_how(self.how)


HandshakeFault: TypeAlias = HttpRefusal | Hang | HangUp | Garbage | AcceptAndDrop


async def read_head(stream: FaultyStream) -> Head | None:
    """Read a request head and push its bytes back; None if the client left before its end.

    :raises ValueError: if it is no HTTP/1 request head.
    """
    data = b""
    while b"\r\n\r\n" not in data:
        received = await stream.receive_some()
        if not received:
            return None
        data += received
        if len(data) > _MAX_HEAD:
            raise ValueError("the request head is too large")
    stream.push_back(data)
    first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    try:
        method, target, version = first.split(" ")
    except ValueError:
        raise ValueError("the request line has not three words") from None
    if not version.startswith("HTTP/1."):
        raise ValueError(f"unknown protocol {version!r}")
    pairs = (line.partition(":") for line in lines)
    return Head(method, target, {name.strip().lower(): value.strip() for name, _, value in pairs})


def judge(head: Head, api_key: str | None) -> HttpRefusal | None:
    """Return how an upgrade must be refused, or None if it may go on.

    :param api_key: The key that the client has to show as a bearer token or in ``api-key``;
        None accepts every key, and none.
    """
    if not head.path.endswith("/v1/responses"):
        return _refuse(404, "not_found", f"Unknown path: {head.path}")
    if not _is_authorized(head.headers, api_key):
        return _refuse(401, "invalid_api_key", "Incorrect API key provided.")
    if not head.is_upgrade:
        message = "This server speaks the Responses API over WebSocket only."
        return _refuse(426, "upgrade_required", message, Upgrade="websocket")
    return None


def refuse_head(message: str) -> HttpRefusal:
    """Return the answer to something that is no HTTP request."""
    return _refuse(400, "bad_request", message)


def json_refusal(
    status: int, *, code: str | None, message: str, headers: Mapping[str, str]
) -> HttpRefusal:
    """Return an HTTP answer with the API's usual JSON error in it."""
    error = RequestRefusal(message=message, code=code, status=status).error_object()
    body = msgspec.json.encode({"error": error})
    return HttpRefusal(
        status=status, headers={"Content-Type": "application/json", **headers}, body=body
    )


async def write_refusal(stream: FaultyStream, refusal: HttpRefusal) -> None:
    """Write an HTTP answer and end the connection without losing it to a reset."""
    try:
        phrase = http.HTTPStatus(refusal.status).phrase
    except ValueError:
        phrase = "Refused"
    lines = [f"HTTP/1.1 {refusal.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in refusal.headers.items()]
    lines += [f"Content-Length: {len(refusal.body)}", "Connection: close", "", ""]
    await stream.send_all("\r\n".join(lines).encode("latin-1") + refusal.body)
    await stream.end()


def _is_authorized(headers: Mapping[str, str], api_key: str | None) -> bool:
    scheme, _, token = headers.get("authorization", "").partition(" ")
    if api_key is not None:
        bearer = scheme.lower() == "bearer" and token.strip() == api_key
        return bearer or headers.get("api-key") == api_key
    if "authorization" in headers:
        return scheme.lower() == "bearer" and bool(token.strip())
    return True


def _refuse(status: int, code: str, message: str, **headers: str) -> HttpRefusal:
    return json_refusal(status, code=code, message=message, headers=headers)
