"""Recordings: all frames of a connection, as lines of JSON.

`Recorder` is an instrument that writes a recording; `Recording` reads it. docs/recording.md
describes the format. A recording never holds the API key or a handshake header.
"""

from __future__ import annotations

import base64
import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, TypeVar, cast, final

import msgspec
import trio

from trio_responses._errors import ConfigurationError, ConnectionLost, HandshakeRejected
from trio_responses._instruments.instrument import Instrument
from trio_responses._protocol.frames import BinaryMessage
from trio_responses._wire.nesting import MAX_SKIPPED_LEVELS, check_nesting, decode_checked

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message

__all__ = [
    "Recorder",
    "Recording",
    "RecordingLine",
    "Redact",
    "check_unused",
    "open_recording",
]

FORMAT: Final = "trio-responses recording"
VERSION: Final = 1
HINT: Final = "choose a file that Recorder has written"
OWNER_ONLY: Final = 0o600
SECRETS_OF_TOOLS: Final[dict[str, dict[str, Any]]] = {
    "mcp": {"authorization": "[redacted]", "headers": {}},
    "allowlist": {"domain_secrets": []},
}
"""The secret fields of a tool's definition, by its ``type``, and the values recorded instead.

They belong to an MCP tool and to the network policy of a container.
"""
PLAIN_MARKS: Final = (b"mcp", b"domain_secrets")
MARKS: Final = (*PLAIN_MARKS, b"\\u")
"""Every frame that may have a secret field contains one of these."""
NORMAL_CLOSURE: Final = 1000

T = TypeVar("T")

Redact: TypeAlias = "Callable[[Any], Any]"
"""A function that gets a frame as plain JSON and returns the JSON to record instead."""


class _Header(msgspec.Struct):
    """The first line of a recording."""

    format: str
    version: int


class RecordingLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a recording: a frame, or the start or end of a socket."""

    t: float
    """Seconds since the first line of the recording, on Trio's clock."""
    socket: int = 1
    """The number of the socket: sockets of a recording are counted from 1."""
    dir: str
    """``open``, ``send``, ``recv``, ``close``, or ``fail`` for a handshake that failed."""
    frame: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """``send`` and ``recv``: the message, when it is JSON."""
    text: str | None = None
    """A text message that is not JSON."""
    binary: str | None = None
    """A binary message, in Base64."""
    size: int | None = None
    """The size in bytes of a message that is not JSON, or that was over the limit and not kept."""
    by: Literal["client", "server"] | None = None
    """``close``: which side ended the socket."""
    code: int | None = None
    """``close``: the close code; 1006 when no close frame came."""
    reason: str | None = None
    """``close``: the server's reason; ``fail``: the type of the exception."""
    status: int | None = None
    """``fail``: the HTTP status of the server's refusal, when there is one."""

    @property
    def json(self) -> Any:
        """The frame as plain JSON; `None` for a line without one."""
        return None if self.frame is msgspec.UNSET else decode_checked(self.frame)


