"""P7: the history is the raw JSON of the wire; checkpoints and statistics of conversations."""

from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from tests.conversation.rig import (
    deltas,
    history,
    message_texts,
    open_conversation,
    open_steady,
    parent,
    reserve_all_lanes,
    sizes,
    user,
)
from trio_responses import ConfigurationError, Conversation
from trio_responses._wire import UnknownItem
from trio_responses.testing import ResponsesServer, open_test_server
from trio_responses.types import Message

# --- Raw JSON ----------------------------------------------------------------------------

ODD_ITEMS = [
    '{"type":"from_the_future","b":[1,{"c":null}],"a":123456789012345678901234567890}',
    '{"new_field":{"z":1,"y":2},"type":"message","role":"assistant","content":"\\u00e4 \\/ ä"}',
    '{"type":"reasoning","id":"rs_1","summary":[],"encrypted_content":"gAAA","from":"x"}',
    '{"type":"message","role":"assistant","content":[{"type":"not_known"}],"n":1.50}',
    '{"no_type":true}',
]


class RawCheckpoint(msgspec.Struct):
    items: list[msgspec.Raw]


def raw_items(conversation: Conversation) -> list[str]:
    """Return the history as JSON texts, which no decoder has changed."""
    saved = msgspec.json.decode(conversation.checkpoint(), type=RawCheckpoint)
    return [bytes(item).decode() for item in saved.items]


def by_hand(lane: str, items: list[str], *, where: str) -> list[str]:
    """Return the frames of a response, without an encoder that could change an item."""
    place = f'"stream_id":"{lane}"'
    created = '{"id":"resp_odd","status":"in_progress","output":[]}'
    done = [
        f'{{"type":"response.output_item.done",{place},"output_index":{n},"item":{item}}}'
        for n, item in enumerate(items)
    ]
    output = f"[{','.join(items)}]" if where == "the end" else "[]"
    end = f'{{"id":"resp_odd","status":"completed","output":{output}}}'
    return [
        f'{{"type":"response.created",{place},"response":{created}}}',
        *(done if where == "items" else []),
        f'{{"type":"response.completed",{place},"response":{end}}}',
    ]


@pytest.mark.parametrize("where", ["the end", "items"])
async def test_output_of_the_server_is_sent_back_unchanged(
    lenient_server: ResponsesServer, where: str
) -> None:
    """This includes unknown fields, items and shapes, and last events without the output."""
    lenient_server.answer(by_hand("lane-32", ODD_ITEMS, where=where))
    async with open_conversation(lenient_server) as conversation:
        await conversation.create("one")
        assert raw_items(conversation)[1:] == ODD_ITEMS
        assert isinstance(conversation.items[1], UnknownItem)
        assert [bytes(raw).decode() for raw in conversation.raw_items[1:]] == ODD_ITEMS
        await lenient_server.reset_all()
        await conversation.create("two")
    wanted = [user("one"), *map(msgspec.json.decode, ODD_ITEMS), user("two")]
    assert lenient_server.requests[1]["input"] == wanted
    assert parent(lenient_server.requests[1]) is None


async def test_raw_items_move_to_another_conversation_unchanged(
    lenient_server: ResponsesServer,
) -> None:
    lenient_server.answer(by_hand("lane-32", ODD_ITEMS, where="the end"))
    async with lenient_server.open_client() as connection:
        async with connection.conversation(model="m") as conversation:
            await conversation.create("one")
            raw = conversation.raw_items
        async with connection.conversation(model="m") as other:
            await other.replace_history(raw)
            assert other.raw_items == raw
            await other.create("two")
    wanted = [user("one"), *map(msgspec.json.decode, ODD_ITEMS), user("two")]
    assert lenient_server.requests[1]["input"] == wanted


async def test_null_in_the_output_is_left_out(server: ResponsesServer) -> None:
    item = '{"type":"message","role":"assistant","content":"x"}'
    server.answer(by_hand("lane-32", ["null", item], where="the end"))
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        assert history(conversation) == [user("one"), msgspec.json.decode(item)]


