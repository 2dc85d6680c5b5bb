"""The demonstration: the library's main job, step by step, on the server that it ships.

Read it from `STEPS` on: each step is a coroutine that uses the library as a program would, then
compares what it got with what was promised, and with what the server has seen. The server is in
this process, but the socket is a real one; `trio_responses.testing` is told where to cut it.

What belongs elsewhere: arguments and exit codes (`cli/`), what it looks like (`screen.py`).
"""

from __future__ import annotations

import json
import math
import os
import sys
from functools import partial
from typing import TYPE_CHECKING, Any, Final, cast, final

import trio

from trio_responses import (
    ConnectionLost,
    ConnectionRestored,
    ConnectionState,
    Delivery,
    Endpoint,
    PreviousResponseNotFound,
    ReconnectPolicy,
    ResponsesError,
    connect_responses,
    open_responses,
)
from trio_responses._cli.running import run
from trio_responses._concurrency import open_collapsing_nursery
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import Reply, open_test_server
from trio_responses.types import ErrorEvent, FunctionCallOutput
from trio_responses.typing import Event

if TYPE_CHECKING:
    import argparse
    from collections.abc import Awaitable, Callable
    from typing import TextIO

    from trio_responses import ResponsesConnection
    from trio_responses.testing import Request, ResponsesServer
    from trio_responses.types import Response

__all__ = ["MODEL", "STEPS", "Demo", "PromiseBroken", "Screen", "demo", "run_demo"]

MODEL: Final = "gpt-5.5"
INSTRUCTIONS: Final = "Answer in one sentence."
RECONNECT: Final = ReconnectPolicy(initial=0.1)
"""A first delay shorter than the usual second: somebody is watching."""
MAX_AGE: Final = 2.0
"""Seconds in the place of the hour after which OpenAI ends a socket."""
STEP_SECONDS: Final = 15.0
"""A step that takes longer hangs."""
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


class PromiseBroken(Exception):
    """Something came out otherwise than promised."""


def check(what: str, found: object, promised: object) -> None:
    """Compare what came out with what was promised.

    :raises PromiseBroken: when they differ.
    """
    if found != promised:
        raise PromiseBroken(f"{what}: {found!r} and not {promised!r}")


def get_weather(city: str) -> dict[str, Any]:
    """Look the weather up: the function that the model may call."""
    return WEATHER[city]


class Demo:
    """What the steps share: the server, the connection, and where they tell what happens."""

    def __init__(self, server: ResponsesServer, nursery: trio.Nursery, screen: Screen) -> None:
        self.server = server
        self.screen = screen
        self._nursery = nursery
        self._connection: ResponsesConnection | None = None
        self._news, self._old_news = trio.open_memory_channel[Event](math.inf)

    @property
    def connection(self) -> ResponsesConnection:
        """The connection of all steps but one."""
        if self._connection is None:
            raise PromiseBroken("there is no connection")
        return self._connection

    async def connect(self) -> None:
        """Open the connection, and read its channel: it says what happens to the socket.

        A program would write ``async with open_responses(...) as connection:`` and put its
        steps inside. A nursery of one's own is for connections that outlive a function.
        """
        self._connection = await connect_responses(
            self._nursery, endpoint=_endpoint(self.server), api_key="", reconnect=RECONNECT
        )
        self._nursery.start_soon(self._read_channel, self._connection)

    async def _read_channel(self, connection: ResponsesConnection) -> None:
        async with self._news:
            try:
                async for event in connection:
                    self.screen.notice(_describe(event))
                    await self._news.send(event)
            except ResponsesError as error:  # the last that it says: there will be no more sockets
                self.screen.notice(_reason(error))

    async def next_news(self) -> Event:
        """Wait for what the channel says next."""
        try:
            return await self._old_news.receive()
        except trio.EndOfChannel:
            raise PromiseBroken("there will be no more sockets") from None

    async def converse(self, text: str, **params: Any) -> Response:
        """Run one turn, and show its text as it comes."""
        self.screen.say(f"you:   {text}")
        pieces: list[str] = []
        async with self.connection.stream(model=MODEL, input=text, **params) as stream:
            async for piece in stream.text_deltas():
                self.screen.stream("model: ", piece)
                pieces.append(piece)
        response = stream.response
        check("the streamed text", "".join(pieces), response.output_text)
        check("it was streamed in pieces", len(pieces) > 1, promised=True)
        return response


# --- The steps ---------------------------------------------------------------------------


async def open_connection(demo: Demo) -> str:
    """One handshake, one socket, and a task that looks after it."""
    await demo.connect()
    demo.screen.say(f"{demo.connection!r}")
    check("the state", demo.connection.state, ConnectionState.OPEN)
    check("handshakes", [seen.path for seen in demo.server.connections], ["/v1/responses"])
    return f"it is {demo.connection.state}, and the server has seen one handshake"