@final
class Recorder(Instrument):
    """An instrument that writes all frames of one or more connections to a file.

    For example::

        with Recorder("session.jsonl") as recorder:
            async with open_responses(instruments=[recorder]) as connection:
                ...

    Every line is flushed, so that a program that crashes leaves a recording. A recording holds
    content, so a file that is created here can be read by its owner only. The API key, all
    handshake headers, ``headers`` and ``authorization`` of MCP tools, and ``domain_secrets`` of
    containers are left out.

    :param file: a path, or an empty binary file that is open for writing, which stays open.
    :param redact: called with every JSON frame; its result is recorded. Of a message that is not
        JSON, only the size is recorded then.
    :raises ConfigurationError: when another recorder writes to the file (not noticed on Windows),
        or an open file is not empty: a recording would be unreadable there.
    :raises OSError: when the file cannot be opened or written.
    """

    def __init__(
        self, file: str | os.PathLike[str] | IO[bytes], *, redact: Redact | None = None
    ) -> None:
        self._owned: IO[bytes] | None = None
        if isinstance(file, str | os.PathLike):
            file = self._owned = open_recording(file)
        else:
            _lock(file)
            _check_empty(file)
        self._file = file
        self._redact = redact
        self._sockets: dict[int, int] = {}
        self._began_at: float | None = None
        self._encoder = msgspec.json.Encoder()
        try:
            self._write_record(_Header(format=FORMAT, version=VERSION))
        except BaseException:
            with suppress(OSError):
                self.close()
            raise

    def __enter__(self) -> Self:
        """Return the recorder, which is closed at the end of the block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file. An exception of the block is not replaced by one of the file."""
        try:
            self.close()
        except OSError as incomplete:
            if error is None:
                raise
            error.add_note(str(incomplete))

    def close(self) -> None:
        """Close the file if this recorder opened it; later frames are not recorded.

        :raises OSError: when the file lacks recorded lines, for example because a disk is full.
        """
        if self._owned is None:
            _unlock(self._file)
            return
        try:
            self._owned.close()
        except OSError as error:
            reason = f"the recording is incomplete: {error.strerror}"
            raise OSError(error.errno, reason, self._owned.name) from error

    # --- Hooks -------------------------------------------------------------------

    def socket_opened(self, socket: SocketRecord) -> None:
        """Write a line for an open socket."""
        self._write_line(socket, "open")

    def socket_failed(self, socket: SocketRecord) -> None:
        """Write a line for a failed attempt, with its error and HTTP status."""
        error = socket.error
        status = error.status if isinstance(error, HandshakeRejected) else None
        self._write_line(
            socket, "fail", reason=type(error).__name__ if error else None, status=status
        )

    def socket_ended(self, socket: SocketRecord) -> None:
        """Write a line for the end of a socket, with its close code."""
        lost = socket.error
        if isinstance(lost, ConnectionLost):
            reason = (lost.reason or None) if self._redact is None else None
            self._write_line(socket, "close", by="server", code=lost.code, reason=reason)
        else:
            self._write_line(socket, "close", by="client", code=NORMAL_CLOSURE)

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:
        """Write a line for a frame that is about to be sent."""
        self._write_message(socket, "send", payload)

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        """Write a line for each message that was received."""
        for message in batch:
            self._write_message(socket, "recv", message)

    # --- Lines ------------------------------------------------------------------

    def _write_message(self, socket: SocketRecord, direction: str, message: Message) -> None:
        if isinstance(message, bytes):
            try:
                self._write_line(socket, direction, frame=self._cleaned(message))
            except (msgspec.DecodeError, RecursionError):
                hidden = self._redact is not None or any(mark in message for mark in PLAIN_MARKS)
                shown = None if hidden else message.decode(errors="replace")
                self._write_line(socket, direction, text=shown, size=len(message))
        elif isinstance(message, BinaryMessage):
            shown = None if self._redact is not None else base64.b64encode(message.data).decode()
            self._write_line(socket, direction, binary=shown, size=len(message.data))
        else:
            self._write_line(socket, direction, size=message.size)

    def _cleaned(self, message: bytes) -> msgspec.Raw:
        """Return a frame as JSON in one line, without secrets and redacted.

        :raises msgspec.DecodeError: when the message is not JSON.
        :raises RecursionError: when the message is nested too deeply to search it for secrets.
        """
        frame: Any = decode_checked(message)
        hidden = any(mark in message for mark in MARKS) and _hide_secrets(frame)
        if self._redact is not None:
            frame = self._redact(frame)
        elif not hidden:
            # A line break here is white space: JSON does not allow one within a string.
            return msgspec.Raw(message.replace(b"\n", b" ").replace(b"\r", b" "))
        return msgspec.Raw(self._encoder.encode(frame))

    def _write_line(self, socket: SocketRecord, direction: str, **facts: Any) -> None:
        number = self._sockets.setdefault(socket.number, len(self._sockets) + 1)
        now = trio.current_time()
        if self._began_at is None:
            self._began_at = now
        t = round(now - self._began_at, 6)
        self._write_record(RecordingLine(t=t, socket=number, dir=direction, **facts))

    def _write_record(self, line: msgspec.Struct) -> None:
        if not self._file.closed:
            self._file.write(self._encoder.encode(line) + b"\n")
            self._file.flush()


def open_recording(path: str | os.PathLike[str], *, exclusive: bool = False) -> IO[bytes]:
    """Open a file for a recorder: empty, and with no other recorder that writes to it.

    :param exclusive: whether the file must be a new one.
    :raises ConfigurationError: when another recorder writes to the file.
    :raises OSError: when the file cannot be opened.
    """
    file = open(path, "xb" if exclusive else "wb", opener=_open_privately)  # noqa: SIM115
    try:
        _lock(file)
        if stat.S_ISREG(os.fstat(file.fileno()).st_mode):
            file.truncate(0)
    except BaseException:
        file.close()
        raise
    return file


def check_unused(path: str | os.PathLike[str]) -> None:
    """Raise an error if another recorder writes to a file.

    :raises ConfigurationError: when it does.
    """
    with suppress(OSError), Path(path).open("rb") as file:
        _lock(file)


def _open_privately(path: str, flags: int) -> int:
    """Open a file that its owner alone can read; what it holds is kept until the file is locked."""
    return os.open(path, flags & ~os.O_TRUNC, OWNER_ONLY)


def _lock(file: IO[bytes]) -> None:
    """Lock a file against other recorders, under any name and of any process.

    The lock ends with the file. Not every file system has locks.

    :raises ConfigurationError: when another recorder has locked the file.
    """
    if sys.platform == "win32" or (descriptor := _regular_file(file)) is None:
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ConfigurationError(
            f"another Recorder writes to {file.name!r}, so both recordings would be unreadable:"
            " choose another file, or pass one Recorder to all connections"
        ) from None
    except OSError:
        pass  # a file system without locks


