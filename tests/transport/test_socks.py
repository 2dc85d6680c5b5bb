"""SOCKS5 proxies, over real sockets: python-socks dials them itself."""

from __future__ import annotations

import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.transport.opened import open_transport
from tests.transport.peer import HEADERS, KEY, assert_secret_kept, connection_config, text
from tests.transport.proxies import (
    GRANTED,
    IPV4,
    IPV6,
    NAME,
    PROMPT,
    Directory,
    choose_method,
    echo,
    read_credentials,
    read_destination,
    serve,
    take,
)
from trio_responses._errors import ConnectError, ConnectTimeout, ProxyError
from trio_responses._settings import Timeouts
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel

if TYPE_CHECKING:
    from tests.transport.peer import Peer, Script

pytest.importorskip("python_socks", reason="the extra `proxy` is not installed")

URL = "ws://models.test/v1"


async def converse(
    script: Script, *, url: str = URL, scheme: str = "socks5h", user: str = ""
) -> None:
    """Send a message to the server behind a proxy, and receive the echo."""
    async with serve(script) as (port, _):
        dial = Tunnel(Proxy.of(f"{scheme}://{user}127.0.0.1:{port}"))
        options = connection_config(dial, url=url, timeouts=PROMPT)
        with trio.fail_after(60):
            async with open_transport(options, HEADERS) as transport:
                assert await transport.receive() == [b"hello"]
                await transport.send(b"through SOCKS")
                assert await transport.receive() == [b"through SOCKS"]


async def refused_by(script: Script, *, user: str = f"someone:{KEY}@") -> ProxyError:
    async with serve(script) as (port, peers):
        dial = Tunnel(Proxy.of(f"socks5h://{user}127.0.0.1:{port}"))
        with trio.fail_after(60), pytest.raises(ProxyError) as caught:
            async with open_transport(connection_config(dial, url=URL, timeouts=PROMPT), HEADERS):
                pass
        assert len(peers) == 1
    error = caught.value
    assert_secret_kept(error)
    assert "someone" not in str(error)
    assert (error.proxy, error.status) == (f"127.0.0.1:{port}", None)
    return error


def replying(reply: bytes, *, then: Script | None = None, piece: int = 1000) -> Script:
    """Accept without authentication, send `reply` in pieces, and go on with `then`."""

    async def script(peer: Peer) -> None:
        await choose_method(peer, 0)
        await read_destination(peer)
        for start in range(0, len(reply), piece):
            await peer.send(reply[start : start + piece])
            await trio.testing.wait_all_tasks_blocked()
        if then is not None:
            await then(peer)

    return script


# --- The way in ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("scheme", "url", "kind", "address", "port"),
    [
        ("socks5h", "ws://models.test/v1", NAME, b"models.test", 80),
        ("socks5h", "ws://localhost:8080/v1", NAME, b"localhost", 8080),
        ("socks5h", "ws://127.0.0.7/v1", IPV4, ip_address("127.0.0.7").packed, 80),
        ("socks5h", "ws://[fd00::7]:81/v1", IPV6, ip_address("fd00::7").packed, 81),
        ("socks5", "ws://127.0.0.7/v1", IPV4, ip_address("127.0.0.7").packed, 80),
        ("socks5", "ws://models.test:8080/v1", IPV4, ip_address("192.0.2.7").packed, 8080),
        ("socks5", "ws://six.test/v1", IPV6, ip_address("2001:db8::7").packed, 80),
    ],
)
async def test_the_scheme_decides_who_resolves_the_name(
    scheme: str, url: str, kind: int, address: bytes, port: int
) -> None:
    """``socks5h`` resolves at the proxy, ``socks5`` on this machine, as in curl."""
    Directory(**{"models.test": ["192.0.2.7"], "six.test": ["2001:db8::7"]})
    seen: list[tuple[int, bytes, int]] = []

    async def script(peer: Peer) -> None:
        assert await choose_method(peer, 0) == b"\x00"
        seen.append(await read_destination(peer))
        await peer.send(GRANTED)
        await echo(peer)

    await converse(script, url=url, scheme=scheme)
    assert seen == [(kind, address, port)]


async def test_a_name_that_cannot_be_resolved_here_dials_no_server() -> None:
    directory = Directory()

    async def script(peer: Peer) -> None:
        await choose_method(peer, 0)
        await read_destination(peer)
        raise AssertionError

    async with serve(script) as (port, _):
        dial = Tunnel(Proxy.of(f"socks5://127.0.0.1:{port}"))
        with trio.fail_after(60), pytest.raises(ConnectError) as caught:
            async with open_transport(connection_config(dial, url=URL, timeouts=PROMPT), HEADERS):
                pass
    assert directory.asked == ["models.test"]
    assert isinstance(caught.value.__cause__, socket.gaierror)
    assert caught.value.retryable


async def test_socks5h_resolves_no_name_here() -> None:
    directory = Directory()
    await converse(replying(GRANTED, then=echo))
    assert directory.asked == []


@pytest.mark.parametrize("chosen", [0, 2])
async def test_credentials_are_sent_when_the_proxy_asks_for_them(chosen: int) -> None:
    given: list[tuple[bytes, bytes]] = []

    async def script(peer: Peer) -> None:
        assert await choose_method(peer, chosen) == b"\x00\x02"
        if chosen == 2:
            given.append(await read_credentials(peer))
            await peer.send(b"\x01\x00")
        await read_destination(peer)
        await peer.send(GRANTED)
        await echo(peer)

    await converse(script, user="some%40one:p%3A%2Fw@")
    assert given == ([(b"some@one", b"p:/w")] if chosen == 2 else [])