async def warm_up(demo: Demo) -> str:
    """Have the server prepare instructions and tools; its Response may be a parent."""
    response = await demo.connection.warm_up(
        model=MODEL, instructions=INSTRUCTIONS, tools=[GET_WEATHER]
    )
    demo.screen.say(f"{response!r}")
    check("the output", response.output, ())
    check("asked for no output", demo.server.requests[-1]["generate"], promised=False)
    check("previous_response_id", demo.connection.previous_response_id, response.id)
    return f"no output, and {response.id} to go on from"


async def have_conversation(demo: Demo) -> str:
    """Three turns: each sends its own words only, and the server knows what went before."""
    parents = [demo.connection.previous_response_id]
    for turn, text in enumerate(("Hello!", "How are you?", "What have I said so far?"), 1):
        response = await demo.converse(
            text,
            instructions=INSTRUCTIONS,
            previous_response_id=demo.connection.previous_response_id,
        )
        check("the answer", response.output_text, f'Turn {turn}: you said "{text}".')
        parents.append(response.id)
    requests = demo.server.requests[-3:]
    check("parents", [request["previous_response_id"] for request in requests], parents[:3])
    check("items sent", [len(request.input_items) for request in requests], [1, 1, 1])
    check("items known", [len(request.history) for request in requests], [1, 3, 5])
    return "three turns, one message sent for each, the whole history known to the server"


async def call_function(demo: Demo) -> str:
    """Offer a function, run it when the model calls it, and send back what it returned."""
    question = "What is the weather in Oslo?"
    demo.screen.say(f"you:   {question}")
    response = await demo.connection.create(model=MODEL, input=question, tools=[GET_WEATHER])
    outputs: list[FunctionCallOutput] = []
    for call in response.function_calls:
        demo.screen.say(f"model: calls {call.name}({call.arguments})")
        result = json.dumps(get_weather(**json.loads(call.arguments)))
        demo.screen.say(f"you:   {result}")
        outputs.append(FunctionCallOutput(call_id=call.call_id, output=result))
    answer = await demo.connection.create(
        model=MODEL, input=outputs, tools=[GET_WEATHER], previous_response_id=response.id
    )
    demo.screen.say(f"model: {answer.output_text}")

    check("the calls", [call.name for call in response.function_calls], ["get_weather"])
    promised = f"Turn 1: the tool returned {json.dumps(WEATHER['Oslo'])}."
    check("the answer", answer.output_text, promised)
    known = [item["type"] for item in demo.server.requests[-1].history]
    check("the history", known, ["message", "function_call", "function_call_output"])
    return "the model called the function, and its answer has the function's result in it"


async def run_side_by_side(demo: Demo) -> str:
    """Start turns as tasks: the connection gives each a lane, and each gets its own events."""
    order: list[str] = []
    texts: dict[str, str] = {}

    async def count(language: str) -> None:
        text = f"Count to five in {language}"
        async with demo.connection.stream(model=MODEL, input=text) as stream:
            async for piece in stream.text_deltas():
                demo.screen.stream("as it comes:", f" {piece.strip()}")
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
        demo.screen.say(f"{language}: {texts[language]}")
    check("the texts", texts, NUMBERS)
    check("every turn spoke before the first was done", set(order[:5]), set(NUMBERS))
    lanes = {request.lane for request in demo.server.requests[-3:]}
    check("lanes", len(lanes), 3)
    check("turns at once", demo.server.connections[-1].max_active, 3)
    check("sockets", demo.server.statistics().handshakes, 1)
    return "three turns at once on three lanes of one socket, no word in the wrong place"


