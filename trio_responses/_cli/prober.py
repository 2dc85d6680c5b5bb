"""What is known of a server that is probed, and how one attempt is made and judged.

What belongs elsewhere: the features, and how each is tried (`features.py`).
"""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, final

import trio

from trio_responses import APIError, ReconnectFailed, ResponsesError, open_responses
from trio_responses._cli.running import explain
from trio_responses._settings import Timeouts
from trio_responses._transport.websocket import dial_tcp

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from contextlib import AbstractAsyncContextManager

    from trio_responses import Endpoint, ResponsesConnection
    from trio_responses._settings import Keepalive
    from trio_responses._transport.websocket import Dial

__all__ = ["Feature", "Finding", "Found", "Prober", "Verdict"]


class Verdict(StrEnum):
    """What came of trying a feature."""

    WORKS = "works"
    UNCLEAR = "unclear"
    """Taken without complaint, and nothing shows that it had an effect."""
    NO = "no"
    """Refused, or not understood."""
    FAILS = "fails"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Finding:
    """What was found out about a feature."""

    name: str
    verdict: Verdict
    detail: str
    seconds: float


Found: TypeAlias = tuple[Verdict, str]


@dataclass(frozen=True, slots=True)
class Feature:
    """A feature, and how it is tried."""

    name: str
    attempt: Callable[[Prober], Awaitable[Found]]
    needs: tuple[str, ...] = ("handshake", "text turn")


@final
class Prober:
    """What all attempts share: the server, and the model that answers.

    :param models: the models to try, the best first.
    :param timeout: seconds for each feature.
    :param dial: opens the byte stream, where TCP is not the way.
    """

    def __init__(
        self,
        endpoint: Endpoint,
        *,
        api_key: str | None,
        models: tuple[str, ...],
        timeout: float,
        dial: Dial = dial_tcp,
    ) -> None:
        self.endpoint = endpoint
        self.models = models
        self.model: str | None = None
        """The one that has answered."""
        self.timeout = timeout
        self._api_key = api_key
        self._dial = dial

    def connect(
        self,
        *,
        after_error: Literal["reuse", "replace"] = "replace",
        stall: float | None = None,
        keepalive: Keepalive | None = None,
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection for one attempt: it is not opened anew when it is lost."""
        endpoint = dataclasses.replace(self.endpoint, lanes=False, after_error=after_error)
        patience = Timeouts(
            connect=self.timeout, first_event=self.timeout, stall=stall or self.timeout
        )
        return open_responses(
            endpoint=endpoint,
            api_key=self._api_key,
            reconnect=(),
            timeouts=patience,
            keepalive=keepalive,
            dial=self._dial,
        )

    async def examine(self, feature: Feature, before: list[Finding]) -> Finding:
        """Try a feature; whatever goes wrong is its verdict."""
        broken = {it.name for it in before if it.verdict is not Verdict.WORKS}
        missing = [name for name in feature.needs if name in broken]
        since = trio.current_time()
        if missing:
            verdict, detail = Verdict.SKIPPED, f"needs: {missing[0]}"
        else:
            verdict, detail = await self._try(feature)
        seconds = trio.current_time() - since
        return Finding(name=feature.name, verdict=verdict, detail=detail, seconds=seconds)

    async def _try(self, feature: Feature) -> Found:
        try:
            with trio.fail_after(self.timeout):
                return await feature.attempt(self)
        except APIError as error:
            return Verdict.NO, explain(error)
        except ReconnectFailed as error:
            cause = error.__cause__
            return Verdict.FAILS, explain(cause if isinstance(cause, Exception) else error)
        except ResponsesError as error:
            return Verdict.FAILS, explain(error)
        except trio.TooSlowError:
            return Verdict.FAILS, f"not done within {self.timeout:g} s"

    def profile(self, findings: list[Finding]) -> dict[str, Any]:
        """Give the options of ``Endpoint.compatible`` that describe this server."""
        good = {it.name for it in findings if it.verdict is Verdict.WORKS}
        after_error = "reuse" if "turn after an error" in good else "replace"
        return {"lanes": "lanes" in good, "after_error": after_error}
