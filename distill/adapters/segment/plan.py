"""What a run will be, settled before anything is written: the data, both networks, what is paired with what."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch

from distill.adapters.segment.data import Data, read_data
from distill.adapters.segment.networks import Trained, build, description, layers_of, read_checkpoint
from distill.adapters.segment.options import Options, read_options
from distill.adapters.segment.pipeline import usual_crop
from distill.attention.layers import LayerInfo
from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.networks.unet import UNet
from distill.settings import Settings
from distill.terms.base import Term
from distill.terms.method import Networks
from distill.terms.methods import check_idle, check_terms, plan_all, planned_methods, terms_of
from distill.terms.registry import Plans
from distill.text import aligned

USUAL_BATCH = {2: 16, 3: 4}
DETECTORS_ONLY = (
    *("teacher_imgsz", "teacher_precision", "gated_neck", "cpu_bfloat16", "focus", "stop_with_mosaic", "hold"),
)


@dataclass(frozen=True, eq=False)
class Plan:
    """`methods` are what the teacher, or the labels, teach the student by each method, in plain types."""

    settings: Settings
    options: Options
    data: Data
    crop: tuple[int, ...]
    batch: int
    network: dict[str, Any]
    student: Trained | None  # where training goes on from a checkpoint
    teacher: Trained | None
    methods: Plans
    command: str
    lines: tuple[str, ...] = ()

    def terms(self, audit: bool = False) -> list[Term]:
        """What the run compares; an `audit` never shuffles."""
        return terms_of(self.methods, self.settings.as_dict(), audit)

    @property
    def pairs(self) -> list[Pair]:
        """The pairs whose attention maps are compared."""
        return [pair for term in self.terms() for pair in term.maps]

    @property
    def gates(self) -> list[Pair]:
        """The student's gates, with what guides each."""
        return [pair for term in self.terms() for pair in term.alphas]

    def new_student(self) -> UNet:
        """The student's network: the checkpoint's, or one with weights drawn from the seed."""
        return self.student.module.train() if self.student else build(self.network, self.settings.seed)


def plan(settings: Settings, arguments: Mapping[str, Any], command: str) -> Plan:
    """Check everything the run needs. Raises InputError; writes nothing."""
    _check(settings)
    options = read_options(arguments)
    data = read_data(str(settings.data))
    crop = _crop(options, data)
    device = device_of(settings.device)
    if options.amp and device.type == "cpu":  # its bfloat16 kernels give gradients that are NaN
        raise InputError("amp=True needs a GPU: leave it out on a CPU")
    student = _continued(str(settings.student), data)
    network = dict(student.network) if student else _described(str(settings.student), data)
    with_teacher = settings.teacher is not None
    teacher = _teacher(str(settings.teacher), data, settings) if with_teacher else None
    module = student.module if student else build(network, settings.seed)
    mine = layers_of(module.eval(), crop)
    theirs = layers_of(teacher.module, crop) if teacher else []
    known = teacher.names if teacher else ()
    methods, _ = plan_all(settings, Networks("unet", "unet", lambda: (mine, theirs), data.names, known, gated=True))
    check_terms(methods, settings.as_dict())
    if teacher and not methods:
        raise InputError("--layers none leaves the teacher nothing to teach: add --gates teacher or --logits 2")
    batch = options.batch or USUAL_BATCH[data.dims]
    _check_batch(min(batch, len(data.train)), settings, mine)
    found = Plan(settings, options, data, crop, batch, network, student, teacher, methods, command)
    return replace(found, lines=tuple(_lines(found, mine, theirs)))


def device_of(text: str | None) -> torch.device:
    """The device that the user named (`cpu`, `0`, `mps`; of `0,1` the first); else the first GPU, or the CPU.

    Raises InputError when this machine does not have it.
    """
    if text is None:
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    first = text.split(",")[0].strip()
    try:
        device = torch.device(f"cuda:{first}" if first.isdecimal() else first)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, ValueError) as error:
        raise InputError(f"--device {text}: this machine has no such device") from error
    return device