async def test_input_of_the_user_is_sent_again_unchanged(lenient_server: ResponsesServer) -> None:
    """This includes items of unknown types."""
    given: list[Any] = [
        {"type": "message", "role": "user", "content": "ä", "new": [1, None]},
        msgspec.Raw(b'{"type":"odd",  "z":1, "a":1.0}'),
        Message(role="developer", content="Be brief."),
    ]
    async with open_conversation(lenient_server) as conversation:
        await conversation.create(given)
        await lenient_server.reset_all()
        await conversation.create("two")
    first, second = lenient_server.requests
    assert second["input"][:3] == first["input"]
    assert first["input"][0] == given[0]
    assert first["input"][1] == {"type": "odd", "z": 1, "a": 1.0}
    assert first["input"][2] == {**user("Be brief."), "role": "developer"}


async def test_later_changes_to_input_items_do_not_change_the_history(
    server: ResponsesServer,
) -> None:
    item: dict[str, Any] = user("one")
    async with open_conversation(server) as conversation:
        await conversation.create([item])
        item["content"] = "changed"
        assert message_texts(conversation)[0] == "one"


# --- Replaced histories ------------------------------------------------------------------


async def test_reset_clears_the_history_and_keeps_the_settings(server: ResponsesServer) -> None:
    async with open_conversation(server, instructions="Be brief.") as conversation:
        await conversation.create("one")
        await conversation.clear_history()
        assert conversation.items == ()
        assert conversation.last_response_id is None
        response = await conversation.create("two")
        assert response.output_text == 'Turn 1: you said "two".'
        await conversation.create("three")
    assert deltas(server) == [False, False, True]
    assert {request["instructions"] for request in server.requests} == {"Be brief."}


async def test_a_compacted_window_begins_a_new_chain(
    server: ResponsesServer,
) -> None:
    """The output of ``/responses/compact`` is sent whole, and its id is not a parent."""
    window: list[Any] = [user("before"), {"type": "compaction", "encrypted_content": "gAAA"}]
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        await conversation.replace_history(window)
        assert history(conversation) == window
        assert conversation.last_response_id is None
        await conversation.create("two")
        await conversation.create("three")
    assert server.requests[1]["input"] == [*window, user("two")]
    assert deltas(server) == [False, False, True]


NEW_CHAINS: dict[str, Callable[[Conversation], Awaitable[None]]] = {
    "clear": lambda conversation: conversation.clear_history(),
    "replace": lambda conversation: conversation.replace_history([user("other")]),
}


@pytest.mark.parametrize("how", NEW_CHAINS)
async def test_an_active_turn_is_not_added_to_a_new_history(
    server: ResponsesServer, how: str
) -> None:
    """Otherwise the server would continue from the history that was replaced."""
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        async with conversation.stream("two") as stream:
            await NEW_CHAINS[how](conversation)
            await stream.get_final_response()
        assert message_texts(conversation) == (["other"] if how == "replace" else [])
        assert conversation.last_response_id is None
        await conversation.create("three")
    assert deltas(server) == [False, True, False]
    assert sizes(server)[2] == (2 if how == "replace" else 1)


# --- Checkpoints -------------------------------------------------------------------------


async def test_a_checkpoint_is_restored_on_another_server(server: ResponsesServer) -> None:
    server.reply("I think.", reasoning="Hm.")
    settings: dict[str, Any] = {"store": False, "multi_agent": {"enabled": True}}
    settings["instructions"] = "Brief!"
    async with open_conversation(server, **settings) as conversation:
        await conversation.create("one")
        saved, before, last = (
            conversation.checkpoint(),
            history(conversation),
            conversation.last_response_id,
        )
    async with (
        open_test_server(max_age=None) as other,
        open_steady(other) as connection,
        connection.restore_conversation(saved) as conversation,
    ):
        assert (history(conversation), conversation.last_response_id) == (before, last)
        assert conversation.checkpoint() == saved
        response = await conversation.create("two")
        assert response.output_text == 'Turn 2: you said "two".'
        await conversation.create("three")
        assert deltas(other) == [False, True]
        first = other.requests[0]
        assert first["input"] == [*before, user("two")]
        assert {name: first[name] for name in settings} == settings
        assert first["model"] == "m"
        assert history(conversation)[: len(before)] == before


