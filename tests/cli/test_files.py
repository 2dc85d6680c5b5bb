"""The files of the command line: what a failed write leaves, and what an unusable file says."""

from __future__ import annotations

import errno
import io
import os
import stat
import sys
from typing import TYPE_CHECKING, Any

import pytest

from tests.cli.test_chat import talk
from tests.testing.driver import NO_WAITING
from trio_responses import ConfigurationError
from trio_responses._cli import files, main
from trio_responses._cli.files import Replacement, read_file, write_file

if TYPE_CHECKING:
    from pathlib import Path

    from tests.cli.cli_driver import Capture, Patch
    from trio_responses.testing import ResponsesServer

CHECKPOINT = '{"format":"trio-responses conversation","version":1,"settings":{"model":"m"},"items":'
OPENING = '{"t":0,"dir":"send","frame":{"type":"response.create","model":"m","input":"Hi"}}\n'


@pytest.fixture
def full_disk(monkeypatch: Patch) -> None:
    """Let every flush to the disk fail, as on a disk that is full."""

    def fail(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", fail)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# --- Writing -----------------------------------------------------------------------------


@NO_WAITING
@pytest.mark.usefixtures("full_disk")
async def test_save_on_a_full_disk_keeps_the_old_file_and_the_chat(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text("precious", encoding="utf-8")
    renderer = await talk(server, "Hello", f"/save {path}", f"/save {path}", "And you?")
    assert renderer.lines_of("error") == [f"{path}: No space left on device"]
    assert path.read_text(encoding="utf-8") == "precious"
    assert names_in(tmp_path) == ["old.json"]
    assert renderer.lines_of("text")[-1] == 'Turn 2: you said "And you?".'


@NO_WAITING
async def test_save_replaces_another_file_only_when_asked_twice(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "old.json"
    path.write_text("precious", encoding="utf-8")
    path.chmod(0o644)
    renderer = await talk(server, "Hello", f"/save {path}", "And you?", f"/save {path}")
    question = f"{path} exists: enter the same again to replace it"
    assert renderer.lines_of("note") == [question] * 2
    assert path.read_text(encoding="utf-8") == "precious"
    renderer = await talk(server, "Hello", f"/save {path}", f"/save {path}")
    assert renderer.lines_of("note") == [question, f"2 items saved in {path}"]
    assert b"precious" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


@NO_WAITING
async def test_save_replaces_the_file_of_the_conversation_without_a_question(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "mine.json"
    save = f"/save {path}"
    renderer = await talk(server, "Hello", save, "And you?", save, "/reset", save)
    assert renderer.lines_of("note") == [
        f"2 items saved in {path}",
        f"4 items saved in {path}",
        "a new conversation starts",
        f"{path} exists: enter the same again to replace it",
    ]


@pytest.mark.parametrize("keep", ["target", "nothing"])
def test_a_symbolic_link_stays_and_its_target_is_written(keep: str, tmp_path: Path) -> None:
    target, link = tmp_path / "target", tmp_path / "link"
    if keep == "target":
        target.write_bytes(b"old")
    link.symlink_to(target)
    write_file(str(link), b"new")
    assert link.is_symlink()
    assert target.read_bytes() == b"new"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("missing/file", "No such file or directory"),
        ("folder", "Is a directory"),
        ("pipe", "not a regular file"),
        ("loop", "not a regular file"),
        ("a\0b", "embedded null"),
        ("x" * 300, "File name too long"),
    ],
)
def test_a_file_that_cannot_be_written_is_named(name: str, words: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "loop").symlink_to("loop")
    os.mkfifo(tmp_path / "pipe")
    before = names_in(tmp_path)
    path = str(tmp_path / name)
    with pytest.raises(OSError, match=words) as caught:
        write_file(path, b"new")
    assert caught.value.filename == path
    assert names_in(tmp_path) == before


def test_a_file_protected_from_writing_stays(tmp_path: Path, monkeypatch: Patch) -> None:
    path = tmp_path / "read-only"
    path.write_bytes(b"old")
    path.chmod(0o400)

    def refuse(*_: object) -> bool:
        return False

    monkeypatch.setattr(os, "access", refuse)  # root may write everything
    with pytest.raises(PermissionError, match="protected from writing"):
        write_file(str(path), b"new")
    assert path.read_bytes() == b"old"


@pytest.mark.usefixtures("full_disk")
def test_a_forced_recording_on_a_full_disk_keeps_the_old_one(
    capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.jsonl").write_text("precious", encoding="utf-8")
    assert main(["record", "--embedded", "--force", "old.jsonl", "Hello"]) == 1
    assert capsys.readouterr().err == "error: old.jsonl: No space left on device\n"
    assert (tmp_path / "old.jsonl").read_text(encoding="utf-8") == "precious"
    assert names_in(tmp_path) == ["old.jsonl"]


def test_a_forced_recording_without_a_connection_keeps_the_old_one(
    monkeypatch: Patch, tmp_path: Path
) -> None:
    path = tmp_path / "old.jsonl"
    path.write_text("precious", encoding="utf-8")
    monkeypatch.setattr(sys, "stdin", io.StringIO(""))
    url = ["--base-url", "http://[::1]:1/v1"]
    assert main(["chat", *url, "--record", str(path), "--force"]) == 1
    assert path.read_text(encoding="utf-8") == "precious"
    assert names_in(tmp_path) == ["old.jsonl"]


def test_a_discarded_file_leaves_nothing(tmp_path: Path) -> None:
    replacement = Replacement(str(tmp_path / "new"))
    replacement.file.write(b"half")
    replacement.discard()
    assert names_in(tmp_path) == []


# --- Reading -----------------------------------------------------------------------------

DEEP = "[" * 5000 + "]" * 5000
UNUSABLE: dict[str, bytes] = {
    "binary": b"\x7fELF\x00\xff\n\x80",
    "empty": b"",
    "nested checkpoint": f'{CHECKPOINT}[{{"type":"message","x":{DEEP}}}]}}'.encode(),
    "nested settings": f'{CHECKPOINT}[],"settings":{{"x":{DEEP}}}}}'.encode(),
    "nested": DEEP.encode(),
    "wrong types": f'{CHECKPOINT}"text"}}'.encode(),
    "items that are no objects": f"{CHECKPOINT}[1,2]}}".encode(),
    "an array": b"[]",
}


@NO_WAITING
@pytest.mark.parametrize("kind", UNUSABLE)
async def test_loading_an_unusable_file_is_an_error_line(
    kind: str, server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    path.write_bytes(UNUSABLE[kind])
    renderer = await talk(server, "Hello", f"/load {path}", "And you?")
    assert len(renderer.lines_of("error")) == 1
    assert renderer.lines_of("text")[-1] == 'Turn 2: you said "And you?".'


@pytest.mark.parametrize("kind", UNUSABLE)
def test_starting_with_an_unusable_file_is_one_line_on_stderr(
    kind: str, capsys: Capture, monkeypatch: Patch, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    path.write_bytes(UNUSABLE[kind])
    monkeypatch.setattr(sys, "stdin", io.StringIO("Hello\n"))
    assert main(["chat", "--embedded", "--load", str(path)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


CUT_OFF = (OPENING + DEEP).encode()
NESTED_FRAME = f'{{"t":0,"dir":"send","frame":{{"type":"response.create","x":{DEEP}}}}}\n'


@pytest.mark.parametrize(
    "content",
    [*UNUSABLE.values(), NESTED_FRAME.encode(), CUT_OFF, b'{"t":"x","dir":5}\n'],
)
def test_replaying_an_unusable_file_is_one_line_on_stderr(
    content: bytes, capsys: Capture, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    path.write_bytes(content)
    # A last line that is cut is left out: then only the address cannot be used.
    code = 1 if content == CUT_OFF else 2
    assert main(["replay", str(path), "--port", "1", "--host", "256.0.0.0"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("error: ")
    assert err.count("\n") == 1


def test_a_huge_file_is_not_read(monkeypatch: Patch, tmp_path: Path) -> None:
    monkeypatch.setattr(files, "MAX_READ", 2**20)
    path = tmp_path / "huge"
    path.write_bytes(b"")
    os.truncate(path, 2**20 + 1)
    with pytest.raises(ConfigurationError, match=r"huge is larger than 1 MiB: not read"):
        read_file(str(path))


@NO_WAITING
async def test_a_loaded_setting_that_cannot_be_sent_does_not_end_the_chat(
    server: ResponsesServer, tmp_path: Path
) -> None:
    path = tmp_path / "it"
    settings: list[Any] = ['{"model":"m","type":"x"}', '{"model":5}', '{"model":"m","tools":"x"}']
    for each in settings:
        text = (
            f'{{"format":"trio-responses conversation","version":1,"items":[],"settings":{each}}}'
        )
        path.write_text(text, encoding="utf-8")
        renderer = await talk(server, f"/load {path}", "Hello", "/reset")
        assert renderer.lines_of("note")[-1] == "a new conversation starts"
