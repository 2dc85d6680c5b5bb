"""The command ``demo``: a demonstration of the library, step by step, on the embedded server.

Start reading at `STEPS`: each step is a coroutine that uses the library as a program would, then
compares the result with the expected one and with the requests that the server has received. The
server runs in this process, but the socket is a real one, which the server closes on request.
"""

from __future__ import annotations

import json
import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, NamedTuple, cast, final, get_args

import trio

from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    PreviousResponseNotFound,
    ReconnectPolicy,
    ResponsesError,
    TransportChanged,
    connect_responses,
    open_responses,
)
from trio_responses._cli.running import run
from trio_responses._cli.server_choice import DEFAULT_MODEL
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._extras import install_hint
from trio_responses._safe_text import escape_controls
from trio_responses._transport.http import check_http_installed, is_http_installed
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import Reply, open_test_server
from trio_responses.types import ErrorEvent, FunctionCallOutput
from trio_responses.typing import Event, TransportOption

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import TextIO, Unpack

    from trio_responses import ResponsesConnection
    from trio_responses.testing import Request, ResponsesServer
    from trio_responses.types import Response
    from trio_responses.typing import ResponseCreateParams

__all__ = ["STEPS", "Demo", "Screen", "Step", "UnexpectedResult", "demo", "run_demo"]

INSTRUCTIONS: Final = "Answer in one sentence."
RECONNECT: Final = ReconnectPolicy(initial=0.1)
"""A first delay shorter than the default second, because a person is watching."""
RECONNECT_SOON: Final = ReconnectPolicy(initial=0.1, attempts=2)
"""Fewer attempts: after the last one the connection uses HTTP."""
MAX_AGE: Final = 2.0
"""Seconds after which the server closes a socket; OpenAI does after an hour."""
STEP_SECONDS: Final = 60.0
"""Seconds after which a step is considered to hang; an ordinary step takes less than five."""
EVENTS_BEFORE_CUT: Final = 7

WEATHER: Final[dict[str, dict[str, Any]]] = {
    "Oslo": {"celsius": -4, "sky": "snow"},
    "Paris": {"celsius": 12, "sky": "rain"},
}
GET_WEATHER: Final = FunctionToolParam(
    name="get_weather",
    description="The weather in a city, now.",
    parameters={
        "type": "object",
        "properties": {"city": {"type": "string"}},
        "required": ["city"],
        "additionalProperties": False,
    },
)
NUMBERS: Final = {
    "English": "one two three four five",
    "French": "un deux trois quatre cinq",
    "Italian": "uno due tre quattro cinque",
}


class UnexpectedResult(Exception):
    """A step of the demonstration had an unexpected result."""


def check(what: str, found: object, expected: object) -> None:
    """Raise an error if a result differs from the expected one.

    :raises UnexpectedResult: when they differ.
    """
    if found != expected:
        raise UnexpectedResult(f"{what}: {found!r}, expected {expected!r}")


def get_weather(city: str) -> dict[str, Any]:
    """Return the weather in a city. The model may call this function."""
    return WEATHER[city]


