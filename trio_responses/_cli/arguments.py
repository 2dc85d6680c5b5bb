"""The parser of the command line: the commands, their options, and the texts of ``--help``."""

from __future__ import annotations

import argparse
import contextlib
import difflib
import math
import sys
from functools import partial
from importlib.metadata import version
from typing import TYPE_CHECKING, Any, Final, NoReturn, final, get_args

from trio_responses._cli.ask import ask, record
from trio_responses._cli.chat.command import chat
from trio_responses._cli.conversations import conversations
from trio_responses._cli.demo import demo
from trio_responses._cli.parameters import add_parameters
from trio_responses._cli.probe import MODELS, probe
from trio_responses._cli.running import PROG, WRONG_USAGE, print_error
from trio_responses._cli.serve import replay, serve
from trio_responses._cli.server_choice import ENDPOINTS
from trio_responses._extras import install_hint
from trio_responses.testing import ServerTransport
from trio_responses.typing import TransportOption

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

__all__ = ["make_parser", "parse_arguments"]

MAX_PORT: Final = 65535
SHELLS: Final = ("bash", "zsh", "fish")

PROGRAM_HELP: Final = f"""\
examples:
  {PROG} demo
      see what the library does, on a server of its own; every step is checked
  {PROG} chat --embedded --demo-tools
      chat with the embedded server: no key and no network needed
  {PROG} ask --embedded "What can you do?"
      ask the embedded server one question
  OPENAI_API_KEY=... {PROG} ask why is the sky blue
      ask OpenAI, and read the answer as it is generated
  {PROG} serve --port 8765
      run the embedded server for other programs, for example:
  {PROG} ask --base-url http://127.0.0.1:8765/v1 "Hello"
  {PROG} probe --base-url http://127.0.0.1:8765/v1
      find out which features a server has
  {PROG} record hello.jsonl "Hello"
      record the messages of a server, and later replay them without that server:
  {PROG} replay hello.jsonl --port 8765
  eval "$({PROG} completion bash)"
      complete commands and options with the Tab key

"{PROG} COMMAND --help" describes a command. An error is one line on stderr, with
exit code 2 if an option, a file or the server's URL cannot be used as given, else 1;
--debug also shows its traceback.
"""

ENVIRONMENT_HELP: Final = """\
environment:
  OPENAI_API_KEY    the API key; not needed for --embedded and servers on this machine
  OPENAI_BASE_URL   the server's URL, if --base-url is not given
  With --endpoint azure: AZURE_OPENAI_ENDPOINT, if --resource is not given, and
  AZURE_OPENAI_API_KEY or AZURE_OPENAI_AD_TOKEN. With --endpoint xai: XAI_API_KEY
"""

ASK_HELP: Final = f"""\
The text of the answer goes to stdout as it arrives; everything else goes to stderr.
The words are the question. If stdin is a pipe or a file, its text follows them after a
blank line. The text of each --file follows with the file's name; images and PDF files go
to the model as such.

Tools run without asking, when the model calls them: offer only what the model may do.
Each call and its result is a line on stderr.

Exit codes: 0 for an answer, also for a refused or incomplete one, with a note on stderr;
1 for an error, and with --schema for an answer that is refused, incomplete or no JSON;
2 for wrong usage, and for files and tools that cannot be loaded; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} ask why is the sky blue
  git diff | {PROG} ask Review this patch
  {PROG} ask --file chart.png --file notes.txt What is missing in the notes?
  {PROG} ask --tools weather.py:forecast "Will it rain in Oslo?"
  {PROG} ask --schema city.json "The largest city of Norway" | jq .population
  {PROG} ask --endpoint azure --resource contoso --model my-deployment Hello
  {PROG} ask --reasoning-effort low --param reasoning.summary=auto "6 * 7?"
  {PROG} ask --json "Hi" | jq .usage
  {PROG} ask --embedded "What can you do?"
  {PROG} ask --record sky.jsonl "Why is the sky blue?"
      and "{PROG} replay sky.jsonl" gives the same answer again
"""

