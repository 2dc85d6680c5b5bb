"""The command line: one file for each command, and `main`, which runs them.

What belongs elsewhere: the demonstration (`demo.py`), the server (`testing/`).
"""

from trio_responses._cli.program import main

__all__ = ["main"]