class Demo:
    """The state that the steps of the demonstration share: server, connection and screen."""

    def __init__(
        self,
        server: ResponsesServer,
        nursery: trio.Nursery,
        screen: Screen,
        transport: TransportOption,
    ) -> None:
        self.server = server
        self.screen = screen
        self.transport: TransportOption = transport
        self._nursery = nursery
        self._connection: ResponsesConnection | None = None
        self._send_event, self._receive_event = trio.open_memory_channel[Event](math.inf)

    @property
    def connection(self) -> ResponsesConnection:
        """The connection that all steps except one use."""
        if self._connection is None:
            raise UnexpectedResult("the first step opened no connection")
        return self._connection

    @property
    def over_http(self) -> bool:
        """Whether all requests go over HTTP."""
        return self.transport == "http"

    async def connect(self) -> None:
        """Open the connection, and start a task that reads its events.

        Most programs write ``async with open_responses(...) as connection:`` instead.
        `connect_responses` is for a connection that outlives the function that opens it.
        """
        self._connection = await connect_responses(
            self._nursery,
            endpoint=_endpoint(self.server),
            api_key="",
            reconnect=RECONNECT,
            transport=self.transport,
        )
        self._nursery.start_soon(self._read_events, self._connection)

    async def _read_events(self, connection: ResponsesConnection) -> None:
        async with self._send_event:
            try:
                async for event in connection:
                    self.screen.notification(_describe_event(event))
                    await self._send_event.send(event)
            except ResponsesError as error:  # the connection is closed: no socket will follow
                self.screen.notification(_error_reason(error))

    async def next_event(self) -> Event:
        """Wait for the next event of the connection that belongs to no turn."""
        try:
            return await self._receive_event.receive()
        except trio.EndOfChannel:
            raise UnexpectedResult("the connection closed and will open no more sockets") from None

    async def converse(self, question: str, **params: Unpack[ResponseCreateParams]) -> Response:
        """Run one turn, and show the text of the answer as it arrives."""
        self.screen.line(f"you:   {question}")
        pieces: list[str] = []
        params = {"model": DEFAULT_MODEL, **params}
        async with self.connection.stream(question, **params) as stream:
            async for piece in stream.text_deltas():
                self.screen.stream("model: ", piece)
                pieces.append(piece)
        response = stream.response
        check("the streamed text", "".join(pieces), response.output_text)
        check("more than one piece", len(pieces) > 1, expected=True)
        return response


# --- The steps ---------------------------------------------------------------------------


async def open_connection(demo: Demo) -> str:
    """Open a connection: one handshake, one socket, and a task that reconnects after a loss."""
    await demo.connect()
    demo.screen.line(f"{demo.connection!r}")
    check("the state", demo.connection.state, ConnectionState.OPEN)
    check(
        "paths of the handshakes",
        [seen.path for seen in demo.server.connections],
        [] if demo.over_http else ["/v1/responses"],
    )
    if demo.over_http:
        return "the connection is open, and the first request will dial the server"
    return f"the connection is {demo.connection.state}, and the server received one handshake"


async def warm_up(demo: Demo) -> str:
    """Send instructions and tools before the first turn, which can continue this response."""
    response = await demo.connection.warm_up(
        model=DEFAULT_MODEL, instructions=INSTRUCTIONS, tools=[GET_WEATHER]
    )
    demo.screen.line(f"{response!r}")
    check("the output", response.output, ())
    check("generate in the request", demo.server.requests[-1]["generate"], expected=False)
    check("previous_response_id", demo.connection.previous_response_id, response.id)
    return f"no output, and {response.id} can be the parent of a turn"


async def hold_conversation(demo: Demo) -> str:
    """Run three turns of a conversation: each sends only its own message."""
    parents = [demo.connection.previous_response_id]  # the warm-up; over HTTP there is none
    for turn, text in enumerate(("Hello!", "How are you?", "What have I said so far?"), 1):
        response = await demo.converse(
            text,
            instructions=INSTRUCTIONS,
            previous_response_id=parents[-1],
        )
        check("the answer", response.output_text, f'Turn {turn}: you said "{text}".')
        parents.append(response.id)
    requests = demo.server.requests[-3:]
    check("parents", [request.get("previous_response_id") for request in requests], parents[:3])
    check("items sent", [len(request.input_items) for request in requests], [1, 1, 1])
    check("items known", [len(request.history) for request in requests], [1, 3, 5])
    return "three turns, one message sent for each, and the server knew the whole history"


