"""TLS to the server and to the proxy: which certificates and names count, and TLS inside TLS."""

from __future__ import annotations

import ssl
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import pytest
import trio
import trio.testing
import trustme

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
from tests.transport.proxies import (
    ESTABLISHED,
    GRANTED,
    PROMPT,
    Directory,
    choose_method,
    echo,
    read_destination,
    secured,
    serve,
    server_context,
    trusting,
    without_environment,
)
from trio_responses._client import open_responses
from trio_responses._errors import ConnectError, ConnectTimeout, ProxyError
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from tests.transport.peer import Net, Peer, Script
    from trio_responses._transport.websocket import WebSocketTransport

URL = "wss://models.test/v1"
HTTP = f"http://someone:{KEY}@proxy.test:3128"
HTTPS = f"https://someone:{KEY}@proxy.test:3128"


@pytest.fixture(scope="module")
def authority() -> trustme.CA:
    """Sign the server's certificates."""
    return trustme.CA()


@pytest.fixture(scope="module")
def office() -> trustme.CA:
    """Sign the proxy's certificates."""
    return trustme.CA()


@pytest.fixture
def trust_office(monkeypatch: pytest.MonkeyPatch, office: trustme.CA, tmp_path: Path) -> None:
    """Make the system trust the office's authority, as an administrator would."""
    file = tmp_path / "office.pem"
    office.cert_pem.write_to_path(str(file))
    monkeypatch.setenv("SSL_CERT_FILE", str(file))


class Names:
    """A list of the server names in clients' TLS handshakes."""

    def __init__(self) -> None:
        self.asked: list[str | None] = []

    def collect(self, context: ssl.SSLContext) -> ssl.SSLContext:
        context.sni_callback = lambda _, name, __: self.asked.append(name)
        return context


def tunnelling(server: ssl.SSLContext, proxy: ssl.SSLContext | None = None) -> Script:
    """Play a proxy, over TLS if it has a context, and then the TLS server behind it."""

    async def script(peer: Peer) -> None:
        if proxy is not None:
            peer = await secured(peer, proxy)
        assert (await peer.read_head()).startswith("CONNECT models.test:443 HTTP/1.1")
        await peer.send(ESTABLISHED)
        await echo(await secured(peer, server))

    return script


def dialled_by(net: Net, proxy: str) -> Tunnel:
    return Tunnel(Proxy.of(proxy), net.dial)


async def converse(transport: WebSocketTransport) -> None:
    assert await transport.receive() == [b"hello"]
    await transport.send(b"x" * 100_000)
    received = await transport.receive()
    assert received == [b"x" * 100_000]


@asynccontextmanager
async def refusing(script: Script, proxy: str, **options: Any) -> AsyncGenerator[list[Any]]:
    """Return the error of opening a socket through a proxy; assert no open socket and no key."""
    async with open_net(script) as net:
        caught: list[Any] = []
        options = {"url": URL, **options}
        try:
            async with open_transport(
                connection_config(dialled_by(net, proxy), **options), HEADERS
            ):
                pass
        except ConnectError as error:
            assert_secret_kept(error)
            caught.append(error)
        assert net.dialled == [("proxy.test", 3128)]
        yield caught


# --- The server ---------------------------------------------------------------------------


@NO_WAITING
async def test_tls_through_a_proxy_uses_the_servers_name(authority: trustme.CA) -> None:
    names = Names()
    script = tunnelling(names.collect(server_context(authority, "models.test")))
    async with open_net(script) as net:
        options = connection_config(dialled_by(net, HTTP), url=URL, ssl_context=trusting(authority))
        async with open_transport(options, HEADERS) as transport:
            await converse(transport)
    assert names.asked == ["models.test"]


@NO_WAITING
@pytest.mark.parametrize("name", ["proxy.test", "evil.test"])
async def test_a_certificate_for_the_proxys_name_is_not_accepted_for_the_server(
    authority: trustme.CA, name: str
) -> None:
    """P2: a proxy cannot take the place of the server, and the error is not retryable."""
    script = tunnelling(server_context(authority, name))
    async with refusing(script, HTTP, ssl_context=trusting(authority)) as caught:
        assert type(caught[0]) is ConnectError
        assert isinstance(caught[0].__cause__, ssl.SSLCertVerificationError)
        assert not caught[0].retryable


