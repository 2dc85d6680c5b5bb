"""Opening a transport: what a server may answer, and how soon a failure is noticed."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING
from tests.transport.opened import open_transport
from tests.transport.peer import (
    HEADERS,
    KEY,
    LOCAL,
    PING,
    PONG,
    Peer,
    assert_secret_kept,
    connection_config,
    frame,
    open_net,
    open_pair,
    refused,
    takes,
    text,
)
from trio_responses._client import open_responses
from trio_responses._errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    ConnectTimeout,
    HandshakeRejected,
    RateLimitError,
    ServerOverloaded,
    UpgradeUnsupported,
)
from trio_responses._settings import Timeouts

if TYPE_CHECKING:
    from tests.transport.peer import (
        Script,
    )

pytestmark = NO_WAITING

PATIENCE = Timeouts(connect=10.0)


def answer(*data: bytes, then_close: bool = False) -> Script:
    """Read the request, send some data, and send nothing more."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        for piece in data:
            await peer.send(piece)
        if then_close:
            await peer.stream.aclose()
        await trio.sleep_forever()

    return script


def response(status: int, *headers: str, body: bytes = b"") -> bytes:
    lines = [f"HTTP/1.1 {status} Whatever", *headers, f"Content-Length: {len(body)}", "\r\n"]
    return "\r\n".join(lines).encode() + body


async def silence(peer: Peer) -> None:
    del peer
    await trio.sleep_forever()


# --- Time ---------------------------------------------------------------------------------


async def test_a_dial_that_never_ends_times_out() -> None:
    """P1: one timeout covers all steps."""

    async def dial(host: str, port: int) -> trio.abc.Stream:
        del host, port
        await trio.sleep_forever()
        raise AssertionError

    async with takes(10.0):
        with pytest.raises(ConnectTimeout) as caught:
            async with open_transport(connection_config(dial, timeouts=PATIENCE), HEADERS):
                pass
    assert (caught.value.phase, caught.value.seconds) == ("dial", 10.0)
    assert caught.value.retryable
    assert isinstance(caught.value, trio.TooSlowError)


@pytest.mark.parametrize(
    ("url", "phase"), [("wss://127.0.0.1/v1", "tls"), ("ws://127.0.0.1/v1", "upgrade")]
)
async def test_a_handshake_that_is_never_answered_times_out(url: str, phase: str) -> None:
    async with takes(10.0):
        error = await refused(silence, url=url, timeouts=PATIENCE, ssl_context=None)
    assert isinstance(error, ConnectTimeout)
    assert error.phase == phase


async def test_dial_and_upgrade_share_one_timeout() -> None:
    async with open_net(silence) as net:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            await trio.sleep(7.0)
            return await net.dial(host, port)

        async with takes(10.0):
            with pytest.raises(ConnectTimeout, match="upgrade"):
                async with open_transport(connection_config(dial, timeouts=PATIENCE), HEADERS):
                    pass


async def test_an_answer_that_comes_too_slowly_times_out() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        for byte in peer.switching():
            await peer.send(bytes([byte]))
            await trio.sleep(1.0)

    async with takes(10.0):
        assert isinstance(await refused(script, timeouts=PATIENCE), ConnectTimeout)


@pytest.mark.parametrize("url", ["wss://127.0.0.1/v1", "ws://127.0.0.1/v1"])
async def test_a_cancelled_opening_leaves_no_socket(url: str) -> None:
    """P1: cancellation is never turned into an error of the library."""
    async with open_net(silence) as net, takes(3.0):
        with trio.move_on_after(3.0) as scope:
            async with open_transport(connection_config(net.dial, url=url), HEADERS):
                raise AssertionError
        assert scope.cancelled_caught


# --- Ends ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error", [OSError("unreachable"), ConnectionRefusedError(), trio.BrokenResourceError()]
)
async def test_a_failed_dial_is_a_connect_error_with_its_cause(error: Exception) -> None:
    async def dial(host: str, port: int) -> trio.abc.Stream:
        del host, port
        raise error

    with pytest.raises(ConnectError) as caught:
        async with open_transport(connection_config(dial), HEADERS):
            pass
    assert caught.value.__cause__ is error
    assert caught.value.retryable


