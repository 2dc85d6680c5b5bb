"""The Sphinx configuration of the documentation.

``nox -s docs`` builds the site without a network, and every warning is an error. Links to Python,
Trio and msgspec are resolved from the lists in ``inventories/``. The reference is made from
docstrings by the extension ``public_names.py``.
"""

from __future__ import annotations

import os
import re
import sys
import zlib
from importlib.metadata import version as version_of
from pathlib import Path
from typing import TYPE_CHECKING

from pygments.lexers.python import PythonLexer

if TYPE_CHECKING:
    from sphinx.application import Sphinx

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))

project = "trio-responses"
author = "The trio-responses developers"
project_copyright = author
release = version = version_of("trio-responses")

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx_copybutton",
    "sphinxcontrib_trio",
    "public_names",
]
root_doc = "index"
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore = [  # type variables, and names in signatures that are not public
    *(
        ("py:class", f"{module}{name}")
        for module in (
            "",
            "trio_responses._tools.parsing.",
            "trio_responses._conversation.conversation.",
            "trio_responses._conversation.run.",
            "trio_responses._json_types.json_type.",
            "trio_responses._tools.function.",
            "trio_responses._turn.methods.",
            "trio_responses._turn.responses.",
            "trio_responses._turn.stream.",
        )
        for name in ("T", "P", "R", "Dependencies")
    ),
    ("py:class", "trio_responses._json_types.adapter.T_co"),
    ("py:class", "MeterProvider"),
    ("py:class", "TracerProvider"),
    ("py:class", "InputList"),
    ("py:class", "ReplyOptions"),
    ("py:class", "trio_responses._tools.context.CallContext"),
    ("py:class", "trio_responses.testing._scripts.Recorded"),
    ("py:obj", "encode_output"),
]
suppress_warnings = ["ref.python"]  # ``type[T]`` is the builtin, not a field of that name

html_theme = "furo"
html_title = f"trio-responses {release}"
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_copy_source = False
html_show_sourcelink = False
templates_path: list[str] = []

default_role = "py:obj"  # single backticks in docstrings are references, as in Trio
add_module_names = False
python_use_unqualified_type_names = True
maximum_signature_line_length = 88
toc_object_entries_show_parents = "hide"
autodoc_use_legacy_class_based = True  # sphinxcontrib-trio extends those classes
autodoc_preserve_defaults = True
autodoc_member_order = "bysource"

# Not for what a block prints.
copybutton_selector = "div:not(.highlight-output) > div.highlight > pre"

# Links to a page in chats and social networks are shown as cards. A card contains the address of
# the site, so that only a build for a known site has them: it needs the extra "site".
ogp_site_url = os.environ.get("READTHEDOCS_CANONICAL_URL", "")
if ogp_site_url:
    extensions.append("sphinxext.opengraph")
ogp_site_name = project
ogp_social_cards = {"line_color": "#1f6fb2"}

myst_enable_extensions = ["deflist"]
myst_heading_anchors = 3


def inventory(name: str) -> str:
    """Write an inventory for Sphinx from ``inventories/<name>.txt`` and return its path.

    A line is ``<name> <domain>:<role> <page>``; the anchor is the name, or ``module-<name>``.
    """
    lines: list[str] = []
    for line in (HERE / "inventories" / f"{name}.txt").read_text(encoding="utf-8").splitlines():
        thing, role, page = line.split()
        anchor = "module-$" if role == "py:module" else "$"
        lines.append(f"{thing} {role} 1 {page}#{anchor} -\n")
    path = HERE / "_build" / "inventories" / f"{name}.inv"
    path.parent.mkdir(parents=True, exist_ok=True)
    head = f"# Sphinx inventory version 2\n# Project: {name}\n# Version:\n"
    head += "# The remainder of this file is compressed using zlib.\n"
    path.write_bytes(head.encode() + zlib.compress("".join(lines).encode()))
    return str(path)


intersphinx_mapping = {
    "python": ("https://docs.python.org/3", inventory("python")),
    "trio": ("https://trio.readthedocs.io/en/stable", inventory("trio")),
    "msgspec": ("https://jcristharif.com/msgspec", inventory("msgspec")),
}


# The site includes the pages at the root of the repository: links must work in both places.
AT_THE_ROOT = {"README": "index", "CHANGELOG": "changelog", "SECURITY": "security"}
LINK_TO_THE_ROOT = re.compile(r"\]\(((?:\.\./)*)\.\./(README|CHANGELOG|SECURITY)\.md")


def lead_to_pages(_app: Sphinx, _name: str, content: list[str]) -> None:
    """Replace links to pages at the root of the repository with links to pages of the site."""
    content[0] = LINK_TO_THE_ROOT.sub(
        lambda found: f"]({found[1]}{AT_THE_ROOT[found[2]]}.md", content[0]
    )


def setup(app: Sphinx) -> None:
    """Register the event handler with Sphinx."""
    app.connect("source-read", lead_to_pages)
    app.add_lexer("ipython", PythonLexer)  # IPython has the lexer of this name, if it is installed
