"""A byte stream is opened while the key is made and the certificates are loaded. P1, P2."""

from __future__ import annotations

import ssl
from typing import TYPE_CHECKING

import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.transport.peer import HEADERS, connection_config, open_net, takes
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._errors import ConnectError, ConnectTimeout
from trio_responses._settings import Timeouts
from trio_responses._transport import tls
from trio_responses._transport.dialing import open_stream, open_while
from trio_responses._transport.websocket import connect_transport
from trio_responses.testing import memory_connection

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from tests.transport.peer import Peer
    from trio_responses.testing import MemoryStream

pytestmark = NO_WAITING


class Opener:
    """A function that opens a stream in memory after some seconds."""

    def __init__(self, seconds: float, failure: Exception | None = None) -> None:
        self._seconds = seconds
        self._failure = failure
        self.cancelled = False
        self.stream: MemoryStream | None = None

    async def __call__(self) -> trio.abc.Stream:
        try:
            await trio.sleep(self._seconds)
        except trio.Cancelled:
            self.cancelled = True
            raise
        if self._failure is not None:
            raise self._failure
        self.stream, _ = memory_connection()
        return self.stream

    async def assert_closed(self) -> None:
        """Assert that no open stream is left."""
        if self.stream is not None:
            with pytest.raises(trio.ClosedResourceError):
                await self.stream.receive_some()


def after(seconds: float, result: str | Exception) -> Callable[[], Awaitable[str]]:
    """Return work that takes some seconds, and returns or raises its result."""

    async def work() -> str:
        await trio.sleep(seconds)
        if isinstance(result, Exception):
            raise result
        return result

    return work


async def test_the_stream_is_opened_while_the_work_is_done() -> None:
    opener = Opener(3.0)
    async with takes(5.0):
        stream, result, waited = await open_while(opener, after(5.0, "done"))
    assert (stream, result, waited) == (opener.stream, "done", 2.0)


async def test_work_that_is_done_first_does_not_make_the_stream_wait() -> None:
    async with takes(3.0):
        _, result, waited = await open_while(Opener(3.0), after(1.0, "done"))
    assert (result, waited) == ("done", 0.0)


@pytest.mark.parametrize("opened", [True, False])
async def test_work_that_fails_ends_the_opening(*, opened: bool) -> None:
    opener, error = Opener(1.0 if opened else 9.0), ConnectError("no key")
    error.__cause__, error.__context__ = OSError("cause"), ValueError("context")
    links = error.__cause__, error.__context__
    async with takes(5.0):
        with pytest.raises(ConnectError) as caught:
            await open_while(opener, after(5.0, error))
    assert caught.value is error
    assert (error.__cause__, error.__context__) == links
    assert opener.cancelled is not opened
    await opener.assert_closed()


async def test_an_opening_that_fails_cancels_the_work() -> None:
    error, cancelled = ConnectError("refused"), False

    async def work() -> None:
        nonlocal cancelled
        try:
            await trio.sleep_forever()
        finally:
            cancelled = True

    async with takes(1.0):
        with pytest.raises(ConnectError) as caught:
            await open_while(Opener(1.0, error), work)
    assert caught.value is error
    assert cancelled


async def test_two_failures_are_not_raised_as_a_group() -> None:
    """P1: a dial function of the user may fail when it is cancelled."""
    error = ConnectError("no key")

    async def fail_when_cancelled() -> trio.abc.Stream:
        try:
            await trio.sleep_forever()
        except trio.Cancelled:
            raise ConnectError("refused") from None
        raise AssertionError

    with pytest.raises(ConnectError) as caught:
        await open_while(fail_when_cancelled, after(1.0, error))
    assert caught.value is error


@pytest.mark.parametrize("opened", [True, False])
async def test_a_cancellation_ends_both_and_leaves_no_stream(*, opened: bool) -> None:
    opener = Opener(1.0 if opened else 9.0)
    with trio.move_on_after(5.0) as scope:
        await open_while(opener, after(9.0, "done"))
    assert scope.cancelled_caught
    assert opener.cancelled is not opened
    await opener.assert_closed()


async def test_a_failure_that_is_no_exception_leaves_no_stream() -> None:
    opener = Opener(1.0)

    async def interrupted() -> None:
        await trio.sleep(2.0)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        await open_while(opener, interrupted)
    await opener.assert_closed()


async def test_the_time_in_which_the_stream_waits_for_the_key_does_not_count() -> None:
    """P2: the server has all of ``timeouts.connect``, as if the key had been there."""

    async def headers() -> tuple[tuple[str, str], ...]:
        await trio.sleep(9.0)
        return HEADERS

    async def answer_late(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep(9.0)
        await peer.send(peer.switching())

    async with open_net(answer_late) as net, open_collapsing_nursery() as nursery:
        config = connection_config(net.dial, timeouts=Timeouts(connect=10.0))
        async with takes(18.0):
            transport = await connect_transport(nursery, config, headers)
        await transport.aclose()


async def test_the_limit_of_a_late_key_is_the_whole_limit() -> None:
    async def headers() -> tuple[tuple[str, str], ...]:
        await trio.sleep(9.0)
        return HEADERS

    async def never_answer(peer: Peer) -> None:
        await peer.read_head()
        await trio.sleep_forever()

    async with open_net(never_answer) as net, open_collapsing_nursery() as nursery:
        config = connection_config(net.dial, timeouts=Timeouts(connect=10.0))
        async with takes(19.0):
            with pytest.raises(ConnectTimeout) as caught:
                await connect_transport(nursery, config, headers)
    assert (caught.value.phase, caught.value.seconds) == ("upgrade", 10.0)


async def test_the_certificates_are_loaded_while_the_server_is_dialled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    steps: list[str] = []
    own = ssl.create_default_context()

    def load(**_: bool) -> ssl.SSLContext:
        steps.append("loaded")
        return own

    async def dial(_host: str, _port: int) -> trio.abc.Stream:
        steps.append("dialling")
        await trio.sleep(1.0)
        steps.append("dialled")
        stream, server = memory_connection()
        await server.aclose()
        return stream

    monkeypatch.setattr(tls, "default_ssl_context", load)
    monkeypatch.setattr(tls, "_shared", {})
    config = connection_config(dial, url="wss://127.0.0.1/v1")
    for _ in range(2):
        with pytest.raises(ConnectError):
            await open_stream(config)
    assert steps == ["dialling", "loaded", "dialled", "dialling", "dialled"]
