"""What a student starts with: weights of its own, weights that are drawn, or a part of its teacher's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules import Concat

from distill.adapters.ultralytics.checkpoints import Checkpoint
from distill.adapters.ultralytics.inheriting import inherit
from distill.errors import InputError
from distill.networks.neck import GatedConcat
from distill.settings import Settings

DRAWN = "none"
FROM_TEACHER = "teacher"


def first_weights(
    settings: Settings, arguments: Mapping[str, Any], student: Any, teacher: Checkpoint | None, names: Mapping[int, str]
) -> tuple[str, tuple[str, ...]]:
    """What `--init` comes to, `DRAWN` or `FROM_TEACHER`, and a line that tells it.

    `student` is built only to be looked at, and changed; None where it has weights of its own. `auto` takes
    the teacher's where they fit and the teacher is the larger one: a copy of it would have nothing to learn.
    Raises InputError where `--init teacher` asks for what cannot be.
    """
    if settings.init == "teacher":
        _check_asked(settings, arguments, student, teacher)
        return FROM_TEACHER, (_inherited(student, teacher, names),)
    own = student is None or isinstance(arguments.get("pretrained"), (str, Path))
    if settings.init == "none" or teacher is None or own or not _larger(teacher.module, student):
        return DRAWN, ()
    try:
        return FROM_TEACHER, (_inherited(student, teacher, names),)
    except InputError as error:
        return DRAWN, (f"first weights: drawn from the seed ({str(error).removeprefix('--init teacher: ')})",)


def _check_asked(settings: Settings, arguments: Mapping[str, Any], student: Any, teacher: Checkpoint | None) -> None:
    if teacher is None:
        raise InputError("--init teacher without --teacher: name the network that the student is to be a part of")
    if student is None:
        raise InputError(f"--init teacher: --student {settings.student} has weights of its own: give its .yaml instead")
    if isinstance(arguments.get("pretrained"), (str, Path)):
        raise InputError("--init teacher and pretrained= both bring the student's first weights: leave one out")


def _larger(teacher: Any, student: Any) -> bool:
    """Is any tensor of the teacher's larger, its head apart, which grows with the classes?"""
    mine, theirs = (network.model[:-1].state_dict() for network in (student, teacher))
    return any(theirs[name].numel() > mine[name].numel() for name in theirs.keys() & mine.keys())


def _inherited(student: Any, teacher: Any, names: Mapping[int, str]) -> str:
    _check_form(student, teacher)
    return str(inherit(student, teacher.module, names))


def _check_form(student: Any, teacher: Checkpoint) -> None:
    """Raise InputError where the student is no smaller version of the teacher's network."""
    where = f"--init teacher: {teacher.path.name}"
    if teacher.family == "rtdetr":
        raise InputError(f"{where}: RT-DETR's transformer cannot be taken in part: only YOLO networks can")
    if teacher.fused:
        raise InputError(f"{where}: its BatchNorms are folded, for inference only: use the unfolded .pt")
    network: Any = teacher.module
    mine, its = ([(layer.f, _kind(layer)) for layer in model.model] for model in (student, network))
    for i, ((source, kind), (other, its_kind)) in enumerate(zip(mine[:-1], its[:-1], strict=False)):
        if source != other or not (issubclass(kind, its_kind) or issubclass(its_kind, kind)):
            layers = f"layer {i} is {its_kind.__name__} of {other}, not {kind.__name__} of {source}"
            raise InputError(f"{where}: of another family than the student: {layers}")
    heads = [_head(model.model[-1]) for model in (student, network)]
    if len(mine) != len(its) or heads[0] != heads[1]:
        raise InputError(
            f"{where}: it ends in {heads[1]}, the student in {heads[0]}: take a teacher with the same head"
        )


def _kind(layer: nn.Module) -> type:
    return Concat if isinstance(layer, GatedConcat) else type(layer)


def _head(head: Any) -> str:
    bins = f" of {head.reg_max} bins" if hasattr(head, "reg_max") else ""
    return f"{type(head).__name__}{bins}{', end-to-end' if hasattr(head, 'one2one_cv2') else ''}"
