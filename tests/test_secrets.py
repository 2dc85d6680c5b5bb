"""P9: each place that could show a key. `secrets_watch.py` searches the whole suite as well.

What is promised is `repr`, `str`, messages, tracebacks and log records. The attributes `headers`,
`body`, `reason` and `event` of an exception are what the server said, and may hold what it repeats.
"""

from __future__ import annotations

import logging
import ssl
import traceback
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import pytest
import trio
import trustme

import trio_responses
from tests.secrets_watch import SecretsWatch
from tests.testing.driver import NO_WAITING
from tests.transport.peer import KEY, Peer, close, open_net, text
from tests.transport.proxies import secured, server_context, trusting, without_environment
from trio_responses import (
    APIError,
    ConfigurationError,
    Endpoint,
    ResponsesError,
    Timeouts,
    open_responses,
)
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.transport.peer import Script
    from trio_responses import ResponseStream

pytestmark = NO_WAITING

LIBRARY: Final = str(Path(trio_responses.__file__).parent)
PROXY: Final = f"http://someone:{KEY}@proxy.test:3128"
PROMPT: Final = Timeouts(connect=5)
ECHO: Final = f"X-Echo: {KEY}\r\nLocation: https://elsewhere.test/?key={KEY}\r\n"
SHOWN_LOCALS: Final = {
    *((name, "api_key") for name in ("open_responses", "connect_responses", "_prepare")),
    *((name, "headers") for name in ("open_responses", "connect_responses", "_prepare")),
    *((name, "proxy") for name in ("open_responses", "connect_responses", "_prepare")),
}
"""Where a key stands in a local variable, for tools that print those. No other may join them."""


def chain(error: BaseException) -> Iterator[BaseException]:
    """Return an exception with its causes and contexts."""
    link: BaseException | None = error
    while link is not None:
        yield link
        link = link.__cause__ or link.__context__


def assert_silent(error: BaseException) -> None:
    """Assert that nothing printable of an exception holds the key."""
    for link in chain(error):
        assert KEY not in f"{link!r} {link} {link.args!r}"
    assert KEY not in "".join(traceback.format_exception(error))


def locals_with_key(error: BaseException) -> set[tuple[str, str]]:
    """Find the local variables of this library whose `repr` holds the key."""
    found: set[tuple[str, str]] = set()
    for link in chain(error):
        shown = traceback.TracebackException.from_exception(link, capture_locals=True)
        for frame in shown.stack:
            if frame.filename.startswith(LIBRARY):
                names = (frame.locals or {}).items()
                found |= {(frame.name, name) for name, value in names if KEY in value}
    return found


async def failure(script: Script, url: str = "ws://127.0.0.1/v1", **options: Any) -> ResponsesError:
    """Fail to open a connection with the key."""
    async with open_net(script) as net:
        if "proxy" not in options:
            options["dial"] = net.dial
        with pytest.raises(ResponsesError) as caught:
            async with open_responses(
                url,
                api_key=KEY,
                headers={"X-Token": KEY},
                reconnect=[],
                timeouts=PROMPT,
                transport="websocket",
                **options,
            ):
                pass
    return caught.value


def answering(answer: str) -> Script:
    """Read the request, answer it, and close."""

    async def script(peer: Peer) -> None:
        await peer.read_head()
        await peer.send(answer.encode())
        await peer.stream.aclose()

    return script


# --- Opening ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        f"HTTP/1.1 401 No {KEY}\r\n{ECHO}\r\n" + f'{{"error":"Incorrect API key: {KEY}"}}',
        f"HTTP/1.1 403 No\r\n{ECHO}\r\n{KEY}",
        f"HTTP/1.1 404 No\r\n{ECHO}\r\n{KEY}",
        f"HTTP/1.1 301 Moved\r\n{ECHO}\r\n",
        f"HTTP/1.1 503 Busy\r\n{ECHO}\r\n{KEY}",
        f"HTTP/1.1 101 Switching Protocols\r\n{ECHO}\r\n",
        f"HTTP/1.1 101 {KEY}\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: {KEY}\r\n\r\n",
        f"{KEY} is no HTTP\r\n\r\n",
        f"HTTP/1.1 {KEY}\r\n{ECHO}\r\n",
        f"HTTP/1.1 200 OK\r\n{ECHO}",
        "",
    ],
    ids=[
        "401",
        "403",
        "404",
        "301",
        "503",
        "101",
        "odd 101",
        "no HTTP",
        "no status",
        "no end",
        "nothing",
    ],
)
async def test_a_refused_upgrade_does_not_show_a_key_that_the_server_repeats(
    answer: str,
) -> None:
    assert_silent(await failure(answering(answer)))


async def test_a_timeout_does_not_show_the_key() -> None:
    assert_silent(await failure(Peer.read_head))


