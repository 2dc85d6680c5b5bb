"""Floor 1: decisions without I/O, as plain functions and state machines that never import trio."""
