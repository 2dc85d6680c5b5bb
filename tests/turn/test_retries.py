"""P4: what the server rejected for its rate is sent again after a delay, and what may have run is
sent again only if the caller chose so.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY, ask, ask_strictly, assert_at_rest, heard, types
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionClosed,
    ConnectionLost,
    DeliveryStatus,
    Endpoint,
    Instrument,
    RateLimitError,
    ResponseFailedError,
    ResponsesConnection,
    ResponsesError,
    ServerOverloaded,
    TurnRestarted,
    function_tool,
    open_pool,
)
from trio_responses._protocol.delivery import DeliveryMode
from trio_responses.testing import (
    Call,
    Fail,
    How,
    Reply,
    Request,
    ResponsesServer,
    open_test_server,
)
from trio_responses.types import ErrorEvent
from trio_responses.typing import TurnRecord

pytestmark = NO_WAITING

PAGE: Final = Path(__file__).parents[2] / "docs" / "explanation" / "delivery.md"
BACKOFF: Final = (0.5, 1.0)
"""The delays without a hint, before they are shortened by up to a quarter."""


# --- The table of the page "Delivery" --------------------------------------------------------


@dataclass(frozen=True)
class Outcome:
    """The outcome of a turn whose requests all get the same answer."""

    requests: int
    waits: tuple[float, ...]
    error: type[ResponsesError]
    delivery: DeliveryStatus

    def cell(self) -> str:
        waits = ", ".join(f"{'≤ ' if self.waits == BACKOFF else ''}{one:g} s" for one in self.waits)
        waited = f" after {waits}" if waits else ""
        return f"{self.requests}{waited}: `{self.error.__name__}`, `{self.delivery}`"


@dataclass(frozen=True)
class Row:
    """One answer of a server, and the outcome for each delivery mode."""

    answer: Fail | Reply
    default: Outcome
    at_least_once: Outcome

    def of(self, delivery: DeliveryMode) -> Outcome:
        return self.default if delivery == "at_most_once" else self.at_least_once


def limited(message: str = "Rate limit reached.", **fields: Any) -> Fail:
    return Fail("rate_limit_exceeded", status=429, message=message, **fields)


def row(
    answer: Fail | Reply,
    error: type[ResponsesError],
    delivery: DeliveryStatus,
    waits: tuple[float, ...] = (),
    *,
    by_default: bool = False,
) -> Row:
    """Return a row: each wait is followed by a request, with ``at_least_once`` or in any case."""
    chosen = Outcome(1 + len(waits), waits, error, delivery)
    return Row(answer, chosen if by_default else Outcome(1, (), error, delivery), chosen)


REJECTED, AMBIGUOUS, ACCEPTED = (
    DeliveryStatus.REJECTED,
    DeliveryStatus.AMBIGUOUS,
    DeliveryStatus.ACCEPTED,
)
AGAIN: Final = "Please try again in 2s."
TABLE: Final[dict[str, Row]] = {
    "429, “try again in 2s”": row(
        limited(AGAIN), RateLimitError, REJECTED, (2, 2), by_default=True
    ),
    "429, `retry-after: 7`": row(
        limited(headers={"retry-after": "7"}), RateLimitError, REJECTED, (7, 7), by_default=True
    ),
    "429, `retry-after-ms: 1500`": row(
        limited(headers={"retry-after-ms": 1500}),
        RateLimitError,
        REJECTED,
        (1.5, 1.5),
        by_default=True,
    ),
    "429 without a hint": row(limited(), RateLimitError, REJECTED, BACKOFF, by_default=True),
    "429, `retry-after: 61`": row(limited(headers={"retry-after": 61}), RateLimitError, REJECTED),
    "429 `insufficient_quota`": row(
        Fail("insufficient_quota", status=429, message="Check your plan."), RateLimitError, REJECTED
    ),
    "429 `usage_limit_reached`": row(
        Fail("usage_limit_reached", status=429, message="Wait."), RateLimitError, REJECTED
    ),
    "429 during the response": row(limited(after_events=3), RateLimitError, ACCEPTED, BACKOFF),
    "`response.failed` with `rate_limit_exceeded`": row(
        Reply("half", status="failed", error="rate_limit_exceeded"),
        RateLimitError,
        ACCEPTED,
        BACKOFF,
    ),
    "503 before any event": row(
        Fail("server_is_overloaded", status=503), ServerOverloaded, AMBIGUOUS, BACKOFF
    ),
    "503, `retry-after: 5`": row(
        Fail("server_is_overloaded", status=503, headers={"retry-after": 5}),
        ServerOverloaded,
        AMBIGUOUS,
        (5, 5),
    ),
    "503 during the response": row(
        Fail("server_is_overloaded", status=503, after_events=3),
        ServerOverloaded,
        ACCEPTED,
        BACKOFF,
    ),
    "500 before any event": row(Fail("server_error"), APIError, AMBIGUOUS, BACKOFF),
    "`response.failed` with `server_error`": row(
        Reply("half", status="failed", error="server_error"),
        ResponseFailedError,
        ACCEPTED,
        BACKOFF,
    ),
    "400 `unsupported_parameter`": row(
        Fail("unsupported_parameter", status=400), APIError, REJECTED
    ),
    "`response.failed` with `invalid_prompt`": row(
        Reply("half", status="failed", error="invalid_prompt"), ResponseFailedError, ACCEPTED
    ),
}
MODES: Final[tuple[DeliveryMode, ...]] = ("at_most_once", "at_least_once")


def table_lines() -> list[str]:
    return [
        f"| {name} | {row.default.cell()} | {row.at_least_once.cell()} |"
        for name, row in TABLE.items()
    ]


async def test_the_page_has_the_table() -> None:
    page = await trio.Path(PAGE).read_text()
    rows = [line for line in page.splitlines() if line.startswith("| ")]
    start = next(index for index, line in enumerate(rows) if line.startswith("| every request"))
    assert rows[start + 2 : start + 2 + len(TABLE)] == table_lines()


class Arrivals:
    """A responder that keeps the time of each request."""

    def __init__(self, server: ResponsesServer, *answers: Fail | Reply, forever: bool) -> None:
        self.times: list[float] = []
        self._answers = list(answers)
        self._forever = forever
        server.respond_with(self._answer)

    @property
    def waits(self) -> list[float]:
        return [after - before for before, after in zip(self.times, self.times[1:], strict=False)]

    def _answer(self, request: Request) -> Fail | Reply | str:
        self.times.append(trio.current_time())
        if self._answers:
            return self._answers[0] if self._forever else self._answers.pop(0)
        return heard(str(request["input"]))


def assert_waits(waits: list[float], expected: tuple[float, ...]) -> None:
    """A hint is waited for exactly; a delay without a hint is shortened by up to a quarter."""
    assert len(waits) == len(expected)
    for wait, most in zip(waits, expected, strict=True):
        least = 0.75 * most if most in BACKOFF else most
        assert least - 1e-6 <= wait <= most + 1e-6


@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize("name", TABLE)
async def test_the_outcome_of_a_turn_that_always_fails(
    server: ResponsesServer, name: str, delivery: DeliveryMode
) -> None:
    expected = TABLE[name].of(delivery)
    arrivals = Arrivals(server, TABLE[name].answer, forever=True)
    async with server.open_client() as connection:
        with pytest.raises(expected.error) as failure:
            await ask(connection, "hi", delivery=delivery)
        assert type(failure.value).__name__ == expected.error.__name__
        assert failure.value.delivery is expected.delivery
        assert [request["input"] for request in server.requests] == ["hi"] * expected.requests
        assert_waits(arrivals.waits, expected.waits)
        assert connection.statistics().retries == expected.requests - 1
        assert_at_rest(connection)


@pytest.mark.parametrize("delivery", MODES)
@pytest.mark.parametrize("name", TABLE)
async def test_a_turn_that_fails_once_has_a_response_where_the_table_has_a_wait(
    server: ResponsesServer, name: str, delivery: DeliveryMode
) -> None:
    expected = TABLE[name].of(delivery)
    arrivals = Arrivals(server, TABLE[name].answer, forever=False)
    async with server.open_client() as connection:
        if expected.waits:
            assert await ask(connection, "hi", delivery=delivery) == heard("hi")
            assert_waits(arrivals.waits, expected.waits[:1])
        else:
            with pytest.raises(expected.error):
                await ask(connection, "hi", delivery=delivery)
            assert len(arrivals.times) == 1
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


# --- Options ---------------------------------------------------------------------------------


@pytest.mark.parametrize("max_retries", [0, 1, 5])
@pytest.mark.parametrize("of_turn", [False, True])
async def test_max_retries_of_the_turn_or_else_of_the_connection_counts(
    server: ResponsesServer, max_retries: int, *, of_turn: bool
) -> None:
    arrivals = Arrivals(server, limited(AGAIN), forever=True)
    options: dict[str, Any] = {"max_retries": 3 if of_turn else max_retries}
    params: dict[str, Any] = {"max_retries": max_retries} if of_turn else {}
    async with server.open_client(**options) as connection:
        with pytest.raises(RateLimitError):
            await ask(connection, "hi", **params)
    assert arrivals.waits == [2] * max_retries


@pytest.mark.parametrize(("limit", "requests"), [(1.9, 1), (2, 3)])
async def test_a_hint_over_max_retry_wait_is_raised_at_once(
    server: ResponsesServer, limit: float, requests: int
) -> None:
    arrivals = Arrivals(server, limited(AGAIN), forever=True)
    async with server.open_client(max_retry_wait=limit) as connection:
        with pytest.raises(RateLimitError) as failure:
            await ask(connection, "hi")
    assert failure.value.retry_after == 2
    assert len(arrivals.times) == requests


@pytest.mark.parametrize("value", [-1, 1.0, True, "2", None])
async def test_an_invalid_number_of_retries_is_refused(server: ResponsesServer, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_retries must be a whole number"):
        async with server.open_client(max_retries=value):
            pytest.fail("the block began")  # pragma: no cover
    with pytest.raises(ConfigurationError, match="max_retries must be a whole number"):
        async with open_pool(server.url, api_key="any", max_retries=value):
            pytest.fail("the block began")  # pragma: no cover
    if value is None:  # of a turn, `None` means the number of the connection
        return
    async with server.open_client() as connection, connection.conversation(model="m") as talk:
        with pytest.raises(ConfigurationError, match="max_retries"):
            connection.stream(model="m", input="hi", max_retries=value)
        with pytest.raises(ConfigurationError, match="max_retries"):
            talk.run_stream("hi", max_retries=value)
    assert server.requests == []


@pytest.mark.parametrize("value", [0, -1, float("nan"), True, "60", None])
async def test_an_invalid_wait_is_refused(server: ResponsesServer, value: Any) -> None:
    with pytest.raises(ConfigurationError, match="max_retry_wait must be positive seconds"):
        async with server.open_client(max_retry_wait=value):
            pytest.fail("the block began")  # pragma: no cover


# --- All ways to run a turn --------------------------------------------------------------------


async def create(connection: ResponsesConnection) -> str:
    return await ask(connection, "hi")


async def run_lane(connection: ResponsesConnection) -> str:
    async with connection.lane() as lane:
        return await ask(lane, "hi")


async def read_text(connection: ResponsesConnection) -> str:
    async with connection.stream(model="m", input="hi") as stream:
        return "".join([piece async for piece in stream.text_deltas()])


async def talk_once(connection: ResponsesConnection) -> str:
    async with connection.conversation(model="m", store=False) as talk:
        return (await talk.create("hi")).output_text


async def run(connection: ResponsesConnection) -> str:
    async with connection.conversation(model="m", store=False) as talk:
        return (await talk.run("hi")).output_text


async def parse(connection: ResponsesConnection) -> str:
    answer = await connection.parse(dict[str, int], model="m", input="hi")
    return str(answer.parsed)


async def warm_up(connection: ResponsesConnection) -> str:
    return (await connection.warm_up(model="m")).output_text


WAYS: Final[dict[str, tuple[Callable[..., Any], str]]] = {
    "create": (create, heard("hi")),
    "lane": (run_lane, heard("hi")),
    "text": (read_text, heard("hi")),
    "conversation": (talk_once, heard("hi")),
    "run": (run, heard("hi")),
    "parse": (parse, "{'degrees': 7}"),
    "warm-up": (warm_up, ""),
}


@pytest.mark.parametrize("way", WAYS)
async def test_every_way_to_run_a_turn_retries(server: ResponsesServer, way: str) -> None:
    run_turn, outcome = WAYS[way]
    failed = server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    if way == "warm-up":
        failed.for_warm_up()
    if way == "parse":
        server.reply('{"degrees":7}')
    async with server.open_client() as connection:
        assert await run_turn(connection) == outcome
        assert trio.current_time() == 2
        assert len(server.requests) == 2
        assert connection.statistics().retries == 1
        assert_at_rest(connection)


async def test_each_turn_of_a_run_has_its_own_retries(server: ResponsesServer) -> None:
    @function_tool
    async def get_weather(city: str) -> str:
        """Return the weather."""
        return f"sunny in {city}"

    for answer in Call("get_weather", {"city": "Oslo"}), Reply("It is sunny."):
        for _ in range(2):
            server.fail("rate_limit_exceeded", status=429, message=AGAIN)
        server.answer(answer)
    async with (
        server.open_client() as connection,
        connection.conversation(model="m", store=False, tools=[get_weather]) as talk,
        talk.run_stream("hi") as run,
    ):
        events = [event async for event in run]
        assert run.response.status == "completed"
        assert talk.statistics().items == 4
    assert sum(isinstance(event, TurnRestarted) for event in events) == 4
    assert not any(isinstance(event, ErrorEvent) for event in events)


# --- The events of a stream ------------------------------------------------------------------


async def test_a_stream_hides_the_error_and_yields_a_restart(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            restarted = await anext(stream)
            assert trio.current_time() == 0
            events = [event async for event in stream]
        assert isinstance(restarted, TurnRestarted)
        assert isinstance(restarted.error, RateLimitError)
        assert restarted.delay == 2
        assert types(events)[0] == "response.created"
        assert not {"error", TurnRestarted.type} & set(types(events))
        assert stream.snapshot.text == stream.response.output_text == heard("hi")
        assert trio.current_time() == 2


async def test_the_error_of_the_last_attempt_is_yielded_and_raised(
    server: ResponsesServer,
) -> None:
    Arrivals(server, limited(AGAIN), forever=True)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            kinds = [(await anext(stream)).type for _ in range(3)]
            with pytest.raises(RateLimitError) as failure:
                await anext(stream)
        assert kinds == [TurnRestarted.type, TurnRestarted.type, "error"]
        assert isinstance(failure.value.__context__, RateLimitError)
        with pytest.raises(RateLimitError):
            _ = stream.response


async def test_a_failed_response_that_is_repeated_is_not_yielded(server: ResponsesServer) -> None:
    server.reply("half", status="failed", error="rate_limit_exceeded")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi", delivery="at_least_once") as stream:
            events = [event async for event in stream]
        place = types(events).index(TurnRestarted.type)
        assert "response.failed" not in types(events)
        assert types(events)[place + 1] == "response.created"
        assert [one.status for one in stream.responses] == ["completed"]
        assert stream.snapshot.text == heard("hi")


async def test_a_failed_response_that_is_not_repeated_stays_a_response(
    server: ResponsesServer,
) -> None:
    server.reply("half", status="failed", error="rate_limit_exceeded")
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="hi") as stream:
            events = [event async for event in stream]
        assert types(events)[-1] == "response.failed"
        assert stream.response.status == "failed"


# --- Several causes ---------------------------------------------------------------------------


async def test_a_lost_socket_and_a_rate_limit_are_different_causes(
    server: ResponsesServer,
) -> None:
    server.drop(after_events=3)
    for _ in range(2):
        server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with server.open_client(reconnect=STEADY) as connection:
        assert await ask(connection, "hi", delivery="at_least_once") == heard("hi")
        assert len(server.requests) == 4
        assert connection.statistics().retries == 3


async def test_a_rejection_does_not_undo_an_attempt_that_may_have_run(
    server: ResponsesServer,
) -> None:
    server.fail("server_is_overloaded", status=503, after_events=3)
    for _ in range(2):
        server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with server.open_client() as connection:
        with pytest.raises(RateLimitError) as failure:
            await ask(connection, "hi", delivery="at_least_once")
        assert failure.value.delivery is ACCEPTED
        assert len(server.requests) == 3


async def test_after_a_retry_a_lost_request_is_not_sent_again_by_default(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    server.drop()
    async with server.open_client(reconnect=STEADY) as connection:
        with pytest.raises(ConnectionLost) as failure:
            await ask(connection, "hi")
        assert failure.value.delivery is AMBIGUOUS
        assert len(server.requests) == 2


@pytest.mark.parametrize("how", ["reset", "fin", 1011])
async def test_the_loss_of_the_socket_during_the_wait_does_not_end_the_turn(
    server: ResponsesServer, how: How
) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    server.drop(how=how)
    async with server.open_client(reconnect=STEADY) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(ask_patiently, connection)
        await trio.sleep(1)
        with pytest.raises(ConnectionLost):
            await ask(connection, "other")
        await trio.sleep(30)
        assert [request["input"] for request in server.requests] == ["hi", "other", "hi"]


async def ask_patiently(connection: ResponsesConnection) -> None:
    assert await ask(connection, "hi") == heard("hi")


# --- While a turn waits ----------------------------------------------------------------------


@pytest.mark.parametrize("lanes", [False, True])
async def test_a_waiting_turn_holds_no_place(*, lanes: bool) -> None:
    """Turns of others run meanwhile, also on the only lane and at the server's limit."""
    async with open_test_server(lanes=lanes) as server:
        server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
        async with server.open_client() as connection, trio.open_nursery() as nursery:
            nursery.start_soon(ask_patiently, connection)
            await wait_all_tasks_blocked()
            assert connection.statistics().requests_active == 0
            for _ in range(3):
                await ask_strictly(connection, "next")
            async with trio.open_nursery() as others:
                for number in range(16):
                    others.start_soon(ask_strictly, connection, str(number))
            assert trio.current_time() < 1
            nursery.cancel_scope.deadline = 21
        assert len(server.requests) == 21


