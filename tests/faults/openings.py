"""The cells of a socket that is opened: resolve, dial, proxy, TLS, upgrade."""

from __future__ import annotations

import errno
import socket
import ssl
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import trio
import trustme

from tests.faults.cells import CONNECT, Opening, Span
from tests.faults.faults import fin, half_open, reset
from tests.faults.servers import AUTHORITY, HOST
from tests.transport.proxies import secured, server_context
from trio_responses import (
    AuthenticationError,
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    ProxyError,
    RateLimitError,
    ServerOverloaded,
    UpgradeUnsupported,
)

if TYPE_CHECKING:
    from tests.faults.cells import Action
    from tests.faults.servers import ServerPeer
    from trio_responses import APIError

GRACE: Final = Span(1.0, "one second for the body")
OTHER_AUTHORITY: Final = trustme.CA()


# --- What happens -----------------------------------------------------------------------------


def failing(error: OSError) -> Any:
    async def dial() -> None:
        await trio.lowlevel.checkpoint()
        raise type(error)(*error.args)

    return dial


async def hold(peer: ServerPeer) -> None:
    """Ignore the client until it leaves."""
    while await peer.stream.receive_some():
        pass
    raise EOFError


def at_connect(*steps: Action | bytes, reading: bool = True) -> Action:
    """Return an action that reads a head (CONNECT or the upgrade), and takes these steps."""

    async def server(peer: ServerPeer) -> None:
        if reading:
            await peer.read_head()
        for step in steps:
            if isinstance(step, bytes):
                await peer.send(step)
            else:
                await step(peer)
        await hold(peer)

    return server


def behind_tls(*steps: Action | bytes) -> Action:
    """Return an action that does the TLS handshake, and answers the upgrade with these steps."""
    after = at_connect(*steps)

    async def server(peer: ServerPeer) -> None:
        await peer.net.greet(peer)
        await after(peer)

    return server


def slowly(seconds: float) -> Action:
    """Return an action that answers the upgrade byte by byte, and then serves."""

    async def server(peer: ServerPeer) -> None:
        await peer.read_head()
        answer = peer.switching()
        for place in range(len(answer)):
            await trio.sleep(seconds / len(answer))
            await peer.send(answer[place : place + 1])
        await peer.serve()

    return server


async def slow_proxy(peer: ServerPeer) -> None:
    """Answer CONNECT byte by byte, in two seconds, and then serve."""
    await peer.read_head()
    answer = b"HTTP/1.1 200 OK\r\n\r\n\r\n"[:-2]
    for place in range(len(answer)):
        await trio.sleep(2 / len(answer))
        await peer.send(answer[place : place + 1])
    await peer.net.serve(peer)


async def accept_wrongly(peer: ServerPeer) -> None:
    await peer.read_head()
    await peer.send(peer.switching(token="bm90IHRoZSBhbnN3ZXI="))
    await hold(peer)


async def shake_hands(peer: ServerPeer, context: ssl.SSLContext) -> None:
    """Do a TLS handshake that the client may refuse."""
    await secured(peer, context)
    await hold(peer)


def old_protocol() -> ssl.SSLContext:
    """Return a context that only has ciphers which no client offers by default."""
    context = server_context(AUTHORITY, HOST)
    context.maximum_version = ssl.TLSVersion.TLSv1_2
    context.set_ciphers("AES128-SHA")
    return context