async def test_a_restored_conversation_releases_its_lane(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        async with connection.conversation(model="m") as conversation:
            saved = conversation.checkpoint()
        async with connection.restore_conversation(saved):
            with pytest.raises(ConfigurationError, match="reserved"):
                await reserve_all_lanes(connection)
        await reserve_all_lanes(connection)


async def test_a_checkpoint_is_versioned_json(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        response = await conversation.create("one")
        saved = msgspec.json.decode(conversation.checkpoint())
        assert saved == {
            "format": "trio-responses conversation",
            "version": 1,
            "settings": {"model": "m"},
            "items": history(conversation),
            "last_response_id": response.id,
            "answers": [],
            "interrupted": [],
            "unsent": [],
            "origins": [[2, "m", True, "localhost/v1/responses"]],
            "abandoned": [],
            "replay_policy": {
                "images": "keep",
                "reasoning": "same_model",
                "statuses": "keep",
                "max_output": None,
                "max_items": None,
            },
            "conversation_id": conversation.id,
            "full_input": False,
            "revision": 1,
        }


async def test_a_checkpoint_has_the_turns_that_ended_well(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        before = conversation.checkpoint()
        async with conversation.stream("two") as stream:
            assert conversation.checkpoint() == before
            await stream.get_final_response()
        assert conversation.checkpoint() != before


async def test_unknown_fields_of_a_checkpoint_are_ignored(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        saved = msgspec.json.decode(conversation.checkpoint())
    saved = msgspec.json.encode({**saved, "new": 1})
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as conversation,
    ):
        await conversation.create("one")


async def test_a_checkpoint_does_not_contain_the_key_or_the_headers(
    server: ResponsesServer,
) -> None:
    """P9: secrets stay with the connection."""
    options: dict[str, Any] = {"api_key": "sk-secret", "headers": {"X-Token": "sk-secret"}}
    async with (
        open_steady(server, **options) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("one")
        assert b"secret" not in conversation.checkpoint()


def checkpoint(**changes: Any) -> bytes:
    saved: dict[str, Any] = {
        "format": "trio-responses conversation",
        "version": 1,
        "settings": {"model": "m"},
        "items": [],
    }
    return msgspec.json.encode({**saved, **changes})


def nested(levels: int, place: str) -> bytes:
    """Return a checkpoint with a value of so many levels in an item, or in a setting."""
    deep = b'{"a":' + b"[" * levels + b"]" * levels + b"}"
    value = deep if place == "settings" else b"[" + deep + b"]"
    saved = checkpoint(**{place: "~"})
    return saved.replace(b'"~"', value)


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not a checkpoint"),
    "no JSON": (b"nonsense", "not a checkpoint"),
    "no object": (b"[]", "not a checkpoint"),
    "no text": (b'"\xff"', "not a checkpoint"),
    "no bytes": (5, "not a checkpoint"),
    "no version": (b'{"format":"trio-responses conversation"}', "not a checkpoint"),
    "cut off": (checkpoint()[:-1], "not a checkpoint"),
    "another format": (
        checkpoint(format="something else"),
        "the format of the JSON is 'something else', not",
    ),
    "a later version": (checkpoint(version=2), "version 2, which a later release wrote"),
    "a later shape": (checkpoint(version=2, settings=[], items=0), "a later release"),
    "no settings": (checkpoint(settings=None), "not a checkpoint"),
    "no items": (checkpoint(items={}), "not a checkpoint"),
    "items of another kind": (checkpoint(items=[1]), "not a checkpoint"),
    "items that are no text": (
        checkpoint(items=[{"a": "~"}]).replace(b"~", b"\xff"),
        "not a checkpoint",
    ),
    **{
        f"{name} as a setting": (checkpoint(settings={name: "x"}), f"settings: .*'{name}'")
        for name in (
            "conversation",
            "extra",
            "generate",
            "input",
            "previous_response_id",
            "stream",
            "stream_id",
            "type",
        )
    },
    "tools of another kind": (checkpoint(settings={"tools": 5}), "settings: "),
    "include of another kind": (
        checkpoint(settings={"store": False, "include": 5}),
        "settings: ",
    ),
    "an unknown policy": (checkpoint(replay_policy={"images": "?"}), "replay_policy.images"),
    **{
        f"{levels} levels in {place}": (nested(levels, place), "nests too deeply")
        for levels in (900, 5000, 100_000)
        for place in ("items", "answers", "unsent", "settings")
    },
}


@pytest.mark.parametrize("what", WRONG)
async def test_bytes_that_are_not_a_checkpoint_are_rejected_with_the_reason(
    server: ResponsesServer, what: str
) -> None:
    saved, words = WRONG[what]
    async with open_steady(server) as connection:
        with pytest.raises(ConfigurationError, match=words):
            async with connection.restore_conversation(saved):
                pass
        await reserve_all_lanes(connection)


async def test_a_checkpoint_with_nested_values_is_restored_and_sent(
    server: ResponsesServer,
) -> None:
    deep = b'{"type":"configuration_update","text":{"a":' + b"[" * 400 + b"]" * 400 + b"}}"
    saved = checkpoint(items="~").replace(b'"~"', b"[" + deep + b"]")
    async with (
        open_steady(server) as connection,
        connection.restore_conversation(saved) as conversation,
    ):
        await conversation.create("Hi")
    assert bytes(conversation.raw_items[0]) == deep


async def test_origins_that_do_not_fit_the_items_of_a_checkpoint_are_ignored(
    server: ResponsesServer,
) -> None:
    for counts in ([1], [3], [3, -1], []):
        origins = [[count, "m", False] for count in counts]
        saved = checkpoint(items=[user("One"), user("Two")], origins=origins)
        async with (
            open_steady(server) as connection,
            connection.restore_conversation(saved) as conversation,
        ):
            assert history(conversation) == [user("One"), user("Two")]


# --- Statistics and repr -----------------------------------------------------------------


async def test_statistics_count_turns_requests_bytes_tokens_and_items(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        nothing = conversation.statistics()
        assert set(map(nothing.__getattribute__, nothing.__slots__)) == {0}
        responses = [await conversation.warm_up()]
        responses += [await conversation.create(text) for text in ("one", "two")]
        server.fail("previous_response_not_found", status=400)
        responses.append(await conversation.create("three"))
        counted = conversation.statistics()
    usage = [response.usage for response in responses if response.usage is not None]
    assert len(usage) == counted.turns == 4
    assert (counted.full_turns, counted.delta_turns) == (2, 3)
    assert counted.full_turns + counted.delta_turns == len(server.requests)
    assert counted.input_tokens == sum(one.input_tokens for one in usage)
    assert counted.output_tokens == sum(one.output_tokens for one in usage)
    assert counted.items == len(conversation.items) == 6
    # The name of the lane is added after the conversation has written its request.
    lanes = sum(len(f',"stream_id":"{request.lane}"') for request in server.requests)
    sent = sum(len(msgspec.json.encode(request.body)) for request in server.requests)
    assert counted.bytes_sent == sent - lanes


async def test_a_response_without_usage_counts_no_tokens(server: ResponsesServer) -> None:
    server.answer(by_hand("lane-32", [], where="the end"))
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        assert (conversation.statistics().turns, conversation.statistics().input_tokens) == (1, 0)


async def test_a_repr_shows_no_content(server: ResponsesServer) -> None:
    """P9: content does not reach logs by a repr."""
    async with open_conversation(server, instructions="a secret") as conversation:
        await conversation.create("another secret")
        assert repr(conversation) == "<Conversation of 2 items>"
        assert "secret" not in repr(conversation) + repr(conversation.stream("a third secret"))


async def test_reasoning_at_the_end_of_a_response_is_not_sent_again(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server, store=False) as conversation:
        server.reply(reasoning="Hm", status="incomplete")
        response = await conversation.create("hi", max_output_tokens=16)
        assert response.status == "incomplete"
        await conversation.create("go on")  # other settings: full input
    kinds = [item["type"] for item in server.last_request.input_items]
    assert kinds == ["message", "message"]


async def test_an_input_item_without_a_type_is_a_message(lenient_server: ResponsesServer) -> None:
    async with open_conversation(lenient_server) as conversation:
        await conversation.create([{"role": "user", "content": "hi", "more": 1}])
        assert conversation.items[0] == Message(role="user", content="hi")
        assert history(conversation)[0] == {"role": "user", "content": "hi", "more": 1}
