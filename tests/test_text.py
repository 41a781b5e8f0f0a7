"""Tables for the terminal."""

from distill.text import aligned


def test_aligned():
    rows = [("pair", "x", "long head"), ("P3", "1.25", ""), ("model.16", "", "7")]
    assert aligned(rows).split("\n") == [
        "pair         x  long head",
        "P3        1.25",
        "model.16                7",
    ]


def test_aligned_without_rows():
    assert aligned([]) == ""
