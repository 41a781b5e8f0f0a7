"""The course of a U-Net's training: what its table of epochs says, drawn, and how soon it was nearly as good."""

from __future__ import annotations

import csv
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from distill.errors import InputError
from distill.records import TABLE, read_manifest, write_manifest

CURVES = "curves.png"
DICE = "val/dice"
SHARE = 0.95


def of_unet(folder: Path) -> bool:
    """Is this the folder of a U-Net's run, by its manifest?"""
    return read_manifest(folder).get("task") == "unet"


def read_course(folder: Path) -> dict[str, list[float]]:
    """The columns of a run's results.csv, an entry per epoch; NaN where a cell is empty or no number.

    Raises InputError where there is no table, or no epoch in it yet.
    """
    file = folder / TABLE
    try:
        with file.open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text, restval=""))
    except OSError as error:
        raise InputError(f"{file}: not readable ({error.strerror}): no epoch has ended yet, or it is no run") from error
    if not rows:
        raise InputError(f"{file}: no epoch has ended yet")
    return {name: [_number(row[name]) for row in rows] for name in rows[0] if name}


def epoch_95(course: Mapping[str, Sequence[float]]) -> int | None:
    """The first epoch whose mean Dice reaches 95 % of the last epoch's; None where that one has none, or 0."""
    dice = course.get(DICE, ())
    if not dice or not dice[-1] > 0:  # nor NaN
        return None
    reached = next(i for i, value in enumerate(dice) if value >= SHARE * dice[-1])
    return int(course["epoch"][reached])


def note_course(folder: Path) -> None:
    """Put `epoch_95` into the manifest of a run that is finished, as `after.epoch_95`."""
    manifest = read_manifest(folder)
    if manifest.get("finished"):
        after = {**manifest["after"], "epoch_95": epoch_95(read_course(folder))}
        write_manifest(folder, {**manifest, "after": after})


def draw_course(folder: Path) -> Path:
    """Draw `curves.png` in the run's folder, of as many epochs as there are; its path. Raises as `read_course` does."""
    from distill.view.learning import save_learning

    course = read_course(folder)
    return save_learning(course, folder / CURVES, f"training run {folder.absolute().name}", epoch_95(course))


def _number(cell: str | None) -> float:
    try:
        return float(cell or math.nan)
    except ValueError:
        return math.nan
