"""Completion at the prompt of a chat: commands that begin with a slash, and names of files."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from prompt_toolkit.completion import Completer, Completion

from trio_responses._cli.chat.slash_commands import SLASH_COMMANDS
from trio_responses._safe_text import escape_controls

if TYPE_CHECKING:
    from collections.abc import Iterator

    from prompt_toolkit.completion import CompleteEvent
    from prompt_toolkit.document import Document

__all__ = ["ChatCompleter"]

ESCAPED: Final = re.compile(r"\\(.)")
TO_ESCAPE: Final = re.compile(r"[\s'\"\\]")


@final
class ChatCompleter(Completer):
    """A completer of the commands of a chat, and of the files that some of them take."""

    def get_completions(
        self,
        document: Document,
        complete_event: CompleteEvent,  # noqa: ARG002 - the signature of prompt_toolkit
    ) -> Iterator[Completion]:
        """Yield the completions of the text before the cursor."""
        text = document.text_before_cursor
        name, space, rest = text.partition(" ")
        if "\n" in text or not text.startswith("/"):
            return
        if not space:
            for command, about in SLASH_COMMANDS.items():
                if command.startswith(name):
                    # A space follows a command that has arguments.
                    completed = f"{command} " if about.arguments else command
                    yield Completion(
                        completed, -len(name), display=command, display_meta=about.help
                    )
        elif (found := SLASH_COMMANDS.get(name)) and found.takes_path:
            # /image has a text after the path, so that spaces in the path need a backslash.
            yield from _complete_path(rest.lstrip(), escaping=name == "/image")


def _complete_path(text: str, *, escaping: bool) -> Iterator[Completion]:
    """Yield the completions of the last part of a path; a folder ends with a slash."""
    folder, _, prefix = text.rpartition("/")
    folder += "/" if folder or text.startswith("/") else ""
    wanted = prefix
    if escaping:
        folder, wanted = (ESCAPED.sub(r"\1", part) for part in (folder, prefix))
    try:
        with os.scandir(Path(folder).expanduser()) as entries:
            found = sorted((entry.name, entry.is_dir()) for entry in entries)
    except OSError:
        return
    for name, is_folder in found:
        hidden = name.startswith(".") and not wanted.startswith(".")
        if hidden or not name.startswith(wanted) or escape_controls(name) != name:
            continue
        shown = f"{name}/" if is_folder else name
        completed = TO_ESCAPE.sub(r"\\\g<0>", shown) if escaping else shown
        yield Completion(completed, -len(prefix), display=shown)
