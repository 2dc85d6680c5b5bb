"""A server that works only while the client waits, so that every run of the client is the same.

The server is an instrument of Trio's loop, in the thread of the client. Just before the loop waits
for its sockets, when no task has anything to do, the server reads what the client sent, or sends
one more piece of its answer. So each piece is one wake of the client, over real sockets.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections import deque
from typing import TYPE_CHECKING, Final

import trio

from benchmarks import answers
from benchmarks.memory_stream import HTTP_HEAD, accept

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

READ_BYTES: Final = 1 << 20
BUFFER_BYTES: Final = 1 << 18
PATIENCE: Final = 0.02
"""Seconds to wait for a client that waits for something else, such as a thread."""
TEXT, CLOSE = 1, 8


class IdlePeer:
    """The server's end of one connection.

    :param answer: returns the pieces of the answer to a request.
    """

    def __init__(
        self,
        sock: socket.socket,
        answer: Callable[[], Sequence[bytes]],
        context: ssl.SSLContext | None,
    ) -> None:
        sock.settimeout(0)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, BUFFER_BYTES)
        self.socket = sock
        self.pieces = deque[bytes]()
        self.ended = False
        self._answer = answer
        self._upgraded = False
        self._received = b""
        self._sent = False
        self._incoming, self._outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        self._secure: ssl.SSLObject | None = None
        if context is not None:
            self._secure = context.wrap_bio(self._incoming, self._outgoing, server_side=True)

    def read(self) -> bool:
        """Read what the client sent and prepare the answer; return whether TLS sent something."""
        self._sent = False
        data = self._read_plain()
        self.ended = data is None
        self._received += data or b""
        while not self.ended and (self._take_frame() if self._upgraded else self._take_http()):
            pass
        return self._sent

    def _read_plain(self) -> bytes | None:
        """Return the decrypted bytes, or `None` at the end."""
        try:
            data = self.socket.recv(READ_BYTES)
        except ConnectionError:
            return None
        if self._secure is None or not data:
            return data or None
        self._incoming.write(data)
        try:
            self._secure.do_handshake()  # does nothing after the handshake
            return self._secure.read(READ_BYTES) or None
        except ssl.SSLWantReadError:
            return b""
        except ssl.SSLError:
            return None
        finally:
            self._flush()

    def _flush(self) -> None:
        data = self._outgoing.read()
        if data:
            self.socket.sendall(data)
            self._sent = True

    def _take_http(self) -> bool:
        """Take a request over HTTP from the received bytes; return whether there was one."""
        head, end, rest = self._received.partition(b"\r\n\r\n")
        if not end:
            return False
        if head.startswith(b"GET "):
            self._upgraded = True
            self.pieces.append(accept(head))
            self._received = rest
            return True
        sizes = [
            int(line.partition(b":")[2])
            for line in head.lower().split(b"\r\n")
            if line.startswith(b"content-length:")
        ]
        if len(rest) < sizes[0]:
            return False
        self._received = rest[sizes[0] :]
        *first, last = self._answer()
        self.pieces += [HTTP_HEAD, *first, last + answers.chunk(b"")]
        return True

    def _take_frame(self) -> bool:
        """Take a masked frame from the received bytes; return whether there was one."""
        data = self._received
        if len(data) < 2:
            return False
        length = data[1] & 127
        start = {126: 4, 127: 10}.get(length, 2)
        if len(data) < start:
            return False
        if length > 125:
            length = int.from_bytes(data[2:start], "big")
        if len(data) < start + 4 + length:
            return False
        self._received = data[start + 4 + length :]
        if data[0] & 15 == TEXT:
            self.pieces += self._answer()
        elif data[0] & 15 == CLOSE:
            self.pieces.append(b"\x88\x02\x03\xe8")
        return True

    def send(self) -> None:
        """Send the next piece."""
        piece = self.pieces.popleft()
        if self._secure is None:
            self.socket.sendall(piece)
        else:
            self._secure.write(piece)
            self._flush()
        if piece[0] == 0x80 | CLOSE:
            self.ended = True


class IdleServer(trio.abc.Instrument):
    """A server on a port of 127.0.0.1, for clients in the same thread.

    :param answer: returns the pieces of the answer to a request, each at most 64 KiB.
    """

    def __init__(
        self, answer: Callable[[], Sequence[bytes]], context: ssl.SSLContext | None = None
    ) -> None:
        self._answer = answer
        self._context = context
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._peers: dict[socket.socket, IdlePeer] = {}
        self.working = False
        """Whether the server works, rather than the client."""
        scheme = "http" if context is None else "https"
        self.url = f"{scheme}://127.0.0.1:{self._listener.getsockname()[1]}/v1"

    def before_io_wait(self, timeout: float) -> None:
        """Work, if no task of the client is ready to run."""
        if timeout > 0:
            self.working = True
            self._work()
            self.working = False

    def _work(self) -> None:
        """Go on until the client has something to read, or does not send more."""
        while not self._send_piece():
            ready, _, _ = select.select([self._listener, *self._peers], [], [], PATIENCE)
            sent = not ready
            for sock in ready:
                if sock is self._listener:
                    accepted, _ = sock.accept()
                    accepted.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                    self._peers[accepted] = IdlePeer(accepted, self._answer, self._context)
                else:
                    sent |= self._peers[sock].read()
            self._close_ended()  # the client may open another connection next
            if sent:
                break

    def _close_ended(self) -> None:
        for peer in [one for one in self._peers.values() if one.ended]:
            self._peers.pop(peer.socket).socket.close()

    def _send_piece(self) -> bool:
        for peer in self._peers.values():
            if peer.pieces and not peer.ended:
                peer.send()
                self._close_ended()
                return True
        return False

    def close(self) -> None:
        """Close all sockets."""
        for sock in (self._listener, *self._peers):
            sock.close()
