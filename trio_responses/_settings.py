"""Options: small frozen records of numbers, each with its unit and its default.

Every record checks its values when it is made, so that code which uses one does not check again.
What differs between servers is in `_endpoint.py` instead.
"""

from __future__ import annotations

import difflib
import functools
import inspect
import math
import random
from collections.abc import Iterable
from dataclasses import dataclass, fields, replace
from typing import TYPE_CHECKING, Any, Final, Literal, ParamSpec, TypeAlias, TypeVar

from trio_responses._errors import ConfigurationError
from trio_responses._protocol.replay import ReplayRules

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from typing import Self

    from trio_responses._protocol.replay import Origin

__all__ = [
    "OPTION_VALUES",
    "Keepalive",
    "Limits",
    "OnAbandonedTurn",
    "ReconnectPolicy",
    "RecoverOption",
    "ReplayPolicy",
    "RetryPolicy",
    "RotationPolicy",
    "Timeouts",
    "TransportOption",
    "check_drain_seconds",
    "check_option_values",
    "check_turn_timeouts",
    "check_websocket_retry",
    "checked_record",
    "is_number",
    "reconnect_delays",
]


def is_number(value: object) -> bool:
    """Whether a value is an integer or a float, and no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _require_positive(record: Any) -> None:
    unit = "bytes" if isinstance(record, Limits) else "seconds"
    for field in fields(record):
        number = getattr(record, field.name)
        if not is_number(number) or math.isnan(number) or number <= 0:
            name = f"{type(record).__name__}.{field.name}"
            raise ConfigurationError(
                f"{name} must be a positive number of {unit}, not {number!r}; math.inf for no limit"
            )


@dataclass(frozen=True, slots=True, kw_only=True)
class Timeouts:
    """The time limit of each phase, in seconds; `math.inf` for no limit.

    For example::

        await connection.create(prompt, model=MODEL, timeouts=Timeouts(stall=1800))

    ``timeouts=`` is an option of connections and of turns. The ``first_event`` and ``stall`` of a
    turn's record, defaults included, replace those of the connection. ``connect``, ``send`` and
    ``close`` belong to the connection and have no effect on a turn.
    """

    connect: float = 15.0
    """Dial, TLS and upgrade together, or one call of ``api_key()``."""
    send: float = 60.0
    """Writing one frame, from its first byte to its last."""
    first_event: float = 60.0
    """From the last byte of the request to the first event of its response."""
    stall: float = 600.0
    """Between two events of one response. A model that reasons may send nothing for minutes."""
    close: float = 5.0
    """The closing handshake; after this time the socket is closed without it."""

    def __post_init__(self) -> None:
        """Check that every value is a duration.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Keepalive:
    """The interval and timeout of pings, which detect a dead server.

    Every byte from the server counts as a sign of life, not only a pong.
    """

    interval: float = 20.0
    """Seconds without a byte from the server before a ping is sent; `math.inf` for no pings."""
    timeout: float = 20.0
    """Seconds after a ping in which a byte must come; then the socket is given up."""

    def __post_init__(self) -> None:
        """Check that every value is a duration.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


MIN_ROTATION_AGE = 1.0
"""The least age, in seconds, at which a socket is replaced.

A lower limit would open sockets without pause for a server that ends each within a second.
"""


@dataclass(frozen=True, slots=True, kw_only=True)
class RotationPolicy:
    """The policy of rotation: at which age a new socket replaces a socket.

    The new socket is open before the old one stops accepting turns. Turns in progress finish on the
    old socket.
    """

    max_age: float | None = None
    """Seconds after which a socket is replaced; by default the endpoint's ``rotate_after``."""
    stagger: float = 0.1
    """The largest part of the age, from 0 to 1, by which it is shortened at random.

    Connections that were opened together are thus not replaced together.
    """

    def __post_init__(self) -> None:
        """Check the age and the stagger.

        :raises ConfigurationError: for an age that is not positive, and a stagger outside 0 to 1.
        """
        if self.max_age is not None and not (is_number(self.max_age) and self.max_age > 0):
            raise ConfigurationError(
                f"RotationPolicy.max_age must be positive seconds, not {self.max_age!r}"
            )
        if not (is_number(self.stagger) and 0 <= self.stagger <= 1):
            raise ConfigurationError(
                f"RotationPolicy.stagger must be from 0 to 1, not {self.stagger!r}"
            )

    def age_for(self, endpoint_age: float | None) -> float:
        """Return the age in seconds at which one socket is replaced; `math.inf` for never.

        :param endpoint_age: the endpoint's ``rotate_after``, used when ``max_age`` is `None`.
        """
        age = self.max_age if self.max_age is not None else endpoint_age
        if age is None:
            return math.inf
        factor = 1 - self.stagger * random.random()  # noqa: S311 - no secret depends on it
        return max(age * factor, MIN_ROTATION_AGE)


