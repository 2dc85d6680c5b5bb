"""Tests of steering and compaction in the test server with openai-python."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeAlias

import pytest
import trio

from tests.interop.clients import ENDS, MODEL, async_wire, sync_wire
from trio_responses.testing import Call, open_test_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from tests.interop.clients import Json, Wire
    from trio_responses.testing import ResponsesServer

    Exchange: TypeAlias = Callable[[Wire, Callable[[], None]], list[Json]]

WEATHER = Call("get_weather", {"city": "Paris"}, call_id="call_1", unoffered=True)
OUTPUT = {"type": "function_call_output", "call_id": "call_1", "output": "21 degrees"}


@pytest.fixture(params=["sync", "async"])
def run(request: pytest.FixtureRequest, openai_sdk: Any) -> Callable[..., Any]:
    """Return a function that runs an exchange of the SDK with a server in a thread."""
    pytest.importorskip("openai.types.responses.response_steer_accepted_event")
    open_wire = sync_wire if request.param == "sync" else async_wire

    async def run(server: ResponsesServer, exchange: Exchange, gate: trio.Event) -> list[Json]:
        url = await server.serve_tcp()

        def work() -> list[Json]:
            with open_wire(openai_sdk, url) as wire:
                return exchange(wire, lambda: trio.from_thread.run_sync(gate.set))

        return await trio.to_thread.run_sync(work, abandon_on_cancel=True)

    return run


def create(wire: Wire, value: object, **fields: Any) -> None:
    wire.send({"type": "response.create", "model": MODEL, "input": value, **fields})


def steer(wire: Wire, response_id: str, value: object) -> Json:
    wire.send({"type": "response.steer", "previous_response_id": response_id, "input": value})
    return wire.receive()


def read(wire: Wire, *ends: str) -> list[Json]:
    events = [wire.receive()]
    while events[-1]["type"] not in ends:
        events.append(wire.receive())
    return events


async def test_steering_interrupts_a_response_and_starts_a_successor(
    run: Callable[..., Any],
) -> None:
    gate = trio.Event()

    def exchange(wire: Wire, go_on: Callable[[], None]) -> list[Json]:
        create(wire, "hi", stream_id="a")
        events = read(wire, "response.in_progress")
        events.append(steer(wire, events[0]["response"]["id"], "shorter"))
        go_on()
        return [*events, *read(wire, *ENDS), *read(wire, *ENDS)]

    async with open_test_server() as server:
        server.reply("one", more=["two"]).hold(gate, after_events=2)
        events = await run(server, exchange, gate)
    assert events[2]["type"] == "response.steer.accepted"
    assert events[2]["steer"]["id"] == server.steers[0].id
    assert events[3]["type"] == "response.incomplete"
    assert events[3]["response"]["incomplete_details"] == {"reason": "steered"}
    assert events[4]["type"] == "response.created"
    assert events[-1]["type"] == "response.completed"
    assert {event["stream_id"] for event in events} == {"a"}


async def test_steering_input_waits_for_the_output_of_a_tool(run: Callable[..., Any]) -> None:
    gate = trio.Event()

    def exchange(wire: Wire, go_on: Callable[[], None]) -> list[Json]:
        create(wire, "hi")
        parent = read(wire, "response.in_progress")[0]["response"]["id"]
        message = {"type": "message", "role": "user", "content": "in French"}
        steer(wire, parent, [message])
        go_on()
        pending = read(wire, "response.steer.pending")[-1]
        create(wire, [OUTPUT], previous_response_id=parent)
        return [pending, *read(wire, *ENDS)]

    async with open_test_server() as server:
        server.calls(WEATHER).hold(gate, after_events=2)
        events = await run(server, exchange, gate)
    [required] = events[0]["required_input"]
    assert required == {"type": "function_call_output", "call_id": "call_1", "name": "get_weather"}
    assert events[-1]["type"] == "response.completed"
    assert server.steers[0].state == "committed"


async def test_steering_input_that_fails_is_returned(run: Callable[..., Any]) -> None:
    gate = trio.Event()

    def exchange(wire: Wire, go_on: Callable[[], None]) -> list[Json]:
        create(wire, "hi")
        parent = read(wire, "response.in_progress")[0]["response"]["id"]
        rejections = [steer(wire, parent, ""), steer(wire, "resp_nowhere", "more")]
        steer(wire, parent, "more")
        go_on()
        return [*rejections, read(wire, "response.steer.failed")[-1]]

    async with open_test_server() as server:
        server.reply("one").on_steer("fail").hold(gate, after_events=2)
        events = await run(server, exchange, gate)
    assert [event["type"] for event in events] == ["response.steer.failed"] * 3
    assert [event["error"]["code"] for event in events] == [
        "invalid_input",
        "response_not_found",
        "successor_creation_failed",
    ]
    assert [event["steer"]["input"] for event in events] == ["", "more", "more"]


async def test_the_types_of_the_sdk_accept_a_compaction(run: Callable[..., Any]) -> None:
    def exchange(wire: Wire, _: Callable[[], None]) -> list[Json]:
        rules = [{"type": "compaction", "compact_threshold": 2}]
        create(wire, "one two three", context_management=rules)
        return read(wire, *ENDS)

    async with open_test_server() as server:
        events = await run(server, exchange, trio.Event())
    assert events[3]["type"] == "response.compaction.compacting"
    assert events[-1]["response"]["output"][0]["type"] == "compaction"
