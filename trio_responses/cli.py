"""The command line: ``serve``, ``ask`` and ``demo``, and what they say when something is wrong.

Exit codes: 0 for success, 1 for an error, 2 for wrong usage, 130 after Ctrl-C (``serve``, which
has no other end, exits with 0 then). No traceback for what is not a fault of this program.

What belongs elsewhere: the demonstration (`demo.py`), the server (`testing/`).
"""

from __future__ import annotations

import argparse
import contextlib
import io
import math
import os
import signal
import sys
from contextlib import suppress
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

import msgspec
import trio

from trio_responses import (
    APIError,
    AuthenticationError,
    Delivery,
    Endpoint,
    OutputTextDelta,
    ReconnectPolicy,
    ResponseFailedError,
    ResponsesError,
    UpgradeUnsupported,
    open_responses,
)
from trio_responses.demo import MODEL, run_demo
from trio_responses.nurseries import open_plain_nursery
from trio_responses.screen import Screen
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence

    from trio_responses import Response

__all__ = ["main"]

PROG: Final = "trio-responses"
FAILED: Final = 1
WRONG_USAGE: Final = 2
SIGNALLED: Final = 128
"""Added to the signal's number, as shells do."""
BROKEN_PIPE: Final = SIGNALLED + 13
INTERRUPTED: Final = SIGNALLED + signal.SIGINT
MAX_PORT: Final = 65535
PATIENCE: Final = ReconnectPolicy(initial=0.5, attempts=2, max_retry_after=10.0)
"""A person waits in front of `ask`: it gives up sooner than a program would."""

HELP: Final = f"""\
examples:
  {PROG} demo
      see the library at work on a server of its own, every step checked
  {PROG} ask --embedded "What can you do?"
      ask the embedded server: no key and no network needed
  OPENAI_API_KEY=... {PROG} ask "Why is the sky blue?"
      ask OpenAI, and read the answer as it is written
  {PROG} serve --port 8765
      run the embedded server for other programs, then for example
  {PROG} ask --base-url http://127.0.0.1:8765/v1 "Hello"

"{PROG} COMMAND --help" tells more about each command.
"""

ASK_HELP: Final = f"""\
The answer's text goes to stdout as it comes; everything else goes to stderr.
Exit codes: 0 for an answer, also a refused or incomplete one, which is noted on
stderr; 1 for an error; 2 for wrong usage; 130 after Ctrl-C.

environment:
  OPENAI_API_KEY    the key; not needed for --embedded and servers on this machine
  OPENAI_BASE_URL   where to ask without --base-url

examples:
  {PROG} ask "Why is the sky blue?"
  git diff | {PROG} ask --instructions "Review this patch" -
  {PROG} ask --json "Hi" | jq .usage
  {PROG} ask --embedded "What is it like in there?"
"""

SERVE_HELP: Final = f"""\
The server answers by itself, and the same way every time: it repeats what it was
told, calls a function tool whose name shares a word with the question, and reports
what the function returned. Any client of the WebSocket mode can use it:

  {PROG} serve --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

With --max-age 10 every socket is ended after ten seconds instead of an hour.
"""

DEMO_HELP: Final = """\
It needs no key and no network: it runs the embedded server and talks to it over a
real socket on the loopback address. It cuts that socket in the middle of an answer,
and lets it grow too old. Every step is checked against what the server has seen.
Exits with 0 only if all of them came out as promised. It takes about five seconds.
The source, trio_responses/demo.py, is meant to be read.
"""

NO_KEY: Final = """\
error: there is no API key for {host}. Do one of these:
  export OPENAI_API_KEY=...                           ask with your key
  {prog} ask --embedded "..."                ask the embedded server: no key needed
  {prog} ask --base-url http://127.0.0.1:PORT/v1 "..."   ask a server on this machine
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command line.

    :param argv: the arguments, without the program's name; by default those of the process.
    :return: the exit code.
    :raises SystemExit: from argparse: for wrong usage, ``--help`` and ``--version``.
    """
    arguments = _parser().parse_args(argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # an answer may hold what a terminal cannot show
    command: Callable[[argparse.Namespace], int] = arguments.command
    try:
        return command(arguments)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:  # whoever read the output has left
        _forget_output()
        return BROKEN_PIPE
    except (ResponsesError, OSError, UnicodeError) as error:
        _complain(error)
        return FAILED


def _forget_output() -> None:
    """Let what is still buffered go nowhere.

    The interpreter writes it at exit, fails once more, and would make status 120 of that.
    """
    with suppress(OSError, ValueError):  # a stream that is no file has nothing to redirect
        output = sys.stdout.fileno()
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, output)
        os.close(nowhere)


