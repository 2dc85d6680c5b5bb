"""An HTTP gateway to a Responses server that speaks WebSocket mode only.

`POST /v1/responses` becomes one turn on a new socket, and is answered with JSON, or with
server-sent events for ``"stream": true``. An upgrade is passed through. `GET /v1/responses/{id}` is
answered with an empty response of this id.
"""

from __future__ import annotations

import json
import socket
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest

if TYPE_CHECKING:
    from collections.abc import Iterator

PARSED = {"city": "Oslo", "degrees": 4.5}
"""The answer to every request for JSON: our server answers in plain text."""
ENDS = {"response.completed", "response.failed", "response.incomplete", "error"}


@contextmanager
def run_gateway(upstream: str) -> Iterator[str]:
    """Run a gateway to a server in a thread, and give the gateway's base URL."""
    address = urlsplit(upstream)

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["content-length"])))
            streamed = body.pop("stream", False)
            events = list(turn(upstream, body))
            error = next((event for event in events if event["type"] == "error"), None)
            if error is not None:
                self.reply(error["status"], {"error": error["error"]})
            elif streamed:
                lines = (f"event: {one['type']}\ndata: {json.dumps(one)}\n\n" for one in events)
                self.reply(200, "".join(lines))
            else:
                self.reply(200, events[-1]["response"])

        def do_GET(self) -> None:
            if self.headers["upgrade"]:
                self.pass_through()
            else:
                identity = self.path.rpartition("/")[2]
                self.reply(200, {"id": identity, "object": "response", "output": []})

        def reply(self, status: int, body: Any) -> None:
            kind = "text/event-stream" if isinstance(body, str) else "application/json"
            content = (body if isinstance(body, str) else json.dumps(body)).encode()
            self.send_response(status)
            self.send_header("content-type", kind)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def pass_through(self) -> None:
            self.close_connection = True
            with socket.create_connection((address.hostname, address.port)) as server:
                head = f"{self.requestline}\r\n{self.headers.as_string()}".replace("\r\n", "\n")
                server.sendall(head.replace("\n", "\r\n").encode())
                threading.Thread(target=copy, args=(server, self.connection), daemon=True).start()
                copy(self.connection, server)

        def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name in the base class
            pass

    gateway = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    gateway.daemon_threads = True
    threading.Thread(target=gateway.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{gateway.server_port}/v1"
    finally:
        gateway.shutdown()
        gateway.server_close()


def turn(upstream: str, body: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Run one turn on a new socket, and yield the events."""
    client = pytest.importorskip("websockets.sync.client", reason="websockets is not installed")
    url = upstream.replace("http", "ws", 1) + "/responses"
    parses = body.get("text", {}).get("format", {}).get("type") == "json_schema"
    with client.connect(url) as connection:
        connection.send(json.dumps({"type": "response.create", **body}))
        while True:
            event = json.loads(connection.recv())
            if parses and event["type"] == "response.completed":
                for item in event["response"]["output"]:
                    item["content"][0]["text"] = json.dumps(PARSED)
            yield event
            if event["type"] in ENDS:
                return


def copy(source: socket.socket, target: socket.socket) -> None:
    """Copy bytes from one socket to another until one of them ends."""
    try:
        while data := source.recv(65536):
            target.sendall(data)
        target.shutdown(socket.SHUT_WR)
    except OSError:
        pass