@pytest.mark.parametrize(
    "said", [b"", b"HT", b"HTTP/1.1 101 Switching", b"HTTP/1.1 100 Continue\r\n\r\n"]
)
async def test_a_server_that_closes_during_the_handshake_is_noticed_at_once(said: bytes) -> None:
    """trio-websocket alone waits for its timeout here, or for ever."""
    async with takes(0.0):
        error = await refused(answer(said, then_close=True))
    assert type(error) is ConnectError
    assert error.retryable


async def test_a_server_that_closes_before_it_reads_is_noticed_at_once() -> None:
    async with takes(0.0):
        assert type(await refused(lambda peer: peer.stream.aclose())) is ConnectError


async def test_a_reset_during_the_handshake_is_noticed_at_once() -> None:
    async with open_net(Peer.read_head) as net:

        async def dial(host: str, port: int) -> trio.abc.Stream:
            stream = await net.dial(host, port)
            net.reset_soon()
            return stream

        async with takes(0.0):
            with pytest.raises(ConnectError) as caught:
                async with open_transport(connection_config(dial), HEADERS):
                    pass
    assert isinstance(caught.value.__cause__, trio.BrokenResourceError)
    assert caught.value.retryable


# --- What is no HTTP ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "garbage",
    [
        b"\x15\x03\x01\x00\x02\x02\x46",
        b"SSH-2.0-OpenSSH_9.6\r\n",
        b"HTTP/2.0 200 OK\r\n\r\n",
        b"HTTP/1.1\r\n\r\n",
        b"HTTP/1.1 1010 Too Long\r\n\r\n",
        b"HTTP/1.1 abc Not A Number\r\n\r\n",
        b"HTTP/1.1 \xb2\xb2\xb2 Not Digits\r\n\r\n",
    ],
)
async def test_an_answer_that_is_not_http_is_refused_at_once(garbage: bytes) -> None:
    async with takes(0.0):
        error = await refused(answer(garbage))
    assert type(error) is ConnectError
    assert str(error).startswith("the server did not answer in HTTP: check the port")
    assert not error.retryable


async def test_a_head_without_end_is_refused_at_a_limit() -> None:
    """P10."""
    sent = 0

    async def script(peer: Peer) -> None:
        nonlocal sent
        await peer.read_head()
        await peer.send(b"HTTP/1.1 101 Switching Protocols\r\n")
        while True:
            await peer.send(b"X-Filler: " + b"x" * 1000 + b"\r\n")
            sent += 1000

    async with takes(0.0), open_net(script, capacity=4096) as net:
        with pytest.raises(ConnectError, match="no end"):
            async with open_transport(connection_config(net.dial), HEADERS):
                pass
    assert 60_000 < sent < 80_000


# --- Statuses -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("status", "kind", "retryable"),
    [
        (200, UpgradeUnsupported, False),
        (301, UpgradeUnsupported, False),
        (302, UpgradeUnsupported, False),
        (307, UpgradeUnsupported, False),
        (400, UpgradeUnsupported, False),
        (401, AuthenticationError, False),
        (403, UpgradeUnsupported, False),
        (404, UpgradeUnsupported, False),
        (405, UpgradeUnsupported, False),
        (408, HandshakeRejected, True),
        (410, HandshakeRejected, False),
        (425, HandshakeRejected, True),
        (426, UpgradeUnsupported, False),
        (429, RateLimitError, True),
        (500, HandshakeRejected, True),
        (501, UpgradeUnsupported, False),
        (502, HandshakeRejected, True),
        (503, ServerOverloaded, True),
    ],
)
async def test_every_status_but_101_is_a_rejection_of_its_class(
    status: int, kind: type[Exception], *, retryable: bool
) -> None:
    """Problems 15 and 19: each status has its class, its retryability, and the response."""
    said = response(status, "X-Request-Id:  req_1 ", "Location: ws://evil.test/", body=b'{"e":1}')
    async with takes(0.0):
        error = await refused(answer(said))
    assert isinstance(error, HandshakeRejected)
    assert issubclass(type(error), kind)
    assert type(error).__name__ == kind.__name__
    assert (error.status, error.body, error.retryable) == (status, b'{"e":1}', retryable)
    assert error.headers["x-request-id"] == "req_1"
    assert error.headers["location"] == "ws://evil.test/"
    assert error.retry_after is None
    assert '{"e":1}' not in str(error)


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_never_followed(status: int) -> None:
    """P9: the key is sent to the origin that it is for, and to no other."""
    async with open_net(answer(response(status, "Location: ws://127.0.0.2/v1"))) as net:
        with pytest.raises(HandshakeRejected):
            async with open_transport(connection_config(net.dial), HEADERS):
                pass
        assert net.dialled == [("127.0.0.1", 80)]
        assert sum(KEY in peer.head for peer in net.peers) == 1


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        (["Retry-After: 7"], 7.0),
        (["retry-after-ms: 250", "Retry-After: 7"], 0.25),
        (["RETRY-AFTER: Sun, 06 Nov 1994 08:49:37 GMT"], 0.0),
        (["Retry-After: soon"], None),
    ],
)
async def test_retry_after_is_read(headers: list[str], seconds: float | None) -> None:
    error = await refused(answer(response(429, *headers)))
    assert error.retry_after == seconds


