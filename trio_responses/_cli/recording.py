"""Recording of the connection of ``ask``, ``chat`` and ``record`` into a private file.

An existing file is replaced only with ``--force``, and only by a recording that is complete. A file
that was created here and into which nothing was recorded is deleted again.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO, TYPE_CHECKING, final

from trio_responses import Instrument, Recorder
from trio_responses._cli.files import Replacement, describe_os_error
from trio_responses._cli.running import print_note
from trio_responses._instruments.recording import check_unused, open_recording

if TYPE_CHECKING:
    from collections.abc import Generator, Sequence

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message

__all__ = ["record_into"]


@contextlib.contextmanager
def record_into(path: str | None, *, force: bool) -> Generator[Sequence[Instrument], None, None]:
    """Yield the instruments that record a connection into a file: none without a file.

    At the end of the block, a note on stderr has the number of messages recorded. When there were
    none, no file is left, and an existing one stays as it was.

    :param path: the file; its mode is 0600.
    :param force: replace an existing file, when the recording is complete on the disk.
    :raises OSError: when the file exists, cannot be created, or cannot be written completely.
    """
    if path is None:
        yield ()
        return
    counter = MessageCounter()
    recording = _open(path, force=force)
    try:
        yield (Recorder(recording.file), counter)
    finally:
        if counter.sent or counter.received:
            recording.commit()
            count = f"{counter.sent} sent, {counter.received} received"
            print_note(f"recorded into {path}: {count}")
        else:
            recording.discard()


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


def _open(path: str, *, force: bool) -> NewFile | Replacement:
    if not os.path.lexists(path):
        return NewFile(path)
    if not force:
        raise FileExistsError(f"{path} already exists: --force overwrites it")
    check_unused(path)
    return Replacement(path)


@final
class NewFile:
    """A new file, which has its name from the start: a program that is killed leaves it."""

    def __init__(self, path: str) -> None:
        self._path = path
        self.file: IO[bytes] = open_recording(path, exclusive=True)

    def commit(self) -> None:
        """Complete the file on the disk.

        :raises OSError: when that fails; the file then holds what could be written.
        """
        try:
            with self.file as file:  # closed in any case
                file.flush()
                os.fsync(file.fileno())
        except OSError as error:
            reason = describe_os_error(error)
            raise OSError(f"the recording in {self._path} is incomplete: {reason}") from error

    def discard(self) -> None:
        """Delete the file."""
        with contextlib.suppress(OSError):
            self.file.close()
        Path(self._path).unlink(missing_ok=True)
