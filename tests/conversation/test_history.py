"""P7: the history is the raw JSON that went over the wire, and can be carried elsewhere."""

from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.conversation.rig import (
    deltas,
    history,
    open_steady,
    open_talk,
    parent,
    said,
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
    '{"type":"message","role":"assistant","content":{"not":"what we know"},"n":1.50}',
    '{"no_type":true}',
]


def by_hand(lane: str, items: list[str], *, where: str) -> list[str]:
    """Write the frames of a response, byte by byte."""
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
async def test_what_the_server_sent_goes_back_as_it_came(
    server: ResponsesServer, where: str
) -> None:
    """Unknown fields, items and shapes; also where the last event repeats no output."""
    server.answer(by_hand("lane-32", ODD_ITEMS, where=where))
    async with open_talk(server) as talk:
        await talk.create("one")
        kept = [bytes(item).decode() for item in talk._ledger.history]
        assert kept[1:] == ODD_ITEMS
        assert isinstance(talk.items[1], UnknownItem)
        await server.reset_all()
        await talk.create("two")
    wanted = [user("one"), *map(msgspec.json.decode, ODD_ITEMS), user("two")]
    assert server.requests[1]["input"] == wanted
    assert parent(server.requests[1]) is None


async def test_null_is_no_item(server: ResponsesServer) -> None:
    item = '{"type":"message","role":"assistant","content":"x"}'
    server.answer(by_hand("lane-32", ["null", item], where="the end"))
    async with open_talk(server) as talk:
        await talk.create("one")
        assert history(talk) == [user("one"), msgspec.json.decode(item)]


async def test_what_the_user_gave_goes_out_again_as_it_was(server: ResponsesServer) -> None:
    """Also a part of the input that this version does not know."""
    given: list[Any] = [
        {"type": "message", "role": "user", "content": "ä", "new": [1, None]},
        msgspec.Raw(b'{"type":"odd",  "z":1, "a":1.0}'),
        Message(role="developer", content="Be brief."),
    ]
    async with open_talk(server) as talk:
        await talk.create(given)
        await server.reset_all()
        await talk.create("two")
    first, second = server.requests
    assert second["input"][:3] == first["input"]
    assert first["input"][0] == given[0]
    assert first["input"][1] == {"type": "odd", "z": 1, "a": 1.0}
    assert first["input"][2] == {**user("Be brief."), "role": "developer"}


async def test_items_that_change_afterwards_do_not_change_the_history(
    server: ResponsesServer,
) -> None:
    item: dict[str, Any] = user("one")
    async with open_talk(server) as talk:
        await talk.create([item])
        item["content"] = "changed"
        assert said(talk)[0] == "one"


# --- New chains --------------------------------------------------------------------------


async def test_reset_forgets_all_but_the_settings(server: ResponsesServer) -> None:
    async with open_talk(server, instructions="Be brief.") as talk:
        await talk.create("one")
        talk.reset()
        assert talk.items == ()
        assert talk.last_response_id is None
        response = await talk.create("two")
        assert response.output_text == 'Turn 1: you said "two".'
        await talk.create("three")
    assert deltas(server) == [False, False, True]
    assert {request["instructions"] for request in server.requests} == {"Be brief."}


async def test_an_adopted_window_is_the_beginning_of_a_new_chain(server: ResponsesServer) -> None:
    """The output of ``/responses/compact`` is the whole next input, its id is nothing."""
    window: list[Any] = [user("before"), {"type": "compaction", "encrypted_content": "gAAA"}]
    async with open_talk(server) as talk:
        await talk.create("one")
        talk.adopt(window)
        assert history(talk) == window
        assert talk.last_response_id is None
        await talk.create("two")
        await talk.create("three")
    assert server.requests[1]["input"] == [*window, user("two")]
    assert deltas(server) == [False, False, True]


NEW_CHAINS: dict[str, Callable[[Conversation], None]] = {
    "reset": lambda talk: talk.reset(),
    "adopt": lambda talk: talk.adopt([user("adopted")]),
}


