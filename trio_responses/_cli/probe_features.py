"""What is known of a server that is probed, and how one attempt is made and judged.

What belongs elsewhere: the features, and how each is tried (`features.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias, final

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
    open_responses,
)
from trio_responses._cli.running import explain
from trio_responses._settings import Keepalive, Timeouts
from trio_responses._transport.websocket import dial_tcp
from trio_responses._wire import FunctionToolParam
from trio_responses.testing import Reply, default_answer
from trio_responses.types import (
    ErrorEvent,
    FunctionCallOutput,
    OutputTextDelta,
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
    from trio_responses._transport.websocket import Dial
    from trio_responses.testing import Answer, Request
    from trio_responses.types import Response
    from trio_responses.typing import Event

__all__ = [
    "BASICS",
    "FEATURES",
    "Feature",
    "Finding",
    "Found",
    "Prober",
    "Verdict",
    "answer_slowly",
]


class Verdict(StrEnum):
    """What came of trying a feature."""

    WORKS = "works"
    UNCLEAR = "unclear"
    """Taken without complaint, and nothing shows that it had an effect."""
    NO = "no"
    """Refused, or not understood."""
    FAILS = "fails"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about a feature."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


Found: TypeAlias = tuple[Verdict, str]


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, and how it is tried."""

    name: str
    attempt: Callable[[Prober], Awaitable[Found]]
    needs: tuple[str, ...] = ("handshake", "text turn")


@final
class Prober:
    """What all attempts share: the server, and the model that answers.

    :param models: the models to try, the best first.
    :param timeout: seconds for each feature.
    :param dial: opens the byte stream, where TCP is not the way.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str | None,
        models: tuple[str, ...],
        timeout: float,
        dial: Dial = dial_tcp,
    ) -> None:
        self.endpoint = endpoint
        self.models = models
        self.model: str | None = None
        """The one that has answered."""
        self.timeout = timeout
        self._api_key = api_key
        self._dial = dial

    def connect(
        self,
        *,
        after_error: Literal["reuse", "replace"] = "replace",
        stall: float | None = None,
        keepalive: Keepalive | None = None,
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection for one attempt: it is not opened anew when it is lost."""
        endpoint = dataclasses.replace(self.endpoint, lanes=False, after_error=after_error)
        patience = Timeouts(
            connect=self.timeout, first_event=self.timeout, stall=stall or self.timeout
        )
        return open_responses(
            endpoint=endpoint,
            api_key=self._api_key,
            reconnect=(),
            timeouts=patience,
            keepalive=keepalive,
            dial=self._dial,
        )

    async def examine(self, feature: Feature, before: list[Finding]) -> Finding:
        """Try a feature; whatever goes wrong is its verdict."""
        broken = {it.name for it in before if it.verdict is not Verdict.WORKS}
        missing = [name for name in feature.needs if name in broken]
        since = trio.current_time()
        if missing:
            verdict, detail = Verdict.SKIPPED, f"needs: {missing[0]}"
        else:
            verdict, detail = await self._try(feature)
        seconds = trio.current_time() - since
        return Finding(name=feature.name, verdict=verdict, detail=detail, seconds=seconds)

    async def _try(self, feature: Feature) -> Found:
        try:
            with trio.fail_after(self.timeout):
                return await feature.attempt(self)
        except APIError as error:
            return Verdict.NO, explain(error)
        except ReconnectFailed as error:
            cause = error.__cause__
            return Verdict.FAILS, explain(cause if isinstance(cause, Exception) else error)
        except ResponsesError as error:
            return Verdict.FAILS, explain(error)
        except trio.TooSlowError:
            return Verdict.FAILS, f"not done within {self.timeout:g} s"

    def profile(self, findings: list[Finding]) -> dict[str, Any]:
        """Give the options of ``Endpoint.compatible`` that describe this server."""
        good = {it.name for it in findings if it.verdict is Verdict.WORKS}
        after_error = "reuse" if "turn after an error" in good else "replace"
        return {"lanes": "lanes" in good, "after_error": after_error}


