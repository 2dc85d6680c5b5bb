"""The calls besides creation: retrieve, delete, cancel, input items, compact, input tokens."""

import msgspec
import pytest
import trio
import trio.testing

from tests.testing.driver import NO_WAITING, Json, connect
from tests.testing.http_driver import RESPONSES, HTTPClient, http_client
from trio_responses.testing import ResponsesServer, open_test_server

pytestmark = NO_WAITING


def user(text: str) -> Json:
    return {"role": "user", "content": text}


# Retrieve and delete


@pytest.mark.parametrize("transport", ["http", "websocket"])
async def test_a_stored_response_is_retrieved_as_it_was_sent(
    server: ResponsesServer, transport: str
) -> None:
    async with http_client(server) as client, connect(server) as other:
        sent = await (client.create if transport == "http" else other.response)(input="hi")
        kept = await client.get(f"/{sent['id']}?include[]=reasoning.encrypted_content")
    assert kept.json == sent
    assert server.http_requests[-1].query == {"include": ["reasoning.encrypted_content"]}


async def test_a_response_that_is_not_stored_is_not_found(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        sent = await client.create(input="hi", store=False)
        for path in (f"/{sent['id']}", f"/{sent['id']}/input_items", "/resp_unknown", "/a%2Fb"):
            answer = await client.get(path)
            assert answer.status == 404
            assert answer.error["message"].endswith("not found.")
            assert answer.error["type"] == "invalid_request_error"


async def test_a_deleted_response_can_neither_be_retrieved_nor_continued(
    server: ResponsesServer,
) -> None:
    async with http_client(server) as client:
        sent = await client.create(input="hi")
        path = f"{RESPONSES}/{sent['id']}"
        deleted = await client.call("DELETE", path)
        assert deleted.json == {"id": sent["id"], "object": "response", "deleted": True}
        assert (await client.call("GET", path)).status == 404
        assert (await client.call("DELETE", path)).status == 404
        more = await client.post(input="more", previous_response_id=sent["id"])
        assert more.error["code"] == "previous_response_not_found"


async def test_a_forgotten_response_cannot_be_retrieved(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        sent = [(await client.create(input="hi"))["id"] for _ in range(2)]
        server.forget(sent[0])
        assert (await client.get(f"/{sent[0]}")).status == 404
        assert (await client.get(f"/{sent[1]}")).status == 200
        server.forget_all()
        assert (await client.get(f"/{sent[1]}")).status == 404


async def test_the_latest_responses_are_kept_for_retrieval() -> None:
    async with open_test_server(max_remembered=2) as server, http_client(server) as client:
        sent = [(await client.create(input="hi"))["id"] for _ in range(3)]
        statuses = [(await client.get(f"/{each}")).status for each in sent]
    assert statuses == [404, 200, 200]


# Streams that are retrieved


async def test_only_a_streamed_background_response_is_streamed_again(
    server: ResponsesServer,
) -> None:
    async with http_client(server) as client:
        foreground = (await client.stream_events(input="hi"))[-1]["response"]
        background = await client.create(input="hi", background=True)
        for sent in (foreground, background):
            answer = await client.get(f"/{sent['id']}?stream=true")
            assert (answer.status, answer.error["param"]) == (400, "stream")


async def test_a_response_is_followed_while_it_runs(server: ResponsesServer) -> None:
    server.reply("one two").stall(after_events=5, seconds=100)
    async with http_client(server) as client, http_client(server) as other:
        await client.start(input="hi", background=True, stream=True)
        await trio.sleep(1)
        await other.send("GET", f"{RESPONSES}/{server.last_request.response_id}?stream=true")
        answer = await other.head()
        while len(answer.events) < 5:
            await other.piece(answer)
        assert trio.current_time() < 50
        while await other.piece(answer):
            pass
        first = await client.answer()
    assert first.events == answer.events


@pytest.mark.parametrize("after", ["x", "1.5"])
async def test_an_invalid_starting_after_is_refused(server: ResponsesServer, after: str) -> None:
    async with http_client(server) as client:
        sent = await client.stream_events(input="hi", background=True)
        path = f"/{sent[0]['response']['id']}?stream=true&starting_after={after}"
        answer = await client.get(path)
    assert (answer.status, answer.error["param"]) == (400, "starting_after")


# Cancel


async def test_a_cancelled_background_response_stops(server: ResponsesServer) -> None:
    server.reply("one two").stall(after_events=4)
    async with http_client(server) as client, http_client(server) as other:
        await client.start(input="hi", background=True, stream=True)
        await trio.sleep(1)
        path = f"{RESPONSES}/{server.last_request.response_id}"
        cancelled = await other.call("POST", f"{path}/cancel")
        assert (cancelled.status, cancelled.json["status"]) == (200, "cancelled")
        answer = await client.answer()
        assert len(answer.events) == 4
        again = await other.call("POST", f"{path}/cancel")
        assert again.json == cancelled.json == (await other.call("GET", path)).json
    assert server.statistics().active == 0


async def test_a_finished_background_response_stays_completed(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        queued = await client.create(input="hi", background=True)
        await trio.testing.wait_all_tasks_blocked()
        answer = await client.call("POST", f"{RESPONSES}/{queued['id']}/cancel")
    assert answer.json["status"] == "completed"


async def test_a_response_in_the_foreground_cannot_be_cancelled(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        sent = await client.create(input="hi")
        answer = await client.call("POST", f"{RESPONSES}/{sent['id']}/cancel")
        assert answer.status == 400
        assert answer.error["message"] == "Cannot cancel a synchronous response."
        assert (await client.call("POST", f"{RESPONSES}/resp_x/cancel")).status == 404


async def test_a_deleted_background_response_stops(server: ResponsesServer) -> None:
    server.reply("one two").stall(after_events=4)
    async with http_client(server) as client:
        queued = await client.create(input="hi", background=True)
        await client.call("DELETE", f"{RESPONSES}/{queued['id']}")
        await trio.testing.wait_all_tasks_blocked()
        assert server.statistics().active == 0
        assert (await client.get(f"/{queued['id']}")).status == 404


# Input items


async def list_of(client: HTTPClient, response_id: str, query: str = "") -> Json:
    answer = await client.get(f"/{response_id}/input_items{query}")
    assert answer.status == 200, answer
    return answer.json


async def test_input_items_are_listed_newest_first(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        first = await client.create(input="one")
        second = await client.create(input=[user("two")], previous_response_id=first["id"])
        page = await list_of(client, second["id"])
        again = await list_of(client, second["id"])
    assert page == again
    assert page["object"] == "list"
    assert page["has_more"] is False
    assert [item["role"] for item in page["data"]] == ["user", "assistant", "user"]
    assert page["data"][0]["content"] == [{"type": "input_text", "text": "two"}]
    assert page["data"][1]["id"] == first["output"][0]["id"]
    assert (page["first_id"], page["last_id"]) == (page["data"][0]["id"], page["data"][-1]["id"])


async def test_pages_together_list_every_item_once(server: ResponsesServer) -> None:
    items = [user(f"line {number % 3}") for number in range(25)]
    async with http_client(server) as client:
        sent = await client.create(input=items)
        for order, expected in (("asc", items), ("desc", items[::-1])):
            seen: list[Json] = []
            query = f"?order={order}&limit=10"
            while True:
                page = await list_of(client, sent["id"], query)
                seen += page["data"]
                if not page["has_more"]:
                    break
                query = f"?order={order}&limit=10&after={page['last_id']}"
            texts = [item["content"][0]["text"] for item in seen]
            assert texts == [item["content"] for item in expected]
            assert len({item["id"] for item in seen}) == 25
        default = await list_of(client, sent["id"])
    assert len(default["data"]) == 20


async def test_a_response_without_input_has_an_empty_page(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        sent = await client.create(prompt={"id": "pmpt_1"})
        page = await list_of(client, sent["id"])
    assert page == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


@pytest.mark.parametrize(
    ("query", "status", "param"),
    [
        ("order=up", 400, "order"),
        ("limit=0", 400, "limit"),
        ("limit=101", 400, "limit"),
        ("limit=many", 400, "limit"),
        ("after=msg_unknown", 404, "after"),
    ],
)
async def test_an_invalid_query_of_a_page_is_refused(
    server: ResponsesServer, query: str, status: int, param: str
) -> None:
    async with http_client(server) as client:
        sent = await client.create(input="hi")
        answer = await client.get(f"/{sent['id']}/input_items?{query}")
    assert (answer.status, answer.error["param"]) == (status, param)


# Compact and input tokens


async def test_a_compacted_conversation_goes_on(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        first = await client.create(input="one")
        body = {"model": "m", "input": [user("two")], "previous_response_id": first["id"]}
        compacted = (await client.call("POST", f"{RESPONSES}/compact", body)).json
        assert compacted["object"] == "response.compaction"
        assert compacted["usage"]["input_tokens"] > 0
        *users, compaction = compacted["output"]
        assert [item["content"][0]["text"] for item in users] == ["one", "two"]
        assert compaction["type"] == "compaction"
        more = await client.create(input=[*compacted["output"], user("three")])
        assert more["status"] == "completed"
    assert server.last_request.turn == 3


async def test_input_tokens_are_those_of_the_usage(server: ResponsesServer) -> None:
    async with http_client(server) as client:
        first = await client.create(input="one two")
        request = {
            "input": "three four five",
            "instructions": "Be brief.",
            "previous_response_id": first["id"],
        }
        answer = await client.call(
            "POST", f"{RESPONSES}/input_tokens", {"model": "gpt-test", **request}
        )
        sent = await client.create(**request)
    assert answer.json == {
        "object": "response.input_tokens",
        "input_tokens": sent["usage"]["input_tokens"],
    }
    assert len(server.requests) == 2


@pytest.mark.parametrize("call", ["compact", "input_tokens"])
@pytest.mark.parametrize(
    ("body", "code"),
    [
        ({"model": "m", "foo": 1}, "unknown_parameter"),
        ({"model": "m", "input": 5}, "invalid_type"),
        ({"model": "m", "input": [{"rol": "user"}]}, "invalid_value"),
        ({"model": "m", "input": "x", "previous_response_id": "resp_x"}, None),
        ([], "invalid_request_error"),
    ],
)
async def test_an_invalid_body_of_a_call_is_refused(
    server: ResponsesServer, call: str, body: object, code: str | None
) -> None:
    async with http_client(server) as client:
        await client.send("POST", f"{RESPONSES}/{call}", msgspec.json.encode(body))
        answer = await client.answer()
    assert answer.status == 400
    assert answer.error["code"] == (code or "previous_response_not_found")