@pytest.mark.parametrize("piece", [1, 1000])
@pytest.mark.parametrize(
    "reply",
    [
        GRANTED,
        b"\x05\x00\x00\x04" + bytes(18),
        b"\x05\x00\x00\x03\x09localhost\x00\x50",
        b"\x05\x00\x00\x03\x00\x00\x50",
    ],
)
async def test_every_form_of_success_reply_opens_the_tunnel(reply: bytes, piece: int) -> None:
    await converse(replying(reply, then=echo, piece=piece))


async def test_no_byte_after_the_reply_is_lost() -> None:
    async def script(peer: Peer) -> None:
        await choose_method(peer, 0)
        await read_destination(peer)
        await peer.send(GRANTED + b"HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n")
        await peer.read_head()
        await peer.send(peer.switching() + text("hello"))
        frame = await peer.read_frame()
        await peer.send(text(frame.payload))

    await converse(script)


# --- Refusals -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "retryable"),
    [(1, True), (2, False), (3, True), (4, True), (5, True), (6, True), (7, False), (8, False)],
)
async def test_the_reply_code_decides_whether_an_attempt_is_repeated(
    code: int, *, retryable: bool
) -> None:
    error = await refused_by(replying(bytes([5, code, 0, 1]) + bytes(6)))
    assert error.retryable is retryable


async def refuse_credentials(peer: Peer) -> None:
    await choose_method(peer, 2)
    await read_credentials(peer)
    await peer.send(b"\x01\x01")


async def want_no_method_of_ours(peer: Peer) -> None:
    await choose_method(peer, 0xFF)


async def want_kerberos(peer: Peer) -> None:
    await choose_method(peer, 1)


async def want_credentials(peer: Peer) -> None:
    await choose_method(peer, 2)


async def speak_http(peer: Peer) -> None:
    await take(peer, 3)
    await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")


@pytest.mark.parametrize(
    "script",
    [
        refuse_credentials,
        want_no_method_of_ours,
        want_kerberos,
        speak_http,
        replying(b"\x05\x09\x00\x01" + bytes(6)),
        replying(b"\x04\x00\x00\x01" + bytes(6)),
        replying(b"\x05\x00\x01\x01" + bytes(6)),
        replying(b"\x05\x00\x00\x02" + bytes(6)),
        replying(b"\x05\x00\x00\x03\x02\xff\xfe\x00\x50"),
    ],
)
async def test_permanent_socks_failures_are_not_retried(script: Script) -> None:
    assert not (await refused_by(script)).retryable


async def test_a_proxy_that_gets_no_credentials_is_a_permanent_failure() -> None:
    assert not (await refused_by(want_credentials, user="")).retryable


@pytest.mark.parametrize("size", range(len(GRANTED)))
async def test_an_end_inside_the_reply_is_noticed(size: int) -> None:
    assert (await refused_by(replying(GRANTED[:size]))).retryable


@pytest.mark.parametrize("said", [b"", b"\x05"])
async def test_an_end_inside_the_greeting_is_noticed(said: bytes) -> None:
    async def script(peer: Peer) -> None:
        await take(peer, 4)
        await peer.send(said)

    assert (await refused_by(script)).retryable


async def test_a_reset_inside_the_greeting_is_noticed() -> None:
    async def script(peer: Peer) -> None:
        assert isinstance(peer.stream, trio.SocketStream)
        peer.stream.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        peer.stream.socket.close()

    assert (await refused_by(script)).retryable


async def test_a_name_that_is_too_long_for_socks_is_refused() -> None:
    dial = Tunnel(Proxy.of("socks5h://127.0.0.1:9"))
    with pytest.raises(ProxyError) as caught:
        await dial(".".join(["x" * 60] * 5), 80)
    assert not caught.value.retryable


async def test_a_proxy_that_never_answers_times_out(
    mock_clock: trio.testing.MockClock,
) -> None:
    """The deadline of 60 s that python-socks has does not count."""
    still_waiting: list[bool] = []
    patience = Timeouts(connect=100.0)

    async def script(peer: Peer) -> None:
        await choose_method(peer, 0)
        await read_destination(peer)
        mock_clock.jump(61.0)
        await trio.testing.wait_all_tasks_blocked()
        still_waiting.append(True)
        mock_clock.jump(40.0)
        await trio.sleep_forever()

    async with serve(script) as (port, _):
        dial = Tunnel(Proxy.of(f"socks5h://127.0.0.1:{port}"))
        with pytest.raises(ConnectTimeout, match="dial"):
            async with open_transport(connection_config(dial, url=URL, timeouts=patience), HEADERS):
                pass
    assert still_waiting


async def test_the_server_is_not_dialled_directly_when_the_proxy_does_not_listen() -> None:
    """Problem 14: the server listens, and is not dialled."""
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        proxy = Proxy.of(f"socks5h://someone:{KEY}@127.0.0.1:{unused.getsockname()[1]}")
        async with serve(echo) as (port, peers):
            options = connection_config(
                Tunnel(proxy), url=f"ws://127.0.0.1:{port}/v1", timeouts=PROMPT
            )
            with trio.fail_after(60), pytest.raises(ProxyError) as caught:
                async with open_transport(options, HEADERS):
                    pass
            assert peers == []
    assert caught.value.retryable
    assert isinstance(caught.value.__cause__, OSError)
    assert_secret_kept(caught.value)
