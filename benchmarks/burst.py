"""A burst of text deltas: CPU per event of each client, in one interleaved run.

    python benchmarks/burst.py [--events 2000] [--rounds 7]

A server of blocking sockets, in a process of its own, answers every request with the same frames,
encoded before. Each client is a process of its own, too; it opens one connection, takes one turn
to warm up, then the measured ones. Printed are the medians of CPU time (user and system) per
event and the ratio to openai-python. Peers that are not installed are left out.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import multiprocessing
import random
import socket
import statistics
import struct
import sys
import threading
import time
from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable
    from multiprocessing.connection import Connection

ACCEPT_SALT = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
MODEL = "gpt-5.5"


# --- The server -----------------------------------------------------------------------------


def frame(event: dict[str, Any]) -> bytes:
    """Encode one event as an unmasked text frame."""
    payload = json.dumps(event, separators=(",", ":")).encode()
    if len(payload) < 126:
        return struct.pack("!BB", 0x81, len(payload)) + payload
    if len(payload) < 65536:
        return struct.pack("!BBH", 0x81, 126, len(payload)) + payload
    return struct.pack("!BBQ", 0x81, 127, len(payload)) + payload


def answer(deltas: int) -> bytes:
    """Encode a whole response: three events, the deltas, four events."""
    response = {
        "id": "resp_0123456789abcdef0123456789abcdef",
        "object": "response",
        "created_at": 1795337865,
        "model": MODEL,
        "status": "in_progress",
        "output": [],
        "parallel_tool_calls": True,
        "tool_choice": "auto",
        "tools": [],
    }
    item = {
        "id": "msg_0123456789abcdef0123456789abcdef0123",
        "type": "message",
        "role": "assistant",
        "status": "in_progress",
        "content": [],
    }
    place = {"item_id": item["id"], "output_index": 0, "content_index": 0}
    text = "token " * deltas
    part = {"type": "output_text", "text": text, "annotations": []}
    done = {**item, "status": "completed", "content": [part]}
    events = [
        {"type": "response.created", "response": response},
        {"type": "response.in_progress", "response": response},
        {"type": "response.output_item.added", "output_index": 0, "item": item},
        *(
            {"type": "response.output_text.delta", **place, "delta": "token ", "logprobs": []}
            for _ in range(deltas)
        ),
        {"type": "response.output_text.done", **place, "text": text, "logprobs": []},
        {"type": "response.output_item.done", "output_index": 0, "item": done},
        {
            "type": "response.completed",
            "response": {**response, "status": "completed", "output": [done]},
        },
    ]
    return b"".join(frame({**event, "sequence_number": n}) for n, event in enumerate(events))


def serve_connection(peer: socket.socket, burst: bytes) -> None:
    """Upgrade one connection and answer every data frame with the burst."""
    with peer:
        peer.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        stream = peer.makefile("rb")
        key = b""
        while (line := stream.readline()) not in {b"\r\n", b""}:
            if line.lower().startswith(b"sec-websocket-key:"):
                key = line.split(b":", 1)[1].strip()
        accept = base64.b64encode(hashlib.sha1(key + ACCEPT_SALT).digest())  # noqa: S324 - RFC 6455
        peer.sendall(
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Accept: " + accept + b"\r\n\r\n"
        )
        while head := stream.read(2):
            length = head[1] & 127
            if length == 126:
                (length,) = struct.unpack("!H", stream.read(2))
            elif length == 127:
                (length,) = struct.unpack("!Q", stream.read(8))
            stream.read(4 + length)
            if head[0] & 15 == 8:
                return
            if head[0] & 15 == 1:
                peer.sendall(burst)


def serve(pipe: Connection, deltas: int) -> None:
    """Run the server until its process is ended."""
    burst = answer(deltas)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        pipe.send(listener.getsockname()[1])
        while True:
            peer, _ = listener.accept()
            threading.Thread(target=serve_connection, args=(peer, burst), daemon=True).start()


# --- The clients ----------------------------------------------------------------------------


def run_ours(port: int, turns: int) -> float:
    """Measure ``connection.stream``."""
    import trio

    from trio_responses import OutputTextDelta, open_responses

    async def main() -> float:
        async with open_responses(f"http://127.0.0.1:{port}/v1", api_key="key") as connection:
            start = 0.0
            for turn in range(turns + 1):
                if turn == 1:
                    start = time.process_time()
                size = 0
                async with connection.stream(model=MODEL, input="go") as stream:
                    async for event in stream:
                        if type(event) is OutputTextDelta:
                            size += len(event.delta)
            return time.process_time() - start

    return trio.run(main)


def run_ours_channel(port: int, turns: int) -> float:
    """Measure the raw channel."""
    import trio

    from trio_responses import OutputTextDelta, ResponseCompleted, ResponseCreate, open_responses

    async def main() -> float:
        async with open_responses(f"http://127.0.0.1:{port}/v1", api_key="key") as connection:
            start = 0.0
            for turn in range(turns + 1):
                if turn == 1:
                    start = time.process_time()
                size = 0
                await connection.send(ResponseCreate(model=MODEL, input="go"))
                async for event in connection:
                    if type(event) is OutputTextDelta:
                        size += len(event.delta)
                    elif type(event) is ResponseCompleted:
                        break
            return time.process_time() - start

    return trio.run(main)


def run_openai(port: int, turns: int) -> float:
    """Measure openai-python's typed connection."""
    import asyncio

    from openai import AsyncOpenAI

    async def main() -> float:
        client = AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="key")
        async with client.responses.connect() as connection:
            start = 0.0
            for turn in range(turns + 1):
                if turn == 1:
                    start = time.process_time()
                size = 0
                await connection.response.create(model=MODEL, input="go")
                async for event in connection:
                    if event.type == "response.output_text.delta":
                        size += len(event.delta)
                    elif event.type == "response.completed":
                        break
            return time.process_time() - start

    return asyncio.run(main())


