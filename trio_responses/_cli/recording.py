"""Where a command records to: a new file, and the instruments that fill it.

What belongs elsewhere: what is recorded (`instruments/recording.py`), the command that does
nothing else (`record.py`), the one that serves what was recorded (`replay.py`).
"""

from __future__ import annotations

import contextlib
import os
import sys
from functools import partial
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, final

from trio_responses import Instrument, LoggingInstrument, Recorder

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message

__all__ = ["record_into"]

OWNER_ONLY: Final = 0o600


@contextlib.contextmanager
def record_into(
    path: str | None, *, force: bool
) -> Generator[Sequence[Instrument] | None, None, None]:
    """Have the instruments of a command that records into a file; `None` where none is asked for.

    In the end it is said on stderr how much was recorded. Where it was nothing, as without a
    connection, a file that was made here is taken away again, so that the next try finds none.

    :param path: the file; a new one is for its owner's eyes only.
    :param force: overwrite a file that is there.
    :raises OSError: when the file is there, cannot be made, or cannot be written to its end.
    """
    if path is None:
        yield None
        return
    tally = Tally()
    file = _create(path, force=force)
    try:
        yield (LoggingInstrument(), Recorder(file), tally)
    finally:
        _close(file, path)
        if tally.sent or tally.received:
            count = f"{tally.sent} sent, {tally.received} received"
            print(f"note: recorded into {path}: {count}", file=sys.stderr)
        elif not force:
            Path(path).unlink(missing_ok=True)


@final
class Tally(Instrument):
    """Counts the messages."""

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:  # noqa: ARG002 - a hook's form
        """Count one."""
        self.sent += 1

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:  # noqa: ARG002 - likewise
        """Count them."""
        self.received += len(batch)


def _create(path: str, *, force: bool) -> IO[bytes]:
    try:
        return open(path, "wb" if force else "xb", opener=partial(os.open, mode=OWNER_ONLY))
    except FileExistsError:
        raise FileExistsError(f"{path} is there already: --force overwrites it") from None


def _close(file: IO[bytes], path: str) -> None:
    """Close it: what could not be written before is tried again here."""
    try:
        file.close()
    except OSError as error:
        raise OSError(f"the recording in {path} is cut off: {error.strerror}") from error
