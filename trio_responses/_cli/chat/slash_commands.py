"""The commands of a chat, which begin with a slash: their names, arguments and help."""

from __future__ import annotations

import io
import os
import shlex
from typing import Final, NamedTuple

__all__ = ["SLASH_COMMANDS", "SlashCommand", "commands_help", "quote_path", "split_path"]


class SlashCommand(NamedTuple):
    """The description of a command.

    :param arguments: the names of its arguments.
    :param help: what the command does.
    :param takes_path: whether the first argument is the name of a file.
    """

    arguments: str
    help: str
    takes_path: bool = False


SLASH_COMMANDS: Final = {
    "/image": SlashCommand("FILE [TEXT]", "send an image, and a text about it", takes_path=True),
    "/save": SlashCommand("FILE", "save the conversation in a file", takes_path=True),
    "/load": SlashCommand("FILE", "continue a saved conversation", takes_path=True),
    "/reset": SlashCommand("", "clear the history and start a new conversation"),
    "/model": SlashCommand("[NAME]", "use another model; without a name, show the model"),
    "/tools": SlashCommand("", "list the tools that the model may call"),
    "/usage": SlashCommand("", "show the tokens of this chat so far"),
    "/help": SlashCommand("", "show this list"),
    "/quit": SlashCommand("", "leave; Ctrl-D, or the end of the input, does the same"),
}
KEYS: Final = {"Ctrl-C": "stop the answer in progress; without one, leave"}
KEYS_IN_TERMINAL: Final = {
    "Ctrl-C": "stop the answer; then clear the line; on an empty line, twice: leave",
    "Alt-Enter": "begin a new line; Ctrl-J does the same",
    "Ctrl-R": "search the lines that you entered before",
}


def commands_help(*, in_terminal: bool) -> str:
    """Return the list that ``/help`` shows.

    :param in_terminal: whether lines are edited in a terminal, which has more keys.
    """
    keys = KEYS_IN_TERMINAL if in_terminal else KEYS
    rows = {f"{name} {command.arguments}": command.help for name, command in SLASH_COMMANDS.items()}
    return "\n".join(f"{left:<20}{right}" for left, right in (rows | keys).items())


def split_path(text: str) -> tuple[str, str]:
    """Return the path that a text begins with, and the text after it.

    A path with spaces is quoted, or has a backslash before each space, as in a shell.

    :raises ValueError: when a quotation mark is not closed.
    """
    characters = io.StringIO(text)
    lexer = shlex.shlex(characters, posix=True, punctuation_chars=False)
    lexer.whitespace_split = True
    lexer.commenters = ""
    if os.name == "nt":
        lexer.escape = ""  # backslashes separate the folders there
    try:
        path = lexer.get_token() or ""
    except ValueError:
        raise ValueError("a quotation mark around the name of the file is not closed") from None
    return path, characters.read().strip()


def quote_path(path: str) -> str:
    """Return a path so that `split_path` returns the same one."""
    return f'"{path}"' if os.name == "nt" else shlex.quote(path)
