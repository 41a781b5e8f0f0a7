"""The dense outputs of a YOLO head: which modules give class scores and boxes, level by level and branch by branch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import log2
from typing import Any

from ultralytics.nn.modules.head import Detect

from distill.attention.pairs import Pair
from distill.errors import InputError

BRANCHES = ("", "one2one_")  # many boxes per object, and one; end-to-end heads have both


@dataclass(frozen=True)
class Output:
    """One level of one branch: the modules that give the logits of classes (B, K, H, W) and boxes (B, 4 bins, H, W)."""

    level: int
    branch: str
    classes: str
    boxes: str


def outputs_of(model: Any) -> list[Output]:
    """The head's outputs, by level and branch; none where predictions do not stand on cells (RT-DETR, classify)."""
    head = model.model[-1]
    if not isinstance(head, Detect):
        return []
    found = []
    for branch in BRANCHES:
        if getattr(head, f"{branch}cv2", None) is None:
            continue
        for source, stride in enumerate(head.stride.tolist()):
            classes, boxes = (f"model.{head.i}.{branch}{part}.{source}" for part in ("cv3", "cv2"))
            found.append(Output(round(log2(stride)), branch, classes, boxes))
    return sorted(found, key=lambda output: (output.branch, output.level))


def bins_of(model: Any) -> int:
    """Over how many distances a side of a box is spread: `reg_max`; 1 where it is one number."""
    return int(model.model[-1].reg_max)


def output_pairs(student: Any, teacher: Any) -> list[tuple[Output, Output]]:
    """The student's outputs with the teacher's of the same level and branch.

    A branch that answers once for each object learns from such a branch alone: the many answers of the other would
    teach it duplicates. Raises InputError where one of them has no such outputs, or no level is shared.
    """
    mine, theirs = outputs_of(student), outputs_of(teacher)
    for side, name in ((mine, "student"), (theirs, "teacher")):
        if not side:
            raise InputError(f"--response compares predictions cell by cell: the {name}'s head has none")
    table = {(output.level, output.branch): output for output in theirs}
    pairs = [(output, table[key]) for output in mine if (key := (output.level, output.branch)) in table]
    if not pairs:
        raise InputError("--response: the heads of teacher and student share no stride")
    return pairs


def as_pairs(both: Sequence[tuple[Output, Output]], what: str) -> list[Pair]:
    """Those outputs' modules as pairs; `what` is "classes" or "boxes"."""
    return [
        Pair(f"{mine.level}{'o' if mine.branch else ''}", getattr(mine, what), getattr(theirs, what))
        for mine, theirs in both
    ]
