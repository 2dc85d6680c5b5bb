"""Check that each relative link in the Markdown files leads to a file and to a heading in it.

Sphinx checks the links in docstrings when it builds the site.
"""

from __future__ import annotations

import re
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
LINK = re.compile(r"\[[^\]]*\]\((?!https?:|mailto:)([^)#\s]*)(?:#([^)\s]*))?\)")
FENCE = re.compile(r"^(```+|~~~+).*?^\1", re.DOTALL | re.MULTILINE)
HEADING = re.compile(r"^#+ +(.*?) *$", re.MULTILINE)


def main() -> int:
    """Print the broken links and return the exit status: 1 for a broken link."""
    pages = [*ROOT.glob("*.md"), *(ROOT / "docs").rglob("*.md")]
    pages = [page for page in pages if "_build" not in page.parts]
    broken = [
        f"{page.relative_to(ROOT)}: {target}{f'#{anchor}' if anchor else ''}"
        for page in pages
        for target, anchor in LINK.findall(prose(page))
        if not leads_somewhere(page, target, anchor)
    ]
    print(*broken, f"{len(pages)} pages, {len(broken)} broken links", sep="\n")
    return 1 if broken else 0


def leads_somewhere(page: Path, target: str, anchor: str) -> bool:
    """Whether the file of a link exists, and has the heading of the link."""
    path = page.parent / target if target else page
    if not path.exists():
        return False
    return not anchor or path.suffix != ".md" or anchor in anchors(path)


@cache
def prose(page: Path) -> str:
    """Return the text of a page without its code blocks."""
    return FENCE.sub("", page.read_text(encoding="utf-8"))


@cache
def anchors(page: Path) -> frozenset[str]:
    """Return the headings of a page in the form of link anchors."""
    texts = (re.sub(r"[^\w\- ]", "", title.lower()) for title in HEADING.findall(prose(page)))
    return frozenset(text.replace(" ", "-") for text in texts)


if __name__ == "__main__":
    sys.exit(main())
