"""A Sphinx extension that documents public names: the ``{names}`` directive of the reference.

A page lists names of one public module, and the directive calls Sphinx's autodoc for each::

    ```{names} trio_responses.typing
    ApiKey Headers
    ```

The extension adds the ``type`` of a protocol record to its docstring, shows the docstring and the
value of an alias, hides the members in `INTERNAL`, and resolves short names in docstrings.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
import sys
from enum import Enum
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

import msgspec
from docutils.statemachine import StringList
from signatures import annotations_in_source, write_signature
from sphinx.pycode import ModuleAnalyzer
from sphinx.util.docutils import SphinxDirective

import trio_responses.otel
import trio_responses.stores
import trio_responses.testing
import trio_responses.types
import trio_responses.typing
from trio_responses._wire.base import JSONText

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

HOMES = (
    "trio_responses",
    "trio_responses.types",
    "trio_responses.typing",
    "trio_responses.stores",
    "trio_responses.testing",
    "trio_responses.otel",
)
"""The public modules, in the order in which a short name is looked up."""
SHORT = 200
"""The number of characters up to which the value of an alias is shown as in the source."""
MANY = 60
"""The number of records from which the members of a union are not listed."""
SCOPES = re.compile(r"(ResponseStream|AbstractAsyncContextManager\b.*)")
"""Matches the return annotations of functions that are used with ``async with``."""
ELSEWHERE = {
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "JSON": "typing.Any",
    "Json": "typing.Any",
    "Raw": "msgspec.Raw",
    "UnsetType": "msgspec.UnsetType",
}
"""Short names in annotations that are not public names of this package, with their full names."""


class Names(SphinxDirective):
    """A directive that documents the listed public names in their order."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Return the nodes of one autodoc directive for each name."""
        home = self.arguments[0]
        lines = [f".. py:currentmodule:: {home}", ""]
        for name in " ".join(self.content).split():
            thing = getattr(importlib.import_module(home), name)
            kind = kind_of(thing)
            lines += [f".. auto{kind}:: {home}.{name}"]
            lines += ["   :no-value:"] if kind == "data" else []
            lines += ["   :members:"] if kind == "class" else []
            lines += ["   :inherited-members:"] if shows_inherited(thing) else []
            hidden = internal_members(thing)
            lines += [f"   :exclude-members: {', '.join(hidden)}"] if hidden else []
            lines += ["   :members:", "   :show-inheritance:"] if kind == "exception" else []
            lines += [""]
        source = self.get_source_info()[0]
        page = ["```{eval-rst}", *lines, "```"]
        return self.parse(StringList(page, source))

    def parse(self, content: StringList) -> list[nodes.Node]:
        """Return the nodes of lines that are parsed as part of the page."""
        self.content = content
        return self.parse_content_to_nodes(allow_section_headings=False)


def kind_of(thing: object) -> str:
    """Return the name of the autodoc directive for an object."""
    if isinstance(thing, type):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if inspect.isfunction(thing) else "data"


def shows_inherited(thing: object) -> bool:
    """Whether a class is shown with the members of its bases, which are not public."""
    hidden = BaseException | Enum | msgspec.Struct | dict
    return isinstance(thing, type) and not issubclass(thing, hidden)


# --- Docstrings ------------------------------------------------------------------------------


def modules_behind(package: ModuleType) -> list[ModuleType]:
    """Return the imported modules of the distribution that a package is part of."""
    root = package.__name__.partition(".")[0]
    return [module for name, module in sys.modules.items() if name.split(".")[0] == root]


@cache
def alias_docstrings() -> dict[str, list[str]]:
    """Return the docstrings below module-level names, by name."""
    found: dict[str, list[str]] = {}
    for module in modules_behind(trio_responses.testing):
        analyzer = ModuleAnalyzer.for_module(module.__name__)
        analyzer.analyze()
        found |= {name: doc for (scope, name), doc in analyzer.attr_docs.items() if not scope}
    return found


