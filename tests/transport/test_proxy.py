"""HTTP proxies: what they may answer, and that the server is never dialled directly."""

from __future__ import annotations

import base64
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.opened import open_transport
from tests.transport.peer import (
    HEADERS,
    KEY,
    assert_secret_kept,
    connection_config,
    open_net,
    takes,
    text,
)
from tests.transport.proxies import ESTABLISHED, without_environment
from trio_responses._client import open_responses
from trio_responses._endpoint import USER_AGENT
from trio_responses._errors import (
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    ProxyError,
    ReconnectFailed,
)
from trio_responses._settings import Timeouts
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from tests.transport.peer import Net, Peer, Script
    from trio_responses._transport.websocket import WebSocketTransport

pytestmark = NO_WAITING

URL = "ws://models.test/v1"
PROXY = f"http://someone:{KEY}@proxy.test:3128"
PATIENCE = Timeouts(connect=10.0)


def tunnel(net: Net, proxy: str = PROXY) -> Tunnel:
    return Tunnel(Proxy.of(proxy), net.dial)


def answering(*pieces: bytes, then_close: bool = False) -> Script:
    """Read the CONNECT request, answer in pieces, and send nothing more."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        for piece in pieces:
            await peer.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        if then_close:
            await peer.stream.aclose()
        await trio.sleep_forever()

    return script


def opening(*pieces: bytes) -> Script:
    """Answer CONNECT in pieces, and then play the server behind the tunnel."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        for piece in pieces:
            await peer.send(piece)
            await trio.testing.wait_all_tasks_blocked()
        await peer.accept()
        await peer.send(text("first"))

    return script


@asynccontextmanager
async def through(
    script: Script, *, url: str = URL, proxy: str = PROXY
) -> AsyncGenerator[tuple[WebSocketTransport, Peer]]:
    async with open_net(script) as net:
        options = connection_config(tunnel(net, proxy), url=url)
        async with open_transport(options, HEADERS) as transport:
            assert len(net.dialled) == 1
            yield transport, net.peers[0]


async def refused_by(script: Script, *, proxy: str = PROXY) -> ProxyError:
    """Return the error of a failed tunnel; assert that only the proxy was dialled, and no key."""
    async with open_net(script) as net:
        with pytest.raises(ProxyError) as caught:
            async with open_transport(connection_config(tunnel(net, proxy), url=URL), HEADERS):
                pass
        assert net.dialled == [("proxy.test", 3128)]
        assert not [peer for peer in net.peers if HEADERS[0][1] in peer.head]
    error = caught.value
    assert_secret_kept(error)
    assert "someone" not in str(error)
    assert error.proxy == "proxy.test:3128"
    assert error.proxy in str(error)
    return error


# --- The request --------------------------------------------------------------------------


async def connect_request(url: str, proxy: str) -> tuple[list[str], tuple[str, int]]:
    """Return the lines of the request, and the address that was dialled."""
    heads: list[str] = []

    async def script(peer: Peer) -> None:
        heads.append(await peer.read_head())

    async with open_net(script) as net:
        with pytest.raises(ConnectTimeout):
            async with open_transport(connection_config(tunnel(net, proxy), url=url), HEADERS):
                pass
        return heads[0].split("\r\n"), net.dialled[0]


@pytest.mark.parametrize(
    ("url", "authority"),
    [
        ("ws://models.test/v1", "models.test:80"),
        ("wss://models.test/v1?x=y", "models.test:443"),
        ("wss://Models.test:8443/v1", "models.test:8443"),
        ("ws://[::1]:81/v1", "[::1]:81"),
        ("ws://127.0.0.1/v1", "127.0.0.1:80"),
    ],
)
async def test_the_connect_request_has_the_server_and_not_the_key(url: str, authority: str) -> None:
    lines, dialled = await connect_request(url, "http://proxy.test:3128")
    assert dialled == ("proxy.test", 3128)
    assert lines == [
        f"CONNECT {authority} HTTP/1.1",
        f"Host: {authority}",
        f"User-Agent: {USER_AGENT}",
    ]


