"""Which layers a network has, and what they stand for."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from distill.errors import InputError
from distill.modes import as_found
from distill.text import nearest


@dataclass(frozen=True)
class LayerInfo:
    """One module whose output is a feature map.

    `shape` is the output's (B, C, *S); `stride` the input pixels per cell, for each spatial dimension; `channels` is
    C; `parameters` counts the module's own and its children's. `roles` say what the layer stands for, such as "P3"
    (the head's input of stride 8), "B5" (the backbone's last block of stride 32) or "G3" (the coefficients of the gate
    on the skip of stride 8); in U-Nets "E1", "D1" and on (encoder and decoder, by level), "G2" and "X2"
    (of level 2: a gate's coefficients, and what of the skip is let through).
    """

    name: str
    type: str
    shape: tuple[int, ...]
    stride: tuple[float, ...]
    parameters: int
    roles: tuple[str, ...] = ()

    @property
    def channels(self) -> int:
        return self.shape[1]

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial grid."""
        return self.shape[2:]

    @property
    def level(self) -> int:
        """log2 of the (largest) stride, rounded: 3 for a stride of 8."""
        return round(math.log2(max(self.stride)))


@dataclass(frozen=True)
class Anatomy:
    """The parts that roles are derived from: module names of the head's inputs, the backbone's blocks, gates' alphas.

    The order carries no meaning for the head and gates (strides are measured); the backbone's is the order of
    execution. `named` gives roles outright, by role, where a network knows them itself (`UNet.roles`).
    """

    head_inputs: tuple[str, ...] = ()
    backbone: tuple[str, ...] = ()
    gates: tuple[str, ...] = ()
    named: Mapping[str, str] = field(default_factory=dict)


def describe(model: nn.Module, images: Tensor, anatomy: Anatomy | None = None) -> list[LayerInfo]:
    """Every module that gives one feature map (B, C, *S), in order of execution, measured by a forward pass.

    `images` (B, C, *S) are run once in eval mode without gradients; the model is left as it was found. With `anatomy`
    the layers get their roles: `P{k}`, `B{k}` and `G{k}` with k = log2 stride.
    """
    names = {module: name for name, module in model.named_modules() if name}
    found: dict[str, LayerInfo] = {}
    pixels = images.shape[2:]

    def note(name: str, module: nn.Module, _inputs: Any, output: Any) -> None:
        if isinstance(output, Tensor) and output.ndim == images.ndim and output.shape[0] == images.shape[0]:
            stride = tuple(n / m for n, m in zip(pixels, output.shape[2:], strict=True))
            parameters = sum(p.numel() for p in module.parameters())
            found[name] = LayerInfo(name, type(module).__name__, tuple(output.shape), stride, parameters)

    handles = [module.register_forward_hook(partial(note, name)) for module, name in names.items()]
    try:
        with as_found(model), torch.no_grad():
            model.eval()
            model(images)
    finally:
        for handle in handles:
            handle.remove()
    return _with_roles(found, anatomy) if anatomy else list(found.values())


def _with_roles(found: dict[str, LayerInfo], anatomy: Anatomy) -> list[LayerInfo]:
    roles: dict[str, str] = {}  # role -> layer; the last block of a stride wins
    for letter, part in (("P", anatomy.head_inputs), ("B", anatomy.backbone), ("G", anatomy.gates)):
        for name in part:
            if name in found:
                roles[f"{letter}{found[name].level}"] = name
    roles |= {role: name for role, name in anatomy.named.items() if name in found}
    return [
        replace(layer, roles=tuple(role for role, owner in roles.items() if owner == name))
        for name, layer in found.items()
    ]


def resolve(names: Sequence[str], pattern: str, where: str = "network") -> list[str]:
    """The module names that one pattern means, in the network's order.

    A number n means `model.n`, a glob such as `model.*.cv2` every name it matches (`*` stays within one part of the
    dotted name), anything else the name itself. Raises InputError, with the nearest names, when nothing matches.
    """
    wanted = f"model.{pattern}" if pattern.isdigit() else pattern
    matches = [name for name in names if _matches(name, wanted)]
    if not matches:
        raise InputError(f"layer '{pattern}' not found in the {where}{nearest(wanted, names)}")
    return matches


def _matches(name: str, pattern: str) -> bool:
    parts, wanted = name.split("."), pattern.split(".")
    return len(parts) == len(wanted) and all(map(fnmatchcase, parts, wanted))


def by_role(layers: Iterable[LayerInfo]) -> dict[str, LayerInfo]:
    """The layers that have a role, by role, in the order P.., B.. and other letters, each by level."""
    roles = {role: layer for layer in layers for role in layer.roles}
    return dict(sorted(roles.items(), key=lambda item: _order(item[0])))


def _order(role: str) -> tuple[bool, str, list[int]]:
    """`G2.1` is head 1 of the gate of level 2."""
    return role[0] != "P", role[0], [int(part) for part in role[1:].split(".")]
