"""A fork and its source have the same past, and do not affect each other afterwards."""

from contextlib import suppress

import pytest
import trio
from trio.testing import wait_all_tasks_blocked

from tests.conversation.rig import (
    deltas,
    history,
    message_texts,
    open_conversation,
    open_steady,
    parent,
    reserve_all_lanes,
)
from trio_responses import (
    APIError,
    ConfigurationError,
    ConnectionLost,
    Conversation,
    ResponsesError,
)
from trio_responses.testing import ResponsesServer

FORK = "lane-31"
"""The lane that the first fork reserves."""


@pytest.mark.parametrize("store", [True, False])
@pytest.mark.parametrize("fork_first", [True, False])
async def test_source_and_fork_continue_the_common_parent_with_deltas(
    server: ResponsesServer, *, store: bool, fork_first: bool
) -> None:
    async with open_conversation(server, store=store) as conversation:
        first = await conversation.create("one")
        branch = conversation.fork()
        assert history(branch) == history(conversation)
        assert branch.last_response_id == first.id
        async with trio.open_nursery() as nursery:
            for turn in [branch, conversation] if fork_first else [conversation, branch]:
                nursery.start_soon(turn.create, "b" if turn is branch else "two")
                await wait_all_tasks_blocked()
        await branch.create("c")
        await conversation.create("three")
        assert message_texts(conversation)[::2] == ["one", "two", "three"]
        assert message_texts(branch)[::2] == ["one", "b", "c"]
        assert message_texts(branch)[5] == 'Turn 3: you said "c".'
        lanes = {request.lane: parent(request) for request in server.requests[1:3]}
    if fork_first:
        assert lanes == {"lane-32": first.id, FORK: first.id}
        assert deltas(server) == [False, True, True, True, True]


async def test_a_fork_whose_source_had_a_turn_sends_its_first_turn_in_full(
    server: ResponsesServer,
) -> None:
    """The server holds only the latest response of a lane."""
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        await conversation.create("two")
        assert (await branch.create("b")).output_text == 'Turn 2: you said "b".'
        await branch.create("c")
    assert deltas(server) == [False, True, False, True]


async def test_a_fork_outlives_its_socket(server: ResponsesServer) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        await server.reset_all()
        assert (await branch.create("b")).output_text == 'Turn 2: you said "b".'
        assert (await conversation.create("two")).output_text == 'Turn 2: you said "two".'
    assert deltas(server) == [False, False, False]


async def test_an_empty_conversation_can_be_forked(server: ResponsesServer) -> None:
    async with open_conversation(server, store=False) as conversation:
        branch = conversation.fork()
        await branch.create("b")
        await conversation.create("one")
        assert message_texts(conversation)[0] == "one"
        assert message_texts(branch)[0] == "b"


async def test_a_fork_can_be_forked(server: ResponsesServer) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        twig = branch.fork()
        await twig.create("c")
        await branch.create("b")
        await conversation.create("two")
        assert [message_texts(one)[2] for one in (conversation, branch, twig)] == ["two", "b", "c"]
    assert deltas(server) == [False, True, True, True]


async def test_a_reset_of_the_source_does_not_change_the_fork(server: ResponsesServer) -> None:
    async with open_conversation(server) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        conversation.reset()
        await branch.create("b")
        assert message_texts(branch)[::2] == ["one", "b"]
        assert conversation.items == ()
    assert deltas(server) == [False, True]


async def test_a_fork_has_the_settings_of_its_source(server: ResponsesServer) -> None:
    async with open_conversation(server, instructions="Be brief.") as conversation:
        await conversation.fork().create("b")
    assert server.requests[0]["instructions"] == "Be brief."


async def test_a_failed_fork_does_not_evict_the_common_parent(server: ResponsesServer) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        server.fail("invalid_value", status=400)
        with pytest.raises(APIError):
            await branch.create("b")
        await branch.create("c")
        await conversation.create("two")
        assert message_texts(branch)[::2] == ["one", "c"]
    assert deltas(server) == [False, True, True, True]


async def test_a_fork_whose_parent_is_forgotten_is_sent_again_in_full_once(
    server: ResponsesServer,
) -> None:
    """The fork does not try a second delta, although the lane seems to hold the parent."""
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        server.fail("previous_response_not_found", status=400)
        assert (await branch.create("b")).output_text == 'Turn 2: you said "b".'
    assert deltas(server) == [False, True, False]


async def test_forks_reserve_lanes_until_the_block_of_their_source_ends(
    server: ResponsesServer,
) -> None:
    async with open_steady(server) as connection:
        async with connection.conversation(model="m") as conversation:
            for _ in range(31):
                conversation.fork()
            with pytest.raises(ConfigurationError, match="32 lanes of the connection are reserved"):
                conversation.fork()
        await reserve_all_lanes(connection)