async def call_function(demo: Demo) -> str:
    """Offer a function, run it when the model calls it, and send the result back."""
    question = "What is the weather in Oslo?"
    demo.screen.line(f"you:   {question}")
    response = await demo.connection.create(question, model=DEFAULT_MODEL, tools=[GET_WEATHER])
    outputs: list[FunctionCallOutput] = []
    for call in response.function_calls:
        demo.screen.line(f"model: calls {call.name}({call.arguments})")
        result = json.dumps(get_weather(**json.loads(call.arguments)))
        demo.screen.line(f"you:   {result}")
        outputs.append(FunctionCallOutput(call_id=call.call_id, output=result))
    answer = await demo.connection.create(
        outputs, model=DEFAULT_MODEL, tools=[GET_WEATHER], previous_response_id=response.id
    )
    demo.screen.line(f"model: {answer.output_text}")

    check("the calls", [call.name for call in response.function_calls], ["get_weather"])
    expected = f"Turn 1: the tool returned {json.dumps(WEATHER['Oslo'])}."
    check("the answer", answer.output_text, expected)
    known = [item["type"] for item in demo.server.requests[-1].history]
    check("the history", known, ["message", "function_call", "function_call_output"])
    return "the model called the function, and its answer contains the result"


async def run_side_by_side(demo: Demo) -> str:
    """Run three turns in three tasks: the connection assigns a lane (``stream_id``) to each."""
    order: list[str] = []
    texts: dict[str, str] = {}

    async def count(language: str) -> None:
        text = f"Count to five in {language}"
        async with demo.connection.stream(text, model=DEFAULT_MODEL) as stream:
            async for piece in stream.text_deltas():
                demo.screen.stream("in order of arrival:", f" {piece.strip()}")
                order.append(language)
        texts[language] = stream.response.output_text

    demo.server.respond_with(_count_slowly)
    try:
        async with trio.open_nursery() as nursery:
            for language in NUMBERS:
                nursery.start_soon(count, language)
    finally:
        demo.server.respond_with(None)

    for language in NUMBERS:
        demo.screen.line(f"{language}: {texts[language]}")
    check("the texts", texts, NUMBERS)
    check("turns among the first five pieces", set(order[:5]), set(NUMBERS))
    if demo.over_http:
        return "three turns at once, each on an HTTP connection of its own"
    lanes = {request.lane for request in demo.server.requests[-3:]}
    check("lanes", len(lanes), 3)
    check("turns at once", demo.server.connections[-1].max_active, 3)
    check("sockets", demo.server.statistics().handshakes, 1)
    return "three turns at once on three lanes of one socket, and no event went to the wrong turn"


async def lose_socket(demo: Demo) -> str:
    """Cut the socket during an answer: the exception has the delivery status of the request.

    With ``store=False`` the server forgets a response when its socket closes. So the program sends
    the turn again with the full input.
    """
    connection, server, screen = demo.connection, demo.server, demo.screen
    question, again = "My name is Ada.", "Who are you talking to?"
    first = await demo.converse(question, store=False)
    sent = len(server.requests)

    server.drop(after_events=EVENTS_BEFORE_CUT, how="fin")
    numbers: list[int | None] = []
    try:
        async with connection.stream(
            again, model=DEFAULT_MODEL, previous_response_id=first.id, store=False
        ) as stream:
            async for event in stream:
                screen.line(f"event {event.sequence_number}: {event.type}")
                numbers.append(event.sequence_number)
    except ConnectionLost as lost:
        screen.line(f"ConnectionLost: {lost}; delivery: {lost.delivery}")
        check("delivery", lost.delivery, DeliveryStatus.ACCEPTED)
    else:
        raise UnexpectedResult("the answer was complete, although the socket was cut")
    check("events before the cut", numbers, list(range(EVENTS_BEFORE_CUT)))
    events = [type(await demo.next_event()) for _ in range(2)]
    check("events of the connection", events, [ConnectionLost, ConnectionRestored])
    check("requests", len(server.requests) - sent, 1)
    check("previous_response_id", connection.previous_response_id, None)

    try:
        await connection.create(
            again, model=DEFAULT_MODEL, previous_response_id=first.id, store=False
        )
    except PreviousResponseNotFound as error:
        screen.line(f"with the old parent: {error}")
        check("delivery", error.delivery, DeliveryStatus.REJECTED)
    else:
        raise UnexpectedResult("the new socket knew a response of the old one")

    history = [_user_message(question), *(first.raw_output or ()), _user_message(again)]
    response = await connection.create(history, model=DEFAULT_MODEL, store=False)
    screen.line(f"with the full input: {response.output_text}")
    check("the answer", response.output_text, f'Turn 2: you said "{again}".')
    check("handshakes", server.statistics().handshakes, 2)
    return (
        "the turn failed at once with its delivery; after reconnecting, the repeated turn completed"
    )


