"""The features that ``probe`` tries on a server, and how each is tried and judged.

Each feature is tried on a connection of its own, so that one that breaks its socket does not
affect the next. A verdict follows from the events received: a server that accepts a request and
ignores it does not pass.
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

import msgspec
import trio

from trio_responses import (
    APIError,
    ConnectionLost,
    KeepaliveTimeout,
    PreviousResponseNotFound,
    ReconnectFailed,
    ResponsesError,
    StallTimeout,
    SteerState,
    UnexpectedOutput,
    UpgradeUnsupported,
    open_responses,
)
from trio_responses._cli.running import describe_error
from trio_responses._extras import install_hint
from trio_responses._settings import Keepalive, Timeouts
from trio_responses._transport.dialing import dial_tcp
from trio_responses._transport.http import is_http_installed
from trio_responses._transport.tunnel import choose_dial
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import Reply, default_answer
from trio_responses.types import (
    ErrorEvent,
    FunctionCallOutput,
    OutputTextDelta,
    Response,
    ResponseCompleted,
    ResponseCreate,
    ResponseCreated,
    ResponseFailed,
    ResponseIncomplete,
)

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from trio_responses import Endpoint, ResponsesConnection
    from trio_responses._transport.dialing import Dial
    from trio_responses.testing import Answer, Request
    from trio_responses.typing import Event, TransportOption

__all__ = [
    "BASICS",
    "FEATURES",
    "Feature",
    "Finding",
    "Judgement",
    "Prober",
    "Verdict",
    "answer_slowly",
    "has_basics",
]


class Verdict(StrEnum):
    """The result of trying a feature, in one word."""

    WORKS = "works"
    UNCLEAR = "unclear"
    """The server accepted the request, and no event shows that it had an effect."""
    NO = "no"
    """The server rejected or did not understand the request."""
    FAILS = "fails"
    SKIPPED = "skipped"


BROKEN: Final = (Verdict.NO, Verdict.FAILS, Verdict.SKIPPED)
NO_HTTP: Final = f"needs httpcore2: {install_hint('http')}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """The result of trying a feature: a verdict, its reason, and the time spent."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


