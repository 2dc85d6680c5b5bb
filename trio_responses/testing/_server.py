"""The Responses server: how it is opened and dialled, and what may be told to it."""

import os
import ssl
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Literal, Unpack, final

import trio

from trio_responses._client import open_responses
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._connection.engine import ResponsesConnection
from trio_responses._endpoint import ApiKey, Endpoint
from trio_responses._instruments.recording import Recording
from trio_responses.testing._frames import ErrorShape, Frame, usual_message
from trio_responses.testing._handshake import Acceptor, json_refusal
from trio_responses.testing._records import Connection, Request, SteerRequest
from trio_responses.testing._replay import plan_replay
from trio_responses.testing._responder import default_answer
from trio_responses.testing._script_checks import check_at_least, check_how
from trio_responses.testing._scripts import (
    AcceptAndDrop,
    Answer,
    Call,
    Fail,
    Garbage,
    HandshakeFault,
    Hang,
    HangUp,
    How,
    HttpRefusal,
    Reply,
    ReplyOptions,
    Responder,
    Script,
)
from trio_responses.testing._state import Options, ServerState
from trio_responses.testing._streams import MemoryStream, memory_connection

MAX_MESSAGE_SIZE: Final = 16 * 1024 * 1024 - 1
"""The largest request that is read; one byte more is closed with 1009 (docs/protocol.md 5.9)."""


@dataclass(frozen=True, slots=True)
class ServerStatistics:
    """What a server has seen so far."""

    handshakes: int
    """Streams that were opened to the server."""
    refused: int
    """Upgrades that were answered with an HTTP error."""
    open: int
    """WebSockets open now."""
    max_open: int
    """The most WebSockets that were open at once."""
    requests: int
    """Requests that stand in ``server.requests``: ``response.create`` frames received, and
    successors that steering made."""
    responses: int
    """Responses that went out to their end, warm-ups included, failures not."""
    active: int
    """Responses running now."""
    max_active: int
    """The most responses that ran at once."""
    crashes: int
    """Exceptions of responders and connections; none of them stops the server."""