async def lose_socket(demo: Demo) -> str:
    """See an answer cut in the middle: it is said how far it came, and nothing is sent twice.

    With ``store=False`` the server knew the conversation for as long as the socket lived, so the
    turn is sent again, by choice, with the whole of it.
    """
    connection, server, screen = demo.connection, demo.server, demo.screen
    question, again = "My name is Ada.", "Who are you talking to?"
    first = await demo.converse(question, store=False)
    sent = len(server.requests)

    server.drop(after_events=EVENTS_BEFORE_CUT, how="fin")
    numbers: list[int | None] = []
    try:
        async with connection.stream(
            model=MODEL, input=again, previous_response_id=first.id, store=False
        ) as stream:
            async for event in stream:
                screen.say(f"event {event.sequence_number}: {event.type}")
                numbers.append(event.sequence_number)
    except ConnectionLost as lost:
        screen.say(f"ConnectionLost: {lost}; delivery: {lost.delivery}")
        check("delivery", lost.delivery, Delivery.ACCEPTED)
    else:
        raise PromiseBroken("the answer came to its end, although the socket was cut")
    check("events before the cut", numbers, list(range(EVENTS_BEFORE_CUT)))
    news = [type(await demo.next_news()) for _ in range(2)]
    check("news on the channel", news, [ConnectionLost, ConnectionRestored])
    check("requests", len(server.requests) - sent, 1)
    check("previous_response_id", connection.previous_response_id, None)

    try:
        await connection.create(
            model=MODEL, input=again, previous_response_id=first.id, store=False
        )
    except PreviousResponseNotFound as error:
        screen.say(f"with the old parent: {error}")
        check("delivery", error.delivery, Delivery.REJECTED)
    else:
        raise PromiseBroken("the new socket knows a response of the old one")

    history = [_user(question), *(first.raw_output or ()), _user(again)]
    response = await connection.create(model=MODEL, input=history, store=False)
    screen.say(f"with the full input: {response.output_text}")
    check("the answer", response.output_text, f'Turn 2: you said "{again}".')
    check("handshakes", server.statistics().handshakes, 2)
    return "told at once and how far it had come; reconnected; sent again by choice, it completes"


async def choose_at_least_once(demo: Demo) -> str:
    """Where an answer may be paid for twice, the connection sends the turn again itself."""
    text = "Tell me whatever happens."
    sent = len(demo.server.requests)
    demo.server.drop(after_events=EVENTS_BEFORE_CUT, how="reset")
    response = await demo.connection.create(
        model=MODEL, input=text, store=False, delivery="at_least_once"
    )
    demo.screen.say(f"model: {response.output_text}")
    news = [type(await demo.next_news()) for _ in range(2)]
    check("news on the channel", news, [ConnectionLost, ConnectionRestored])
    check("the answer", response.output_text, f'Turn 1: you said "{text}".')
    check("requests", len(demo.server.requests) - sent, 2)
    return "cut again, and create() returned the answer of a second attempt"


async def outlive_sockets(demo: Demo) -> str:
    """Go on where the server ends each socket at a certain age, idle or not."""
    screen = demo.screen
    async with open_test_server(max_age=MAX_AGE) as server:
        await server.serve_tcp()
        async with open_responses(
            endpoint=_endpoint(server), api_key="", reconnect=RECONNECT
        ) as connection:
            first = await connection.create(model=MODEL, input="Good morning!")
            screen.say(f"socket 1: {first.output_text}")
            async for event in connection:
                screen.notice(_describe(event))
                if isinstance(event, ErrorEvent):
                    check("why", event.code, "websocket_connection_limit_reached")
                    break
            # Nobody waits for the next socket here: whoever needs one does.
            second = await connection.create(
                model=MODEL, input="Good evening!", previous_response_id=first.id
            )
            screen.say(f"socket 2: {second.output_text}")
            check("the answer", second.output_text, 'Turn 2: you said "Good evening!".')

            screen.say("socket 2: a turn begins, and is under way when the socket is too old")
            server.stall(after_events=EVENTS_BEFORE_CUT)
            third = await connection.create(
                model=MODEL,
                input="Good night!",
                previous_response_id=second.id,
                delivery="at_least_once",
            )
            screen.say(f"socket 3: {third.output_text}")
            check("the answer", third.output_text, 'Turn 3: you said "Good night!".')
            check("sockets", connection.statistics().sockets_opened, 3)
            check(
                "sockets of the turns", [seen.connection for seen in server.requests], [1, 2, 2, 3]
            )
    return "three sockets in the life of one connection, and no turn failed"


async def close(demo: Demo) -> str:
    """Nothing outlives the connection: no task, no socket, no timer."""
    await demo.connection.aclose()
    check("the state", demo.connection.state, ConnectionState.CLOSED)
    while demo.server.statistics().open:  # noqa: ASYNC110 - a server has no event for it
        await trio.sleep(0.01)
    codes = [connection.close_code for connection in demo.server.connections]
    check("close codes", codes, [1006, 1006, 1000])
    check("crashes of the server", demo.server.crashes, [])
    return "closed with code 1000, and the server has no socket left"


STEPS: Final[tuple[tuple[str, Callable[[Demo], Awaitable[str]]], ...]] = (
    ("Open a supervised connection", open_connection),
    ("Warm it up", warm_up),
    ("Have a conversation, chained by previous_response_id", have_conversation),
    ("Let the model call a function", call_function),
    ("Run three turns side by side", run_side_by_side),
    ("Lose the socket in the middle of an answer", lose_socket),
    ("Lose it again, with delivery at_least_once", choose_at_least_once),
    (f"Outlive sockets that may live {MAX_AGE:g} seconds, in place of an hour", outlive_sockets),
    ("Close", close),
)