@pytest.mark.parametrize(
    ("userinfo", "credentials"),
    [
        ("u:p", "u:p"),
        ("u", "u:"),
        (":p", ":p"),
        ("u%40corp:p%3A%2F%25", "u@corp:p:/%"),
        ("u:%C3%A9", "u:é"),
    ],
)
async def test_credentials_are_sent_by_basic_authentication(
    userinfo: str, credentials: str
) -> None:
    lines, _ = await connect_request(URL, f"http://{userinfo}@proxy.test:3128")
    encoded = base64.b64encode(credentials.encode()).decode()
    assert lines[3:] == [f"Proxy-Authorization: Basic {encoded}"]


async def test_credentials_are_sent_to_the_proxy_only() -> None:
    """P9."""
    async with through(opening(ESTABLISHED)) as (_, peer):
        assert peer.head.startswith("GET /v1/responses HTTP/1.1")
        assert "proxy" not in peer.head.lower()
        assert dict(peer.headers)["Host"] == "models.test"


# --- Answers that open it -----------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        ESTABLISHED,
        b"HTTP/1.0 200 Connection established\r\n\r\n",
        b"HTTP/1.1 200\r\n\r\n",
        b"HTTP/1.1 200 \r\n\r\n",
        b"HTTP/1.1 204 Fine\r\n\r\n",
        b"HTTP/1.1 200 caf\xe9\r\nX-Caf: \xe9\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nProxy-Agent: x/1.0\r\nX-Empty:\r\nX-Tab:\t y \r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n" + ESTABLISHED,
        b"HTTP/1.1 200 OK\r\nX-Long: " + b"x" * 65_000 + b"\r\n\r\n",
    ],
    ids=range(10),
)
async def test_every_2xx_answer_opens_the_tunnel(answer: bytes) -> None:
    """Length and encoding of a 2xx answer have no meaning here (RFC 9110, section 9.3.6)."""
    async with through(opening(answer)) as (transport, _):
        assert await transport.receive() == [b"first"]


async def test_an_answer_may_come_byte_by_byte() -> None:
    answer = b"HTTP/1.1 100 Continue\r\n\r\n" + ESTABLISHED
    async with through(opening(*[bytes([byte]) for byte in answer])) as (transport, _):
        assert await transport.receive() == [b"first"]