async def choose_at_least_once(demo: Demo) -> str:
    """Let the connection send a lost turn again: the answer may then be paid for twice."""
    text = "Tell me whatever happens."
    sent = len(demo.server.requests)
    demo.server.drop(after_events=EVENTS_BEFORE_CUT, how="reset")
    response = await demo.connection.create(
        text, model=DEFAULT_MODEL, store=False, delivery="at_least_once"
    )
    demo.screen.line(f"model: {response.output_text}")
    events = [type(await demo.next_event()) for _ in range(2)]
    check("events of the connection", events, [ConnectionLost, ConnectionRestored])
    check("the answer", response.output_text, f'Turn 1: you said "{text}".')
    check("requests", len(demo.server.requests) - sent, 2)
    return "the socket was cut again, and create() returned the answer of a second attempt"


async def outlive_sockets(demo: Demo) -> str:
    """Continue a conversation while the server closes each socket at its maximum age."""
    screen = demo.screen
    async with open_test_server(max_age=MAX_AGE) as server:
        await server.serve_tcp()
        async with open_responses(
            endpoint=_endpoint(server), api_key="", reconnect=RECONNECT
        ) as connection:
            first = await connection.create("Good morning!", model=DEFAULT_MODEL)
            screen.line(f"socket 1: {first.output_text}")
            async for event in connection:
                screen.notification(_describe_event(event))
                if isinstance(event, ErrorEvent):
                    check("the error code", event.code, "websocket_connection_limit_reached")
                    break
            # No need to wait for the next socket: the next turn does.
            second = await connection.create(
                "Good evening!", model=DEFAULT_MODEL, previous_response_id=first.id
            )
            screen.line(f"socket 2: {second.output_text}")
            check("the answer", second.output_text, 'Turn 2: you said "Good evening!".')

            screen.line("socket 2: a turn starts, and is still running at the maximum age")
            server.stall(after_events=EVENTS_BEFORE_CUT)
            third = await connection.create(
                "Good night!",
                model=DEFAULT_MODEL,
                previous_response_id=second.id,
                delivery="at_least_once",
            )
            screen.line(f"socket 3: {third.output_text}")
            check("the answer", third.output_text, 'Turn 3: you said "Good night!".')
            check("sockets", connection.statistics().sockets_opened, 3)
            check(
                "sockets of the turns", [seen.connection for seen in server.requests], [1, 2, 2, 3]
            )
    return "one connection used three sockets, and no turn failed"


async def go_over_to_http(demo: Demo) -> str:
    """Continue a conversation over HTTP when the network begins to break WebSockets."""
    screen = demo.screen
    async with open_test_server() as server:
        await server.serve_tcp()
        async with (
            open_responses(
                endpoint=_endpoint(server), api_key="", reconnect=RECONNECT_SOON
            ) as connection,
            connection.conversation(model=DEFAULT_MODEL, store=False) as conversation,
        ):

            async def say(text: str) -> None:
                response = await conversation.create(text)
                way = server.requests[-1].transport
                screen.line(f"{way}: {response.output_text}")
                turn = len(server.requests)
                check("the answer", response.output_text, f'Turn {turn}: you said "{text}".')

            await say("Good morning!")
            await say("Good day!")
            screen.line("a proxy cuts the socket, and answers every upgrade with a page")
            server.refuse(403, body=b"<p>WebSockets are blocked.</p>", times=None)
            await server.reset_all()
            async for event in connection:
                screen.notification(_describe_event(event))
                if isinstance(event, TransportChanged):
                    break
            await say("Good evening!")
            await say("Good night!")
            check("http_requests", connection.statistics().http_requests, 2)
        requests = server.requests
        ways = [request.transport for request in requests]
        check("transports", ways, ["websocket", "websocket", "http", "http"])
        check("items sent", [len(request.input_items) for request in requests], [1, 1, 5, 7])
        check("items known", [len(request.history) for request in requests], [1, 3, 5, 7])
    return "two turns by WebSocket, two over HTTP, and the server knew the whole history each time"


