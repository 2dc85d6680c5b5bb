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
    from benchmarks.clients.session import BenchmarkClient

NODE_MODULES: Final = "TRIO_RESPONSES_NODE_MODULES"
NODE_SCRIPT: Final = Path(__file__).parent / "clients" / "node_ws.cjs"


@dataclass(frozen=True)
class ClientEntry:
    """A client: how it is called in the tables, where it is, and the package that it needs."""

    label: str
    place: str
    package: str

    @property
    def version(self) -> str | None:
        """The version that is installed, if one is."""
        return node_version() if self.package == "ws" else installed(self.package)


OURS: Final = "trio-responses"
CLIENTS: Final[dict[str, ClientEntry]] = {
    "stream": ClientEntry("trio-responses, stream", "ours.StreamClient", OURS),
    "channel": ClientEntry("trio-responses, channel", "ours.ChannelClient", OURS),
    "conversation": ClientEntry("trio-responses, conversation", "ours.ConversationClient", OURS),
    "lanes": ClientEntry("trio-responses, streams", "ours.LanesClient", OURS),
    "growth": ClientEntry("trio-responses", "ours.StreamClient", OURS),
    "openai": ClientEntry("openai-python, typed", "openai_sdk.TypedSdkClient", "openai"),
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
    "node": ClientEntry("ws (Node.js) + JSON.parse", "", "ws"),
    "baseline": ClientEntry(
        "baseline: socket, frames, msgspec", "baseline.BaselineClient", "msgspec"
    ),
}


def load(name: str) -> BenchmarkClient:
    """Make a client, in a process that is its own."""
    module, kind = CLIENTS[name].place.split(".")
    client: BenchmarkClient = getattr(import_module(f"benchmarks.clients.{module}"), kind)()
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
