"""Responses that the server stores: who can continue them, and when they are evicted."""

import pytest
import trio

from tests.testing.driver import NO_WAITING, Json, connect, text_of
from trio_responses.testing import Reply, ResponsesServer

pytestmark = NO_WAITING


def assert_not_found(frame: Json, response_id: str) -> None:
    assert frame["type"] == "error"
    assert frame["status"] == 400
    assert frame["error"] == {
        "type": "invalid_request_error",
        "code": "previous_response_not_found",
        "message": f"Previous response with id '{response_id}' not found.",
        "param": "previous_response_id",
    }


async def test_an_unknown_id_is_not_found(server: ResponsesServer) -> None:
    async with connect(server) as client:
        frame = await client.error(input="hi", previous_response_id="resp_nowhere")
        assert_not_found(frame, "resp_nowhere")
        assert "stream_id" not in frame
        await client.response(input="the socket stays open")


@pytest.mark.parametrize(
    ("kind", "status", "is_stored"),
    [
        ("completed", "completed", True),
        ("done", None, True),
        ("incomplete", "incomplete", True),
        ("completed", "failed", False),
        ("failed", "failed", False),
        ("done", "cancelled", False),
    ],
)
async def test_raw_frames_are_stored_if_they_end_well(
    server: ResponsesServer, kind: str, status: str | None, *, is_stored: bool
) -> None:
    """Values that are no items, and late events of another response, are not in its output."""
    call: Json = {"type": "function_call", "id": "fc_1", "call_id": "call_1", "name": "f"}
    response: Json = {"id": "resp_raw", "status": status, "output": [None, 5]}
    server.answer([
        {"type": "response.output_item.done", "item": {**call, "call_id": "late"}},
        {"type": "response.created", "response": {"id": "resp_raw", "output": []}},
        {"type": "response.output_item.added", "item": {**call, "arguments": "{}"}},
        {"type": f"response.{kind}", "response": response},
    ])  # fmt: skip
    output: Json = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    given = [output] if kind != "incomplete" else "on"
    async with connect(server) as client:
        await client.send(input="hi")
        await client.until(kind)
        if is_stored:
            await client.response(input=given, previous_response_id="resp_raw")
        else:
            frame = await client.error(input=given, previous_response_id="resp_raw")
            assert_not_found(frame, "resp_raw")


async def test_a_call_before_a_compaction_can_still_be_answered(server: ResponsesServer) -> None:
    call: Json = {"type": "function_call", "call_id": "call_1", "name": "f", "arguments": "{}"}
    compaction: Json = {"type": "compaction", "encrypted_content": "c"}
    response: Json = {"id": "resp_raw", "status": "completed", "output": [call, compaction]}
    server.answer([{"type": "response.completed", "response": response}])
    output = {"type": "function_call_output", "call_id": "call_1", "output": "x"}
    async with connect(server) as client:
        await client.send(input="hi")
        await client.until("completed")
        await client.response(input=[output], previous_response_id="resp_raw")


async def test_a_stored_response_is_found_from_every_connection(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="one")
        await client.response(input="something else")
        await client.response(input="two", previous_response_id=first["id"])
    async with connect(server) as other:
        await other.response(input="two", stream_id="x", previous_response_id=first["id"])
    assert server.requests[-1].turn == 2


async def test_an_unstored_response_is_lost_with_its_connection(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="one", store=False)
    async with connect(server) as other:
        frame = await other.error(input="two", previous_response_id=first["id"], store=False)
    assert_not_found(frame, first["id"])


async def test_a_lane_caches_only_its_latest_response(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="one", store=False)
        second = await client.response(input="two", previous_response_id=first["id"], store=False)
        frame = await client.error(input="x", previous_response_id=first["id"], store=False)
        assert_not_found(frame, first["id"])
        await client.response(input="three", previous_response_id=second["id"], store=False)
    assert server.requests[-1].turn == 3


async def test_every_lane_has_its_own_cache(server: ResponsesServer) -> None:
    async with connect(server) as client:
        main = await client.response(input="one", store=False)
        side = await client.response(input="uno", store=False, stream_id="side")
        await client.response(input="two", store=False, previous_response_id=main["id"])
        await client.response(
            input="dos", store=False, previous_response_id=side["id"], stream_id="side"
        )
    assert [request.turn for request in server.requests] == [1, 1, 2, 2]


async def test_a_request_without_a_parent_starts_a_new_chain_on_a_used_lane(
    server: ResponsesServer,
) -> None:
    async with connect(server) as client:
        await client.response(input="one", stream_id="a")
        await client.response(input="two", stream_id="a", previous_response_id=None)
    assert server.requests[-1].turn == 1