Judgement: TypeAlias = tuple[Verdict, str]
"""A verdict and its reason."""


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature of servers, the function that tries it, and the features that it depends on."""

    name: str
    attempt: Callable[[Prober], Awaitable[Judgement]]
    needs: tuple[str, ...] = ("handshake", "text turn")
    over_http: bool = False
    """Whether the attempt needs the extra for HTTP."""


@final
class Prober:
    """A server under test, and the settings that the attempts at all features share.

    :param models: the models to try, in order of preference.
    :param timeout: seconds for each feature.
    :param dial: opens the byte stream; by default over TCP.
    :param allow_insecure: whether the key and the content may be sent without TLS.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str | None,
        models: tuple[str, ...],
        timeout: float,
        dial: Dial = dial_tcp,
        allow_insecure: bool = False,
    ) -> None:
        self.endpoint = endpoint
        self.models = models
        self.model = models[0]
        """The model of the features: the first that answered."""
        self.has_answer = False
        """Whether a model has answered."""
        self.timeout = timeout
        self._api_key = api_key
        self._dial = dial
        self._allow_insecure = allow_insecure

    def connect(
        self,
        *,
        after_error: Literal["reuse", "replace"] = "replace",
        stall: float | None = None,
        keepalive: Keepalive | None = None,
        transport: TransportOption = "websocket",
        dial: Dial | None = None,
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection for one attempt; a lost connection is not reopened."""
        endpoint = dataclasses.replace(self.endpoint, lanes=False, after_error=after_error)
        timeouts = Timeouts(
            connect=self.timeout, first_event=self.timeout, stall=stall or self.timeout
        )
        return open_responses(
            endpoint=endpoint,
            api_key=self._api_key,
            reconnect=(),
            timeouts=timeouts,
            keepalive=keepalive,
            transport=transport,
            dial=dial or self._dial,
            allow_insecure=self._allow_insecure,
        )

    async def examine(self, feature: Feature, before: list[Finding]) -> Finding:
        """Try a feature and return the finding; errors and timeouts become verdicts.

        :param before: the findings so far. A feature is skipped when one that it depends on does
            not work.
        """
        broken = {it.name for it in before if it.verdict in BROKEN}
        missing = [name for name in feature.needs if name in broken]
        since = trio.current_time()
        if feature.over_http and not is_http_installed():
            verdict, detail = Verdict.SKIPPED, NO_HTTP
        elif missing:
            verdict, detail = Verdict.SKIPPED, f"needs: {missing[0]}"
        else:
            verdict, detail = await self._try(feature)
        seconds = trio.current_time() - since
        return Finding(name=feature.name, verdict=verdict, detail=detail, seconds=seconds)

    async def _try(self, feature: Feature) -> Judgement:
        try:
            with trio.fail_after(self.timeout):
                return await feature.attempt(self)
        except UpgradeUnsupported as error:
            return Verdict.NO, f"the server has no WebSocket mode: {describe_error(error)}"
        except APIError as error:
            return Verdict.NO, describe_error(error)
        except ReconnectFailed as error:
            cause = error.__cause__
            return Verdict.FAILS, describe_error(cause if isinstance(cause, Exception) else error)
        except ResponsesError as error:
            return Verdict.FAILS, describe_error(error)
        except trio.TooSlowError:
            return Verdict.FAILS, f"not done within {self.timeout:g} s"

    def profile(self, findings: list[Finding]) -> dict[str, Any]:
        """Return the options of ``Endpoint.compatible`` that describe the server."""
        working = {it.name for it in findings if it.verdict is Verdict.WORKS}
        after_error = "reuse" if "turn after an error" in working else "replace"
        profile: dict[str, Any] = {"lanes": "lanes" in working, "after_error": after_error}
        return profile if has_basics(findings) else {"transport": "http"}

    def count_dials(self, dialled: list[str]) -> Dial:
        """Return a dial function that adds the host to a list each time it is called."""
        inner = choose_dial(self.endpoint, None, self._dial, allow_insecure=self._allow_insecure)

        async def dial(host: str, port: int) -> trio.abc.Stream:
            dialled.append(host)
            return await inner(host, port)

        return dial


# --- The attempts ------------------------------------------------------------------------

PONG: Final = "Answer with the one word pong."
REMEMBER: Final = "Remember the word teal. Answer with the one word ok."
RECALL: Final = "Which word did I ask you to remember? Answer with that word."
WORD: Final = "teal"
COUNT: Final = "Count from one to thirty, in words."
STOP: Final = "Stop counting. Answer with the one word done."
WEATHER: Final = "What is the weather in Oslo? Call the tool."
UNKNOWN_RESPONSE: Final = "resp_0000000000000000000000000000000000000000000000000"
"""The id of a response that does not exist."""
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
LANES: Final = ("probe-1", "probe-2")
TERMINAL_EVENTS: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
ATTEMPTS: Final = 3
"""How often a feature is tried that depends on two things happening at the same time."""
STEER_STALL: Final = 20.0
"""Seconds without an event after which an attempt at steering ends."""
HAS_ENDED: Final = ("response_already_completed", "response_not_active")
"""The codes for steering input that arrived too late."""
SERVER_ERROR: Final = 500
PINGS: Final = Keepalive(interval=0.5, timeout=2.0)
REST_SECONDS: Final = 0.5
"""Seconds that the end of an HTTP answer may take after the end of its response."""
PING_SECONDS: Final = PINGS.interval + PINGS.timeout + 0.5
"""Seconds to wait on an idle connection: long enough for an unanswered ping to be noticed."""


async def _handshake(prober: Prober) -> Judgement:
    async with prober.connect() as connection:
        server = connection.handshake_headers.get("server")
    return Verdict.WORKS, f"server: {server}" if server else ""


async def _text_turn(prober: Prober, *, transport: TransportOption = "websocket") -> Judgement:
    """Run a turn with one model after the other until a model answers."""
    rejected: list[str] = []
    models = (prober.model,) if prober.has_answer else prober.models
    async with prober.connect(after_error="replace", transport=transport) as connection:
        for model in models:
            pieces = 0
            try:
                async with connection.stream(PONG, model=model) as stream:
                    async for event in stream:
                        pieces += isinstance(event, OutputTextDelta)
            except APIError as error:
                rejected.append(f"{model}: {describe_error(error)}")
                continue
            prober.model, prober.has_answer = model, True
            verdict, detail = _judge_text(stream.response, pieces, model, rejected)
            if verdict is Verdict.WORKS and not pieces and transport == "http":
                return Verdict.UNCLEAR, f"{model} answered in one piece, which shows no stream"
            return verdict, detail
    return Verdict.FAILS, "; ".join(rejected)


def _judge_text(response: Response, pieces: int, model: str, rejected: list[str]) -> Judgement:
    tried = f"; rejected before: {', '.join(rejected)}" if rejected else ""
    if response.status == "failed" or not response.output_text:
        return Verdict.FAILS, f"{model} returned no text: {response.status}{tried}"
    usage = response.usage
    tokens = (
        f"{usage.input_tokens} tokens read, {usage.output_tokens} written" if usage else "no usage"
    )
    return Verdict.WORKS, f"{model} answered in {pieces} pieces; {tokens}{tried}"


async def _chain(prober: Prober, *, store: bool) -> Judgement:
    async with prober.connect() as connection:
        first = await connection.create(REMEMBER, model=prober.model, store=store)
        second = await connection.create(
            RECALL, model=prober.model, store=store, previous_response_id=first.id
        )
    if WORD in second.output_text.lower():
        return Verdict.WORKS, "the second turn knew the content of the first"
    if second.previous_response_id == first.id:
        return Verdict.WORKS, "the second response names the first as its parent"
    return Verdict.UNCLEAR, "nothing shows that the second turn knew the first"


async def _stored_chain(prober: Prober) -> Judgement:
    return await _chain(prober, store=True)


async def _unstored_chain(prober: Prober) -> Judgement:
    return await _chain(prober, store=False)


async def _unknown_parent(prober: Prober) -> Judgement:
    async with prober.connect() as connection:
        try:
            await connection.create(PONG, model=prober.model, previous_response_id=UNKNOWN_RESPONSE)
        except PreviousResponseNotFound:
            return Verdict.WORKS, "previous_response_not_found"
        except APIError as error:
            return Verdict.UNCLEAR, f"refused, but with another error: {describe_error(error)}"
    return Verdict.NO, "the server accepted a parent that does not exist"


async def _turn_after_error(prober: Prober) -> Judgement:
    async with prober.connect(after_error="reuse") as connection:
        try:
            await connection.create(PONG, model=prober.model, previous_response_id=UNKNOWN_RESPONSE)
        except APIError:
            await connection.create(PONG, model=prober.model)
            return Verdict.WORKS, "the socket remains usable"
    return Verdict.UNCLEAR, "the server sent no error to continue after"


async def _warm_up(prober: Prober) -> Judgement:
    async with prober.connect() as connection:
        try:
            warm = await connection.warm_up(model=prober.model, instructions="Be brief.")
        except UnexpectedOutput:
            return Verdict.NO, "the server generated output"
        await connection.create(PONG, model=prober.model, previous_response_id=warm.id)
    return Verdict.WORKS, "no output, and a turn can follow it"


async def _tool_turn(prober: Prober) -> Judgement:
    async with prober.connect() as connection:
        calling = await connection.create(
            WEATHER, model=prober.model, tools=[GET_WEATHER], tool_choice="required"
        )
        if not calling.function_calls:
            return Verdict.NO, "the model answered without a call, although one was required"
        outputs = [
            FunctionCallOutput(call_id=call.call_id, output='{"celsius": 21}')
            for call in calling.function_calls
        ]
        answer = await connection.create(
            outputs,
            model=prober.model,
            tools=[GET_WEATHER],
            previous_response_id=calling.id,
        )
    call = calling.function_calls[0]
    made = f"the model called {call.name}({call.arguments})"
    if not answer.output_text:
        return Verdict.UNCLEAR, f"{made} and returned no text for the output"
    return Verdict.WORKS, f"{made} and answered with the output"


async def _until_clear(
    prober: Prober, attempt: Callable[[Prober], Awaitable[Judgement]]
) -> Judgement:
    """Return the judgement of the first attempt that is not unclear, or of the last one.

    What depends on two things happening at the same time may not be seen at the first attempt.
    There is no further attempt when a third of the time limit is over.
    """
    started_at = trio.current_time()
    for _ in range(ATTEMPTS - 1):
        verdict, detail = await attempt(prober)
        passed = trio.current_time() - started_at
        if verdict is not Verdict.UNCLEAR or passed > prober.timeout / ATTEMPTS:
            return verdict, detail
    return await attempt(prober)


async def _steering(prober: Prober) -> Judgement:
    return await _until_clear(prober, _steer_once)


async def _steer_once(prober: Prober) -> Judgement:
    stall = min(STEER_STALL, prober.timeout / 2)
    receipt = None
    async with prober.connect(stall=stall) as connection:
        try:
            async with connection.stream(COUNT, model=prober.model) as stream:
                async for event in stream:
                    if receipt is None and isinstance(event, OutputTextDelta):
                        receipt = await stream.steer(STOP)
        except StallTimeout:
            awaited = "text to steer" if receipt is None else "event about the input"
            return Verdict.UNCLEAR, f"no {awaited} within {stall:g} s"
    if receipt is None:
        return Verdict.UNCLEAR, "the answer came in one piece: there was no time to steer"
    code = receipt.error.code if receipt.error is not None else None
    match receipt.state:
        case SteerState.COMMITTED:
            return Verdict.WORKS, f"the input led to a successor: {len(stream.responses)} responses"
        case SteerState.FAILED if code in HAS_ENDED:
            return Verdict.UNCLEAR, f"the response had ended before the input arrived: {code}"
        case SteerState.FAILED:
            return Verdict.NO, f"rejected: {code}"
        case state:
            return Verdict.UNCLEAR, f"the input is {state}"


async def _lanes(prober: Prober) -> Judgement:
    return await _until_clear(prober, _run_two_lanes)


async def _run_two_lanes(prober: Prober) -> Judgement:
    """Run two turns at once, and check that each event names its lane (``stream_id``)."""
    started: set[str | None] = set()
    ended: set[str | None] = set()
    side_by_side = False
    async with prober.connect() as connection:
        for lane in LANES:
            await connection.send(ResponseCreate(model=prober.model, input=COUNT, stream_id=lane))
        while len(ended) < len(LANES):
            event = await connection.receive()
            reason = _why_no_lanes(event)
            if reason is not None:
                return Verdict.NO, reason
            if isinstance(event, ResponseCreated):
                started.add(event.stream_id)
            elif isinstance(event, TERMINAL_EVENTS):
                ended.add(event.stream_id)
            side_by_side = side_by_side or len(started - ended) == len(LANES)
    if not side_by_side:
        return Verdict.UNCLEAR, "events name their lane, but no two turns ran at the same time"
    return Verdict.WORKS, "side by side"


def _why_no_lanes(event: Event) -> str | None:
    """Return why an event shows that the server has no lanes (``stream_id``), or `None`."""
    match event:
        case ConnectionLost():
            return f"the server closed the connection: {describe_error(event)}"
        case ErrorEvent(code=code, message=message):
            return f"rejected: {code}: {message}"
        case ResponseCreated(stream_id=None):
            return "events do not name their lane"
        case _:
            return None


async def _pings(prober: Prober) -> Judgement:
    async with prober.connect(keepalive=PINGS) as connection:
        with trio.move_on_after(PING_SECONDS):
            async for event in connection:
                if isinstance(event, KeepaliveTimeout):
                    return Verdict.NO, "pings are not answered"
                if isinstance(event, ConnectionLost):
                    return Verdict.FAILS, describe_error(event)
    return Verdict.WORKS, f"answered: {PING_SECONDS:g} s idle"


async def _http_streamed(prober: Prober) -> Judgement:
    return await _text_turn(prober, transport="http")


async def _http_whole(prober: Prober) -> Judgement:
    """Ask for an answer that is one JSON object, which turns of the library never do."""
    body = msgspec.json.encode({"model": prober.model, "input": PONG, "stream": False})
    async with prober.connect(transport="http") as connection:
        answer = await _post(connection, body)
    try:
        response = msgspec.json.decode(answer, type=Response)
    except msgspec.DecodeError as error:
        return Verdict.NO, f"the answer is no Response in JSON: {error}"
    if not response.output_text:
        return Verdict.UNCLEAR, f"a Response without text: {response.status}"
    return Verdict.WORKS, "one JSON object"


async def _http_retrieve(prober: Prober) -> Judgement:
    async with prober.connect(transport="http") as connection:
        response = await connection.create(PONG, model=prober.model, store=True)
        stored = await connection.responses.retrieve(response.id)
    if stored.id != response.id:
        return Verdict.NO, f"the server returned {stored.id!r} in place of {response.id!r}"
    if stored.output_text != response.output_text:
        return Verdict.UNCLEAR, f"the stored Response has another text: {stored.status}"
    return Verdict.WORKS, "the stored Response is the one that was streamed"


async def _http_error(prober: Prober) -> Judgement:
    body = msgspec.json.encode({"model": prober.model, "input": 17})
    async with prober.connect(transport="http") as connection:
        try:
            await _post(connection, body)
        except APIError as error:
            form = f"status {error.status}"
            if not (error.code or error.message):
                return Verdict.UNCLEAR, f"{form} without an error object"
            if (error.status or 0) >= SERVER_ERROR:
                return Verdict.UNCLEAR, f"{form}, as for an error of the server: {error.message}"
            return Verdict.WORKS, f"{form} with an error object: {error.code or error.message}"
    return Verdict.UNCLEAR, "the server accepted an input that is a number"


async def _http_keepalive(prober: Prober) -> Judgement:
    dialled: list[str] = []
    dial = prober.count_dials(dialled)
    async with prober.connect(transport="http", dial=dial) as connection:
        await connection.create(PONG, model=prober.model)
        await trio.sleep(REST_SECONDS)
        await connection.create(PONG, model=prober.model)
    if len(dialled) == 1:
        return Verdict.WORKS, f"two requests used one HTTP connection, {REST_SECONDS:g} s apart"
    return Verdict.NO, "each request needed an HTTP connection of its own"


async def _post(connection: ResponsesConnection, body: bytes) -> bytes:
    """Send a body to the path of the API, and return the JSON of the answer."""
    calls = connection.responses._calls  # noqa: SLF001 - no public method sends such a body
    return bytes(await calls.call("POST", body=body))


FEATURES: Final = (
    Feature("handshake", _handshake, needs=()),
    Feature("text turn", _text_turn, needs=("handshake",)),
    Feature("chain, store=true", _stored_chain),
    Feature("chain, store=false", _unstored_chain),
    Feature("unknown parent", _unknown_parent),
    Feature("turn after an error", _turn_after_error),
    Feature("warm-up", _warm_up),
    Feature("tool turn", _tool_turn),
    Feature("steering", _steering),
    Feature("lanes", _lanes),
    Feature("pings", _pings, needs=("handshake",)),
    Feature("HTTP streamed", _http_streamed, needs=(), over_http=True),
    Feature("HTTP not streamed", _http_whole, needs=("HTTP streamed",), over_http=True),
    Feature("HTTP retrieve", _http_retrieve, needs=("HTTP streamed",), over_http=True),
    Feature("HTTP error form", _http_error, needs=("HTTP streamed",), over_http=True),
    Feature("HTTP keep-alive", _http_keepalive, needs=("HTTP streamed",), over_http=True),
)
BASICS: Final[dict[Literal["websocket", "http"], tuple[str, ...]]] = {
    "websocket": ("handshake", "text turn"),
    "http": ("HTTP streamed",),
}
"""The features that have to work before a transport can be used."""


def has_basics(
    findings: list[Finding], transport: Literal["websocket", "http"] = "websocket"
) -> bool:
    """Whether the basic features of a transport work."""
    broken = {it.name for it in findings if it.verdict in BROKEN}
    return broken.isdisjoint(BASICS[transport])


def answer_slowly(request: Request) -> Answer:
    """Return the default answer, but to the count of a probe one that takes time, as a model does.

    Steering input has to arrive during it, and two turns have to overlap.
    """
    default = default_answer(request)
    return Reply("one two three four five six", delay=0.01) if request.text == COUNT else default
