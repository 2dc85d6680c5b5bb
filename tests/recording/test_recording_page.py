"""The examples in the pages on instruments and recordings run, and the lists are complete."""

from __future__ import annotations

from inspect import getmembers, isfunction
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from tests.docs_pages import Page
from trio_responses import Instrument
from trio_responses.typing import RecordingLine

if TYPE_CHECKING:
    from collections.abc import Iterable

DOCS = Path(__file__).resolve().parent.parent.parent / "docs"


@pytest.mark.parametrize(("page", "blocks"), [("instruments.md", 5), ("recording.md", 4)])
def test_the_examples_of_the_page_run(
    page: str, blocks: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Page(DOCS / page, monkeypatch).run() == blocks


def named(page: str, words: Iterable[str]) -> list[str]:
    text = (DOCS / page).read_text(encoding="utf-8")
    return [word for word in words if f"`{word}" in text]


def test_the_page_has_every_hook_and_every_field() -> None:
    hooks = [name for name, _ in getmembers(Instrument, isfunction) if name[0] != "_"]
    assert named("instruments.md", hooks) == hooks
    fields = list(RecordingLine.__struct_fields__)
    assert named("recording.md", fields) == fields
