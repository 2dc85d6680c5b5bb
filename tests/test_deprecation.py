"""Old names: they work, and warn where they are used."""

from __future__ import annotations

import sys
from types import ModuleType
from typing import Any

import pytest

from trio_responses._deprecation import deprecated, renamed

MESSAGE = "ask() will be removed in 0.4.0: use create()"


@deprecated(MESSAGE)
def ask(text: str, *, twice: bool = False) -> str:
    """Return the text."""
    return text * (1 + twice)


@deprecated(MESSAGE)
async def ask_later(text: str) -> str:
    return text


def test_an_old_function_works_and_warns_at_its_caller() -> None:
    with pytest.warns(DeprecationWarning, match="use create") as caught:
        assert ask("a", twice=True) == "aa"  # pyright: ignore[reportDeprecated]
    assert [warning.filename for warning in caught] == [__file__]
    assert (ask.__name__, ask.__doc__) == ("ask", "Return the text.")  # pyright: ignore[reportDeprecated]


async def test_an_old_async_function_works_and_warns_at_its_caller() -> None:
    with pytest.warns(DeprecationWarning, match="use create") as caught:
        assert await ask_later("a") == "a"  # pyright: ignore[reportDeprecated]
    assert [warning.filename for warning in caught] == [__file__]


@pytest.fixture
def module(monkeypatch: pytest.MonkeyPatch) -> Any:
    made: Any = ModuleType("a_module")
    made.NewName = object()
    made.__getattr__ = renamed("a_module", {"OldName": ("NewName", "0.4.0")})
    monkeypatch.setitem(sys.modules, "a_module", made)
    return made


def test_an_old_name_of_a_module_is_the_new_one_and_warns(module: Any) -> None:
    with pytest.warns(
        DeprecationWarning, match=r"a_module.OldName is now NewName.*0\.4\.0"
    ) as caught:
        assert module.OldName is module.NewName
    assert [warning.filename for warning in caught] == [__file__]


def test_a_name_that_never_existed_is_an_attribute_error(module: Any) -> None:
    with pytest.raises(AttributeError, match="'a_module' has no attribute 'Other'"):
        _ = module.Other
