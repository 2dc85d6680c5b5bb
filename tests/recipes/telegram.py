"""A chat service for tests: the three methods of Telegram's Bot API that bot.md uses, over TCP."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

import h11
import trio


class FakeTelegram:
    """Keeps messages until they are confirmed, and the answers of the bot."""

    def __init__(self) -> None:
        self.updates: list[dict[str, Any]] = []
        self.answers: list[tuple[int, str]] = []
        self.refusals = 0
        """How many of the next calls of ``sendMessage`` fail."""
        self._changed = trio.Event()

    def write(self, chat: int, text: str) -> None:
        """Add a message of a user."""
        message = {"chat": {"id": chat}, "text": text}
        number = self.updates[-1]["update_id"] + 1 if self.updates else 1
        self.updates.append({"update_id": number, "message": message})
        self._change()

    async def wait_for_answers(self, count: int) -> None:
        while len(self.answers) < count:
            await self._changed.wait()

    def _change(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def serve(self, stream: trio.SocketStream) -> None:
        """Answer the requests of one connection, until the bot closes it or crashes."""
        async with stream:
            with suppress(trio.BrokenResourceError):
                await self._answer_requests(stream)

    async def _answer_requests(self, stream: trio.SocketStream) -> None:
        http = h11.Connection(h11.SERVER)
        while True:
            request = await self._next(http, stream)
            if not isinstance(request, h11.Request):
                return
            body = b""
            while isinstance(event := await self._next(http, stream), h11.Data):
                body += event.data
            method = request.target.decode().rpartition("/")[2]
            status, result = await self._call(method, json.loads(body))
            answer = json.dumps({"ok": status == 200, "result": result}).encode()
            headers = [("content-type", "application/json"), ("content-length", f"{len(answer)}")]
            for part in (
                h11.Response(status_code=status, headers=headers),
                h11.Data(answer),
                h11.EndOfMessage(),
            ):
                await stream.send_all(http.send(part) or b"")
            http.start_next_cycle()

    async def _next(self, http: h11.Connection, stream: trio.SocketStream) -> Any:
        while (event := http.next_event()) is h11.NEED_DATA:
            http.receive_data(await stream.receive_some())
        return event

    async def _call(self, method: str, params: dict[str, Any]) -> tuple[int, Any]:
        if method == "sendMessage":
            if self.refusals:
                self.refusals -= 1
                return 502, None
            self.answers.append((params["chat_id"], params["text"]))
            self._change()
        if method != "getUpdates":
            return 200, {}
        self.updates = [u for u in self.updates if u["update_id"] >= params["offset"]]
        while not self.updates:
            await self._changed.wait()
        return 200, self.updates