PONG: Final = "Answer with the one word pong."
REMEMBER: Final = "Remember the word teal. Answer with the one word ok."
RECALL: Final = "Which word did I ask you to remember? Answer with that word."
WORD: Final = "teal"
COUNT: Final = "Count from one to thirty, in words."
STOP: Final = "Stop counting. Answer with the one word done."
WEATHER: Final = "What is the weather in Oslo? Call the tool."
NOWHERE: Final = "resp_0000000000000000000000000000000000000000000000000"
"""The id of a response that no server has given."""
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
ENDINGS: Final = (ResponseCompleted, ResponseFailed, ResponseIncomplete)
STEER_STALL: Final = 20.0
"""Seconds for which a server may be silent about a steering input."""
PINGS: Final = Keepalive(interval=0.5, timeout=2.0)
WATCHED: Final = PINGS.interval + PINGS.timeout + 0.5


async def _handshake(prober: Prober) -> Found:
    async with prober.connect() as connection:
        server = connection.handshake_headers.get("server")
    return Verdict.WORKS, f"server: {server}" if server else ""


async def _text_turn(prober: Prober) -> Found:
    """Try the models, until one answers."""
    refused: list[str] = []
    async with prober.connect(after_error="replace") as connection:
        for model in prober.models:
            pieces = 0
            try:
                async with connection.stream(model=model, input=PONG) as stream:
                    async for event in stream:
                        pieces += isinstance(event, OutputTextDelta)
            except APIError as error:
                refused.append(f"{model}: {explain(error)}")
                continue
            prober.model = model
            return _judge_text(stream.response, pieces, model, refused)
    return Verdict.FAILS, "; ".join(refused)


def _judge_text(response: Response, pieces: int, model: str, refused: list[str]) -> Found:
    tried = f"; before it {', '.join(refused)}" if refused else ""
    if response.status == "failed" or not response.output_text:
        return Verdict.FAILS, f"{model} gave no text: {response.status}{tried}"
    usage = response.usage
    cost = (
        f"{usage.input_tokens} tokens read, {usage.output_tokens} written" if usage else "no usage"
    )
    return Verdict.WORKS, f"{model} answered in {pieces} pieces; {cost}{tried}"


async def _chain(prober: Prober, *, store: bool) -> Found:
    async with prober.connect() as connection:
        first = await connection.create(model=prober.model, input=REMEMBER, store=store)
        second = await connection.create(
            model=prober.model, input=RECALL, store=store, previous_response_id=first.id
        )
    if WORD in second.output_text.lower():
        return Verdict.WORKS, "the second turn knew what was said in the first"
    if second.previous_response_id == first.id:
        return Verdict.WORKS, "the second response names the first as its parent"
    return Verdict.UNCLEAR, "nothing shows that the second turn knew of the first"


async def _stored_chain(prober: Prober) -> Found:
    return await _chain(prober, store=True)


async def _unstored_chain(prober: Prober) -> Found:
    return await _chain(prober, store=False)


async def _unknown_parent(prober: Prober) -> Found:
    async with prober.connect() as connection:
        try:
            await connection.create(model=prober.model, input=PONG, previous_response_id=NOWHERE)
        except PreviousResponseNotFound:
            return Verdict.WORKS, "previous_response_not_found"
    return Verdict.NO, "a parent that does not exist is taken all the same"


async def _turn_after_error(prober: Prober) -> Found:
    async with prober.connect(after_error="reuse") as connection:
        try:
            await connection.create(model=prober.model, input=PONG, previous_response_id=NOWHERE)
        except APIError:
            await connection.create(model=prober.model, input=PONG)
            return Verdict.WORKS, "the socket goes on"
    return Verdict.UNCLEAR, "no error came to go on after"


async def _warm_up(prober: Prober) -> Found:
    async with prober.connect() as connection:
        try:
            warm = await connection.warm_up(model=prober.model, instructions="Be brief.")
        except UnexpectedOutput:
            return Verdict.NO, "it generates all the same"
        await connection.create(model=prober.model, input=PONG, previous_response_id=warm.id)
    return Verdict.WORKS, "no output, and a turn goes on from it"


