"""A web service on several processes: any of them continues the conversation of any browser.

Each process serves the same port and has a pool of connections. A conversation is kept in a store:
SQLite by default; Redis or PostgreSQL for processes on several machines.

- The browser gets the answer by server-sent events while it is written.
- A browser that leaves does not end its turn. When it asks again with the same request id, after a
  reload or after the process was killed, it gets the answer, and the model is not asked twice.
- While one process answers, the others say 409 with ``Retry-After`` for that conversation.
- At SIGTERM a process ends its turns before it stops.

Run it: ``pip install trio-responses[examples]``, then ``python -m examples.web``.
"""
# ruff: noqa: T201 - this program prints its results

import json
import math
import os
import signal
import socket
import sys
from argparse import Namespace
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import msgspec
import trio
from hypercorn.config import Config
from hypercorn.trio import serve  # pyright: ignore[reportUnknownVariableType]
from quart import Response, request
from quart_trio import QuartTrio

from examples.server import argument_parser, open_server, supervise
from trio_responses import ConfigurationError, ResponsesError, ResponsesPool, open_pool
from trio_responses.stores import (
    ConversationBusy,
    PostgresStore,
    RedisStore,
    SQLiteStore,
    StoreUnavailable,
)
from trio_responses.testing import Reply, Request, default_answer
from trio_responses.types import OutputTextDelta

PAGE = Path(__file__).with_name("web.html").read_text(encoding="utf-8")
WAIT = 1.0  # seconds to wait for a process that answers


def open_store(url: str) -> SQLiteStore | RedisStore | PostgresStore:
    """Return the store of a URL, or the SQLite database of a path."""
    if url.startswith(("redis:", "rediss:", "unix:")):
        return RedisStore(url)
    return PostgresStore(url) if url.startswith("postgres") else SQLiteStore(url)


class Question(msgspec.Struct):
    """What a browser sends."""

    conversation: str
    request_id: str
    text: str


@dataclass
class Service:
    """Answers questions in conversations. ``nursery`` has the turns, which outlive a request."""

    backend: SQLiteStore | RedisStore | PostgresStore
    pool: ResponsesPool
    model: str
    lease: float
    nursery: trio.Nursery

    async def ask(self) -> Response:
        """Answer a POST with the events of a turn.

        The body is JSON, which a page of another site cannot send. A real service takes the id of
        the conversation from the user's session, and not from the browser.
        """
        if not request.is_json:
            return Response("The body must be JSON.", 415)
        try:
            question = msgspec.json.decode(await request.get_data(), type=Question)
        except msgspec.MsgspecError as error:
            return Response(str(error), 400)
        sender, receiver = trio.open_memory_channel[dict[str, str]](math.inf)  # one short answer
        try:
            await self.nursery.start(self.answer, sender, question)
        except ConversationBusy as busy:
            later = {"Retry-After": str(math.ceil(min(busy.seconds_left, WAIT)))}
            return Response("The conversation is answering.", 409, later)
        except StoreUnavailable:
            return Response("The store is away.", 503, {"Retry-After": "5"})
        except ConfigurationError as error:
            return Response(str(error), 400)
        response = Response(self.events(receiver), content_type="text/event-stream")
        response.headers["Cache-Control"] = "no-store"
        response.timeout = None  # a turn may take minutes
        return response

    async def answer(
        self,
        sender: trio.MemorySendChannel[dict[str, str]],
        question: Question,
        *,
        task_status: trio.TaskStatus[None],
    ) -> None:
        """Run a turn, or find its answer in the store, and send it piece by piece."""

        def send(**event: str) -> None:
            with suppress(trio.BrokenResourceError):  # the browser left, the turn goes on
                sender.send_nowait(event)

        is_owner = False
        with sender:
            try:
                async with self.pool.durable_conversation(
                    self.backend,
                    f"web-{question.conversation}",
                    wait=WAIT,
                    lease_seconds=self.lease,
                    model=self.model,
                    store=False,
                ) as conversation:
                    is_owner = True
                    task_status.started()
                    async with conversation.run_stream(
                        question.text, request_id=question.request_id
                    ) as run:
                        async for event in run:
                            if isinstance(event, OutputTextDelta):
                                send(text=event.delta)
                send(answer=run.response.output_text, process=str(os.getpid()))
            except ResponsesError as error:
                if not is_owner:
                    raise
                send(error=f"No answer: {error}.")

    async def events(
        self, receiver: trio.MemoryReceiveChannel[dict[str, str]]
    ) -> AsyncGenerator[str, None]:
        """Yield server-sent events."""
        with receiver:
            async for event in receiver:
                yield f"data: {json.dumps(event)}\n\n"


async def run_process(arguments: Namespace) -> None:
    """Serve requests from the socket of the parent until SIGTERM or Ctrl-C."""
    config = Config()
    config.bind = [f"fd://{arguments.socket}"]
    config.graceful_timeout = 1.0
    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_store(arguments.store) as backend,
            open_server(arguments.url) as options,
            open_pool(**options) as pool,
            trio.open_nursery() as nursery,
        ):
            app = QuartTrio(__name__)
            service = Service(backend, pool, arguments.model, arguments.lease, nursery)

            async def page() -> str:
                return PAGE

            async def stop() -> None:
                await anext(signals)

            app.add_url_rule("/", view_func=page)
            app.add_url_rule("/ask", view_func=service.ask, methods=["POST"])
            await serve(app, config, shutdown_trigger=stop)


async def main(arguments: Namespace) -> None:
    """Start the processes, and start them again when they end, until SIGTERM or Ctrl-C."""
    if arguments.socket is not None:
        await run_process(arguments)
        return
    listener = socket.create_server((arguments.host, arguments.port))
    host, port = listener.getsockname()[:2]
    command = [sys.executable, "-m", "examples.web", *sys.argv[1:]]
    command += ["--socket", str(listener.fileno())]
    with listener, trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with (
            open_server(arguments.url, answer_slowly) as options,
            trio.open_nursery() as nursery,
        ):
            command += ["--url", options["endpoint"].url]
            for _ in range(arguments.processes):
                nursery.start_soon(partial(supervise, command, pass_fds=[listener.fileno()]))
            print(f"open http://{host}:{port}/", flush=True)
            await anext(signals)
            nursery.cancel_scope.cancel()


def answer_slowly(question: Request) -> Reply:
    """Return the answer of the embedded server, with a delay between the pieces."""
    return Reply(default_answer(question).text, delay=0.03)


def parse() -> Namespace:
    """Return the parsed command line."""
    parser = argument_parser("A web service on several processes that streams answers to browsers.")
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (%(default)s)")
    parser.add_argument(
        "--port", type=int, default=0, help="port to listen on; 0, the default, takes a free one"
    )
    parser.add_argument(
        "--store",
        default="chats.db",
        help="path of a SQLite database (%(default)s), or URL of Redis or PostgreSQL",
    )
    parser.add_argument("--processes", type=int, default=2, help="how many (%(default)s)")
    parser.add_argument(
        "--lease",
        type=float,
        default=10.0,
        help="seconds after which another process takes over from a killed one (%(default)s)",
    )
    parser.add_argument("--socket", type=int, help="serve this socket, as a process of the service")
    return parser.parse_args()


if __name__ == "__main__":
    trio.run(main, parse())