@pytest.mark.parametrize("status", ["401 No", "503 Busy", "101 Switching Protocols", "no HTTP", ""])
async def test_the_key_is_in_as_few_local_variables_as_possible(status: str) -> None:
    """Local variables may hold the key; the `repr` of an object with the key does not show it."""
    error = await failure(answering(f"HTTP/1.1 {status}\r\n\r\n" if status else ""))
    found = locals_with_key(error)
    assert found <= SHOWN_LOCALS
    assert ("open_responses", "api_key") in found  # the search works


@pytest.mark.parametrize("trusted", [False, True], ids=["untrusted", "not TLS"])
async def test_a_failed_tls_handshake_does_not_show_the_key(*, trusted: bool) -> None:
    authority = trustme.CA()
    context = server_context(authority, "127.0.0.1")

    async def script(peer: Peer) -> None:
        if trusted:
            await peer.send(f"HTTP/1.1 400 {KEY}\r\n\r\n".encode())
        else:
            await secured(peer, context)

    trust = trusting(authority) if trusted else ssl.create_default_context()
    assert_silent(await failure(script, "wss://127.0.0.1/v1", ssl_context=trust))


@pytest.mark.parametrize("status", ["407 Who", "403 No", "502 Bad", "nonsense"])
async def test_a_refusal_of_a_proxy_does_not_show_a_password_that_it_repeats(
    status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    without_environment(monkeypatch)
    async with open_net(answering(f"HTTP/1.1 {status} {KEY}\r\n{ECHO}\r\n{KEY}")) as net:
        monkeypatch.setattr(trio, "open_tcp_stream", net.dial)
        error = await failure(Peer.accept, "wss://models.test/v1", proxy=PROXY)
        sent = net.peers[0].head
    assert "Proxy-Authorization: Basic" in sent
    assert_silent(error)


async def test_a_callable_key_that_fails_is_not_quoted() -> None:
    """The callable's own exception is the cause, unchanged."""

    async def vault() -> str:
        await trio.lowlevel.checkpoint()
        raise LookupError(KEY)

    async with open_net(Peer.accept) as net:
        with pytest.raises(ResponsesError) as caught:
            async with open_responses(
                "ws://127.0.0.1/v1",
                api_key=vault,
                dial=net.dial,
                reconnect=[],
                transport="websocket",
            ):
                pass
    ours = [link for link in chain(caught.value) if isinstance(link, ResponsesError)]
    assert len(ours) == 2
    assert KEY not in f"{ours!r} {ours[0]} {ours[1]}"


@pytest.mark.parametrize(
    "options",
    [
        {"api_key": f"{KEY}\r\nX: y"},
        {"api_key": f"{KEY}\u2603"},
        {"headers": {"X-Token": f"{KEY}\n"}},
        {"headers": {f"X {KEY}": "x"}},
        {"base_url": f"ws://{KEY}@127.0.0.1/v1"},
        {"base_url": f"ws://someone:{KEY}@127.0.0.1:port/v1"},
        {"proxy": f"http://someone:{KEY}@proxy.test:port"},
        {"proxy": f"ftp://someone:{KEY}@proxy.test"},
        {"proxy": f"http://{KEY}:{KEY}@[/"},
    ],
)
async def test_invalid_arguments_are_not_quoted(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    without_environment(monkeypatch)
    arguments: dict[str, Any] = {"base_url": "ws://127.0.0.1/v1", "api_key": "x", **options}
    with pytest.raises(ConfigurationError) as caught:
        async with open_responses(**arguments):
            pass
    for link in chain(caught.value):
        assert KEY not in f"{link!r} {link} {link.args!r}"


@pytest.mark.parametrize("url", ["http://u:{}@proxy:80800", "ftp://u:{}@proxy", "http://u:{}@["])
async def test_an_invalid_proxy_of_the_environment_shows_no_variable(
    url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No local variable of the library holds the proxy's URL, nor the rest of the environment."""
    without_environment(monkeypatch)
    monkeypatch.setenv("HTTPS_PROXY", url.format(KEY))
    monkeypatch.setenv("ANOTHER_SECRET", KEY)
    with pytest.raises(ConfigurationError, match="HTTPS_PROXY: ") as caught:
        async with open_responses("https://models.test/v1", api_key="x"):
            pass
    assert_silent(caught.value)
    assert locals_with_key(caught.value) == set()


# --- Turns --------------------------------------------------------------------------------


async def read(stream: ResponseStream, events: list[object]) -> None:
    async with stream:
        async for event in stream:
            events.append(event)  # noqa: PERF401 - those before the exception count


async def test_a_key_that_the_server_repeats_is_in_no_message() -> None:
    """The server repeats the key in an error frame, in an invalid frame and in a close reason."""
    error_frame = f'{{"type":"error","error":{{"code":"no","message":"{KEY}"}},"status":401}}'

    async def script(peer: Peer) -> None:
        await peer.accept()
        await peer.read_frame()
        await peer.send(text(f'{{"type":"response.created","response":"{KEY}"}}') + text(KEY))
        await peer.send(text(error_frame))
        await peer.read_frame()
        await peer.send(close(1011, KEY))

    shown: list[object] = []
    async with open_net(script) as net:
        opened = open_responses(
            "ws://127.0.0.1/v1", api_key=KEY, dial=net.dial, reconnect=[], transport="websocket"
        )
        async with opened as connection:
            stream = connection.stream(model="m", input="hi")
            with pytest.raises(APIError) as refused:
                await read(stream, shown)
            with pytest.raises(ResponsesError) as lost:
                await connection.create(model="m", input="hi")
    assert refused.value.message == KEY
    for error in (refused.value, lost.value):
        assert_silent(error)
    assert KEY not in repr([*shown, stream.snapshot])


async def test_no_repr_shows_the_key() -> None:
    endpoint = Endpoint(url="http://localhost/v1", lanes=True, headers=(("X-Org", KEY),))
    tunnel = Tunnel(Proxy.of(PROXY))
    # The private objects appear in the tracebacks and debuggers of users.
    printed: list[object] = [endpoint, tunnel, tunnel._proxy]
    async with open_test_server(api_key=KEY) as server:
        opened = open_responses(
            endpoint=endpoint, api_key=KEY, headers={"X-Token": KEY}, dial=server.dial
        )
        async with opened as connection, connection.lane() as lane:
            stream = connection.stream(model="m", input="hi")
            printed += [connection, connection._engine.config, lane, stream]
            async with stream:
                printed += [event async for event in stream]
                receipt = await stream.steer("more")
            async with connection.conversation(model="m") as conversation:
                printed += [
                    await conversation.create("hi"),
                    conversation,
                    await conversation.fork(),
                ]
                printed += [conversation.checkpoint(), conversation.statistics()]
                printed += [conversation.items]
            (socket,) = connection._engine.sockets
            printed += [stream, stream.snapshot, stream.response, receipt, socket, socket.transport]
            printed += [connection.statistics(), connection.handshake_headers]
            assert server.connections[0].headers["x-token"] == KEY
            printed += [server, server.connections, server.requests, server.statistics()]
    for thing in printed:
        assert KEY not in f"{thing!r} {thing}", type(thing)


async def test_no_logger_gets_the_key_at_any_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    async with (
        open_test_server(api_key=KEY) as server,
        open_responses(server.url, api_key=KEY, dial=server.dial) as connection,
    ):
        await connection.create(model="m", input="hi")
    assert "trio-websocket" in {record.name for record in caplog.records}
    shown = [f"{record.getMessage()} {record.__dict__}" for record in caplog.records]
    assert not [line for line in shown if KEY in line]


# --- The watch ----------------------------------------------------------------------------


async def test_the_secrets_watch_finds_a_key_in_every_place() -> None:
    watch = SecretsWatch(("sk-other",))
    key = "sk-other-1"
    watch.start()
    try:
        logging.getLogger("somebody").error("dialling with %s", key)
        logging.getLogger("trio-websocket").debug("dialling with %s", key)
        with pytest.raises(ResponsesError):
            raise ResponsesError(f"refused: {key}")
        Endpoint(url=f"http://localhost/{key}")
        async with (
            open_test_server() as server,
            server.open_client() as connection,
            connection.conversation(model="m") as conversation,
        ):
            await conversation.create(key)
            conversation.checkpoint()
    finally:
        watch.stop()
    watch.pytest_warning_recorded(warnings.WarningMessage(UserWarning(key), UserWarning, "here", 1))
    places = [seen.partition(":")[0] for seen in watch.take()]
    assert places == [
        "a log record of somebody",
        "a log record of trio-websocket",
        "ResponsesError, after __init__",
        "ResponsesError, after __init__",
        "Endpoint, after __init__",
        "Endpoint, after __init__",
        "Conversation, after checkpoint",
        "a warning",
    ]
    assert watch.take() == []


async def test_the_secrets_watch_restores_what_it_replaced() -> None:
    before = ResponsesError.__init__, Endpoint.__init__, logging.getLogRecordFactory()
    watch = SecretsWatch(("sk-other",))
    watch.start()
    watch.stop()
    assert (ResponsesError.__init__, Endpoint.__init__, logging.getLogRecordFactory()) == before
    looked = watch.looked
    logging.getLogger("somebody").debug("sk-other")
    assert (watch.looked, watch.seen) == (looked, [])


async def test_the_whole_suite_is_watched(pytestconfig: pytest.Config) -> None:
    watch = pytestconfig.pluginmanager.get_plugin("secrets-watch")
    assert isinstance(watch, SecretsWatch)
    looked = watch.looked
    async with open_test_server() as server, server.open_client():
        pass
    assert watch.looked > looked + 10
