"""The endpoints of a pool: what users say about each, and its state while the pool is open."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Final, cast

from trio_responses._endpoint import Endpoint, checked_headers
from trio_responses._errors import (
    AuthenticationError,
    ConfigurationError,
    ConnectError,
    RateLimitError,
    ReconnectFailed,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from trio_responses._endpoint import ApiKey, Headers
    from trio_responses._errors import ResponsesError
    from trio_responses._rate_limiter import RateLimiter

__all__ = [
    "EndpointState",
    "PoolEndpoint",
    "checked_endpoints",
    "is_endpoint_failure",
    "is_permanent",
    "unique_names",
]

UNAUTHORIZED: Final = 401
LONGEST_PAUSE: Final = 600.0
"""The longest pause before another attempt to return to an endpoint, in seconds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolEndpoint:
    """One of the endpoints of a pool: a server, its key, and what it calls the models.

    For example::

        endpoints = [
            PoolEndpoint(endpoint=Endpoint.openai()),
            PoolEndpoint(
                endpoint=Endpoint.azure("contoso"), models={"gpt-5.5": "my-deployment"}
            ),
        ]
        async with open_pool(endpoints=endpoints) as pool:
            response = await pool.create("Hello", model="gpt-5.5")

    The key and the headers are sent to this endpoint alone.
    """

    endpoint: Endpoint
    """The profile of the server."""
    api_key: ApiKey | None = field(default=None, repr=False)
    """The key, as for `open_responses`; by default the environment variable of the endpoint."""
    headers: Headers = field(default=(), repr=False)
    """Additional headers, as for `open_responses`."""
    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """The names of models at this server, by the names that the program uses. A model that is not
    in the mapping has the same name."""
    name: str | None = None
    """The name of the endpoint in statistics, checkpoints and logs; by default its host, port and
    path. Names are unique in a pool."""

    rate_limiter: RateLimiter | None = None
    """The limits of the account at this server, in place of those of the pool."""

    def __post_init__(self) -> None:
        """Check the values, and copy the headers and the mapping.

        :raises ConfigurationError: for a value of a wrong type, and for invalid headers.
        """
        if not isinstance(self.endpoint, Endpoint):
            raise ConfigurationError(
                "PoolEndpoint.endpoint must be an Endpoint, not"
                f" {type(self.endpoint).__name__}: for a URL, write Endpoint.of(url)"
            )
        if not isinstance(cast("object", self.models), Mapping):
            raise ConfigurationError(
                f"PoolEndpoint.models must be a mapping of model names, not {self.models!r}"
            )
        models = dict(self.models)
        names: list[object] = [*models, *models.values()]
        for name in (*names, *([] if self.name is None else [self.name])):
            if not isinstance(name, str) or not name:
                raise ConfigurationError(
                    f"a name in PoolEndpoint.models, or PoolEndpoint.name, is no text: {name!r}"
                )
        object.__setattr__(self, "models", models)
        object.__setattr__(self, "headers", checked_headers(self.headers))


class EndpointState:
    """An endpoint of a pool that is open, and whether the pool uses it.

    :param rank: the position among the endpoints of the pool: 0 is the preferred one.
    :param name: the name, unique in the pool.
    :param places: the number of turns that a new connection is expected to run at the same time.
    """

    def __init__(self, rank: int, options: PoolEndpoint, name: str, places: int) -> None:
        self.rank = rank
        self.options = options
        self.name = name
        self.places = places
        self.given_up_with: ResponsesError | None = None
        """Why no turns are sent to the endpoint; `None` while it is used, or may be."""
        self.returning: bool = False
        """Whether a task tries to return to the endpoint."""
        self.opening: int = 0
        """The number of connections that are being opened."""
        self.paused_until: float = -math.inf
        """When another connection may be opened after one failed, on Trio's clock."""
        self.failed_at: float = -math.inf
        """When a connection could not be opened, or ended, last; on Trio's clock."""
        self.failures: int = 0
        """How many times the endpoint was given up, or was not healthy, without a response."""

    def pause(self, shortest: float) -> float:
        """Return the seconds until the next attempt to return to the endpoint.

        They are doubled each time after an error that does not pass by itself, such as a used-up
        quota.

        :param shortest: the first pause.
        """
        error = self.given_up_with
        pause = shortest
        if error is not None and not isinstance(error, ReconnectFailed):
            doublings = min(max(self.failures - 1, 0), 16)
            pause = min(shortest * 2.0**doublings, max(LONGEST_PAUSE, shortest))
        cause = error.__cause__ if isinstance(error, ReconnectFailed) else error
        return max(pause, getattr(cause, "retry_after", None) or 0.0)


def checked_endpoints(given: Iterable[PoolEndpoint]) -> Sequence[PoolEndpoint]:
    """Return the endpoints of a pool.

    :raises ConfigurationError: when there are none, or an object is no `PoolEndpoint`, or a name
        occurs twice.
    """
    if not isinstance(given, Iterable):
        raise ConfigurationError(
            f"endpoints must be a list of PoolEndpoint objects, not {type(given).__name__}"
        )
    endpoints = tuple(given)
    if not endpoints:
        raise ConfigurationError("endpoints is empty: a pool needs at least one PoolEndpoint")
    for one in endpoints:
        if not isinstance(one, PoolEndpoint):
            raise ConfigurationError(
                f"endpoints must be a list of PoolEndpoint objects, not of {type(one).__name__}"
            )
    names = [one.name for one in endpoints if one.name is not None]
    repeated = {name for name in names if names.count(name) > 1}
    if repeated:
        raise ConfigurationError(f"two endpoints of the pool have the name {min(repeated)!r}")
    return endpoints


def unique_names(endpoints: Sequence[PoolEndpoint]) -> list[str]:
    """Return the name of each endpoint; of equal addresses, the later ones get a number."""
    names: list[str] = [one.name for one in endpoints if one.name is not None]
    result: list[str] = []
    for one in endpoints:
        name = one.name
        if name is None:
            name, number = one.endpoint.address, 1
            while name in names:
                number += 1
                name = f"{one.endpoint.address}#{number}"
            names.append(name)
        result.append(name)
    return result


def is_permanent(error: ResponsesError) -> bool:
    """Whether an error means that no other attempt to open a connection can succeed."""
    return isinstance(error, ConnectError) and not error.retryable


def is_endpoint_failure(error: ResponsesError) -> bool:
    """Whether a turn failed for a reason for which every turn at its endpoint would fail.

    A refusal with status 403 may be about the model of the turn.
    """
    if isinstance(error, AuthenticationError):
        return error.status == UNAUTHORIZED or is_permanent(error)
    if isinstance(error, RateLimitError):
        return not error.retryable
    return isinstance(error, ReconnectFailed) or is_permanent(error)
