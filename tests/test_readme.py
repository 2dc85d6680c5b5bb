"""The README's examples, run as they stand there."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import trio_responses
from tests.testing.driver import NO_WAITING
from trio_responses.testing import open_test_server

if TYPE_CHECKING:
    import pytest
    from trio.testing import MockClock

README = Path(__file__).resolve().parent.parent / "README.md"
FIRST, CONVERSATION, TEST = re.findall(
    r"```python\n(.*?)```", README.read_text(encoding="utf-8"), re.DOTALL
)


@NO_WAITING
async def test_the_first_example_streams_its_answers(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with open_test_server() as server:
        monkeypatch.setattr(trio_responses, "open_responses", server.open_client)
        namespace: dict[str, Any] = {}
        exec(FIRST.replace("trio.run(main)", ""), namespace)  # noqa: S102 - our own page
        await namespace["main"]()
    said = capsys.readouterr().out
    assert said == (
        'Turn 1: you said "What is a nursery in Trio?".\nTurn 2: you said "Shorter, please".'
    )


@NO_WAITING
async def test_the_conversation_sends_the_new_items_only() -> None:
    lines = "".join(f"    {line}\n" for line in CONVERSATION.splitlines())
    namespace: dict[str, Any] = {}
    exec(f"async def talk(connection):\n{lines}", namespace)  # noqa: S102 - our own page
    async with open_test_server() as server, server.open_client() as connection:
        await namespace["talk"](connection)
        assert [len(request.body["input"]) for request in server.requests] == [1, 1]
        assert server.requests[1].turn == 2


async def test_the_test_passes(autojump_clock: MockClock) -> None:
    namespace: dict[str, Any] = {}
    exec(TEST, namespace)  # noqa: S102 - our own page
    await namespace["test_the_weather"](autojump_clock)