CHAT_HELP: Final = f"""\
The history is kept in this process and survives a lost connection. With --store it is
also saved after each turn, and the next chat with this store and key continues it.

In a terminal, lines are edited, answers are shown as Markdown, and a status line has the
tokens: this needs the extra cli ({PROG}[cli]). Otherwise answers go to stdout as plain
text, and everything else to stderr.

during a chat:
  /save FILE           save the conversation    /reset   clear the history
  /load FILE           continue a saved one     /tools   list the tools
  /image FILE [TEXT]   send an image            /usage   show the tokens so far
  /model [NAME]        use another model        /quit    leave, as Ctrl-D does
  Ctrl-C        stop the answer; then clear the line; on an empty line, twice: leave
  Alt-Enter     begin a new line; pasted lines are one message in any case

/save replaces a file of something else only if you enter the command twice, and no
file before the new one is complete on the disk.

Exit codes: 0 after /quit and at the end of the input; 1 when the connection is lost
and cannot be reopened; 2 for wrong usage; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} chat --embedded --demo-tools
      then ask "What time is it in Oslo?" or "What is 6 * 7?"
  {PROG} chat --tools weather:forecast,weather:TOOLS
      offer your own functions, which run when the model calls them
  {PROG} chat --instructions "Answer in one sentence"
  {PROG} chat --load yesterday.json
  {PROG} chat --store chats.db --key work
  {PROG} chat --price 1.25,0.125,10
      see what each turn costs; TRIO_RESPONSES_PRICE sets the prices for every chat
  {PROG} chat --embedded --max-age 12
      see the connection replaced every ten seconds
  {PROG} chat --demo-tools --record tools.jsonl
      record every message, as "{PROG} record --help" describes
  printf 'Hello\\nAnd you?\\n' | {PROG} chat --embedded 2> /dev/null
"""

PROBE_HELP: Final = f"""\
Each feature is tried on a connection of its own. This sends about a dozen small
requests, which a commercial server charges for. The features of HTTP are tried last;
they need the extra http. The verdicts:
  works      the feature was observed to work
  unclear    the server accepted the request, but no event shows an effect; steering
             and lanes are tried three times before this verdict
  no         the server rejected or did not understand the request
  fails      an error occurred
  skipped    a feature that this one depends on does not work, or the extra http is
             not installed

Exit codes: 0 when the basics work (handshake and text turn, or a text turn over HTTP),
with or without the other features; 1 when they do not, or for an error; 2 for wrong
usage; 130 after Ctrl-C.

{ENVIRONMENT_HELP}
examples:
  {PROG} probe --embedded
  {PROG} probe --base-url http://127.0.0.1:8000/v1 --model my-model
  {PROG} probe --model gpt-5.5 --model gpt-5-mini
      the first model that answers is used
  {PROG} probe --json | jq '.features[] | select(.verdict != "works")'
"""

SERVE_HELP: Final = f"""\
The server needs no model and answers the same way every time: it repeats the
question, calls a function tool whose name shares a word with the question, and
reports what the function returned. It answers at once, except for the count that
"{PROG} probe" asks for. Clients connect by WebSocket or use HTTP:

  {PROG} serve --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

With --max-age 10 every socket is closed after ten seconds instead of an hour.
"""

RECORD_HELP: Final = f"""\
The questions are sent as "{PROG} ask" sends one; several are the turns of one
conversation. The recording is a file of JSON lines with times: every message sent or
received, errors included. It holds the content of the messages, so only its owner may
read it, but no API key and no headers. An existing file is replaced only with --force,
and only when the recording is complete. Without a connection, no file is created or
replaced. "chat" and "ask" record with --record FILE. Exit codes: 0 for an answer to
each question; 1 for an error, after which no more questions are sent; 2 for wrong
usage; 130 after Ctrl-C. The file holds the messages up to that point.

{ENVIRONMENT_HELP}
examples:
  {PROG} record hello.jsonl "Hello" "And in French?"
  {PROG} record --base-url http://127.0.0.1:8000/v1 --model my-model mine.jsonl "Hi"
  {PROG} record --embedded --force hello.jsonl "Hello"
  {PROG} replay hello.jsonl
"""

