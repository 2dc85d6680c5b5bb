"""The code blocks of the pages in docs/recipes, for tests that run them."""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pytest

RECIPES = Path(__file__).resolve().parents[2] / "docs" / "recipes"


def blocks(page: str, language: str = "python") -> list[str]:
    """Return the code blocks of a page in one language."""
    text = (RECIPES / page).read_text(encoding="utf-8")
    return re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)


def load(page: str, monkeypatch: pytest.MonkeyPatch, *, number: int = 0) -> ModuleType:
    """Run a Python block of a page as the module ``app`` and return the module.

    The module stays in ``sys.modules`` for the test: frameworks look up annotations there.
    """
    module = ModuleType("app")
    monkeypatch.setitem(sys.modules, "app", module)
    exec(compile(blocks(page)[number], page, "exec"), module.__dict__)  # noqa: S102 - our own page
    return module
