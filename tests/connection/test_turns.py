"""P3: a turn from the request to its one end."""

from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from trio_responses import (
    APIError,
    ConnectionLimitReached,
    ConnectionLost,
    ConnectionState,
    Delivery,
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


async def test_create_gives_the_response(server: ResponsesServer, connect: "Connect") -> None:
    """Design 2: and sends what it was given, known fields and others."""
    server.reply("Hello!", usage={"input_tokens": 7})
    async with connect() as connection:
        response = await connection.create(
            model="gpt-test", input="hi", store=False, temperature=0.5, multi_agent={"a": 1}
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
        "multi_agent": {"a": 1},
    }


async def test_a_field_that_is_no_json_is_the_users_mistake(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 6: nothing was sent, and nothing is left in the way."""
    async with connect() as connection:
        with pytest.raises(TypeError):
            await connection.create(model="m", input="hi", extra_field=object())
        assert connection.statistics().requests_active == 0
        await well(connection)
    assert len(server.requests) == 1


# --- Leaving early -------------------------------------------------------------------------


# --- Warm-ups ------------------------------------------------------------------------------


async def test_a_warm_up_gives_its_response(server: ResponsesServer, connect: "Connect") -> None:
    """D23, row 22: it waits for its own end, and may be a parent."""
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


async def test_a_warm_up_with_output_is_told(server: ResponsesServer, connect: "Connect") -> None:
    """Row 22: the endpoint bills what was not asked for."""
    server.reply("unasked").for_warm_up()
    async with connect() as connection:
        with pytest.raises(UnexpectedOutput) as failure:
            await connection.warm_up(model="m")
        assert failure.value.response.output_text == "unasked"
        assert failure.value.delivery is Delivery.ACCEPTED
        await well(connection)


async def test_a_refused_warm_up_is_an_api_error(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 22."""
    server.fail("unsupported_parameter", status=400, param="generate").for_warm_up()
    async with connect() as connection:
        with pytest.raises(APIError) as failure:
            await connection.warm_up(model="m")
        assert failure.value.param == "generate"
        assert failure.value.delivery is Delivery.REJECTED


# --- The parent ----------------------------------------------------------------------------


async def test_the_parent_is_that_of_the_socket(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """D7, row 16: None at first, set by what completes, None on the next socket."""
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
    """D7, row 16."""
    async with connect() as connection:
        first = await connection.create(model="m", input="one")
        server.reply("no", status=status)
        try:
            await connection.create(model="m", input="two")
        except ResponseFailedError:
            assert status == "failed"
        assert connection.previous_response_id == first.id


async def test_an_error_evicts_the_parent(server: ResponsesServer, connect: "Connect") -> None:
    """D7: as the server's own cache does; and only where the request named it."""
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
    """Row 12: one turn's error is not another's."""
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


async def test_an_age_limit_and_a_close_after_the_start_are_a_loss_with_its_reason(
    server: ResponsesServer, connect: "Connect"
) -> None:
    """Row 10 and 23: the limit is the cause of the loss."""
    server.reply("one two three").inject(limit_frame(), after_events=4).drop(
        after_events=5, how=1000
    )
    async with connect() as connection:
        with pytest.raises(ConnectionLost) as failure:
            await connection.create(model="m", input="hi")
        assert failure.value.delivery is Delivery.ACCEPTED
        assert isinstance(failure.value.__cause__, ConnectionLimitReached)
        await well(connection)
