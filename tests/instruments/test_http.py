"""Recordings, spans and logs of turns over HTTP."""

from __future__ import annotations

import io
import logging
from typing import TYPE_CHECKING

import pytest

from tests.instruments.telemetry import attributes, telemetry
from tests.testing.driver import NO_WAITING
from trio_responses import APIError, Recorder, Recording
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from tests.instruments.telemetry import Telemetry
    from trio_responses.testing import ResponsesServer
    from trio_responses.typing import TransportOption

__all__ = ["telemetry"]
pytestmark = NO_WAITING


@pytest.mark.parametrize("then", ["http", "websocket"])
async def test_a_recording_over_http_is_replayed_on_either_transport(
    server: ResponsesServer, then: TransportOption
) -> None:
    server.reply("Good morning")
    server.fail("server_error", status=400)
    file = io.BytesIO()
    async with server.open_client(instruments=[Recorder(file)], transport="http") as connection:
        assert (await connection.create(model="m", input="Hello")).output_text == "Good morning"
        with pytest.raises(APIError):
            await connection.create(model="m", input="Hello again")
    recording = Recording.parse(file.getvalue())
    async with open_test_server() as again:
        again.replay(recording)
        async with again.open_client(transport=then) as connection:
            assert (await connection.create(model="m", input="any")).output_text == "Good morning"
            with pytest.raises(APIError) as caught:
                await connection.create(model="m", input="any")
            assert caught.value.status == 400
        again.assert_all_scripts_used()


async def test_a_turn_over_http_is_a_span_with_the_address_of_the_server(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    async with server.open_client(
        instruments=[telemetry.instrument], transport="http"
    ) as connection:
        response = await connection.create(model="m-1", input="Hello")
    (span,) = telemetry.spans("chat")
    shown = attributes(span)
    assert shown["gen_ai.response.id"] == response.id
    assert shown["network.protocol.name"] == "http"
    assert shown["http.response.status_code"] == 200
    assert (shown["server.address"], shown["server.port"]) == ("localhost", 80)
    assert telemetry.spans("connect") == []


async def test_a_refused_turn_over_http_has_the_status_of_the_answer(
    server: ResponsesServer, telemetry: Telemetry
) -> None:
    server.fail("invalid_request_error", status=422)
    async with server.open_client(
        instruments=[telemetry.instrument], transport="http"
    ) as connection:
        with pytest.raises(APIError):
            await connection.create(model="m", input="Hello")
    shown = attributes(telemetry.spans("chat")[0])
    assert shown["http.response.status_code"] == 422
    assert shown["gen_ai.response.finish_reasons"] == ("error",)


async def test_a_turn_over_http_is_logged(
    server: ResponsesServer, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    async with server.open_client(transport="http") as connection:
        await connection.create(model="m", input="my private question")
    shown = "\n".join(record.getMessage() for record in caplog.records)
    assert "my private question" not in shown
    turns = [one for one in caplog.records if one.name == "trio_responses"]
    assert [one.getMessage().split()[0] for one in turns if one.levelname == "DEBUG"] == [
        "turn"
    ] * 2