def status(code: int, *headers: str, body: bytes = b"{}") -> bytes:
    lines = [f"HTTP/1.1 {code} Whatever", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


ALERT: Final = b"\x15\x03\x03\x00\x02\x02\x28"
"""handshake_failure, fatal (RFC 8446, 6.2)."""


# --- The cells --------------------------------------------------------------------------------


def no_name(code: int, words: str) -> Any:
    return failing(socket.gaierror(code, words))


RESOLVE: Final = [
    Opening(
        phase="resolve",
        fault="no answer for now",
        dial=no_name(socket.EAI_AGAIN, "try again"),
        error=ConnectError,
    ),
    Opening(
        phase="resolve",
        fault="unknown host",
        dial=no_name(socket.EAI_NONAME, "not known"),
        error=ConnectError,
    ),
    Opening(
        phase="resolve",
        fault="stall",
        dial=trio.sleep_forever,
        error=ConnectTimeout,
        takes=CONNECT,
    ),
]

DIAL: Final = [
    Opening(
        phase="dial",
        fault="refused",
        dial=failing(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        error=ConnectError,
    ),
    Opening(
        phase="dial",
        fault="unreachable",
        dial=failing(OSError(errno.ENETUNREACH, "unreachable")),
        error=ConnectError,
    ),
    Opening(
        phase="dial",
        fault="stall",
        dial=partial(trio.sleep, 1000),
        error=ConnectTimeout,
        takes=CONNECT,
    ),
    Opening(phase="dial", fault="reset", server=reset, error=ConnectError),
]


def by_proxy(fault: str, *steps: Action | bytes, **expected: Any) -> Opening:
    expected = {"error": ProxyError, **expected}
    return Opening(phase="proxy", fault=fault, server=at_connect(*steps), **expected)


PROXY: Final = [
    Opening(
        phase="proxy",
        fault="refused",
        dial=failing(ConnectionRefusedError(errno.ECONNREFUSED, "refused")),
        error=ProxyError,
    ),
    by_proxy("FIN", fin),
    by_proxy("reset", reset),
    by_proxy("stall", error=ConnectTimeout, takes=CONNECT),
    by_proxy("half-open", half_open, error=ConnectTimeout, takes=CONNECT),
    Opening(
        phase="proxy", fault="slow bytes", server=slow_proxy, error=None, takes=Span(2.0, "2 s")
    ),
    by_proxy("not HTTP", b"SSH-2.0-OpenSSH_9\r\n", retried=False),
    by_proxy("HTTP 301", status(301, "Location: /"), status=301, retried=False),
    by_proxy("HTTP 403", status(403), status=403, retried=False),
    by_proxy("HTTP 404", status(404), status=404, retried=False),
    by_proxy("HTTP 407", status(407), status=407, retried=False),
    by_proxy(
        "HTTP 429, `Retry-After: 7`", status(429, "Retry-After: 7"), status=429, retry_after=7.0
    ),
    by_proxy("HTTP 500", status(500), status=500),
    by_proxy("HTTP 502", status(502), status=502),
    by_proxy(
        "HTTP 503, `Retry-After: 7`", status(503, "Retry-After: 7"), status=503, retry_after=7.0
    ),
    by_proxy("HTTP 504", status(504), status=504),
]


def by_tls(fault: str, *steps: Action | bytes, **expected: Any) -> Opening:
    expected = {"error": ConnectError, **expected}
    return Opening(phase="TLS", fault=fault, server=at_connect(*steps, reading=False), **expected)


def by_certificate(fault: str, context: ssl.SSLContext, **expected: Any) -> Opening:
    server = partial(shake_hands, context=context)
    return Opening(phase="TLS", fault=fault, server=server, error=ConnectError, **expected)


TLS: Final = [
    by_tls("FIN", fin),
    by_tls("reset", reset),
    by_tls("stall", error=ConnectTimeout, takes=CONNECT),
    by_tls("half-open", half_open, error=ConnectTimeout, takes=CONNECT),
    by_tls("fatal alert", ALERT),
    by_tls("no TLS at all", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    by_certificate("no cipher in common", old_protocol()),
    by_certificate("untrusted certificate", server_context(OTHER_AUTHORITY, HOST), retried=False),
    by_certificate(
        "certificate of another host", server_context(AUTHORITY, "other.test"), retried=False
    ),
    Opening(phase="TLS", fault="FIN behind it", server=behind_tls(fin), error=ConnectError),
    Opening(
        phase="TLS",
        fault="HTTP 403 behind it",
        server=behind_tls(status(403)),
        error=UpgradeUnsupported,
        status=403,
        retried=False,
    ),
]


def by_server(fault: str, *steps: Action | bytes, **expected: Any) -> Opening:
    expected = {"error": ConnectError, **expected}
    return Opening(phase="upgrade", fault=fault, server=at_connect(*steps), **expected)


def by_status(code: int, error: type[APIError], *headers: str, **expected: Any) -> Opening:
    named = "".join(f", `{header}`" for header in headers)
    expected = {"retried": False, "status": code, "error": error, **expected}
    return by_server(f"HTTP {code}{named}", status(code, *headers), **expected)


UPGRADE: Final = [
    by_server("FIN", fin),
    by_server("reset", reset),
    by_server("stall", error=ConnectTimeout, takes=CONNECT),
    by_server("half-open", half_open, error=ConnectTimeout, takes=CONNECT),
    Opening(
        phase="upgrade",
        fault="slow bytes",
        server=slowly(10.0),
        error=None,
        takes=Span(10.0, "10 s"),
    ),
    Opening(
        phase="upgrade",
        fault="bytes too slow",
        server=slowly(20.0),
        error=ConnectTimeout,
        takes=CONNECT,
    ),
    by_server("half a head, then FIN", b"HTTP/1.1 101 Swi", fin),
    by_server("half a head, then reset", b"HTTP/1.1 101 Swi", reset),
    by_server("not HTTP", b"\x00\x01\x02\x03", retried=False),
    by_server("a head without end", b"HTTP/1.1 200 OK\r\n" + b"x" * 70_000),
    Opening(
        phase="upgrade", fault="101 for another key", server=accept_wrongly, error=ConnectError
    ),
    by_status(301, UpgradeUnsupported, "Location: wss://elsewhere.test/"),
    by_status(400, UpgradeUnsupported),
    by_status(401, AuthenticationError),
    by_status(403, UpgradeUnsupported),
    by_status(404, UpgradeUnsupported),
    by_status(405, UpgradeUnsupported),
    by_status(407, HandshakeRejected),
    by_status(408, HandshakeRejected, retried=True),
    by_status(425, HandshakeRejected, retried=True),
    by_status(426, UpgradeUnsupported),
    by_status(429, RateLimitError, retried=True),
    by_status(429, RateLimitError, "Retry-After: 7", retried=True, retry_after=7.0),
    by_status(429, RateLimitError, "Retry-After: 301", retried=True, retry_after=301.0),
    by_status(500, HandshakeRejected, retried=True),
    by_status(501, UpgradeUnsupported),
    by_status(502, HandshakeRejected, retried=True),
    by_status(503, ServerOverloaded, retried=True),
    by_status(503, ServerOverloaded, "Retry-After: 7", retried=True, retry_after=7.0),
    by_server(
        "HTTP 503, a body without end",
        status(503, body=b"")[:-4].replace(b"Length: 0", b"Length: 99") + b"\r\n\r\n",
        error=ServerOverloaded,
        status=503,
        takes=GRACE,
    ),
]

OPENINGS: Final = [*RESOLVE, *DIAL, *PROXY, *TLS, *UPGRADE]
HTTP_OPENINGS: Final = [
    cell
    for cell in (*RESOLVE, *DIAL, *PROXY, *TLS)
    if cell.name != "dial: reset" and "behind" not in cell.fault
]
"""The cells that a request over HTTP meets in the same way."""
