"""The real service that the tests of this folder use, and the limit on the tokens that they spend.

Environment variables configure both; CONTRIBUTING.md lists them.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any, Final, NoReturn, final

import pytest

from trio_responses import (
    DeliveryStatus,
    Endpoint,
    Instrument,
    ResponsesError,
    Timeouts,
    open_responses,
)

if TYPE_CHECKING:
    from contextlib import AbstractAsyncContextManager

    from trio_responses import Recorder, ResponsesConnection
    from trio_responses.typing import TurnRecord

OPT_IN: Final = "TRIO_RESPONSES_LIVE"
MODEL_VARIABLE: Final = "TRIO_RESPONSES_LIVE_MODEL"
TOKENS_VARIABLE: Final = "TRIO_RESPONSES_LIVE_TOKENS"
RECORDINGS_VARIABLE: Final = "TRIO_RESPONSES_LIVE_RECORDINGS"

DEFAULT_MODEL: Final = "gpt-5.5"
DEFAULT_TOKENS: Final = 30_000
MAX_OUTPUT_TOKENS: Final = 1024
"""The largest output of a request: enough for a short answer of a model that reasons first."""
TIMEOUTS: Final = Timeouts(connect=30, first_event=60, stall=60)


def why_not_run(expression: str) -> str | None:
    """Return the reason to skip the tests of this folder, or None if they run.

    :param expression: the marker expression of pytest's option ``-m``.
    """
    if "live" not in expression.split():
        return "sends requests to a real service, which may cost money: nox -s live"
    if os.environ.get(OPT_IN) != "1":
        return f"sends requests to a real service, which may cost money: set {OPT_IN}=1 to allow it"
    variable = Endpoint.of(None).key_variable
    if not os.environ.get(variable):
        return f"needs an API key: set {variable}"
    return None


@final
class TokenBudget(Instrument):
    """An instrument that counts the tokens of all turns, and compares them with a limit."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self.spent = 0
        """Tokens of all turns so far, input and output."""

    @property
    def problem(self) -> str | None:
        """The error message when the limit is reached, else None."""
        if self.spent < self.limit:
            return None
        return (
            f"the tests have spent {self.spent} tokens, and the limit is {self.limit}: no more"
            f" requests are sent; to allow more tokens, set {TOKENS_VARIABLE}"
        )

    def turn_ended(self, turn: TurnRecord) -> None:
        """Add the tokens that the server reported; without a report, the largest output."""
        if turn.usages:
            self.spent += sum(usage.total_tokens for usage in turn.usages)
        elif turn.sent_at is not None and not _did_not_run(turn.error):
            self.spent += MAX_OUTPUT_TOKENS


def _did_not_run(error: Exception | None) -> bool:
    return isinstance(error, ResponsesError) and error.delivery in {
        DeliveryStatus.NOT_SENT,
        DeliveryStatus.REJECTED,
    }


@final
@dataclasses.dataclass(frozen=True, slots=True)
class LiveService:
    """The service under test: its endpoint, its key, and the instruments of each connection."""

    endpoint: Endpoint
    api_key: str = dataclasses.field(repr=False)
    model: str
    budget: TokenBudget
    recorder: Recorder
    skip_reasons: list[str]
    """Why the test was skipped while it ran: pytest-trio drops the reason of `pytest.skip`."""

    @property
    def params(self) -> dict[str, Any]:
        """The parameters that every request has: the model and the limit on the output."""
        return {"model": self.model, "max_output_tokens": MAX_OUTPUT_TOKENS}

    def connect(
        self, *, api_key: str | None = None, lanes: bool | None = None
    ) -> AbstractAsyncContextManager[ResponsesConnection]:
        """Open a connection that is recorded, and whose tokens are counted.

        :param api_key: the key; None takes the real one.
        :param lanes: whether the service has lanes; None takes the value of the endpoint.
        """
        endpoint = self.endpoint
        if lanes is not None:
            endpoint = dataclasses.replace(endpoint, lanes=lanes)
        return open_responses(
            endpoint=endpoint,
            api_key=api_key or self.api_key,
            timeouts=TIMEOUTS,
            reconnect=(),
            instruments=[self.budget, self.recorder],
        )

    def skip(self, reason: str) -> NoReturn:
        """Skip the test because the service lacks something."""
        self.skip_reasons.append(reason)
        pytest.skip(reason)
