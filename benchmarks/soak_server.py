"""The server of the soak test: the embedded server in a process of its own, with random faults.

The process prints its URL, serves until its standard input ends, and prints its counters as JSON.
"""

from __future__ import annotations

import json
import random
import sys
from collections import Counter
from typing import TYPE_CHECKING, Any, Final

import trio

from trio_responses.testing import Reply, open_test_server

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses.testing import Request, ResponsesServer

MAX_AGE: Final = 25.0
FAULTY: Final = 0.12
"""The fraction of requests with a fault."""
CODES: Final = (1000, 1001, 1006, 1009, 1011, 1012, 1013, 4000)
ERRORS: Final = (
    ("rate_limit_exceeded", 429),
    ("server_is_overloaded", 503),
    ("server_error", 500),
    ("previous_response_not_found", 400),
    ("context_length_exceeded", 400),
)
ODD_FRAMES: Final = (
    b"\0\1binary",
    "{no json",
    '{"type":"keepalive"}',
    '{"type":"codex.rate_limits","limits":[1,2]}',
    '{"type":"response.unheard_of","x":1e999}',
    '{"type":"response.output_text.delta","delta":5}',
    "[" * 5000,
)


class FaultInjector:
    """A source of random faults, with a counter of each."""

    def __init__(self, server: ResponsesServer, seed: int) -> None:
        self.server = server
        self.counts: Counter[str] = Counter()
        self._dice = random.Random(seed)  # noqa: S311 - no secret depends on it
        self._faults: dict[str, Callable[[int], object]] = {
            "reset": lambda at: server.drop(after_events=at, how="reset"),
            "end of stream": lambda at: server.drop(after_events=at, how="fin"),
            "close code": self._close,
            "stall": lambda at: server.stall(after_events=at, seconds=0.3),
            "stall for ever": lambda at: server.stall(after_events=at),
            "half-open": lambda at: server.half_open(after_events=at),
            "error frame": self._fail,
            "failed response": lambda at: server.fail(after_events=at, shape="failed"),
            "odd frame": lambda at: server.answer().inject(
                self._dice.choice(ODD_FRAMES), after_events=at
            ),
            "slow bytes": lambda at: server.answer().slow_writes(
                piece=self._dice.choice([1, 7, 100]), delay=0.0005, after_events=at
            ),
        }
        self._weights = [4, 4, 3, 3, 1, 1, 6, 3, 6, 3]

    def answer(self, request: Request) -> Reply:
        """Return an answer with the text of the request, and sometimes script a fault."""
        if self._dice.random() < FAULTY:
            (name,) = self._dice.choices(list(self._faults), self._weights)
            self.counts[name] += 1
            self._faults[name](self._dice.choice([0, 1, 2, 4, 6, -1]))
        text = f"heard {request.text} and have nothing to add."
        delay = self._dice.choice([0, 0, 0, 0.002, 0.02])
        return Reply(text, delay=delay, more=["More."] if delay else [])

    def _fail(self, after_events: int) -> object:
        code, status = self._dice.choice(ERRORS)
        return self.server.fail(code, status=status, after_events=after_events)

    def _close(self, after_events: int) -> object:
        code = self._dice.choice(CODES)
        how: Any = "fin" if code == 1006 else code
        return self.server.drop(after_events=after_events, how=how, reason="by chance")

    async def trouble_handshakes(self) -> None:
        """Refuse, drop or delay handshakes at random, and clear stored requests."""
        while True:
            await trio.sleep(self._dice.uniform(0.3, 1.2))
            name = self._dice.choice(["refused", "dropped", "reset", "dropped later", "hung"])
            self.counts[f"handshake {name}"] += 1
            match name:
                case "refused":
                    self.server.refuse(self._dice.choice([429, 500, 502, 503]))
                case "dropped":
                    self.server.drop_handshake("fin")
                case "reset":
                    self.server.drop_handshake("reset")
                case "dropped later":
                    self.server.drop_on_accept("fin")
                case _:
                    self.server.hang_handshake()
            self.server.requests.clear()
            self.server.steers.clear()

    async def forget(self) -> None:
        """Forget all responses every 20 seconds, to bound memory and to make deltas fail."""
        while True:
            await trio.sleep(20)
            self.counts["all forgotten"] += 1
            self.server.forget_all()


async def serve(seed: int) -> None:
    """Serve until the standard input ends, then print the counters."""
    async with open_test_server(max_age=MAX_AGE) as server, trio.open_nursery() as nursery:
        faults = FaultInjector(server, seed)
        server.respond_with(faults.answer)
        print(await server.serve_tcp(), flush=True)
        nursery.start_soon(faults.trouble_handshakes)
        nursery.start_soon(faults.forget)
        await trio.to_thread.run_sync(sys.stdin.read)
        nursery.cancel_scope.cancel()
    seen = server.statistics()
    report = {
        "faults": dict(faults.counts.most_common()),
        "handshakes": seen.handshakes,
        "responses": seen.responses,
        "most sockets at once": seen.max_open,
        "errors": dict(Counter(repr(error)[:60] for error in server.errors)),
    }
    print(json.dumps(report), flush=True)


if __name__ == "__main__":
    trio.run(serve, int(sys.argv[1]))
