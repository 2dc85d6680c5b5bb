"""Warnings for public names that will be removed (docs/stability.md).

`deprecated` is the decorator of PEP 702: a call of what it decorates warns, and editors and type
checkers mark the call. `renamed` does the same for a class or a constant of a module. Python shows
a `DeprecationWarning` that code in ``__main__`` causes; pytest shows all of them.
"""

from __future__ import annotations

import sys
import warnings
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

P = ParamSpec("P")
R = TypeVar("R")

if sys.version_info >= (3, 13):
    from warnings import deprecated
elif TYPE_CHECKING:
    from typing_extensions import deprecated
else:
    from functools import wraps

    def deprecated(message: str) -> Callable[[Callable[P, R]], Callable[P, R]]:
        """Return a decorator that makes each call of a function warn.

        The function may be async, or return an async context manager: the call itself warns.

        :param message: what to say: the old name, the version that removes it, and the new name.
        """

        def decorate(function: Callable[P, R]) -> Callable[P, R]:
            @wraps(function)
            def warn_and_call(*args: P.args, **kwargs: P.kwargs) -> R:
                warnings.warn(message, DeprecationWarning, stacklevel=2)
                return function(*args, **kwargs)

            warn_and_call.__deprecated__ = message
            return warn_and_call

        return decorate


__all__ = ["deprecated", "renamed"]


def renamed(module: str, names: Mapping[str, tuple[str, str]]) -> Callable[[str], Any]:
    """Return a ``__getattr__`` for a module, with which the old names of its contents still work.

    :param module: the ``__name__`` of the module.
    :param names: for each old name the new one, and the version that removes the old one.
    """

    def get_attribute(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {module!r} has no attribute {name!r}")
        new, removed_in = names[name]
        warnings.warn(
            f"{module}.{name} is now {new}; the old name will be removed in {removed_in}",
            DeprecationWarning,
            stacklevel=2,
        )
        return getattr(sys.modules[module], new)

    return get_attribute
