"""The commands and their options.

What belongs elsewhere: what ``--help`` says below them (`help.py`), what they do (a file each).
"""

from __future__ import annotations

import argparse
import contextlib
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from trio_responses._cli import help  # noqa: A004 - what argparse calls it, too
from trio_responses._cli.ask import ask
from trio_responses._cli.chat import chat
from trio_responses._cli.completion import SHELLS, write_script
from trio_responses._cli.demo import MODEL
from trio_responses._cli.probe import MODELS, probe
from trio_responses._cli.record import record
from trio_responses._cli.replay import replay
from trio_responses._cli.running import PROG
from trio_responses._cli.serve import demo, serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_parser"]

MAX_PORT: Final = 65535
FILE: Final = "FILE"
"""The name of a value that is a file: shells complete it as one."""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="A Trio client for the Responses API in WebSocket mode, and a server for it.",
        epilog=help.PROGRAM,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"{PROG} {version(PROG)}")
    _add_debug(parser)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for add in (
        _add_chat,
        _add_ask,
        _add_probe,
        _add_serve,
        _add_record,
        _add_replay,
        _add_demo,
        _add_completion,
    ):
        add(commands)
    return parser


def _add_command(
    commands: Any, command: Callable[[argparse.Namespace], int], about: str, epilog: str
) -> argparse.ArgumentParser:
    name = command.__name__
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=command, name=name)
    _add_debug(added)
    return added


def _add_debug(parser: argparse.ArgumentParser) -> None:
    about = "show the traceback of an error, and log records"
    # It may stand before the command and behind it: neither may forget what the other said.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=about)


def _add_place(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--base-url",
        "--url",
        metavar="URL",
        help="the server, as https://api.openai.com/v1",
    )
    where.add_argument("--embedded", action="store_true", help="a server in this process")


def _add_speaker(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--model", default=MODEL, help="the model's name (%(default)s)")
    parser.add_argument("--instructions", metavar="TEXT", help="how the model is to behave")


def _add_recording(parser: argparse.ArgumentParser) -> None:
    about = "write all that goes over the wire into a new file, to replay it; it holds content"
    parser.add_argument("--record", metavar=FILE, help=about)
    _add_force(parser)


def _add_force(parser: argparse.ArgumentParser) -> None:
    about = "record into a file that is there already, and overwrite it"
    parser.add_argument("--force", action="store_true", help=about)


def _add_listener(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--host", default="127.0.0.1", help="listen there (%(default)s)")
    parser.add_argument("--port", type=_port, default=0, help="0, the default, takes a free one")
    parser.add_argument("--api-key", metavar="K", help="accept this key only, instead of any")


def _add_chat(commands: Any) -> None:
    it = _add_command(commands, chat, "talk with a model in the terminal", help.CHAT)
    _add_speaker(it)
    _add_place(it)
    about = "offer two harmless tools: the time, and arithmetic"
    it.add_argument("--tools", action="store_true", help=about)
    it.add_argument("--load", metavar=FILE, help="go on with a conversation that /save has saved")
    it.add_argument("--plain", action="store_true", help="plain text, also in a terminal")
    about = "let the server store the responses; without it the history is kept here alone"
    it.add_argument("--store", action="store_true", help=about)
    about = "with --embedded: end a socket after so many seconds; it is replaced sooner"
    it.add_argument("--max-age", metavar="S", type=_seconds, help=about)
    _add_recording(it)


def _add_ask(commands: Any) -> None:
    it = _add_command(commands, ask, "ask a question and stream the answer", help.ASK)
    it.add_argument("text", help='the question; "-" reads it from stdin')
    _add_speaker(it)
    _add_place(it)
    about = "print the finished Response as one JSON object instead"
    it.add_argument("--json", action="store_true", help=about)
    _add_recording(it)


def _add_probe(commands: Any) -> None:
    it = _add_command(commands, probe, "find out what a server can do", help.PROBE)
    _add_place(it)
    about = f"a model to try; may be given several times (default: {', '.join(MODELS)})"
    it.add_argument("--model", dest="models", metavar="NAME", action="append", help=about)
    about = "give each feature so many seconds (%(default)g)"
    it.add_argument("--timeout", metavar="S", type=_seconds, default=60.0, help=about)
    it.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_serve(commands: Any) -> None:
    it = _add_command(commands, serve, "run the embedded server until Ctrl-C", help.SERVE)
    _add_listener(it)
    about = "end every socket after so many seconds (%(default)g, as OpenAI does)"
    it.add_argument("--max-age", metavar="S", type=_seconds, default=3600.0, help=about)
    about = "answer requests with parameters that the API does not have, too"
    it.add_argument("--unknown-parameters", action="store_true", help=about)


def _add_record(commands: Any) -> None:
    it = _add_command(commands, record, "ask, and record all that goes over the wire", help.RECORD)
    it.add_argument("file", metavar=FILE, help="the recording: a new file, which holds content")
    about = 'a question; "-" reads it from stdin; several are turns of one conversation'
    it.add_argument("texts", metavar="TEXT", nargs="+", help=about)
    _add_speaker(it)
    _add_place(it)
    _add_force(it)


def _add_replay(commands: Any) -> None:
    it = _add_command(commands, replay, "run a server that answers from a recording", help.REPLAY)
    it.add_argument("file", metavar=FILE, help="the recording")
    _add_listener(it)
    about = "give each message the time that it took; without it all come at once"
    it.add_argument("--timing", action="store_true", help=about)


def _add_demo(commands: Any) -> None:
    _add_command(commands, demo, "show the library at work, every step checked", help.DEMO)


def _add_completion(commands: Any) -> None:
    it = _add_command(
        commands, completion, "print a script that completes commands and options", help.COMPLETION
    )
    it.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def completion(arguments: argparse.Namespace) -> int:
    """Print the script that has a shell complete this command line."""
    print(write_script(make_parser(), arguments.shell), end="")
    return 0


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
