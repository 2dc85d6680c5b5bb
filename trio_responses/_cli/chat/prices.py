"""The cost of a turn, by prices that the user gives. There is no table of prices: it would age."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final, Self

if TYPE_CHECKING:
    from trio_responses.types import Usage

__all__ = ["PRICE_VARIABLE", "Prices"]

PRICE_VARIABLE: Final = "TRIO_RESPONSES_PRICE"
MILLION: Final = 1_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Prices:
    """Prices per million tokens, in any currency."""

    input: float
    cached: float
    output: float

    @classmethod
    def parse(cls, text: str) -> Self:
        """Return the prices of a text such as ``1.25,0.125,10``.

        :raises ValueError: unless the text is three numbers that are not negative.
        """
        try:
            given, cached, output = (float(part) for part in text.split(","))
        except ValueError:
            given = math.nan
            cached = output = 0.0
        if not all(0 <= price < math.inf for price in (given, cached, output)):
            raise ValueError(
                f"{text!r} is not INPUT,CACHED,OUTPUT: three prices per million tokens, such as"
                " 1.25,0.125,10"
            )
        return cls(input=given, cached=cached, output=output)

    def cost(self, usage: Usage) -> float:
        """Return the cost of the tokens of one or more responses."""
        cached = usage.input_tokens_details.cached_tokens
        fresh = usage.input_tokens - cached
        spent = fresh * self.input + cached * self.cached + usage.output_tokens * self.output
        return spent / MILLION
