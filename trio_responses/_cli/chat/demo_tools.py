"""The tools of ``chat --demo-tools``: the current time, and arithmetic. Neither changes anything.

`calculate` evaluates the syntax tree of numbers and operators only, with bounds on the length of
the expression and the size of each result: the expression comes from a model.
"""

from __future__ import annotations

import ast
import math
import operator
import re
import zoneinfo
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

from trio_responses._tools.function import function_tool
from trio_responses.testing import Call, Reply, default_answer

if TYPE_CHECKING:
    from collections.abc import Callable

    from trio_responses.testing import Request

__all__ = ["CHAT_TOOLS", "answer_with_tools", "calculate", "current_time"]

MAX_LENGTH: Final = 200
"""Characters of an expression."""
MAX_EXPONENT: Final = 1000
MAX_RESULT: Final = 10**1000
"""Larger results take long to calculate, and are too long to read."""

_operator: Any = operator  # typeshed's types of these functions reject int | float
OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: _operator.add,
    ast.Sub: _operator.sub,
    ast.Mult: _operator.mul,
    ast.Div: _operator.truediv,
    ast.FloorDiv: _operator.floordiv,
    ast.Mod: _operator.mod,
    ast.Pow: _operator.pow,
    ast.UAdd: _operator.pos,
    ast.USub: _operator.neg,
}
ARITHMETIC: Final = re.compile(r"[\d(][\d\s.()+*/%-]*[\d)]")
TIME_ZONE: Final = re.compile(r"\bin ([A-Z]\w+(?: [A-Z]\w+)*)")

# The docstrings of the two tools are the descriptions that the model reads.


@function_tool(run_in_thread=False)
def current_time(place: str = "UTC") -> str:
    """Tell the date and the time.

    :param place: a time zone such as Europe/Oslo, or a city that has one of its own.
    """
    name = place.strip().replace(" ", "_")
    zones = zoneinfo.available_timezones()
    matching = sorted(
        zone for zone in zones if name.lower() in {zone.lower(), zone.lower().rpartition("/")[2]}
    )
    if name.upper() == "UTC":
        now = datetime.now(UTC)
    elif matching:
        now = datetime.now(zoneinfo.ZoneInfo(matching[0]))
    else:
        raise ValueError(f"no time zone is known for {place!r}: name one such as Europe/Oslo")
    return now.strftime("%A, %Y-%m-%d %H:%M:%S %Z")


@function_tool(run_in_thread=False)
def calculate(expression: str) -> int | float:
    """Work out an arithmetic expression.

    :param expression: numbers, brackets, and + - * / // % **
    """
    if len(expression) > MAX_LENGTH:
        raise ValueError(
            f"an expression has at most {MAX_LENGTH} characters, not {len(expression)}"
        )
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        raise ValueError("not an arithmetic expression") from None
    return _evaluate(tree.body)


def _evaluate(node: ast.expr) -> int | float:
    """Return the value of a parsed arithmetic expression.

    :raises ValueError: for any node that is not a number or an arithmetic operation.
    """
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=operation, operand=operand) if type(operation) in OPERATORS:
            return _bounded(OPERATORS[type(operation)](_evaluate(operand)))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATORS:
            first, second = _evaluate(left), _evaluate(right)
            if isinstance(operation, ast.Pow) and abs(second) > MAX_EXPONENT:
                raise ValueError(f"an exponent is at most {MAX_EXPONENT}")
            return _bounded(OPERATORS[type(operation)](first, second))
        case _:
            raise ValueError("an expression has numbers, brackets, and + - * / // % ** only")


def _bounded(number: Any) -> int | float:
    """Return a number unchanged if it is real, finite and not too large.

    :raises ValueError: for every other result.
    """
    if isinstance(number, complex) or (isinstance(number, float) and not math.isfinite(number)):
        raise ValueError("the result is no finite real number")
    if abs(number) > MAX_RESULT:
        raise ValueError("the result is too large")
    result: int | float = number
    return result


CHAT_TOOLS: Final = (current_time, calculate)


def answer_with_tools(request: Request) -> Reply:
    """Return the answer of the embedded server: a call of the tool that fits the question.

    The embedded server has no model; without a fitting tool the answer is the default one.
    """
    default = default_answer(request)
    offered = {tool.get("name") for tool in request.tools}
    newest = request.history[-1] if request.history else {}
    if newest.get("role") != "user":
        return default
    arithmetic = ARITHMETIC.search(request.text)
    if calculate.name in offered and arithmetic:
        return Reply(calls=[Call(calculate.name, {"expression": arithmetic[0]})])
    if current_time.name in offered and "time" in request.text.lower():
        place = TIME_ZONE.search(request.text)
        return Reply(calls=[Call(current_time.name, {"place": place[1] if place else "UTC"})])
    return (
        default if not default.calls else Reply(f'Turn {request.turn}: you said "{request.text}".')
    )
