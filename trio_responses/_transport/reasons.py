"""The reason why a dial or a TLS handshake failed, in one line that names the address.

Trio raises one exception for all addresses of a host that it tried; the exceptions with the reasons
are its cause. The functions find the one that explains most. They quote no text of a server.
"""

from __future__ import annotations

import errno
import os
import socket
import ssl
from typing import TYPE_CHECKING, Final, cast

from trio_responses._transport.proxy import host_and_port

if TYPE_CHECKING:
    from collections.abc import Iterator

    import trio

__all__ = ["describe_dial_error", "describe_tls_error"]

REASONS: Final[dict[int, str]] = {
    errno.EMFILE: "too many open files in this process (ulimit -n): {address} was not dialled",
    errno.ENFILE: "too many open files on this machine: {address} was not dialled",
    errno.ECONNREFUSED: "connection refused by {address}",
    errno.ECONNRESET: "connection reset by {address}",
    errno.ETIMEDOUT: "no answer from {address}",
    errno.EACCES: "no permission to connect to {address}",
    errno.EPERM: "no permission to connect to {address}",
    errno.EHOSTUNREACH: "no route to {address}",
    errno.ENETUNREACH: "network unreachable: no route to {address}",
    errno.EADDRNOTAVAIL: "no local address or port left to connect to {address}",
}
"""The text for each error number. Of several errors, the first in this order counts."""
NAME_ERRORS: Final[dict[int, str]] = {
    socket.EAI_NONAME: "name not found: {host}",
    socket.EAI_AGAIN: "the name server did not answer for {host}",
}
TLS_REASONS: Final[dict[str, str]] = {
    "HTTP_REQUEST": "{address} does not speak TLS: use http:// for this port",
    "RECORD_LAYER_FAILURE": "{address} does not speak TLS: use http:// for this port",
    "UNSUPPORTED_PROTOCOL": "{address} speaks only a version of TLS that is not allowed",
    "WRONG_VERSION_NUMBER": "{address} does not speak TLS: use http:// for this port",
}
"""The text for each reason of OpenSSL, where OpenSSL's own text does not help."""


def describe_dial_error(error: Exception, host: str, port: int) -> str:
    """Return the reason why a host and port could not be dialled.

    :param error: what the dial function raised.
    """
    address = host_and_port(host, port)
    found = list(_system_errors(error))
    for each in found:
        if isinstance(each, socket.gaierror) and each.errno in NAME_ERRORS:
            return NAME_ERRORS[each.errno].format(host=host)
    numbers = {each.errno for each in found}
    for number, text in REASONS.items():
        if number in numbers:
            return text.format(address=address)
    texts = [each.strerror or str(each) for each in found if each.errno or each.args]
    reason = texts[-1] if texts else str(error) or type(error).__name__
    return f"cannot dial {address}: {reason}"


def _system_errors(error: BaseException | None) -> Iterator[OSError]:
    """Yield an exception with its causes, and those in groups, as far as they are of the system."""
    while error is not None:
        if isinstance(error, BaseExceptionGroup):
            group = cast("BaseExceptionGroup[BaseException]", error)
            for each in group.exceptions:
                yield from _system_errors(each)
        elif isinstance(error, OSError):
            yield error
        error = error.__cause__


def describe_tls_error(error: trio.BrokenResourceError, host: str, port: int) -> tuple[str, bool]:
    """Return the reason why a TLS handshake failed, and whether another attempt can help."""
    address = host_and_port(host, port)
    reason = error.__cause__
    if isinstance(reason, ssl.SSLCertVerificationError):
        return f"the certificate of {address} is not trusted: {reason.verify_message}", False
    if isinstance(reason, ssl.SSLError):
        text = TLS_REASONS.get(reason.reason or "")
        if text is not None:
            return f"the TLS handshake failed: {text.format(address=address)}", True
        short = (reason.reason or str(reason)).replace("_", " ").lower()
        return f"the TLS handshake with {address} failed: {short}", True
    if isinstance(reason, OSError) and reason.errno:
        why = os.strerror(reason.errno)
        return f"the TLS handshake with {address} failed: {why}", True
    return f"{address} closed the connection during the TLS handshake", True
