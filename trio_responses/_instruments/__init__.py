"""What is told of sockets, turns and tools, and to whom: hooks, the log, recordings.

What belongs elsewhere: spans and metrics, which need an extra (`otel.py`).
"""