REPLAY_HELP: Final = f"""\
Requests are answered in order of arrival, whatever their content, with the recorded
messages: the same ids and numbers. Where the recorded server closed the socket, this
server closes it. After the last recorded request the server answers as that of
"{PROG} serve" does, with a note on stderr. To start over, restart the server.

  {PROG} record session.jsonl "Hello"
  {PROG} replay session.jsonl --port 8765
  OPENAI_BASE_URL=http://127.0.0.1:8765/v1 OPENAI_API_KEY=any python your_program.py

In Python, server.replay("session.jsonl") of trio_responses.testing does the same within
a test. Exit codes: 0 after Ctrl-C or SIGTERM; 1 for an address that the server cannot
listen on; 2 for a file that is not a recording.
"""

DEMO_HELP: Final = """\
It needs no key and no network: it runs the embedded server and connects to it over a
real socket on the loopback address. The server cuts that socket during an answer, and
closes another one at its maximum age; then WebSockets fail in the middle of a
conversation, which continues over HTTP. Every step is checked against the requests that
the server received. Steps that need what is not there, such as the extra http or a
WebSocket, are skipped, with the reason. The exit code is 0 only if no step fails. It
takes about five seconds. The source, trio_responses/_cli/demo.py, is written to be read.

example:
  trio-responses demo
"""

CONVERSATIONS_HELP: Final = f"""\
A store is the path of an SQLite file, or a URL such as redis://localhost:6379/0 or
postgresql://user@host/database. Other processes may use it meanwhile; a conversation
that is open somewhere can be read, and who has it open notices its deletion.

In the list, "open" is a conversation that some process has open, "closed" any other.

Exit codes: 0 for success; 1 for an error, also if a conversation does not exist; 2 for
wrong usage, also if the store is a file that does not exist.

examples:
  {PROG} chat --store chats.db --key work
  {PROG} conversations list --store chats.db
  {PROG} conversations show work --store chats.db
  {PROG} conversations export work --store chats.db --file work.json
  {PROG} chat --load work.json
  {PROG} conversations delete work --store chats.db
"""

COMPLETION_HELP: Final = f"""\
The script completes the commands, options and files of the installed version. It needs
shtab, which the extra cli installs ({PROG}[cli]).

  eval "$({PROG} completion bash)"                 in ~/.bashrc
  eval "$({PROG} completion zsh)"                  in ~/.zshrc, after compinit
  {PROG} completion fish | source                  in ~/.config/fish/config.fish
"""


class FileArgument(argparse.Action):
    """An argparse action for a file name, with shell completion of files."""

    @property
    def complete(self) -> Any:
        """The shell completion of the value, as shtab reads it."""
        import shtab  # noqa: PLC0415 - an extra, which `completion` alone needs

        return shtab.FILE

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature of argparse
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002 - likewise
    ) -> None:
        """Store the value in the namespace."""
        setattr(namespace, self.dest, values)


@final
class FilesArgument(FileArgument):
    """An action for an option that may be repeated, whose values are file names."""

    def __call__(
        self,
        parser: argparse.ArgumentParser,  # noqa: ARG002 - the signature of argparse
        namespace: argparse.Namespace,
        values: object,
        option_string: str | None = None,  # noqa: ARG002 - likewise
    ) -> None:
        """Add the value to those in the namespace."""
        setattr(namespace, self.dest, [*getattr(namespace, self.dest), values])


