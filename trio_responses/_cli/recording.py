"""Recording of the connection of ``ask``, ``chat`` and ``record`` into a private new file.

An existing file is overwritten only by ``--force``. A file that was created here and into which
nothing was recorded is deleted again.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path
from typing import IO, TYPE_CHECKING, final

from trio_responses import Instrument, Recorder
from trio_responses._instruments.recording import open_recording

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message

__all__ = ["record_into"]


@contextlib.contextmanager
def record_into(path: str | None, *, force: bool) -> Generator[Sequence[Instrument], None, None]:
    """Yield the instruments that record a connection into a file: none without a file.

    At the end of the block, a note on stderr has the number of messages recorded. When there were
    none, the file is deleted, unless ``force`` is set.

    :param path: the file; a new one gets the mode 0600.
    :param force: overwrite an existing file.
    :raises OSError: when the file exists, cannot be created, or cannot be written completely.
    """
    if path is None:
        yield ()
        return
    counter = MessageCounter()
    file = _create(path, force=force)
    try:
        yield (Recorder(file), counter)
    finally:
        _close(file, path)
        if counter.sent or counter.received:
            count = f"{counter.sent} sent, {counter.received} received"
            print(f"note: recorded into {path}: {count}", file=sys.stderr)
        elif not force:
            Path(path).unlink(missing_ok=True)


@final
class MessageCounter(Instrument):
    """An instrument that counts the messages of a connection."""

    def __init__(self) -> None:
        self.sent: int = 0
        self.received: int = 0

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:  # noqa: ARG002 - the signature of a hook
        """Count a message that was sent."""
        self.sent += 1

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:  # noqa: ARG002 - likewise
        """Count the messages that one read has received."""
        self.received += len(batch)


def _create(path: str, *, force: bool) -> IO[bytes]:
    try:
        return open_recording(path, exclusive=not force)
    except FileExistsError:
        raise FileExistsError(f"{path} already exists: --force overwrites it") from None


def _close(file: IO[bytes], path: str) -> None:
    """Close the file, which writes what is still buffered."""
    try:
        file.close()
    except OSError as error:
        raise OSError(f"the recording in {path} is incomplete: {error.strerror}") from error
