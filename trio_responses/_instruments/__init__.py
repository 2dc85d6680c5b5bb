"""Instruments: hooks for sockets, turns and tools, with logging and recording built on them."""
