"""Random faults in a random order: each turn ends, and each place is released."""

import random
from typing import Any

import pytest
import trio

from tests.pool.rig import assert_all_places_are_free, close_frame, open_to
from tests.turn.rig import Crowd
from trio_responses import Conversation, ReconnectPolicy, ResponsesError, RotationPolicy
from trio_responses._pool import ResponsesPool
from trio_responses._turn.methods import TurnMethods
from trio_responses.testing import Reply, Request, ResponsesServer

TURNS = 150
CODES = (1001, 1008, 1011, 4000)


class Chaos:
    """The turns and faults of one run, chosen by a seed."""

    def __init__(self, seed: int, server: ResponsesServer) -> None:
        self.chance = random.Random(seed)  # noqa: S311 - for a test
        self.server = server
        self.ended = 0
        self.answered = 0
        self.parents: list[str] = []
        server.respond_with(self.answer)

    async def answer(self, request: Request) -> Reply:
        await trio.sleep(self.chance.uniform(0, 3))
        return Reply(request.text)

    async def run_turns(self, pool: ResponsesPool) -> None:
        async with trio.open_nursery() as nursery:
            for number in range(TURNS):
                nursery.start_soon(self.run_turn, pool, f"{number}")
                await trio.sleep(self.chance.expovariate(10))

    async def run_turn(self, pool: ResponsesPool, text: str) -> None:
        try:
            with trio.move_on_after(self.chance.choice([0.5, 5, 500])):
                if self.chance.random() < 0.2:
                    async with pool.conversation(model="m", store=False) as conversation:
                        await self.ask(conversation, text)
                        await self.ask(await conversation.fork(), text)
                else:
                    await self.ask(pool, text)
        except ResponsesError:
            pass
        self.ended += 1

    async def ask(self, turns: TurnMethods | Conversation, text: str) -> None:
        params: dict[str, Any] = {} if isinstance(turns, Conversation) else {"model": "m"}
        if params and self.parents and self.chance.random() < 0.3:
            params["previous_response_id"] = self.chance.choice(self.parents)
        params["delivery"] = self.chance.choice(["at_most_once", "at_least_once"])
        response = await turns.create(input=text, **params)
        assert response.output_text == text
        self.answered += 1
        self.parents.append(response.id)

    async def break_things(self) -> None:
        while True:
            await trio.sleep(self.chance.expovariate(0.7))
            match self.chance.randrange(6):
                case 0:
                    await self.server.hang_up_all()
                case 1:
                    self.server.refuse(503, times=self.chance.randrange(1, 4))
                case 2:
                    self.server.refuse(401)
                case 3:
                    self.server.drop(after_events=self.chance.randrange(4))
                case _:
                    number = self.chance.randrange(1, len(self.server.connections) + 1)
                    frame = close_frame(self.chance.choice(CODES))
                    await self.server.send_raw(frame, connection=number)


@pytest.mark.parametrize("lanes", [True, False])
@pytest.mark.parametrize("seed", range(3))
async def test_each_turn_ends_and_each_place_is_released(
    server: ResponsesServer, seed: int, *, lanes: bool
) -> None:
    chaos = Chaos(seed, server)
    options: dict[str, Any] = {
        "reconnect": ReconnectPolicy(initial=0.2, attempts=3),
        "rotation": RotationPolicy(max_age=5),
        "transport": "websocket",
    }
    async with Crowd(), open_to(server, lanes=lanes, size=4, **options) as pool:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(chaos.break_things)
            await chaos.run_turns(pool)
            nursery.cancel_scope.cancel()
        assert chaos.ended == TURNS
        assert chaos.answered > TURNS / 10
        assert pool.statistics().turns_waiting == 0
        server.clear_scripts()
        chaos.parents.clear()
        await chaos.ask(pool, "after all faults")
        await trio.sleep(100)
        assert pool.statistics().requests_active == 0
        assert pool.statistics().connections_opening == 0
        # Private: a lane that stays pinned shows in the choice of connections only.
        assert all(one.turns == one.pinned == 0 for one in pool._scheduler.connections)
        await assert_all_places_are_free(pool, server, size=4, places=16 if lanes else 1)
