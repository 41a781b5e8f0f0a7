"""From what the user asked to a trainer ready to be made; every refusal happens here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT
from ultralytics.utils.torch_utils import parse_device, select_device

from distill.adapters.ultralytics.anatomy import gates_of, layers_of, stride_of
from distill.adapters.ultralytics.data import ordered
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.gating import check_gatable, gate_neck, told
from distill.adapters.ultralytics.inputs import (
    Checkpoint,
    ModelYaml,
    check_ultralytics_settings,
    read_checkpoint,
    read_data,
    read_model_yaml,
)
from distill.adapters.ultralytics.responses import check_recipe, planned_focus, planned_response, with_response
from distill.adapters.ultralytics.starting import first_weights
from distill.adapters.ultralytics.students import stays
from distill.adapters.ultralytics.supervision import BOXLESS, check_gates, check_pairs, teaches
from distill.adapters.ultralytics.tasks import MODELS, TRAINERS
from distill.adapters.ultralytics.trainers import KEY
from distill.adapters.ultralytics.transfer import schedule_of
from distill.attention.layers import LayerInfo
from distill.attention.pairs import Pair, gate_pairs, pair_layers
from distill.errors import InputError
from distill.modes import same_randomness
from distill.settings import NO_PAIRS, Settings
from distill.text import one_line


@dataclass(frozen=True)
class Plan:
    """A run that was checked: the trainer class, its arguments (ours under `KEY`), and what to tell the user."""

    trainer: type
    overrides: dict[str, Any]
    lines: tuple[str, ...] = ()

    @property
    def own(self) -> dict[str, Any]:
        own: dict[str, Any] = self.overrides[KEY]
        return own


@dataclass(frozen=True)
class _Student:
    file: str
    family: str
    task: str
    module: nn.Module


def plan(settings: Settings, arguments: Mapping[str, Any], command: str) -> Plan:
    """Check everything the run needs. Raises InputError; writes nothing."""
    theirs = check_ultralytics_settings(dict(arguments))
    for name in ("pretrained", "distill_model"):
        if isinstance(theirs.get(name), (str, Path)):
            read_checkpoint(theirs[name], f"{name}=", settings.trust)
    only_first = settings.init == "teacher" and not teaches(settings)
    if settings.teacher and theirs.get("distill_model") and not only_first:
        raise InputError(
            "--teacher and distill_model= both name a teacher: ours or Ultralytics' own, not both at once "
            "(but for first weights alone: --init teacher --layers none --response none)"
        )
    if Path(settings.teacher or "").suffix.lower() in (".yaml", ".yml"):
        raise InputError(f"--teacher {settings.teacher}: a description, not a trained network: give a .pt")
    for name in ("logits", "loss"):
        if getattr(settings, name) is not None:
            raise InputError(f"--{name} is for U-Nets: a detector has no such thing")
    if settings.weight is not None and not settings.teacher:
        raise InputError("--weight without --teacher has no effect: name a teacher, or leave it out")
    if settings.heatmaps and not settings.teacher:
        raise InputError("--heatmaps without --teacher has nothing to set beside the student: name a teacher")
    if not settings.student:
        raise InputError("--student is missing: the network to train, such as --student yolo11n.yaml")
    if not settings.data:
        raise InputError("--data is missing: a data.yaml, or 'scenes' for the generated set")
    student_file = _with_suffix(settings.student)
    is_yaml = Path(student_file).suffix.lower() in (".yaml", ".yml")
    given = (read_model_yaml if is_yaml else read_checkpoint)(student_file, "--student", settings.trust)
    data = read_data(settings.data, given.task, settings.trust)
    file = str(Path(settings.data).absolute()) if Path(settings.data).exists() else settings.data
    student = _built(given, data) if isinstance(given, ModelYaml) else _trained(given)
    kept = not is_yaml and stays(student.module, _classes(data, given.task, theirs), theirs.get("pretrained", True))
    if settings.gated_neck:
        check_gatable(student.module, f"--student {settings.student}")
    gated = settings.gated_neck or (bool(gates_of(student.module)) and not kept)  # a kept network has what it has
    if gated:
        gate_neck(student.module, settings.seed)
    teacher = read_checkpoint(_with_suffix(settings.teacher), "--teacher", settings.trust) if settings.teacher else None
    names = ["item"] if theirs.get("single_cls") else ordered(data["names"])
    known = ordered(teacher.names) if teacher else []
    settings, lacking = with_response(settings, student.module, names, teacher and teacher.module, known, student.task)
    check_gates(settings, bool(gates_of(student.module)), student.task)
    check_recipe(settings, student.task, BOXLESS)
    schedule_of(settings.as_dict(), {**DEFAULT_CFG_DICT, **theirs})
    own = {
        **settings.as_dict(),
        "gated_neck": gated,
        "student": student.file,
        "data": file,
        "pairs": [],
        "gate_pairs": [],
        "weights": {},
        "command": command,
        # as they were asked: training itself replaces optimizer=auto, batch=-1 and more by what it found
        "arguments": {key: value for key, value in theirs.items() if key != "augmentations"},
    }
    own["teacher"] = teacher and str(teacher.path)
    drawn = student.module if is_yaml else None
    own["init"], started = first_weights(settings, theirs, drawn, teacher, dict(enumerate(names)))
    settings = replace(settings, init=own["init"])
    pairs, gates, own["scores"], lines = _pairs(settings, theirs, student, teacher, data)
    own |= {"pairs": [asdict(pair) for pair in pairs], "gate_pairs": [asdict(pair) for pair in gates]}
    if teacher:
        own["outputs"] = planned_response(settings, student.module, names, teacher.module, known, student.task)
    overrides = {
        **theirs,
        "mode": "train",
        "task": student.task,
        "model": student.file,
        "data": file,
        "seed": settings.seed,
        KEY: own,
    }
    if settings.device is not None:
        overrides["device"] = checked_device(settings.device)
    return Plan(TRAINERS[student.family, student.task], overrides, (*told(student.module), *started, *lacking, *lines))


def checked_device(device: str) -> str:
    """The device as it was given. Raises InputError when this machine does not have it."""
    try:
        with quiet():
            torch.empty(0, device=select_device(parse_device(device), verbose=False))  # it lets unknown words pass
    except Exception as error:  # of Ultralytics or torch, in several lines
        raise InputError(f"--device {device}: {one_line(error).partition(' torch.cuda')[0]}") from error
    return device


def image_size(arguments: Mapping[str, Any], task: str, stride: int) -> int:
    """The side of training images: what was asked or Ultralytics' default, brought up to the stride as it will be."""
    default = 224 if task == "classify" else DEFAULT_CFG_DICT["imgsz"]
    asked = arguments.get("imgsz") or default
    if not isinstance(asked, int):
        raise InputError(f"imgsz={asked!r}: training takes one whole number of pixels")
    step = max(stride, 32)
    return max(step, -(-asked // step) * step)


def _with_suffix(file: str) -> str:
    """`yolo11n` means yolo11n.pt, as for Ultralytics; a folder stays one, to be refused as such."""
    return file if Path(file).suffix or Path(file).exists() else f"{file}.pt"


def _trained(given: Checkpoint) -> _Student:
    if given.fused:
        raise InputError(f"--student {given.path}: its BatchNorms are folded, for inference only: use the unfolded .pt")
    return _Student(str(given.path), given.family, given.task, given.module)


def _built(given: ModelYaml, data: Mapping[str, Any]) -> _Student:
    with same_randomness(), quiet():
        kind = MODELS[given.family, given.task]
        model = kind(str(given.path), ch=data.get("channels", 3), nc=data["nc"], verbose=False)
    return _Student(str(given.path), given.family, given.task, model)


def _classes(data: Mapping[str, Any], task: str, arguments: Mapping[str, Any]) -> int:
    """How many classes the trainer will see: to polygons it adds a background."""
    nc = 1 if arguments.get("single_cls") else int(data["nc"])
    return nc + 1 if task == "semantic" and nc > 1 and not data.get("masks_dir") else nc


def _pairs(
    settings: Settings,
    arguments: Mapping[str, Any],
    student: _Student,
    teacher: Checkpoint | None,
    data: Mapping[str, Any],
) -> tuple[list[Pair], list[Pair], dict[str, str], tuple[str, ...]]:
    """The pairs of attention maps, those that supervise gates, what a focus reads, and a table of the pairs."""
    imgsz = image_size(arguments, student.task, stride_of(student.module))
    if teacher is None:
        if settings.gates == "none":
            return [], [], {}, ()
        with same_randomness():
            mine = layers_of(student.module, imgsz)
        gates = gate_pairs(settings.gates, mine, only=settings.gate_layers)
        return [], gates, {}, _table(gates, mine, [])
    teacher_imgsz = _teacher_size(settings, imgsz, teacher, data)
    with same_randomness():
        mine, theirs = layers_of(student.module, imgsz), layers_of(teacher.module, teacher_imgsz)
    pairs = [] if settings.layers == NO_PAIRS else pair_layers(mine, theirs, settings.layers)
    gates = gate_pairs(settings.gates, mine, theirs, settings.gate_layers)
    check_pairs(settings, pairs, gates)
    scores = planned_focus(settings, pairs, teacher.module, theirs)
    return pairs, gates, scores, _table([*pairs, *gates], mine, theirs)


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


def _table(pairs: list[Pair], student: list[LayerInfo], teacher: list[LayerInfo]) -> tuple[str, ...]:
    sides = {layer.name: layer for layer in student}, {layer.name: layer for layer in teacher}
    rows: list[tuple[str, ...]] = [
        ("pair", "student layer", "shape", "stride", "teacher layer", "shape", "stride", "weight")
    ]
    for pair in pairs:
        row = [pair.column]
        for side, name in zip(sides, (pair.student, pair.teacher), strict=True):
            row += _cells(side[name]) if name else ["labels", "", ""]
        rows.append((*row, f"{pair.weight:g}"))
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return tuple("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows)


def _cells(layer: LayerInfo) -> list[str]:
    return [f"{layer.name} {layer.type}", "x".join(map(str, layer.shape[1:])), f"{max(layer.stride):g}"]
