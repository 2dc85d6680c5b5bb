"""The list of clients that are compared, and the installed version of each."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from benchmarks.clients.session import BenchmarkClient

NODE_MODULES: Final = "TRIO_RESPONSES_NODE_MODULES"
WEBSOCKETS_17: Final = Path(sys.prefix) / "websockets-17"
"""The folder with websockets 17; the environment has websockets 16, another peer."""
GROWTH: Final = "growth"
NODE_SCRIPT: Final = Path(__file__).parent / "clients" / "node_ws.cjs"


@dataclass(frozen=True)
class ClientEntry:
    """A client: its label in tables, its class, and its package."""

    label: str
    place: str
    package: str
    folder: Path | None = None
    """A folder with the package, where the environment has another version of it."""

    @property
    def version(self) -> str | None:
        """The installed version, or `None`."""
        return node_version() if self.package == "ws" else installed(self.package, self.folder)


OURS: Final = "trio-responses"
CLIENTS: Final[dict[str, ClientEntry]] = {
    "stream": ClientEntry("trio-responses, stream", "ours.StreamClient", OURS),
    "batches": ClientEntry("trio-responses, batches", "ours.BatchesClient", OURS),
    "channel": ClientEntry("trio-responses, channel", "ours.ChannelClient", OURS),
    "http": ClientEntry("trio-responses over HTTP, stream", "ours.HTTPClient", OURS),
    "conversation": ClientEntry("trio-responses, conversation", "ours.ConversationClient", OURS),
    "lanes": ClientEntry("trio-responses, streams", "ours.LanesClient", OURS),
    GROWTH: ClientEntry("trio-responses", "ours.StreamClient", OURS),
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
        "websockets + msgspec", "websockets_peer.WebsocketsClient", "websockets"
    ),
    "websockets-trio": ClientEntry(
        "websockets 17 on Trio + msgspec",
        "websockets_trio.WebsocketsTrioClient",
        "websockets",
        WEBSOCKETS_17,
    ),
    "picows": ClientEntry("picows + msgspec", "picows_peer.PicowsClient", "picows"),
    "trio-websocket": ClientEntry(
        "trio-websocket + msgspec + channel", "trio_peers.TrioWebsocketClient", "trio-websocket"
    ),
    "httpx-ws": ClientEntry("httpx-ws on Trio + msgspec", "trio_peers.HttpxWsClient", "httpx-ws"),
    "httpx": ClientEntry("httpx on Trio + msgspec", "trio_peers.HttpxClient", "httpx"),
    "httpx2": ClientEntry("httpx2 on Trio + msgspec", "trio_peers.Httpx2Client", "httpx2"),
    "node": ClientEntry("ws (Node.js) + JSON.parse", "", "ws"),
    "floor": ClientEntry("floor: socket, frames, msgspec", "floor.FloorClient", "msgspec"),
    "floor-2026": ClientEntry("floor-2026: reads first", "floor.Floor2026Client", "msgspec"),
}


def load(name: str) -> BenchmarkClient:
    """Return a new client; its package comes from the folder of the entry, if there is one."""
    folder = CLIENTS[name].folder
    if folder is not None:
        sys.path.insert(0, str(folder))
    module, kind = CLIENTS[name].place.split(".")
    client: BenchmarkClient = getattr(import_module(f"benchmarks.clients.{module}"), kind)()
    return client


def command(name: str) -> list[str]:
    """Return the command that starts the process of a client."""
    if name == "node":
        return ["node", str(NODE_SCRIPT)]
    return [sys.executable, "-m", "benchmarks.worker", name]


def installed(package: str, folder: Path | None = None) -> str | None:
    """Return the version of a package in a folder or in the environment, or `None`."""
    places = sys.path if folder is None else [str(folder)]
    found = next(iter(distributions(name=package, path=places)), None)
    return None if found is None else found.version


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