MIB = 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The limits of messages, requests and buffers, in bytes, and of HTTP connections."""

    max_message_bytes: int = 64 * MIB
    """The largest message from the server; a larger one is discarded while it arrives."""
    max_request_bytes: int = 16 * MIB - 1
    """The largest request: servers close with 1009 at 16 MiB (docs/protocol.md, section 5.9)."""
    turn_buffer_bytes: int = 8 * MIB
    """The unread events of one turn, or of the raw channel."""
    connection_buffer_bytes: int = 64 * MIB
    """The unread events of all turns of one connection together."""
    http_connections: int = 100
    """The largest number of requests that run over HTTP at the same time."""

    def __post_init__(self) -> None:
        """Check that every value is a size.

        :raises ConfigurationError: for zero, negative numbers, NaN and non-numbers.
        """
        _require_positive(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReconnectPolicy:
    """The reconnect policy: capped exponential delays between attempts to connect.

    The delays are ``initial * factor ** n``, at most ``cap``. Each is shortened at random by up
    to ``jitter`` of its length, so that many clients do not reconnect at the same moment. By
    default the delays are 1, 2, 4, 8 and 16 seconds, each shortened by up to a quarter.

    A server's ``Retry-After`` is the shortest possible delay. If it is longer than
    ``max_retry_after``, the connection gives up at once instead of waiting.

    The attempts are counted anew after a finished response, or after a socket was open for
    ``healthy_after`` seconds. Opening a socket alone does not reset the count, so a server that
    accepts and drops connections is not tried for ever.
    """

    initial: float = 1.0
    """Seconds before the first repeated attempt."""
    factor: float = 2.0
    """The ratio of each delay to the one before."""
    cap: float = 16.0
    """The longest delay, in seconds."""
    attempts: int = 5
    """The number of repeated attempts before giving up; 0 never repeats."""
    jitter: float = 0.25
    """The part of each delay, from 0 to 1, that may be taken off at random."""
    max_retry_after: float = 300.0
    """The longest ``Retry-After`` that is waited for, in seconds."""
    healthy_after: float = 60.0
    """Seconds after which an open socket counts as healthy."""

    def __post_init__(self) -> None:
        """Check that every value is a valid number.

        :raises ConfigurationError: for negative or infinite numbers and a jitter over 1.
        """
        for field in fields(self):
            name, number = field.name, getattr(self, field.name)
            if isinstance(number, bool) or not isinstance(number, int | float) or not number >= 0:
                raise ConfigurationError(
                    f"ReconnectPolicy.{name} must be zero or more, not {number!r}"
                )
        if math.inf in (self.initial, self.factor, self.cap):
            raise ConfigurationError("initial, factor and cap of a ReconnectPolicy must be finite")
        if not isinstance(self.attempts, int):
            raise ConfigurationError(
                f"ReconnectPolicy.attempts must be a whole number, not {self.attempts!r}"
            )
        if self.jitter > 1:
            raise ConfigurationError(
                f"ReconnectPolicy.jitter must be from 0 to 1, not {self.jitter!r}"
            )

    def delays(self) -> Iterator[float]:
        """Yield the delay before each attempt, in seconds, without jitter."""
        delay = min(self.initial, self.cap)
        for _ in range(self.attempts):
            yield delay
            delay = min(delay * self.factor, self.cap)


@dataclass(frozen=True, slots=True, kw_only=True)
class RetryPolicy:
    """How often a turn is sent again after an attempt that failed, and how long it may wait.

    The options ``max_retries`` and ``max_retry_wait`` of a connection.
    """

    max_retries: int = 2
    """How often a turn waits and is sent again; 0 never."""
    max_retry_wait: float = 60.0
    """The longest delay before one retry, in seconds. A longer hint of the server is an error."""

    def __post_init__(self) -> None:
        """Check that every value is a valid number.

        :raises ConfigurationError: for a number of retries that is not a whole number from 0, and
            for a delay that is not positive.
        """
        retries, wait = self.max_retries, self.max_retry_wait
        if not _is_count(retries):
            raise ConfigurationError(f"max_retries must be a whole number from 0, not {retries!r}")
        if not (is_number(wait) and wait > 0):
            raise ConfigurationError(f"max_retry_wait must be positive seconds, not {wait!r}")

    def with_max_retries(self, max_retries: int | None) -> Self:
        """Return a policy with another number of retries; `None` keeps the number.

        :raises ConfigurationError: when it is not a whole number from 0.
        """
        return self if max_retries is None else replace(self, max_retries=max_retries)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayPolicy:
    """The filters of a conversation: what full input leaves out of the history.

    For example::

        conversation.replay_policy = ReplayPolicy(images="omit", max_output=20_000)

    A server that lost the history gets it again, as full input. Without any filter the library
    already leaves out what the API refuses (docs/conversations.md). The history itself is not
    changed. New input is sent as it is, but for ``max_output``.
    """

    images: Literal["keep", "omit"] = "keep"
    """``"omit"`` replaces images by a short text, and screenshots by an image of one pixel."""
    reasoning: Literal["keep", "same_model", "omit"] = "same_model"
    """``"same_model"`` leaves out reasoning that another model than that of the turn made, because
    the API refuses it (``invalid_encrypted_content``), and what another endpoint of a pool has
    encrypted; ``"omit"`` leaves out all reasoning; ``"keep"`` sends what is encrypted in any case,
    which suits endpoints of one account."""
    statuses: Literal["keep", "omit"] = "keep"
    """``"omit"`` removes ``status`` from messages, and from other items that do not need it."""
    max_output: int | None = None
    """The largest number of characters of each text in the output of a tool. A longer one is
    shortened, with a notice in its middle. `None` for the limit of the API, 10,485,760."""
    max_items: int | None = None
    """The number of items to send, the latest ones: from a message of the user on, if there is one
    among them. The reasoning before the first one stays, and the latest compaction item. A call
    and its output stay together."""

    def __post_init__(self) -> None:
        """Check every value.

        :raises ConfigurationError: for an unknown word, and for a number below 1.
        """
        for name, words in REPLAY_WORDS.items():
            if getattr(self, name) not in words:
                accepted = " or ".join(f'"{word}"' for word in words)
                raise ConfigurationError(
                    f"ReplayPolicy.{name} must be {accepted}, not {getattr(self, name)!r}"
                )
        for name in ("max_output", "max_items"):
            number = getattr(self, name)
            if number is not None and not (_is_count(number) and number > 0):
                raise ConfigurationError(
                    f"ReplayPolicy.{name} must be a whole number from 1, or None for no limit,"
                    f" not {number!r}"
                )

    def rules(self, origin: Origin) -> ReplayRules:
        """Return the rules of the input form of a history.

        :param origin: the settings of the turn that sends the history.
        """
        return ReplayRules(
            model=origin.model,
            stored=origin.stored,
            endpoint=origin.endpoint,
            images=self.images,
            reasoning=self.reasoning,
            statuses=self.statuses,
            max_output=self.max_output,
            max_items=self.max_items,
        )


REPLAY_WORDS: Final[Mapping[str, tuple[str, ...]]] = {
    "images": ("keep", "omit"),
    "reasoning": ("keep", "same_model", "omit"),
    "statuses": ("keep", "omit"),
}
"""The words that each filter of a `ReplayPolicy` accepts."""


def reconnect_delays(
    reconnect: ReconnectPolicy | Iterable[float] | None,
) -> tuple[ReconnectPolicy, Iterator[float]]:
    """Return the policy and the delays that the option ``reconnect`` selects.

    :param reconnect: a policy, or an iterable of delays in seconds, used without jitter.
    :raises ConfigurationError: for any other value; the iterator raises it for an element that
        is not a delay.
    """
    if reconnect is None:
        reconnect = _default_record(ReconnectPolicy)
    if isinstance(reconnect, ReconnectPolicy):
        return reconnect, reconnect.delays()
    if isinstance(reconnect, Iterable):
        return ReconnectPolicy(jitter=0.0), map(_checked_delay, reconnect)
    raise ConfigurationError(
        f"reconnect must be ReconnectPolicy(...) or delays in seconds, not {reconnect!r}"
    )


def _checked_delay(delay: object) -> float:
    if isinstance(delay, bool) or not isinstance(delay, int | float) or not 0 <= delay < math.inf:
        raise ConfigurationError(
            f"a delay must be seconds, zero or more, not {delay!r}: see reconnect"
        )
    return float(delay)


Record = TypeVar("Record")

OnAbandonedTurn: TypeAlias = Literal["drain", "replace_socket"]
"""What happens when a turn is left early where the endpoint has no lanes: ``"drain"`` lets the next
turn wait for the rest of the response, ``"replace_socket"`` gives the next turn a new socket."""

TransportOption: TypeAlias = Literal["auto", "websocket", "http"]
"""How requests are sent: ``"websocket"``, ``"http"`` with server-sent events, or ``"auto"``: by a
WebSocket, and over HTTP where the server or the network has no WebSocket mode."""

RecoverOption: TypeAlias = Literal["retrieve"]
"""How the Response of a turn is found whose events were lost: ``"retrieve"`` asks the server."""

OPTION_VALUES: Final[Mapping[str, tuple[str, ...]]] = {
    "transport": ("auto", "websocket", "http"),
    "delivery": ("at_most_once", "at_least_once"),
    "on_abandoned_turn": ("drain", "replace_socket"),
    "on_tool_error": ("return", "raise"),
    "after_error": ("reuse", "replace"),
    "recover": ("retrieve",),
}
"""The values that each option with named values accepts, by the option's name."""


