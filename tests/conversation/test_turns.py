"""P7: the requests of a conversation, and the turns that its history keeps."""

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import (
    ENCRYPTED,
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
from tests.turn.rig import ask
from trio_responses import (
    APIError,
    Endpoint,
    ResponseFailedError,
    ResponsesConnection,
    UnexpectedOutput,
)
from trio_responses._wire import FunctionCall, FunctionToolParam, Reasoning
from trio_responses.testing import Reply, ResponsesServer, open_test_server
from trio_responses.types import FunctionCallOutput, Message

if TYPE_CHECKING:
    from tests.turn.rig import Json


async def test_the_second_turn_sends_only_the_new_item(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        first = await conversation.create("one")
        second = await conversation.create("two")
    assert first.output_text == 'Turn 1: you said "one".'
    assert second.output_text == 'Turn 2: you said "two".'
    assert [request["input"] for request in server.requests] == [[user("one")], [user("two")]]
    assert [parent(request) for request in server.requests] == [None, first.id]
    assert "previous_response_id" not in server.requests[0].body
    assert message_texts(conversation) == ["one", first.output_text, "two", second.output_text]
    assert conversation.last_response_id == second.id


async def test_all_turns_of_a_conversation_are_on_its_own_lane(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        async with connection.conversation(model="m") as conversation:
            async with connection.conversation(model="m") as other:
                await conversation.create("one")
                await other.create("one")
                await conversation.create("two")
            async with connection.conversation(model="m") as third:
                await third.create("one")
        await reserve_all_lanes(connection)
    assert [request.lane for request in server.requests] == [
        "lane-32",
        "lane-31",
        "lane-32",
        "lane-31",
    ]
    assert deltas(server) == [False, False, True, False]


async def fork_and_fail(connection: ResponsesConnection) -> None:
    async with connection.conversation(model="m") as conversation:
        await conversation.fork()
        raise ZeroDivisionError


async def test_the_lanes_are_released_when_the_block_fails(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        wrong: Json = {"input": "hi"}
        with pytest.raises(TypeError, match="'input'"):
            async with connection.conversation(model="m", **wrong):
                pass
        with pytest.raises(ZeroDivisionError):
            await fork_and_fail(connection)
        await reserve_all_lanes(connection)


async def test_a_turn_can_be_streamed(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        async with conversation.stream("one") as stream:
            text = "".join([piece async for piece in stream.text_deltas()])
        assert message_texts(conversation) == ["one", text]
        async with conversation.stream(
            [user("two"), Message(role="user", content="three")]
        ) as stream:
            await stream.get_final_response()
        assert conversation.last_response_id == stream.response.id
    assert server.requests[1]["input"] == [user("two"), user("three")]
    assert deltas(server) == [False, True]


async def test_the_turn_after_a_warm_up_is_a_delta(server: ResponsesServer) -> None:
    async with open_conversation(server, instructions="Be brief.") as conversation:
        warm = await conversation.warm_up()
        assert conversation.items == ()
        assert conversation.last_response_id == warm.id
        await conversation.create("one")
    first, second = server.requests
    assert first["generate"] is False
    assert first["input"] == []
    assert "generate" not in second.body
    assert (second["input"], parent(second)) == ([user("one")], warm.id)
    assert second["instructions"] == "Be brief."


async def test_a_turn_without_input_answers_the_input_of_a_warm_up(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        warm = await conversation.warm_up(input="one")
        assert message_texts(conversation) == ["one"]
        response = await conversation.create()
    assert response.output_text == 'Turn 1: you said "one".'
    assert (server.requests[1]["input"], parent(server.requests[1])) == ([], warm.id)


async def test_a_warm_up_with_output_does_not_change_the_history(server: ResponsesServer) -> None:
    server.reply("I generate all the same.").for_warm_up()
    async with open_conversation(server) as conversation:
        with pytest.raises(UnexpectedOutput):
            await conversation.warm_up(input="one")
        assert conversation.items == ()
        assert conversation.last_response_id is None
        response = await conversation.create("two")
    assert response.output_text == 'Turn 1: you said "two".'
    assert deltas(server) == [False, False]


async def test_the_outputs_of_tools_are_sent_as_a_delta(server: ResponsesServer) -> None:
    tool = FunctionToolParam(name="weather", parameters={"type": "object"})
    server.call("weather", call_id="call_1")
    async with open_conversation(server, tools=[tool]) as conversation:
        response = await conversation.create("How is it?")
        (call,) = response.function_calls
        response = await conversation.create(
            [FunctionCallOutput(call_id=call.call_id, output="sun")]
        )
        assert response.output_text == "Turn 1: the tool returned sun."
        assert isinstance(conversation.items[1], FunctionCall)
        assert isinstance(conversation.items[2], FunctionCallOutput)
    assert deltas(server) == [False, True]
    assert server.requests[1]["tools"] == server.requests[0]["tools"]


# --- Settings ----------------------------------------------------------------------------


async def test_every_request_carries_all_settings(server: ResponsesServer) -> None:
    """The server does not inherit settings from the parent."""
    settings: Json = {"instructions": "Be brief.", "multi_agent": {"enabled": True}}
    async with open_conversation(server, **settings) as conversation:
        await conversation.create("one")
        await conversation.create("two")
    for request in server.requests:
        assert {name: request[name] for name in settings} == settings
    assert deltas(server) == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1},
        {"instructions": "Shout."},
        {"tools": []},
        {"extra_body": {"client_metadata": 1}},
        {"model": "n"},
    ],
)
async def test_a_turn_with_other_settings_and_the_next_one_are_sent_in_full(
    server: ResponsesServer, change: dict[str, Any]
) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        await conversation.create("two", **change)
        await conversation.create("three")
        await conversation.create("four")
    ((name, value),) = change.get("extra_body", change).items()
    assert [request.get(name) == value for request in server.requests] == [
        False,
        True,
        False,
        False,
    ]
    assert deltas(server) == [False, False, False, True]
    assert sizes(server) == [1, 3, 5, 1]


async def test_an_equal_setting_for_one_turn_keeps_deltas(server: ResponsesServer) -> None:
    async with open_conversation(server, metadata={"a": "1", "b": "2"}) as conversation:
        await conversation.create("one")
        await conversation.create("two", metadata={"b": "2", "a": "1"})
    assert deltas(server) == [False, True]


async def test_unset_removes_a_setting(server: ResponsesServer) -> None:
    unset: Any = msgspec.UNSET
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m", instructions="Be brief.", store=unset) as conversation,
    ):
        await conversation.create("one", instructions=unset)
        await conversation.create("two")
        assert b"store" not in conversation.checkpoint()
    assert [request.get("instructions") for request in server.requests] == [None, "Be brief."]
    assert all("store" not in request.body for request in server.requests)


async def test_settings_may_contain_raw_json(server: ResponsesServer) -> None:
    schema = msgspec.Raw(b'{"type": "object",  "properties": {}}')
    tool = {"type": "function", "name": "f", "parameters": schema}
    async with open_conversation(server, tools=[tool]) as conversation:
        await conversation.create("one")
        await conversation.create("two")
        assert msgspec.json.decode(conversation.checkpoint())["settings"]["tools"][0]["name"] == "f"
    assert deltas(server) == [False, True]
    assert server.requests[0].tools[0]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize("name", ["input", "previous_response_id", "stream_id", "generate"])
async def test_fields_that_a_conversation_sets_are_not_settings(
    server: ResponsesServer, name: str
) -> None:
    wrong: Json = {name: "x"}
    async with open_steady(server) as connection:
        with pytest.raises(TypeError, match=name):
            async with connection.conversation(model="m", **wrong):
                pass


@pytest.mark.parametrize("name", ["previous_response_id", "stream_id"])
async def test_fields_that_a_conversation_sets_are_not_settings_of_a_turn(
    server: ResponsesServer, name: str
) -> None:
    wrong: Json = {name: "x"}
    async with open_conversation(server) as conversation:
        with pytest.raises(TypeError, match=name):
            await conversation.create("one", **wrong)
        await conversation.create("one")
    assert len(server.requests) == 1


async def test_input_without_a_json_form_is_rejected_before_anything_is_sent(
    server: ResponsesServer,
) -> None:
    wrong: Any = [{"type": "message", "role": "user", "content": object()}]
    async with open_conversation(server) as conversation:
        with pytest.raises(TypeError):
            await conversation.create(wrong)
        await conversation.create("one")
    assert sizes(server) == [1]


SOURCES = "web_search_call.action.sources"


@pytest.mark.parametrize("store", [None, True, False])
async def test_encrypted_reasoning_is_requested_if_nothing_is_stored(
    server: ResponsesServer, *, store: bool | None
) -> None:
    server.reply("I think.", reasoning="Hm.")
    settings: dict[str, Any] = {} if store is None else {"store": store}
    async with open_conversation(server, include=[SOURCES], **settings) as conversation:
        await conversation.create("one")
        await server.reset_all()
        await conversation.create("two")
        reasoning = conversation.items[1]
    assert isinstance(reasoning, Reasoning)
    assert (reasoning.encrypted_content is not None) == (store is False)
    asked = [SOURCES, ENCRYPTED] if store is False else [SOURCES]
    assert [request["include"] for request in server.requests] == [asked, asked]
    replayed = [item["type"] for item in server.requests[1]["input"]]
    assert ("reasoning" in replayed) == (store is not True)


@pytest.mark.parametrize("with_parent", [True, False])
async def test_deltas_have_no_instructions_if_the_endpoint_refuses_them(
    server: ResponsesServer, *, with_parent: bool
) -> None:
    endpoint = server_profile(server, instructions_with_parent=with_parent)
    async with open_conversation(
        server, endpoint=endpoint, instructions="Be brief."
    ) as conversation:
        await conversation.create("one")
        await conversation.create("two")
        await server.reset_all()
        await conversation.create("three")
        await conversation.create("four", instructions="Shout.")
    assert deltas(server) == [False, True, False, False]
    second = "Be brief." if with_parent else None
    instructions = [request.get("instructions") for request in server.requests]
    assert instructions == ["Be brief.", second, "Be brief.", "Shout."]


def server_profile(server: ResponsesServer, **options: Any) -> Endpoint:
    return Endpoint.compatible(server.url, lanes=True, after_error="reuse", **options)


# --- Turns that do not end well ----------------------------------------------------------


BAD_REPLIES = [
    Reply("bad", status="failed"),
    Reply("bad", status="incomplete", reason="content_filter"),
    Reply("bad", status="incomplete", reason="from_the_future"),
]


@pytest.mark.parametrize("reply", BAD_REPLIES, ids=["failed", "content_filter", "unknown"])
async def test_a_turn_that_ended_badly_does_not_change_the_history(
    server: ResponsesServer, reply: Reply
) -> None:
    async with open_conversation(server) as conversation:
        first = await conversation.create("one")
        before = history(conversation)
        server.answer(reply)
        if reply.status == "failed":
            with pytest.raises(ResponseFailedError):
                await conversation.create("two")
        else:
            assert (await conversation.create("two")).status == "incomplete"
        assert history(conversation) == before
        assert conversation.last_response_id == first.id
        third = await conversation.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]
    assert conversation.statistics().turns == 2


async def test_an_incomplete_turn_without_a_reason_does_not_change_the_history(
    narrow_server: ResponsesServer,
) -> None:
    response: Json = {"id": "resp_x", "object": "response", "status": "incomplete", "output": []}
    narrow_server.answer([{"type": "response.incomplete", "response": response}])
    async with open_conversation(narrow_server) as conversation:
        await conversation.create("one")
        assert conversation.items == ()


@pytest.mark.parametrize("reason", ["max_output_tokens", "max_messages", "steered"])
async def test_a_turn_that_was_cut_short_by_a_limit_is_in_the_history(
    server: ResponsesServer, reason: str
) -> None:
    server.reply("cut", status="incomplete", reason=reason)
    async with open_conversation(server) as conversation:
        response = await conversation.create("one")
        assert response.status == "incomplete"
        assert message_texts(conversation) == ["one", "cut"]
        await conversation.create("go on")
    assert deltas(server) == [False, True]
    assert parent(server.requests[1]) == response.id


async def test_a_cancelled_turn_does_not_change_the_history(server: ResponsesServer) -> None:
    server.reply("one")
    server.reply("a b c d e f", delay=1)
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        before, last = history(conversation), conversation.last_response_id
        with trio.move_on_after(3) as scope:
            await conversation.create("two")
        assert scope.cancelled_caught
        assert (history(conversation), conversation.last_response_id) == (before, last)
        third = await conversation.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]