async def test_another_lane_can_fork_a_cached_response(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        fork = await client.response(
            input="two", store=False, stream_id="fork", previous_response_id=parent["id"]
        )
        again = await client.response(input="2", store=False, previous_response_id=parent["id"])
        gone = await client.error(
            input="x", store=False, stream_id="late", previous_response_id=parent["id"]
        )
    assert text_of(fork).startswith("Turn 2")
    assert text_of(again).startswith("Turn 2")
    assert_not_found(gone, parent["id"])
    assert gone["stream_id"] == "late"


async def test_a_failed_continuation_evicts_its_parent(server: ResponsesServer) -> None:
    async with connect(server) as client:
        for status, after_events in ((500, 2), (400, 0)):
            parent = await client.response(input="one", store=False)
            server.fail(status=status, after_events=after_events)
            await client.error(input="two", store=False, previous_response_id=parent["id"])
            frame = await client.error(input="2", store=False, previous_response_id=parent["id"])
            assert_not_found(frame, parent["id"])


async def test_a_response_that_fails_evicts_its_parent(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        server.reply("x", status="failed")
        await client.turn(input="two", store=False, previous_response_id=parent["id"])
        frame = await client.error(input="2", store=False, previous_response_id=parent["id"])
    assert_not_found(frame, parent["id"])


async def test_a_refused_continuation_evicts_its_parent_too(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        await client.error(input=5, store=False, previous_response_id=parent["id"])
        frame = await client.error(input="2", store=False, previous_response_id=parent["id"])
    assert_not_found(frame, parent["id"])


async def test_a_stored_parent_survives_a_failed_continuation(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one")
        server.fail()
        await client.error(input="two", previous_response_id=parent["id"])
        await client.response(input="two", previous_response_id=parent["id"])


async def test_a_failure_without_a_parent_evicts_nothing(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        server.fail()
        await client.error(input="new chain", store=False)
        await client.response(input="two", store=False, previous_response_id=parent["id"])


async def test_a_failed_fork_keeps_the_parent(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        server.fail()
        await client.error(
            input="two", store=False, previous_response_id=parent["id"], stream_id="fork"
        )
        await client.response(input="two", store=False, previous_response_id=parent["id"])


async def test_a_started_fork_does_not_need_its_parent(
    server: ResponsesServer,
) -> None:
    gate = trio.Event()
    async with connect(server) as client:
        parent = await client.response(input="one", store=False)
        server.reply("forked").on_lane("fork").hold(gate)
        await client.send(
            input="two", store=False, previous_response_id=parent["id"], stream_id="fork"
        )
        assert (await client.receive())["type"] == "response.created"
        assert (await client.receive())["type"] == "response.in_progress"
        server.respond_with(lambda _: Reply("on the main lane", events="terminal"))
        await client.send(input="2", store=False, previous_response_id=parent["id"])
        while (await client.receive())["type"] != "response.completed":
            pass
        gate.set()
        assert text_of((await client.events())[-1]["response"]) == "forked"


async def test_a_conversation_and_a_parent_exclude_each_other(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = await client.response(input="one")
        frame = await client.error(
            input="x", previous_response_id=parent["id"], conversation="conv_1"
        )
        await client.response(input="x", conversation="conv_1")
    assert frame["error"]["code"] == "mutually_exclusive_parameters"


async def test_a_response_that_is_cut_off_is_not_stored(server: ResponsesServer) -> None:
    server.reply("a b c").drop(after_events=-1)
    async with connect(server) as client:
        await client.send(input="one")
        created = await client.receive()
        assert await client.close_code() == 1006
    async with connect(server) as client:
        response_id = created["response"]["id"]
        assert_not_found(
            await client.error(input="x", previous_response_id=response_id), response_id
        )


async def test_forget_removes_one_response(server: ResponsesServer) -> None:
    async with connect(server) as client:
        for store in (True, False):
            kept = await client.response(input="one", store=store, stream_id="kept")
            parent = await client.response(input="one", store=store)
            server.forget(parent["id"])
            frame = await client.error(input="x", previous_response_id=parent["id"])
            assert_not_found(frame, parent["id"])
            await client.response(input="x", previous_response_id=kept["id"], stream_id="kept")


async def test_forget_all_removes_every_response(server: ResponsesServer) -> None:
    async with connect(server) as one, connect(server) as two:
        parents = [
            (one, (await one.response(input="one"))["id"]),
            (one, (await one.response(input="one", store=False, stream_id="a"))["id"]),
            (two, (await two.response(input="one", store=False))["id"]),
        ]
        server.forget_all()
        for client, parent in parents:
            assert_not_found(await client.error(input="x", previous_response_id=parent), parent)
        again = await one.response(input="one", store=False)
        await one.response(input="two", previous_response_id=again["id"])


async def test_an_older_response_of_a_lane_is_found_only_if_it_was_stored(
    server: ResponsesServer,
) -> None:
    async with connect(server) as client:
        stored = await client.response(input="one", stream_id="a")
        unstored = await client.response(input="one", store=False, stream_id="a")
        await client.response(input="later", store=False, stream_id="a")
        await client.response(input="x", previous_response_id=stored["id"], stream_id="b")
        frame = await client.error(input="x", previous_response_id=unstored["id"], stream_id="b")
    assert_not_found(frame, unstored["id"])
