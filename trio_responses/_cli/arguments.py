"""The commands and their options.

What belongs elsewhere: what ``--help`` says below them (`help.py`), what they do (a file each).
"""

from __future__ import annotations

import argparse
import contextlib
import math
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final

from trio_responses._cli.ask import ask, record
from trio_responses._cli.chat import chat
from trio_responses._cli.completion import SHELLS, write_script
from trio_responses._cli.demo import MODEL, demo
from trio_responses._cli.probe import MODELS, probe
from trio_responses._cli.running import PROG
from trio_responses._cli.serve import replay, serve

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["make_parser"]

MAX_PORT: Final = 65535
FILE: Final = "FILE"
"""The name of a value that is a file: shells complete it as one."""

PROGRAM_HELP: Final = f"""\
examples:
  {PROG} demo
      see the library at work on a server of its own, every step checked
  {PROG} chat --embedded --tools
      talk to the embedded server: no key and no network needed
  {PROG} ask --embedded "What can you do?"
      ask it one thing
  OPENAI_API_KEY=... {PROG} ask "Why is the sky blue?"
      ask OpenAI, and read the answer as it is written
  {PROG} serve --port 8765
      run the embedded server for other programs, then for example
  {PROG} ask --base-url http://127.0.0.1:8765/v1 "Hello"
  {PROG} probe --base-url http://127.0.0.1:8765/v1
      find out what a server can do
  {PROG} record hello.jsonl "Hello"
      record what a server says, for tests that need it no more:
  {PROG} replay hello.jsonl --port 8765
  eval "$({PROG} completion bash)"
      complete commands and options with the Tab key

"{PROG} COMMAND --help" tells more about each command. An error is one line on
stderr, and exit code 1; --debug shows where it comes from.
"""

ENVIRONMENT_HELP: Final = """\
environment:
  OPENAI_API_KEY    the key; not needed for --embedded and servers on this machine
  OPENAI_BASE_URL   where to connect to without --base-url
"""

ASK_HELP: Final = f"""\
The answer's text goes to stdout as it comes; everything else goes to stderr.
Exit codes: 0 for an answer, also a refused or incomplete one, which is noted on
stderr; 1 for an error; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} ask "Why is the sky blue?"
  git diff | {PROG} ask --instructions "Review this patch" -
  {PROG} ask --json "Hi" | jq .usage
  {PROG} ask --embedded "What is it like in there?"
  {PROG} ask --record sky.jsonl "Why is the sky blue?"
      and "{PROG} replay sky.jsonl" answers as it was answered
"""

CHAT_HELP: Final = f"""\
The history is kept here, and survives a lost connection. In a terminal, answers
are shown as Markdown where rich is installed: pip install "{PROG}[cli]".
Otherwise answers go to stdout as plain text, and everything else to stderr.

while you chat:
  /save FILE    save the conversation     /reset   forget it and begin anew
  /load FILE    go on with a saved one    /quit    leave, as Ctrl-D does
  Ctrl-C        cancel the answer that is being written; once more to leave

Exit codes: 0 after /quit and at the end of the input; 1 when the connection is lost
for good; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} chat --embedded --tools
      then ask it "What time is it in Oslo?" or "What is 6 * 7?"
  {PROG} chat --instructions "Answer in one sentence"
  {PROG} chat --load yesterday.json
  {PROG} chat --embedded --max-age 12
      see the connection replaced every ten seconds
  {PROG} chat --tools --record tools.jsonl
      record all that goes over the wire, as "{PROG} record --help" tells
  printf 'Hello\\nAnd you?\\n' | {PROG} chat --embedded 2> /dev/null
"""

PROBE_HELP: Final = f"""\
Each feature is tried on a connection of its own. A dozen small turns are asked for,
which a server that bills will bill. The verdicts:
  works      seen to work
  unclear    taken without complaint, but nothing shows that it had an effect
  no         refused, or not understood
  fails      it went wrong
  skipped    what it builds on does not work

Exit codes: 0 when the basics work (handshake and text turn), whatever else is
missing; 1 when not, or for an error; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} probe --embedded
  {PROG} probe --base-url http://127.0.0.1:8000/v1 --model my-model
  {PROG} probe --model gpt-5.5 --model gpt-5-mini
      the first one that answers is used
  {PROG} probe --json | jq '.features[] | select(.verdict != "works")'
"""

SERVE_HELP: Final = f"""\
The server answers by itself, and the same way every time: it repeats what it was
told, calls a function tool whose name shares a word with the question, and reports
what the function returned. Any client of the WebSocket mode can use it:

  {PROG} serve --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

With --max-age 10 every socket is ended after ten seconds instead of an hour.
"""