async def test_a_turn_that_is_left_early_does_not_change_the_history(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server) as conversation:
        async with conversation.stream("one") as stream:
            async for _ in stream:
                break
        assert conversation.items == ()
        assert conversation.last_response_id is None
        second = await conversation.create("two")
    assert second.output_text == 'Turn 1: you said "two".'


async def test_after_a_turn_that_was_not_sent_the_next_one_is_a_delta(
    server: ResponsesServer,
) -> None:
    """The turn was cancelled while it waited, so the server still holds the parent."""
    server.reply("one")
    server.reply("slow", delay=1)
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(conversation.create, "two")
            await wait_all_tasks_blocked()
            with trio.move_on_after(1) as scope:
                await conversation.create("three")
            assert scope.cancelled_caught
        await conversation.create("four")
    assert deltas(server) == [False, True, True]


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_after_an_error_the_next_turn_is_sent_in_full(
    server: ResponsesServer, status: int
) -> None:
    """The server evicts the parent of a continuation that failed (guide, "WebSocket mode")."""
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        before = history(conversation)
        server.fail("unsupported_value", status=status)
        with pytest.raises(APIError):
            await conversation.create("two", max_retries=0)
        assert history(conversation) == before
        third = await conversation.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]
    assert sizes(server) == [1, 1, 3]