async def test_without_lanes_forks_share_the_default_lane(narrow_server: ResponsesServer) -> None:
    async with open_conversation(narrow_server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        async with trio.open_nursery() as nursery:
            nursery.start_soon(branch.create, "b")
            nursery.start_soon(conversation.create, "two")
        await branch.create("c")
        await conversation.create("three")
        assert message_texts(branch)[::2] == ["one", "b", "c"]
        assert message_texts(conversation)[::2] == ["one", "two", "three"]
    assert {request.lane for request in narrow_server.requests} == {None}


# --- The source waits --------------------------------------------------------------------


def requests_on(server: ResponsesServer, lane: str) -> int:
    return sum(request.lane == lane for request in server.requests)


async def attempt(conversation: Conversation, text: str) -> None:
    with suppress(ResponsesError):
        await conversation.create(text)


@pytest.mark.parametrize("after_events", [0, 1])
async def test_without_a_store_the_source_waits_until_the_fork_is_in_progress(
    server: ResponsesServer, after_events: int
) -> None:
    """The next turn of the source would make the server forget the common parent."""
    server.answer().on_lane(FORK).stall(after_events=after_events, seconds=10)
    server.answer()
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(branch.create, "b")
        await wait_all_tasks_blocked()
        nursery.start_soon(conversation.create, "two")
        await trio.sleep(9)
        assert (requests_on(server, FORK), requests_on(server, "lane-32")) == (1, 1)
        await trio.sleep(2)
        assert requests_on(server, "lane-32") == 2
    assert deltas(server) == [False, True, True]


async def test_the_source_does_not_wait_for_the_end_of_the_fork(server: ResponsesServer) -> None:
    server.answer().on_lane(FORK).stall(after_events=2, seconds=40)
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(branch.create, "b")
        await wait_all_tasks_blocked()
        with trio.fail_after(20):
            await conversation.create("two")
        nursery.cancel_scope.cancel()


async def test_with_a_store_the_source_does_not_wait(server: ResponsesServer) -> None:
    """A stored response can be continued after the lane has had another one."""
    server.answer().on_lane(FORK).stall(seconds=40)
    async with open_conversation(server) as conversation, trio.open_nursery() as nursery:
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(branch.create, "b")
        await wait_all_tasks_blocked()
        with trio.fail_after(20):
            await conversation.create("two")


async def test_the_source_waits_for_each_of_its_forks(server: ResponsesServer) -> None:
    server.answer().on_lane(FORK).stall(after_events=1, seconds=10)
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        slow, fast = conversation.fork(), conversation.fork()
        nursery.start_soon(slow.create, "b")
        await wait_all_tasks_blocked()
        await fast.create("c")
        started = trio.current_time()
        await conversation.create("two")
        assert trio.current_time() - started == 10
    assert deltas(server) == [False, True, True, True]


async def test_a_fork_that_never_starts_is_not_waited_for(server: ResponsesServer) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        conversation.fork()
        with trio.fail_after(1):
            await conversation.create("two")


async def test_the_source_waits_for_the_first_turn_of_a_fork_only(server: ResponsesServer) -> None:
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        await branch.create("b")
        server.answer().on_lane(FORK).stall(seconds=40)
        nursery.start_soon(branch.create, "c")
        await wait_all_tasks_blocked()
        with trio.fail_after(20):
            await conversation.create("two")


@pytest.mark.parametrize("how", ["error", "response.failed", "cut off"])
async def test_a_fork_that_fails_is_not_waited_for(server: ResponsesServer, how: str) -> None:
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        if how == "cut off":
            server.drop().stall(seconds=5)
        else:
            server.fail(shape="nested" if how == "error" else "failed").stall(seconds=5)
        nursery.start_soon(attempt, branch, "b")
        await wait_all_tasks_blocked()
        with trio.fail_after(20):
            response = await conversation.create("two")
        assert response.output_text == 'Turn 2: you said "two".'
        await branch.create("c")
        assert message_texts(branch)[::2] == ["one", "c"]


@pytest.mark.parametrize("after_events", [0, 1])
async def test_a_fork_that_is_cancelled_is_not_waited_for(
    server: ResponsesServer, after_events: int
) -> None:
    server.answer().on_lane(FORK).stall(after_events=after_events, seconds=40)
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(branch.create, "b")
        await wait_all_tasks_blocked()
        nursery.cancel_scope.deadline = trio.current_time() + 5
        with trio.CancelScope(shield=True), trio.fail_after(20):
            started = trio.current_time()
            await conversation.create("two")
            assert trio.current_time() - started == 5


async def test_a_fork_that_waits_for_a_socket_is_waited_for_and_cancelled(
    server: ResponsesServer,
) -> None:
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        branch = conversation.fork()
        server.stop_accepting()
        await server.reset_all()
        await wait_all_tasks_blocked()
        with trio.move_on_after(0.5) as scope:
            await branch.create("b")
        assert scope.cancelled_caught
        server.accept_again()
        assert (await conversation.create("two")).output_text == 'Turn 2: you said "two".'


async def test_a_source_that_is_cancelled_while_it_waits_sends_nothing(
    server: ResponsesServer,
) -> None:
    """Its next turn waits again."""
    server.answer().on_lane(FORK).stall(seconds=10)
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(branch.create, "b")
        await wait_all_tasks_blocked()
        started = trio.current_time()
        with trio.move_on_after(3) as scope:
            await conversation.create("lost")
        assert scope.cancelled_caught
        await conversation.create("two")
        assert trio.current_time() - started == 10
        assert message_texts(conversation)[::2] == ["one", "two"]
    assert deltas(server) == [False, True, True]


async def test_a_fork_that_lost_its_socket_is_sent_again_in_full_if_allowed(
    server: ResponsesServer,
) -> None:
    server.drop().on_lane(FORK).stall(seconds=1)
    async with (
        open_conversation(server, store=False) as conversation,
        trio.open_nursery() as nursery,
    ):
        await conversation.create("one")
        branch = conversation.fork()
        nursery.start_soon(lambda: branch.create("b", delivery="at_least_once"))
        await wait_all_tasks_blocked()
        await conversation.create("two")
        await branch.create("c")
        assert message_texts(branch)[::2] == ["one", "b", "c"]


async def test_a_fork_whose_socket_is_lost_raises_connection_lost(server: ResponsesServer) -> None:
    server.drop().on_lane(FORK)
    async with open_conversation(server, store=False) as conversation:
        await conversation.create("one")
        with pytest.raises(ConnectionLost):
            await conversation.fork().create("b")
        await conversation.create("two")
