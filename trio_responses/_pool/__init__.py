"""Several connections to one server that are used like a single one."""

from trio_responses._pool.pool import ResponsesPool, open_pool
from trio_responses._pool.statistics import PoolStatistics

__all__ = ["PoolStatistics", "ResponsesPool", "open_pool"]