async def test_a_body_is_kept_up_to_its_length_without_waiting_for_more() -> None:
    async with takes(0.0):
        error = await refused(answer(response(503, body=b"down")[:-2], b"wn and what comes behind"))
    assert isinstance(error, HandshakeRejected)
    assert error.body == b"down"


@pytest.mark.parametrize(
    "length", ["Content-Length: 1000000", f"Content-Length: {'9' * 5000}", "X-No-Length: 1"]
)
async def test_a_large_body_is_kept_up_to_16_kib(length: str) -> None:
    """P10."""
    head = f"HTTP/1.1 400 Bad Request\r\n{length}\r\n\r\n".encode()
    async with takes(0.0):
        error = await refused(answer(head, *[b"x" * 1000] * 1000))
    assert isinstance(error, HandshakeRejected)
    assert error.body == b"x" * 16 * 1024


@pytest.mark.parametrize(
    ("chunks", "body", "seconds"),
    [
        ([b"4\r\ndown\r\n0\r\n\r\n"], b"down", 0.0),
        ([b"A;x=y\r\n0123456789\r\n", b"2\r\nab\r", b"\n0\r\n", b"\r\n"], b"0123456789ab", 0.0),
        ([b"0\r\n\r\n"], b"", 0.0),
        ([b"A\r\nhalf"], b"half", 1.0),
        ([b"4\r\ndown\r\n0\r\nX-Trace: 1\r\nX-Cost: 2\r\n\r\n"], b"down", 0.0),
        ([b"4\r\ndown\r\n0\r\nX-Tra", b"ce: 1\r\n", b"\r\n"], b"down", 0.0),
        ([b"4\r\ndown\r\n0;last=yes\r\n\r\n"], b"down", 0.0),
        ([b"00000004 \r\ndown\r\n000\r\n\r\n"], b"down", 0.0),
        ([b"7\r\n0\r\n\r\nab\r\n", b"0\r\n\r\n"], b"0\r\n\r\nab", 0.0),
        ([b"4\r\ndown\r\n-1\r\nx"], b"down", 0.0),
        ([b"4\r\ndown\r\n", b"x" * 1024], b"down", 0.0),
        ([b"4\r\ndown\r\n0\r\nX-Trace: 1\r\n"], b"down", 1.0),
    ],
)
async def test_a_body_in_chunks_is_joined_and_ends_with_the_last_one(
    chunks: list[bytes], body: bytes, seconds: float
) -> None:
    head = b"HTTP/1.1 503 Down\r\nTransfer-Encoding: Chunked\r\n\r\n"
    async with takes(seconds):
        error = await refused(answer(head, *chunks))
    assert isinstance(error, HandshakeRejected)
    assert error.body == body


@pytest.mark.parametrize("coding", ["chunked", "gzip, chunked", "gzip,CHUNKED"])
async def test_a_body_in_chunks_ends_at_once_whatever_its_coding_and_length(coding: str) -> None:
    head = f"HTTP/1.1 503 Down\r\nTransfer-Encoding: {coding}\r\nContent-Length: 9999\r\n\r\n"
    async with takes(0.0):
        error = await refused(answer(head.encode(), b"4\r\ndown\r\n0\r\nA: b\r\n\r\n"))
    assert isinstance(error, HandshakeRejected)
    assert error.body == b"down"


