"""What TLS trusts where nothing else is said: what the system trusts.

Reading the system's certificates takes 35 ms, and keeping them most of a MiB. So all connections
that are open at the same time share one context.

What belongs elsewhere: TLS itself (`tls.py`).
"""

from __future__ import annotations

import os
import ssl
from typing import Final
from weakref import WeakValueDictionary

__all__ = ["system_trust"]

VARIABLES: Final = ("SSL_CERT_FILE", "SSL_CERT_DIR")
"""Where OpenSSL looks first."""

_shared: WeakValueDictionary[tuple[str | None, ...], ssl.SSLContext] = WeakValueDictionary()


def system_trust() -> ssl.SSLContext:
    """Give a context that trusts what the system trusts here and now; not to be changed.

    It is read anew when nobody has the last one any more.
    """
    place = tuple(os.environ.get(name) for name in VARIABLES)
    context = _shared.get(place)
    if context is None:
        context = _shared[place] = ssl.create_default_context()
    return context
