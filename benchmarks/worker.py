"""One client in a process of its own, which reads orders and prints measurements.

    python -m benchmarks.worker CLIENT

Orders and measurements are JSON, one object a line.
"""

from __future__ import annotations

import gc
import json
import sys
from functools import partial
from typing import TYPE_CHECKING, Any

from benchmarks import catalog, measures
from benchmarks.processors import CLIENT, pin

if TYPE_CHECKING:
    from benchmarks.measures import Measure


def measures_of(name: str) -> dict[str, Measure]:
    """Return the measurements of a client by name."""
    if name != catalog.GROWTH:
        return measures.MEASURES
    from benchmarks import growth

    return growth.MEASURES


def main() -> None:
    """Measure until the standard input ends."""
    pin(CLIENT)
    name = sys.argv[1]
    client = catalog.load(name)
    known = measures_of(name)
    for line in sys.stdin:
        order: dict[str, Any] = json.loads(line)
        measure, url = known[order.pop("measure")], order.pop("url")
        gc.collect()
        print(json.dumps(client.run(partial(measure, client, url, **order))), flush=True)


if __name__ == "__main__":
    main()