@pytest.mark.parametrize("size", [1, 10, 1_000, 100_000])
async def test_no_byte_after_the_answer_is_lost(size: int) -> None:
    """The server's first bytes may come in one read with the proxy's answer."""
    said = bytes(range(256)) * (size // 256 + 1)

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(ESTABLISHED + said[:size])
        await peer.send(b" and more")
        await peer.stream.aclose()

    async with open_net(script) as net:
        stream = await tunnel(net)("models.test", 80)
        received = bytearray(await stream.receive_some(1))
        assert received == said[:1]
        while data := await stream.receive_some(7):
            received += data
        assert received == said[:size] + b" and more"
        await stream.aclose()


@pytest.mark.parametrize("cut", range(len(ESTABLISHED) + 30))
async def test_answer_and_upgrade_may_be_split_anywhere(cut: int) -> None:
    """The 101 comes directly after the proxy's answer, split into two reads anywhere."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        # An interim answer before the 101, as from a server that sends first.
        early = ESTABLISHED + b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n"
        await peer.send(early[:cut])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(early[cut:])
        await peer.read_head()
        await peer.send(peer.switching() + text("first") + text("second"))

    async with through(script) as (transport, _):
        messages: list[object] = []
        while len(messages) < 2:
            messages += await transport.receive()
        assert messages == [b"first", b"second"]


# --- Answers that do not ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "retryable"),
    [
        (301, False),
        (400, False),
        (401, False),
        (403, False),
        (404, False),
        (407, False),
        (408, True),
        (429, True),
        (500, True),
        (501, False),
        (502, True),
        (503, True),
        (504, True),
        (511, False),
    ],
)
async def test_a_refusal_of_the_proxy_has_its_status(status: int, retryable: bool) -> None:  # noqa: FBT001
    body = f"no, {KEY}".encode()
    said = f"HTTP/1.1 {status} {KEY}\r\nProxy-Authenticate: Basic realm=x\r\n\r\n".encode()
    async with takes(0.0):
        error = await refused_by(answering(said + body))
    assert (error.status, error.retryable, error.retry_after) == (status, retryable, None)
    assert str(status) in str(error)
    assert isinstance(error, ConnectError)
    assert not isinstance(error, HandshakeRejected)


async def test_retry_after_of_a_proxy_is_read() -> None:
    error = await refused_by(answering(b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\n\r\n"))
    assert error.retry_after == 7.0


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"\x05\xff",
        b"X",
        b"\r\n\r\n",
        b"HTTP/2 200 OK\r\n\r\n",
        b"HTTP/1.2 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 20 OK\r\n\r\n",
        b"HTTP/1.1 2000 OK\r\n\r\n",
        b"HTTP/1.1 600 OK\r\n\r\n",
        b"HTTP/1.1 abc OK\r\n\r\n",
        b"HTTP/1.1  200 OK\r\n\r\n",
        b"HTTP/1.1 200OK\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 200 OK\n\n",
        b"HTTP/1.1 200 OK\r\nX: y\n",
        b"HTTP/1.1 200 O\rK\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX : y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\n: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nX: y\r\n folded\r\n\r\n",
        b"http/1.1 200 OK\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_not_retried(garbage: bytes) -> None:
    async with takes(0.0):
        error = await refused_by(answering(garbage))
    assert "its answer is not HTTP" in str(error)
    assert (error.status, error.retryable) == (None, False)


@pytest.mark.parametrize(
    "said",
    [
        b"HTTP/1.1 200 OK\r\n" + b"X-Long: " + b"x" * 100 * 1024,
        b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 20_000,
        b"HTTP/1.1 102 Processing\r\n\r\n" * 4_000,
        b"HTTP/1.1 200 OK\r\nX: " + b"x" * 65 * 1024 + b"\r\n\r\n",
    ],
    ids=["line", "lines", "interim answers", "head"],
)
async def test_the_head_of_a_proxys_answer_has_a_size_limit(said: bytes) -> None:
    """P10."""
    pieces = [said[start : start + 1000] for start in range(0, len(said), 1000)]
    async with takes(0.0):
        error = await refused_by(answering(*pieces))
    assert "no end" in str(error)
    assert not error.retryable


@pytest.mark.parametrize("size", range(len(ESTABLISHED)))
async def test_an_end_inside_the_answer_is_noticed_at_once(size: int) -> None:
    async with takes(0.0):
        error = await refused_by(answering(ESTABLISHED[:size], then_close=True))
    assert "closed the connection" in str(error)
    assert (error.status, error.retryable) == (None, True)


async def test_an_end_directly_after_the_answer_counts_as_the_servers() -> None:
    async with open_net(answering(ESTABLISHED, then_close=True)) as net:
        with pytest.raises(ConnectError) as caught:
            async with open_transport(connection_config(tunnel(net), url=URL), HEADERS):
                pass
        assert not isinstance(caught.value, ProxyError)


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200"])
async def test_a_reset_inside_the_answer_is_noticed_at_once(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(said)
        net.reset_soon()
        await trio.sleep_forever()

    async with open_net(script) as net, takes(0.0):
        with pytest.raises(ProxyError, match="broke") as caught:
            async with open_transport(connection_config(tunnel(net), url=URL), HEADERS):
                pass
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert caught.value.retryable
    assert_secret_kept(caught.value)


async def test_a_proxy_that_closes_before_the_request_is_noticed() -> None:
    error = await refused_by(lambda peer: peer.stream.aclose())
    assert error.retryable


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 200 OK\r\nX: y\r\n"])
async def test_a_proxy_that_never_answers_times_out(said: bytes) -> None:
    async with open_net(answering(said)) as net, takes(10.0):
        options = connection_config(tunnel(net), url=URL, timeouts=PATIENCE)
        with pytest.raises(ConnectTimeout, match="dial"):
            async with open_transport(options, HEADERS):
                pass


async def test_a_proxy_that_answers_too_slowly_times_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        for byte in b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 100:
            await peer.send(bytes([byte]))
            await trio.sleep(1.0)

    async with open_net(script) as net, takes(10.0):
        options = connection_config(tunnel(net), url=URL, timeouts=PATIENCE)
        with pytest.raises(ConnectTimeout):
            async with open_transport(options, HEADERS):
                pass


async def test_tunnel_and_upgrade_share_one_timeout() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep(7.0)
        await peer.send(ESTABLISHED)
        await trio.sleep_forever()

    async with open_net(script) as net, takes(10.0):
        options = connection_config(tunnel(net), url=URL, timeouts=PATIENCE)
        with pytest.raises(ConnectTimeout, match="upgrade"):
            async with open_transport(options, HEADERS):
                pass


async def test_a_cancelled_tunnel_leaves_no_socket() -> None:
    """P1: `open_net` asserts that no socket stays open."""
    async with open_net(answering(b"HTTP/1.1")) as net, takes(3.0):
        with trio.move_on_after(3.0) as scope:
            await tunnel(net)("models.test", 80)
        assert scope.cancelled_caught


@pytest.mark.parametrize("error", [OSError("unreachable"), trio.BrokenResourceError()])
async def test_a_proxy_that_cannot_be_dialled_is_a_proxy_error(error: Exception) -> None:
    dialled: list[str] = []

    async def dial(host: str, port: int) -> trio.abc.Stream:
        dialled.append(f"{host}:{port}")
        raise error

    with pytest.raises(ProxyError) as caught:
        async with open_transport(
            connection_config(Tunnel(Proxy.of(PROXY), dial), url=URL), HEADERS
        ):
            pass
    assert dialled == ["proxy.test:3128"]
    assert caught.value.__cause__ is error
    assert caught.value.retryable
    assert_secret_kept(caught.value)


# --- Nothing goes around it ---------------------------------------------------------------


class Crossroads:
    """A network that `trio.open_tcp_stream` dials: the proxy, and the server itself."""

    def __init__(self, net: Net) -> None:
        self._net = net
        self.dialled: list[str] = []

    async def open_tcp_stream(self, host: str, port: int) -> trio.abc.Stream:
        self.dialled.append(host)
        if host != "proxy.test":
            raise AssertionError(f"{host} was dialled directly")
        return await self._net.dial(host, port)


@asynccontextmanager
async def crossroads(script: Script, monkeypatch: pytest.MonkeyPatch) -> AsyncGenerator[Crossroads]:
    async with open_net(script) as net:
        roads = Crossroads(net)
        monkeypatch.setattr(trio, "open_tcp_stream", roads.open_tcp_stream)
        without_environment(monkeypatch)
        yield roads


async def reset_at_once(peer: Peer) -> None:
    await peer.stream.aclose()


@pytest.mark.parametrize("by_environment", [True, False])
@pytest.mark.parametrize(
    ("script", "attempts", "kind"),
    [
        (answering(b"HTTP/1.1 403 Forbidden\r\n\r\n"), 1, ProxyError),
        (answering(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n"), 1, ProxyError),
        (answering(b"HTTP/1.1 502 Bad Gateway\r\n\r\n"), 3, ReconnectFailed),
        (answering(b"nonsense"), 1, ProxyError),
        (answering(b""), 3, ReconnectFailed),
        (reset_at_once, 3, ReconnectFailed),
    ],
    ids=["403", "407", "502", "nonsense", "silence", "leaves"],
)
async def test_the_server_is_not_dialled_directly_when_the_proxy_fails(
    script: Script,
    attempts: int,
    kind: type[Exception],
    monkeypatch: pytest.MonkeyPatch,
    *,
    by_environment: bool,
) -> None:
    """Problem 14: every attempt dials the proxy only."""
    async with crossroads(script, monkeypatch) as roads:
        monkeypatch.setenv("HTTPS_PROXY", PROXY if by_environment else "http://wrong.test")
        opened = open_responses(
            "wss://models.test/v1",
            api_key=KEY,
            proxy=None if by_environment else PROXY,
            reconnect=[1.0, 1.0],
            timeouts=PATIENCE,
        )
        with pytest.raises(kind) as caught:
            async with opened:
                pass
        assert_secret_kept(caught.value)
        assert set(roads.dialled) == {"proxy.test"}
        assert len(roads.dialled) == attempts


async def test_a_407_is_not_retried_and_a_503_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """P2."""
    answers = [b"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\n\r\n", b"HTTP/1.1 407 Who?\r\n\r\n"]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answers.pop(0))
        await trio.sleep_forever()

    async with crossroads(script, monkeypatch) as roads:
        async with takes(5.0):
            with pytest.raises(ProxyError) as caught:
                async with open_responses(
                    "wss://models.test/v1", api_key=KEY, proxy=PROXY, reconnect=[1.0] * 5
                ):
                    pass
        assert caught.value.status == 407
        assert len(roads.dialled) == 2
