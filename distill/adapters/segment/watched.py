"""What is looked at of a U-Net over the epochs of its training, and how an image of any size is looked at."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from distill.adapters.segment import scores
from distill.adapters.segment.lattices import layers_of_whole_cells
from distill.adapters.segment.plan import Plan
from distill.attention.layers import LayerInfo, by_role
from distill.attention.maps import AttentionMap, Kind
from distill.attention.pairs import GATE
from distill.attention.taps import Taps
from distill.networks.unet import UNet
from distill.terms.gates import relative
from distill.view.exhibit import STUDENT, TEACHER


@dataclass(frozen=True)
class Look:
    """What is read of one network for one row: a gate's alpha, a layer's energy, or that brought to a gate's terms.

    `kind` is the layer's. In a row of gates (`shown` "gate") an energy becomes what `--gates teacher` makes of it: on
    the gate's grid, 0 to 1 between its quantiles (`terms.gates.relative`). `stride` is that of the map's cells.
    """

    layer: LayerInfo
    kind: Kind
    shown: Kind
    stride: tuple[float, ...]

    @property
    def type(self) -> str:
        """The module's class, and what was made of its energy."""
        return self.layer.type if self.kind == self.shown else f"{self.layer.type}, energy from 0 to 1"


def looks(student: UNet, prepared: Plan) -> dict[str, dict[str, Look]]:
    """What is read of "student" and "teacher", by row: the student's gates and the pairs; without both its decoder.

    Beside a gate stands what guides it, or else the teacher's gate of that role; some stand alone.
    """
    mine = {layer.name: layer for layer in layers_of_whole_cells(student)}
    theirs: dict[str, LayerInfo] = {}
    if prepared.teacher:
        theirs = {layer.name: layer for layer in layers_of_whole_cells(prepared.teacher.module)}
    roles, guides = by_role(mine.values()), by_role(theirs.values())
    watched = [role for role in roles if role.startswith(GATE)]
    if not watched and not prepared.pairs:
        watched = [role for role in roles if role.startswith("D")]
    kinds: dict[str, Kind] = {role: "gate" if role.startswith(GATE) else "energy" for role in watched}
    found = {role: {STUDENT: Look(roles[role], kind, kind, roles[role].stride)} for role, kind in kinds.items()}
    for role in found.keys() & guides.keys():
        found[role][TEACHER] = Look(guides[role], kinds[role], kinds[role], guides[role].stride)
    for pair in (pair for pair in prepared.gates if pair.teacher):
        layer = theirs[pair.teacher]
        stride = layer.stride if pair.kind == "gate" else mine[pair.student].stride
        found[pair.name][TEACHER] = Look(layer, pair.kind, "gate", stride)
    for pair in prepared.pairs:
        sides = {STUDENT: mine[pair.student], TEACHER: theirs[pair.teacher]}
        found[pair.name] = {key: Look(layer, pair.kind, pair.kind, layer.stride) for key, layer in sides.items()}
    return found


@torch.no_grad()
def see(
    network: UNet, images: Tensor, rows: Mapping[str, Look], crop: Sequence[int], p: float
) -> tuple[Tensor, dict[str, AttentionMap]]:
    """Logits (1, K, *S) of one image (1, C, *S), and each row's map on the layer's own grid, from the whole image.

    Images of more than `scores.WINDOW` crops are seen in windows, as they are when they are segmented: there the maps
    are enlarged, blended like the logits, and brought back to their grids.
    """
    size, eyes = images.shape[2:], _Eyes(network, rows, p)
    if all(side <= scores.WINDOW * one for side, one in zip(size, crop, strict=True)):
        logits, maps = eyes.look(images)
    else:
        seen = scores.infer(eyes, images, crop)
        logits, parts = seen[:, : network.classes], seen[:, network.classes :].unbind(1)
        maps = {
            name: AttentionMap(values, row.layer.name, row.kind).resize(grid(size, row.layer.stride))
            for (name, row), values in zip(rows.items(), parts, strict=True)
        }
    for name, row in rows.items():
        if row.kind != row.shown:
            target = maps[name].resize(grid(size, row.stride))
            maps[name] = AttentionMap(relative(target.values), row.layer.name, row.shown)
    return logits, maps


def grid(size: Sequence[int], stride: Sequence[float]) -> tuple[int, ...]:
    """How many cells a layer of this stride has for an input of this size: pooling rounds up."""
    return tuple(math.ceil(n / s) for n, s in zip(size, stride, strict=True))


class _Eyes(nn.Module):
    """A network that says beside its logits what its layers say: (B, K + rows, *S), the maps enlarged to S."""

    def __init__(self, network: UNet, rows: Mapping[str, Look], p: float) -> None:
        super().__init__()
        self.network, self._rows, self._p = network, rows, p

    def forward(self, images: Tensor) -> Tensor:
        logits, maps = self.look(images)
        size = images.shape[2:]
        return torch.cat([logits, *(one.resize(size).values.unsqueeze(1) for one in maps.values())], dim=1)

    def look(self, images: Tensor) -> tuple[Tensor, dict[str, AttentionMap]]:
        with Taps(self.network, [row.layer.name for row in self._rows.values()]) as taps:
            logits = self.network(images).float()
            features = taps.read()
        return logits, {
            name: AttentionMap.read(features[row.layer.name], row.layer.name, row.kind, self._p)
            for name, row in self._rows.items()
        }
