"""Docstrings in the three styles are parsed, and any other text is the description."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from trio_responses._tools.docstrings import parse_docstring

REST = """Find a flight.

    Of one airline: not of all.

    :param str origin: where from,
        as a code
    :param goal: where to
    :type goal: str
    :param silent:
    :param \\*\\*rest: others
    :keyword seats:
        how many
    :returns: a flight
    :raises ValueError: if there is none
    """
GOOGLE = """
    Find a flight.

    Note this: it is slow.

    Args:
        origin (str, optional): where from,
            as a code
        goal: where to: a city
        silent:

        *rest: others

    Keyword Args:
        seats: how many

    Returns:
        origin: a flight
    """
NUMPY = """Find a flight.

    Parameters
    ----------
    origin : str, optional
        where from,
        as a code
    goal, stop
        where to
    silent : int

    Other Parameters
    ----------------
    seats: int
        how many

    Returns
    -------
    origin
        a flight
    """


@pytest.mark.parametrize(
    ("docstring", "text", "more"),
    [
        (
            REST,
            "Find a flight.\n\nOf one airline: not of all.",
            {"goal": "where to", "rest": "others"},
        ),
        (
            GOOGLE,
            "Find a flight.\n\nNote this: it is slow.",
            {"goal": "where to: a city", "rest": "others"},
        ),
        (NUMPY, "Find a flight.", {"goal": "where to", "stop": "where to"}),
    ],
    ids=["reST", "Google", "NumPy"],
)
def test_each_style_has_a_description_and_parameters(
    docstring: str, text: str, more: dict[str, str]
) -> None:
    found = parse_docstring(inspect.cleandoc(docstring))
    assert found.text == text
    assert found.parameters == {"origin": "where from,\nas a code", "seats": "how many", **more}


@pytest.mark.parametrize("docstring", [None, "", "  \n "])
def test_an_empty_docstring_has_no_description(docstring: str | None) -> None:
    assert parse_docstring(docstring) == ("", {})


@pytest.mark.parametrize(
    "text",
    [
        "Args: this is a sentence.",
        "Args:",
        "Args:\nnot indented",
        "Steps:\n    one: two",
        "A list:\n\n---",
        ":unknown: field",
        "a :param x: inside",
    ],
)
def test_text_that_resembles_a_section_is_part_of_the_description(text: str) -> None:
    assert parse_docstring(text) == (text, {})


def test_a_field_ends_at_the_first_line_without_indent() -> None:
    found = parse_docstring(
        "Do it.\n\n:param x: first\n  more\nAnd this is none of it.\n  Nor this."
    )
    assert found.parameters == {"x": "first\nmore"}


def test_a_field_without_a_name_is_ignored() -> None:
    assert parse_docstring(":param: x\n:param\n:raises: y") == ("", {})


def test_lines_before_the_first_entry_are_ignored() -> None:
    found = parse_docstring("Do.\n\nArgs:\n    !! these are\n    x: one\n")
    assert found == ("Do.", {"x": "one"})


@given(st.text(alphabet=st.sampled_from(":-* \n\taxA(),rgspm"), max_size=80))
def test_any_text_is_parsed(text: str) -> None:
    found = parse_docstring(f"Args:\n  x: y\n{text}\n:param z: {text}\nParameters\n----\n{text}")
    assert all(found.parameters.values())
