"""Recordings: everything that goes over the wire, as lines of JSON.

`Recorder` is an instrument that writes one; `Recording` reads it back. The form is described in
docs/recording.md. Neither handshake headers nor the key ever get there.

What belongs elsewhere: a server that answers from a recording (`testing/replay.py`).
"""

from __future__ import annotations

import base64
import os
from typing import IO, TYPE_CHECKING, Any, Final, Literal, TypeAlias, cast, final

import msgspec
import trio

from trio_responses._errors import ConfigurationError, ConnectionLost, HandshakeRejected
from trio_responses._instruments.instrument import Instrument
from trio_responses._protocol.frames import BinaryMessage

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence
    from types import TracebackType
    from typing import Self

    from trio_responses._instruments.records import SocketRecord
    from trio_responses._protocol.frames import Message

__all__ = ["Recorder", "Recording", "RecordingLine", "Redact"]

FORMAT: Final = "trio-responses recording"
VERSION: Final = 1
OWNER_ONLY: Final = 0o600
SECRETS_OF_TOOLS: Final[dict[str, dict[str, Any]]] = {
    "mcp": {"authorization": "[redacted]", "headers": {}},
    "allowlist": {"domain_secrets": []},
}
"""Fields of an MCP tool, and of the network policy of a container; what is recorded instead."""
PLAIN_MARKS: Final = (b"mcp", b"domain_secrets")
MARKS: Final = (*PLAIN_MARKS, b"\\u")
"""What stands in every frame that may have such a field."""
NORMAL_CLOSURE: Final = 1000

Redact: TypeAlias = "Callable[[Any], Any]"
"""Takes a frame as JSON, and gives what is written in its place."""


class _Header(msgspec.Struct):
    """The first line of a recording."""

    format: str
    version: int


class RecordingLine(msgspec.Struct, kw_only=True, omit_defaults=True):
    """One line of a recording: something that happened on a socket."""

    t: float
    """Seconds since the recording began, on Trio's clock."""
    socket: int = 1
    """Counts the sockets of the recording."""
    dir: str
    """``open``, ``send``, ``recv``, ``close``, or ``fail`` for a handshake that failed."""
    frame: msgspec.Raw | msgspec.UnsetType = msgspec.UNSET
    """``send`` and ``recv``: the message, where it is JSON."""
    text: str | None = None
    """A message that is text, and no JSON."""
    binary: str | None = None
    """A message that is binary, in Base64."""
    size: int | None = None
    """A message over the limit, which was not kept: its bytes."""
    by: Literal["client", "server"] | None = None
    """``close``: who ended it."""
    code: int | None = None
    """``close``: the code; 1006 where there was none."""
    reason: str | None = None
    """``close``: the server's words; ``fail``: the type of the exception."""
    status: int | None = None
    """``fail``: the HTTP status, where there was one."""

    @property
    def json(self) -> Any:
        """The frame as plain JSON; `None` for what is none."""
        return None if self.frame is msgspec.UNSET else msgspec.json.decode(self.frame)


