"""Several connections behind one face: which of them takes what, and when there are more or fewer.

What belongs elsewhere: one connection (`connection/connection.py`).
"""

from trio_responses._pool.pool import PoolStatistics, ResponsesPool, open_pool

__all__ = ["PoolStatistics", "ResponsesPool", "open_pool"]