# --- One turn at a time ------------------------------------------------------------------


async def test_turns_of_one_conversation_run_one_after_the_other_in_order(
    server: ResponsesServer,
) -> None:
    async def one_turn(text: str) -> None:
        await conversation.create(text)

    async with open_conversation(server) as conversation:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one_turn, str(number))
                await wait_all_tasks_blocked()
        assert message_texts(conversation)[::2] == [str(number) for number in range(10)]
    assert server.statistics().max_active == 1
    assert deltas(server) == [False, *[True] * 9]
    assert [request.turn for request in server.requests] == list(range(1, 11))


async def test_two_conversations_run_side_by_side(server: ResponsesServer) -> None:
    server.respond_with(lambda request: Reply(request.text, delay=1))
    async with open_steady(server) as connection, trio.open_nursery() as nursery:

        async def run_turns(name: str) -> None:
            async with connection.conversation(model="m") as conversation:
                for number in range(3):
                    await conversation.create(f"{name}{number}")
                assert (
                    message_texts(conversation)[::2]
                    == message_texts(conversation)[1::2]
                    == [f"{name}{n}" for n in range(3)]
                )

        nursery.start_soon(run_turns, "a")
        nursery.start_soon(run_turns, "b")
    assert server.statistics().max_active == 2
    assert deltas(server).count(False) == 2


