"""The memory of the test server: the number of records and stored responses is limited."""

import gc
from typing import Any

import pytest

from tests.testing.driver import NO_WAITING, connect, http
from trio_responses.testing import Request, ResponsesServer, open_test_server

pytestmark = NO_WAITING

UPGRADE_TO_AN_UNKNOWN_PATH = b"GET /nowhere HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\n\r\n"


async def send_many(server: ResponsesServer, count: int, **fields: Any) -> None:
    async with connect(server) as client:
        for number in range(count):
            await client.response(input=f"request {number}", **fields)


async def test_the_latest_requests_are_kept_and_all_are_counted() -> None:
    async with open_test_server(max_remembered=3) as server:
        await send_many(server, 5)
        assert len(server.requests) == 5
        assert server.statistics().requests == 5
        assert server.last_request["input"] == "request 4"
        assert server.requests[2]["input"] == server.requests[-3]["input"] == "request 2"
        assert [request["input"] for request in server.requests[-2:]] == ["request 3", "request 4"]


async def test_a_dropped_request_raises_an_error_that_names_the_option() -> None:
    async with open_test_server(max_remembered=3) as server:
        await send_many(server, 5)
        message = (
            r"server\.requests\[1\] was dropped: the server keeps the latest 3 of 5; pass"
            r" open_test_server\(max_remembered=\.\.\.\) to keep more, or take the latest ones,"
            r" such as server\.requests\[-3:\]"
        )
        with pytest.raises(IndexError, match=message):
            server.requests[1]
        with pytest.raises(IndexError, match=message):
            server.requests[-4]
        with pytest.raises(IndexError, match=r"server\.requests\[0\] was dropped"):
            list(server.requests)
        with pytest.raises(IndexError, match="out of range"):
            server.requests[5]
        server.requests.clear()
        assert server.requests == []


async def test_all_requests_are_kept_without_a_limit() -> None:
    async with open_test_server(max_remembered=None) as server:
        await send_many(server, 5)
        assert [request["input"] for request in server.requests] == [
            f"request {number}" for number in range(5)
        ]


async def test_dropped_connections_and_steering_inputs_are_counted() -> None:
    async with open_test_server(max_remembered=2) as server:
        for _ in range(3):
            await http(await server.connect_stream(), UPGRADE_TO_AN_UNKNOWN_PATH)
        async with connect(server) as client:
            for number in range(4):
                await client.steer("resp_unknown", str(number))
                await client.receive()
        statistics = server.statistics()
        assert (statistics.handshakes, statistics.refused) == (4, 3)
        assert server.connections[-1].number == 4
        assert [steer.input for steer in server.steers[-2:]] == ["2", "3"]
        with pytest.raises(IndexError, match=r"server\.steers\[0\] was dropped"):
            server.steers[0]
        with pytest.raises(IndexError, match=r"server\.connections\[0\] was dropped"):
            server.connections[0]


async def test_a_dropped_response_cannot_be_continued_and_the_error_says_why() -> None:
    async with open_test_server(max_remembered=2) as server, connect(server) as client:
        first = await client.response(input="one")
        await client.response(input="two", previous_response_id=first["id"])
        await client.response(input="three")
        refused = await client.error(input="more", previous_response_id=first["id"])
        assert refused["error"]["code"] == "previous_response_not_found"
        assert refused["error"]["message"] == (
            f"Previous response with id '{first['id']}' not found. The test server may have dropped"
            " it to save memory, see its option max_remembered."
        )


async def test_no_request_is_kept_beyond_the_limit() -> None:
    gc.collect()
    before = sum(isinstance(each, Request) for each in gc.get_objects())
    async with open_test_server(max_remembered=10) as server:
        parent: dict[str, Any] = {}
        async with connect(server) as client:
            for number in range(200):
                response = await client.response(input=f"request {number}", **parent)
                parent = {"previous_response_id": response["id"]}
            gc.collect()
            kept = sum(isinstance(each, Request) for each in gc.get_objects()) - before
        assert kept <= 120
        assert server.last_request.turn == 200
        assert len(server.last_request.history) == 399


@pytest.mark.parametrize("limit", [0, -1])
async def test_a_limit_below_one_is_refused(limit: int) -> None:
    with pytest.raises(ValueError, match="max_remembered must be 1 or more"):
        async with open_test_server(max_remembered=limit):
            pass
