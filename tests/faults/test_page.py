"""docs/faults.md is what the matrix says."""

from docs.make_faults import PAGE, page


def test_the_page_is_what_the_table_says() -> None:
    assert PAGE.read_text(encoding="utf-8") == page(), "run docs/make_faults.py"
