"""``completion``: scripts that have a shell complete the command line, made from its parser.

They are plain text without calls back into Python, so that the Tab key answers at once.

What belongs elsewhere: the options (`arguments.py`).
"""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = ["SHELLS", "write_script"]

FILE: Final = "FILE"
BASH_FILES: Final = "compopt -o filenames 2> /dev/null; local IFS=$'\\n'"
BASH_FOUND: Final = '$(compgen -f -- "$current")'


@dataclass(frozen=True, slots=True, kw_only=True)
class Option:
    """An option, or with no names the value that a command takes by its place."""

    names: tuple[str, ...]
    about: str
    takes_value: bool
    is_file: bool
    choices: tuple[str, ...]
    repeats: bool = False
    """Whether there may be several of the value."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Command:
    """A command, and what may follow it."""

    name: str
    about: str
    options: tuple[Option, ...]

    @property
    def words(self) -> list[str]:
        """Everything that can be completed without knowing what stands before."""
        return [word for option in self.options for word in (*option.names, *_placed(option))]

    @property
    def places_file(self) -> bool:
        """Whether a file stands among its values, without an option in front of it."""
        return any(option.is_file and not option.names for option in self.options)


def _placed(option: Option) -> tuple[str, ...]:
    return option.choices if not option.names else ()


def write_script(parser: argparse.ArgumentParser, shell: str) -> str:
    """Write the script for one of `SHELLS`."""
    top = Command(name="", about="", options=tuple(_options(parser)))
    return WRITERS[shell](parser.prog, top, _commands(parser))


# --- Reading the parser ------------------------------------------------------------------


def _actions(parser: argparse.ArgumentParser) -> list[argparse.Action]:
    return parser._actions  # noqa: SLF001 - argparse shows its arguments nowhere else


def _options(parser: argparse.ArgumentParser) -> list[Option]:
    return [
        Option(
            names=tuple(action.option_strings),
            about=_about(action, parser),
            takes_value=action.nargs != 0,
            is_file=action.metavar == FILE,
            choices=tuple(str(choice) for choice in action.choices or ()),
            repeats=action.nargs == "+",
        )
        for action in _actions(parser)
        if not _is_commands(action)
    ]


def _about(action: argparse.Action, parser: argparse.ArgumentParser) -> str:
    values: dict[str, Any] = {**vars(action), "prog": parser.prog}
    return (action.help or "") % values


def _is_commands(action: argparse.Action) -> bool:
    return action.nargs == argparse.PARSER


def _commands(parser: argparse.ArgumentParser) -> list[Command]:
    several: Any
    [several] = (action for action in _actions(parser) if _is_commands(action))
    abouts = {
        action.dest: action.help or ""
        for action in several._get_subactions()  # noqa: SLF001 - likewise
    }
    return [
        Command(name=name, about=abouts[name], options=tuple(_options(each)))
        for name, each in several.choices.items()
    ]


# --- Writing the scripts -----------------------------------------------------------------


def _bash(prog: str, top: Command, commands: list[Command]) -> str:
    function = "_" + re.sub(r"\W", "_", prog)
    names = " ".join(command.name for command in commands)
    lines = [
        f"{function}() {{",
        '    local current="${COMP_WORDS[COMP_CWORD]}" before="${COMP_WORDS[COMP_CWORD-1]}"',
        '    local command="" word words="" files=""',
        '    for word in "${COMP_WORDS[@]:1:COMP_CWORD-1}"; do',
        '        case "$word" in',
        f'            {names.replace(" ", "|")}) command="$word"; break ;;',
        "        esac",
        "    done",
        '    case "$command $before" in',
    ]
    for command in commands:
        for option in command.options:
            if option.takes_value and option.names:
                patterns = " | ".join(f'"{command.name} {name}"' for name in option.names)
                lines.append(f"        {patterns}) {_bash_value(option)} ;;")
    lines += ["    esac", '    case "$command" in']
    for command in commands:
        files = " files=1" if command.places_file else ""
        lines.append(f'        {command.name}) words="{" ".join(command.words)}"{files} ;;')
    lines += [
        f'        *) words="{" ".join([*top.words, names])}" ;;',
        "    esac",
        '    COMPREPLY=($(compgen -W "$words" -- "$current"))',
        f'    if [ -n "$files" ]; then {BASH_FILES}; COMPREPLY+=({BASH_FOUND}); fi',
        "}",
        f"complete -F {function} {prog}",
    ]
    return "\n".join(lines) + "\n"


def _bash_value(option: Option) -> str:
    """Complete the value of an option, and nothing else."""
    if option.is_file:
        return f"{BASH_FILES}; COMPREPLY=({BASH_FOUND}); return"
    choices = " ".join(option.choices)
    return f'COMPREPLY=($(compgen -W "{choices}" -- "$current")); return'


def _zsh(prog: str, top: Command, commands: list[Command]) -> str:
    function = "_" + re.sub(r"\W", "_", prog)
    listed = " ".join(_quoted(f"{c.name}:{c.about}") for c in commands)
    lines = [
        f"#compdef {prog}",
        f"{function}() {{",
        "    local state line",
        "    local -a commands",
        f"    commands=({listed})",
        "    _arguments -C \\",
        *(f"        {spec} \\" for option in top.options for spec in _zsh_specs(option)),
        "        '1:command:->command' '*::argument:->argument' && return",
        '    case "$state" in',
        "        command) _describe command commands ;;",
        '        argument) case "$line[1]" in',
    ]
    for command in commands:
        specs = " ".join(spec for option in command.options for spec in _zsh_specs(option))
        lines.append(f"            {command.name}) _arguments {specs} ;;")
    lines += [
        "        esac ;;",
        "    esac",
        "}",
        f'if [ "$funcstack[1]" = "{function}" ]; then',
        f'    {function} "$@"',
        "else",
        f"    compdef {function} {prog}",
        "fi",
    ]
    return "\n".join(lines) + "\n"


def _zsh_specs(option: Option) -> list[str]:
    about = re.sub(r"([\[\]:])", r"\\\1", option.about)
    action = f"({' '.join(option.choices)})" if option.choices else " "
    action = "_files" if option.is_file else action
    if not option.names:
        return [_quoted(f"{'*' if option.repeats else ''}:{about}:{action}")]
    value = f":value:{action}" if option.takes_value else ""
    return [_quoted(f"{name}[{about}]{value}") for name in option.names]


def _fish(prog: str, top: Command, commands: list[Command]) -> str:
    names = " ".join(command.name for command in commands)
    nothing_yet = f"not __fish_seen_subcommand_from {names}"
    lines = [f"complete -c {prog} -f"]
    lines += [_fish_option(prog, nothing_yet, option) for option in top.options]
    for command in commands:
        about = _quoted(command.about)
        lines.append(f"complete -c {prog} -n {_quoted(nothing_yet)} -a {command.name} -d {about}")
    for command in commands:
        seen = f"__fish_seen_subcommand_from {command.name}"
        lines += [_fish_option(prog, seen, option) for option in command.options]
    return "".join(f"{line}\n" for line in lines if line)


def _fish_option(prog: str, condition: str, option: Option) -> str:
    words = [f"complete -c {prog} -n {_quoted(condition)}"]
    if not option.names and not option.choices and not option.is_file:
        return ""
    words += [f"-l {n[2:]}" if n.startswith("--") else f"-s {n[1:]}" for n in option.names]
    if option.takes_value and option.names:
        words.append("-r" if option.is_file else "-x")
    if option.is_file:  # of a value without a name, too: the first line has turned files off
        words.append("-F")
    if option.choices:
        words.append(f"-a {_quoted(' '.join(option.choices))}")
    words.append(f"-d {_quoted(option.about)}")
    return " ".join(words)


def _quoted(text: str) -> str:
    """Quote for zsh and fish: what stands between single quotes has no single quote in it."""
    return "'" + text.replace("'", r"'\''") + "'"


WRITERS: Final[dict[str, Callable[[str, Command, list[Command]], str]]] = {
    "bash": _bash,
    "zsh": _zsh,
    "fish": _fish,
}
SHELLS: Final = tuple(WRITERS)
