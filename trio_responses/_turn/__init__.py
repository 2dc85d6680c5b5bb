"""Turns: a request, the events of its response, and the scope in which both live."""