@pytest.mark.parametrize(
    ("status", "header"),
    [
        (204, "X-Empty: yes"),
        (205, "X-Empty: yes"),
        (304, "Content-Length: 5000"),
        (304, "Transfer-Encoding: chunked"),
        (503, "Content-Length: 0"),
        (404, "Content-Length: 0\r\nConnection: close"),
    ],
)
async def test_a_refusal_without_a_body_is_raised_at_once(status: int, header: str) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n"
    head = f"HTTP/1.1 {status} No\r\n{header}\r\n\r\n".encode()
    async with takes(0.0):
        error = await refused(answer(early + head))
    assert isinstance(error, HandshakeRejected)
    assert (error.status, error.body) == (status, b"")


async def test_a_body_without_end_is_read_for_one_second() -> None:
    """trio-websocket alone hangs for a 502 whose body ends with the stream."""
    async with takes(1.0):
        error = await refused(answer(b"HTTP/1.1 502 Bad Gateway\r\n\r\n<html>"))
    assert isinstance(error, HandshakeRejected)
    assert (error.status, error.body) == (502, b"<html>")


async def test_a_body_ends_with_the_stream() -> None:
    async with takes(0.0):
        error = await refused(answer(b"HTTP/1.1 502 Bad\r\n\r\n<html>", then_close=True))
    assert isinstance(error, HandshakeRejected)
    assert error.body == b"<html>"


async def test_a_body_that_breaks_off_is_kept_as_far_as_it_arrived() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(b"HTTP/1.1 500 Oops\r\nContent-Length: 100\r\n\r\nhalf")
        net.reset_soon()

    async with open_net(script) as net:
        with pytest.raises(HandshakeRejected) as caught:
            async with open_transport(connection_config(net.dial), HEADERS):
                pass
    assert (caught.value.status, caught.value.body) == (500, b"half")


# --- The 101 ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("said", "instead"),
    [
        (b"Accept: ", b"Accept: AAAA"),
        (b"Upgrade: websocket", b"Upgrade: h2c"),
        (b"Connection: Upgrade", b"Connection: close"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Extensions: permessage-deflate\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: realtime\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nSec-WebSocket-Protocol: caf\xe9\r\n\r\n"),
        (b"\r\n\r\n", b"\r\nno colon in here\r\n\r\n"),
    ],
    ids=["accept", "upgrade", "connection", "extension", "subprotocol", "not ASCII", "not HTTP"],
)
async def test_an_invalid_101_response_is_refused(said: bytes, instead: bytes) -> None:
    """trio-websocket raises for these responses, which `ControlStream` passes to it."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(peer.switching().replace(said, instead))
        await trio.sleep_forever()

    async with takes(0.0):
        error = await refused(script)
    assert type(error) is ConnectError
    assert str(error).startswith("the server's upgrade response was not valid: ")
    assert error.__cause__ is not None


@pytest.mark.parametrize("interim", [100, 102, 103])
async def test_interim_responses_before_the_101_are_skipped(interim: int) -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        early = f"HTTP/1.1 {interim} Early\r\nLink: </x>\r\n\r\n".encode()
        await peer.send(early + early)
        await trio.sleep(1.0)
        await peer.send(early + peer.switching() + text("first"))

    async with open_pair(script=script) as (transport, _):
        assert await transport.receive() == [b"first"]


async def test_bytes_that_come_with_the_101_are_not_lost() -> None:
    """Messages and a ping come in one read with the upgrade response."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(peer.switching() + text("one") + frame(PING, b"p") + text("two"))

    async with open_pair(script=script) as (transport, peer):
        assert await transport.receive() == [b"one", b"two"]
        pong = await peer.read_frame()
        assert (pong.opcode, pong.payload) == (PONG, b"p")


async def test_a_large_first_message_does_not_make_the_head_too_long() -> None:
    large = b"x" * 100_000

    async def script(peer: Peer) -> None:
        await peer.read_head()
        whole = peer.switching() + text(large)
        await peer.send(whole[:20])
        await trio.testing.wait_all_tasks_blocked()
        await peer.send(whole[20:])

    async with open_pair(script=script) as (transport, _):
        assert await transport.receive() == [large]


async def test_an_upgrade_may_come_byte_by_byte() -> None:
    async def script(peer: Peer) -> None:
        await peer.read_head()
        for byte in peer.switching("X-Request-Id: req_1") + text("first") + text("second"):
            await peer.send(bytes([byte]))
            await trio.testing.wait_all_tasks_blocked()

    async with open_pair(script=script) as (transport, _):
        assert transport.handshake_headers["x-request-id"] == "req_1"
        assert await transport.receive() == [b"first"]
        assert await transport.receive() == [b"second"]


