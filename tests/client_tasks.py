"""The tasks of all connections of the running test, by name."""

from typing import Final

import trio

CLIENT_MODULES: Final = ("trio_responses._connection.", "trio_responses._transport.")
IDLE_TASKS: Final = [
    "trio_responses._connection.engine.ConnectionEngine._run",
    "trio_responses._connection.engine.ConnectionEngine._run_socket",
    "trio_responses._transport.websocket._run_reader",
]
"""The tasks of one idle connection."""


def client_tasks() -> list[str]:
    """Return the names of the tasks of all connections, without those of a server."""
    found: list[str] = []
    tasks = [trio.lowlevel.current_root_task()]
    while tasks:
        task = tasks.pop()
        assert task is not None
        found += [task.name] if task.name.startswith(CLIENT_MODULES) else []
        tasks += [child for nursery in task.child_nurseries for child in nursery.child_tasks]
    return sorted(found)