async def test_a_reserved_lane_is_free_while_a_turn_waits() -> None:
    async with open_test_server(lanes=True) as server:
        server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
        async with (
            server.open_client() as connection,
            connection.lane() as lane,
            trio.open_nursery() as nursery,
        ):
            nursery.start_soon(ask, lane, "hi")
            await wait_all_tasks_blocked()
            await ask_strictly(lane, "next")
            assert trio.current_time() < 1
        assert [request["input"] for request in server.requests] == ["hi", "next", "hi"]


async def test_a_conversation_keeps_its_order_while_a_turn_waits(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with (
        server.open_client() as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.create, "one")
            await wait_all_tasks_blocked()
            nursery.start_soon(talk.create, "two")
            await trio.sleep(10)
            assert len(server.requests) == 1
        assert talk.statistics().items == 4
        assert_at_rest_but_lane(connection)


def assert_at_rest_but_lane(connection: ResponsesConnection) -> None:
    counted = connection.statistics()
    assert (counted.requests_active, counted.unread_bytes) == (0, 0)


async def test_the_rejected_turn_of_a_conversation_is_sent_with_the_same_history(
    server: ResponsesServer,
) -> None:
    async with (
        server.open_client() as connection,
        connection.conversation(model="m", store=False) as talk,
    ):
        await talk.create("one")
        server.fail("rate_limit_exceeded", status=429, message=AGAIN)
        response = await talk.create("two")
        assert response.output_text == 'Turn 2: you said "two".'
        assert talk.statistics().items == 4


async def test_a_cancellation_during_the_wait_leaves_nothing_sent(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with server.open_client() as connection:
        with trio.move_on_after(5) as scope:
            await ask(connection, "hi")
        assert scope.cancelled_caught
        assert trio.current_time() == 5
        await trio.sleep(60)
        assert len(server.requests) == 1
        assert connection.statistics().retries == 0
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_a_read_after_a_cancelled_wait_waits_for_the_rest(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        assert isinstance(await anext(stream), TurnRestarted)
        for _ in range(3):
            with trio.move_on_after(5) as scope:
                await anext(stream)
            assert scope.cancelled_caught
        response = await stream.get_final_response()
        assert response.output_text == heard("hi")
        assert trio.current_time() == 20


async def test_a_slow_reader_does_not_wait_twice(server: ResponsesServer) -> None:
    """The delay is counted from the error, not from the next read."""
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        assert isinstance(await anext(stream), TurnRestarted)
        await trio.sleep(30)
        await stream.get_final_response()
        assert trio.current_time() == 30


@pytest.mark.parametrize("iterates", [False, True])
async def test_the_block_may_be_left_during_the_wait(
    server: ResponsesServer, *, iterates: bool
) -> None:
    """A task that waits for the next event gets an error, and nothing is sent."""
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    raised: list[BaseException] = []

    async def read() -> None:
        try:
            await anext(stream)
        except RuntimeError as error:
            raised.append(error)

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        async with connection.stream(model="m", input="hi") as stream:
            assert isinstance(await anext(stream), TurnRestarted)
            if iterates:
                nursery.start_soon(read)
                await wait_all_tasks_blocked()
        await wait_all_tasks_blocked()
        assert len(raised) == iterates
        assert trio.current_time() == 0
        await trio.sleep(60)
        assert len(server.requests) == 1
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_the_block_may_be_left_while_the_retry_waits_for_its_lane(
    narrow_server: ResponsesServer,
) -> None:
    server = narrow_server
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    server.reply("slow", delay=10)

    async def read() -> None:
        with pytest.raises(RuntimeError, match="inside its async with block"):
            await anext(stream)

    async with server.open_client() as connection, trio.open_nursery() as nursery:
        async with connection.stream(model="m", input="hi") as stream:
            assert isinstance(await anext(stream), TurnRestarted)
            nursery.start_soon(read)
            nursery.start_soon(ask, connection, "slow")
            await trio.sleep(3)
        await trio.sleep(200)
        assert [request["input"] for request in server.requests] == ["hi", "slow"]
        await ask_strictly(connection, "next")
        assert_at_rest(connection)


async def test_a_deadline_of_the_caller_covers_the_waits(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with server.open_client() as connection:
        with pytest.raises(trio.TooSlowError), trio.fail_after(10):
            await ask(connection, "hi")
        assert trio.current_time() == 10


async def test_closing_the_connection_ends_the_wait_at_its_next_attempt(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await anext(stream)
        await connection.aclose()
        with pytest.raises(ConnectionClosed) as failure:
            await stream.get_final_response()
    assert isinstance(failure.value.__cause__, RateLimitError)
    assert trio.current_time() == 2
    assert len(server.requests) == 1


# --- Steering ---------------------------------------------------------------------------------


async def test_an_input_between_two_attempts_is_refused(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        await anext(stream)
        receipt = await stream.steer("In French, please.")
        assert receipt.state == "failed"
        response = await stream.get_final_response()
        assert response.output_text == heard("hi")


async def test_the_next_attempt_can_be_steered(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    server.reply("a b c d e f g", delay=1)
    async with (
        server.open_client() as connection,
        connection.stream(model="m", input="hi") as stream,
    ):
        assert isinstance(await anext(stream), TurnRestarted)
        assert (await anext(stream)).type == "response.created"
        async with trio.open_nursery() as nursery:
            nursery.start_soon(stream.get_final_response)
            receipt = await stream.steer("In French, please.")
        assert receipt.state == "committed"
        assert len(stream.responses) == 2


# --- Pools ------------------------------------------------------------------------------------


async def test_the_next_attempt_may_go_to_another_connection_of_a_pool(
    server: ResponsesServer,
) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    server.reply("slow", delay=30)
    async with open_pool(
        endpoint=Endpoint.compatible(server.url, after_error="reuse"),
        api_key="any",
        size=2,
        per_connection=1,
        dial=server.dial,
    ) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(ask, pool, "hi")
            await wait_all_tasks_blocked()
            nursery.start_soon(ask, pool, "slow")
            await trio.sleep(3)
            assert pool.statistics().retries == 1
            nursery.cancel_scope.cancel()
        assert [(request["input"], request.connection) for request in server.requests] == [
            ("hi", 1),
            ("slow", 1),
            ("hi", 2),
        ]


async def test_a_waiting_turn_holds_no_place_of_a_pool(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message="Please try again in 20s.")
    async with (
        open_pool(server.url, api_key="any", size=1, dial=server.dial) as pool,
        trio.open_nursery() as nursery,
    ):
        nursery.start_soon(ask, pool, "hi")
        await wait_all_tasks_blocked()
        await ask_strictly(pool, "next")
        assert trio.current_time() < 1
        await trio.sleep(21)
        assert [request["input"] for request in server.requests] == ["hi", "next", "hi"]


# --- Instruments ------------------------------------------------------------------------------


class Retries(Instrument):
    """An instrument that keeps the retries and the ends of turns."""

    def __init__(self) -> None:
        self.retries: list[tuple[int, int, float, str]] = []
        self.attempts: list[int] = []

    def turn_retrying(
        self, turn: TurnRecord, attempt: int, delay: float, error: ResponsesError
    ) -> None:
        self.retries.append((turn.attempts, attempt, delay, type(error).__name__))

    def turn_ended(self, turn: TurnRecord) -> None:
        self.attempts.append(turn.attempts)


async def test_instruments_are_notified_of_each_retry(server: ResponsesServer) -> None:
    server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    server.fail("rate_limit_exceeded", status=429, headers={"retry-after": 7})
    instrument = Retries()
    async with server.open_client(instruments=[instrument]) as connection:
        await ask(connection, "hi")
    name = RateLimitError.__name__
    assert instrument.retries == [(1, 2, 2, name), (2, 3, 7, name)]
    assert instrument.attempts == [3]


async def test_a_retry_is_logged_without_content(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "trio_responses")
    server.fail("rate_limit_exceeded", status=429, message=f"Private. {AGAIN}")
    async with server.open_client() as connection:
        await ask(connection, "private")
    (record,) = (one for one in caplog.records if "attempt 2" in one.getMessage())
    assert record.levelno == logging.WARNING
    assert record.getMessage().endswith(
        f": attempt 2 in 2.0 s, after {RateLimitError.__name__}, code rate_limit_exceeded"
    )
    assert vars(record)["seconds"] == 2
    assert "rivate" not in "".join(str(vars(one)) for one in caplog.records)


async def test_each_retry_is_logged_with_its_number(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    """A turn has no record before its first retry, unless the log is at DEBUG."""
    caplog.set_level(logging.INFO, "trio_responses")
    for _ in range(2):
        server.fail("rate_limit_exceeded", status=429, message=AGAIN)
    async with server.open_client() as connection:
        await ask(connection, "hi")
    retries = [one for one in caplog.records if "attempt" in vars(one) and "turn" in vars(one)]
    assert [vars(one)["attempt"] for one in retries] == [2, 3]
    assert len({vars(one)["turn"] for one in retries}) == 1