RECORD_HELP: Final = f"""\
It asks as "{PROG} ask" does; several questions are the turns of one conversation.
The recording is a file of JSON lines with their times: every message that is sent or
received, errors too. It holds content, and only its owner may read it; it has no key
and no header. A file that is there is not overwritten without --force (it keeps its
mode then), and where there was no connection, none is made. "chat" and "ask" record
with --record FILE. Exit codes: 0 for an answer to each question; 1 for an error, which
ends it; 2 for wrong usage; 130 after Ctrl-C. What was said until then is in the file.

{ENVIRONMENT_HELP}
examples:
  {PROG} record hello.jsonl "Hello" "And in French?"
  {PROG} record --base-url http://127.0.0.1:8000/v1 --model my-model mine.jsonl "Hi"
  {PROG} record --embedded --force hello.jsonl "Hello"
  {PROG} replay hello.jsonl
"""

REPLAY_HELP: Final = f"""\
Requests are answered in the order in which they come, whatever they ask: with the
messages that the recording has for them, the same ids and numbers. Where the server
ended the socket then, it is ended here. Behind the last one the server answers as that
of "{PROG} serve" does, and says so on stderr. To begin anew, start it again.

  {PROG} record session.jsonl "Hello"
  {PROG} replay session.jsonl --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

In Python, server.replay("session.jsonl") of trio_responses.testing does the same within
a test. Ctrl-C and SIGTERM end it with 0; 1 is for a file that is no recording, and for
an address that cannot be listened on.
"""

DEMO_HELP: Final = """\
It needs no key and no network: it runs the embedded server and talks to it over a
real socket on the loopback address. It cuts that socket in the middle of an answer,
and lets it grow too old. Every step is checked against what the server has seen.
Exits with 0 only if all of them came out as promised. It takes about five seconds.
The source, trio_responses/_cli/demo.py, is meant to be read.

example:
  trio-responses demo
"""

COMPLETION_HELP: Final = f"""\
It prints a script for the shell, made from the options of this very version:

  eval "$({PROG} completion bash)"                 in ~/.bashrc
  eval "$({PROG} completion zsh)"                  in ~/.zshrc, behind compinit
  {PROG} completion fish | source                  in ~/.config/fish/config.fish
"""


def make_parser() -> argparse.ArgumentParser:
    """Make the parser of the whole command line."""
    parser = argparse.ArgumentParser(
        prog=PROG,
        description="A Trio client for the Responses API in WebSocket mode, and a server for it.",
        epilog=PROGRAM_HELP,
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
    it = _add_command(commands, chat, "talk with a model in the terminal", CHAT_HELP)
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
    it = _add_command(commands, ask, "ask a question and stream the answer", ASK_HELP)
    it.add_argument("text", help='the question; "-" reads it from stdin')
    _add_speaker(it)
    _add_place(it)
    about = "print the finished Response as one JSON object instead"
    it.add_argument("--json", action="store_true", help=about)
    _add_recording(it)


def _add_probe(commands: Any) -> None:
    it = _add_command(commands, probe, "find out what a server can do", PROBE_HELP)
    _add_place(it)
    about = f"a model to try; may be given several times (default: {', '.join(MODELS)})"
    it.add_argument("--model", dest="models", metavar="NAME", action="append", help=about)
    about = "give each feature so many seconds (%(default)g)"
    it.add_argument("--timeout", metavar="S", type=_seconds, default=60.0, help=about)
    it.add_argument("--json", action="store_true", help="print one JSON object instead of a table")


def _add_serve(commands: Any) -> None:
    it = _add_command(commands, serve, "run the embedded server until Ctrl-C", SERVE_HELP)
    _add_listener(it)
    about = "end every socket after so many seconds (%(default)g, as OpenAI does)"
    it.add_argument("--max-age", metavar="S", type=_seconds, default=3600.0, help=about)
    about = "answer requests with parameters that the API does not have, too"
    it.add_argument("--unknown-parameters", action="store_true", help=about)


def _add_record(commands: Any) -> None:
    it = _add_command(commands, record, "ask, and record all that goes over the wire", RECORD_HELP)
    it.add_argument("file", metavar=FILE, help="the recording: a new file, which holds content")
    about = 'a question; "-" reads it from stdin; several are turns of one conversation'
    it.add_argument("texts", metavar="TEXT", nargs="+", help=about)
    _add_speaker(it)
    _add_place(it)
    _add_force(it)


def _add_replay(commands: Any) -> None:
    it = _add_command(commands, replay, "run a server that answers from a recording", REPLAY_HELP)
    it.add_argument("file", metavar=FILE, help="the recording")
    _add_listener(it)
    about = "give each message the time that it took; without it all come at once"
    it.add_argument("--timing", action="store_true", help=about)


def _add_demo(commands: Any) -> None:
    _add_command(commands, demo, "show the library at work, every step checked", DEMO_HELP)


def _add_completion(commands: Any) -> None:
    it = _add_command(
        commands, completion, "print a script that completes commands and options", COMPLETION_HELP
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
