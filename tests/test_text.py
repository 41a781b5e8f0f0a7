"""Tables for the terminal and for spreadsheets, and names that were nearly right."""

from distill.text import Table, aligned, csv_text, nearest


def test_aligned():
    rows = [("pair", "x", "long head"), ("P3", "1.25", ""), ("model.16", "", "7")]
    assert aligned(rows).split("\n") == [
        "pair         x  long head",
        "P3        1.25",
        "model.16                7",
    ]


def test_aligned_without_rows():
    assert aligned([]) == ""


def test_an_ending_that_all_have_is_no_similarity():
    names = ["yolov9e.pt", "yolo11n.pt", "best.pt"]
    assert nearest("nope.pt", names, ending=".pt") == ""
    assert nearest("yolo11.pt", names, ending=".pt").startswith("; nearest: 'yolo11n.pt'")
    assert nearest("nope.pt", names) != ""


def test_a_table_has_its_note_below():
    assert str(Table([("a", "b"), ("c", "1")], "of something")) == "a  b\nc  1\n(of something)"
    assert str(Table([("a",)])) == "a"


def test_cells_of_a_csv_run_no_formula_and_break_no_line():
    assert csv_text([("name", "x"), ("=1+1", 0.12345678), ("a\nb", None)]) == "name,x\n'=1+1,0.123457\na b,\n"