P = ParamSpec("P")
R = TypeVar("R")

NO_SUCH_OPTION: Final[Mapping[str, str]] = {
    "url": "use base_url=, or the first argument",
    "api_base": "use base_url=, or the first argument",
    "websocket_base_url": "use base_url=, or the first argument",
    "timeout": "use timeouts=Timeouts(...), or trio.fail_after(seconds) around a call",
    "organization": "set OPENAI_ORG_ID, or use headers=",
    "project": "set OPENAI_PROJECT_ID, or use headers=",
    "default_headers": "use headers=",
    "extra_headers": "use headers=",
    "default_query": "put the query into base_url",
    "azure_endpoint": "use endpoint=Endpoint.azure(...)",
    "azure_ad_token": "use endpoint=Endpoint.azure(..., token=True) and api_key=",
    "azure_ad_token_provider": "use endpoint=Endpoint.azure(..., token=True) and api_key=",
    "api_version": "use endpoint=Endpoint.azure(...), which has no version",
    "http_client": "use dial=, proxy= or ssl_context=",
    "proxies": "use proxy=",
    "verify": "use ssl_context=",
    "ssl": "use ssl_context=",
    "retries": "use max_retries=",
    "model": "it is a parameter of each turn, and of conversation()",
    "instructions": "it is a parameter of each turn, and of conversation()",
    "tools": "it is a parameter of each turn, and of conversation()",
}
"""Names that other clients have for the options of a connection, with what to use here."""