async def _tool_turn(prober: Prober) -> Found:
    async with prober.connect() as connection:
        asked = await connection.create(
            model=prober.model, input=WEATHER, tools=[GET_WEATHER], tool_choice="required"
        )
        if not asked.function_calls:
            return Verdict.NO, "it answered without a call, although one was required"
        outputs = [
            FunctionCallOutput(call_id=call.call_id, output='{"celsius": 21}')
            for call in asked.function_calls
        ]
        answer = await connection.create(
            model=prober.model,
            input=outputs,
            tools=[GET_WEATHER],
            previous_response_id=asked.id,
        )
    call = asked.function_calls[0]
    if not answer.output_text:
        return Verdict.UNCLEAR, f"it called {call.name}({call.arguments}), then said nothing"
    return Verdict.WORKS, f"it called {call.name}({call.arguments}) and took the output"


async def _steering(prober: Prober) -> Found:
    stall = min(STEER_STALL, prober.timeout)
    receipt = None
    async with prober.connect(stall=stall) as connection:
        try:
            async with connection.stream(model=prober.model, input=COUNT) as stream:
                async for event in stream:
                    if receipt is None and isinstance(event, OutputTextDelta):
                        receipt = await stream.steer(STOP)
        except StallTimeout:
            return Verdict.NO, f"no word about the input within {stall:g} s"
    if receipt is None:
        return Verdict.UNCLEAR, "the answer came in one piece: there was nothing to steer"
    code = receipt.error.code if receipt.error is not None else None
    match receipt.state:
        case SteerState.COMMITTED:
            return Verdict.WORKS, f"a successor took it in: {len(stream.responses)} responses"
        case SteerState.FAILED if code == "response_not_active":
            return Verdict.UNCLEAR, "the response was over before the input came"
        case SteerState.FAILED:
            return Verdict.NO, f"refused: {code}"
        case state:
            return Verdict.UNCLEAR, f"the input is {state}"


async def _lanes(prober: Prober) -> Found:
    """Run two turns at once, and look whether each event says whose it is."""
    begun: set[str | None] = set()
    ended: set[str | None] = set()
    side_by_side = False
    async with prober.connect() as connection:
        for lane in LANES:
            await connection.send(
                ResponseCreate(model=prober.model, input=COUNT, stream_id=lane)  # type: ignore[arg-type]
            )
        while len(ended) < len(LANES):
            event = await connection.receive()
            refusal = _not_of_a_lane(event)
            if refusal is not None:
                return Verdict.NO, refusal
            if isinstance(event, ResponseCreated):
                begun.add(event.stream_id)
            elif isinstance(event, ENDINGS):
                ended.add(event.stream_id)
            side_by_side = side_by_side or len(begun - ended) == len(LANES)
    return Verdict.WORKS, "side by side" if side_by_side else "one after the other"


def _not_of_a_lane(event: Event) -> str | None:
    """Say why an event shows that there are no lanes."""
    match event:
        case ConnectionLost():
            return f"the server ended the connection: {explain(event)}"
        case ErrorEvent(code=code, message=message):
            return f"refused: {code}: {message}"
        case ResponseCreated(stream_id=None):
            return "events do not say which lane they are of"
        case _:
            return None


async def _pings(prober: Prober) -> Found:
    async with prober.connect(keepalive=PINGS) as connection:
        with trio.move_on_after(WATCHED):
            async for event in connection:
                if isinstance(event, KeepaliveTimeout):
                    return Verdict.NO, "pings are not answered"
                if isinstance(event, ConnectionLost):
                    return Verdict.FAILS, explain(event)
    return Verdict.WORKS, f"answered: {WATCHED:g} s idle"


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
)
BASICS: Final = ("handshake", "text turn")


def answer_slowly(request: Request) -> Answer:
    """Answer for the embedded server: slowly enough that there is something to steer."""
    usual = default_answer(request)
    return Reply("one two three four five six", delay=0.01) if request.text == COUNT else usual