@final
class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line, with the closest word for one that it does not know."""

    def error(self, message: str) -> NoReturn:
        """Write the message to stderr, and exit with the code for wrong usage."""
        print_error(f"{message} (see {self.prog} --help)")
        self.exit(WRONG_USAGE)

    def _check_value(self, action: argparse.Action, value: Any) -> None:
        """Raise an error for a value that is none of the choices of an argument."""
        choices = list(action.choices or ())
        if choices and value not in choices:
            close = difflib.get_close_matches(str(value), choices, n=1)
            hint = f"did you mean {close[0]!r}?" if close else f"choose from {', '.join(choices)}"
            raise argparse.ArgumentError(action, f"invalid choice: {value!r} ({hint})")


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments of the command line; without any, the command prints the help.

    :raises SystemExit: for wrong usage, ``--help`` and ``--version``.
    """
    parser = make_parser()
    arguments, unknown = parser.parse_known_args(argv)
    options = [word for word in unknown if word.startswith("-") and word != "-"]
    command: argparse.ArgumentParser = getattr(arguments, "parser", parser)
    if options:
        known = [option for action in command._actions for option in action.option_strings]  # noqa: SLF001
        close = difflib.get_close_matches(options[0].partition("=")[0], known, n=1)
        hint = f"; did you mean {close[0]}?" if close else ""
        if not hint and arguments.command is ask:
            hint = "; put a question with such words into quotes"
        command.error(f"unknown option {options[0]}{hint}")
    if unknown and arguments.command is not ask:
        command.error(f"too many arguments: {' '.join(unknown)}")
    if unknown:  # words that follow an option
        arguments.words.extend(unknown)
    return arguments


