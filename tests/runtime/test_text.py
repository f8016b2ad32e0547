"""What is shown of text, and tables of it."""

from sfpp.runtime.text import aligned, clean_text


def test_what_is_no_text_is_replaced():
    assert clean_text("a\x00b\x1bc\u202ed\udcffe\tf\u00e9\u4e2d") == "a\ufffdb\ufffdc\ufffdd\ufffde\tf\u00e9\u4e2d"


def test_numbers_of_a_table_end_together():
    rows = [["file", "drop", "MB"], ["a", "-0.25", "4.3"], ["longer", "", "15.0"]]
    assert aligned(rows) == ["file     drop    MB", "a       -0.25   4.3", "longer         15.0"]
    assert aligned([["a", "b", "1"], ["aa", "bb", ""]], text_columns=2) == ["a   b   1", "aa  bb"]