async def close(demo: Demo) -> str:
    """Close the connection: no task, no socket and no timer remains."""
    await demo.connection.aclose()
    check("the state", demo.connection.state, ConnectionState.CLOSED)
    while demo.server.statistics().open:  # noqa: ASYNC110 - a server has no event for it
        await trio.sleep(0.01)
    check("errors of the server", demo.server.errors, [])
    if demo.over_http:
        check("upgrades", demo.server.statistics().max_open, 0)
        return "closed, and the server has seen no WebSocket"
    codes = [connection.close_code for connection in demo.server.connections]
    check("close codes", codes, [1006, 1006, 1000])
    return "closed with code 1000, and the server has no open socket"


class Step(NamedTuple):
    """A step of the demonstration, and the values of ``--transport`` for which it runs."""

    title: str
    run: Callable[[Demo], Awaitable[str]]
    transports: tuple[TransportOption, ...] = ("auto", "websocket")


EVERY: Final = get_args(TransportOption)
STEPS: Final[tuple[Step, ...]] = (
    Step("Open a connection", open_connection, EVERY),
    Step("Warm up the connection", warm_up),
    Step("Hold a conversation, chained by previous_response_id", hold_conversation, EVERY),
    Step("Let the model call a function", call_function, EVERY),
    Step("Run three turns side by side", run_side_by_side, EVERY),
    Step("Lose the socket during an answer", lose_socket),
    Step("Lose the socket again, with delivery at_least_once", choose_at_least_once),
    Step(f"Outlive sockets that the server closes after {MAX_AGE:g} seconds", outlive_sockets),
    Step("Go over to HTTP in the middle of a conversation", go_over_to_http, ("auto",)),
    Step("Close the connection", close, EVERY),
)


def demo(arguments: argparse.Namespace) -> int:
    """Run the demonstration and return the exit code.

    :raises ConfigurationError: for HTTP alone, when the extra for HTTP is not installed.
    """
    if arguments.transport == "http":
        check_http_installed('transport="http"', http2=False)
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return run(partial(run_demo, Screen(sys.stdout, colour=colour), arguments.transport))


async def run_demo(screen: Screen, transport: TransportOption) -> int:
    """Run all steps and return the exit code: 0 only if no step failed."""
    failed: list[str] = []
    skipped = 0
    async with open_test_server() as server:
        url = await server.serve_tcp()
        screen.line(f"the embedded server listens on {url}")
        async with open_collapsing_nursery() as nursery:
            demo = Demo(server, nursery, screen, transport)
            for number, step in enumerate(STEPS, 1):
                title = f"{number}. {step.title}"
                screen.start_step(title)
                if reason := _why_skipped(step, transport):
                    screen.skipped(reason)
                    skipped += 1
                elif not await _passes(demo, step.run):
                    failed.append(title)
            nursery.cancel_scope.cancel()
    if failed:
        screen.summary(f"demo: {len(failed)} of {len(STEPS)} steps failed: {'; '.join(failed)}")
        return 1
    if skipped:
        passed = len(STEPS) - skipped
        screen.summary(f"demo: {passed} of {len(STEPS)} steps passed, {skipped} skipped")
    else:
        screen.summary(f"demo: all {len(STEPS)} steps passed")
    return 0


def _why_skipped(step: Step, transport: TransportOption) -> str | None:
    """Return why a step cannot run; `None` when it can."""
    if transport not in step.transports:
        return f"this step does not run with --transport {transport}"
    if step.run is go_over_to_http and not is_http_installed():
        return f"this step needs httpcore2: {install_hint('http')}"
    return None


