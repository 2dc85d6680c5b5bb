"""Calls of the API that are no turns: one HTTP request with one JSON answer each.

They go over HTTP whatever the transport of turns is (docs/protocol.md, section 8).
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, final

import msgspec
import trio

from trio_responses._errors import (
    ConnectError,
    ConnectionLost,
    DeliveryStatus,
    FirstEventTimeout,
    MessageTooLarge,
    RateLimitError,
    ResponsesError,
    ServerOverloaded,
    api_error,
    retry_hint,
)
from trio_responses._protocol.backoff import retry_delay
from trio_responses._protocol.delivery import delivery_of_error
from trio_responses._transport.http import decode_headers, read_body, target_of
from trio_responses._wire.errors import decode_error, error_message

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from trio_responses._transport.http import HTTPClient
    from trio_responses._turn.work import ActiveWork

__all__ = ["HTTPCalls"]

SUCCESS: Final = range(200, 300)
REPEATABLE: Final = frozenset({"GET", "DELETE"})
"""Methods whose request may be sent again when its outcome is not known (RFC 9110, 9.2.2)."""
SERVER_ERRORS: Final = range(500, 600)
MAX_ERROR_BYTES: Final = 64 * 1024


@final
class HTTPCalls:
    """The calls of one connection that are no turns.

    :param get_client: returns the HTTP client of the connection.
    :param work: counts the calls that the program makes.
    """

    def __init__(self, get_client: Callable[[], HTTPClient], work: ActiveWork) -> None:
        self._get_client = get_client
        self._work = work
        self.count: int = 0
        """The number of calls in progress."""

    async def call(
        self,
        method: str,
        *path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> msgspec.Raw:
        """Send a request, and return the JSON of the answer.

        A rate limit is waited for and the request is sent again, at most ``max_retries`` times.
        Requests that change nothing twice (GET, DELETE) are also sent again after a lost HTTP
        connection and after an error of the server. If cancelled, the HTTP connection is closed.

        :param path: the segments of the path after ``/responses``.
        :param query: parameters of the query; those that are `None` are left out.
        :raises ConfigurationError: when the extra for HTTP is not installed.
        :raises APIError: when the server refused the request.
        :raises ConnectError: when no HTTP connection can be opened and another attempt cannot help.
        :raises ReconnectFailed: when the attempts to open one are used up.
        :raises ConnectionLost: when the HTTP connection was lost.
        :raises FirstEventTimeout: when the answer takes longer than ``timeouts.first_event``.
        :raises MessageTooLarge: when the answer is over ``limits.max_message_bytes``.
        :raises ConnectionClosed: while the connection or the pool drains; nothing was sent.
        """
        with self._work.counted():
            self.count += 1
            try:
                return await self.repeat(method, *path, query=query, body=body)
            finally:
                self.count -= 1

    async def repeat(
        self,
        method: str,
        *path: str,
        query: Mapping[str, Any] | None = None,
        body: bytes | None = None,
    ) -> msgspec.Raw:
        """Make a call that is part of a turn in progress, as `call` does."""
        client = self._get_client()
        policy = client.config.retry_policy
        target = target_of(client.config.endpoint.resource, *path, query=query)
        retries = 0
        since = trio.current_time()
        while True:
            try:
                return await self._call_once(client, method, target, body)
            except ConnectError as error:
                if not error.retryable:
                    raise
                await client.back_off(error, since)
            except ResponsesError as error:
                if client.config.rate_limits is not None:
                    client.config.rate_limits.handle_error(error, policy.max_retry_wait)
                if retries >= policy.max_retries or not _may_repeat(method, error):
                    raise
                hint = retry_hint(error)
                delay = retry_delay(retries, retry_after=hint, max_wait=policy.max_retry_wait)
                if delay is None:
                    raise
                retries += 1
                await trio.sleep(delay)

    async def _call_once(
        self, client: HTTPClient, method: str, target: str, body: bytes | None
    ) -> msgspec.Raw:
        limit = client.config.timeouts.first_event
        with trio.move_on_after(limit):
            return await self._exchange(client, method, target, body)
        timeout = FirstEventTimeout(limit, sent=limit)
        timeout.delivery = DeliveryStatus.AMBIGUOUS
        raise timeout

    async def _exchange(
        self, client: HTTPClient, method: str, target: str, body: bytes | None
    ) -> msgspec.Raw:
        since = trio.current_time()
        headers = await client.get_headers()
        try:
            response = await client.request(method, target, headers, body)
            try:
                succeeded = response.status in SUCCESS
                limit = client.config.limits.max_message_bytes if succeeded else MAX_ERROR_BYTES
                data = await read_body(response, limit, since=since)
            finally:
                with trio.CancelScope(shield=True), suppress(Exception):
                    await response.aclose()
        except ConnectionLost as lost:
            lost.delivery = DeliveryStatus.AMBIGUOUS
            raise
        if not succeeded:
            frame = error_message(response.status, decode_headers(response), data[:limit])
            event = decode_error(frame)
            refusal = api_error(event)
            refusal.delivery = delivery_of_error(event, started=False)
            raise refusal
        if len(data) > limit:
            too_large = MessageTooLarge(len(data), limit)
            too_large.delivery = DeliveryStatus.ACCEPTED
            raise too_large
        return msgspec.Raw(data)


def _may_repeat(method: str, error: ResponsesError) -> bool:
    """Whether a request may be sent again after an attempt that failed."""
    if isinstance(error, RateLimitError):
        return error.delivery is DeliveryStatus.REJECTED
    if method not in REPEATABLE:
        return False
    failed = getattr(error, "status", None) in SERVER_ERRORS
    return failed or isinstance(error, ConnectionLost | FirstEventTimeout | ServerOverloaded)
