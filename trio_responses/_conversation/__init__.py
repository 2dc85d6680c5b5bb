"""Histories that outlive their socket, and runs: turns and tools until the model answers.

What belongs elsewhere: one turn (`turns/`), delta or full input (`core/continuation.py`).
"""
