"""P4, P7: in runs of many rounds each call runs once, wherever the socket is lost."""

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import deltas, history, open_conversation
from tests.conversation.runs.rig import DONE, Worker, is_paired, keep_calling, outputs
from tests.turn.rig import Crowd, assert_at_rest
from trio_responses import ConnectionLost, MaxRoundsExceeded
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses.testing import How, Request, ResponsesServer

ROUNDS = 20
FEWER_ROUNDS = 8
"""The rounds of a run in the tests that run once for each place of a loss."""
AT_ONCE = 3
FRAMES = 18
"""The number of frames of a response with the calls of one round."""
IN_ORDER = [[f"{r}/{n}" for n in range(AT_ONCE)] for r in range(ROUNDS)]


def once(rounds: int) -> dict[tuple[int, int], int]:
    """Return the runs of each call if each has run once."""
    return {(r, n): 1 for r in range(rounds) for n in range(AT_ONCE)}


async def run_through(
    server: "ResponsesServer", *, rounds: int = ROUNDS, **options: Any
) -> tuple[Worker, list[Any]]:
    """Run all rounds, and check that each call ran once; return the tool and the history."""
    server.respond_with(keep_calling(rounds, AT_ONCE))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        response = await conversation.run("Work.", max_rounds=rounds + 1, **options)
        assert response.output_text == DONE
        items = history(conversation)
    assert worker.runs == once(rounds)
    assert is_paired(items)
    assert len(items) == 2 + 2 * rounds * AT_ONCE
    return worker, items


def grows(requests: "Sequence[Request]") -> bool:
    """Whether each history begins with the one before."""
    return all(
        after.history[: len(before.history)] == before.history
        for before, after in pairwise(requests)
        if before.history and after.history
    )


async def test_twenty_rounds_of_three_calls(server: "ResponsesServer") -> None:
    worker, _ = await run_through(server)
    assert worker.most == AT_ONCE
    assert [outputs(request) for request in server.requests] == [[], *IN_ORDER]
    assert deltas(server) == [False] + [True] * ROUNDS
    assert is_paired(server.requests[-1].history)


async def frames_of_a_round() -> int:
    """Return the number of frames of a response with three calls."""
    async with open_test_server(max_age=None) as server:
        server.respond_with(keep_calling(1, AT_ONCE))
        async with (
            open_conversation(server, tools=[Worker().tool]) as conversation,
            conversation.stream("Work.") as stream,
        ):
            return len([event async for event in stream])


@pytest.mark.parametrize(("how", "step"), [("reset", 1), ("fin", 4), (1011, 5)])
async def test_each_call_runs_once_if_each_round_loses_its_socket(how: "How", step: int) -> None:
    """Each first attempt loses its socket after the same frame; each second one succeeds."""
    frames = await frames_of_a_round()
    assert frames == FRAMES
    for place in range(0, frames, step):
        async with open_test_server(max_age=None) as server:
            for _ in range(FEWER_ROUNDS):
                server.drop(after_events=place, how=how)
                server.answer()
            await run_through(server, rounds=FEWER_ROUNDS, delivery="at_least_once")
            assert is_paired(server.requests[-1].history)
            assert grows(server.requests)
            assert len(server.requests) == 2 * FEWER_ROUNDS + 1
            seconds = server.requests[2::2]
            assert [outputs(request)[-AT_ONCE:] for request in seconds] == IN_ORDER[:FEWER_ROUNDS]


@pytest.mark.parametrize("how", ["reset", "fin", 1000])
async def test_nothing_is_sent_twice_if_sockets_are_lost_between_turns(
    server: "ResponsesServer", how: "How"
) -> None:
    """No turn is active while the tools run."""
    for _ in range(ROUNDS):
        server.drop(after_events=None, how=how)
    await run_through(server)
    assert len(server.requests) == ROUNDS + 1
    assert deltas(server) == [False] * (ROUNDS + 1)
    assert is_paired(server.requests[-1].history)


async def test_each_call_runs_once_if_one_round_loses_its_socket() -> None:
    """The step has no common factor with FRAMES, so that all places in a round are tried."""
    for place in range(0, FEWER_ROUNDS * FRAMES, 7):
        async with open_test_server(max_age=None) as server:
            for _ in range(place // FRAMES):
                server.answer()
            server.drop(after_events=place % FRAMES)
            await run_through(server, rounds=FEWER_ROUNDS, delivery="at_least_once")
            assert len(server.requests) == FEWER_ROUNDS + 2
            assert is_paired(server.requests[-1].history)


async def test_a_run_that_lost_its_socket_continues_in_the_next_run(
    server: "ResponsesServer",
) -> None:
    """By default the run raises an error; the next run does not run a call again."""
    for place in range(FRAMES):
        server.answer()
        server.drop(after_events=place)
    server.respond_with(keep_calling(ROUNDS, AT_ONCE))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        losses = count()
        new: Any = "Work."
        while True:
            try:
                response = await conversation.run(new, max_rounds=ROUNDS + 1)
                break
            except ConnectionLost:
                next(losses)
                new = ()
        assert response.output_text == DONE
        assert is_paired(history(conversation))
    assert next(losses) == FRAMES
    assert worker.runs == once(ROUNDS)


async def test_a_conversation_can_be_continued_after_max_rounds(server: "ResponsesServer") -> None:
    server.respond_with(keep_calling(3, 2))
    worker = Worker()
    async with open_conversation(server, tools=[worker.tool]) as conversation:
        with pytest.raises(MaxRoundsExceeded, match="last of 2 rounds") as spent:
            await conversation.run("Work.", max_rounds=2)
        assert spent.value.rounds == 2
        assert [call.call_id for call in spent.value.response.function_calls] == ["1-0", "1-1"]
        assert spent.value.response.id == conversation.last_response_id
        assert set(worker.runs) == {(0, 0), (0, 1)}
        response = await conversation.run()
        assert response.output_text == DONE
        assert is_paired(history(conversation))
    assert set(worker.runs.values()) == {1}
    assert [outputs(request) for request in server.requests][2] == ["1/0", "1/1"]


async def test_runs_of_many_conversations_share_a_connection(server: "ResponsesServer") -> None:
    server.respond_with(keep_calling(5, 2))
    workers = [Worker() for _ in range(8)]

    async with server.open_client() as connection:

        async def run_conversation(worker: Worker) -> None:
            async with connection.conversation(model="m", tools=[worker.tool]) as conversation:
                response = await conversation.run("Work.")
                assert response.output_text == DONE
                assert is_paired(history(conversation))

        async with Crowd(), trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(run_conversation, worker)
        assert_at_rest(connection)
    for worker in workers:
        assert worker.runs == {(r, n): 1 for r in range(5) for n in range(2)}
