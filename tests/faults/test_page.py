"""docs/faults.md is written from the matrix."""

from docs.make_faults import PAGE, page


def test_the_page_shows_the_table() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run docs/make_faults.py"
