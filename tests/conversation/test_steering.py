"""P7 with steering: the history has the successors and the steering inputs in order."""

from typing import TYPE_CHECKING, Any

import pytest
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import (
    deltas,
    history,
    message_texts,
    open_conversation,
    open_steady,
    parent,
    user,
)
from tests.pool.rig import open_to
from tests.turn.rig import created, ended
from tests.turn.test_steering import hold
from trio_responses import ResponseFailedError, SteerState
from trio_responses._wire import FunctionCallOutput
from trio_responses.testing import Call, Reply

if TYPE_CHECKING:
    import trio

    from trio_responses.testing import ResponsesServer

WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)
OUTPUT = FunctionCallOutput(call_id="call_1", output="21 degrees")


async def test_the_successor_of_a_steered_turn_is_in_the_history(server: "ResponsesServer") -> None:
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server, store=False) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            second = await stream.get_final_response()
        answer = 'Turn 2: you said "Stop.".'
        assert message_texts(conversation) == ["Count.", "one", "Stop.", answer]
        assert conversation.last_response_id == second.id
        await conversation.create("Thanks.")
    assert parent(server.requests[-1]) == second.id
    assert server.requests[-1]["input"] == [user("Thanks.")]
    assert len(server.requests[-1].history) == 5


async def test_full_input_has_the_items_in_the_order_of_the_server(
    server: "ResponsesServer",
) -> None:
    """The history is sent in full on another socket."""
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            await stream.get_final_response()
        await conversation.create("Thanks.")
        seen = [(item.get("role"), item.get("id")) for item in server.requests[-1].history]
        await server.reset_all()
        await conversation.create("Bye.")
    replayed = server.requests[-1]
    assert parent(replayed) is None
    again = [(item.get("role"), item.get("id")) for item in replayed.history]
    assert again[: len(seen)] == seen


