"""`chat --store` continues a conversation, and `conversations` shows what a store has."""

from __future__ import annotations

import io
import json
import sys
from typing import TYPE_CHECKING

import pytest
import trio

from trio_responses._cli import main
from trio_responses.stores import Record, SQLiteStore

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.cli_driver import Capture, Patch


@pytest.fixture
def store(tmp_path: Path) -> str:
    """Return the path of a store that does not exist yet."""
    return str(tmp_path / "chats.db")


def chat(monkeypatch: Patch, lines: str, *options: str) -> int:
    """Run a chat with the embedded server."""
    monkeypatch.setattr(sys, "stdin", io.StringIO(lines))
    return main(["chat", "--embedded", *options])


def test_a_chat_continues_where_the_last_one_was_left(
    store: str, monkeypatch: Patch, capsys: Capture
) -> None:
    options = ["--store", store, "--key", "work"]
    assert chat(monkeypatch, "My name is Ada.\n", *options) == 0
    assert "0 items loaded from the store" in capsys.readouterr().err
    assert chat(monkeypatch, "Who am I?\n", *options) == 0
    out, err = capsys.readouterr()
    assert "2 items loaded from the store" in err
    assert 'Turn 2: you said "Who am I?".' in out
    assert chat(monkeypatch, "Hello\n", "--store", store) == 0  # another key
    assert 'Turn 1: you said "Hello".' in capsys.readouterr().out


def test_tools_run_in_a_chat_with_a_store(store: str, monkeypatch: Patch, capsys: Capture) -> None:
    assert chat(monkeypatch, "What is 6 * 7?\n", "--store", store, "--demo-tools") == 0
    assert "the tool returned 42." in capsys.readouterr().out
    assert main(["conversations", "show", "chat", "--store", store]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[0] == "user: What is 6 * 7?"
    assert any(line.startswith("call: ") for line in out.splitlines())
    assert "output: 42" in out
    assert "assistant: " in out
    assert "chat: 4 items, revision 2" in err


def test_the_conversations_of_a_store_are_listed_exported_and_deleted(
    store: str, monkeypatch: Patch, capsys: Capture, tmp_path: Path
) -> None:
    for key in ("work", "home"):
        assert chat(monkeypatch, f"At {key}.\n", "--store", store, "--key", key) == 0
    capsys.readouterr()
    assert main(["conversations", "list", "--store", store]) == 0
    header, *lines = capsys.readouterr().out.splitlines()
    assert header.split("  ")[0] == "LAST CHANGE"
    assert header.split()[-3:] == ["SIZE", "STATE", "CONVERSATION"]
    assert [line.split()[-1] for line in lines] == ["home", "work"]
    assert all(line.index("closed") == header.index("STATE") for line in lines)
    assert main(["conversations", "list", "--store", store, "--json", "--prefix", "w"]) == 0
    [listed] = map(json.loads, capsys.readouterr().out.splitlines())
    assert listed["conversation_id"] == "work"
    exported = str(tmp_path / "work.json")
    arguments = ["conversations", "export", "work", "--store", store, "--file", exported]
    assert main(arguments) == 0
    assert main(arguments) == 2
    assert "exists: choose another file" in capsys.readouterr().err
    assert chat(monkeypatch, "And now?\n", "--load", exported) == 0
    assert 'Turn 2: you said "And now?".' in capsys.readouterr().out
    assert main(["conversations", "export", "work", "--store", store]) == 0
    assert json.loads(capsys.readouterr().out)["conversation_id"] == "work"
    assert main(["conversations", "delete", "work", "none", "--store", store]) == 1
    assert capsys.readouterr().err.splitlines() == [
        "note: work was deleted",
        "error: the store has no conversation 'none'",
    ]
    for action in ("show", "export"):
        assert main(["conversations", action, "work", "--store", store]) == 1
        assert "no conversation 'work'" in capsys.readouterr().err


def test_a_file_begins_a_conversation_of_a_store(
    store: str, monkeypatch: Patch, capsys: Capture, tmp_path: Path
) -> None:
    saved = str(tmp_path / "chat.json")
    assert chat(monkeypatch, f"Hello\n/save {saved}\n") == 0
    options = ["--store", store, "--key", "work", "--load", saved]
    assert chat(monkeypatch, f"/load {saved}\nAnd you?\n/reset\nAgain\n", *options) == 0
    out, err = capsys.readouterr()
    assert "2 items loaded from" in err
    assert "start again with --load" in err
    assert 'Turn 2: you said "And you?".' in out
    assert chat(monkeypatch, "", *options) == 1
    assert "choose another --key" in capsys.readouterr().err


def test_a_conversation_that_is_open_elsewhere_is_an_error(
    store: str, monkeypatch: Patch, capsys: Capture
) -> None:
    async def own() -> None:
        async with SQLiteStore(store) as backend:
            await backend.acquire("work", "another", seconds=60)

    trio.run(own)
    assert chat(monkeypatch, "Hello\n", "--store", store, "--key", "work") == 1
    err = capsys.readouterr().err
    assert "has another owner" in err
    assert "wait=" not in err


@pytest.mark.parametrize("action", ["list", "show", "delete"])
def test_a_store_that_is_missing_is_not_created(
    store: str, capsys: Capture, action: str, tmp_path: Path
) -> None:
    names = [] if action == "list" else ["work"]
    assert main(["conversations", action, *names, "--store", store]) == 2
    assert "there is no such store" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("place", ["mysql://localhost/chats", "http://host"])
def test_an_unknown_engine_is_an_error(capsys: Capture, place: str) -> None:
    assert main(["conversations", "list", "--store", place]) == 2
    assert "Redis or PostgreSQL" in capsys.readouterr().err


def test_what_a_store_has_is_shown_without_control_characters_on_a_terminal(
    store: str, monkeypatch: Patch, capsys: Capture
) -> None:
    async def write() -> None:
        async with SQLiteStore(store) as backend:
            lease = await backend.acquire("odd\x1b[2J", "me", seconds=60)
            await backend.append(lease, 0, [Record(b"{}")], base=0)
            await backend.release(lease)

    trio.run(write)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    assert main(["conversations", "list", "--store", store]) == 0
    assert "\x1b" not in capsys.readouterr().out
    assert main(["conversations", "show", "odd\x1b[2J", "--store", store]) == 1
    err = capsys.readouterr().err
    assert "damaged" in err
    assert "\x1b" not in err