@pytest.mark.parametrize("how", NEW_CHAINS)
async def test_a_turn_under_way_is_forgotten_with_its_chain(
    server: ResponsesServer, how: str
) -> None:
    """Else the server would go on from what was to be forgotten."""
    async with open_talk(server) as talk:
        await talk.create("one")
        async with talk.stream("two") as stream:
            NEW_CHAINS[how](talk)
            await stream.until_done()
        assert said(talk) == (["adopted"] if how == "adopt" else [])
        assert talk.last_response_id is None
        await talk.create("three")
    assert deltas(server) == [False, True, False]
    assert sizes(server)[2] == (2 if how == "adopt" else 1)


# --- Checkpoints -------------------------------------------------------------------------


async def test_a_checkpoint_goes_on_at_another_server(server: ResponsesServer) -> None:
    server.reply("I think.", reasoning="Hm.")
    settings: dict[str, Any] = {"store": False, "instructions": "Brief!", "multi_agent": {"a": 1}}
    async with open_talk(server, **settings) as talk:
        await talk.create("one")
        saved, before, last = talk.checkpoint(), history(talk), talk.last_response_id
    async with (
        open_test_server(max_age=None) as other,
        open_steady(other) as connection,
        Conversation.restore(connection, saved) as talk,
    ):
        assert (history(talk), talk.last_response_id) == (before, last)
        assert talk.checkpoint() == saved
        response = await talk.create("two")
        assert response.output_text == 'Turn 2: you said "two".'
        await talk.create("three")
        assert deltas(other) == [False, True]
        first = other.requests[0]
        assert first["input"] == [*before, user("two")]
        assert {name: first[name] for name in settings} == settings
        assert first["model"] == "m"
        assert history(talk)[: len(before)] == before


