"""The course of a training: the table of epochs as columns, and the epoch that was nearly as good as the last."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from distill.errors import InputError
from distill.jobs.course import draw_course, epoch_95, note_course, of_unet, read_course
from distill.records import read_manifest, write_manifest


def run(folder: Path, *dice: object, epochs: tuple[int, ...] = (), **manifest: object) -> Path:
    numbers = epochs or tuple(range(1, len(dice) + 1))
    rows = [f"{n},{value},{value}" for n, value in zip(numbers, dice)]
    (folder / "results.csv").write_text("\n".join(["epoch,train/task,val/dice", *rows]) + "\n")
    write_manifest(folder, {"task": "unet", "finished": True, "after": {"epoch": 2}, **manifest})
    return folder


@pytest.mark.parametrize(
    ("dice", "expected"),
    [
        ([0.1, 0.5, 0.76, 0.7, 0.8], 3),  # 0.76 is 95 % of 0.8 exactly; that it falls again does not matter
        ([0.9, 0.1, 0.5], 1),  # the first epoch, were it better than the last
        ([0.3], 1),
        ([0.1, 0.2, 0.0], None),  # every epoch has 95 % of nothing
        ([0.1, 0.2, math.nan], None),
        ([math.nan, 0.5, 0.5], 2),
        ([], None),
    ],
)
def test_the_epoch_that_reaches_95_percent(dice, expected):
    assert epoch_95({"epoch": [float(n) for n in range(1, len(dice) + 1)], "val/dice": dice}) == expected


def test_the_epoch_is_the_one_in_the_table(tmp_path: Path):
    assert epoch_95(read_course(run(tmp_path, 0.1, 0.8, 0.8, epochs=(4, 5, 6)))) == 5


def test_cells_that_are_empty_or_no_number_are_nan(tmp_path: Path):
    course = read_course(run(tmp_path, 0.5, "", "oops"))
    assert course["epoch"] == [1, 2, 3] and course["val/dice"][0] == 0.5
    assert all(math.isnan(value) for value in course["val/dice"][1:])


def test_a_half_written_row_is_read_as_far_as_it_goes(tmp_path: Path):
    file = run(tmp_path, 0.5) / "results.csv"
    file.write_text(file.read_text() + "2,0.4\n")
    assert read_course(tmp_path)["train/task"] == [0.5, 0.4]
    assert math.isnan(read_course(tmp_path)["val/dice"][1])


def test_no_table_and_no_epoch_are_told_apart_from_a_fault(tmp_path: Path):
    with pytest.raises(InputError, match="results.csv: not readable .No such file"):
        read_course(tmp_path)
    with pytest.raises(InputError, match="no epoch has ended yet"):
        read_course(run(tmp_path))


def test_the_manifest_learns_the_epoch_once_the_run_is_finished(tmp_path: Path):
    note_course(run(tmp_path, 0.1, 0.8, 0.8))
    assert read_manifest(tmp_path)["after"] == {"epoch": 2, "epoch_95": 2}
    write_manifest(tmp_path, {"task": "unet", "finished": False})
    note_course(tmp_path)
    assert "after" not in read_manifest(tmp_path)


def test_the_curves_lie_in_the_run(tmp_path: Path):
    assert draw_course(run(tmp_path, 0.1, 0.8)) == tmp_path / "curves.png"
    assert of_unet(tmp_path) and not of_unet(tmp_path / "nowhere")
