"""Watches the whole suite for keys that come to light (P9): a plugin that `conftest.py` registers.

Keys of the tests begin with one of `MARKERS`. While a test runs, these are searched for them:

- every log record, with its exception; of this library's logger at every level, and where sockets
  are opened (`SOCKET_FOLDERS`) of those below it as well, which log each frame;
- the message and arguments of every exception of this library, as it is made;
- `repr()` and `str()` of this library's objects that hold keys or headers, as they are made;
- every checkpoint; every warning; what a test wrote to its output.

A test in which one of them is seen fails, and says where.
"""

from __future__ import annotations

import functools
import logging
from typing import TYPE_CHECKING, Any, Final

import pytest

from trio_responses import Conversation, Endpoint, ResponsesConnection, ResponseStream
from trio_responses._errors import ResponsesError
from trio_responses._transport.dialing import ConnectionConfig
from trio_responses._transport.proxy import Proxy
from trio_responses._transport.tunnel import Tunnel
from trio_responses._transport.websocket import WebSocketTransport
from trio_responses.testing import ResponsesServer

if TYPE_CHECKING:
    import warnings
    from collections.abc import Callable, Generator

MARKERS: Final = ("sk-secret", "sk-SECRET", "sk-opens-nothing", "sk-interop")
"""How the keys of the tests begin."""
LOGGER: Final = "trio_responses"
LOGGERS_BELOW: Final = (
    "trio-websocket",
    "wsproto",
    "h11",
    "python_socks",
    "trio",
    "coredis",
)
SOCKET_FOLDERS: Final = frozenset(
    {"tests", "connection", "faults", "interop", "stores", "transport"}
)
"""The folders whose tests search the records of the loggers below the library's."""
WATCHED: Final[tuple[type[Any], ...]] = (
    Conversation,
    Endpoint,
    Proxy,
    ResponsesConnection,
    ResponsesServer,
    ResponseStream,
    ConnectionConfig,
    WebSocketTransport,
    Tunnel,
)


class SecretsWatch:
    """A pytest plugin that collects the places where a key was seen."""

    def __init__(self, markers: tuple[str, ...] = MARKERS) -> None:
        self._markers = markers
        self._undo: list[Callable[[], None]] = []
        self.seen: list[str] = []
        """The places where a key was seen since the last `take`."""
        self.looked: int = 0
        """The number of texts that were searched."""

    def add_marker(self, key: str) -> None:
        """Search for one more key."""
        self._markers = (*self._markers, key)

    def look(self, where: str, *texts: object) -> None:
        """Search texts for keys."""
        for text in texts:
            self.looked += 1
            shown = str(text)
            if any(marker in shown for marker in self._markers):
                self.seen.append(f"{where}: {shown[:500]}")

    def take(self) -> list[str]:
        """Return the places where a key was seen, and forget them."""
        seen, self.seen = self.seen, []
        return seen

    # --- What it listens at --------------------------------------------------------------

    def start(self) -> None:
        """Start to search all output."""
        make = logging.getLogRecordFactory()

        def watched_record(*args: Any, **kwargs: Any) -> logging.LogRecord:
            record = make(*args, **kwargs)
            self._look_at_record(record)
            return record

        logging.setLogRecordFactory(watched_record)
        self._undo.append(lambda: logging.setLogRecordFactory(make))
        self._undo.append(self._open(LOGGER))
        self._after(ResponsesError, "__init__", lambda error, _: (repr(error), str(error)))
        self._after(Conversation, "checkpoint", lambda _, saved: (saved,))
        for kind in WATCHED:
            self._after(kind, "__init__", lambda made, _: (repr(made), str(made)))

    @staticmethod
    def _open(name: str) -> Callable[[], None]:
        """Make a logger create all records, and pass on only those that it would have created.

        :return: a function that undoes it.
        """
        logger = logging.getLogger(name)
        level = logger.level

        def passes(record: logging.LogRecord) -> bool:
            return record.levelno >= (level or logging.getLogger().level)

        def undo() -> None:
            logger.removeFilter(passes)
            logger.setLevel(level)

        logger.addFilter(passes)
        logger.setLevel(logging.DEBUG)
        return undo

    def stop(self) -> None:
        """Restore everything that `start` replaced."""
        while self._undo:
            self._undo.pop()()

    def _look_at_record(self, record: logging.LogRecord) -> None:
        where = f"a log record of {record.name}"
        self.look(where, record.msg, repr(record.args))
        if record.exc_info and record.exc_info[1] is not None:
            self.look(where, repr(record.exc_info[1]), str(record.exc_info[1]))

    def _after(self, kind: type[Any], name: str, show: Callable[[Any, Any], Any]) -> None:
        """Search something each time that a method of a class has run."""
        method = getattr(kind, name)
        was_own = name in vars(kind)

        @functools.wraps(method)
        def watched(self_: Any, *args: Any, **kwargs: Any) -> Any:
            result = method(self_, *args, **kwargs)
            self.look(f"{type(self_).__name__}, after {name}", *show(self_, result))
            return result

        def undo() -> None:
            if was_own:
                setattr(kind, name, method)
            else:
                delattr(kind, name)

        setattr(kind, name, watched)
        self._undo.append(undo)

    # --- Hooks of pytest -----------------------------------------------------------------

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Generator[None, object, object]:
        """Fail a test in which a key was seen."""
        names = LOGGERS_BELOW if item.path.parent.name in SOCKET_FOLDERS else ()
        undo = [self._open(name) for name in names]
        try:
            result = yield
        finally:
            for function in undo:
                function()
        seen = self.take()
        if seen:
            pytest.fail("\n".join(["a key came to light (P9)", *seen]), pytrace=False)
        return result

    def pytest_warning_recorded(self, warning_message: warnings.WarningMessage) -> None:
        """Search a warning."""
        self.look("a warning", warning_message.message)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Search a test's output, unless it failed: pytest then shows the test's own lines."""
        if report.passed:
            self.look(f"the output of {report.nodeid}", *(text for _, text in report.sections))

    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session for a key that was seen outside of tests."""
        if self.seen:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Report the keys that were seen outside of tests."""
        for line in self.seen:
            terminalreporter.write_line(f"a key came to light (P9): {line}", red=True)

    def pytest_unconfigure(self) -> None:
        """Stop searching."""
        self.stop()