async def test_a_restored_conversation_gives_its_lane_back(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        async with connection.conversation(model="m") as talk:
            saved = talk.checkpoint()
        async with Conversation.restore(connection, saved):
            assert connection._engine.requests.lanes._reserved == {"lane-32"}
        assert connection._engine.requests.lanes._reserved == set()


async def test_a_checkpoint_is_versioned_json(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        response = await talk.create("one")
        saved = msgspec.json.decode(talk.checkpoint())
        assert saved == {
            "format": "trio-responses conversation",
            "version": 1,
            "settings": {"model": "m"},
            "items": history(talk),
            "last_response_id": response.id,
            "answers": [],
            "unsent": [],
        }


async def test_a_checkpoint_is_of_the_last_turn_that_ended_well(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        before = talk.checkpoint()
        async with talk.stream("two") as stream:
            assert talk.checkpoint() == before
            await stream.until_done()
        assert talk.checkpoint() != before


async def test_a_later_release_may_add_fields(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        saved = msgspec.json.decode(talk.checkpoint())
    saved = msgspec.json.encode({**saved, "new": 1})
    async with open_steady(server) as connection, Conversation.restore(connection, saved) as talk:
        await talk.create("one")


async def test_secrets_are_not_in_it(server: ResponsesServer) -> None:
    """P9."""
    options: dict[str, Any] = {"api_key": "sk-secret", "headers": {"X-Token": "sk-secret"}}
    async with (
        open_steady(server, **options) as connection,
        connection.conversation(model="m") as talk,
    ):
        await talk.create("one")
        assert b"secret" not in talk.checkpoint()


def checkpoint(**changes: Any) -> bytes:
    saved: dict[str, Any] = {
        "format": "trio-responses conversation",
        "version": 1,
        "settings": {"model": "m"},
        "items": [],
    }
    return msgspec.json.encode({**saved, **changes})


WRONG: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not a checkpoint"),
    "no JSON": (b"nonsense", "not a checkpoint"),
    "no object": (b"[]", "not a checkpoint"),
    "no text": (b'"\xff"', "not a checkpoint"),
    "no bytes": (5, "not a checkpoint"),
    "no version": (b'{"format":"trio-responses conversation"}', "not a checkpoint"),
    "cut off": (checkpoint()[:-1], "not a checkpoint"),
    "another format": (checkpoint(format="something else"), "not the checkpoint of a conversation"),
    "a later version": (checkpoint(version=2), "version 2, which a later release wrote"),
    "a later shape": (checkpoint(version=2, settings=[], items=0), "a later release"),
    "no settings": (checkpoint(settings=None), "not a checkpoint"),
    "no items": (checkpoint(items={}), "not a checkpoint"),
    "items of another kind": (checkpoint(items=[1]), "not a checkpoint"),
    "items that are no text": (
        checkpoint(items=[{"a": "~"}]).replace(b"~", b"\xff"),
        "not a checkpoint",
    ),
    "what is no setting": (checkpoint(settings={"input": "x"}), "not a setting"),
}


@pytest.mark.parametrize("what", WRONG)
async def test_what_is_no_checkpoint_is_refused_with_the_reason(
    server: ResponsesServer, what: str
) -> None:
    saved, words = WRONG[what]
    async with open_steady(server) as connection:
        with pytest.raises(ConfigurationError, match=words):
            async with Conversation.restore(connection, saved):
                pass
        assert connection._engine.requests.lanes._reserved == set()


# --- What there is to see ----------------------------------------------------------------


async def test_statistics_add_up(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        nothing = talk.statistics()
        assert set(map(nothing.__getattribute__, nothing.__slots__)) == {0}
        responses = [await talk.warm_up()]
        responses += [await talk.create(text) for text in ("one", "two")]
        server.fail("previous_response_not_found", status=400)
        responses.append(await talk.create("three"))
        counted = talk.statistics()
    usage = [response.usage for response in responses if response.usage is not None]
    assert len(usage) == counted.turns == 4
    assert (counted.full_turns, counted.delta_turns) == (2, 3)
    assert counted.full_turns + counted.delta_turns == len(server.requests)
    assert counted.input_tokens == sum(one.input_tokens for one in usage)
    assert counted.output_tokens == sum(one.output_tokens for one in usage)
    assert counted.items == len(talk.items) == 6
    # The name of the lane is added behind what a conversation writes.
    lanes = sum(len(f',"stream_id":"{request.lane}"') for request in server.requests)
    sent = sum(len(msgspec.json.encode(request.body)) for request in server.requests)
    assert counted.bytes_sent == sent - lanes


async def test_a_server_that_counts_no_tokens_is_no_error(server: ResponsesServer) -> None:
    server.answer(by_hand("lane-32", [], where="the end"))
    async with open_talk(server) as talk:
        await talk.create("one")
        assert (talk.statistics().turns, talk.statistics().input_tokens) == (1, 0)


async def test_a_repr_shows_no_content(server: ResponsesServer) -> None:
    """P9."""
    async with open_talk(server, instructions="a secret") as talk:
        await talk.create("another secret")
        assert repr(talk) == "<Conversation of 2 items>"
        assert "secret" not in repr(talk) + repr(talk.stream("a third secret"))


async def test_reasoning_that_was_cut_off_is_not_replayed_without_what_follows_it(
    server: ResponsesServer,
) -> None:
    async with open_talk(server, store=False) as talk:
        server.reply(reasoning="Hm", status="incomplete")
        response = await talk.create("hi", max_output_tokens=16)
        assert response.status == "incomplete"
        await talk.create("go on")  # other settings: full input
    kinds = [item["type"] for item in server.last_request.input_items]
    assert kinds == ["message", "message"]


async def test_a_message_without_a_type_is_a_message(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        await talk.create([{"role": "user", "content": "hi", "more": 1}])
        assert talk.items[0] == Message(role="user", content="hi")
        assert history(talk)[0] == {"role": "user", "content": "hi", "more": 1}
