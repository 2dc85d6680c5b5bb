"""The recipes for web frameworks: text reaches a browser; a browser that leaves ends its turn."""

from __future__ import annotations

import json
import re
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import httpx
import pytest
import trio
from trio_websocket import open_websocket_url

from tests.recipes.pages import load
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from trio_responses.testing import ResponsesServer

hypercorn = pytest.importorskip("hypercorn", reason="Hypercorn is missing: extra 'recipes'")
hypercorn_trio = pytest.importorskip("hypercorn.trio")

HANG_GUARD = 120.0
SSE_PAGES = ["fastapi.md", "quart.md"]
WEBSOCKET_PAGES = ["starlette.md", "quart.md"]
FRAMEWORKS = {"fastapi.md": "fastapi", "starlette.md": "starlette", "quart.md": "quart_trio"}


class Service:
    """A running web application, and the server behind it."""

    def __init__(self, url: str, server: ResponsesServer) -> None:
        self.url = url
        self.port = int(url.rpartition(":")[2])
        self.server = server


@asynccontextmanager
async def run_recipe(
    page: str, monkeypatch: pytest.MonkeyPatch, **options: Any
) -> AsyncGenerator[Service, None]:
    """Serve the application of a page on a free port, with the test server behind it."""
    pytest.importorskip(FRAMEWORKS[page], reason=f"{FRAMEWORKS[page]} is missing: extra 'recipes'")
    program = load(page, monkeypatch)
    config = hypercorn.Config()
    config.bind = ["127.0.0.1:0"]
    config.graceful_timeout = 1.0
    stop = trio.Event()
    with trio.fail_after(HANG_GUARD):
        async with (
            open_test_server() as server,
            server.open_client(transport="http", **options) as connection,
            trio.open_nursery() as nursery,
        ):
            app = program.create_app(connection)
            [url] = await nursery.start(run_app, app, config, stop)
            try:
                yield Service(url, server)
            finally:
                stop.set()


async def run_app(
    app: Any, config: Any, stop: trio.Event, *, task_status: trio.TaskStatus[list[str]]
) -> None:
    await hypercorn_trio.serve(app, config, shutdown_trigger=stop.wait, task_status=task_status)


def hold_after_two_words(server: ResponsesServer) -> Any:
    """Let the next answer stop after two words, for as long as it has a reader."""
    return server.reply("one two three").hold(trio.Event(), after_events=6)


def ask_over_http(question: str) -> bytes:
    """Return the bytes of a POST with a question."""
    body = json.dumps({"text": question}).encode()
    head = "POST /ask HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    return f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body


def events_of(body: str) -> list[dict[str, str]]:
    return [json.loads(data) for data in re.findall("^data: (.*)\n", body, re.MULTILINE)]


@pytest.mark.parametrize("page", SSE_PAGES)
async def test_text_arrives_as_server_sent_events(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_recipe(page, monkeypatch) as service, httpx.AsyncClient() as browser:
        response = await browser.post(service.url + "/ask", json={"text": "Hello"})
        *texts, end = events_of(response.text)
        assert response.headers["content-type"].startswith("text/event-stream")
        assert "".join(event["text"] for event in texts) == 'Turn 1: you said "Hello".'
        assert end == {"end": "completed"}


@pytest.mark.parametrize("page", SSE_PAGES)
async def test_an_error_arrives_as_an_event(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_recipe(page, monkeypatch) as service, httpx.AsyncClient() as browser:
        service.server.fail("server_error", message="It broke.", after_events=5)
        response = await browser.post(service.url + "/ask", json={"text": "Hello"})
        assert "It broke" in events_of(response.text)[-1]["error"]


@pytest.mark.parametrize("page", SSE_PAGES)
async def test_a_disconnect_ends_the_turn_at_the_server(
    page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with run_recipe(page, monkeypatch) as service:
        script = hold_after_two_words(service.server)
        async with await trio.open_tcp_stream("127.0.0.1", service.port) as browser:
            await browser.send_all(ask_over_http("Count"))
            body = b""
            while b"two" not in body:
                body += await browser.receive_some()
            assert service.server.statistics().active == 1
        await script.finished.wait()
        assert service.server.statistics().active == 0
        assert service.server.statistics().responses == 0


@pytest.mark.parametrize("page", WEBSOCKET_PAGES)
async def test_a_conversation_over_a_websocket(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_recipe(page, monkeypatch) as service, open_chat(service) as browser:
        for number, question in enumerate(("My name is Ada.", "What is my name?"), 1):
            await browser.send_message(json.dumps({"question": question}))
            *texts, end = await read_answer(browser, question)
            text = "".join(event["text"] for event in texts)
            assert text == f'Turn {number}: you said "{question}".'
            assert end == {"end": "completed"}


@pytest.mark.parametrize("page", WEBSOCKET_PAGES)
async def test_stop_ends_the_turn_alone(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_recipe(page, monkeypatch) as service, open_chat(service) as browser:
        script = hold_after_two_words(service.server)
        await browser.send_message(json.dumps({"question": "Count"}))
        while "two" not in await browser.get_message():
            pass
        await browser.send_message(json.dumps({"stop": True}))
        await script.finished.wait()
        assert service.server.statistics().active == 0
        await browser.send_message(json.dumps({"question": "Hello"}))
        assert (await read_answer(browser, "Hello"))[-1] == {"end": "completed"}
        assert service.server.last_request.turn == 1  # the stopped turn is not in the history


@pytest.mark.parametrize("page", WEBSOCKET_PAGES)
async def test_a_lost_websocket_ends_the_turn(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async with run_recipe(page, monkeypatch) as service:
        script = hold_after_two_words(service.server)
        async with open_chat(service) as browser:
            await browser.send_message(json.dumps({"question": "Count"}))
            while "two" not in await browser.get_message():
                pass
        await script.finished.wait()
        assert service.server.statistics().active == 0


def open_chat(service: Service) -> Any:
    return open_websocket_url(service.url.replace("http", "ws") + "/chat")


async def read_answer(browser: Any, question: str) -> list[dict[str, str]]:
    """Return the messages of an answer after its beginning."""
    while json.loads(await browser.get_message()) != {"begin": question}:
        pass
    messages: list[dict[str, str]] = []
    while not messages or "text" in messages[-1]:
        messages.append(json.loads(await browser.get_message()))
    return messages
