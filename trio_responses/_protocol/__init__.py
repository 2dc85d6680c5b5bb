"""Decisions of the protocol: plain functions and state machines without I/O."""
