"""P9: what users and models write is in no error, repr or log record; errors quote the server."""

import logging
import traceback
from typing import TYPE_CHECKING, Any

import pytest
import trio

from trio_responses import ConnectionLost, ResponsesError
from trio_responses.testing import ResponsesServer

if TYPE_CHECKING:
    from tests.connection.conftest import Connect

CONTENT = "the user's own words"
SENTENCE = "the server's own sentence"
REASON = "what the server says"


async def test_errors_quote_the_server_and_nothing_is_in_logs(
    server: ResponsesServer, connect: "Connect", caplog: pytest.LogCaptureFixture
) -> None:
    """P9: no request, response or bad frame; the sentence of an error is in its message alone."""
    caplog.set_level(logging.DEBUG)
    failures: list[BaseException] = []
    error: dict[str, Any] = {"message": SENTENCE}
    reply: dict[str, Any] = {"id": "resp_1", "output": [], "status": "failed", "error": error}
    frames: list[Any] = [
        f"no json {CONTENT}",
        f'{{"type":"response.completed","response":"{CONTENT}"}}',
        {"type": "error", "error": error},
        {"type": "response.failed", "response": reply},
    ]
    async with connect() as connection:
        with trio.move_on_after(0):
            await connection.receive()
        shown = [repr(connection), repr(connection.statistics())]
        await server.send_raw(frames[0])
        shown.append(repr(await connection.receive()))
        for frame in frames[1:]:
            server.answer([frame])
            with pytest.raises(ResponsesError) as failure:
                await connection.create(model="m", input=CONTENT)
            failures.append(failure.value)
        server.reply(CONTENT).drop(after_events=4, how=1011, reason=REASON)
        with pytest.raises(ConnectionLost) as loss:
            await connection.create(model="m", input=CONTENT)
        failures.append(loss.value)
        metadata: Any = {"a": object()}
        with pytest.raises(TypeError) as mistake:
            await connection.create(model="m", input=CONTENT, metadata=metadata)
        failures.append(mistake.value)
    assert len(failures) == 5
    for caught in failures:
        shown.extend([str(caught), repr(caught), *traceback.format_exception(caught)])
    assert [SENTENCE in str(caught) for caught in failures] == [False, True, True, False, False]
    assert REASON in str(loss.value)
    # trio-websocket logs the reason at level DEBUG.
    logged = [str(vars(record)) for record in caplog.records]
    assert [text for text in logged if SENTENCE in text] == []
    assert [text for text in (*shown, *logged) if CONTENT in text] == []
