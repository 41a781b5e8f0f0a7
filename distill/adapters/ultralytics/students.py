"""Students that are not what their yaml says: pruned networks are trained as they are, gated necks stay gated."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

from torch import nn

from distill.adapters.ultralytics.anatomy import channels_of, gates_of
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.gating import gate_neck
from distill.errors import InputError
from distill.modes import same_randomness


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
