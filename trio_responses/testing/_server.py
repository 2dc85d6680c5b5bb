"""The public API of the test server: `open_test_server` and `ResponsesServer`.

The methods of the server only read and change its `ServerState`, start tasks in its nursery and
control the open connections. The work on a connection is in `_handshake`, `_session` and `_runner`.
"""

import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Unpack, final, get_args

import trio

from trio_responses._client import ConnectionOptions, ResponsesConnection, open_responses
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._endpoint import Endpoint
from trio_responses._instruments.recording import Recording
from trio_responses.testing._frames import ErrorShape, Frame, default_message
from trio_responses.testing._handshake import ConnectionHandler
from trio_responses.testing._http_answers import json_refusal
from trio_responses.testing._records import (
    Connection,
    HTTPRequest,
    Records,
    Request,
    ServerTransport,
    SteerRequest,
)
from trio_responses.testing._replay import plan_replay
from trio_responses.testing._responder import default_answer
from trio_responses.testing._script_checks import (
    check_at_least,
    check_choice,
    check_connection_end,
)
from trio_responses.testing._scripts import (
    Answer,
    Call,
    Fail,
    HandshakeAcceptThenDrop,
    HandshakeDrop,
    HandshakeFault,
    HandshakeGarbage,
    HandshakeHang,
    How,
    HTTPAnswer,
    Reply,
    ReplyOptions,
    Responder,
    Script,
)
from trio_responses.testing._state import ServerOptions, ServerState
from trio_responses.testing._streams import MemoryStream, memory_connection

_MAX_PORT: Final = 65535
MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024 - 1
"""The size of the largest accepted request; a larger one closes the connection with 1009
(docs/protocol.md 5.9)."""

