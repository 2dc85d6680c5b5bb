"""The log has ids, sizes, types and times, and neither content nor keys (P9)."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

import pytest
import trio

from tests.testing.driver import NO_WAITING
from tests.turn.rig import STEADY
from trio_responses import (
    ConnectionLost,
    Instrument,
    LoggingInstrument,
    ResponsesError,
    RotationPolicy,
    function_tool,
)

if TYPE_CHECKING:
    from trio_responses.testing import ResponsesServer

pytestmark = NO_WAITING
KEY = "sk-secret-of-the-log"
CONTENT = "the-content-of-it-all"


@pytest.fixture(autouse=True)
def at_every_level(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(
        logging.DEBUG
    )  # the root logger's level decides which records `secrets_watch.py` passes on


def ours(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    return [one for one in caplog.records if one.name == "trio_responses"]


@function_tool
async def echo(text: str) -> str:
    """Say it again."""
    if text == "bad":
        raise LookupError(CONTENT)
    return text + CONTENT


async def test_connections_log_by_default_with_fields(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    server.call("echo", {"text": CONTENT}, call_id="call_7")
    async with (
        server.open_client(api_key=KEY) as connection,
        connection.conversation(model="m", tools=[echo]) as conversation,
    ):
        response = await conversation.run(CONTENT)
    lines = [(one.levelname, one.getMessage().split()[0]) for one in ours(caplog)]
    assert lines == [
        ("INFO", "socket"),
        *[("DEBUG", "turn")] * 2,
        ("DEBUG", "tool"),
        *[("DEBUG", "turn")] * 2,
        ("INFO", "socket"),
        ("INFO", "connection"),
    ]
    tool, sent, ended = (vars(one) for one in ours(caplog)[3:6])
    assert (tool["tool"], tool["call_id"], tool["error_type"]) == ("echo", "call_7", None)
    assert sent["request_bytes"] > 100
    assert sent["previous_response_id"].startswith("resp_")
    assert ended["turn"] == sent["turn"]
    assert ended["response_id"] == response.id
    assert ended["status"] == "completed"
    assert response.usage is not None
    assert ended["output_tokens"] == response.usage.output_tokens > 0


async def test_failures_put_no_content_and_no_key_into_the_log(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async def turn(**params: Any) -> None:
        with pytest.raises(ResponsesError):
            await connection.create(model="m", input=CONTENT, **params)

    server.fail(message=CONTENT, code=f"{CONTENT}\n500")
    server.fail(message=CONTENT, shape="failed")
    server.drop(after_events=3, how=1011, reason=CONTENT)
    async with server.open_client(api_key=KEY, reconnect=STEADY) as connection:
        server.refuse(503, message=CONTENT, headers={"x-content": CONTENT})
        for _ in range(3):
            await turn()
        await connection.wait_open()
        server.call("echo", {"text": "bad"})
        async with connection.conversation(model="m", tools=[echo]) as conversation:
            await conversation.run("Hello")
    assert {one.levelname for one in ours(caplog)} == {"DEBUG", "INFO", "WARNING"}
    shown = "".join(f"{one.getMessage()} {vars(one)}" for one in ours(caplog))
    assert "lost (ConnectionLost)" in shown
    assert "1011" in shown
    assert "(odd)" in shown
    assert CONTENT not in shown
    assert KEY not in shown


async def test_losses_are_warnings_and_giving_up_is_an_error(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.open_client(reconnect=[1.0]):
        server.refuse(503, times=None)
        await server.close_all(1012)
        await trio.sleep(10)
    seen = [(one.levelname, one.getMessage()) for one in ours(caplog)[1:]]
    number = vars(ours(caplog)[0])["socket"]
    assert seen == [
        ("WARNING", f"socket {number} lost (ConnectionLost) after 0.0 s, code 1012"),
        ("WARNING", "attempt 1 to reconnect in 1.0 s, after ConnectionLost"),
        ("WARNING", f"socket {number + 1} could not be opened: ServerOverloaded, status 503"),
        ("ERROR", "connection ended: ReconnectFailed"),
    ]


async def test_a_rotation_is_logged(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.open_client(rotation=RotationPolicy(max_age=60.0, stagger=0.0)):
        await trio.sleep(90)
    assert [one.levelname for one in ours(caplog)] == ["INFO"] * 6
    assert ours(caplog)[2].getMessage().endswith("takes over")


async def test_a_turn_that_is_left_early_is_logged_as_such(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.open_client() as connection, connection.stream(model="m", input="Hello"):
        pass
    assert any("left early" in one.getMessage() for one in ours(caplog))


async def test_another_logger_may_be_used(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    mine = LoggingInstrument(logging.getLogger("mine"))
    async with server.open_client(instruments=[mine]):
        pass
    assert ours(caplog) == []
    assert {one.name for one in caplog.records} >= {"mine"}


async def test_instruments_are_added_to_the_log(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.open_client(instruments=[Instrument()]):
        pass
    assert any("open after" in one.getMessage() for one in ours(caplog))


async def test_the_log_can_be_turned_off(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    async with server.open_client(logging=False) as connection:
        await connection.create(model="m", input="Hello")
    assert ours(caplog) == []


async def test_a_missing_first_event_is_logged_as_none(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    server.fail("rate_limit_exceeded", status=429)
    async with server.open_client(max_retries=0) as connection:
        with pytest.raises(Exception, match="rate_limit"):
            await connection.create(model="m", input="x")
    (ended,) = (one for one in caplog.records if hasattr(one, "first_event_seconds"))
    assert vars(ended)["first_event_seconds"] is None


async def test_a_lost_turn_is_not_logged_as_left_early(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "trio_responses")
    server.drop(after_events=3)
    async with server.open_client() as connection:
        with pytest.raises(ConnectionLost):
            await connection.create(model="m", input="x")
    assert any("ended: ConnectionLost, response" in one.message for one in caplog.records)