def _unlock(file: IO[bytes]) -> None:
    if sys.platform != "win32" and (descriptor := _regular_file(file)) is not None:
        with suppress(OSError):
            fcntl.flock(descriptor, fcntl.LOCK_UN)


def _regular_file(file: IO[bytes]) -> int | None:
    """Return the descriptor of a file on a disk; `None` for a pipe, a terminal, or memory."""
    try:
        descriptor = file.fileno()
        return descriptor if stat.S_ISREG(os.fstat(descriptor).st_mode) else None
    except (OSError, ValueError):  # in memory, or closed
        return None


def _check_empty(file: IO[bytes]) -> None:
    """Check that a recording would start at the beginning of a file.

    :raises ConfigurationError: when it would not.
    """
    before = file.tell() if file.seekable() else 0
    if before:
        raise ConfigurationError(
            f"the file for a recording has {before} bytes already, and would be unreadable:"
            " open an empty file, with the mode 'wb'"
        )


def _hide_secrets(value: Any) -> bool:
    """Replace the secrets in all definitions of tools in a frame; return whether one was found."""
    hidden = False
    inner: Iterable[Any] = ()
    if isinstance(value, dict):
        fields = cast("dict[str, Any]", value)
        kind = fields.get("type")
        for name, empty in SECRETS_OF_TOOLS.get(kind, {}).items() if isinstance(kind, str) else ():
            if fields.get(name):
                fields[name] = empty
                hidden = True
        inner = fields.values()
    elif isinstance(value, list):
        inner = cast("Iterable[Any]", value)
    for one in inner:
        hidden = _hide_secrets(one) or hidden
    return hidden


@final
class Recording:
    """A recording in memory: a sequence of `RecordingLine`, for example read from a file.

    :param lines: the lines, in order.
    """

    def __init__(self, lines: Sequence[RecordingLine]) -> None:
        self.lines: tuple[RecordingLine, ...] = tuple(lines)
        """The lines, in order."""

    def __repr__(self) -> str:
        """Return the number of lines, without content."""
        return f"<Recording of {len(self.lines)} lines>"

    def __iter__(self) -> Iterator[RecordingLine]:
        """Return an iterator over the lines."""
        return iter(self.lines)

    def __len__(self) -> int:
        """Return the number of lines."""
        return len(self.lines)

    @classmethod
    def read(cls, file: str | os.PathLike[str] | IO[bytes]) -> Self:
        """Read a recording from a file; a last line that was cut off is left out.

        :param file: a path, or a binary file that is open for reading.
        :raises ConfigurationError: when the file is not a recording, or is one of a later version.
        """
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as opened:  # noqa: PTH123 - as paths are opened above
                return cls.parse(opened.read())
        return cls.parse(file.read())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read a recording from the bytes of a file, as `read` does."""
        *whole, rest = data.split(b"\n")
        rows = [(number, row) for number, row in enumerate(whole, 1) if row.strip()]
        if rest.strip() and _is_whole(rest):
            rows.append((len(whole) + 1, rest))
        if rows and _is_header(rows[0][1]):
            _check_header(*rows.pop(0))
        decoder = msgspec.json.Decoder(RecordingLine)
        return cls([_decode_row(decoder, number, row) for number, row in rows])


def _is_whole(row: bytes) -> bool:
    try:
        check_nesting(row, MAX_SKIPPED_LEVELS)
        msgspec.json.decode(row, type=msgspec.Raw)
    except (msgspec.DecodeError, RecursionError):
        return False
    return True


def _is_header(row: bytes) -> bool:
    """Whether a line is the first line of a recording; a frame may have a ``format``, too."""
    try:
        check_nesting(row, MAX_SKIPPED_LEVELS)
        names = msgspec.json.decode(row, type=dict[str, msgspec.Raw]).keys()
    except (msgspec.DecodeError, RecursionError):
        return False
    return "format" in names and "dir" not in names


def _check_header(number: int, row: bytes) -> None:
    header = _decode_row(msgspec.json.Decoder(_Header), number, row)
    if header.format != FORMAT:
        raise ConfigurationError(
            f"not a recording: its format is {header.format!r}, not {FORMAT!r}; {HINT}"
        )
    if header.version > VERSION:
        raise ConfigurationError(
            f"the recording has version {header.version}, which a later release wrote; this"
            f" release reads versions up to {VERSION}: upgrade trio-responses"
        )


def _decode_row(decoder: msgspec.json.Decoder[T], number: int, row: bytes) -> T:
    """Decode one line of a recording.

    :raises ConfigurationError: with the number of the line.
    """
    try:
        check_nesting(row, MAX_SKIPPED_LEVELS)
        return decoder.decode(row)
    except (msgspec.DecodeError, RecursionError) as error:
        raise ConfigurationError(f"not a recording: line {number}: {error}; {HINT}") from error