def explain_options(function: Callable[P, R]) -> Callable[P, R]:
    """Return a function whose error for an unknown option says which one to use.

    :param function: a function that opens connections.
    """

    @functools.wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> R:
        for name in kwargs:
            if name not in known:
                raise TypeError(_describe_unknown_option(function.__name__, name, known))
        return function(*args, **kwargs)

    known = list(inspect.signature(function).parameters)
    return call


def _describe_unknown_option(function: str, name: str, known: list[str]) -> str:
    hint = NO_SUCH_OPTION.get(name)
    close = difflib.get_close_matches(name, known, n=1)
    if hint is None and close:
        hint = f"did you mean {close[0]!r}?"
    return f"{function}() has no option {name!r}" + (f": {hint}" if hint else "")


def check_option_values(**given: object) -> None:
    """Raise an error for a value that its option does not accept.

    For example::

        check_option_values(delivery=delivery)

    :param given: options of `OPTION_VALUES`, by name.
    :raises ConfigurationError: with the accepted values in the message.
    """
    for name, value in given.items():
        if value not in OPTION_VALUES[name]:
            accepted = " or ".join(f'"{one}"' for one in OPTION_VALUES[name])
            raise ConfigurationError(f"{name} must be {accepted}, not {value!r}")


def checked_record(name: str, given: Record | None, kind: type[Record]) -> Record:
    """Return the given record of options, or one with the defaults for `None`.

    :param name: the option's name, for the error message.
    :raises ConfigurationError: when ``given`` is not a ``kind``.
    """
    if given is None:
        return _default_record(kind)
    if not isinstance(given, kind):
        raise ConfigurationError(f"{name} must be {kind.__name__}(...), not {given!r}")
    return given


def _default_record(kind: type[Record]) -> Record:
    """Return the record with all defaults, which all connections share: it is frozen."""
    if kind not in _default_records:
        _default_records[kind] = kind()
    record: Record = _default_records[kind]
    return record


_default_records: dict[type, Any] = {}


def check_turn_timeouts(timeouts: Timeouts | None) -> None:
    """Raise an error unless the option ``timeouts`` of a turn is a `Timeouts` record or `None`.

    :raises ConfigurationError: for a value of another type.
    """
    if timeouts is not None:
        checked_record("timeouts", timeouts, Timeouts)


def check_drain_seconds(seconds: float) -> None:
    """Raise an error unless the deadline of a ``drain()`` is a number of seconds from 0.

    :raises ConfigurationError: for any other value.
    """
    if not (is_number(seconds) and seconds >= 0):
        raise ConfigurationError(
            f"drain() takes seconds, zero or more, not {seconds!r}; math.inf for no limit"
        )


def check_websocket_retry(seconds: float | None) -> None:
    """Raise an error unless the option ``websocket_retry`` is a positive number or `None`.

    :raises ConfigurationError: for any other value.
    """
    if seconds is not None and not (is_number(seconds) and seconds > 0):
        raise ConfigurationError(
            f"websocket_retry must be positive seconds, or None for never, not {seconds!r}"
        )