@final
class Recorder(Instrument):
    """Writes what goes over the wire of one or more connections to a file.

    For example::

        with Recorder("session.jsonl") as recorder:
            async with open_responses(instruments=[recorder]) as connection:
                ...

    Every line is flushed, so that a program that dies leaves a recording. It holds content, and
    so a file that is made here is for its owner's eyes only. The key and all headers are left
    out, and so are ``headers`` and ``authorization`` of MCP tools, and the ``domain_secrets`` of
    containers.

    :param file: a path, or a file that is open for bytes, which stays open.
    :param redact: called with every JSON frame, to leave content out. What is no JSON is not
        recorded then, but for its size.
    """

    def __init__(
        self, file: str | os.PathLike[str] | IO[bytes], *, redact: Redact | None = None
    ) -> None:
        self._owned: IO[bytes] | None = None
        if isinstance(file, str | os.PathLike):
            self._owned = open(file, "wb", opener=_open_privately)  # noqa: SIM115 - `close` does
            file = self._owned
        self._file = file
        self._redact = redact
        self._sockets: dict[int, int] = {}
        self._began_at: float | None = None
        self._encoder = msgspec.json.Encoder()
        self._write(_Header(format=FORMAT, version=VERSION))

    def __enter__(self) -> Self:
        """Record for the length of a block."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the file."""
        self.close()

    def close(self) -> None:
        """Close the file, if it was opened here; what comes after that is not recorded."""
        if self._owned is not None:
            self._owned.close()

    # --- What it hears -------------------------------------------------------------------

    def socket_opened(self, socket: SocketRecord) -> None:
        """Write a line for it."""
        self._note(socket, "open")

    def socket_failed(self, socket: SocketRecord) -> None:
        """Write a line for it."""
        error = socket.error
        status = error.status if isinstance(error, HandshakeRejected) else None
        self._note(socket, "fail", reason=type(error).__name__ if error else None, status=status)

    def socket_ended(self, socket: SocketRecord) -> None:
        """Write a line with the code of its end."""
        lost = socket.error
        if isinstance(lost, ConnectionLost):
            reason = (lost.reason or None) if self._redact is None else None
            self._note(socket, "close", by="server", code=lost.code, reason=reason)
        else:
            self._note(socket, "close", by="client", code=NORMAL_CLOSURE)

    def frame_sent(self, socket: SocketRecord, payload: bytes) -> None:
        """Write a line for it."""
        self._note_message(socket, "send", payload)

    def frames_received(self, socket: SocketRecord, batch: Sequence[Message]) -> None:
        """Write a line for each of them."""
        for message in batch:
            self._note_message(socket, "recv", message)

    # --- What it writes ------------------------------------------------------------------

    def _note_message(self, socket: SocketRecord, direction: str, message: Message) -> None:
        if isinstance(message, bytes):
            try:
                self._note(socket, direction, frame=self._cleaned(message))
            except (msgspec.DecodeError, RecursionError):
                hidden = self._redact is not None or any(mark in message for mark in PLAIN_MARKS)
                shown = None if hidden else message.decode(errors="replace")
                self._note(socket, direction, text=shown, size=len(message))
        elif isinstance(message, BinaryMessage):
            shown = None if self._redact is not None else base64.b64encode(message.data).decode()
            self._note(socket, direction, binary=shown, size=len(message.data))
        else:
            self._note(socket, direction, size=message.size)

    def _cleaned(self, message: bytes) -> msgspec.Raw:
        """Give a frame for one line, without what must not be in it.

        :raises msgspec.DecodeError: when it is no JSON.
        :raises RecursionError: when it is nested too deep to look into.
        """
        frame: Any = msgspec.json.decode(message)
        hidden = any(mark in message for mark in MARKS) and _hide_secrets(frame)
        if self._redact is not None:
            frame = self._redact(frame)
        elif not hidden:
            # Line breaks are white space here: within a string they would be no JSON.
            return msgspec.Raw(message.replace(b"\n", b" ").replace(b"\r", b" "))
        return msgspec.Raw(self._encoder.encode(frame))

    def _note(self, socket: SocketRecord, direction: str, **facts: Any) -> None:
        number = self._sockets.setdefault(socket.number, len(self._sockets) + 1)
        now = trio.current_time()
        if self._began_at is None:
            self._began_at = now
        t = round(now - self._began_at, 6)
        self._write(RecordingLine(t=t, socket=number, dir=direction, **facts))

    def _write(self, line: msgspec.Struct) -> None:
        if not self._file.closed:
            self._file.write(self._encoder.encode(line) + b"\n")
            self._file.flush()


def _open_privately(path: str, flags: int) -> int:
    return os.open(path, flags, OWNER_ONLY)


def _hide_secrets(value: Any) -> bool:
    """Take the secrets out of the definitions of tools, wherever they stand."""
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
    """A recording, in memory: what a `Recorder` wrote, or lines of ``t``, ``dir`` and ``frame``.

    :param lines: what happened, in order.
    """

    def __init__(self, lines: Sequence[RecordingLine]) -> None:
        self.lines: tuple[RecordingLine, ...] = tuple(lines)
        """What happened, in order."""

    def __repr__(self) -> str:
        """Show how long it is: no content."""
        return f"<Recording of {len(self.lines)} lines>"

    def __iter__(self) -> Iterator[RecordingLine]:
        """Iterate over the lines."""
        return iter(self.lines)

    def __len__(self) -> int:
        """Count the lines."""
        return len(self.lines)

    @classmethod
    def read(cls, file: str | os.PathLike[str] | IO[bytes]) -> Self:
        """Read a file; a last line that was cut off in the middle is left out.

        :param file: a path, or a file that is open for bytes.
        :raises ConfigurationError: for what is no recording, or one of a later version.
        """
        if isinstance(file, str | os.PathLike):
            with open(file, "rb") as opened:  # noqa: PTH123 - as paths are opened above
                return cls.parse(opened.read())
        return cls.parse(file.read())

    @classmethod
    def parse(cls, data: bytes) -> Self:
        """Read the bytes of a file: as `read`."""
        *whole, rest = data.split(b"\n")
        rows = [row for row in whole if row.strip()]
        if rest.strip() and _is_whole(rest):
            rows.append(rest)
        if rows and _is_header(rows[0]):
            _check_header(rows.pop(0))
        decoder = msgspec.json.Decoder(RecordingLine)
        try:
            return cls([decoder.decode(row) for row in rows])
        except msgspec.DecodeError as error:
            raise ConfigurationError("not a recording: a line has another form") from error


def _is_whole(row: bytes) -> bool:
    try:
        msgspec.json.decode(row)
    except msgspec.DecodeError:
        return False
    return True


def _is_header(row: bytes) -> bool:
    """Whether it is of the form of a first line; frames of a recording have a ``format``, too."""
    try:
        names = msgspec.json.decode(row, type=dict[str, msgspec.Raw]).keys()
    except msgspec.DecodeError:
        return False
    return "format" in names and "dir" not in names


def _check_header(row: bytes) -> None:
    try:
        header = msgspec.json.decode(row, type=_Header)
    except msgspec.DecodeError as error:
        raise ConfigurationError("not a recording: its first line has another form") from error
    if header.format != FORMAT or header.version > VERSION:
        raise ConfigurationError(f"not a recording of version {VERSION}")
