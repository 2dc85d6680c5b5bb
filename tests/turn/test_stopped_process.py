"""P3: the deadline of a turn does not pass while its answer waits in the socket of this process.

These tests run over TCP and by the real clock: the server runs in a thread of its own, and the
client is stopped by a hook that does not return.
"""

import threading
from collections.abc import Generator

import pytest
import trio

from tests.turn.rig import created, delta, encoded, ended
from tests.turn.stopping import LIMITS, Stop, answered, answers
from trio_responses import FirstEventTimeout, open_responses
from trio_responses.testing import open_test_server

__all__ = ["answered", "answers"]

SIZE = 90_000
"""The size of the first event: more than one read, and less than the buffer of a socket."""


@pytest.fixture
def url(answered: threading.Event, *, answers: bool) -> Generator[str, None, None]:
    """Run a server in a thread, and yield its URL."""
    first = created()
    first["response"]["instructions"] = "x" * SIZE
    frames = [encoded(frame) for frame in (first, delta("hello"), ended())]
    opened, closing, urls = threading.Event(), threading.Event(), list[str]()

    def answer(_: object) -> list[str]:
        answered.set()
        return frames

    async def serve() -> None:
        async with open_test_server() as server:
            server.respond_with(answer)
            if not answers:
                server.stall()
                answered.set()
            urls.append(await server.serve_tcp())
            opened.set()
            await trio.to_thread.run_sync(closing.wait)

    thread = threading.Thread(target=trio.run, args=(serve,))
    thread.start()
    try:
        assert opened.wait(60)
        yield urls[0]
    finally:
        closing.set()
        thread.join()


async def test_an_answer_that_has_arrived_is_read_before_a_deadline_is_enforced(
    url: str, answered: threading.Event, *, answers: bool
) -> None:
    async with open_responses(
        url, api_key="any", timeouts=LIMITS, instruments=[Stop(answered)]
    ) as connection:
        if answers:
            async with connection.stream(model="m", input="hi") as stream:
                response = await stream.get_final_response()
            assert response.status == "completed"
        else:
            with pytest.raises(FirstEventTimeout):
                await connection.create(model="m", input="hi")
