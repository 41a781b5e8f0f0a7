"""Which layers a run compares: the sizes at which both networks read, the pairs, and the table that shows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT

from distill.adapters.ultralytics.anatomy import layers_of, stride_of
from distill.adapters.ultralytics.checkpoints import Checkpoint
from distill.adapters.ultralytics.responses import planned_focus
from distill.adapters.ultralytics.supervision import check_pairs
from distill.attention.layers import LayerInfo
from distill.attention.pairs import Pair, gate_pairs, pair_layers
from distill.errors import InputError
from distill.modes import same_randomness
from distill.ranges import NO_PAIRS
from distill.settings import Settings
from distill.terms.features import column


@dataclass(frozen=True)
class Matched:
    """The pairs of attention maps, those that supervise gates, those of features, what a focus reads, and a table."""

    pairs: list[Pair] = field(default_factory=list)
    gates: list[Pair] = field(default_factory=list)
    features: list[Pair] = field(default_factory=list)
    scores: dict[str, str] = field(default_factory=dict)
    lines: tuple[str, ...] = ()


def match(
    settings: Settings,
    arguments: Mapping[str, Any],
    student: nn.Module,
    task: str,
    teacher: Checkpoint | None,
    data: Mapping[str, Any],
) -> Matched:
    """What a run compares layer by layer. Raises InputError for what cannot be paired."""
    imgsz = image_size(arguments, task, stride_of(student))
    if teacher is None:
        if settings.gates == "none":
            return Matched()
        with same_randomness():
            mine = layers_of(student, imgsz)
        gates = gate_pairs(settings.gates, mine, only=settings.gate_layers)
        return Matched(gates=gates, lines=_table(gates, [], mine, []))
    teacher_imgsz = _teacher_size(settings, imgsz, teacher, data)
    with same_randomness():
        mine, theirs = layers_of(student, imgsz), layers_of(teacher.module, teacher_imgsz)
    pairs = [] if settings.layers == NO_PAIRS else pair_layers(mine, theirs, settings.layers)
    gates = gate_pairs(settings.gates, mine, theirs, settings.gate_layers)
    features = pair_layers(mine, theirs, settings.named_features) if settings.named_features else []
    check_pairs(settings, pairs, gates, features)
    scores = planned_focus(settings, pairs, teacher.module, theirs)
    lines = _table([*pairs, *gates], features, mine, theirs)
    return Matched(pairs, gates, features, scores, lines)


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


def _table(
    maps: list[Pair], features: list[Pair], student: list[LayerInfo], teacher: list[LayerInfo]
) -> tuple[str, ...]:
    sides = {layer.name: layer for layer in student}, {layer.name: layer for layer in teacher}
    rows: list[tuple[str, ...]] = [
        ("pair", "student layer", "shape", "stride", "teacher layer", "shape", "stride", "weight")
    ]
    named = [(pair.column, pair) for pair in maps] + [(column(pair.name), pair) for pair in features]
    for log, pair in named:
        row = [log]
        for side, name in zip(sides, (pair.student, pair.teacher), strict=True):
            row += _cells(side[name]) if name else ["labels", "", ""]
        rows.append((*row, f"{pair.weight:g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cells(layer: LayerInfo) -> list[str]:
    return [f"{layer.name} {layer.type}", "x".join(map(str, layer.shape[1:])), f"{max(layer.stride):g}"]
