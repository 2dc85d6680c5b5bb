"""The lines that a person has entered in a chat: kept in a file, for the next chat.

The file is one line of JSON for each entry. Only its owner can read it.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Final, final

from prompt_toolkit.history import History

from trio_responses._cli.files import write_file

if TYPE_CHECKING:
    from collections.abc import Iterable

__all__ = ["PromptHistory", "history_path"]

MAX_ENTRIES: Final = 1000
MAX_BYTES: Final = 1024 * 1024
"""A file that is longer is written anew, with the newest entries."""
MAX_ENTRY: Final = 20_000
"""Characters of an entry: a longer one, such as a pasted file, is not kept."""


def history_path() -> Path:
    """Return the path of the history file: in the folder for state of the XDG specification."""
    folder = os.environ.get("XDG_STATE_HOME", "")
    # The specification says that a relative path is ignored.
    base = Path(folder) if os.path.isabs(folder) else Path.home() / ".local" / "state"  # noqa: PTH117 - a text
    return base / "trio-responses" / "chat_history"


@final
class PromptHistory(History):
    """A history of prompts in a file. It works without the file where that cannot be used.

    :param path: the path of the file, which need not exist.
    """

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path

    def load_history_strings(self) -> Iterable[str]:
        """Return the entries of the file, the newest one first."""
        entries: list[str] = []
        with contextlib.suppress(OSError):
            content = self._path.read_bytes()
            entries = [*filter(None, map(_decode, content.splitlines()))][-MAX_ENTRIES:]
            if len(content) > MAX_BYTES:
                kept = entries[-MAX_ENTRIES // 2 :]
                write_file(str(self._path), b"".join(map(_encode, kept)))
        return reversed(entries)

    def store_string(self, string: str) -> None:
        """Add an entry to the file."""
        if len(string) > MAX_ENTRY:
            return
        with contextlib.suppress(OSError):
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
            descriptor = os.open(self._path, flags, 0o600)
            with os.fdopen(descriptor, "ab", buffering=0) as file:
                if sys.platform != "win32":
                    os.fchmod(descriptor, 0o600)
                file.write(_encode(string))


def _encode(entry: str) -> bytes:
    return json.dumps(entry).encode("ascii") + b"\n"


def _decode(line: bytes) -> str | None:
    """Return the entry of a line; `None` for a line that is none."""
    try:
        entry = json.loads(line)
    except (ValueError, RecursionError):
        return None
    return entry if isinstance(entry, str) else None