def run_floor(port: int, turns: int) -> float:
    """Measure a bare Trio socket, a frame reader and a decoder: no task, no checkpoint."""
    import trio

    from trio_responses.core.frames import FrameReader
    from trio_responses.wire import OutputTextDelta, ResponseCompleted, decode

    async def main() -> float:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        await stream.send_all(
            b"GET /v1/responses HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\n"
            b"Connection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
        await stream.receive_some()
        reader = FrameReader(1 << 26)
        payload = json.dumps({"type": "response.create", "model": MODEL, "input": "go"}).encode()
        start = 0.0
        for turn in range(turns + 1):
            if turn == 1:
                start = time.process_time()
            await stream.send_all(bytes([0x81, 0x80 | len(payload), 0, 0, 0, 0]) + payload)
            done, size = False, 0
            while not done:
                messages, _ = reader.feed(await stream.receive_some(65536))
                for message in messages:
                    event = decode(bytes(message))  # type: ignore[arg-type]
                    if type(event) is OutputTextDelta:
                        size += len(event.delta)
                    elif type(event) is ResponseCompleted:
                        done = True
        return time.process_time() - start

    return trio.run(main)


CLIENTS: dict[str, tuple[Callable[[int, int], float], str]] = {
    "trio-responses, stream": (run_ours, "trio-responses"),
    "trio-responses, channel": (run_ours_channel, "trio-responses"),
    "openai-python, typed": (run_openai, "openai"),
    "floor: socket, frames, msgspec": (run_floor, "msgspec"),
}


def measure(pipe: Connection, name: str, port: int, turns: int) -> None:
    """Run one client in a process of its own."""
    pipe.send(CLIENTS[name][0](port, turns))


def in_process(target: Callable[..., None], *args: Any) -> tuple[Any, Any]:
    """Start a process and give it with the first thing it says."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=target, args=(theirs, *args), daemon=True
    )
    process.start()
    return process, ours.recv()


def installed(package: str) -> str | None:
    """Give a package's version, if it is there."""
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def main() -> None:
    """Run all clients in turn, round by round, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2000, help="deltas in a burst")
    parser.add_argument("--turns", type=int, default=5, help="bursts a sample")
    parser.add_argument("--rounds", type=int, default=7, help="samples of each client")
    arguments = parser.parse_args()

    server, port = in_process(serve, arguments.events)
    names = [name for name, (_, package) in CLIENTS.items() if installed(package)]
    samples: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in random.sample(names, len(names)):
            process, seconds = in_process(measure, name, port, arguments.turns)
            process.join()
            samples[name].append(seconds / arguments.turns / arguments.events * 1e6)
    server.terminate()

    medians = {name: statistics.median(sample) for name, sample in samples.items()}
    peer = medians.get("openai-python, typed")
    print(f"Python {sys.version.split()[0]}, {arguments.rounds} rounds of {arguments.turns} bursts")
    print(f"{'client':32} {'version':>9} {'us/event':>9} {'min':>7} {'max':>7} {'openai / it':>12}")
    for name, median in sorted(medians.items(), key=lambda pair: pair[1]):
        ratio = f"{peer / median:.1f}" if peer else "-"
        sample = samples[name]
        print(
            f"{name:32} {installed(CLIENTS[name][1]):>9} {median:9.2f} {min(sample):7.2f}"
            f" {max(sample):7.2f} {ratio:>12}"
        )


if __name__ == "__main__":
    main()
