"""Compaction of a history: when the server compacts, and what the history is afterwards."""

from typing import Any

import pytest

from tests.testing.driver import NO_WAITING, connect, text_of
from trio_responses.testing import ResponsesServer, open_test_server

pytestmark = NO_WAITING


def after(words: object) -> list[dict[str, Any]]:
    return [{"type": "compaction", "compact_threshold": words}]


async def test_a_long_history_is_compacted_before_the_text(server: ResponsesServer) -> None:
    async with connect(server) as client:
        await client.send(input="one two three four", context_management=after(3), stream_id="a")
        events = await client.events()
    assert [event["type"].removeprefix("response.") for event in events[:6]] == [
        "created",
        "in_progress",
        "output_item.added",
        "compaction.compacting",
        "output_item.done",
        "output_item.added",
    ]
    item, message = events[-1]["response"]["output"]
    assert item == events[2]["item"] == events[4]["item"]
    assert set(item) == {"id", "type", "encrypted_content"}
    assert item["type"] == "compaction"
    assert "four" not in item["encrypted_content"]
    assert events[3]["item_id"] == item["id"]
    assert [event["output_index"] for event in events[2:6]] == [0, 0, 0, 1]
    assert [event["sequence_number"] for event in events] == list(range(len(events)))
    assert {event["stream_id"] for event in events} == {"a"}
    assert message["type"] == "message"


@pytest.mark.parametrize("rules", [None, [], after(4), after(None), [{"type": "compaction"}]])
async def test_a_history_within_the_threshold_is_not_compacted(
    server: ResponsesServer, rules: list[dict[str, Any]] | None
) -> None:
    async with connect(server) as client:
        response = await client.response(input="one two three four", context_management=rules)
    assert [item["type"] for item in response["output"]] == ["message"]


async def test_the_chain_continues_from_the_compaction(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="one two three")
        second = await client.response(
            input="four five", previous_response_id=first["id"], context_management=after(6)
        )
        third = await client.response(
            input="six", previous_response_id=second["id"], context_management=after(1000)
        )
    assert [item["type"] for item in second["output"]] == ["compaction", "message"]
    assert server.requests[1].turn == 2
    history = server.requests[2].history
    assert history[:2] == second["output"]
    assert [item.get("role") for item in history] == [None, "assistant", "user"]
    assert text_of(third) == 'Turn 3: you said "six".'


async def test_a_compaction_can_be_compacted(server: ResponsesServer) -> None:
    async with connect(server) as client:
        parent = None
        for turn in range(1, 5):
            response = await client.response(
                input="a few words", previous_response_id=parent, context_management=after(2)
            )
            assert text_of(response).startswith(f"Turn {turn}:")
            assert len(server.requests[-1].history) == (1 if parent is None else 3)
            parent = response["id"]


async def test_another_server_accepts_the_compaction_item() -> None:
    async with open_test_server() as server, connect(server) as client:
        first = await client.response(input="one")
        second = await client.response(
            input="two", previous_response_id=first["id"], context_management=after(1)
        )
    async with open_test_server() as server, connect(server) as client:
        items = [*second["output"], {"role": "user", "content": "three"}]
        third = await client.response(input=items, store=False, context_management=after(1000))
    assert server.requests[0].history == items
    assert text_of(third) == 'Turn 3: you said "three".'


async def test_items_before_the_compaction_do_not_count(server: ResponsesServer) -> None:
    async with connect(server) as client:
        first = await client.response(input="one two three", context_management=after(2))
        items = [
            {"role": "user", "content": "one two three"},
            *first["output"],
            {"role": "user", "content": "four"},
        ]
        second = await client.response(input=items, context_management=after(10))
    assert [item["type"] for item in second["output"]] == ["message"]
    assert server.requests[1].turn == 2
    assert server.requests[1].history == items


async def test_the_same_history_gives_the_same_item() -> None:
    found: list[str] = []
    for text in ("one two", "one two", "three four"):
        async with open_test_server() as server, connect(server) as client:
            response = await client.response(input=text, context_management=after(1))
        found.append(response["output"][0]["encrypted_content"])
    assert found[0] == found[1] != found[2]


@pytest.mark.parametrize("content", [None, 5, "", "not ours", "bm90IG91cnM="])
async def test_an_item_of_another_server_counts_no_turns(content: object) -> None:
    item = {"type": "compaction", "encrypted_content": content}
    async with open_test_server(strict=False) as server, connect(server) as client:
        await client.response(input=[item, {"role": "user", "content": "hi"}])
    assert server.requests[0].turn == 1


async def test_a_warm_up_does_not_compact(server: ResponsesServer) -> None:
    async with connect(server) as client:
        warm = await client.response(
            input="one two three", generate=False, context_management=after(1)
        )
    assert warm["output"] == []


@pytest.mark.parametrize(
    ("value", "code", "param"),
    [
        ("compaction", "invalid_type", "context_management"),
        (["compaction"], "invalid_type", "context_management[0]"),
        ([dict[str, str]()], "missing_required_parameter", "context_management[0].type"),
        ([{"type": "summary"}], "invalid_value", "context_management[0].type"),
        (after("1"), "invalid_type", "context_management[0].compact_threshold"),
        (after(1.5), "invalid_type", "context_management[0].compact_threshold"),
        (after(True), "invalid_type", "context_management[0].compact_threshold"),  # noqa: FBT003
        (after(0), "integer_below_min_value", "context_management[0].compact_threshold"),
    ],
)
async def test_a_malformed_rule_is_refused(
    server: ResponsesServer, value: object, code: str, param: str
) -> None:
    async with connect(server) as client:
        frame = await client.error(input="hi", context_management=value)
    assert frame["status"] == 400
    assert (frame["error"]["code"], frame["error"]["param"]) == (code, param)
