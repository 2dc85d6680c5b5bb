"""The directive of the reference, and what makes the docstrings of this package readable there.

A page lists names, and Sphinx's autodoc writes them out by what they are::

    ```{names} trio_responses
    Endpoint ApiKey Headers
    ```

A record of the wire says its ``type``; an alias has the docstring that stands below it in the
source.

What belongs elsewhere: signatures (`signatures.py`), the settings of the site (`conf.py`).
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

import trio_responses.testing

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from docutils import nodes
    from sphinx.addnodes import pending_xref
    from sphinx.application import Sphinx
    from sphinx.environment import BuildEnvironment

HOMES = ("trio_responses", "trio_responses.testing")
SHORT = 200
"""Characters of an alias that is shown as the source has it."""
MANY = 60
"""Records of a union that are not listed one by one."""
SCOPES = re.compile(r"(ResponseStream|AbstractAsyncContextManager\b.*)")
"""What functions return that are for ``async with``."""
ELSEWHERE = {
    "AbstractAsyncContextManager": "contextlib.AbstractAsyncContextManager",
    "JSON": "typing.Any",
    "Json": "typing.Any",
    "Raw": "msgspec.Raw",
    "UnsetType": "msgspec.UnsetType",
}
"""Where names that modules import on their own are from."""


class Names(SphinxDirective):
    """Documents the public names that it lists, in that order."""

    required_arguments = 1
    has_content = True

    def run(self) -> list[nodes.Node]:
        """Write an autodoc directive for each name, in a page of Markdown."""
        home = self.arguments[0]
        lines = [f".. py:currentmodule:: {home}", ""]
        for name in " ".join(self.content).split():
            thing = getattr(importlib.import_module(home), name)
            kind = kind_of(thing)
            lines += [f".. auto{kind}:: {home}.{name}"]
            lines += ["   :no-value:"] if kind == "data" else []
            lines += ["   :members:"] if kind == "class" else []
            lines += ["   :inherited-members:"] if shows_inherited(thing) else []
            lines += ["   :members:", "   :show-inheritance:"] if kind == "exception" else []
            lines += [""]
        source = self.get_source_info()[0]
        page = ["```{eval-rst}", *lines, "```"]
        return self.parse(StringList(page, source))

    def parse(self, content: StringList) -> list[nodes.Node]:
        """Parse lines as if they stood in the page."""
        self.content = content
        return self.parse_content_to_nodes(allow_section_headings=False)


def kind_of(thing: object) -> str:
    """Say which directive of autodoc is for a thing."""
    if isinstance(thing, type):
        return "exception" if issubclass(thing, BaseException) else "class"
    return "function" if inspect.isfunction(thing) else "data"


def shows_inherited(thing: object) -> bool:
    """Whether the members of its bases are shown with a class: those bases are not public."""
    return isinstance(thing, type) and not issubclass(thing, BaseException | Enum | msgspec.Struct)


# --- Docstrings ------------------------------------------------------------------------------


def modules_behind(package: ModuleType) -> list[ModuleType]:
    """Give the modules of the distribution that are loaded with a package."""
    root = package.__name__.partition(".")[0]
    return [module for name, module in sys.modules.items() if name.split(".")[0] == root]


@cache
def alias_docstrings() -> dict[str, list[str]]:
    """Collect the docstrings that stand below names of modules."""
    found: dict[str, list[str]] = {}
    for module in modules_behind(trio_responses.testing):
        analyzer = ModuleAnalyzer.for_module(module.__name__)
        analyzer.analyze()
        found |= {name: doc for (scope, name), doc in analyzer.attr_docs.items() if not scope}
    return found


INTERNAL = {
    "Lane.begin_turn",
    "Lane.leave_turn",
    "Lane.steer",
    "ResponsesError.twin",
    "RotationPolicy.age_for",
    "Script.fits",
    "Script.steps_at",
    "SteerReceipt.become",
    "SteerReceipt.refuse",
    "Tagged.type",  # said with each record
    "parting",
    "turnstile",
    "unknown",
}
"""Members without an underscore that are there for the package itself."""


def skip_member(
    _app: Sphinx, _what: str, name: str, member: object, _skip: object, _options: object
) -> bool | None:
    """Leave out what is not for users."""
    known_as = getattr(getattr(member, "fget", member), "__qualname__", name)
    return True if known_as in INTERNAL or name in INTERNAL else None


@cache
def aliases_in_source() -> dict[str, str]:
    """Collect what the aliases of the package stand for, as written."""
    found: dict[str, str] = {}
    for module in modules_behind(trio_responses.testing):
        for node in ast.walk(ast.parse(inspect.getsource(module))):
            if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias":
                text = ast.unparse(node.value) if node.value is not None else ""
                found.setdefault(ast.unparse(node.target), text.strip("'"))
    return found


def written_out(name: str, thing: object) -> Iterator[str]:
    """Say what an alias stands for: as the source has it, or the records of a long union."""
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
    """Give an alias its docstring, and say the ``type`` of a wire record."""
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
    """Find a public name that a docstring or an annotation calls by its module's name."""
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
    """Have functions that give something for ``async with`` shown as those that are one."""
    for home in HOMES:
        module = sys.modules[home]
        for owner in [getattr(module, name) for name in module.__all__]:
            for thing in vars(owner).values() if isinstance(owner, type) else ():
                function = getattr(thing, "__func__", thing)
                if inspect.isfunction(function) and SCOPES.match(
                    annotations_in_source(function).get("return", "")
                ):
                    function.__returns_acontextmanager__ = True


def setup(app: Sphinx) -> dict[str, Any]:
    """Register all of it."""
    mark_scopes()
    app.add_directive("names", Names)
    app.connect("autodoc-process-signature", write_signature)
    app.connect("autodoc-process-docstring", write_docstring)
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", resolve, priority=400)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
