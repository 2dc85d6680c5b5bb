"""Whether tests start programs that take long: Redis, PostgreSQL, web services, or a browser."""

import os

import pytest

VARIABLE = "TRIO_RESPONSES_ENGINES"
STARTS_ENGINES = os.environ.get(VARIABLE, "") not in {"", "0"}
REASON = f"takes long: run by nox -s stores and nox -s examples, or with {VARIABLE}=1"

needs_engines = pytest.mark.skipif(not STARTS_ENGINES, reason=REASON)