@NO_WAITING
async def test_nothing_is_sent_to_a_server_that_is_not_trusted(
    authority: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    """P9 and P2: there is one attempt, whatever the policy."""
    script = tunnelling(server_context(trustme.CA(), "models.test"))
    async with open_net(script) as net:
        monkeypatch.setattr(trio, "open_tcp_stream", net.dial)
        with pytest.raises(ConnectError, match="not trusted") as caught:
            async with open_responses(
                URL, api_key=KEY, proxy=HTTP, ssl_context=trusting(authority), reconnect=[1] * 5
            ):
                pass
        assert_secret_kept(caught.value)
        assert net.dialled == [("proxy.test", 3128)]


@pytest.mark.usefixtures("trust_office")
async def test_the_systems_certificates_are_trusted_by_default(
    office: trustme.CA, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_environment(monkeypatch)
    context = server_context(office, "127.0.0.1")

    async def script(peer: Peer) -> None:
        await echo(await secured(peer, context))

    async with serve(script) as (port, _):
        with trio.fail_after(60):
            async with open_responses(f"wss://127.0.0.1:{port}/v1", api_key=KEY, timeouts=PROMPT):
                pass


@NO_WAITING
async def test_a_client_certificate_of_the_users_context_is_sent(authority: trustme.CA) -> None:
    shown: list[Any] = []
    server = server_context(authority, "models.test")
    server.verify_mode = ssl.CERT_REQUIRED
    authority.configure_trust(server)  # pyright: ignore[reportUnknownMemberType]
    client = trusting(authority)
    authority.issue_cert("me@models.test").configure_cert(client)  # pyright: ignore[reportUnknownMemberType]

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(ESTABLISHED)
        inner = await secured(peer, server)
        assert isinstance(inner.stream, trio.SSLStream)
        shown.append(inner.stream.getpeercert())  # pyright: ignore[reportUnknownMemberType]
        await echo(inner)

    async with open_net(script) as net:
        options = connection_config(dialled_by(net, HTTP), url=URL, ssl_context=client)
        async with open_transport(options, HEADERS) as transport:
            await converse(transport)
    assert shown[0]["subjectAltName"] == (("email", "me@models.test"),)


# --- The proxy ----------------------------------------------------------------------------


@pytest.mark.usefixtures("trust_office")
@NO_WAITING
async def test_tls_to_the_server_works_inside_tls_to_the_proxy(
    authority: trustme.CA, office: trustme.CA
) -> None:
    """Proxy and server each get their own name and are checked by their own context."""
    names = Names()
    outer = names.collect(server_context(office, "proxy.test"))
    inner = names.collect(server_context(authority, "models.test"))
    async with open_net(tunnelling(inner, outer)) as net:
        options = connection_config(
            dialled_by(net, HTTPS), url=URL, ssl_context=trusting(authority)
        )
        async with open_transport(options, HEADERS) as transport:
            await converse(transport)
    assert names.asked == ["proxy.test", "models.test"]


@pytest.mark.usefixtures("trust_office")
@NO_WAITING
async def test_a_server_without_tls_works_through_a_proxy_with_tls(office: trustme.CA) -> None:
    context = server_context(office, "proxy.test")

    async def script(peer: Peer) -> None:
        inner = await secured(peer, context)
        await inner.read_head()
        await inner.send(ESTABLISHED + b"HTTP/1.1 103 Early\r\n\r\n")
        await inner.accept()
        await inner.send(text("hello"))

    async with open_net(script) as net:
        options = connection_config(dialled_by(net, HTTPS), url="ws://models.test/v1")
        async with open_transport(options, HEADERS) as transport:
            assert await transport.receive() == [b"hello"]


@pytest.mark.usefixtures("trust_office")
@NO_WAITING
@pytest.mark.parametrize("flaw", ["authority", "name"])
async def test_a_proxys_untrusted_certificate_is_not_retried(
    authority: trustme.CA, office: trustme.CA, flaw: str
) -> None:
    """The server's context does not count for the proxy, and no credentials are sent."""
    heads: list[str] = []
    signer, name = (authority, "proxy.test") if flaw == "authority" else (office, "models.test")
    context = server_context(signer, name)

    async def script(peer: Peer) -> None:
        heads.append(await (await secured(peer, context)).read_head())

    trusted = trusting(authority, office)
    async with takes(0.0), refusing(script, HTTPS, ssl_context=trusted) as caught:
        assert isinstance(caught[0], ProxyError)
        assert "the certificate of proxy.test:3128 is not trusted" in str(caught[0])
        assert (caught[0].proxy, caught[0].retryable) == ("proxy.test:3128", False)
    assert heads == []


async def speak_http(peer: Peer) -> None:
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
    await trio.sleep_forever()


async def leave(peer: Peer) -> None:
    await peer.stream.aclose()


async def be_silent(peer: Peer) -> None:
    del peer
    await trio.sleep_forever()


@NO_WAITING
@pytest.mark.parametrize("script", [speak_http, leave])
async def test_a_proxy_without_tls_fails_the_tls_handshake(script: Script) -> None:
    async with takes(0.0), refusing(script, HTTPS) as caught:
        assert isinstance(caught[0], ProxyError)
        assert "TLS handshake" in str(caught[0])


@NO_WAITING
async def test_a_proxy_that_never_answers_the_tls_handshake_times_out() -> None:
    async with takes(PROMPT.connect), refusing(be_silent, HTTPS, timeouts=PROMPT) as caught:
        assert isinstance(caught[0], ConnectTimeout)
        assert caught[0].phase == "dial"


@pytest.mark.usefixtures("trust_office")
@NO_WAITING
async def test_a_refusal_over_tls_is_a_proxy_error(office: trustme.CA) -> None:
    context = server_context(office, "proxy.test")

    async def script(peer: Peer) -> None:
        inner = await secured(peer, context)
        await inner.read_head()
        await inner.send(b"HTTP/1.1 407 Who?\r\n\r\n")
        await trio.sleep_forever()

    async with refusing(script, HTTPS) as caught:
        assert (caught[0].status, caught[0].retryable) == (407, False)


@pytest.mark.usefixtures("trust_office")
@NO_WAITING
async def test_the_proxy_may_end_tls_without_a_closing_alert(office: trustme.CA) -> None:
    context = server_context(office, "proxy.test")

    async def script(peer: Peer) -> None:
        inner = await secured(peer, context)
        await inner.read_head()
        await inner.send(b"HTTP/1.1 200 ")
        await trio.testing.wait_all_tasks_blocked()
        await trio.aclose_forcefully(inner.stream)

    async with refusing(script, HTTPS) as caught:
        assert isinstance(caught[0], ProxyError)
        assert caught[0].retryable


# --- SOCKS5 -------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["models.test", "evil.test"])
async def test_tls_works_through_socks(authority: trustme.CA, name: str) -> None:
    pytest.importorskip("python_socks", reason="the extra `proxy` is not installed")
    names = Names()
    context = names.collect(server_context(authority, name))

    async def script(peer: Peer) -> None:
        await choose_method(peer, 0)
        assert await read_destination(peer) == (3, b"models.test", 443)
        await peer.send(GRANTED)
        await echo(await secured(peer, context))

    async with serve(script) as (port, _):
        dial = Tunnel(Proxy.of(f"socks5h://127.0.0.1:{port}"))
        options = connection_config(dial, url=URL, ssl_context=trusting(authority), timeouts=PROMPT)
        with trio.fail_after(60):
            if name == "models.test":
                async with open_transport(options, HEADERS) as transport:
                    await converse(transport)
            else:
                with pytest.raises(ConnectError, match="not trusted") as caught:
                    async with open_transport(options, HEADERS):
                        pass
                assert not caught.value.retryable
    assert names.asked == ["models.test"]


# --- Happy eyeballs -----------------------------------------------------------------------


async def test_all_addresses_of_the_proxy_are_tried() -> None:
    """RFC 8305 applies to the proxy; the proxy itself resolves the server."""
    directory = Directory(**{"proxy.test": ["::1", "127.0.0.1"]})

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(ESTABLISHED)
        await echo(peer)

    async with serve(script) as (port, _):
        dial = Tunnel(Proxy.of(f"http://proxy.test:{port}"), dial_tcp)
        with trio.fail_after(60):
            async with open_transport(
                connection_config(dial, url="ws://models.test/v1"), HEADERS
            ) as transport:
                await converse(transport)
    assert directory.asked == ["proxy.test"]