INTERNAL = {
    "Item.unknown",
    "Part.unknown",
    "Records.append",
    "Records.count",
    "Records.index",
    "ReplayPolicy.rules",
    "Request.conversation",
    "Response.with_output",
    "ResponsesError.copy_as_unsent",
    "ResponsesError.copy_for_raise",
    "RotationPolicy.age_for",
    "Script.fits",
    "Script.delayed_close",
    "Script.steps_at",
    "SteerReceipt.advance",
    "SteerReceipt.fail",
    "SteerReceipt.request",
}
"""Members without a leading underscore that only the package itself uses, with their class."""


def internal_members(thing: object) -> list[str]:
    """Return the names of the members in `INTERNAL` that a class has or inherits."""
    classes = {each.__name__ for each in thing.__mro__} if isinstance(thing, type) else set()
    members = (each.split(".") for each in sorted(INTERNAL))
    return [member for owner, member in members if owner in classes]


@cache
def aliases_in_source() -> dict[str, str]:
    """Return the values of the type aliases of the package as written in the source, by name."""
    found: dict[str, str] = {}
    for module in modules_behind(trio_responses.testing):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                text = ast.unparse(node.value) if node.value is not None else ""
                found.setdefault(ast.unparse(node.target), text.strip("'"))
    return found


def written_out(name: str, thing: object) -> Iterator[str]:
    """Yield the value of an alias as in the source, or the records of a long union."""
    text = aliases_in_source().get(name, "")
    kinds = get_args(thing)
    if text and "_Known" not in text and len(text) < SHORT:
        yield f"``{text}``"
    elif kinds and len(kinds) < MANY:
        names = [getattr(kind, "__name__", str(kind)) for kind in kinds]
        names += [one for one in ("UnknownItem", "UnknownPart") if one in text]
        yield "One of " + ", ".join(f"`{one}`" for one in dict.fromkeys(names)) + "."
    elif kinds:
        yield f"One of the {len(kinds)} records of this page."


def write_docstring(
    _app: Sphinx, what: str, name: str, thing: object, _options: object, lines: list[str]
) -> None:
    """Add the docstring of an alias, and the ``type`` of a protocol record."""
    short = name.rpartition(".")[2]
    if what == "data":
        lines[:] = [*alias_docstrings().get(short, []), "", *written_out(short, thing)]
    elif what == "class" and isinstance(thing, type) and issubclass(thing, msgspec.Struct):
        tag = thing.__struct_config__.tag
        if isinstance(tag, str):
            lines += ["", f"Its ``type`` is ``{tag}``."]


# --- References ------------------------------------------------------------------------------


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, contnode: nodes.TextElement
) -> nodes.Node | None:
    """Return a link for a public name that is written without its module."""
    if node.get("refdomain") != "py":
        return None
    domain = env.domains["py"]
    short = str(node["reftarget"]).rpartition(".")[2]
    node["reftarget"] = ELSEWHERE.get(node["reftarget"], node["reftarget"])
    for home in HOMES:
        target = f"{home}.{short}"
        if target in domain.objects:  # type: ignore[attr-defined]
            return domain.resolve_xref(
                env,
                str(node["refdoc"]),
                app.builder,
                "obj",
                target,
                node,
                contnode,
            )
    return None


def mark_scopes() -> None:
    """Mark functions that return an async context manager, so that they are shown as such."""
    for home in HOMES:
        module = sys.modules[home]
        for owner in [getattr(module, name) for name in module.__all__]:
            for thing in vars(owner).values() if isinstance(owner, type) else ():
                function = getattr(thing, "__func__", thing)
                if inspect.isfunction(function) and SCOPES.match(
                    annotations_in_source(function).get("return", "")
                ):
                    function.__returns_acontextmanager__ = True


def show_json_text_as_str() -> None:
    """Replace the annotation of fields with JSON text by `str`, which is their type for users."""
    for thing in vars(trio_responses.types).values():
        hints: dict[str, Any] = (
            vars(thing).get("__annotations__", {}) if isinstance(thing, type) else {}
        )
        hints.update({name: str for name, hint in hints.items() if hint == JSONText})


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the directive and the event handlers with Sphinx."""
    mark_scopes()
    show_json_text_as_str()
    app.add_directive("names", Names)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", write_docstring)
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
