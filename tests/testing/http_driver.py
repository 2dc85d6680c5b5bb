"""A raw HTTP client over any stream, to drive the test server with."""

from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import h11
import httpx
import httpx_sse
import msgspec
import trio

from tests.testing.driver import Json
from trio_responses.testing import MemoryStream, ResponsesServer

RESPONSES = "/v1/responses"


@dataclass
class Answer:
    status: int
    headers: dict[str, str]
    body: bytes = b""
    is_whole: bool = False
    """Whether the server has ended the body, and not just the connection."""
    extra: list[h11.Event] = field(default_factory=list[h11.Event])

    @property
    def json(self) -> Json:
        assert self.headers["content-type"] == "application/json"
        value: Json = msgspec.json.decode(self.body)
        return value

    @property
    def error(self) -> Json:
        value: Json = self.json["error"]
        return value

    @property
    def events(self) -> list[Json]:
        assert self.headers["content-type"] == "text/event-stream; charset=utf-8"
        return [msgspec.json.decode(event.data) for event in self.sse]

    @property
    def sse(self) -> list[httpx_sse.ServerSentEvent]:
        headers = {"content-type": "text/event-stream"}
        response = httpx.Response(200, headers=headers, content=self.body)
        return list(httpx_sse.EventSource(response).iter_sse())


class HTTPClient:
    """A client of one connection."""

    def __init__(self, stream: trio.abc.Stream) -> None:
        self.stream = stream
        self._http = h11.Connection(h11.CLIENT)

    async def send(
        self, method: str, path: str, body: bytes = b"", headers: dict[str, str] | None = None
    ) -> None:
        """Send a request."""
        lines = {"Host": "x", "Content-Length": str(len(body)), **(headers or {})}
        request = h11.Request(method=method, target=path, headers=list(lines.items()))
        data = self._http.send(request) or b""
        data += self._http.send(h11.Data(data=body)) or b""
        data += self._http.send(h11.EndOfMessage()) or b""
        await self.stream.send_all(data)

    async def head(self) -> Answer:
        """Receive the head of the answer."""
        extra: list[h11.Event] = []
        while True:
            event = await self._next()
            if isinstance(event, h11.Response):
                pairs = {name.decode(): value.decode() for name, value in event.headers}
                return Answer(event.status_code, pairs, extra=extra)
            assert isinstance(event, h11.InformationalResponse), event
            extra.append(event)

    async def piece(self, answer: Answer) -> bool:
        """Receive the next piece of the body; return whether there is any."""
        event = await self._next()
        if isinstance(event, h11.Data):
            answer.body += bytes(event.data)
            return True
        assert isinstance(event, h11.EndOfMessage)
        answer.is_whole = True
        if self._http.our_state is h11.DONE and self._http.their_state is h11.DONE:
            self._http.start_next_cycle()
        return False

    async def answer(self) -> Answer:
        """Receive the whole answer."""
        answer = await self.head()
        while await self.piece(answer):
            pass
        return answer

    async def cut_answer(self) -> Answer:
        """Receive an answer that ends with the connection."""
        answer = await self.head()
        try:
            while await self.piece(answer):
                pass
        except (h11.RemoteProtocolError, trio.BrokenResourceError):
            return answer
        raise AssertionError("the answer was not cut off")

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> Answer:
        """Send a request, and receive the answer."""
        data = b"" if body is None else msgspec.json.encode(body)
        await self.send(method, path, data, headers)
        return await self.answer()

    async def post(self, **fields: Any) -> Answer:
        """Create a response."""
        return await self.call("POST", RESPONSES, {"model": "gpt-test", **fields})

    async def start(self, **fields: Any) -> None:
        """Send the request for a response."""
        body = msgspec.json.encode({"model": "gpt-test", **fields})
        await self.send("POST", RESPONSES, body)

    async def create(self, **fields: Any) -> Json:
        """Create a response that is not streamed."""
        answer = await self.post(**fields)
        assert answer.status == 200, answer
        return answer.json

    async def stream_events(self, **fields: Any) -> list[Json]:
        """Create a streamed response, and return its events."""
        answer = await self.post(stream=True, **fields)
        assert answer.status == 200, answer
        return answer.events

    async def get(self, path: str) -> Answer:
        """Send a GET for a path below that of the responses."""
        return await self.call("GET", f"{RESPONSES}{path}")

    async def _next(self) -> h11.Event:
        while True:
            event = self._http.next_event()
            if event is h11.NEED_DATA:
                self._http.receive_data(bytes(await self.stream.receive_some()))
            else:
                assert isinstance(event, h11.Event), event
                return event


@asynccontextmanager
async def http_client(
    server: ResponsesServer, stream: MemoryStream | trio.abc.Stream | None = None
) -> AsyncGenerator[HTTPClient, None]:
    if stream is None:
        stream = await server.connect_stream()
    async with stream:
        yield HTTPClient(stream)
