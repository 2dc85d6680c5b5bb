"""P4, P7: runs of many rounds, whatever becomes of the socket: each call is run once."""

from itertools import count, pairwise
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.conversation.rig import deltas, history, open_talk
from tests.runs.rig import DONE, Worker, is_paired, keep_calling, outputs
from tests.turn.rig import Crowd, assert_at_rest
from trio_responses import ConnectionLost, MaxRoundsExceeded
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from trio_responses.testing import Request, ResponsesServer
    from trio_responses.testing._scripts import How

ROUNDS = 20
AT_ONCE = 3
FRAMES = 18
"""Those that bring the calls of one round."""
ONCE = {(r, n): 1 for r in range(ROUNDS) for n in range(AT_ONCE)}
IN_ORDER = [[f"{r}/{n}" for n in range(AT_ONCE)] for r in range(ROUNDS)]


async def run_through(server: "ResponsesServer", **options: Any) -> tuple[Worker, list[Any]]:
    """Run all rounds; give the tool and the history."""
    server.respond_with(keep_calling(ROUNDS, AT_ONCE))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        response = await talk.run("Work.", max_rounds=ROUNDS + 1, **options)
        assert response.output_text == DONE
        items = history(talk)
    assert is_paired(items)
    assert len(items) == 2 + 2 * ROUNDS * AT_ONCE
    return worker, items


def grows(requests: "list[Request]") -> bool:
    """Say whether each history goes on from the one before, or is the same once more."""
    return all(
        after.history[: len(before.history)] == before.history
        for before, after in pairwise(requests)
        if before.history and after.history
    )


async def test_twenty_rounds_of_three_calls(server: "ResponsesServer") -> None:
    worker, _ = await run_through(server)
    assert worker.runs == ONCE
    assert worker.most == AT_ONCE
    assert [outputs(request) for request in server.requests] == [[], *IN_ORDER]
    assert deltas(server) == [False] + [True] * ROUNDS
    assert is_paired(server.requests[-1].history)


async def frames_of_a_round() -> int:
    """Count the frames that bring three calls."""
    async with open_test_server(max_age=None) as server:
        server.respond_with(keep_calling(1, AT_ONCE))
        async with open_talk(server, tools=[Worker().tool]) as talk, talk.stream("Work.") as stream:
            return len([event async for event in stream])


@pytest.mark.parametrize(("how", "step"), [("reset", 1), ("fin", 4), (1011, 5)])
async def test_every_round_is_cut_at_each_frame_in_turn(how: "How", step: int) -> None:
    """The socket ends after the same frame of all of the run's responses, but their repetitions."""
    frames = await frames_of_a_round()
    assert frames == FRAMES
    for place in range(0, frames, step):
        async with open_test_server(max_age=None) as server:
            for _ in range(ROUNDS):
                server.drop(after_events=place, how=how)
                server.answer()
            worker, _ = await run_through(server, delivery="at_least_once")
            assert worker.runs == ONCE, place
            assert is_paired(server.requests[-1].history)
            assert grows(server.requests)
            assert len(server.requests) == 2 * ROUNDS + 1
            assert [outputs(server.requests[2 * r + 2])[-AT_ONCE:] for r in range(ROUNDS)] == (
                IN_ORDER
            )


@pytest.mark.parametrize("how", ["reset", "fin", 1000])
async def test_the_socket_is_lost_behind_each_response(
    server: "ResponsesServer", how: "How"
) -> None:
    """While the tools run there is no turn to lose: nothing has to be sent twice."""
    for _ in range(ROUNDS):
        server.drop(after_events=None, how=how)
    worker, _ = await run_through(server)
    assert worker.runs == ONCE
    assert len(server.requests) == ROUNDS + 1
    assert deltas(server) == [False] * (ROUNDS + 1)
    assert is_paired(server.requests[-1].history)


async def test_one_cut_somewhere_in_a_run_changes_nothing() -> None:
    """One of each kind of place: the step shares no factor with the frames of a round."""
    for place in range(0, ROUNDS * FRAMES, 17):
        async with open_test_server(max_age=None) as server:
            for _ in range(place // FRAMES):
                server.answer()
            server.drop(after_events=place % FRAMES)
            worker, _ = await run_through(server, delivery="at_least_once")
            assert worker.runs == ONCE, place
            assert len(server.requests) == ROUNDS + 2
            assert is_paired(server.requests[-1].history)


async def test_a_lost_run_goes_on_where_it_was(server: "ResponsesServer") -> None:
    """Without leave to send twice the run raises; the next one runs no call again."""
    for place in range(FRAMES):
        server.answer()
        server.drop(after_events=place)
    server.respond_with(keep_calling(ROUNDS, AT_ONCE))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        losses = count()
        new: Any = "Work."
        while True:
            try:
                response = await talk.run(new, max_rounds=ROUNDS + 1)
                break
            except ConnectionLost:
                next(losses)
                new = ()
        assert response.output_text == DONE
        assert is_paired(history(talk))
    assert next(losses) == FRAMES
    assert worker.runs == ONCE


async def test_spent_rounds_leave_the_conversation_intact(server: "ResponsesServer") -> None:
    server.respond_with(keep_calling(3, 2))
    worker = Worker()
    async with open_talk(server, tools=[worker.tool]) as talk:
        with pytest.raises(MaxRoundsExceeded, match="after 2 rounds") as spent:
            await talk.run("Work.", max_rounds=2)
        assert spent.value.rounds == 2
        assert [call.call_id for call in spent.value.response.function_calls] == ["1-0", "1-1"]
        assert spent.value.response.id == talk.last_response_id
        assert set(worker.runs) == {(0, 0), (0, 1)}
        response = await talk.run()
        assert response.output_text == DONE
        assert is_paired(history(talk))
    assert set(worker.runs.values()) == {1}
    assert [outputs(request) for request in server.requests][2] == ["1/0", "1/1"]


async def test_runs_of_many_conversations_share_a_connection(server: "ResponsesServer") -> None:
    server.respond_with(keep_calling(5, 2))
    workers = [Worker() for _ in range(8)]

    async with server.open_client() as connection:

        async def talk(worker: Worker) -> None:
            async with connection.conversation(model="m", tools=[worker.tool]) as conversation:
                response = await conversation.run("Work.")
                assert response.output_text == DONE
                assert is_paired(history(conversation))

        async with Crowd(), trio.open_nursery() as nursery:
            for worker in workers:
                nursery.start_soon(talk, worker)
        assert_at_rest(connection)
    for worker in workers:
        assert worker.runs == {(r, n): 1 for r in range(5) for n in range(2)}