# --- serve -------------------------------------------------------------------------------


def _serve(arguments: argparse.Namespace) -> int:
    serve = partial(
        _serve_until_signal,
        host=arguments.host,
        port=arguments.port,
        api_key=arguments.api_key,
        max_age=arguments.max_age,
    )
    code = _run(serve)
    return 0 if code > SIGNALLED else code


async def _serve_until_signal(host: str, port: int, api_key: str | None, max_age: float) -> int:
    async with open_test_server(api_key=api_key, max_age=max_age) as server:
        try:
            url = await server.serve_tcp(host, port)
        except (OSError, UnicodeError) as error:
            reason = (error.strerror if isinstance(error, OSError) else None) or error
            print(f"error: cannot listen on {host} port {port}: {reason}", file=sys.stderr)
        else:
            print(f"listening on {url}", flush=True)
            await trio.sleep_forever()
    return FAILED


# --- ask ---------------------------------------------------------------------------------


def _ask(arguments: argparse.Namespace) -> int:
    endpoint = None if arguments.embedded else Endpoint.of(arguments.base_url)
    if endpoint is not None and not endpoint.loopback and not os.environ.get(endpoint.key_variable):
        print(NO_KEY.format(host=endpoint.host, prog=PROG), end="", file=sys.stderr)
        return WRONG_USAGE
    # Before the event loop runs: Ctrl-C must reach a program that waits for its input.
    text = sys.stdin.read().rstrip("\n") if arguments.text == "-" else arguments.text
    if not text.strip():
        print("error: there is no question: the text is empty", file=sys.stderr)
        return WRONG_USAGE
    given = {"model": arguments.model, "input": text, "instructions": arguments.instructions}
    # Bytes of the shell that are no UTF-8 arrive as lone surrogates, which JSON cannot carry.
    params = {
        name: value.encode(errors="replace").decode()
        for name, value in given.items()
        if value is not None
    }
    show = _fetch_json if arguments.json else _stream_text
    return _run(partial(_ask_endpoint, endpoint, params, show))


async def _ask_endpoint(
    endpoint: Endpoint | None,
    params: dict[str, Any],
    show: Callable[[Endpoint, str | None, dict[str, Any]], Awaitable[Response]],
) -> int:
    async with contextlib.AsyncExitStack() as stack:
        key = None
        if endpoint is None:
            endpoint = await stack.enter_async_context(_embedded_endpoint())
            key = ""  # the embedded server needs none, and the user's own is none of its business
        response = await show(endpoint, key, params)
    if response.status == "failed":
        raise ResponseFailedError(response)
    if response.refusal:
        print(f"note: the model refused: {response.refusal}", file=sys.stderr)
    if response.status == "incomplete":
        details = response.incomplete_details
        reason = details.reason if details is not None else None
        print(f"note: the answer is incomplete: {reason or 'no reason given'}", file=sys.stderr)
    return 0


@contextlib.asynccontextmanager
async def _embedded_endpoint() -> AsyncGenerator[Endpoint, None]:
    async with open_test_server() as server:
        yield Endpoint.compatible(await server.serve_tcp())


async def _stream_text(endpoint: Endpoint, api_key: str | None, params: dict[str, Any]) -> Response:
    printed = ""
    try:
        async with (
            open_responses(endpoint=endpoint, api_key=api_key, reconnect=PATIENCE) as connection,
            connection.stream(snapshot=False, **params) as stream,
        ):
            async for event in stream:
                if isinstance(event, OutputTextDelta):
                    print(event.delta, end="", flush=True)
                    printed = event.delta or printed
        if not printed and stream.response.output_text:  # a server that sends no deltas
            printed = stream.response.output_text
            print(printed, end="", flush=True)
        return stream.response
    finally:
        if printed and not printed.endswith("\n"):
            print(flush=True)


