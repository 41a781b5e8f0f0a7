"""What methods may know of both networks, at the sizes at which these read, and the table of what is paired."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT

from distill.adapters.ultralytics.anatomy import anatomy, layers_of, stride_of
from distill.adapters.ultralytics.checkpoints import Checkpoint
from distill.adapters.ultralytics.data import ordered
from distill.adapters.ultralytics.gating import gates_of
from distill.adapters.ultralytics.heads import BRANCHES, Output, as_pairs, bins_of, output_pairs, outputs_of
from distill.attention.layers import LayerInfo
from distill.errors import InputError
from distill.modes import same_randomness
from distill.ranges import BOXLESS
from distill.settings import Settings
from distill.terms.method import Head, Networks
from distill.terms.methods import planned_methods
from distill.terms.registry import Plans

ONE = "_one"  # ends the names of what is of the branch that answers once for each object
UPRIGHT = ("detect", "segment", "pose")  # tasks whose boxes are no more than four distances


def look_at(
    settings: Settings,
    arguments: Mapping[str, Any],
    student: nn.Module,
    task: str,
    teacher: Checkpoint | None,
    data: Mapping[str, Any],
) -> Networks:
    """What ways of teaching may know of both networks. Raises InputError for images that do not fit them."""
    imgsz = image_size(arguments, task, stride_of(student))
    teacher_imgsz = _teacher_size(settings, imgsz, teacher, data) if teacher else imgsz

    def look() -> tuple[list[LayerInfo], list[LayerInfo]]:
        with same_randomness():
            return layers_of(student, imgsz), layers_of(teacher.module, teacher_imgsz) if teacher else []

    return Networks(
        "detector",
        task,
        look,
        names=["item"] if arguments.get("single_cls") else ordered(data["names"]),
        known=ordered(teacher.names) if teacher else [],
        kept=_kept(arguments),
        head=lambda: head_of(student, teacher and teacher.module, task),
        scores={output.level: output.classes for output in reversed(outputs_of(teacher.module))} if teacher else {},
        boxes=task not in BOXLESS,
        gated=bool(gates_of(student)),
    )


def _kept(arguments: Mapping[str, Any]) -> list[int]:
    """The numbers of the classes whose labels count, from Ultralytics' `classes=`; none where all do, or are one."""
    asked = () if arguments.get("single_cls") else arguments.get("classes")
    return [asked] if isinstance(asked, int) else list(asked or ())


def head_of(student: Any, teacher: Any, task: str) -> Head:
    """What both heads say, to be compared. Raises InputError where that cannot be."""
    both = output_pairs(student, teacher)
    branches = [name for name in BRANCHES if any(mine.branch == name for mine, _ in both)]
    bins = bins_of(student), bins_of(teacher)
    return Head([_branch(name, both, student) for name in branches], bins, task in UPRIGHT)


def _branch(name: str, both: Sequence[tuple[Output, Output]], student: Any) -> dict[str, Any]:
    """The outputs of one branch, each a term of its own, and the layers where these are weighed against the task.

    What a head reads, or, in a branch that lets no gradient out to it, the branch's first blocks.
    """
    of_it = [pair for pair in both if pair[0].branch == name]
    first = [f"{part}.0" for mine, _ in of_it for part in (mine.classes, mine.boxes)]
    return {
        "name": ONE if name else "",
        "classes": [asdict(pair) for pair in as_pairs(of_it, "classes")],
        "boxes": [asdict(pair) for pair in as_pairs(of_it, "boxes")],
        "at": first if name else list(anatomy(student).head_inputs),
    }


def image_size(arguments: Mapping[str, Any], task: str, stride: int) -> int:
    """The side of training images: what was asked or Ultralytics' default, brought up to the stride as it will be."""
    default = 224 if task == "classify" else DEFAULT_CFG_DICT["imgsz"]
    asked = arguments.get("imgsz") or default
    if not isinstance(asked, int):
        raise InputError(f"imgsz={asked!r}: training takes one whole number of pixels")
    step = max(stride, 32)
    return max(step, -(-asked // step) * step)


def _teacher_size(settings: Settings, imgsz: int, teacher: Checkpoint, data: Mapping[str, Any]) -> int:
    """The side of the teacher's images. Raises InputError for one that its stride, or its channels, do not fit."""
    channels = data.get("channels", 3)
    if teacher.channels != channels:
        raise InputError(
            f"--teacher {teacher.path.name}: it reads {teacher.channels} channels, the data has {channels}: "
            f"use a teacher trained on such images"
        )
    stride = stride_of(teacher.module)
    size = settings.teacher_imgsz or imgsz
    if size % stride:
        fitting = -(-size // stride) * stride
        raise InputError(
            f"--teacher {teacher.path.name}: its stride of {stride} does not fit {size} px: "
            f"use --teacher-imgsz {fitting}, or imgsz={fitting}"
        )
    return size


def table_of(plans: Plans, networks: Networks) -> tuple[str, ...]:
    """The pairs of layers that are compared, a line for each."""
    named = [row for method, planned in planned_methods(plans) for row in method.rows(planned)]
    if not named:
        return ()
    sides = [{layer.name: layer for layer in side} for side in networks.layers]
    rows: list[tuple[str, ...]] = [
        ("pair", "student layer", "shape", "stride", "teacher layer", "shape", "stride", "weight")
    ]
    for log, pair in named:
        row = [log]
        for side, name in zip(sides, (pair.student, pair.teacher), strict=True):
            row += _cells(side[name]) if name else ["labels", "", ""]
        rows.append((*row, f"{pair.weight:g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cells(layer: LayerInfo) -> list[str]:
    return [f"{layer.name} {layer.type}", "x".join(map(str, layer.shape[1:])), f"{max(layer.stride):g}"]
