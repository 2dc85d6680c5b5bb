"""The files that commands write and read: conversations and recordings.

A file is never lost to a write that fails: new content is written beside the old file, and takes
its name only when it is complete on the disk. Files hold content, so a new one can be read by its
owner only. What is read is bounded, and every failure is a `ConfigurationError` or an `OSError`.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Final, final

from trio_responses import ConfigurationError, ResponsesError

if TYPE_CHECKING:
    from collections.abc import Generator

__all__ = ["Replacement", "decoding", "describe_os_error", "read_file", "write_file"]

MAX_READ: Final = 512 * 1024 * 1024
"""The largest file that is read, in bytes."""


@final
class Replacement:
    """A file that is written beside another one, and replaces that one when it is complete.

    A symbolic link stays: its target is replaced. The mode of the new file is 0600.

    :param path: the file to replace, which need not exist.
    :raises OSError: when no file can be created there, when the old one must not be written, and
        when it is not a regular file.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        with _naming(path):
            self._target = Path(os.path.realpath(path))
            if os.path.lexists(self._target):
                _check_replaceable(self._target)
            folder = self._target.parent
            descriptor, name = tempfile.mkstemp(".tmp", ".trio-responses-", folder)
        self._beside = Path(name)
        self.file: IO[bytes] = os.fdopen(descriptor, "wb")

    def commit(self) -> None:
        """Complete the file on the disk, and give it the name of the old one.

        :raises OSError: when it cannot be written completely; the old file is as before then.
        """
        try:
            with _naming(self._path):
                self.file.flush()
                os.fsync(self.file.fileno())
                self.file.close()
                self._beside.replace(self._target)
        except OSError:
            self.discard()
            raise
        _sync_folder(self._target.parent)

    def discard(self) -> None:
        """Delete the new file; the old one is as before."""
        with contextlib.suppress(OSError):  # closing writes what is buffered, which may fail
            self.file.close()
        with contextlib.suppress(OSError):
            self._beside.unlink()


def write_file(path: str, content: bytes) -> None:
    """Write a file that its owner alone can read; an old one is replaced when that is complete.

    :raises OSError: when the file cannot be written; an old one is as before then.
    """
    replacement = Replacement(path)
    try:
        with _naming(path):
            replacement.file.write(content)
    except OSError:
        replacement.discard()
        raise
    replacement.commit()


def read_file(path: str) -> bytes:
    """Return the content of a file.

    :raises OSError: when the file cannot be read.
    :raises ConfigurationError: when the file is larger than any that a command writes.
    """
    with _naming(path), Path(path).open("rb") as file:
        content = file.read(MAX_READ + 1)
    if len(content) > MAX_READ:
        raise ConfigurationError(f"{path} is larger than {MAX_READ // 1024**2} MiB: not read")
    return content


@contextlib.contextmanager
def decoding(path: str, what: str) -> Generator[None, None, None]:
    """Raise a `ConfigurationError` for whatever the content of a file makes a decoder raise.

    :param what: what the file should be, such as ``a recording``.
    """
    try:
        yield
    except (ResponsesError, OSError):
        raise
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise ConfigurationError(f"{path} is not {what} that can be used: {reason}") from error


def describe_os_error(error: OSError) -> str:
    """Return the reason of an error of the operating system, without the name of the file."""
    return error.strerror or str(error) or type(error).__name__


@contextlib.contextmanager
def _naming(path: str) -> Generator[None, None, None]:
    """Raise errors with the path that the user gave, not with that of the file beside it."""
    try:
        yield
    except OSError as error:
        number = error.errno or errno.EIO
        raise OSError(number, describe_os_error(error), path) from error
    except ValueError as error:  # a null character
        raise OSError(errno.EINVAL, str(error), path) from error


def _check_replaceable(path: Path) -> None:
    """Raise an error for an existing file that a rename would replace, and must not.

    :raises OSError: when it is not a regular file, or is protected from writing.
    """
    mode = path.lstat().st_mode
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
    if not stat.S_ISREG(mode):
        raise OSError(errno.EINVAL, "not a regular file")
    if not os.access(path, os.W_OK):
        raise PermissionError(errno.EACCES, "the file is protected from writing")


def _sync_folder(folder: Path) -> None:
    """Write a folder to the disk, where the system can: the file has its name after a crash."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
