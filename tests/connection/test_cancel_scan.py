"""A cancellation at every step of a turn over real sockets, where most frames are taken at once."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Literal, TypeAlias

import pytest
import trio
import trustme

from tests.testing.driver import OVER_SOCKETS
from tests.transport.proxies import server_context, trusting
from tests.turn.rig import NEVER_AGAIN, ask, ask_strictly, assert_at_rest, heard
from tests.turn.test_leaving import CancelAtStep
from trio_responses import ConnectionLost, DeliveryStatus, function_tool, open_pool, open_responses
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from trio_responses import ResponsesConnection, ResponsesPool
    from trio_responses._turn.methods import TurnMethods
    from trio_responses.testing import ResponsesServer

    Way: TypeAlias = Callable[["Setup"], Awaitable[None]]

pytestmark = OVER_SOCKETS

When: TypeAlias = Literal["arriving", "waiting", "checking"]
"""Whether the task is cancelled before its n-th step, after it, or at its n-th look for a
cancellation, which may let no other task run."""
WHENS: Final[tuple[When, ...]] = ("arriving", "waiting", "checking")
CHECKS: Final = (
    "trio.lowlevel",
    "trio_responses._turn.stream",
    "trio_responses._turn.inbox",
    "trio_responses._transport.socket_stream",
)
"""The modules with a name for the function that looks for a cancellation."""


class CancelAtCheck(CancelAtStep):
    """Cancels a scope at the n-th look of a task for a cancellation."""

    def before_task_step(self, task: trio.lowlevel.Task) -> None:
        """Ignore a step."""

    def after_task_step(self, task: trio.lowlevel.Task) -> None:
        """Ignore a step."""

    def patch(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Count the looks for a cancellation."""
        check = trio.lowlevel.checkpoint_if_cancelled

        async def counting_check() -> None:
            if trio.lowlevel.current_task() is self.task:
                if self.steps == self.at:
                    self.scope.cancel()
                self.steps += 1
            await check()

        for module in CHECKS:
            monkeypatch.setattr(f"{module}.checkpoint_if_cancelled", counting_check)


@dataclass
class Setup:
    """What the turns of a test use."""

    server: ResponsesServer
    turns: TurnMethods


@function_tool
async def look_up(city: str) -> str:
    """Look up a city."""
    await trio.lowlevel.checkpoint()
    return f"{city} is sunny"


async def by_create(setup: Setup) -> None:
    assert await ask(setup.turns, "victim") == heard("victim")


async def by_stream(setup: Setup) -> None:
    params: dict[str, Any] = {"model": "m", "input": "victim"}
    async with setup.turns.stream(**params) as stream:
        assert "".join([piece async for piece in stream.text_deltas()]) == heard("victim")


async def by_leaving(setup: Setup) -> None:
    params: dict[str, Any] = {"model": "m", "input": "victim"}
    async with setup.turns.stream(**params):
        await trio.lowlevel.checkpoint()


async def by_run(setup: Setup) -> None:
    setup.server.call("look_up", {"city": "Paris"})
    setup.server.reply("sunny")
    turns: Any = setup.turns  # connections and pools have conversations
    async with turns.conversation(model="m", tools=[look_up]) as conversation:
        result = await conversation.run("victim")
        assert result.output_text == "sunny"


WAYS: Final[dict[str, Way]] = {
    "create": by_create,
    "stream": by_stream,
    "leave": by_leaving,
    "run": by_run,
}


async def scan(
    setup: Setup,
    way: str,
    when: When,
    at_rest: Callable[[], None],
    requests_sent: Callable[[], int],
) -> None:
    """Cancel at each step in turn, until the way ends before its step; look at what is left.

    The next turn gets its own events and no others, and each request that counts as sent has
    reached the server, once.
    """
    step, cancelled = 0, True
    while cancelled:
        with pytest.MonkeyPatch.context() as monkeypatch:
            canceller: CancelAtStep
            if when == "checking":
                canceller = checking = CancelAtCheck(step, "waiting")
                checking.patch(monkeypatch)
            else:
                canceller = CancelAtStep(step, when)
            cancelled = await canceller.run(lambda: WAYS[way](setup))
        setup.server.clear_scripts()
        await ask_strictly(setup.turns, f"after step {step}")
        await trio.testing.wait_all_tasks_blocked()
        while setup.server.statistics().active:  # noqa: ASYNC110 - the server has no event for it
            await trio.sleep(1)
        at_rest()
        assert requests_sent() == len(setup.server.requests)
        assert setup.server.statistics().handshakes == setup.server.statistics().open
        step += 1
    assert step >= 2


async def scan_connection(
    server: ResponsesServer, way: str, when: When, connection: ResponsesConnection
) -> None:
    """Scan turns of a connection; after that, a lost turn has the delivery status of its own."""
    await scan(
        Setup(server, connection),
        way,
        when,
        lambda: assert_at_rest(connection),
        lambda: connection.statistics().requests_sent,
    )
    server.drop(after_events=0)
    with pytest.raises(ConnectionLost) as caught:
        await ask(connection, "lost")
    assert caught.value.delivery is DeliveryStatus.AMBIGUOUS


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("way", WAYS)
async def test_a_turn_of_a_connection_may_be_cancelled_at_every_step(way: str, when: When) -> None:
    async with (
        open_test_server(max_age=None) as server,
        open_responses(
            await server.serve_tcp(), api_key="key", proxy=None, reconnect=NEVER_AGAIN
        ) as connection,
    ):
        await scan_connection(server, way, when, connection)


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("way", ["create", "leave"])
async def test_a_turn_over_tls_may_be_cancelled_at_every_step(way: str, when: When) -> None:
    authority = trustme.CA()
    context = server_context(authority, "127.0.0.1")
    async with (
        open_test_server(max_age=None) as server,
        open_responses(
            await server.serve_tcp(ssl_context=context),
            api_key="key",
            proxy=None,
            reconnect=NEVER_AGAIN,
            ssl_context=trusting(authority),
        ) as connection,
    ):
        await scan_connection(server, way, when, connection)


@pytest.mark.parametrize("when", WHENS)
@pytest.mark.parametrize("way", ["create", "leave", "run"])
async def test_a_turn_of_a_pool_may_be_cancelled_at_every_step(way: str, when: When) -> None:
    async with (
        open_test_server(max_age=None) as server,
        open_pool(await server.serve_tcp(), api_key="key", proxy=None, size=1) as pool,
    ):
        await scan(
            Setup(server, pool),
            way,
            when,
            lambda: assert_pool_at_rest(pool),
            lambda: sum(one.requests_sent for one in pool.statistics().connections),
        )


def assert_pool_at_rest(pool: ResponsesPool) -> None:
    for one in pool.statistics().connections:
        assert one.requests_active == 0
        assert one.unread_bytes == 0
