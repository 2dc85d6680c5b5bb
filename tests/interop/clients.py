"""Clients of other projects behind one interface: send a command, receive an event, both as JSON.

The interface is thin, so that the tests exercise how each client connects, sends, receives, parses
and closes.
"""

from __future__ import annotations

import asyncio
import json
import subprocess
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol, TypeAlias, cast

from tests.interop.programs import HANG_GUARD

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

Json: TypeAlias = dict[str, Any]

KEY = "sk-interop"
MODEL = "gpt-5.5"
ENDS = ("response.completed", "response.incomplete", "response.failed", "error")


class Wire(Protocol):
    """One connection of another project's client."""

    def send(self, command: Json) -> None: ...

    def receive(self) -> Json: ...


class Client:
    """A client that runs turns over a wire."""

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def send(self, text: str | list[Json], **fields: Any) -> None:
        self._wire.send({"type": "response.create", "model": MODEL, "input": text, **fields})

    def receive(self) -> Json:
        return self._wire.receive()

    def events(self, text: str | list[Json], **fields: Any) -> list[Json]:
        """Run one turn and return its events."""
        self.send(text, **fields)
        events = [self.receive()]
        while events[-1]["type"] not in ENDS:
            events.append(self.receive())
        return events

    def respond(self, text: str | list[Json], **fields: Any) -> Json:
        """Run one turn and return its completed response."""
        last = self.events(text, **fields)[-1]
        assert last["type"] == "response.completed", last
        response: Json = last["response"]
        return response


class SyncWire:
    """A connection of ``OpenAI().responses.connect()``."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection

    def send(self, command: Json) -> None:
        self._connection.send(command)

    def receive(self) -> Json:
        return checked(self._connection.recv())


class AsyncWire:
    """A connection of ``AsyncOpenAI().responses.connect()``; its loop runs during each call."""

    def __init__(self, runner: asyncio.Runner, connection: Any) -> None:
        self._runner = runner
        self._connection = connection

    def send(self, command: Json) -> None:
        self._runner.run(self._connection.send(command))

    def receive(self) -> Json:
        return checked(self._runner.run(self._connection.recv()))


class NodeWire:
    """A connection of ``new ResponsesWS(...)``, in a process that exchanges lines of JSON."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        assert process.stdin is not None
        assert process.stdout is not None
        self._stdin = process.stdin
        self._stdout = process.stdout

    def send(self, command: Json) -> None:
        self._stdin.write(json.dumps(command) + "\n")
        self._stdin.flush()

    def receive(self) -> Json:
        line: Json = json.loads(self._stdout.readline() or '{"ended": true}')
        assert isinstance(line.get("event"), dict), f"the npm client printed {line}"
        return cast("Json", line["event"])


def checked(event: Any) -> Json:
    """Return an event of openai-python as JSON, validated by the type that the SDK chose for it.

    The SDK itself does not validate events. Validation finds the fields that a frame lacks.
    """
    value: Json = event.to_dict()
    type(event).model_validate(value)
    assert type(event).__name__.startswith("Response"), type(event)
    return value


@contextmanager
def sync_wire(openai: Any, url: str) -> Iterator[Wire]:
    with (
        openai.OpenAI(api_key=KEY, base_url=url) as sdk,
        sdk.responses.connect() as connection,
    ):
        yield SyncWire(connection)


@contextmanager
def async_wire(openai: Any, url: str) -> Iterator[Wire]:
    with asyncio.Runner() as runner:
        sdk = openai.AsyncOpenAI(api_key=KEY, base_url=url)
        manager = sdk.responses.connect()
        connection = runner.run(manager.__aenter__())
        try:
            yield AsyncWire(runner, connection)
        finally:
            runner.run(manager.__aexit__(None, None, None))
            runner.run(sdk.close())


@contextmanager
def node_wire(script: tuple[str, str], modules: Path, url: str) -> Iterator[Wire]:
    process = subprocess.Popen(  # noqa: S603 - a script of this folder
        [*script, str(modules), url],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield NodeWire(process)
        rest, _ = process.communicate(timeout=HANG_GUARD)
        assert json.loads(rest.splitlines()[-1]) == {"closed": 1000}
        assert process.returncode == 0
    finally:
        process.kill()
        process.communicate()