def make_parser() -> argparse.ArgumentParser:
    """Return the parser of the command line, with a subparser for each command."""
    parser = Parser(
        prog=PROG,
        description="A Trio client for the Responses API in WebSocket mode, and a server for it.",
        epilog=PROGRAM_HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    _add_version(parser, about="show the version")
    _add_debug(parser)
    parser.set_defaults(command=partial(print_help, parser))
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    for add in (
        _add_chat,
        _add_ask,
        _add_probe,
        _add_serve,
        _add_record,
        _add_replay,
        _add_demo,
        _add_conversations,
        _add_completion,
    ):
        add(commands)
    return parser


def _add_command(
    commands: Any, command: Callable[[argparse.Namespace], int], about: str, epilog: str
) -> argparse.ArgumentParser:
    """Add the subparser of a command, which is named after its function."""
    name = command.__name__
    added: argparse.ArgumentParser = commands.add_parser(
        name,
        help=about,
        description=f"{about[0].upper()}{about[1:]}.",
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    added.set_defaults(command=command, name=name, parser=added)
    _add_version(added, about=argparse.SUPPRESS)
    _add_debug(added)
    return added


def _add_version(parser: argparse.ArgumentParser, *, about: str) -> None:
    shown = f"{PROG} {version(PROG)}"
    parser.add_argument("--version", action="version", version=shown, help=about)


def _add_debug(parser: argparse.ArgumentParser) -> None:
    about = "show log records, and the traceback of an error"
    # Without a default, the option may stand before the command or after it.
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=about)


def print_help(
    parser: argparse.ArgumentParser,
    arguments: argparse.Namespace,  # noqa: ARG001 - the signature of a command
) -> int:
    """Print the help of the whole command line, for a call without a command."""
    parser.print_help(sys.stdout)
    return 0


def _add_server_choice(parser: argparse.ArgumentParser) -> None:
    where = parser.add_mutually_exclusive_group()
    where.add_argument(
        "--base-url",
        "--url",
        metavar="URL",
        help="the server's URL, such as https://api.openai.com/v1",
    )
    where.add_argument("--embedded", action="store_true", help="use a server in this process")
    about = "the kind of server, which decides the URL and the variable of the key"
    parser.add_argument("--endpoint", choices=ENDPOINTS, help=about)
    about = "with --endpoint azure: the name or the URL of your resource"
    parser.add_argument("--resource", metavar="NAME", help=about)
    about = "allow http:// to other machines, which shows the key to everybody on the way"
    parser.add_argument("--allow-insecure", action="store_true", help=about)


def _add_turn_settings(parser: argparse.ArgumentParser, *, conversation: bool = True) -> None:
    add_parameters(parser, conversation=conversation)
    _add_transport(parser)


def _add_recording(parser: argparse.ArgumentParser) -> None:
    about = "record every message, with its content, in a new file for replay"
    parser.add_argument("--record", action=FileArgument, metavar="FILE", help=about)
    _add_force(parser)


def _add_force(parser: argparse.ArgumentParser) -> None:
    about = "overwrite the recording if the file exists"
    parser.add_argument("--force", action="store_true", help=about)


def _add_transport(parser: argparse.ArgumentParser) -> None:
    about = "how requests are sent (default: %(default)s: over HTTP where no WebSocket can be used)"
    choices = get_args(TransportOption)
    parser.add_argument("--transport", choices=choices, default="auto", help=about)


def _add_listener(parser: argparse.ArgumentParser) -> None:
    about = "the address to listen on (default: %(default)s)"
    parser.add_argument("--host", default="127.0.0.1", help=about)
    about = "the port to listen on (default: 0, a free port)"
    parser.add_argument("--port", type=_port, default=0, help=about)
    about = "accept only this API key (default: accept any)"
    parser.add_argument("--api-key", metavar="K", help=about)


def _add_chat(commands: Any) -> None:
    parser = _add_command(commands, chat, "chat with a model in the terminal", CHAT_HELP)
    _add_turn_settings(parser)
    _add_server_choice(parser)
    about = "offer two tools that change nothing: the time, and arithmetic"
    parser.add_argument("--demo-tools", action="store_true", help=about)
    about = "continue a conversation that /save has saved"
    parser.add_argument("--load", action=FileArgument, metavar="FILE", help=about)
    about = "show plain text and do not edit lines, also in a terminal"
    parser.add_argument("--plain", action="store_true", help=about)
    about = "do not keep what you enter for the next chat"
    parser.add_argument("--no-history", dest="history", action="store_false", help=about)
    about = "prices per million tokens, to show the cost of each turn, such as 1.25,0.125,10"
    parser.add_argument("--price", metavar="INPUT,CACHED,OUTPUT", help=about)
    about = "keep the conversation in an SQLite file, or in Redis or PostgreSQL"
    parser.add_argument("--store", metavar="PLACE", help=about)
    about = "with --store: the name of the conversation (default: chat)"
    parser.add_argument("--key", metavar="NAME", help=about)
    about = "let the server store the responses (default: only the client keeps the history)"
    parser.add_argument("--server-store", action="store_true", help=about)
    about = "with --embedded: close every socket after S seconds; it is replaced shortly before"
    parser.add_argument("--max-age", metavar="S", type=_seconds, help=about)
    _add_recording(parser)


def _add_ask(commands: Any) -> None:
    parser = _add_command(commands, ask, "ask a question and stream the answer", ASK_HELP)
    about = 'the question, of one word or several; "-" reads stdin'
    parser.add_argument("words", metavar="WORD", nargs="*", help=about)
    about = "a file for the model: text, an image or a PDF; may be repeated"
    parser.add_argument("--file", action=FilesArgument, metavar="PATH", default=[], help=about)
    about = "the JSON schema of the answer, which is checked to be JSON"
    parser.add_argument("--schema", action=FileArgument, metavar="PATH", help=about)
    about = "print the text as it arrives, or at its end (default: as it arrives, unless --schema)"
    parser.add_argument("--stream", action=argparse.BooleanOptionalAction, default=None, help=about)
    _add_turn_settings(parser, conversation=False)
    _add_server_choice(parser)
    about = "print the complete response as one JSON object instead of the text"
    parser.add_argument("--json", action="store_true", help=about)
    _add_recording(parser)


def _add_probe(commands: Any) -> None:
    parser = _add_command(commands, probe, "find out which features a server has", PROBE_HELP)
    _add_server_choice(parser)
    about = f"a model to try; may be repeated (default: {', '.join(MODELS)})"
    parser.add_argument("--model", dest="models", metavar="NAME", action="append", help=about)
    about = "the time limit for each feature, in seconds (default: %(default)g)"
    parser.add_argument("--timeout", metavar="S", type=_seconds, default=60.0, help=about)
    about = "print one JSON object instead of a table"
    parser.add_argument("--json", action="store_true", help=about)


def _add_serve(commands: Any) -> None:
    parser = _add_command(commands, serve, "run the embedded server until Ctrl-C", SERVE_HELP)
    _add_listener(parser)
    about = "close every socket after S seconds (default: %(default)g, as OpenAI does)"
    parser.add_argument("--max-age", metavar="S", type=_seconds, default=3600.0, help=about)
    about = "the transports to speak (default: both, on one port)"
    choices = get_args(ServerTransport)
    parser.add_argument("--transport", choices=choices, default="both", help=about)
    about = "accept requests with parameters that the API does not have"
    parser.add_argument("--unknown-parameters", action="store_true", help=about)


def _add_record(commands: Any) -> None:
    parser = _add_command(commands, record, "ask questions and record every message", RECORD_HELP)
    about = "the recording: a new file, which holds the content of the messages"
    parser.add_argument("file", action=FileArgument, metavar="FILE", help=about)
    about = 'a question; "-" reads it from stdin; several are the turns of one conversation'
    parser.add_argument("texts", metavar="TEXT", nargs="+", help=about)
    _add_turn_settings(parser)
    _add_server_choice(parser)
    _add_force(parser)


def _add_replay(commands: Any) -> None:
    about = "run a server that answers from a recording"
    parser = _add_command(commands, replay, about, REPLAY_HELP)
    parser.add_argument("file", action=FileArgument, metavar="FILE", help="the recording")
    _add_listener(parser)
    about = "send each message with its recorded delay (default: without delay)"
    parser.add_argument("--timing", action="store_true", help=about)


def _add_demo(commands: Any) -> None:
    about = "show what the library does, step by step"
    _add_transport(_add_command(commands, demo, about, DEMO_HELP))


def _add_conversations(commands: Any) -> None:
    about = "list, show, export or delete the conversations of a store"
    parser = _add_command(commands, conversations, about, CONVERSATIONS_HELP)
    actions = parser.add_subparsers(title="actions", metavar="ACTION", dest="action")
    about = "an SQLite file, or the URL of Redis or PostgreSQL"

    def add(name: str, help: str, names: str | int | None) -> argparse.ArgumentParser:  # noqa: A002
        action: argparse.ArgumentParser = actions.add_parser(
            name, help=help, description=f"{help[0].upper()}{help[1:]}."
        )
        if names is not None:
            of = "the name of a conversation"
            action.add_argument("names", metavar="NAME", nargs=names, help=of)
        action.add_argument("--store", metavar="PLACE", required=True, help=about)
        return action

    listing = add("list", "list conversations, with size and time of the last change", None)
    listing.add_argument("--prefix", default="", help="how their names begin")
    listing.add_argument("--json", action="store_true", help="print one JSON object a line")
    add("show", "print the messages and calls of conversations", "+")
    exporting = add("export", "write a conversation as a file for chat --load", 1)
    about_file = "the new file (default: stdout)"
    exporting.add_argument("--file", action=FileArgument, metavar="FILE", help=about_file)
    add("delete", "delete conversations for ever", "+")


def _add_completion(commands: Any) -> None:
    about = "print a script that completes commands and options in a shell"
    parser = _add_command(commands, completion, about, COMPLETION_HELP)
    parser.add_argument("shell", choices=SHELLS, help="the shell that the script is for")


def completion(arguments: argparse.Namespace) -> int:
    """Print the shell completion script of this command line."""
    try:
        import shtab  # noqa: PLC0415 - likewise
    except ImportError:
        print_error(f"completion needs shtab, which is not installed: {install_hint('cli')}")
        return WRONG_USAGE
    print(shtab.complete(make_parser(), arguments.shell))
    return 0


def _port(text: str) -> int:
    with contextlib.suppress(ValueError):
        if 0 <= (port := int(text)) <= MAX_PORT:
            return port
    raise argparse.ArgumentTypeError(f"{text!r} is not a port: a number from 0 to {MAX_PORT}")


def _seconds(text: str) -> float:
    with contextlib.suppress(ValueError):
        if 0 < (seconds := float(text)) < math.inf:
            return seconds
    raise argparse.ArgumentTypeError(f"{text!r} is not a number of seconds above 0")
