"""The replay server: blocking sockets, a thread for each connection, prepared answers.

    python -m benchmarks.replay FOLDER

The server is a process of its own, pinned to the first processor. It prints its ports as JSON, one
of them for TLS, and writes the certificate that clients must trust into the folder. The first
segment of the path selects the script: ``/burst-2000-whole/v1/responses``. A request to upgrade
makes the connection a WebSocket. A ``POST`` is answered over HTTP: each event is a server-sent
event in a chunk of its own, as servers send them.
"""

from __future__ import annotations

import base64
import hashlib
import itertools
import json
import random
import re
import select
import socket
import ssl
import struct
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from benchmarks import answers
from benchmarks.processors import SERVER, pin

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import BinaryIO

    from benchmarks.answers import Encode

ACCEPT_SALT: Final = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
LANE: Final = re.compile(rb'"stream_id"\s*:\s*"([^"]+)"')
CERTIFICATE: Final = "ca.pem"
STACK_BYTES: Final = 256 * 1024
EVENTS_IN_A_CHUNK: Final = 20
MILLISECONDS: Final = 1e3


class RequestHead(NamedTuple):
    """The head of an HTTP request."""

    method: str
    words: list[str]
    """The words of the script in the path."""
    headers: dict[str, bytes]
    """The headers, names in lower case."""


def read_head(stream: BinaryIO) -> RequestHead | None:
    """Read the head of the next HTTP request; return `None` at the end of the connection."""
    method, _, path = stream.readline().decode().partition(" ")
    headers: dict[str, bytes] = {}
    while (line := stream.readline()) not in {b"\r\n", b""}:
        name, _, value = line.partition(b":")
        headers[name.decode().lower()] = value.strip()
    return RequestHead(method, path.split("/")[1].split("-"), headers) if path else None


def upgrade(peer: socket.socket, head: RequestHead) -> None:
    """Answer the upgrade request."""
    key = head.headers["sec-websocket-key"]
    accept = base64.b64encode(hashlib.sha1(key + ACCEPT_SALT).digest())  # noqa: S324 - RFC 6455
    peer.sendall(
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
        b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
    )


