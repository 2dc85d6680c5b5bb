"""Over HTTP too, no deadline passes while the answer waits in the socket of this process.

As `tests/turn/test_stopped_process.py`: over TCP and by the real clock, with a server in a thread.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.transport.http_peer import CHUNKED, END, chunk, events_of, sse
from tests.turn.stopping import LIMITS, Stop, answered, answers
from trio_responses import FirstEventTimeout, open_responses

if TYPE_CHECKING:
    from collections.abc import Generator


__all__ = ["answered", "answers"]

SIZE = 250_000
"""The size of the first event: several reads, and less than the buffer of a socket."""


@pytest.fixture
def url(answered: threading.Event, *, answers: bool) -> Generator[str, None, None]:
    """Run a server in a thread, and yield its URL."""
    first, *rest = events_of("hello")
    first["response"]["instructions"] = "x" * SIZE
    answer = CHUNKED + b"".join(chunk(sse(one)) for one in (first, *rest)) + END
    listener = socket.create_server(("127.0.0.1", 0))
    closing = threading.Event()

    def serve() -> None:
        stream, _ = listener.accept()
        with stream:
            received = b""
            while not received.endswith(b"}"):
                received += stream.recv(65536)
            if answers:
                stream.sendall(answer)
            answered.set()
            closing.wait()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/v1"
    finally:
        closing.set()
        thread.join()
        listener.close()


async def test_an_answer_that_has_arrived_is_read_before_a_deadline_is_enforced(
    url: str, answered: threading.Event, *, answers: bool
) -> None:
    async with open_responses(
        url, api_key="any", transport="http", timeouts=LIMITS, instruments=[Stop(answered)]
    ) as connection:
        if answers:
            async with connection.stream(model="m", input="hi") as stream:
                response = await stream.get_final_response()
            assert response.status == "completed"
        else:
            with pytest.raises(FirstEventTimeout):
                await connection.create(model="m", input="hi")
