"""Functions that a model can call, and a run's view of all its tools.

What belongs elsewhere: the schema of a function (`typed/`), when a call is run (`conversation/`).
"""