async def _fetch_json(endpoint: Endpoint, api_key: str | None, params: dict[str, Any]) -> Response:
    async with (
        open_responses(endpoint=endpoint, api_key=api_key, reconnect=PATIENCE) as connection,
        connection.stream(snapshot=False, **params) as stream,
    ):
        response = await stream.until_done()
    print(msgspec.json.encode(response).decode(), flush=True)
    return response


# --- demo --------------------------------------------------------------------------------


def _demo(_: argparse.Namespace) -> int:
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    return _run(partial(run_demo, Screen(sys.stdout, colour=colour)))


# --- What they share ---------------------------------------------------------------------


def _run(work: Callable[[], Awaitable[int]]) -> int:
    return trio.run(_until_signal, work)


async def _until_signal(work: Callable[[], Awaitable[int]]) -> int:
    """Run ``work`` until it gives its exit code, or until Ctrl-C or SIGTERM cancels it."""
    received = 0

    async def wait_for_signal() -> None:
        nonlocal received
        received = await anext(signals)
        nursery.cancel_scope.cancel()

    with trio.open_signal_receiver(signal.SIGINT, signal.SIGTERM) as signals:
        async with open_plain_nursery() as nursery:
            nursery.start_soon(wait_for_signal)
            code = await work()
            nursery.cancel_scope.cancel()
            return code
    return SIGNALLED + received


def _complain(error: Exception) -> None:
    """Say in one line what went wrong, and to whom it matters, what can be done about it."""
    words = [str(error) or type(error).__name__]
    match error:
        case APIError(message=message) if message:
            words.append(message)
        case ResponseFailedError(response=response) if response.error is not None:
            words.append(response.error.message)
        case AuthenticationError():
            words.append("is OPENAI_API_KEY the right key?")
        case UpgradeUnsupported():
            words.append("does this URL offer the Responses API in WebSocket mode?")
        case ResponsesError(delivery=Delivery.ACCEPTED):
            words.append("the answer had begun")
        case ResponsesError(delivery=Delivery.AMBIGUOUS):
            words.append("the question was sent and may have been worked on")
        case _:
            pass
    print("error:", *": ".join(filter(None, words)).split(), file=sys.stderr)


# --- Arguments ---------------------------------------------------------------------------


def _parser() -> argparse.ArgumentParser:
    layout = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="A Trio client for the Responses API in WebSocket mode, and a server for it.",
        epilog=HELP,
        formatter_class=layout,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {version(PROG)}")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    about = "run the embedded server until Ctrl-C"
    serve = commands.add_parser(
        "serve", help=about, description=about, epilog=SERVE_HELP, formatter_class=layout
    )
    serve.set_defaults(command=_serve)
    serve.add_argument("--host", default="127.0.0.1", help="listen there (%(default)s)")
    serve.add_argument("--port", type=_port, default=0, help="0, the default, takes a free one")
    serve.add_argument("--api-key", metavar="K", help="accept this key only, instead of any")
    serve.add_argument(
        "--max-age",
        metavar="S",
        type=_seconds,
        default=3600.0,
        help="end every socket after so many seconds (%(default)g, as OpenAI does)",
    )

    about = "ask a question and stream the answer"
    ask = commands.add_parser(
        "ask", help=about, description=about, epilog=ASK_HELP, formatter_class=layout
    )
    ask.set_defaults(command=_ask)
    ask.add_argument("text", help='the question; "-" reads it from stdin')
    ask.add_argument("--model", default=MODEL, help="the model's name (%(default)s)")
    ask.add_argument("--instructions", metavar="TEXT", help="how the model is to behave")
    where = ask.add_mutually_exclusive_group()
    where.add_argument("--base-url", metavar="URL", help="the server, as https://api.openai.com/v1")
    where.add_argument("--embedded", action="store_true", help="ask a server in this process")
    ask.add_argument(
        "--json", action="store_true", help="print the finished Response as one JSON object instead"
    )

    about = "show the library at work, every step checked"
    demo = commands.add_parser(
        "demo", help=about, description=about, epilog=DEMO_HELP, formatter_class=layout
    )
    demo.set_defaults(command=_demo)
    return parser


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= (port := int(text)) <= MAX_PORT:
            return port
    raise argparse.ArgumentTypeError(f"a port is a number from 0 to {MAX_PORT}, not {text!r}")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"not a number of seconds: {text!r}")