async def test_steering_inputs_are_in_the_history_where_they_were_applied(
    server: "ResponsesServer",
) -> None:
    first = hold(server.reply("one", more=["two"]), after_events=5)
    second = hold(server.reply("three", more=["four"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            receipts = [await stream.steer("Stop."), await stream.steer("Really.")]
            first.set()
            for receipt in receipts:
                assert await receipt.wait_settled() is SteerState.COMMITTED
            receipts.append(await stream.steer("Now."))
            second.set()
            await stream.get_final_response()
        assert len(stream.responses) == 3
        assert message_texts(conversation)[:-1] == [
            "Count.",
            "one",
            "Stop.",
            "Really.",
            "three",
            "Now.",
        ]
        assert receipts[0].successor == receipts[1].successor == stream.responses[1].id


@pytest.mark.parametrize("settings", [{}, {"temperature": 0.5}])
async def test_a_pending_steering_input_is_before_the_outputs_of_tools(
    server: "ResponsesServer", settings: dict[str, Any]
) -> None:
    """The next turn keeps the lane and the parent, even if its settings differ."""
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server, store=False) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            first = await stream.get_final_response()
        assert receipt.state is SteerState.PENDING
        assert len(conversation.items) == 2
        second = await conversation.create([OUTPUT], **settings)
        assert receipt.successor == second.id
        kinds = [item.get("role") or item["type"] for item in history(conversation)]
        assert kinds == ["user", "function_call", "user", "function_call_output", "assistant"]
        await conversation.create("Thanks.")
    assert [parent(request) for request in server.requests[:2]] == [None, first.id]
    assert server.requests[1]["input"] == [
        {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}
    ]
    assert len({request.lane for request in server.requests}) == 1
    assert len(server.requests[-1].history) == 6


async def test_a_pending_steering_input_that_is_lost_is_not_in_the_history(
    server: "ResponsesServer",
) -> None:
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            await stream.get_final_response()
        await server.reset_all()
        await (
            wait_all_tasks_blocked()
        )  # until the loss is known; a turn on the lost socket might commit the input
        assert receipt.state is SteerState.FAILED
        await conversation.create([OUTPUT])
        kinds = [item.get("role") or item["type"] for item in history(conversation)]
        assert kinds == ["user", "function_call", "function_call_output", "assistant"]
        await conversation.create(receipt.items)
        assert message_texts(conversation)[-2] == "In Oslo, too?"
    assert deltas(server) == [False, False, True]


async def test_a_turn_whose_successor_fails_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    """A steered turn is one turn: it fails with its last response."""
    async with open_conversation(server) as conversation:
        await conversation.create("Hello.")
        before = history(conversation)
        release = hold(server.reply("one", more=["two"]), after_events=5)
        server.answer(Reply("three", status="failed"))
        async with conversation.stream("Count.") as stream:
            receipt = await stream.steer("Stop.")
            release.set()
            with pytest.raises(ResponseFailedError):
                await stream.get_final_response()
        assert stream.response.status == "failed"
        assert receipt.state is SteerState.COMMITTED
        assert history(conversation) == before
        await conversation.create("Count again.")
        assert "Stop." not in message_texts(conversation)
        assert parent(server.requests[-1]) is None


async def test_a_steered_turn_that_is_left_early_does_not_change_the_history(
    server: "ResponsesServer",
) -> None:
    release = hold(server.reply("one", more=["two"]), after_events=5)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            async for event in stream:
                if event.type == "response.incomplete":
                    break
        assert conversation.items == ()
        assert (await conversation.create("Hi.")).output_text == 'Turn 1: you said "Hi.".'


@pytest.mark.parametrize("forget", ["clear", "replace"])
async def test_a_new_history_does_not_wait_for_a_pending_steering_input(
    server: "ResponsesServer", forget: str
) -> None:
    release = hold(server.answer([WEATHER]))
    async with open_conversation(server) as conversation:
        async with conversation.stream("Is it warm?") as stream:
            receipt = await stream.steer("In Oslo, too?")
            release.set()
            await stream.get_final_response()
        if forget == "clear":
            await conversation.clear_history()
        else:
            await conversation.replace_history([])
        response = await conversation.create("Hello.")
        assert message_texts(conversation) == ["Hello.", response.output_text]
        assert await receipt.wait_settled() is SteerState.FAILED


# --- Usage -------------------------------------------------------------------------------

FIRST = {"input_tokens": 100, "cached_tokens": 40, "output_tokens": 10, "reasoning_tokens": 4}
SECOND = {"input_tokens": 200, "cached_tokens": 60, "output_tokens": 20, "reasoning_tokens": 6}


def tokens_of(counted: Any) -> tuple[int, int, int, int]:
    """Return the tokens of statistics: read, cached, written, of reasoning."""
    return (
        counted.input_tokens,
        counted.cached_tokens,
        counted.output_tokens,
        counted.reasoning_tokens,
    )


def parts_of(usage: Any) -> tuple[int, int, int, int]:
    """Return the tokens of a usage: read, cached, written, of reasoning."""
    return (
        usage.input_tokens,
        usage.input_tokens_details.cached_tokens,
        usage.output_tokens,
        usage.output_tokens_details.reasoning_tokens,
    )


def answer_twice(server: "ResponsesServer", **second: Any) -> "trio.Event":
    """Answer a turn that will be steered, and its successor."""
    release = hold(server.reply("one", more=["two"], usage=FIRST), after_events=5)
    server.reply("three", usage=SECOND, **second)
    return release


@pytest.mark.parametrize("ending", ["completed", "failed", "incomplete"])
async def test_the_usage_of_a_steered_turn_is_the_sum_of_its_responses(
    server: "ResponsesServer", ending: str
) -> None:
    release = answer_twice(server, status=ending, reason="content_filter")
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m") as conversation,
    ):
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            async for _ in stream:
                pass
        assert stream.response.usage is not None
        assert stream.usage is not None
        assert parts_of(stream.response.usage) == (200, 60, 20, 6)
        assert parts_of(stream.usage) == (300, 100, 30, 10)
        assert stream.usage.total_tokens == 330
        assert tokens_of(conversation.statistics()) == (300, 100, 30, 10)
        assert conversation.statistics().turns == (ending == "completed")
        assert tokens_of(connection.statistics()) == (300, 100, 30, 10)


async def test_a_run_and_a_pool_count_every_response(server: "ResponsesServer") -> None:
    release = answer_twice(server)
    async with open_to(server) as pool, pool.conversation(model="m") as conversation:
        async with conversation.run_stream("Count.") as run:
            assert run.usage is None
            async for event in run:
                if event.type == "response.created" and not run.responses and not release.is_set():
                    assert run.stream is not None
                    await run.stream.steer("Stop.")
                    release.set()
            assert run.usage is not None
            assert parts_of(run.usage) == (300, 100, 30, 10)
            assert len(run.responses) == 1
        assert tokens_of(conversation.statistics()) == (300, 100, 30, 10)
        assert tokens_of(pool.statistics()) == (300, 100, 30, 10)


@pytest.mark.parametrize("reason", ["content_filter", "max_output_tokens", "a new reason"])
async def test_an_incomplete_answer_counts_kept_or_not(
    server: "ResponsesServer", reason: str
) -> None:
    server.reply("one", status="incomplete", reason=reason, usage=FIRST)
    async with open_conversation(server) as conversation:
        await conversation.create("Count.")
        assert tokens_of(conversation.statistics()) == (100, 40, 10, 4)


async def test_a_failed_response_that_is_repeated_counts(server: "ResponsesServer") -> None:
    server.reply("one", status="failed", usage=FIRST)
    server.reply("two", usage=SECOND)
    async with (
        open_steady(server) as connection,
        connection.conversation(model="m") as conversation,
    ):
        async with conversation.stream("Count.", delivery="at_least_once") as stream:
            await stream.get_final_response()
        assert stream.usage is not None
        assert parts_of(stream.usage) == (300, 100, 30, 10)
        assert tokens_of(conversation.statistics()) == (300, 100, 30, 10)
        assert tokens_of(connection.statistics()) == (300, 100, 30, 10)


async def test_a_steered_turn_that_is_left_counts_what_was_read(server: "ResponsesServer") -> None:
    release = answer_twice(server)
    async with open_conversation(server) as conversation:
        async with conversation.stream("Count.") as stream:
            await stream.steer("Stop.")
            release.set()
            async for event in stream:
                if event.type == "response.incomplete":
                    break
        assert tokens_of(conversation.statistics()) == (100, 40, 10, 4)
        assert conversation.statistics().turns == 0


async def test_an_abandoned_response_counts_for_its_connection(server: "ResponsesServer") -> None:
    server.reply("one", usage=FIRST)
    async with server.open_client() as connection:
        async with connection.stream(model="m", input="Count."):
            pass
        await connection.create(model="m", input="Count again.")
        before = tokens_of(connection.statistics())[0]
        assert before > 100


async def test_a_server_that_counts_nothing_has_no_usage(
    narrow_server: "ResponsesServer",
) -> None:
    narrow_server.answer([created(), ended()])
    async with narrow_server.open_client() as connection:
        async with connection.stream(model="m", input="Count.") as stream:
            await stream.get_final_response()
        assert stream.usage is None
        assert tokens_of(connection.statistics()) == (0, 0, 0, 0)