async def test_without_lanes_a_conversation_shares_the_default_lane(
    narrow_server: ResponsesServer,
) -> None:
    async with (
        open_steady(narrow_server) as connection,
        connection.conversation(model="m") as conversation,
    ):
        await conversation.create("one")
        await conversation.create("two")
        await ask(connection, "a stranger's")
        third = await conversation.create("three")
        await conversation.create("four")
    assert third.output_text == 'Turn 3: you said "three".'
    assert {request.lane for request in narrow_server.requests} == {None}
    assert deltas(narrow_server) == [False, True, False, False, True]


async def test_without_lanes_two_conversations_alternate_on_the_default_lane(
    narrow_server: ResponsesServer,
) -> None:
    async with open_steady(narrow_server) as connection, trio.open_nursery() as nursery:

        async def run_turns(name: str) -> None:
            async with connection.conversation(model="m") as conversation:
                for number in range(4):
                    response = await conversation.create(f"{name}{number}")
                    wanted = f'Turn {number + 1}: you said "{name}{number}".'
                    assert response.output_text == wanted

        nursery.start_soon(run_turns, "a")
        nursery.start_soon(run_turns, "b")
    assert narrow_server.statistics().responses == 8


async def test_after_a_silent_turn_was_cancelled_the_next_one_is_sent_in_full() -> None:
    async with open_test_server(max_age=None) as server, open_steady(server) as connection:
        async with connection.conversation(model="m") as conversation:
            await conversation.create("one")
            server.stall()
            with trio.move_on_after(30):
                await conversation.create("two")
            await server.reset_all()
            await conversation.create("three")
            assert message_texts(conversation)[::2] == ["one", "three"]
        assert deltas(server) == [False, True, False]
