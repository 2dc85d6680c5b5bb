"""The list of clients that are compared, and the installed version of each."""

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
    from benchmarks.clients.session import BenchmarkClient

NODE_MODULES: Final = "TRIO_RESPONSES_NODE_MODULES"
NODE_SCRIPT: Final = Path(__file__).parent / "clients" / "node_ws.cjs"


@dataclass(frozen=True)
class ClientEntry:
    """A client: its label in tables, its class, and its package."""

    label: str
    place: str
    package: str

    @property
    def version(self) -> str | None:
        """The installed version, or `None`."""
        return node_version() if self.package == "ws" else installed(self.package)


OURS: Final = "trio-responses"
CLIENTS: Final[dict[str, ClientEntry]] = {
    "stream": ClientEntry("trio-responses, stream", "ours.StreamClient", OURS),
    "channel": ClientEntry("trio-responses, channel", "ours.ChannelClient", OURS),
    "http": ClientEntry("trio-responses over HTTP, stream", "ours.HTTPClient", OURS),
    "conversation": ClientEntry("trio-responses, conversation", "ours.ConversationClient", OURS),
    "lanes": ClientEntry("trio-responses, streams", "ours.LanesClient", OURS),
    "growth": ClientEntry("trio-responses", "ours.StreamClient", OURS),
    "openai": ClientEntry("openai-python, typed", "openai_sdk.TypedSdkClient", "openai"),
    "openai-http": ClientEntry(
        "openai-python over HTTP, typed", "openai_sdk.HTTPSdkClient", "openai"
    ),
    "openai-raw": ClientEntry("openai-python, raw + json", "openai_sdk.RawSdkClient", "openai"),
    "openai-lanes": ClientEntry(
        "openai-python, a queue a lane", "openai_sdk.LanesSdkClient", "openai"
    ),
    "agents": ClientEntry("openai-agents", "openai_sdk.AgentsSdkClient", "openai-agents"),
    "websockets": ClientEntry(
        "websockets + msgspec", "asyncio_peers.WebsocketsClient", "websockets"
    ),
    "picows": ClientEntry("picows + msgspec", "asyncio_peers.PicowsClient", "picows"),
    "trio-websocket": ClientEntry(
        "trio-websocket + msgspec + channel", "trio_peers.TrioWebsocketClient", "trio-websocket"
    ),
    "httpx-ws": ClientEntry("httpx-ws on Trio + msgspec", "trio_peers.HttpxWsClient", "httpx-ws"),
    "httpx2": ClientEntry("httpx2 on Trio + msgspec", "trio_peers.Httpx2Client", "httpx2"),
    "node": ClientEntry("ws (Node.js) + JSON.parse", "", "ws"),
    "baseline": ClientEntry(
        "baseline: socket, frames, msgspec", "baseline.BaselineClient", "msgspec"
    ),
}


def load(name: str) -> BenchmarkClient:
    """Return a new client."""
    module, kind = CLIENTS[name].place.split(".")
    client: BenchmarkClient = getattr(import_module(f"benchmarks.clients.{module}"), kind)()
    return client


def command(name: str) -> list[str]:
    """Return the command that starts the process of a client."""
    if name == "node":
        return ["node", str(NODE_SCRIPT)]
    return [sys.executable, "-m", "benchmarks.worker", name]


def installed(package: str) -> str | None:
    """Return the version of an installed package, or `None`."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def node_version() -> str | None:
    """Return the version of the npm package ``ws`` and of Node.js, or `None`."""
    manifest = Path(os.environ.get(NODE_MODULES, "node_modules")) / "ws" / "package.json"
    if shutil.which("node") is None or not manifest.exists():
        return None
    runtime = subprocess.run(
        ["node", "--version"],  # noqa: S607 - the first node on the PATH
        capture_output=True,
        text=True,
        check=True,
    )
    found = json.loads(manifest.read_text(encoding="utf-8"))["version"]
    return f"{found}, Node.js {runtime.stdout.strip().removeprefix('v')}"
