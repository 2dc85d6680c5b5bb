"""What a docstring says of a function and of its parameters, in the three common styles.

reST fields (``:param x: ...``), Google sections (``Args:``) and NumPy sections (``Parameters``
underlined) are read in one pass, as each is known by its own marks. The text before the first of
them describes the function.

What belongs elsewhere: types. They come from annotations only.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

__all__ = ["Docstring", "parse_docstring"]

PARAMETERS = frozenset(
    {
        "args",
        "arguments",
        "keyword args",
        "keyword arguments",
        "other parameters",
        "parameters",
        "params",
    }
)
SECTIONS = PARAMETERS | {
    "attributes",
    "example",
    "examples",
    "note",
    "notes",
    "raises",
    "references",
    "return",
    "returns",
    "see also",
    "warning",
    "warnings",
    "warns",
    "yield",
    "yields",
}

REST_FIELD = re.compile(r":(?P<field>\w+)(?:[ ]+(?P<words>[^:]*))?:(?:\s+(?P<text>.*))?$")
REST_PARAMETERS = frozenset({"param", "parameter", "arg", "argument", "key", "keyword"})
REST_FIELDS = REST_PARAMETERS | {
    "except",
    "exception",
    "meta",
    "raise",
    "raises",
    "return",
    "returns",
    "rtype",
    "type",
    "yield",
    "yields",
}
GOOGLE_HEADER = re.compile(r"(?P<name>[A-Za-z][A-Za-z ]*):\s*$")
GOOGLE_ENTRY = re.compile(r"\*{0,2}(?P<name>\w+)\s*(?:\([^:]*\))?\s*:(?:\s+|$)(?P<text>.*)$")
NUMPY_RULE = re.compile(r"-{3,}\s*$")
NUMPY_ENTRY = re.compile(r"(?P<names>\*{0,2}\w+(?:\s*,\s*\*{0,2}\w+)*)\s*(?::.*)?$")


class Docstring(NamedTuple):
    """What a docstring says.

    :ivar text: what stands before the first field or section.
    :ivar parameters: the description of each parameter that has one.
    """

    text: str
    parameters: dict[str, str]


class Section(NamedTuple):
    """A run of lines: the text at the beginning, one reST field, or what is under a header."""

    kind: str
    lines: list[str]


def parse_docstring(docstring: str | None) -> Docstring:
    """Read a docstring; whatever is in it, something is made of it.

    :param docstring: without its margin, as `inspect.getdoc` gives it.
    """
    lines = (docstring or "").splitlines()
    text = ""
    parameters: dict[str, str] = {}
    for section in _sections(lines):
        match section.kind:
            case "text":
                text = "\n".join(section.lines).strip()
            case "rest":
                _read_rest(section.lines, parameters)
            case "google":
                _read_entries(section.lines, GOOGLE_ENTRY, parameters)
            case "numpy":
                _read_entries(section.lines, NUMPY_ENTRY, parameters)
            case _:
                pass
    return Docstring(text, {name: words for name, words in parameters.items() if words})


def _sections(lines: Sequence[str]) -> Iterator[Section]:
    section = Section("text", [])
    for number, line in enumerate(lines):
        kind = _kind_of_section(lines, number)
        if kind is None:
            section.lines.append(line)
            continue
        yield section
        section = Section(kind, [line] if kind == "rest" else [])
    yield section


def _kind_of_section(lines: Sequence[str], number: int) -> str | None:
    """Say which kind of section a line begins: ``rest``, ``google``, ``numpy`` or ``other``."""
    line = lines[number]
    following = lines[number + 1] if number + 1 < len(lines) else ""
    if (field := REST_FIELD.match(line)) and field["field"] in REST_FIELDS:
        return "rest"
    name = line.strip().lower()
    if NUMPY_RULE.match(following) and name in SECTIONS:
        return "numpy" if name in PARAMETERS else "other"
    header = GOOGLE_HEADER.match(line)
    if header and header["name"].lower() in SECTIONS and following.startswith((" ", "\t")):
        return "google" if header["name"].lower() in PARAMETERS else "other"
    return None


def _read_rest(lines: Sequence[str], parameters: dict[str, str]) -> None:
    field = REST_FIELD.match(lines[0])
    words = ((field["words"] or "") if field else "").split()
    if field and words and field["field"] in REST_PARAMETERS:
        text = [field["text"] or "", *_until_blank(lines[1:])]
        parameters[words[-1].lstrip("*\\")] = _joined(text)


def _until_blank(lines: Sequence[str]) -> Iterator[str]:
    """Give the lines of a field: to a text that is not indented, which is not part of it."""
    for line in lines:
        if line and not line[0].isspace():
            return
        yield line


def _read_entries(lines: Sequence[str], entry: re.Pattern[str], parameters: dict[str, str]) -> None:
    """Read the entries of a section; lines that are indented deeper go on with an entry."""
    margin = min((_indent(line) for line in lines if line.strip()), default=0)
    names: list[str] = []
    found: dict[str, list[str]] = {}
    for line in lines:
        at_margin = bool(line.strip()) and _indent(line) == margin
        if at_margin and (match := entry.match(line.strip())):
            groups = match.groupdict()
            names = re.findall(r"\w+", groups.get("names") or groups["name"])
            found |= {name: [groups.get("text") or ""] for name in names}
        else:
            for name in names:
                found[name].append(line)
    parameters |= {name: _joined(words) for name, words in found.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _joined(lines: Sequence[str]) -> str:
    return "\n".join(line.strip() for line in lines).strip()
