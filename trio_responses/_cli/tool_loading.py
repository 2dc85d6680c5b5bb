"""The option ``--tools``: tools of the user's own modules and files.

The current folder can be imported from, as with ``python -m``. A name may stand for a tool, a plain
function, a namespace, or a list of these; a whole module stands for the tools that it has. Every
mistake is a `UsageError`, which has the place of an error that the module itself raised.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import inspect
import re
import sys
import sysconfig
import traceback
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import trio_responses
from trio_responses._cli.running import UsageError
from trio_responses._errors import ConfigurationError
from trio_responses._tools.function import FunctionTool
from trio_responses._tools.namespace import Namespace, find_named_tools
from trio_responses._wire.tools import ToolDefinition

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence
    from types import ModuleType

    from trio_responses._tools.namespace import ToolLike

__all__ = ["load_tools"]

SPEC: Final = re.compile(r"(?P<place>.+?)(?::(?P<name>[^\W\d][\w.]*))?")
MODULE: Final = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*")
FORMS: Final = "use MODULE:FUNCTION, FILE.py:FUNCTION, MODULE:LIST or MODULE"
NOT_OWN: Final = (
    str(Path(trio_responses.__file__).parent),
    *map(sysconfig.get_path, ("stdlib", "purelib", "platlib")),
)
"""The folders of this package, of Python, and of installed packages."""


def load_tools(specs: Iterable[str]) -> tuple[ToolLike, ...]:
    """Return the tools that the values of ``--tools`` name, in order, and each once.

    :param specs: the values of the option; each may have several parts with commas.
    :raises UsageError: when a part names no tool, and when its module cannot be imported.
    """
    parts = [part.strip() for spec in specs for part in spec.split(",")]
    found = {id(tool): tool for part in parts for tool in _load(part)}
    names: set[object] = set()
    for key, _ in find_named_tools(list(found.values())):
        if key in names:
            raise UsageError(f"--tools: two tools have the name {key[1]!r}: rename one of them")
        names.add(key)
    return tuple(found.values())


def _load(part: str) -> Sequence[ToolLike]:
    match = SPEC.fullmatch(part)
    place, name = (match["place"], match["name"]) if match else ("", None)
    is_file = place.endswith(".py") or "/" in place or "\\" in place
    if not is_file and not MODULE.fullmatch(place):
        raise UsageError(f"--tools {part!r} names no tool: {FORMS}")
    if str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    module = _import_file(place) if is_file else _import_module(place)
    if name is None:
        tools = list(_tools_of(module))
        if not tools:
            raise UsageError(
                f"--tools: {place} has no tools: decorate functions with @function_tool"
            )
        return tools
    value: Any = module
    for each in name.split("."):
        if not hasattr(value, each):
            raise UsageError(f"--tools: {place} has no {name!r}{_suggestion(module, name)}")
        value = getattr(value, each)
    values: Sequence[Any] = cast("Any", value) if isinstance(value, list | tuple) else [value]
    return [_as_tool(one, f"{place}:{name}") for one in values]


def _tools_of(module: ModuleType) -> Iterator[ToolLike]:
    """Yield the tools of a module, in the order of their definition."""
    for name, value in vars(module).items():
        if isinstance(value, FunctionTool | Namespace) and not name.startswith("_"):
            yield cast("ToolLike", value)


def _as_tool(value: Any, place: str) -> ToolLike:
    """Return a tool as it is, and a plain function as a tool.

    :raises UsageError: for every other value, and for a function that cannot be a tool.
    """
    if isinstance(value, FunctionTool | Namespace | ToolDefinition):
        return cast("ToolLike", value)
    if isinstance(value, dict):
        return _as_definition(cast("dict[str, Any]", value), place)
    if inspect.isfunction(value) or inspect.ismethod(value):
        try:
            return FunctionTool(value)
        except ConfigurationError as error:
            raise UsageError(f"--tools: {place} cannot be a tool: {error}") from error
    kind = f"the class {value.__name__}" if isinstance(value, type) else type(value).__name__
    raise UsageError(f"--tools: {place} is no tool, but {kind}: name a function, or a list of them")


def _as_definition(value: dict[str, Any], place: str) -> ToolLike:
    if "type" not in value:
        raise UsageError(f'--tools: {place} is no tool: it has no "type"')
    return value


def _suggestion(module: ModuleType, name: str) -> str:
    names = [each for each, value in vars(module).items() if not each.startswith("_") and value]
    close = difflib.get_close_matches(name, names, n=1)
    if close:
        return f": did you mean {close[0]!r}?"
    tools = [each for each in names if isinstance(vars(module)[each], FunctionTool | Namespace)]
    return f": its tools are {', '.join(tools)}" if tools else ""


# --- Importing ---------------------------------------------------------------------------


def _import_module(name: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if not error.name or not f"{name}.".startswith(f"{error.name}."):
            raise _import_error(name, error) from error
        parent, _, last = error.name.rpartition(".")
        files = [file.stem for file in Path.cwd().glob("*.py")]
        close = difflib.get_close_matches(name, files, n=1)
        hint = f"did you mean {close[0]}?" if close else f"it is not installed, nor in {Path.cwd()}"
        if parent in sys.modules:
            hint = f"did you mean {parent}:{last}?"
        raise UsageError(f"--tools: there is no module {error.name!r}: {hint}") from error
    except (Exception, SystemExit) as error:
        raise _import_error(name, error) from error


def _import_file(path: str) -> ModuleType:
    """Import a file as ``python FILE`` finds it: its folder can be imported from, too."""
    file = Path(path).expanduser().resolve()
    if not file.is_file():
        raise UsageError(f"--tools: there is no file {path}")
    loaded = sys.modules.get(file.stem)
    if loaded is not None and getattr(loaded, "__file__", None) == str(file):
        return loaded
    if str(file.parent) not in sys.path:
        sys.path.insert(0, str(file.parent))
    name = file.stem if loaded is None else str(file)  # a module of Python may have the same name
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise UsageError(f"--tools: {path} is no Python file: its name has to end with .py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise _import_error(path, error) from error
    return module


def _import_error(place: str, error: BaseException) -> UsageError:
    """Return the error for a module that raised one, with the place in the user's own code."""
    frames = traceback.extract_tb(error.__traceback__)
    own = [frame for frame in frames if not frame.filename.startswith(("<frozen", *NOT_OWN))]
    where = f" ({own[-1].filename}, line {own[-1].lineno})" if own else ""
    reason = f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
    return UsageError(f"--tools: {place} cannot be imported: {reason}{where}")
