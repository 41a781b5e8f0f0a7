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

DRAWN, INHERITED, FITTED, MEASURED = "none", "teacher", "fit", "best"


def first_weights(
    settings: Settings,
    arguments: Mapping[str, Any],
    student: Any,
    trained: bool,
    teacher: Checkpoint | None,
    names: Mapping[int, str],
) -> tuple[str, tuple[str, ...]]:
    """What `--init` comes to, and a line that tells it.

    `DRAWN` leaves the weights as they are, `INHERITED` takes a part of the teacher's, `FITTED` fits that part to the
    teacher, `MEASURED` finds out when the run begins whether that, or the student's own weights, are the better start.
    `student` is a copy to be looked at, and changed; `trained` says that it has weights of its own: `auto` is
    `MEASURED` for such a student, `FITTED` for another. It needs a teacher that is the larger one: a copy of it would
    have nothing to learn. Raises InputError where `--init` asks for what cannot be.
    """
    asked = settings.init in (INHERITED, FITTED, MEASURED)
    if asked and teacher is None:
        raise InputError(
            f"--init {settings.init} without --teacher: name the network that the student is to be a part of"
        )
    if settings.init == INHERITED:
        _check_drawn(settings, arguments, trained)
    if settings.init == MEASURED:
        _check_trained(arguments, trained)
    if settings.init == DRAWN or teacher is None:
        return DRAWN, ()
    if not (asked or _larger(teacher.module, student)):
        return DRAWN, ()
    if trained and not asked and (arguments.get("freeze") or not _fits(student, teacher)):
        return DRAWN, ()
    try:
        line = _inherited(settings.init, student, teacher, names)
    except InputError as error:
        if asked:
            raise
        why = str(error).removeprefix("--init auto: ")
        kept = "the student's own are kept" if trained else "drawn from the seed"
        return DRAWN, (f"first weights: {kept} ({why})",)
    if settings.init == MEASURED or (trained and not asked):
        return MEASURED, ()
    if settings.init == INHERITED:
        return INHERITED, (line,)
    return FITTED, (line.replace("initialised from teacher", "to be fitted to the teacher"),)


def _check_drawn(settings: Settings, arguments: Mapping[str, Any], trained: bool) -> None:
    if isinstance(arguments.get("pretrained"), (str, Path)):
        raise InputError("--init teacher and pretrained= both bring the student's first weights: leave one out")
    if trained:
        raise InputError(f"--init teacher: --student {settings.student} has weights of its own: give its .yaml instead")


def _check_trained(arguments: Mapping[str, Any], trained: bool) -> None:
    if not trained:
        raise InputError("--init best: the student has no weights of its own to keep: --init fit fits all of it")
    if arguments.get("freeze"):
        raise InputError("--init best: freeze= keeps layers as they are, which it might replace: leave one out")


def _larger(teacher: Any, student: Any) -> bool:
    """Is any tensor of the teacher's larger, its head apart, which grows with the classes?"""
    mine, theirs = (network.model[:-1].state_dict() for network in (student, teacher))
    return any(theirs[name].numel() > mine[name].numel() for name in theirs.keys() & mine.keys())


def _inherited(init: str, student: Any, teacher: Any, names: Mapping[int, str]) -> str:
    try:
        _check_form(student, teacher)
        return str(inherit(student, teacher.module, names))
    except InputError as error:
        raise InputError(f"--init {init}: {error}") from error


def _fits(student: Any, teacher: Checkpoint) -> bool:
    """Could the student be fitted to this teacher, as far as their forms tell?"""
    try:
        _check_form(student, teacher)
    except InputError:
        return False
    return True


def _check_form(student: Any, teacher: Checkpoint) -> None:
    """Raise InputError where the student is no smaller version of the teacher's network."""
    where = teacher.path.name
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
