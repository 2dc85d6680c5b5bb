"""Parse docstrings: the description of a function and of its parameters, in three styles.

reST fields (``:param x: ...``), Google sections (``Args:``) and NumPy sections (``Parameters``
underlined) are recognised by their marks, in one pass. The text before the first of them describes
the function. Types in a docstring are ignored: types come from annotations.
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

REST_FIELD = re.compile(r":(?P<field>\w+)(?:[ ]+(?P<argument>[^:]*))?:(?:\s+(?P<text>.*))?$")
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
    """A parsed docstring.

    :ivar text: the text before the first field or section.
    :ivar parameters: the description of each described parameter, by name.
    """

    text: str
    parameters: dict[str, str]


class Section(NamedTuple):
    """Consecutive lines of a docstring: the leading text, one reST field, or one section's body.

    :ivar kind: ``text``, ``rest``, ``google``, ``numpy``, or ``other`` for a section without
        parameters.
    """

    kind: str
    lines: list[str]


def parse_docstring(docstring: str | None) -> Docstring:
    """Parse a docstring. Any text is accepted: unrecognised lines are part of the description.

    :param docstring: the text without its margin, as `inspect.getdoc` returns it.
    """
    lines = (docstring or "").splitlines()
    text = ""
    parameters: dict[str, str] = {}
    for section in _split_sections(lines):
        match section.kind:
            case "text":
                text = "\n".join(section.lines).strip()
            case "rest":
                _parse_rest_field(section.lines, parameters)
            case "google":
                _parse_entries(section.lines, GOOGLE_ENTRY, parameters)
            case "numpy":
                _parse_entries(section.lines, NUMPY_ENTRY, parameters)
            case _:
                pass
    return Docstring(text, {name: each for name, each in parameters.items() if each})


def _split_sections(lines: Sequence[str]) -> Iterator[Section]:
    """Yield the sections of a docstring in order; the first is the leading text."""
    section = Section("text", [])
    for number, line in enumerate(lines):
        kind = _starting_section(lines, number)
        if kind is None:
            section.lines.append(line)
            continue
        yield section
        section = Section(kind, [line] if kind == "rest" else [])
    yield section


def _starting_section(lines: Sequence[str], number: int) -> str | None:
    """Return the kind of section that starts at a line; `None` if none starts there."""
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


def _parse_rest_field(lines: Sequence[str], parameters: dict[str, str]) -> None:
    """Add the parameter that a reST field describes; other fields are skipped."""
    field = REST_FIELD.match(lines[0])
    argument = ((field["argument"] or "") if field else "").split()
    if field and argument and field["field"] in REST_PARAMETERS:
        text = [field["text"] or "", *_indented(lines[1:])]
        parameters[argument[-1].lstrip("*\\")] = _join(text)


def _indented(lines: Sequence[str]) -> Iterator[str]:
    """Yield the lines up to the first that is not indented, where a reST field ends."""
    for line in lines:
        if line and not line[0].isspace():
            return
        yield line


def _parse_entries(
    lines: Sequence[str], entry: re.Pattern[str], parameters: dict[str, str]
) -> None:
    """Add the parameters that a section describes; a line with a deeper indent continues one."""
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
    parameters |= {name: _join(description) for name, description in found.items()}


def _indent(line: str) -> int:
    return len(line) - len(line.lstrip())


def _join(lines: Sequence[str]) -> str:
    return "\n".join(line.strip() for line in lines).strip()
