"""P7: what a conversation sends for its turns, and which of them it keeps."""

from typing import TYPE_CHECKING, Any

import msgspec
import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import (
    ENCRYPTED,
    deltas,
    history,
    open_steady,
    open_talk,
    parent,
    said,
    sizes,
    user,
)
from tests.turn.rig import ask
from trio_responses import (
    APIError,
    ConfigurationError,
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


async def test_the_second_turn_sends_the_new_item_alone(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        first = await talk.create("one")
        second = await talk.create("two")
    assert first.output_text == 'Turn 1: you said "one".'
    assert second.output_text == 'Turn 2: you said "two".'
    assert [request["input"] for request in server.requests] == [[user("one")], [user("two")]]
    assert [parent(request) for request in server.requests] == [None, first.id]
    assert "previous_response_id" not in server.requests[0].body
    assert said(talk) == ["one", first.output_text, "two", second.output_text]
    assert talk.last_response_id == second.id


async def test_every_turn_is_on_the_conversations_own_lane(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        async with connection.conversation(model="m") as talk:
            async with connection.conversation(model="m") as other:
                await talk.create("one")
                await other.create("one")
                await talk.create("two")
            async with connection.conversation(model="m") as third:
                await third.create("one")
        assert connection._engine.requests.lanes._reserved == set()
    assert [request.lane for request in server.requests] == [
        "lane-32",
        "lane-31",
        "lane-32",
        "lane-31",
    ]
    assert deltas(server) == [False, False, True, False]


async def fork_and_fail(connection: ResponsesConnection) -> None:
    async with connection.conversation(model="m") as talk:
        talk.fork()
        raise ZeroDivisionError


async def test_the_lane_is_given_back_when_the_block_fails(server: ResponsesServer) -> None:
    async with open_steady(server) as connection:
        with pytest.raises(ConfigurationError, match="input"):
            async with connection.conversation(model="m", input="hi"):
                pass
        with pytest.raises(ZeroDivisionError):
            await fork_and_fail(connection)
        assert connection._engine.requests.lanes._reserved == set()


async def test_a_turn_can_be_read_event_by_event(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        async with talk.stream("one") as stream:
            text = "".join([piece async for piece in stream.text_deltas()])
        assert said(talk) == ["one", text]
        async with talk.stream([user("two"), Message(role="user", content="three")]) as stream:
            await stream.until_done()
        assert talk.last_response_id == stream.response.id
    assert server.requests[1]["input"] == [user("two"), user("three")]
    assert deltas(server) == [False, True]


async def test_a_warm_up_prepares_a_chain_that_goes_on_as_a_delta(server: ResponsesServer) -> None:
    async with open_talk(server, instructions="Be brief.") as talk:
        warm = await talk.warm_up()
        assert talk.items == ()
        assert talk.last_response_id == warm.id
        await talk.create("one")
    first, second = server.requests
    assert first["generate"] is False
    assert first["input"] == []
    assert "generate" not in second.body
    assert (second["input"], parent(second)) == ([user("one")], warm.id)
    assert second["instructions"] == "Be brief."


async def test_a_warm_up_may_bring_the_input_and_the_turn_after_it_none(
    server: ResponsesServer,
) -> None:
    async with open_talk(server) as talk:
        warm = await talk.warm_up(input="one")
        assert said(talk) == ["one"]
        response = await talk.create()
    assert response.output_text == 'Turn 1: you said "one".'
    assert (server.requests[1]["input"], parent(server.requests[1])) == ([], warm.id)


async def test_output_of_a_warm_up_is_not_taken_into_the_history(server: ResponsesServer) -> None:
    server.reply("I generate all the same.").for_warm_up()
    async with open_talk(server) as talk:
        with pytest.raises(UnexpectedOutput):
            await talk.warm_up(input="one")
        assert talk.items == ()
        assert talk.last_response_id is None
        response = await talk.create("two")
    assert response.output_text == 'Turn 1: you said "two".'
    assert deltas(server) == [False, False]


async def test_tools_are_called_in_a_chain(server: ResponsesServer) -> None:
    tool = FunctionToolParam(name="weather", parameters={"type": "object"})
    server.call("weather", call_id="call_1")
    async with open_talk(server, tools=[tool]) as talk:
        response = await talk.create("How is it?")
        (call,) = response.function_calls
        response = await talk.create([FunctionCallOutput(call_id=call.call_id, output="sun")])
        assert response.output_text == "Turn 1: the tool returned sun."
        assert isinstance(talk.items[1], FunctionCall)
        assert isinstance(talk.items[2], FunctionCallOutput)
    assert deltas(server) == [False, True]
    assert server.requests[1]["tools"] == server.requests[0]["tools"]


# --- Settings ----------------------------------------------------------------------------


async def test_every_request_carries_all_settings(server: ResponsesServer) -> None:
    """Settings are not inherited through the parent."""
    settings: dict[str, Any] = {"instructions": "Be brief.", "temperature": 0.5, "multi_agent": [1]}
    async with open_talk(server, **settings) as talk:
        await talk.create("one")
        await talk.create("two")
    for request in server.requests:
        assert {name: request[name] for name in settings} == settings
    assert deltas(server) == [False, True]


@pytest.mark.parametrize(
    "change",
    [
        {"temperature": 0.1},
        {"instructions": "Shout."},
        {"tools": []},
        {"client_metadata": 1},
        {"model": "n"},
    ],
)
async def test_a_setting_for_one_turn_sends_it_and_the_one_after_it_in_full(
    server: ResponsesServer, change: dict[str, Any]
) -> None:
    async with open_talk(server) as talk:
        await talk.create("one")
        await talk.create("two", **change)
        await talk.create("three")
        await talk.create("four")
    (name,) = change
    assert [request.get(name) == change[name] for request in server.requests] == [
        False,
        True,
        False,
        False,
    ]
    assert deltas(server) == [False, False, False, True]
    assert sizes(server) == [1, 3, 5, 1]


async def test_a_setting_of_the_same_value_is_no_change(server: ResponsesServer) -> None:
    async with open_talk(server, metadata={"a": "1", "b": "2"}) as talk:
        await talk.create("one")
        await talk.create("two", metadata={"b": "2", "a": "1"})
    assert deltas(server) == [False, True]


async def test_unset_takes_a_setting_away(server: ResponsesServer) -> None:
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m", instructions="Be brief.", store=msgspec.UNSET) as talk,
    ):
        await talk.create("one", instructions=msgspec.UNSET)
        await talk.create("two")
        assert b"store" not in talk.checkpoint()
    assert [request.get("instructions") for request in server.requests] == [None, "Be brief."]
    assert all("store" not in request.body for request in server.requests)


async def test_settings_may_hold_raw_json(server: ResponsesServer) -> None:
    schema = msgspec.Raw(b'{"type": "object",  "properties": {}}')
    tool = {"type": "function", "name": "f", "parameters": schema}
    async with open_talk(server, tools=[tool]) as talk:
        await talk.create("one")
        await talk.create("two")
        assert msgspec.json.decode(talk.checkpoint())["settings"]["tools"][0]["name"] == "f"
    assert deltas(server) == [False, True]
    assert server.requests[0].tools[0]["parameters"] == {"type": "object", "properties": {}}


@pytest.mark.parametrize("name", ["input", "previous_response_id", "stream_id", "generate"])
async def test_what_a_conversation_decides_is_no_setting(
    server: ResponsesServer, name: str
) -> None:
    async with open_steady(server) as connection:
        with pytest.raises(ConfigurationError, match=name):
            async with connection.conversation(model="m", **{name: "x"}):
                pass


@pytest.mark.parametrize("name", ["previous_response_id", "stream_id"])
async def test_what_a_conversation_decides_is_no_setting_of_a_turn(
    server: ResponsesServer, name: str
) -> None:
    wrong: Json = {name: "x"}
    async with open_talk(server) as talk:
        with pytest.raises(ConfigurationError, match=name):
            await talk.create("one", **wrong)
        await talk.create("one")
    assert len(server.requests) == 1


async def test_input_that_is_no_json_is_refused_before_anything_is_sent(
    server: ResponsesServer,
) -> None:
    wrong: Any = [{"type": "message", "content": object()}]
    async with open_talk(server) as talk:
        with pytest.raises(TypeError):
            await talk.create(wrong)
        await talk.create("one")
    assert sizes(server) == [1]


@pytest.mark.parametrize("store", [None, True, False])
async def test_reasoning_is_asked_for_encrypted_where_nothing_is_stored(
    server: ResponsesServer, *, store: bool | None
) -> None:
    server.reply("I think.", reasoning="Hm.")
    settings: dict[str, Any] = {} if store is None else {"store": store}
    async with open_talk(server, include=["a"], **settings) as talk:
        await talk.create("one")
        await server.reset_all()
        await talk.create("two")
        reasoning = talk.items[1]
    assert isinstance(reasoning, Reasoning)
    assert (reasoning.encrypted_content is not None) == (store is False)
    asked = ["a", ENCRYPTED] if store is False else ["a"]
    assert [request["include"] for request in server.requests] == [asked, asked]
    replayed = [item["type"] for item in server.requests[1]["input"]]
    assert ("reasoning" in replayed) == (store is not True)


@pytest.mark.parametrize("with_parent", [True, False])
async def test_instructions_are_left_out_beside_a_parent_where_the_endpoint_wants_that(
    server: ResponsesServer, *, with_parent: bool
) -> None:
    endpoint = server_profile(server, instructions_with_parent=with_parent)
    async with open_talk(server, endpoint=endpoint, instructions="Be brief.") as talk:
        await talk.create("one")
        await talk.create("two")
        await server.reset_all()
        await talk.create("three")
        await talk.create("four", instructions="Shout.")
    assert deltas(server) == [False, True, False, False]
    second = "Be brief." if with_parent else None
    said = [request.get("instructions") for request in server.requests]
    assert said == ["Be brief.", second, "Be brief.", "Shout."]


def server_profile(server: ResponsesServer, **options: Any) -> Endpoint:
    return Endpoint.compatible(server.url, lanes=True, after_error="reuse", **options)


# --- Turns that do not end well ----------------------------------------------------------


BAD_REPLIES = [
    Reply("bad", status="failed"),
    Reply("bad", status="incomplete", reason="content_filter"),
    Reply("bad", status="incomplete", reason="from_the_future"),
]


@pytest.mark.parametrize("reply", BAD_REPLIES, ids=["failed", "content_filter", "unknown"])
async def test_a_turn_that_ended_badly_leaves_no_trace(
    server: ResponsesServer, reply: Reply
) -> None:
    async with open_talk(server) as talk:
        first = await talk.create("one")
        before = history(talk)
        server.answer(reply)
        if reply.status == "failed":
            with pytest.raises(ResponseFailedError):
                await talk.create("two")
        else:
            assert (await talk.create("two")).status == "incomplete"
        assert history(talk) == before
        assert talk.last_response_id == first.id
        third = await talk.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]
    assert talk.statistics().turns == 2


async def test_an_incomplete_turn_without_a_reason_leaves_no_trace(
    narrow_server: ResponsesServer,
) -> None:
    response: Json = {"id": "resp_x", "object": "response", "status": "incomplete", "output": []}
    narrow_server.answer([{"type": "response.incomplete", "response": response}])
    async with open_talk(narrow_server) as talk:
        await talk.create("one")
        assert talk.items == ()


@pytest.mark.parametrize("reason", ["max_output_tokens", "max_messages", "steered"])
async def test_a_turn_that_was_only_cut_short_counts(server: ResponsesServer, reason: str) -> None:
    server.reply("cut", status="incomplete", reason=reason)
    async with open_talk(server) as talk:
        response = await talk.create("one")
        assert response.status == "incomplete"
        assert said(talk) == ["one", "cut"]
        await talk.create("go on")
    assert deltas(server) == [False, True]
    assert parent(server.requests[1]) == response.id


async def test_a_cancelled_turn_leaves_no_trace(server: ResponsesServer) -> None:
    server.reply("one")
    server.reply("a b c d e f", delay=1)
    async with open_talk(server) as talk:
        await talk.create("one")
        before, last = history(talk), talk.last_response_id
        with trio.move_on_after(3) as scope:
            await talk.create("two")
        assert scope.cancelled_caught
        assert (history(talk), talk.last_response_id) == (before, last)
        third = await talk.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]


async def test_a_turn_that_is_left_early_leaves_no_trace(server: ResponsesServer) -> None:
    async with open_talk(server) as talk:
        async with talk.stream("one") as stream:
            async for _ in stream:
                break
        assert talk.items == ()
        assert talk.last_response_id is None
        second = await talk.create("two")
    assert second.output_text == 'Turn 1: you said "two".'


async def test_a_turn_that_never_went_out_changes_nothing(server: ResponsesServer) -> None:
    """It was cancelled in the queue; so the server still holds what it held."""
    server.reply("one")
    server.reply("slow", delay=1)
    async with open_talk(server) as talk:
        await talk.create("one")
        async with trio.open_nursery() as nursery:
            nursery.start_soon(talk.create, "two")
            await wait_all_tasks_blocked()
            with trio.move_on_after(1) as scope:
                await talk.create("three")
            assert scope.cancelled_caught
        await talk.create("four")
    assert deltas(server) == [False, True, True]


@pytest.mark.parametrize("status", [400, 429, 500])
async def test_after_an_error_the_next_turn_is_sent_in_full(
    server: ResponsesServer, status: int
) -> None:
    """The server evicts the parent of a continuation that failed (guide, "WebSocket mode")."""
    async with open_talk(server) as talk:
        await talk.create("one")
        before = history(talk)
        server.fail("unsupported_value", status=status)
        with pytest.raises(APIError):
            await talk.create("two", max_retries=0)
        assert history(talk) == before
        third = await talk.create("three")
    assert third.output_text == 'Turn 2: you said "three".'
    assert deltas(server) == [False, True, False]
    assert sizes(server) == [1, 1, 3]


# --- One turn at a time ------------------------------------------------------------------


async def test_turns_of_one_conversation_run_one_after_the_other_in_order(
    server: ResponsesServer,
) -> None:
    async def one_turn(text: str) -> None:
        await talk.create(text)

    async with open_talk(server) as talk:
        async with trio.open_nursery() as nursery:
            for number in range(10):
                nursery.start_soon(one_turn, str(number))
                await wait_all_tasks_blocked()
        assert said(talk)[::2] == [str(number) for number in range(10)]
    assert server.statistics().max_active == 1
    assert deltas(server) == [False, *[True] * 9]
    assert [request.turn for request in server.requests] == list(range(1, 11))


async def test_two_conversations_run_side_by_side(server: ResponsesServer) -> None:
    server.respond_with(lambda request: Reply(request.text, delay=1))
    async with open_steady(server) as connection, trio.open_nursery() as nursery:

        async def talk_for_a_while(name: str) -> None:
            async with connection.conversation(model="m") as talk:
                for number in range(3):
                    await talk.create(f"{name}{number}")
                assert said(talk)[::2] == said(talk)[1::2] == [f"{name}{n}" for n in range(3)]

        nursery.start_soon(talk_for_a_while, "a")
        nursery.start_soon(talk_for_a_while, "b")
    assert server.statistics().max_active == 2
    assert deltas(server).count(False) == 2


async def test_without_lanes_it_shares_the_default_lane(narrow_server: ResponsesServer) -> None:
    async with (
        open_steady(narrow_server) as connection,
        connection.conversation(model="m") as talk,
    ):
        await talk.create("one")
        await talk.create("two")
        await ask(connection, "a stranger's")
        third = await talk.create("three")
        await talk.create("four")
    assert third.output_text == 'Turn 3: you said "three".'
    assert {request.lane for request in narrow_server.requests} == {None}
    assert deltas(narrow_server) == [False, True, False, False, True]


async def test_without_lanes_two_conversations_take_turns(narrow_server: ResponsesServer) -> None:
    async with open_steady(narrow_server) as connection, trio.open_nursery() as nursery:

        async def talk_for_a_while(name: str) -> None:
            async with connection.conversation(model="m") as talk:
                for number in range(4):
                    response = await talk.create(f"{name}{number}")
                    wanted = f'Turn {number + 1}: you said "{name}{number}".'
                    assert response.output_text == wanted

        nursery.start_soon(talk_for_a_while, "a")
        nursery.start_soon(talk_for_a_while, "b")
    assert narrow_server.statistics().responses == 8


async def test_a_server_that_says_nothing_is_given_up_and_the_next_turn_is_sent_in_full() -> None:
    async with open_test_server(max_age=None) as server, open_steady(server) as connection:
        async with connection.conversation(model="m") as talk:
            await talk.create("one")
            server.stall()
            with trio.move_on_after(30):
                await talk.create("two")
            await server.reset_all()
            await talk.create("three")
            assert said(talk)[::2] == ["one", "three"]
        assert deltas(server) == [False, True, False]
