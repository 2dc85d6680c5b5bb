"""Several connections that are used like a single one, to one endpoint or to several."""

from trio_responses._pool.endpoints import PoolEndpoint
from trio_responses._pool.pool import ResponsesPool, open_pool
from trio_responses._pool.statistics import PoolStatistics

__all__ = ["PoolEndpoint", "PoolStatistics", "ResponsesPool", "open_pool"]