async def _passes(demo: Demo, step: Callable[[Demo], Awaitable[str]]) -> bool:
    """Run a step of the demonstration and show its result; return whether the step passed."""
    try:
        with trio.fail_after(STEP_SECONDS):
            demo.screen.passed(await step(demo))
    except BrokenPipeError:
        raise  # the reader of the output has closed its end
    except Exception as error:  # noqa: BLE001 - a step may raise anything
        demo.screen.failed(_error_reason(error))
        return False
    finally:
        demo.server.clear_scripts()
    return True


def _error_reason(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return "; ".join(map(_error_reason, group.exceptions))
    if type(error) is trio.TooSlowError:
        return f"the step did not end within {STEP_SECONDS:g} s"
    return str(error) if isinstance(error, UnexpectedResult) else f"{type(error).__name__}: {error}"


def _endpoint(server: ResponsesServer) -> Endpoint:
    """Return the endpoint of the embedded server, with the features that it has."""
    return Endpoint.compatible(server.url, lanes=True, after_error="reuse")


def _user_message(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _count_slowly(request: Request) -> Reply:
    return Reply(NUMBERS[request.text.split()[-1]], delay=0.025)


def _describe_event(event: Event) -> str:
    match event:
        case ConnectionLost():
            return f"event of the connection: ConnectionLost: {event}"
        case ConnectionRestored(attempts=attempts, outage=outage):
            outage_text = f"attempt {attempts}, {outage:.2f} s without a socket"
            return f"event of the connection: ConnectionRestored: {outage_text}"
        case TransportChanged(transport=transport, error=error):
            return f"event of the connection: TransportChanged to {transport}: {error}"
        case ErrorEvent(code=code):
            return f"the server sent an error: {code}"
        case _:
            return f"event of the connection: {type(event).__name__}"


BOLD: Final = "1"
RED: Final = "1;31"
GREEN: Final = "1;32"
YELLOW: Final = "33"
INDENT: Final = "   "


@final
class Screen:
    """The output of the demonstration: a text stream, flushed after every write.

    :param out: the stream.
    :param colour: whether the stream supports ANSI colours.
    """

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._line_open = False
        try:
            "✓✗".encode(out.encoding or "ascii")
        except UnicodeEncodeError:
            self._passed_mark, self._failed_mark = "ok:", "FAILED:"
        else:
            self._passed_mark, self._failed_mark = "✓", "✗"

    def line(self, text: str) -> None:
        """Show a line within a step."""
        self._write_line(f"{INDENT}{escape_controls(text)}")

    def stream(self, prefix: str, piece: str) -> None:
        """Append a piece of text to the current line.

        :param prefix: begins the line, if there is no current one.
        """
        piece = escape_controls(piece)
        self._out.write(piece if self._line_open else f"{INDENT}{prefix}{piece}")
        self._out.flush()
        self._line_open = True

    def notification(self, text: str) -> None:
        """Show an event of the connection that belongs to no turn."""
        self._write_line(self._coloured(YELLOW, f"{INDENT}~ {escape_controls(text)}"))

    def start_step(self, title: str) -> None:
        """Show the title of a step."""
        self._write_line(f"\n{self._coloured(BOLD, title)}")

    def passed(self, text: str) -> None:
        """Show the result of a step that passed."""
        self._write_line(f" {self._coloured(GREEN, self._passed_mark)} {text}")

    def skipped(self, text: str) -> None:
        """Show why a step was skipped."""
        self._write_line(f" {self._coloured(YELLOW, '-')} skipped: {escape_controls(text)}")

    def failed(self, text: str) -> None:
        """Show why a step failed."""
        self._write_line(f" {self._coloured(RED, self._failed_mark)} {escape_controls(text)}")

    def summary(self, text: str) -> None:
        """Show the last line of the demonstration."""
        self._write_line(f"\n{text}")

    def _write_line(self, text: str) -> None:
        self._out.write(f"\n{text}\n" if self._line_open else f"{text}\n")
        self._out.flush()
        self._line_open = False

    def _coloured(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text