def demo(_: argparse.Namespace) -> int:
    """Show the library at work."""
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return run(partial(run_demo, Screen(sys.stdout, colour=colour)))


async def run_demo(screen: Screen) -> int:
    """Run all steps, and show what happens as it happens.

    :return: the exit code: 0 only if every step came out as promised.
    """
    broken: list[str] = []
    async with open_test_server() as server:
        url = await server.serve_tcp()
        screen.say(f"the embedded server listens on {url}")
        async with open_collapsing_nursery() as nursery:
            demo = Demo(server, nursery, screen)
            for number, (title, step) in enumerate(STEPS, 1):
                screen.title(f"{number}. {title}")
                if not await _comes_out(demo, step):
                    broken.append(f"{number}. {title}")
            nursery.cancel_scope.cancel()
    if broken:
        screen.end(f"demo: not as promised: {len(broken)} of {len(STEPS)}: {'; '.join(broken)}")
        return 1
    screen.end(f"demo: all {len(STEPS)} steps came out as promised")
    return 0


async def _comes_out(demo: Demo, step: Callable[[Demo], Awaitable[str]]) -> bool:
    """Run a step; whatever goes wrong in it is its result."""
    try:
        with trio.fail_after(STEP_SECONDS):
            demo.screen.good(await step(demo))
    except BrokenPipeError:
        raise  # nobody is watching any more
    except Exception as error:  # noqa: BLE001 - a tool may raise anything
        demo.screen.bad(_reason(error))
        return False
    finally:
        demo.server.forget_orders()
    return True


def _reason(error: Exception) -> str:
    if isinstance(error, ExceptionGroup):
        group = cast("ExceptionGroup[Exception]", error)
        return "; ".join(map(_reason, group.exceptions))
    if type(error) is trio.TooSlowError:
        return f"it did not come to its end within {STEP_SECONDS:g} s"
    return str(error) if isinstance(error, PromiseBroken) else f"{type(error).__name__}: {error}"


def _endpoint(server: ResponsesServer) -> Endpoint:
    """Say what the embedded server can do; of a server that is not known, nothing is assumed."""
    return Endpoint.compatible(server.url, lanes=True, after_error="reuse")


def _user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


def _count_slowly(request: Request) -> Reply:
    return Reply(NUMBERS[request.text.split()[-1]], delay=0.025)


def _describe(event: Event) -> str:
    match event:
        case ConnectionLost():
            return f"ConnectionLost on the channel: {event}"
        case ConnectionRestored(attempts=attempts, outage=outage):
            return f"ConnectionRestored: attempt {attempts}, {outage:.2f} s without a socket"
        case ErrorEvent(code=code):
            return f"the server says: {code}"
        case _:
            return f"on the channel: {type(event).__name__}"


BOLD: Final = "1"
RED: Final = "1;31"
GREEN: Final = "1;32"
YELLOW: Final = "33"
INDENT: Final = "   "


@final
class Screen:
    """Writes to a text stream, and sends every piece on its way at once.

    :param out: where to write.
    :param colour: whether it understands ANSI colours.
    """

    def __init__(self, out: TextIO, *, colour: bool) -> None:
        self._out = out
        self._colour = colour
        self._in_line = False
        try:
            "✓✗".encode(out.encoding or "ascii")
        except UnicodeEncodeError:
            self._good, self._bad = "ok:", "FAILED:"
        else:
            self._good, self._bad = "✓", "✗"

    def say(self, text: str) -> None:
        """Show a line of the story."""
        self._line(f"{INDENT}{text}")

    def stream(self, prefix: str, piece: str) -> None:
        """Show a piece of a line that grows; any other line ends it."""
        self._out.write(piece if self._in_line else f"{INDENT}{prefix}{piece}")
        self._out.flush()
        self._in_line = True

    def notice(self, text: str) -> None:
        """Show what nobody asked for."""
        self._line(self._painted(YELLOW, f"{INDENT}~ {text}"))

    def title(self, text: str) -> None:
        """Begin a step."""
        self._line(f"\n{self._painted(BOLD, text)}")

    def good(self, text: str) -> None:
        """End a step that came out as promised."""
        self._line(f" {self._painted(GREEN, self._good)} {text}")

    def bad(self, text: str) -> None:
        """End a step that did not."""
        self._line(f" {self._painted(RED, self._bad)} {text}")

    def end(self, text: str) -> None:
        """Show the last line."""
        self._line(f"\n{text}")

    def _line(self, text: str) -> None:
        self._out.write(f"\n{text}\n" if self._in_line else f"{text}\n")
        self._out.flush()
        self._in_line = False

    def _painted(self, colour: str, text: str) -> str:
        return f"\x1b[{colour}m{text}\x1b[0m" if self._colour else text