def requests(peer: socket.socket, stream: BinaryIO) -> Iterator[tuple[bytes, bytes]]:
    """Yield the mask and the payload of each data message until a close frame or the end."""
    while head := stream.read(2):
        length = head[1] & 127
        if length == 126:
            (length,) = struct.unpack("!H", stream.read(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", stream.read(8))
        mask = stream.read(4)
        payload = stream.read(length)
        opcode = head[0] & 15
        if opcode == 8:
            peer.sendall(b"\x88\x02\x03\xe8")
            return
        if opcode == 9:
            peer.sendall(b"\x8a\x00")
        elif opcode < 8 and head[0] & 128:
            yield mask, payload


def lane_of(mask: bytes, payload: bytes) -> str | None:
    """Return the lane of a request."""
    pad = (mask * (len(payload) // 4 + 1))[: len(payload)]
    plain = int.from_bytes(payload, "big") ^ int.from_bytes(pad, "big")
    found = LANE.search(plain.to_bytes(len(payload), "big"))
    return found[1].decode() if found else None


def wait_always(seconds: float) -> bool:
    """Wait, and return that the answer goes on."""
    time.sleep(seconds)
    return True


class ScriptedAnswers:
    """The answers to the requests of one connection, as its script selects them.

    :param encode: returns the bytes of one event: a WebSocket frame or a chunk.
    """

    def __init__(self, peer: socket.socket, words: list[str], encode: Encode) -> None:
        self._peer = peer
        self._send = peer.sendall
        self._encode = encode
        self._words = words[1:]
        self._numbers = itertools.count()
        self._waiting: list[str | None] = []
        self.answer: Callable[[bytes, bytes], None] = getattr(self, f"_{words[0]}")

    def _burst(self, mask: bytes, payload: bytes) -> None:
        """``burst-2000-whole``: send all events in one write; ``-single``: in one write each.

        ``-joined``: in one write, with several events in each chunk.
        """
        del mask, payload
        deltas, how = int(self._words[0]), self._words[1]
        events = answers.streamed(deltas, encode=self._encode)
        if how == "single":
            self._send_all(events)
        elif how == "joined" and self._encode is answers.event_chunk:
            self._send(answers.streamed_in_chunks(deltas, EVENTS_IN_A_CHUNK))
        else:
            self._send(b"".join(events))

    def _turn(self, mask: bytes, payload: bytes) -> None:
        """``turn``: send nine events with a new response id."""
        del mask, payload
        self._send_turn(None)

    def _lane(self, mask: bytes, payload: bytes) -> None:
        """``lane``: send nine events with a new response id on the lane of the request."""
        self._send_turn(lane_of(mask, payload))

    def _send_turn(self, lane: str | None) -> None:
        number = b"%032x" % next(self._numbers)
        answer = b"".join(answers.streamed(2, lane=lane, encode=self._encode))
        self._send(answer.replace(answers.RESPONSE_DIGITS, number))

    def _text(self, mask: bytes, payload: bytes) -> None:
        """``text-1000000``: send one large text."""
        del mask, payload
        self._send_all(answers.one_text(int(self._words[0])))

    def _items(self, mask: bytes, payload: bytes) -> None:
        """``items-1000000``: send many output items."""
        del mask, payload
        self._send_all(answers.many_items(int(self._words[0])))

    def _side(self, mask: bytes, payload: bytes) -> None:
        """``side-8-250``: wait for 8 requests, then send their alternating events."""
        self._waiting.append(lane_of(mask, payload))
        if len(self._waiting) == int(self._words[0]):
            lanes = tuple(sorted(self._waiting, key=str))
            self._waiting.clear()
            self._send(answers.side_by_side(lanes, int(self._words[1])))

    def _paced(self, mask: bytes, payload: bytes) -> None:
        """``paced-1000-2000``: send 1,000 deltas a second, 2,000 in all, each with the time."""
        del mask, payload
        rate, count = map(int, self._words)
        self._send_stamped(count, 1 / rate, time.perf_counter())

    def _steady(self, mask: bytes, payload: bytes) -> None:
        """``steady-5-60``: send 5 deltas a second, 60 in all, after a random delay.

        Stop when the client sends something, which is the end of its measurement.
        """
        del mask, payload
        rate, count = int(self._words[0]), int(self._words[1])
        start = time.perf_counter() + random.random() / rate  # noqa: S311 - no secret depends on it
        incoming = select.poll()
        incoming.register(self._peer, select.POLLIN)

        def wait(seconds: float) -> bool:
            end = time.perf_counter() + seconds
            if incoming.poll(int(seconds * MILLISECONDS)):  # whole milliseconds
                return False
            time.sleep(max(0.0, end - time.perf_counter()))
            return True

        self._send_stamped(count, 1 / rate, start, wait)

    def _idle(self, mask: bytes, payload: bytes) -> None:
        """``idle-5``: send one delta a second for 5 seconds, after a random delay."""
        del mask, payload
        start = time.perf_counter() + random.random()  # noqa: S311 - no secret depends on it
        self._send_stamped(int(self._words[0]), 1.0, start)

    def _send_stamped(
        self,
        count: int,
        interval: float,
        start: float,
        wait: Callable[[float], bool] = wait_always,
    ) -> None:
        first, (before, after), last = answers.paced(count, self._encode)
        self._send_all(first)
        for number in range(count):
            pause = start + number * interval - time.perf_counter()
            if pause > 0 and not wait(pause):
                return
            self._send(before + b"%017.6f" % time.perf_counter() + after)
        self._send_all(last)

    def _send_all(self, events: tuple[bytes, ...]) -> None:
        for event in events:
            self._send(event)


def serve_websocket(peer: socket.socket, stream: BinaryIO, head: RequestHead) -> None:
    """Serve a WebSocket until it ends."""
    upgrade(peer, head)
    script = ScriptedAnswers(peer, head.words, answers.frame)
    for mask, payload in requests(peer, stream):
        script.answer(mask, payload)


def serve_http(peer: socket.socket, stream: BinaryIO, head: RequestHead | None) -> None:
    """Answer HTTP requests until the connection ends."""
    while head is not None:
        payload = stream.read(int(head.headers["content-length"]))
        peer.sendall(
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n"
            b"Transfer-Encoding: chunked\r\n\r\n"
        )
        ScriptedAnswers(peer, head.words, answers.event_chunk).answer(b"", payload)
        peer.sendall(answers.chunk(b""))
        head = read_head(stream)


def serve(peer: socket.socket, context: ssl.SSLContext | None) -> None:
    """Serve one connection until it ends."""
    peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    with suppress(OSError):  # the client may disconnect early
        if context is not None:
            peer = context.wrap_socket(peer, server_side=True)
        with peer, peer.makefile("rb") as stream:
            head = read_head(stream)
            if head is not None and head.method == "GET":
                serve_websocket(peer, stream, head)
            else:
                serve_http(peer, stream, head)


def accept(listener: socket.socket, context: ssl.SSLContext | None) -> None:
    """Accept connections and start a thread for each."""
    while True:
        peer, _ = listener.accept()
        threading.Thread(target=serve, args=(peer, context), daemon=True).start()


def secured(folder: Path) -> ssl.SSLContext | None:
    """Return a TLS context with a new certificate, or `None` without trustme."""
    try:
        import trustme
    except ImportError:
        return None
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / CERTIFICATE))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    certificate: Any = authority.issue_cert("localhost", "127.0.0.1")
    certificate.configure_cert(context)
    return context


def main() -> None:
    """Listen, print the ports, and serve until the standard input ends."""
    pin(SERVER)
    threading.stack_size(STACK_BYTES)
    context = secured(Path(sys.argv[1]))
    ports: dict[str, int] = {}
    for name, security in (("plain", None), ("secure", context)):
        if name == "plain" or security is not None:
            listener = socket.create_server(("127.0.0.1", 0), backlog=2048)
            ports[name] = listener.getsockname()[1]
            threading.Thread(target=accept, args=(listener, security), daemon=True).start()
    print(json.dumps(ports), flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
