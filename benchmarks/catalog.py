"""Which clients there are, and which of them are installed.

What belongs elsewhere: what they do (`clients/`), which workload takes which (`workloads.py`).
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.clients.session import Client

NODE_MODULES: Final = "TRIO_RESPONSES_NODE_MODULES"
NODE_SCRIPT: Final = Path(__file__).parent / "clients" / "node_ws.cjs"


@dataclass(frozen=True)
class Entry:
    """A client: how it is called in the tables, where it is, and the package that it needs."""

    label: str
    place: str
    package: str

    @property
    def version(self) -> str | None:
        """The version that is installed, if one is."""
        return node_version() if self.package == "ws" else installed(self.package)


OURS: Final = "trio-responses"
CLIENTS: Final[dict[str, Entry]] = {
    "stream": Entry("trio-responses, stream", "ours.Stream", OURS),
    "channel": Entry("trio-responses, channel", "ours.Channel", OURS),
    "conversation": Entry("trio-responses, conversation", "ours.Talk", OURS),
    "lanes": Entry("trio-responses, streams", "ours.Lanes", OURS),
    "growth": Entry("trio-responses", "ours.Stream", OURS),
    "openai": Entry("openai-python, typed", "openai_sdk.Typed", "openai"),
    "openai-raw": Entry("openai-python, raw + json", "openai_sdk.Raw", "openai"),
    "openai-lanes": Entry("openai-python, a queue a lane", "openai_sdk.Lanes", "openai"),
    "agents": Entry("openai-agents", "openai_sdk.Agents", "openai-agents"),
    "websockets": Entry("websockets + msgspec", "asyncio_peers.Websockets", "websockets"),
    "picows": Entry("picows + msgspec", "asyncio_peers.Picows", "picows"),
    "trio-websocket": Entry(
        "trio-websocket + msgspec + channel", "trio_peers.TrioWebsocket", "trio-websocket"
    ),
    "httpx-ws": Entry("httpx-ws on Trio + msgspec", "trio_peers.HttpxWs", "httpx-ws"),
    "node": Entry("ws (Node.js) + JSON.parse", "", "ws"),
    "floor": Entry("floor: socket, frames, msgspec", "floor.Floor", "msgspec"),
}


def load(name: str) -> Client:
    """Make a client, in a process that is its own."""
    module, kind = CLIENTS[name].place.split(".")
    client: Client = getattr(import_module(f"benchmarks.clients.{module}"), kind)()
    return client


def command(name: str) -> list[str]:
    """Give the command that starts a client's process."""
    if name == "node":
        return ["node", str(NODE_SCRIPT)]
    return [sys.executable, "-m", "benchmarks.worker", name]


def installed(package: str) -> str | None:
    """Give a package's version, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def node_version() -> str | None:
    """Give the version of the `ws` that the environment names, if Node.js is there, too."""
    manifest = Path(os.environ.get(NODE_MODULES, "node_modules")) / "ws" / "package.json"
    if shutil.which("node") is None or not manifest.exists():
        return None
    runtime = subprocess.run(
        ["node", "--version"],  # noqa: S607 - the one of the path
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    return f"{found}, Node.js {runtime.stdout.strip().removeprefix('v')}"
