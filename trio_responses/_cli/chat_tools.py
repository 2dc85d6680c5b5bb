"""The tools that ``chat --tools`` offers: what time it is, and arithmetic. They change nothing.

What belongs elsewhere: how tools are made (`tools/function.py`) and run (`conversation/run.py`).
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

LONGEST: Final = 200
"""Characters of an expression."""
LARGEST_EXPONENT: Final = 1000
LARGEST: Final = 10**1000
"""What is beyond it takes long, and is nothing to read."""

_numbers: Any = operator  # whose types leave open what numbers are
OPERATORS: Final[dict[type[ast.AST], Callable[..., Any]]] = {
    ast.Add: _numbers.add,
    ast.Sub: _numbers.sub,
    ast.Mult: _numbers.mul,
    ast.Div: _numbers.truediv,
    ast.FloorDiv: _numbers.floordiv,
    ast.Mod: _numbers.mod,
    ast.Pow: _numbers.pow,
    ast.UAdd: _numbers.pos,
    ast.USub: _numbers.neg,
}
ARITHMETIC: Final = re.compile(r"[\d(][\d\s.()+*/%-]*[\d)]")
PLACE: Final = re.compile(r"\bin ([A-Z]\w+(?: [A-Z]\w+)*)")


@function_tool(cheap=True)
def current_time(place: str = "UTC") -> str:
    """Tell the date and the time.

    :param place: a time zone such as Europe/Oslo, or a city that has one of its own.
    """
    name = place.strip().replace(" ", "_")
    zones = zoneinfo.available_timezones()
    fitting = sorted(
        zone for zone in zones if name.lower() in {zone.lower(), zone.lower().rpartition("/")[2]}
    )
    if name.upper() == "UTC":
        now = datetime.now(UTC)
    elif fitting:
        now = datetime.now(zoneinfo.ZoneInfo(fitting[0]))
    else:
        raise ValueError(f"no time zone is known for {place!r}: name one such as Europe/Oslo")
    return now.strftime("%A, %Y-%m-%d %H:%M:%S %Z")


@function_tool(cheap=True)
def calculate(expression: str) -> int | float:
    """Work out an arithmetic expression.

    :param expression: numbers, brackets, and + - * / // % **
    """
    if len(expression) > LONGEST:
        raise ValueError(f"an expression has at most {LONGEST} characters")
    try:
        tree = ast.parse(expression.strip(), mode="eval")
    except SyntaxError:
        raise ValueError("not an arithmetic expression") from None
    return _value(tree.body)


def _value(node: ast.expr) -> int | float:
    """Work out a node; nothing but numbers and operators is known."""
    match node:
        case ast.Constant(value=int() | float() as number) if not isinstance(number, bool):
            return number
        case ast.UnaryOp(op=operation, operand=operand) if type(operation) in OPERATORS:
            return _bounded(OPERATORS[type(operation)](_value(operand)))
        case ast.BinOp(left=left, op=operation, right=right) if type(operation) in OPERATORS:
            first, second = _value(left), _value(right)
            if isinstance(operation, ast.Pow) and abs(second) > LARGEST_EXPONENT:
                raise ValueError(f"an exponent is at most {LARGEST_EXPONENT}")
            return _bounded(OPERATORS[type(operation)](first, second))
        case _:
            raise ValueError("an expression has numbers, brackets, and + - * / // % ** only")


def _bounded(number: Any) -> int | float:
    if isinstance(number, complex) or (isinstance(number, float) and not math.isfinite(number)):
        raise ValueError("the result is no finite real number")
    if abs(number) > LARGEST:
        raise ValueError("the result is too large")
    result: int | float = number
    return result


CHAT_TOOLS: Final = (current_time, calculate)


def answer_with_tools(request: Request) -> Reply:
    """Answer for the embedded server, which is no model: call these tools where they fit."""
    usual = default_answer(request)
    offered = {tool.get("name") for tool in request.tools}
    newest = request.history[-1] if request.history else {}
    if newest.get("role") != "user":
        return usual
    arithmetic = ARITHMETIC.search(request.text)
    if calculate.name in offered and arithmetic:
        return Reply(calls=[Call(calculate.name, {"expression": arithmetic[0]})])
    if current_time.name in offered and "time" in request.text.lower():
        place = PLACE.search(request.text)
        return Reply(calls=[Call(current_time.name, {"place": place[1] if place else "UTC"})])
    return usual if not usual.calls else Reply(f'Turn {request.turn}: you said "{request.text}".')