def _check(settings: Settings) -> None:
    if not settings.student:
        raise InputError("--student is missing: the network to train, such as --student attention-unet:8")
    if not settings.data:
        raise InputError(
            "--data is missing: a data.yaml, a dataset.json, a folder, or 'scenes' or 'volumes' (generated)"
        )
    for key in DETECTORS_ONLY:
        if getattr(settings, key) not in (getattr(Settings(), key), ()):
            raise InputError(f"--{key.replace('_', '-')} is for detectors: a U-Net has no such thing")
    if settings.init == "teacher":
        raise InputError(f"--init {settings.init} is for detectors: a U-Net cannot start as a part of its teacher")
    check_idle(settings, "unet")


def _crop(options: Options, data: Data) -> tuple[int, ...]:
    if options.imgsz is None:
        return usual_crop(data)
    if len(options.imgsz) not in (1, data.dims):
        raise InputError(f"imgsz={','.join(map(str, options.imgsz))}: the data has {data.dims} axes")
    return options.imgsz * (data.dims if len(options.imgsz) == 1 else 1)


def _continued(student: str, data: Data) -> Trained | None:
    if not student.lower().endswith(".ckpt"):
        return None
    found = read_checkpoint(student, "--student")
    _fits(found, data, "--student")
    if len(found.names) != len(data.names):
        raise InputError(f"--student {student}: it knows {len(found.names)} classes, the data has {len(data.names)}")
    return found


def _described(student: str, data: Data) -> dict[str, Any]:
    given = {"in_channels": data.channels, "classes": len(data.names), "dims": data.dims}
    return {**description(student), **given}


def _teacher(teacher: str, data: Data, settings: Settings) -> Trained:
    if Path(teacher).suffix != ".ckpt":
        raise InputError(f"--teacher {teacher}: a U-Net learns from a U-Net: give a .ckpt that distill trained")
    found = read_checkpoint(teacher, "--teacher")
    _fits(found, data, "--teacher")
    return found


def _fits(trained: Trained, data: Data, argument: str) -> None:
    asked = trained.network["dims"], trained.network["in_channels"]
    if asked != (data.dims, data.channels):
        raise InputError(
            f"{argument} {trained.path}: it reads {asked[0]}-D images of {asked[1]} channels, "
            f"the data has {data.dims}-D ones of {data.channels}"
        )


def _check_batch(images: int, settings: Settings, mine: Sequence[LayerInfo]) -> None:
    """Raises InputError for batches of too few images: for BatchNorm, or for another one to be guided by."""
    if images == 1 and any(all(side == 1 for side in layer.size) for layer in mine):
        raise InputError(
            "batches of one: the deepest level has a single position, and BatchNorm needs two: raise imgsz="
        )
    if settings.gates == "shuffled" and (left := max(1, round(settings.teacher_fraction * images))) < 2:
        raise InputError(f"--gates shuffled compares with another image: {left} of a batch is compared: take more")


def _lines(found: Plan, mine: Sequence[LayerInfo], theirs: Sequence[LayerInfo]) -> list[str]:
    data = found.data
    lines = [
        f"{len(data.train)} training and {len(data.val)} validation {'images' if data.dims == 2 else 'volumes'}, "
        f"classes {', '.join(data.names)}; crops of {'x'.join(map(str, found.crop))}, batch {found.batch}"
    ]
    if both := {case.image for case in data.train} & {case.image for case in data.val}:
        lines.append(
            f"warning: {len(both)} of the validation images are training images too: no Dice on them means much"
        )
    sides = [{layer.name: layer for layer in side} for side in (mine, theirs)]
    rows = [("pair", "student layer", "shape", "teacher layer", "shape", "compared by")]
    named = [
        (method, column, pair)
        for method, planned in planned_methods(found.methods)
        for column, pair in method.rows(planned)
    ]
    for method, column, pair in named:
        shown = [_shown(side.get(name)) for side, name in zip(sides, (pair.student, pair.teacher), strict=True)]
        how: str = pair.kind
        if pair in found.gates:
            how = f"alpha to {found.settings.gates}, by {pair.kind if pair.teacher else 'labels'}"
        elif pair not in found.pairs:
            how = method.name
        rows.append((column, *shown[0], *(shown[1] if pair.teacher else ("labels", "")), how))
    return [*lines, *([aligned(rows)] if len(rows) > 1 else [])]


def _shown(layer: LayerInfo | None) -> tuple[str, str]:
    return (layer.name, "x".join(map(str, layer.shape[1:]))) if layer else ("", "")
