"""Students that are not what their yaml says: pruned networks are trained as they are, gated necks stay gated.

And those that could start as a part of their teacher.
"""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.nn.modules import Concat

from distill.adapters.ultralytics.anatomy import channels_of, gates_of
from distill.adapters.ultralytics.checkpoints import Checkpoint
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.gating import gate_neck
from distill.adapters.ultralytics.inheriting import inherit
from distill.errors import InputError
from distill.modes import same_randomness
from distill.networks.neck import GatedConcat
from distill.settings import Settings


def is_pruned(module: Any) -> bool:
    """Do the weights differ in name or shape from the network that the module's own yaml describes, gated if it is?"""
    with same_randomness(), quiet():
        described = type(module)(deepcopy(module.yaml), ch=channels_of(module), nc=len(module.names), verbose=False)
        if gates_of(module):
            gate_neck(described)
    shapes = {name: tensor.shape for name, tensor in described.state_dict().items()}
    return shapes != {name: tensor.shape for name, tensor in module.state_dict().items()}


def stays(module: Any, nc: int, pretrained: Any = True) -> bool:
    """Is the student trained as it is? It is when it is pruned, unless its weights are not wanted.

    Raises InputError when the data has another number of classes: only a rebuilt head could take it.
    """
    if pretrained is False or not is_pruned(module):
        return False
    if len(module.names) != nc:
        raise InputError(
            f"--student: a pruned network keeps its head, made for {len(module.names)} classes, but the data has "
            f"{nc}: prune a network that was trained on these classes"
        )
    return True


def adopted(weights: Any, data: dict[str, Any], args: Any) -> nn.Module | None:
    """The module itself, made trainable, when it is pruned; None when Ultralytics can rebuild it from its yaml."""
    if not stays(weights, data["nc"], args.resume or args.pretrained):
        return None
    student = weights.float().requires_grad_(True)
    student.names = data["names"]
    student.criterion = None
    return student


def started_from(
    settings: Settings, arguments: Mapping[str, Any], student: Any, teacher: Checkpoint | None, names: Mapping[int, str]
) -> tuple[str, ...]:
    """A line on what `--init teacher` brings, tried on a `student` that is only built to be looked at; else none.

    `student` is None where it has weights of its own. Raises InputError where it cannot start as a part of the teacher.
    """
    if settings.init == "none":
        return ()
    if teacher is None:
        raise InputError("--init teacher without --teacher: name the network that the student is to be a part of")
    if student is None:
        raise InputError(f"--init teacher: --student {settings.student} has weights of its own: give its .yaml instead")
    if isinstance(arguments.get("pretrained"), (str, Path)):
        raise InputError("--init teacher and pretrained= both bring the student's first weights: leave one out")
    _check_form(student, teacher)
    return (str(inherit(student, teacher.module, names)),)


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
