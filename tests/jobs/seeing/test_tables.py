"""Tables as files and in the terminal."""

import csv
from pathlib import Path

import pytest

from distill.jobs.seeing.figures import MAP_COLUMNS
from distill.jobs.seeing.object_figures import OBJECT_COLUMNS
from distill.jobs.seeing.tables import SUMMARY_COLUMNS, lines, write_tables
from distill.view.exhibit import Interval, Numbers

NAMES = {  # a class -> its cell
    **{name: name for name in ("disc", "a=1", "a-b", "a,b", 'say "a"', "größe 漢字", "")},
    **{name: f"'{name}" for name in ("=1+1", "+a", "-a", "@a", " =a", "＝a")},
    "\t=a": "' =a",
    "\r=a": "' =a",
    "a\nb": "a b",
    "a\r\nb": "a  b",
}


def read(path: Path) -> list[list[str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.reader(file))


def test_files(tmp_path):
    maps = ({"image": "a", "pair": "P3", "network": "student", "distance": 0.123456789, "cosine": None, "area": 1.0},)
    summary = {"P3": {"student": {"distance": Interval(1234567.0, None, None, 1), "area": Interval(0.5, 0.4, 0.6, 9)}}}
    write_tables(Numbers(maps, (), summary), tmp_path / "new")
    assert sorted(path.name for path in (tmp_path / "new").iterdir()) == ["metrics.csv", "objects.csv", "summary.csv"]
    head, row = read(tmp_path / "new" / "metrics.csv")
    assert head == list(MAP_COLUMNS)
    found = dict(zip(head, row))
    assert (found["distance"], found["cosine"], found["area"], found["image"]) == ("0.123457", "", "1", "a")
    assert read(tmp_path / "new" / "objects.csv") == [list(OBJECT_COLUMNS)]
    assert read(tmp_path / "new" / "summary.csv") == [
        list(SUMMARY_COLUMNS),
        ["P3", "student", "distance", "1.23457e+06", "", "", "1"],
        ["P3", "student", "area", "0.5", "0.4", "0.6", "9"],
    ]


def test_no_name_is_run_as_a_formula(tmp_path):
    rows = tuple(dict.fromkeys(OBJECT_COLUMNS) | {"object": 0, "class": name, "ratio_gap": -0.5} for name in NAMES)
    write_tables(Numbers(objects=rows), tmp_path)
    head, *found = read(tmp_path / "objects.csv")
    assert [row[head.index("class")] for row in found] == list(NAMES.values())
    assert found[0][head.index("ratio_gap")] == "-0.5", "a negative number stays one"


def several(**figures: float) -> dict[str, Interval]:
    return {name: Interval(mean, mean - 0.1, mean + 0.1, 5) for name, mean in figures.items()}


FULL = several(
    distance=0.4, cosine=0.9, shuffled_distance=0.5, untrained_distance=0.7, overlap=0.6, area=0.3, box_ratio=12.34
)


def test_lines():
    networks = {"teacher": several(box_ratio=2.5, area=0.2), "student": FULL, "baseline": several(distance=0.6)}
    text = lines(Numbers(summary={"P3": networks}, silent={"P3": "the distance is what it was " * 5}))
    head, student, baseline, *silent = text.split("\n")
    assert " ".join(head.split()) == (
        "pair network distance 95 % interval other images untrained cosine box ratio teacher's"
    )
    assert " ".join(student.split()) == "P3 student 0.400 0.300 to 0.500 0.500 0.700 0.900 12.3 2.500"
    assert " ".join(baseline.split()) == "P3 baseline 0.600 0.500 to 0.700 2.500"
    assert silent[0].startswith("P3 tells nothing: the distance is")
    assert max(map(len, text.split("\n"))) <= 100


def test_lines_of_a_baseline_that_tells_nothing():
    networks = {"student": several(distance=0.3), "baseline": several(distance=0.4)}
    text = lines(Numbers(summary={"P3": networks}, silent_baseline={"P3": "why not"}))
    assert text.endswith("P3 tells nothing of the baseline: why not")


def test_lines_say_how_much_nearer_the_student_came():
    maps = tuple(
        {"image": str(i), "pair": "P3", "network": key, "distance": far}
        for i, pair in enumerate(((0.2, 0.5), (0.4, 0.3)))
        for key, far in zip(("student", "baseline"), pair)
    )
    networks = {"student": several(distance=0.3, nearer=0.1), "baseline": several(distance=0.4)}
    text = lines(Numbers(maps=maps, summary={"P3": networks}))
    assert text.endswith(
        "P3: baseline's distance less the student's +0.100 (+0.000 to +0.200), nearer on 1 of 2 images"
    )


@pytest.mark.parametrize("key", ["student", "teacher"])
def test_lines_of_a_single_network(key):
    text = lines(Numbers(summary={"P3": {key: several(area=0.2, box_ratio=2.5)}}))
    assert text.split("\n") == ["pair  network   area  box ratio", f"P3    {key}  0.200      2.500"]


def test_lines_of_nothing():
    assert lines(Numbers()) == ""
