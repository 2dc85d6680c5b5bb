"""Whether a model could make the calls that a test orders: what the request offers.

What belongs elsewhere: what an order must look like in itself (``orders.py``).
"""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING, Any, cast

from trio_responses.testing._request import Request
from trio_responses.testing._scripts import Call

if TYPE_CHECKING:
    from trio_responses.testing._errors import Json


def unoffered(calls: Iterable[Call], request: Request) -> str | None:
    """Say which of the ordered calls is one that no model would make, or None.

    Functions are offered in ``tools``, by themselves and in namespaces, or found by a search
    for tools. Where a stored prompt is named, nobody here knows what it brings along.
    """
    if request.get("prompt") is not None:
        return None
    offered = list(dict.fromkeys(_functions_of(request)))
    for call in calls:
        if not call.unoffered and call.name not in offered:
            return (
                f"the order calls {call.name!r}, and the request offers:"
                f" {', '.join(offered) or 'none'} (unoffered=True, if that is meant)"
            )
    return None


def _functions_of(request: Request) -> Iterator[str]:
    yield from _functions_in(request.tools)
    for item in request.history:
        if item.get("type") == "tool_search_output":
            yield from _functions_in(item.get("tools"))


def _functions_in(tools: Any) -> Iterator[str]:
    if not isinstance(tools, list):
        return
    for tool in cast("Any", tools):
        if isinstance(tool, dict):
            fields = cast("Json", tool)
            if fields.get("type") == "function":
                yield str(fields.get("name"))
            yield from _functions_in(fields.get("tools"))
