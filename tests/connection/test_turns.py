"""P3: requests, warm-ups and parents of turns, and the sockets that turns retire."""

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConnectionLimitReached,
    ConnectionLost,
    ConnectionState,
    DeliveryStatus,
    Endpoint,
    ResponseFailedError,
    ResponsesConnection,
    UnexpectedOutput,
)
from trio_responses.testing import ResponsesServer

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

LIMIT = "websocket_connection_limit_reached"


async def well(connection: ResponsesConnection) -> None:
    """See that the connection serves a turn, with that turn's own events."""
    response = await connection.create(model="m", input="still there?")
    assert response.output_text == 'Turn 1: you said "still there?".'


# --- The ways to run a turn ----------------------------------------------------------------


async def test_create_sends_its_arguments_and_returns_the_response(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The fields go out as they were given."""
    server.reply("Hello!", usage={"input_tokens": 7})
    async with connect() as connection:
        response = await connection.create(
            model="gpt-test",
            input="hi",
            store=False,
            temperature=0.5,
            multi_agent={"enabled": True},
        )
    assert response.output_text == "Hello!"
    assert response.usage is not None
    assert response.usage.input_tokens == 7
    request = server.requests[0]
    assert request.body == {
        "type": "response.create",
        "model": "gpt-test",
        "input": "hi",
        "store": False,
        "temperature": 0.5,
        "multi_agent": {"enabled": True},
    }


async def test_an_argument_that_is_no_json_sends_nothing(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """A `TypeError`, and the next turn waits for nothing."""
    async with connect() as connection:
        with pytest.raises(TypeError):
            await connection.create(model="m", input="hi", extra_body={"a": object()})
        assert connection.statistics().requests_active == 0
        await well(connection)
    assert len(server.requests) == 1


# --- Leaving early -------------------------------------------------------------------------


# --- Warm-ups ------------------------------------------------------------------------------


async def test_a_warm_up_returns_its_response(server: ResponsesServer, connect: "Connect") -> None:
    """It may be the parent of the next turn."""
    async with connect() as connection:
        warm = await connection.warm_up(model="m", instructions="be brief")
        assert warm.status == "completed"
        assert warm.raw_output in ([], None)
        assert server.requests[0].body == {
            "type": "response.create",
            "model": "m",
            "input": [],
            "instructions": "be brief",
            "generate": False,
        }
        await connection.create(model="m", input="hi", previous_response_id=warm.id)


async def test_a_turn_right_after_a_warm_up_waits_for_its_end(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P3, P5: without lanes, a warm-up that is under way is not overtaken."""
    server.reply().for_warm_up().stall(after_events=1, seconds=5)
    async with connect() as connection, trio.open_nursery() as nursery:
        ids: list[str] = []

        async def warm_up() -> None:
            ids.append((await connection.warm_up(model="m")).id)

        nursery.start_soon(warm_up)
        await wait_all_tasks_blocked()
        response = await connection.create(model="m", input="hi")
        assert trio.current_time() == 5
        assert len(ids) == 1
        assert connection.previous_response_id == response.id != ids[0]


async def test_a_warm_up_with_output_raises(server: ResponsesServer, connect: "Connect") -> None:
    """The endpoint bills output that the caller did not ask for."""
    server.reply("unasked").for_warm_up()
    async with connect() as connection:
        with pytest.raises(UnexpectedOutput) as failure:
            await connection.warm_up(model="m")
        assert failure.value.response.output_text == "unasked"
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        await well(connection)


async def test_a_refused_warm_up_is_an_api_error(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: with delivery ``rejected``."""
    server.fail("unsupported_parameter", status=400, param="generate").for_warm_up()
    async with connect() as connection:
        with pytest.raises(APIError) as failure:
            await connection.warm_up(model="m")
        assert failure.value.param == "generate"
        assert failure.value.delivery is DeliveryStatus.REJECTED


# --- The parent ----------------------------------------------------------------------------


async def test_the_parent_belongs_to_its_socket(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """It is None at first, the last completed response then, and None on the next socket."""
    async with connect() as connection:
        assert connection.previous_response_id is None
        first = await connection.create(model="m", input="one")
        assert connection.previous_response_id == first.id
        second = await connection.create(model="m", input="two", previous_response_id=first.id)
        assert second.output_text == 'Turn 2: you said "two".'
        assert connection.previous_response_id == second.id
        await server.reset_all()
        await wait_all_tasks_blocked()
        assert connection.previous_response_id is None
        await connection.wait_open()
        assert connection.previous_response_id is None


@pytest.mark.parametrize("status", ["failed", "incomplete"])
async def test_only_a_completed_response_is_a_parent(
    server: ResponsesServer, connect: "Connect", status: Any
) -> None:
    """A failed or incomplete one leaves the parent as it was."""
    async with connect() as connection:
        first = await connection.create(model="m", input="one")
        server.reply("no", status=status)
        try:
            await connection.create(model="m", input="two")
        except ResponseFailedError:
            assert status == "failed"
        assert connection.previous_response_id == first.id


async def test_an_error_evicts_the_parent_that_the_request_named(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """As in the server's own cache."""
    endpoint = Endpoint.compatible(server.url, after_error="reuse")
    async with connect(endpoint=endpoint) as connection:
        first = await connection.create(model="m", input="one")
        server.fail(status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="unrelated")
        assert connection.previous_response_id == first.id
        server.fail(status=400)
        with pytest.raises(APIError):
            await connection.create(model="m", input="two", previous_response_id=first.id)
        assert connection.previous_response_id is None


# --- Bad ends ------------------------------------------------------------------------------


# --- What an error does to the socket ------------------------------------------------------


async def test_a_replaced_socket_finishes_its_other_turns(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """The error of one turn does not end another."""
    endpoint = Endpoint.compatible(server.url, lanes=True, after_error="replace")
    texts: list[str] = []

    async def ask(connection: ResponsesConnection) -> None:
        response = await connection.create(model="m", input="slow")
        texts.append(response.output_text)

    server.reply("a b c d", delay=5.0)
    server.fail("server_error", status=500)
    async with connect(endpoint=endpoint) as connection, trio.open_nursery() as nursery:
        nursery.start_soon(ask, connection)
        await wait_all_tasks_blocked()
        with pytest.raises(APIError):
            await connection.create(model="m", input="fails")
        await well(connection)
        assert trio.current_time() == 0
        assert connection.state is ConnectionState.OPEN
    assert texts == ["a b c d"]
    assert server.statistics().handshakes == 2
    assert server.connections[0].close_code == 1000


def limit_frame() -> dict[str, Any]:
    return {"type": "error", "status": 400, "error": {"code": LIMIT, "message": "60 minutes"}}


async def test_the_age_limit_is_the_cause_of_the_loss_that_follows_it(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """P4: the turn had begun, so it is not sent again."""
    server.reply("one two three").inject(limit_frame(), after_events=4).drop(
        after_events=5, how=1000
    )
    async with connect() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is DeliveryStatus.ACCEPTED
        assert isinstance(failure.value.__cause__, ConnectionLimitReached)
        await well(connection)