MAX_REMEMBERED: Final = 1000
"""The number of records of each kind, and of stored responses, that a server keeps by default."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """The counts of a test server since its start."""

    handshakes: int
    """Streams opened to the server."""
    refused: int
    """Upgrades answered with an HTTP error."""
    open: int
    """WebSockets open now."""
    max_open: int
    """The highest number of WebSockets open at once."""
    requests: int
    """Requests in ``server.requests``: received ``response.create`` frames and ``POST /responses``,
    and successors that steering created."""
    http_requests: int
    """HTTP requests in ``server.http_requests``; upgrades are none."""
    responses: int
    """Responses sent in full: warm-ups included, failures excluded."""
    active: int
    """Responses running now."""
    max_active: int
    """The highest number of responses running at once."""
    errors: int
    """Exceptions of responders and connections. They do not stop the server."""


@final
class ResponsesServer:
    """A Responses server to test against, made by :func:`open_test_server`.

    Without scripts, the server answers with :func:`~trio_responses.testing.default_answer`.
    Scripts for coming requests form a queue: each request that starts takes the first script that
    fits. Warm-ups and requests that the protocol refuses take no script.
    """

    def __init__(self, state: ServerState, nursery: trio.Nursery) -> None:
        self._state = state
        self._nursery = nursery
        self._connection_handler = ConnectionHandler(state)
        self._accepting = True
        self._host = "localhost"
        self._port: int | None = None
        self._scheme = "http"

    def __repr__(self) -> str:
        """Return the URL and the statistics."""
        return f"<ResponsesServer {self.url} {self.statistics()}>"

    # Records

    @property
    def requests(self) -> Records[Request]:
        """The received requests for responses, over both transports, and successors, in order.

        Of these records, and of the others, the server keeps the latest ``max_remembered``.
        """
        return self._state.requests

    @property
    def last_request(self) -> Request:
        """The latest received request.

        :raises AssertionError: If the server has received no request.
        """
        if not self.requests:
            raise AssertionError("last_request: the server has received no request")
        return self.requests[-1]

    @property
    def steers(self) -> Records[SteerRequest]:
        """Every received ``response.steer``, refused ones included, in the order of arrival."""
        return self._state.steers

    @property
    def connections(self) -> Records[Connection]:
        """Client connections in the order of opening, with their handshakes and ends."""
        return self._state.connections

    @property
    def http_requests(self) -> Records[HTTPRequest]:
        """Received HTTP requests of every kind except upgrades, in the order of arrival."""
        return self._state.http_requests

    @property
    def errors(self) -> list[Exception]:
        """Exceptions of responders, of connections, and of calls of unoffered functions."""
        return self._state.errors

    def statistics(self) -> ServerStatistics:
        """Return the counts of the server since its start."""
        state = self._state
        return ServerStatistics(
            handshakes=len(state.connections),
            refused=state.refused,
            open=len(state.open_connections),
            max_open=state.max_open,
            requests=len(state.requests),
            http_requests=len(state.http_requests),
            responses=state.responses,
            active=state.active,
            max_active=state.max_active,
            errors=len(state.errors),
        )

    # Scripts for requests

    def reply(self, text: str | None = None, **options: Unpack[ReplyOptions]) -> Script:
        """Answer the next request with text; the options are the other fields of :class:`Reply`."""
        return self.answer(Reply(text, **options))

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | str = "{}",
        *,
        call_id: str | None = None,
        namespace: str | None = None,
        unoffered: bool = False,
    ) -> Script:
        """Answer the next request with one function call; parameters as in :class:`Call`.

        If the request does not offer the function, it gets an error instead, and an
        ``AssertionError`` is added to :attr:`errors`. Pass ``unoffered=True`` to imitate a model
        that invents a name.
        """
        return self.answer(
            Call(name, arguments, call_id=call_id, namespace=namespace, unoffered=unoffered)
        )

    def calls(self, *calls: Call) -> Script:
        """Answer the next request with several function calls in one response."""
        return self.answer(Reply(calls=calls))

    def fail(
        self,
        code: str | None = "server_error",
        *,
        status: int | None = 500,
        message: str | None = None,
        param: str | None = None,
        type: str | None = None,  # noqa: A002 - the name of the field in the protocol
        shape: ErrorShape = "nested",
        headers: Mapping[str, str | int | float | bool] | None = None,
        after_events: int = 0,
    ) -> Script:
        """Answer the next request with an error.

        :param code: ``error.code``: a code that servers are known to send, or any code together
            with a ``message``.
        :param status: The HTTP status in the frame.
        :param message: ``error.message``; None takes the default of the code.
        :param param: ``error.param``.
        :param type: ``error.type``; None takes the default of the status.
        :param shape: The shape of the error, see :data:`~trio_responses.testing.ErrorShape`.
        :param headers: The top-level ``headers`` of the frame, such as ``retry-after``.
        :param after_events: The number of events of a response before the error; 0 is before
            ``response.created``.
        """
        fail = Fail(
            code,
            status=status,
            message=message,
            param=param,
            type=type,
            shape=shape,
            headers=headers or {},
            after_events=after_events,
        )
        return self.answer(fail)

    def answer(self, answer: Answer | None = None) -> Script:
        """Answer the next request with ``answer``; None takes the answer of the responder."""
        script = Script(answer)
        self._state.scripts.append(script)
        return script

    def replay(
        self, recording: Recording | str | os.PathLike[str], *, timing: bool = False
    ) -> list[Script]:
        """Answer the next requests with the recorded answers of a recording.

        Requests get the recorded frames and ids in the order in which they arrive, whatever they
        contain, on the lanes that they use now. Where the recorded server ended the socket, this
        server ends the socket. Frames that followed a steering input are sent after a steering
        input. Requests after the last recorded one are answered as usual.

        :param recording: A recording by a `~trio_responses.Recorder`, or the path of one.
        :param timing: Whether to send each frame after the recorded delay.
        :return: A script for each recorded request, to add faults to.
        :raises ConfigurationError: If the file is no recording.
        """
        if not isinstance(recording, Recording):
            recording = Recording.read(recording)
        replay = plan_replay(recording, timing=timing)
        self._state.replay_scripts.extend(replay.scripts)
        self._state.replay_steers.extend(replay.steers)
        return list(replay.scripts)

    def respond_with(self, responder: Responder | None) -> None:
        """Answer every request without a script by calling a function, sync or async.

        An exception of the function is added to :attr:`errors`, and the client gets an error with
        status 500. None restores :func:`~trio_responses.testing.default_answer`.
        """
        self._state.responder = responder or default_answer

    def drop(self, *, after_events: int | None = 0, how: How = "reset", reason: str = "") -> Script:
        """End the connection of the next request after some events of the responder's answer."""
        return self.answer().drop(after_events=after_events, how=how, reason=reason)

    def stall(self, *, after_events: int | None = 0, seconds: float | None = None) -> Script:
        """Stop sending after some events of the next response, for seconds or forever (None)."""
        return self.answer().stall(after_events=after_events, seconds=seconds)

    def half_open(self, *, after_events: int | None = 0) -> Script:
        """Stop reading and writing after some events of the next response, with the socket open."""
        return self.answer().half_open(after_events=after_events)

    def refuse_steers(self, code: str = "steering_not_supported", *, times: int | None = 1) -> None:
        """Refuse the next steering inputs, valid or not.

        :param code: ``error.code``.
        :param times: The number of inputs to refuse; None is all.
        """
        if _is_positive(times):
            self._state.steer_refusals.append((code, times))

    def clear_scripts(self) -> None:
        """Remove all scripts, recordings and faults that no request or handshake has taken."""
        self._state.clear_scripts()

    def assert_all_scripts_used(self) -> None:
        """Raise if the server has unused scripts, refusals or handshake faults.

        Those without a limit of uses do not count. For the end of a test::

            server.assert_all_scripts_used()

        :raises AssertionError: With the unused ones, and the numbers of received requests and
            handshakes.
        """
        unused = self._state.unused_scripts()
        if unused:
            raise AssertionError(
                f"the server has unused scripts: {', '.join(unused)}; requests"
                f" received: {len(self.requests)}, handshakes: {len(self.connections)}"
            )

    # Stored responses

    def forget(self, response_id: str) -> None:
        """Remove a response from the caches and the store. Requests cannot continue it any more."""
        self._state.forget(response_id)

    def forget_all(self) -> None:
        """Remove every response from the caches and the store."""
        self._state.forget(None)

    # Handshake faults

    def refuse(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        times: int | None = 1,
        over: ServerTransport = "websocket",
    ) -> None:
        """Answer the next upgrades with an HTTP status, without a WebSocket.

        HTTP requests are answered meanwhile, as by a proxy that breaks WebSockets only.

        :param code: ``error.code`` in the JSON body.
        :param message: ``error.message`` in the JSON body; None takes the default of the code.
        :param headers: More response headers, such as ``Retry-After``.
        :param body: A body in place of the JSON error.
        :param times: The number of handshakes; None is all.
        :param over: ``http`` answers the next HTTP requests in this way instead, ``both`` as many
            upgrades and HTTP requests.
        """
        refusal = json_refusal(
            status, code=code, message=message or default_message(code), headers=headers or {}
        )
        if body is not None:
            refusal = HTTPAnswer(status=status, headers=headers or {}, body=body)
        self._add_fault(refusal, times, over)

    def hang_handshake(self, *, times: int | None = 1, over: ServerTransport = "websocket") -> None:
        """Read the next upgrades, or HTTP requests, and never answer them."""
        self._add_fault(HandshakeHang(), times, over)

    def drop_handshake(
        self,
        how: Literal["fin", "reset"] = "fin",
        *,
        times: int | None = 1,
        over: ServerTransport = "websocket",
    ) -> None:
        """End the connection in place of an answer to the next upgrades, or HTTP requests."""
        self._add_fault(HandshakeDrop(how), times, over)

    def garble_handshake(
        self,
        data: bytes = b"\x00\xffnot http\r\n\r\n",
        *,
        times: int | None = 1,
        over: ServerTransport = "websocket",
    ) -> None:
        """Answer the next upgrades, or HTTP requests, with these bytes; then end the connection."""
        self._add_fault(HandshakeGarbage(data), times, over)

    def drop_on_accept(self, how: How = "fin", *, reason: str = "", times: int | None = 1) -> None:
        """Accept the next upgrades and end the connections at once."""
        self._add_fault(HandshakeAcceptThenDrop(how, reason), times)

    def _add_fault(
        self, fault: HandshakeFault, times: int | None, over: ServerTransport = "websocket"
    ) -> None:
        check_choice("over", over, get_args(ServerTransport))
        if _is_positive(times):
            self._state.add_handshake_fault(fault, times, over)

    # Open connections

    async def send_raw(self, frame: Frame, *, connection: int | None = None) -> None:
        """Send an extra frame now, on one open WebSocket or on all of them.

        Waits if a client does not read. A checkpoint if a connection is open. If cancelled, some
        connections may not have received the frame, and one may be unusable.

        :param frame: JSON, a text frame, a binary frame, or bytes below WebSocket.
        :param connection: The number of a connection, see :attr:`connections`; None is all of them.
        """
        for each in tuple(self._state.open_connections):
            if connection in {None, each.record.number}:
                await each.send(frame)

    async def close_all(self, code: int = 1001, reason: str = "") -> None:
        """Close every open connection with a close code, and wait for the close handshakes.

        HTTP connections have no close codes and are just closed.

        Takes at most the server's ``close_timeout`` seconds. A checkpoint.

        :raises ValueError: If no close frame carries the code, such as 1006.
        """
        check_connection_end(code)
        await self._drop_all(code, reason)

    async def hang_up_all(self) -> None:
        """End every open connection without a close frame. A checkpoint."""
        await self._drop_all("fin", "")

    async def reset_all(self) -> None:
        """Reset every open connection. A checkpoint."""
        await self._drop_all("reset", "")

    def freeze_all(self) -> None:
        """Make every open connection half-open: it neither reads nor writes, and stays open."""
        for each in (*self._state.open_connections, *self._state.http_connections):
            each.freeze()

    async def _drop_all(self, how: How, reason: str) -> None:
        async with trio.open_nursery() as nursery:
            for each in (*self._state.open_connections, *self._state.http_connections):
                nursery.start_soon(each.drop, how, reason)

    # Ways to connect

    @property
    def url(self) -> str:
        """The base URL for an SDK, ``http://host:port/v1``, without the final ``/responses``.

        Before :meth:`serve_tcp`, the server has no port, and the URL only works for connections in
        memory.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = "" if self._port is None else f":{self._port}"
        return f"{self._scheme}://{host}{port}/v1"

    @property
    def websocket_url(self) -> str:
        """The URL of the WebSocket, ``ws://host:port/v1/responses``."""
        return f"ws{self.url.removeprefix('http')}/responses"

    async def connect_stream(self, *, capacity: int | None = None) -> MemoryStream:
        """Open a connection in memory and return the client's end, before the handshake.

        A checkpoint. If cancelled, no connection is opened.

        :param capacity: The number of bytes that each direction buffers before its sender waits;
            None is no bound.
        :raises ConnectionRefusedError: After :meth:`stop_accepting`.
        """
        await trio.lowlevel.checkpoint()
        if not self._accepting:
            raise ConnectionRefusedError(
                "the test server does not accept connections since stop_accepting() was called"
            )
        client, server = memory_connection(capacity)
        self._nursery.start_soon(self._connection_handler.serve, server)
        return client

    async def dial(self, host: str, port: int) -> MemoryStream:  # noqa: ARG002 - the signature of a dial function
        """Open a connection in memory, as the ``dial=`` of a client; host and port are ignored.

        A checkpoint. If cancelled, no connection is opened.

        :raises ConnectionRefusedError: After :meth:`stop_accepting`.
        """
        return await self.connect_stream()

    def open_client(
        self, **options: Unpack[ConnectionOptions]
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a client connection to this server, in memory, for the length of a block.

        :param options: The options of :func:`~trio_responses.open_responses`. Without ``api_key``,
            the client has the key of the server, or any key if the server accepts all.
        """
        own = self._state.options
        endpoint = Endpoint.compatible(
            self.url, lanes=own.lanes, max_age=own.max_age, after_error="reuse"
        )
        settings: ConnectionOptions = {"endpoint": endpoint, "dial": self.dial, **options}
        if settings.get("api_key") is None:
            settings["api_key"] = own.api_key or "any"
        return open_responses(**settings)

    def stop_accepting(self) -> None:
        """Refuse new connections in memory, as a stopped server does; open connections go on."""
        self._accepting = False

    def accept_again(self) -> None:
        """Accept new connections in memory again after :meth:`stop_accepting`."""
        self._accepting = True

    async def serve_tcp(
        self,
        port: int = 0,
        host: str = "127.0.0.1",
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> str:
        """Listen on TCP until the server is closed, and return :attr:`url`.

        For example, for any program that reads ``OPENAI_BASE_URL``::

            url = await server.serve_tcp(8779)  # "http://127.0.0.1:8779/v1"

        :param port: The port; 0 takes a free port.
        :param host: The address of an interface of this machine.
        :param ssl_context: The TLS context; None serves without TLS.
        :raises OSError: If the server cannot listen on the address.
        :raises TypeError: If the port is no integer.
        :raises ValueError: If the port is not from 0 to 65535.
        """
        if not isinstance(port, int):
            raise TypeError(
                f"port must be an integer, not {port!r}: the host is the second argument"
            )
        if not 0 <= port <= _MAX_PORT:
            raise ValueError(f"port must be from 0 to {_MAX_PORT}, not {port}")
        sockets = await trio.open_tcp_listeners(port, host=host)
        self._host, self._port = host, int(sockets[0].socket.getsockname()[1])
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = [*sockets]
        if ssl_context is not None:
            self._scheme = "https"
            listeners = [trio.SSLListener(listener, ssl_context) for listener in sockets]
        await self._nursery.start(
            partial(trio.serve_listeners, self._connection_handler.serve, listeners)
        )
        return self.url


def _is_positive(times: int | None) -> bool:
    """Whether a fault with this number of uses happens at all; None is no limit.

    :raises ValueError: If the number is negative.
    """
    check_at_least("times", times, 0)
    return times != 0


@asynccontextmanager
async def open_test_server(
    *,
    api_key: str | None = None,
    max_age: float | None = 3600,
    lanes: bool = True,
    steering: bool = True,
    strict: bool = True,
    unknown_parameters: bool = False,
    ping_interval: float | None = None,
    ping_timeout: float = 20,
    max_message_size: int = MAX_MESSAGE_SIZE,
    max_remembered: int | None = MAX_REMEMBERED,
    close_timeout: float = 5,
    wall_clock: Callable[[], float] | None = None,
    transport: ServerTransport = "both",
    finish_lost: bool = False,
) -> AsyncGenerator[ResponsesServer, None]:
    """Run a Responses server for the length of an ``async with`` block.

    Clients connect in memory (:meth:`ResponsesServer.dial`), without a port and without real time,
    and after :meth:`ResponsesServer.serve_tcp` over TCP as well::

        async with open_test_server() as server:
            server.reply("Hello!")
            stream = await server.connect_stream()

    The end of the block, normal or not, closes all connections at once. An exception in the block
    propagates unchanged, never in an ``ExceptionGroup``.

    :param api_key: The only accepted key; None accepts any key, and requests without a key.
    :param max_age: Seconds before the server sends ``websocket_connection_limit_reached`` on a
        connection and closes the connection; None is no limit.
    :param lanes: Whether the server supports ``stream_id``; if not, it refuses every ``stream_id``,
        as servers with one lane do.
    :param steering: Whether the server accepts ``response.steer``; if not, it refuses every input,
        as for models without steering.
    :param strict: Whether the server refuses what OpenAI is known to refuse: items of another form,
        calls without outputs, strings that are too long and so on. If not, the server refuses only
        what it cannot process.
    :param unknown_parameters: Whether requests may have unknown fields; if not, the server refuses
        them, as OpenAI does, so that a test finds a typo.
    :param ping_interval: Seconds between pings of the server; None sends no pings.
    :param ping_timeout: Seconds without a pong before the server closes with 1011.
    :param max_message_size: Characters in the largest accepted frame; a larger frame closes the
        connection with 1009. Over HTTP the limit is 64 MiB, and the answer status 413.
    :param max_remembered: The number of requests, steering inputs, connections and stored responses
        that the server keeps, of each the latest; None keeps all of them.
    :param close_timeout: Seconds that the server waits for the answer to its close frame.
    :param wall_clock: The source of ``created_at``, in Unix seconds; None counts from a fixed date,
        so that every run gives the same frames.
    :param transport: The transports that the server speaks. With ``websocket``, HTTP requests get
        status 426; with ``http``, upgrades get status 405.
    :param finish_lost: Whether a response with ``store`` goes on when its connection is lost, and
        can be retrieved; if not, the server cancels it. Background responses always go on.
    """
    check_choice("transport", transport, get_args(ServerTransport))
    check_at_least("max_remembered", max_remembered, 1)
    options = ServerOptions(
        api_key=api_key,
        max_age=max_age,
        lanes=lanes,
        ping_interval=ping_interval,
        ping_timeout=ping_timeout,
        max_message_size=max_message_size,
        close_timeout=close_timeout,
        wall_clock=wall_clock,
        steering=steering,
        unknown_parameters=unknown_parameters,
        strict=strict,
        max_remembered=max_remembered,
        transport=transport,
        finish_lost=finish_lost,
    )
    async with open_collapsing_nursery() as nursery:
        yield ResponsesServer(ServerState(options=options, nursery=nursery), nursery)
        nursery.cancel_scope.cancel()
