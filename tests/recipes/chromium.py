"""A Chromium without a window, driven by the DevTools protocol over a WebSocket."""

from __future__ import annotations

import base64
import json
import re
import shutil
import subprocess
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest
import trio
from trio_websocket import ConnectionClosed, open_websocket_url

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from pathlib import Path

    from trio_websocket import WebSocketConnection

PROGRAM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
needs_chromium = pytest.mark.skipif(PROGRAM is None, reason="Chromium is not installed")
HANG_GUARD = 300.0
MAX_MESSAGE = 64 * 1024 * 1024


class Tab:
    """One page of the browser."""

    def __init__(self, browser: Browser, target: str, session: str) -> None:
        self._browser = browser
        self._target = target
        self._session = session

    async def call(self, method: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol and return its result."""
        return await self._browser.call(method, session=self._session, **params)

    async def open(self, url: str) -> None:
        await self.call("Page.navigate", url=url)
        await self.wait_for(f"location.href.startsWith('{url}') && document.readyState !='loading'")

    async def reload(self) -> None:
        await self.evaluate("window.isOld = true")
        await self.call("Page.reload")
        await self.wait_for("!window.isOld && document.readyState === 'complete'")

    async def evaluate(self, expression: str) -> Any:
        result = await self.call(
            "Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def wait_for(self, condition: str) -> None:
        """Wait until an expression of JavaScript is true, also while another page is loaded."""
        while True:
            with suppress(DevToolsError, AssertionError):  # the page has been replaced
                if await self.evaluate(f"Boolean({condition})"):
                    return
            await trio.sleep(0.02)

    async def click(self, selector: str) -> None:
        """Click the middle of an element, as a mouse does."""
        place = await self.evaluate(
            f"(({{x, y, width, height}}) => [x + width / 2, y + height / 2])"
            f"(document.querySelector('{selector}').getBoundingClientRect())"
        )
        for kind in ("mousePressed", "mouseReleased"):
            await self.call(
                "Input.dispatchMouseEvent",
                type=kind,
                x=place[0],
                y=place[1],
                button="left",
                clickCount=1,
            )

    async def write(self, selector: str, text: str) -> None:
        """Click into a field, write a text and press Enter."""
        await self.click(selector)
        await self.call("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
            await self.call("Input.dispatchKeyEvent", type=kind, **key)

    async def take_screenshot(self, path: Path) -> None:
        found = await self.call("Page.captureScreenshot", format="png")
        await trio.Path(path).write_bytes(base64.b64decode(found["data"]))

    async def close(self) -> None:
        await self._browser.call("Target.closeTarget", targetId=self._target)


class DevToolsError(Exception):
    """The browser refused a command."""


class Browser:
    """A running Chromium."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket
        self._results: dict[int, dict[str, Any]] = {}
        self._arrived = trio.Event()
        self._calls = 0

    async def call(self, method: str, *, session: str | None = None, **params: Any) -> Any:
        self._calls += 1
        number = self._calls
        command: dict[str, Any] = {"id": number, "method": method, "params": params}
        if session is not None:
            command["sessionId"] = session
        await self._socket.send_message(json.dumps(command))
        while number not in self._results:
            await self._arrived.wait()
        answer = self._results.pop(number)
        if "error" in answer:
            raise DevToolsError(f"{method}: {answer['error']['message']}")
        return answer["result"]

    async def receive(self) -> None:
        """Receive answers until the browser ends."""
        with suppress(ConnectionClosed):
            while True:
                message = json.loads(await self._socket.get_message())
                if "id" in message:
                    self._results[message["id"]] = message
                    self._arrived.set()
                    self._arrived = trio.Event()

    async def open_tab(self, *, width: int = 800, height: int = 600, scale: float = 1) -> Tab:
        target = (await self.call("Target.createTarget", url="about:blank"))["targetId"]
        attached = await self.call("Target.attachToTarget", targetId=target, flatten=True)
        tab = Tab(self, target, attached["sessionId"])
        await tab.call("Page.enable")
        await tab.call(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=scale,
            mobile=False,
        )
        return tab


@asynccontextmanager
async def open_browser(profile: Path) -> AsyncGenerator[Browser, None]:
    """Start Chromium with an empty profile, and end it with the block."""
    assert PROGRAM is not None
    command = [PROGRAM, "--headless=new", "--no-sandbox", "--remote-debugging-port=0"]
    command += [f"--user-data-dir={profile}", "--disable-gpu", "--no-first-run", "about:blank"]
    process = await trio.lowlevel.open_process(command, stderr=subprocess.PIPE)
    assert process.stderr is not None
    try:
        with trio.fail_after(HANG_GUARD):
            printed = b""
            while not (found := re.search(rb"listening on (ws://\S+)\s", printed)):
                printed += await process.stderr.receive_some()
            async with (
                trio.open_nursery() as nursery,
                open_websocket_url(found[1].decode(), max_message_size=MAX_MESSAGE) as socket,
            ):
                browser = Browser(socket)
                nursery.start_soon(browser.receive)
                nursery.start_soon(drain, process.stderr)
                yield browser
                nursery.cancel_scope.cancel()
    finally:
        process.kill()
        with trio.CancelScope(shield=True):
            await process.wait()
            await process.stderr.aclose()


async def drain(stream: trio.abc.ReceiveStream) -> None:
    async for _ in stream:
        pass
