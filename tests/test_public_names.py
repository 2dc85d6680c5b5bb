"""The public names, as `data/public_names.json` lists them, and where names that moved are now."""

from __future__ import annotations

import json
from importlib import import_module
from pathlib import Path

import pytest

DATA = json.loads((Path(__file__).parent / "data" / "public_names.json").read_text("utf-8"))
PUBLIC: dict[str, list[str]] = DATA["public"]
MOVED: dict[str, str] = DATA["moved"]


@pytest.mark.parametrize("module", PUBLIC)
def test_a_public_module_has_the_listed_names(module: str) -> None:
    """Adding or removing a public name is deliberate: the list changes with it."""
    home = import_module(module)
    assert sorted(home.__all__) == PUBLIC[module]
    assert all(hasattr(home, name) for name in home.__all__)


@pytest.mark.parametrize("old", MOVED)
def test_a_moved_name_is_where_the_list_says(old: str) -> None:
    module, _, name = MOVED[old].rpartition(".")
    assert name in import_module(module).__all__