@final
class ResponsesServer:
    """A Responses server to test against; made by :func:`open_test_server`.

    Without orders it answers by itself (:func:`~trio_responses.testing.default_answer`).
    Orders for coming requests queue up; each request that starts takes the first one that
    fits it. Warm-ups and requests that the protocol refuses take none.
    """

    def __init__(self, state: ServerState, nursery: trio.Nursery) -> None:
        self._state = state
        self._nursery = nursery
        self._acceptor = Acceptor(state)
        self._accepting = True
        self._host = "localhost"
        self._port: int | None = None
        self._scheme = "http"

    def __repr__(self) -> str:
        """Count what is there to see."""
        return f"<ResponsesServer {self.url} {self.statistics()}>"

    # What it has seen

    @property
    def requests(self) -> list[Request]:
        """Every ``response.create`` received and every successor, in the order of arrival."""
        return self._state.requests

    @property
    def last_request(self) -> Request:
        """The request that came last.

        :raises AssertionError: when none has come.
        """
        if not self.requests:
            raise AssertionError("no request has come")
        return self.requests[-1]

    @property
    def steers(self) -> list[SteerRequest]:
        """Every ``response.steer`` received, refused ones included, in the order of arrival."""
        return self._state.steers

    @property
    def connections(self) -> list[Connection]:
        """Every stream opened to the server, in order, with its handshake and its end."""
        return self._state.connections

    @property
    def crashes(self) -> list[Exception]:
        """What responders and connections raised, and calls of functions that no request offers."""
        return self._state.crashes

    def statistics(self) -> ServerStatistics:
        """Return what the server has seen so far."""
        state = self._state
        return ServerStatistics(
            handshakes=len(state.connections),
            refused=sum(c.status not in {None, 101} for c in state.connections),
            open=len(state.sessions),
            max_open=state.max_open,
            requests=len(state.requests),
            responses=state.responses,
            active=state.active,
            max_active=state.max_active,
            crashes=len(state.crashes),
        )

    # What it is to answer

    def reply(self, text: str | None = None, **options: Unpack[ReplyOptions]) -> Script:
        """Answer the next request with text; the options are the fields of :class:`Reply`."""
        return self.answer(Reply(text, **options))

    def call(
        self,
        name: str,
        arguments: Mapping[str, Any] | str = "{}",
        *,
        call_id: str | None = None,
        unoffered: bool = False,
    ) -> Script:
        """Answer the next request with one function call; the rest is as in :class:`Call`.

        Where the request does not offer the function, it gets an error in its place, and
        :attr:`crashes` an ``AssertionError``. ``unoffered=True`` is for a model that makes up
        a name.
        """
        call = Call(name, arguments, call_id=call_id, unoffered=unoffered)
        return self.answer(call)

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
        type: str | None = None,  # noqa: A002 - the protocol's word
        shape: ErrorShape = "nested",
        headers: Mapping[str, str | int | float | bool] | None = None,
        after_events: int = 0,
    ) -> Script:
        """Answer the next request with an error.

        :param code: ``error.code``: one that servers are known to send, or any with a
            ``message``.
        :param status: The HTTP status in the frame.
        :param message: ``error.message``; None takes the usual one of the code.
        :param param: ``error.param``.
        :param type: ``error.type``; None takes the usual one of the status.
        :param shape: How the error is written, see :data:`~trio_responses.testing.ErrorShape`.
        :param headers: The top-level ``headers`` of the frame, such as ``retry-after``.
        :param after_events: How many events of a response come first; 0 is before
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
        """Answer the next request with ``answer``; None is the usual answer, for faults in it."""
        script = Script(answer)
        self._state.scripts.append(script)
        return script

    def replay(
        self, recording: Recording | str | os.PathLike[str], *, timing: bool = False
    ) -> list[Script]:
        """Answer the next requests with what a recording has for them, one after the other.

        They are answered in the order in which they come, whatever they ask, with the recorded
        frames and ids, on the lanes that they use now. Where the server ended the socket in the
        recording, it is ended here; steering input sets off what it set off there. Later
        requests are answered as usual.

        :param recording: what a `~trio_responses.Recorder` has written: a path, or the thing
            itself.
        :param timing: Whether each frame takes as long as it took.
        :return: A script for each request, to add faults to.
        :raises ConfigurationError: For what is no recording.
        """
        if not isinstance(recording, Recording):
            recording = Recording.read(recording)
        planned = plan_replay(recording, timing=timing)
        self._state.replay.extend(planned.scripts)
        self._state.steer_gates.extend(planned.gates)
        return list(planned.scripts)

    def respond_with(self, responder: Responder | None) -> None:
        """Answer every request without an order by a function of it, sync or async.

        What the function raises goes to the client as an error with status 500 and to
        :attr:`crashes`. None restores :func:`~trio_responses.testing.default_answer`.
        """
        self._state.responder = responder or default_answer

    def drop(self, *, after_events: int | None = 0, how: How = "reset", reason: str = "") -> Script:
        """End the connection of the next request after some events of its usual answer."""
        return self.answer().drop(after_events=after_events, how=how, reason=reason)

    def stall(self, *, after_events: int | None = 0, seconds: float | None = None) -> Script:
        """Fall silent in the next response, for some seconds or (None) for ever."""
        return self.answer().stall(after_events=after_events, seconds=seconds)

    def half_open(self, *, after_events: int | None = 0) -> Script:
        """Stop reading and writing in the next response, with the socket kept open."""
        return self.answer().half_open(after_events=after_events)

    def refuse_steers(self, code: str = "steering_not_supported", *, times: int | None = 1) -> None:
        """Refuse the next steering inputs, whatever they are.

        :param code: ``error.code``.
        :param times: How many; None is for ever.
        """
        if _is_wanted(times):
            self._state.steer_refusals.append((code, times))

    def forget_orders(self) -> None:
        """Drop all orders for requests, steering and handshakes that are still waiting."""
        self._state.scripts.clear()
        self._state.replay.clear()
        self._state.steer_gates.clear()
        self._state.steer_refusals.clear()
        self._state.handshake_faults.clear()

    def assert_all_orders_used(self) -> None:
        """See that nothing is left of what was ordered: no answer, no refusal, no fault.

        Orders that are good for ever are no debt. For the end of a test::

            server.assert_all_orders_used()

        :raises AssertionError: naming what is left, and what came in its place.
        """
        left = self._state.unused_orders()
        if left:
            seen = f"{len(self.requests)} requests and {len(self.connections)} handshakes came"
            raise AssertionError(f"left of the orders: {', '.join(left)}; {seen}")

    # What it remembers

    def forget(self, response_id: str) -> None:
        """Forget a response, in memory and stored: who goes on from it is told so."""
        self._state.forget(response_id)

    def forget_all(self) -> None:
        """Forget every response."""
        self._state.forget(None)

    # What is to happen to handshakes

    def refuse(
        self,
        status: int,
        *,
        code: str | None = None,
        message: str | None = None,
        headers: Mapping[str, str] | None = None,
        body: bytes | None = None,
        times: int | None = 1,
    ) -> None:
        """Answer the next upgrades with an HTTP status.

        :param code: ``error.code`` in the JSON body.
        :param headers: More response headers, such as ``Retry-After``.
        :param body: A body of your own in place of the JSON error.
        :param times: For how many handshakes; None is for ever.
        """
        words = message or usual_message(code)
        refusal = json_refusal(status, code=code, message=words, headers=headers or {})
        if body is not None:
            refusal = HttpRefusal(status=status, headers=headers or {}, body=body)
        self._fault(refusal, times)

    def hang_handshake(self, *, times: int | None = 1) -> None:
        """Read the next upgrade requests and never answer them."""
        self._fault(Hang(), times)

    def drop_handshake(
        self, how: Literal["fin", "reset"] = "fin", *, times: int | None = 1
    ) -> None:
        """End the connection in place of an answer to the next upgrades."""
        self._fault(HangUp(how), times)

    def garble_handshake(
        self, data: bytes = b"\x00\xffnot http\r\n\r\n", *, times: int | None = 1
    ) -> None:
        """Answer the next upgrades with these bytes, then end the connection."""
        self._fault(Garbage(data), times)

    def drop_on_accept(self, how: How = "fin", *, reason: str = "", times: int | None = 1) -> None:
        """Accept the next upgrades and end the connections at once."""
        self._fault(AcceptAndDrop(how, reason), times)

    def _fault(self, fault: HandshakeFault, times: int | None) -> None:
        if _is_wanted(times):
            self._state.handshake_faults.append((fault, times))

    # What happens to open connections, now

    async def send_raw(self, frame: Frame, *, connection: int | None = None) -> None:
        """Send a frame that nobody asked for, on every open connection or on one.

        It waits where the client does not read.

        :param frame: JSON, a text frame, a binary frame, or bytes below WebSocket.
        :param connection: A number from :attr:`connections`; None is all of them.
        """
        for session in tuple(self._state.sessions):
            if connection in {None, session.record.number}:
                await session.send(frame)

    async def close_all(self, code: int = 1001, reason: str = "") -> None:
        """Close every open connection with a close code, and wait for the handshakes.

        Bounded by the server's ``close_timeout`` seconds. A checkpoint.

        :raises ValueError: for a code that no close frame carries, such as 1006.
        """
        check_how(code)
        await self._drop_all(code, reason)

    async def hang_up_all(self) -> None:
        """End every open connection without a close frame. A checkpoint."""
        await self._drop_all("fin", "")

    async def reset_all(self) -> None:
        """Reset every open connection. A checkpoint."""
        await self._drop_all("reset", "")

    def freeze_all(self) -> None:
        """Make every open connection half-open: silent, deaf, and not closed."""
        for session in self._state.sessions:
            session.freeze()

    async def _drop_all(self, how: How, reason: str) -> None:
        async with trio.open_nursery() as nursery:
            for session in tuple(self._state.sessions):
                nursery.start_soon(session.drop, how, reason)

    # How it is reached

    @property
    def url(self) -> str:
        """The base URL for an official SDK, ``http://host:port/v1``; ``/responses`` is below it.

        Before :meth:`serve_tcp` there is no port to connect to, and the URL is only a name for
        connections that are dialled in memory.
        """
        host = f"[{self._host}]" if ":" in self._host else self._host
        port = "" if self._port is None else f":{self._port}"
        return f"{self._scheme}://{host}{port}/v1"

    @property
    def websocket_url(self) -> str:
        """The URL of the WebSocket itself, ``ws://host:port/v1/responses``."""
        return f"ws{self.url.removeprefix('http')}/responses"

    async def connect_stream(self, *, capacity: int | None = None) -> MemoryStream:
        """Open a connection in memory and return the client's end; the handshake is to come.

        A checkpoint; when cancelled, there is no connection.

        :param capacity: Bytes that each direction holds before its sender has to wait; None
            for no bound.
        :raises ConnectionRefusedError: after :meth:`stop_accepting`.
        """
        await trio.lowlevel.checkpoint()
        if not self._accepting:
            raise ConnectionRefusedError("the test server does not accept connections")
        client, server = memory_connection(capacity)
        self._nursery.start_soon(self._acceptor.serve, server)
        return client

    async def dial(self, host: str, port: int) -> MemoryStream:  # noqa: ARG002 - a dialler's form
        """Open a connection in memory, as a client's ``dial=``; host and port do not matter.

        A checkpoint; when cancelled, there is no connection.

        :raises ConnectionRefusedError: after :meth:`stop_accepting`.
        """
        return await self.connect_stream()

    def open_client(
        self, *, api_key: ApiKey | None = None, **options: Any
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection to this server, in memory, for the length of a block.

        :param api_key: by default the key that the server wants, or any.
        :param options: those of :func:`~trio_responses.open_responses`.
        """
        state = self._state.options
        profile = Endpoint.compatible(
            self.url, lanes=state.lanes, max_age=state.max_age, after_error="reuse"
        )
        settings: dict[str, Any] = {"endpoint": profile, "dial": self.dial, **options}
        key = state.api_key or "any" if api_key is None else api_key
        return open_responses(api_key=key, **settings)

    def stop_accepting(self) -> None:
        """Refuse new connections in memory, as if no server ran; open ones go on."""
        self._accepting = False

    def accept_again(self) -> None:
        """Take back :meth:`stop_accepting`."""
        self._accepting = True

    async def serve_tcp(
        self,
        host: str = "127.0.0.1",
        port: int = 0,
        *,
        ssl_context: ssl.SSLContext | None = None,
    ) -> str:
        """Listen on TCP until the server is closed, and return :attr:`url`.

        :param port: 0 takes a free one.
        :param ssl_context: Speak TLS with it.
        :raises OSError: if the address cannot be listened on.
        """
        sockets = await trio.open_tcp_listeners(port, host=host)
        self._host, self._port = host, int(sockets[0].socket.getsockname()[1])
        listeners: list[trio.abc.Listener[trio.abc.Stream]] = [*sockets]
        if ssl_context is not None:
            self._scheme = "https"
            listeners = [trio.SSLListener(listener, ssl_context) for listener in sockets]
        await self._nursery.start(partial(trio.serve_listeners, self._acceptor.serve, listeners))
        return self.url


def _is_wanted(times: int | None) -> bool:
    """Whether an order for so many occasions is one at all.

    :raises ValueError: for a number below zero.
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
    unknown_parameters: bool = False,
    ping_interval: float | None = None,
    ping_timeout: float = 20,
    max_message_size: int = MAX_MESSAGE_SIZE,
    close_timeout: float = 5,
    wall_clock: Callable[[], float] | None = None,
) -> AsyncGenerator[ResponsesServer, None]:
    """Run a Responses server for the length of an ``async with`` block.

    It is reached in memory (:meth:`ResponsesServer.dial`), where a test needs no port and no
    real time, and after :meth:`ResponsesServer.serve_tcp` over TCP as well::

        async with open_test_server() as server:
            server.reply("Hello!")
            stream = await server.connect_stream()

    Leaving the block, by whatever way, cuts all connections at once. An exception of the block
    leaves it as it is, never in an ``ExceptionGroup``.

    :param api_key: The only accepted key; None accepts any key, and none.
    :param max_age: Seconds after which a connection is told
        ``websocket_connection_limit_reached`` and closed; None for no limit.
    :param lanes: Whether ``stream_id`` is understood; otherwise it is refused, as by servers
        that know one lane.
    :param steering: Whether ``response.steer`` is accepted; otherwise it is refused, as for
        models without it.
    :param unknown_parameters: Whether fields that no request has are let pass; otherwise they
        are refused, as by OpenAI: a typo is found before it gets there.
    :param ping_interval: Seconds between pings of the server; None sends none.
    :param ping_timeout: Seconds without a pong before it closes with 1011.
    :param max_message_size: Characters in the largest frame that is read; a larger one is
        closed with 1009.
    :param close_timeout: Seconds that it waits for the answer to a close frame of its own.
    :param wall_clock: The source of ``created_at``; None counts from a fixed date, so that
        every run gives the same frames.
    """
    options = Options(
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
    )
    async with open_collapsing_nursery() as nursery:
        yield ResponsesServer(ServerState(options=options), nursery)
        nursery.cancel_scope.cancel()
