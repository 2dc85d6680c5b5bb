"""The messages of TLS itself: the handshake, and messages between the records of content."""

from __future__ import annotations

import ssl
from typing import Any

import pytest
import trio
import trio.testing
import trustme

from tests.testing.driver import NO_WAITING
from tests.transport.proxies import trusting
from tests.transport.tls_by_hand import (
    AUTHORITY,
    EVENTS,
    MUCH,
    NAME,
    Attempt,
    Client,
    Server,
    both_versions,
    contexts,
    fail,
    open_pair,
)
from trio_responses._transport.tls import TLSStream

pytestmark = NO_WAITING


# --- The handshake ------------------------------------------------------------------------


@both_versions
@pytest.mark.parametrize("flaw", ["authority", "name"])
async def test_an_untrusted_certificate_fails_the_handshake(
    version: ssl.TLSVersion, flaw: str
) -> None:
    """P2: the server gets an alert with the reason, and nothing more."""
    server_side, client_side = contexts(version)
    if flaw == "authority":
        client_side = trusting(trustme.CA())
    server = Server(server_side)
    client = Client(server, client_side, NAME if flaw == "authority" else "other.test")
    with trio.fail_after(60):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.stream.do_handshake()
        assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)
        server.from_client.send_all_hook = None
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.receive_some()
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.send_all(b"secret")
    assert isinstance(server.error, ssl.SSLError)
    assert "alert" in str(server.error).lower()
    with pytest.raises(trio.WouldBlock):
        server.from_client.get_data_nowait()


@pytest.mark.parametrize("answer", [b"", b"HTTP/1.1 400 Bad Request\r\n\r\n"])
async def test_a_server_that_does_not_speak_tls_fails_the_handshake(answer: bytes) -> None:
    stream, peer = trio.testing.memory_stream_pair()
    client = TLSStream(stream, trusting(AUTHORITY), server_hostname=NAME)
    if answer:
        await peer.send_all(answer)
    await peer.send_eof()
    with trio.fail_after(60):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLError)


async def test_the_handshakes_error_is_raised_when_no_alert_can_be_written() -> None:
    server = Server(contexts()[0])
    client = Client(server, trusting(trustme.CA()))
    step = server.from_client.send_all_hook
    assert step is not None

    async def answer_once() -> None:
        await step()
        server.from_client.send_all_hook = fail

    server.from_client.send_all_hook = answer_once
    with trio.fail_after(60):
        with pytest.raises(trio.BrokenResourceError) as caught:
            await client.stream.do_handshake()
    assert isinstance(caught.value.__cause__, ssl.SSLCertVerificationError)


# --- Between the records ------------------------------------------------------------------


@pytest.mark.parametrize("behind", [b"", b"content"])
async def test_the_server_may_request_a_certificate_after_the_handshake(behind: bytes) -> None:
    async with open_pair(certificate=True) as (client, server), trio.open_nursery() as nursery:
        assert not server.tls.getpeercert()
        attempt = Attempt(nursery, client.receive, len(behind) + 4)
        server.put(server.request() + server.records(*([behind] if behind else [])))
        await trio.testing.wait_all_tasks_blocked()
        assert server.read() == b""
        shown: Any = server.tls.getpeercert()
        assert shown["subjectAltName"] == (("email", "me@models.test"),)
        server.put(server.records(b"more"))
        assert await attempt.ends()
        assert attempt.result == behind + b"more"


@pytest.mark.parametrize("size", [1, MUCH])
async def test_an_answer_of_tls_waits_for_a_send_and_receiving_does_not(size: int) -> None:
    """A server that writes before it reads."""
    async with open_pair(certificate=True) as (client, server), trio.open_nursery() as nursery:
        server.stall()
        sending = Attempt(nursery, client.stream.send_all, b"x" * size)
        await trio.testing.wait_all_tasks_blocked()
        receiving = Attempt(nursery, client.receive, len(b"onetwo"))
        server.put(server.request())
        server.put(server.records(b"one"))
        await trio.testing.wait_all_tasks_blocked()
        server.put(server.records(b"two"))
        assert await receiving.ends()
        assert receiving.result == b"onetwo"
        server.reading.set()
        assert await sending.ends()
        assert server.read() == b"x" * size
        assert server.tls.getpeercert()


async def test_wait_send_all_might_not_block_waits_for_an_answer_of_tls() -> None:
    async with open_pair(certificate=True) as (client, server), trio.open_nursery() as nursery:
        server.stall()
        receiving = Attempt(nursery, client.receive, 1)
        server.put(server.request())
        await trio.testing.wait_all_tasks_blocked()
        waiting = Attempt(nursery, client.stream.wait_send_all_might_not_block)
        assert not await waiting.ends()
        server.reading.set()
        assert await waiting.ends()
        server.put(server.records(b"!"))
        assert await receiving.ends()