async def test_a_transport_has_the_age_of_its_socket() -> None:
    async with open_pair() as (transport, _):
        await trio.sleep(90.0)
        assert transport.age == 90.0


# --- What is sent -------------------------------------------------------------------------


async def test_the_request_is_the_handshake_of_rfc_6455_and_nothing_more() -> None:
    """The former beta header is not sent."""
    headers = (("Authorization", f"Bearer {KEY}"), ("User-Agent", "ours"), ("X-Caf", "\xe9"))
    heads: list[bytes] = []

    async def script(peer: Peer) -> None:
        heads.append(bytes(await peer.stream.receive_some()))

    async with open_net(script) as net:
        with trio.move_on_after(1.0):
            options = connection_config(net.dial, url="ws://127.0.0.1:8080/v1?a=b%20c&d")
            async with open_transport(options, headers):
                pass
        assert net.dialled == [("127.0.0.1", 8080)]
    request, *lines = heads[0].decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
    assert request == "GET /v1/responses?a=b%20c&d HTTP/1.1"
    sent = dict(line.split(": ", 1) for line in lines)
    assert len(sent) == len(lines)
    assert len(sent.pop("Sec-WebSocket-Key")) == 24
    assert sent == {
        "Host": "127.0.0.1:8080",
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Version": "13",
        "Authorization": f"Bearer {KEY}",
        "User-Agent": "ours",
        "X-Caf": "\xe9",
    }


@pytest.mark.parametrize(
    ("headers", "api_key"),
    [
        ({"X-Evil": f"{KEY}\r\nHost: evil.test"}, "key"),
        ({}, f"{KEY}\r\nHost: evil.test"),
        ({}, f"{KEY} "),
    ],
)
async def test_an_invalid_header_is_refused_before_dialling(
    headers: dict[str, str], api_key: str
) -> None:
    """P9."""
    async with open_net(Peer.accept) as net:
        opening = open_responses(LOCAL, api_key=api_key, headers=headers, dial=net.dial)
        with pytest.raises(ConfigurationError) as caught:
            async with opening:
                pass
        assert_secret_kept(caught.value)
        assert net.dialled == []


async def test_the_loggers_of_dependencies_do_not_get_the_key(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """P9."""
    async with open_pair() as (transport, peer):
        await peer.send(text("one"))
        await transport.receive()
        await transport.send(b"two")
    records = [repr(vars(record)) for record in caplog.records if record.name == "trio-websocket"]
    assert records
    assert not [record for record in records if KEY in record]


async def test_every_handshake_has_its_own_nonce() -> None:
    nonces: set[str] = set()

    async def script(peer: Peer) -> None:
        await peer.accept()
        nonces.add(dict(peer.headers)["Sec-WebSocket-Key"])

    for _ in range(3):
        async with open_pair(script=script):
            pass
    assert len(nonces) == 3


async def test_an_ipv6_address_has_brackets_in_the_host_header_only() -> None:
    async with (
        open_net(Peer.accept) as net,
        open_transport(connection_config(net.dial, url="ws://[::1]:81/v1"), HEADERS),
    ):
        assert net.dialled == [("::1", 81)]
        assert dict(net.peers[0].headers)["Host"] == "[::1]:81"


# --- TLS over memory ----------------------------------------------------------------------


async def test_a_server_without_tls_fails_the_tls_handshake() -> None:
    async def script(peer: Peer) -> None:
        await peer.send(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        await trio.sleep_forever()

    async with takes(0.0):
        context = ssl.create_default_context()
        error = await refused(script, url="wss://127.0.0.1/v1", ssl_context=context)
    assert type(error) is ConnectError
    assert "the TLS handshake failed" in str(error)
    assert "does not speak TLS" in str(error)
    assert isinstance(error.__cause__, ssl.SSLError)


async def test_a_server_that_closes_during_the_tls_handshake_is_noticed_at_once() -> None:
    async with takes(0.0):
        error = await refused(lambda peer: peer.stream.aclose(), url="wss://127.0.0.1/v1")
    assert type(error) is ConnectError
    assert error.retryable
