"""ASGI applications that serve the API over HTTP only: ``uvicorn --app-dir ... asgi_apps:plain``.

Each streams its answer to ``POST /v1/responses`` as server-sent events, and has no route for
WebSockets. The answer repeats the texts of the input.
"""

from __future__ import annotations

import json
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator

Json = dict[str, Any]
PATH = "/v1/responses"


def events_for(body: Json) -> Iterator[bytes]:
    """Yield the events of the answer to a request, as server-sent events."""
    given = body["input"]
    items = [{"role": "user", "content": given}] if isinstance(given, str) else given
    texts = [item["content"] for item in items if item.get("role") == "user"]
    answer = " ".join(text if isinstance(text, str) else text[0]["text"] for text in texts)
    place = {"item_id": "msg_1", "output_index": 0, "content_index": 0}
    part = {"type": "output_text", "text": answer, "annotations": []}
    message = {"type": "message", "id": "msg_1", "role": "assistant", "content": [part]}
    base = {"id": "resp_1", "object": "response", "model": body["model"], "output": []}
    started = {**base, "status": "in_progress"}
    ended = {**base, "status": "completed", "output": [{**message, "status": "completed"}]}
    events: list[Json] = [
        {"type": "response.created", "response": started},
        *({"type": "response.output_text.delta", "delta": one, **place} for one in answer),
        {"type": "response.output_item.done", "output_index": 0, "item": message},
        {"type": "response.completed", "response": ended},
    ]
    for number, event in enumerate(events):
        data = json.dumps({**event, "sequence_number": number})
        yield f"event: {event['type']}\ndata: {data}\n\n".encode()


async def plain(
    scope: Json,
    receive: Callable[[], Awaitable[Json]],
    send: Callable[[Json], Awaitable[None]],
) -> None:
    """Serve the API without a framework; close each WebSocket before it is accepted."""
    if scope["type"] == "websocket":
        await send({"type": "websocket.close"})
        return
    assert scope["type"] == "http", scope["type"]
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    found = (scope["method"], scope["path"]) == ("POST", PATH)
    headers = [(b"content-type", b"text/event-stream")]
    status = 200 if found else 404
    await send({"type": "http.response.start", "status": status, "headers": headers})
    for event in events_for(json.loads(body)) if found else ():
        await send({"type": "http.response.body", "body": event, "more_body": True})
    await send({"type": "http.response.body", "body": b""})


def with_fastapi() -> Any:
    """Return an application of FastAPI: ``uvicorn --factory ... asgi_apps:with_fastapi``."""
    fastapi: Any = import_module("fastapi")  # the other applications do not need it
    streaming_response: Any = import_module("fastapi.responses").StreamingResponse

    async def create(body: dict[str, Any]) -> Any:
        return streaming_response(events_for(body), media_type="text/event-stream")

    app = fastapi.FastAPI()
    app.add_api_route(PATH, create, methods=["POST"], response_model=None)
    return app


async def broken(*_: Any) -> None:
    """Fail on every request, as an application that does not expect WebSockets may."""
    raise RuntimeError("this application has a defect")