async def test_no_answer_of_tls_is_written_after_a_partial_record() -> None:
    async with open_pair(certificate=True) as (client, server), trio.open_nursery() as nursery:
        server.stall()
        attempt = Attempt(nursery, client.stream.send_all, b"a")
        await trio.testing.wait_all_tasks_blocked()
        attempt.scope.cancel()
        assert await attempt.ends()
        server.reading.set()
        assert server.read() == b"a"
        server.put(server.request())
        server.to_client.put_eof()
        assert await client.receive_all() == b""
        with pytest.raises(trio.WouldBlock):
            server.from_client.get_data_nowait()


async def test_content_is_received_when_an_answer_of_tls_cannot_be_written() -> None:
    async with open_pair(certificate=True) as (client, server):
        server.from_client.send_all_hook = fail
        server.put(server.request())
        server.put(server.records(*EVENTS))
        server.to_client.put_eof()
        assert await client.receive_all() == b"".join(EVENTS)


async def test_a_receive_that_is_cancelled_while_it_writes_loses_nothing() -> None:
    async with open_pair(certificate=True) as (client, server), trio.open_nursery() as nursery:
        server.stall()
        attempt = Attempt(nursery, client.stream.receive_some)
        server.put(server.request())
        await trio.testing.wait_all_tasks_blocked()
        server.put(server.records(*EVENTS))
        attempt.scope.cancel()
        assert await attempt.ends()
        assert attempt.result is None
        assert await client.receive(len(b"".join(EVENTS))) == b"".join(EVENTS)
        with pytest.raises(trio.BrokenResourceError):
            await client.stream.send_all(b"x")


class Renegotiating:
    """A replacement of the TLS object, which cannot write content during a renegotiation.

    Python's TLS server never starts one, so the private object is replaced.

    :param answer: the bytes that have to be written first.
    """

    def __init__(self, stream: TLSStream, answer: bytes = b"") -> None:
        self._tls, self._stream, self._answer = stream._tls, stream, answer
        self.read = stream._tls.read
        self.over = False
        stream._tls = self  # type: ignore[assignment]  # pyright: ignore[reportAttributeAccessIssue]

    def write(self, data: bytes) -> int:
        if self.over:
            return self._tls.write(data)
        self._stream._outgoing.write(self._answer)
        self._answer = b""
        raise ssl.SSLEOFError if self._stream._incoming.eof else ssl.SSLWantReadError


async def test_a_send_in_a_renegotiation_waits_for_the_server() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        negotiation = Renegotiating(client.stream)
        sending = Attempt(nursery, client.stream.send_all, b"x")
        receiving = Attempt(nursery, client.receive, 2)
        server.put(server.records(b"1"))
        assert not await sending.ends()
        negotiation.over = True
        server.put(server.records(b"2"))
        assert await sending.ends()
        assert await receiving.ends()
        assert server.read() == b"x"


async def test_a_send_uses_bytes_that_came_during_its_renegotiation() -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        negotiation = Renegotiating(client.stream, b"answer")
        server.stall()
        sending = Attempt(nursery, client.stream.send_all, b"x")
        await trio.testing.wait_all_tasks_blocked()
        negotiation.over = True
        server.put(server.records(b"!"))
        assert await client.receive(1) == b"!"
        assert server.from_client.get_data_nowait() == b"answer"
        server.reading.set()
        assert await sending.ends()
        assert server.read() == b"x"


async def test_closing_ends_a_send_that_waits_in_a_renegotiation() -> None:
    async with open_pair() as (client, _), trio.open_nursery() as nursery:
        Renegotiating(client.stream)
        sending = Attempt(nursery, client.stream.send_all, b"x")
        assert not await sending.ends()
        await client.stream.aclose()
        assert await sending.ends()
        assert isinstance(sending.result, trio.ClosedResourceError)


@pytest.mark.parametrize("ending", ["end", "break", "close"])
async def test_a_send_in_a_renegotiation_ends_with_the_stream(ending: str) -> None:
    async with open_pair() as (client, server), trio.open_nursery() as nursery:
        Renegotiating(client.stream)
        sending = Attempt(nursery, client.stream.send_all, b"x")
        if ending == "break":
            server.to_client.receive_some_hook = fail
        await trio.testing.wait_all_tasks_blocked()
        receiving = Attempt(nursery, client.receive_all)
        assert not sending.over
        await trio.testing.wait_all_tasks_blocked()
        if ending == "end":
            server.to_client.put_eof()
        elif ending == "close":
            await client.stream.aclose()
        assert await receiving.ends()
        assert await sending.ends()
        closed = ending == "close"
        assert type(sending.result) is (
            trio.ClosedResourceError if closed else trio.BrokenResourceError
        )
