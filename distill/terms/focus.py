"""Where an attention map counts: everywhere alike, on the labelled objects, or where the teacher is confident.

A whole map is dominated by its background: objects cover a few per cent of most images. A focus multiplies both maps,
before they are normalised, by the same non-negative weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

from distill.attention.maps import AttentionMap
from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.terms.base import Batch, View


class Focus(Protocol):
    """Weights for the positions of a pair's maps."""

    def layers(self) -> tuple[str, ...]:
        """The teacher's layers that it reads."""
        ...

    def reads(self, pair: Pair) -> str:
        """The one of them that a pair's weights depend on ("" for none), beside the batch and the grid.

        Pairs for which it is the same, on one grid, are given the same weights.
        """
        ...

    def __call__(self, pair: Pair, teacher: View, batch: Batch, size: Sequence[int]) -> Tensor:
        """(B, *size), non-negative, without gradient."""
        ...


class BoxFocus:
    """Labelled boxes alone, each worth the same: the squares of a box's weights add up to 1, the rest counts nothing.

    A cell inside a box of n cells counts 1 / sqrt(n), and one that a box covers in part counts by that part. So the
    squared distance between focused maps is weighted by 1 / area, and a small object weighs as much as a large one, on
    every grid (the scale mask of FGD, Yang et al., CVPR 2022, arXiv 2111.11837, eq. 2 and 3). Where
    boxes overlap, the smaller one counts. Maps of images without boxes become zero, and their distance 0.
    """

    def layers(self) -> tuple[str, ...]:
        return ()

    def reads(self, pair: Pair) -> str:
        return ""

    def __call__(self, pair: Pair, teacher: View, batch: Batch, size: Sequence[int]) -> Tensor:
        if batch.boxes is None or batch.box_image is None:
            raise InputError("--focus boxes needs labelled boxes: this task has none")
        rows, columns = overlaps(batch.boxes, size)
        whole = (rows.square().sum(1) * columns.square().sum(1)).sqrt()  # 0 for a box outside the image
        rows = rows / torch.where(whole > 0, whole, 1.0).unsqueeze(1)
        return painted(rows, columns, batch.box_image, len(batch.images))


class ScoreFocus:
    """The teacher's confidence: its highest class probability at each position, as in Ultralytics' own distillation.

    `logits` names, for each pair, the teacher's layer that gives the class logits (B, K, H, W) of the pair's level.
    """

    def __init__(self, logits: Mapping[str, str]) -> None:
        self.logits = dict(logits)

    def layers(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(self.logits.values()))

    def reads(self, pair: Pair) -> str:
        return self.logits[pair.name]

    def __call__(self, pair: Pair, teacher: View, batch: Batch, size: Sequence[int]) -> Tensor:
        layer = self.reads(pair)
        best = teacher.features[layer].detach().float().amax(1).sigmoid()  # (B, H, W)
        return AttentionMap(best, layer, "gate").resize(size).values


def covered(boxes: Tensor, box_image: Tensor, images: int, size: Sequence[int]) -> Tensor:
    """How much of each cell lies in a box, (images, H, W) in [0, 1]; where boxes overlap the larger share counts.

    `boxes` (M, 4) are normalised xywh, `box_image` (M,) says which image each lies in.
    """
    return painted(*overlaps(boxes, size), box_image, images)


def overlaps(boxes: Tensor, size: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The share of each row and of each column that a box covers: (M, 4) normalised xywh -> (M, H), (M, W)."""
    x, y, w, h = boxes.unbind(1)
    return _overlap(y, h, size[0]), _overlap(x, w, size[1])


def painted(rows: Tensor, columns: Tensor, box_image: Tensor, images: int) -> Tensor:
    """rows x columns of each box in its image, (images, H, W); where boxes overlap the largest value counts."""
    values = torch.einsum("mi,mj->mij", rows, columns)  # (M, H, W)
    result = values.new_zeros(images, *values.shape[1:])
    index = box_image.long().view(-1, 1, 1).expand_as(values)
    return result.scatter_reduce(0, index, values, "amax")


def _overlap(centre: Tensor, length: Tensor, cells: int) -> Tensor:
    """The share of each of `cells` equal parts of [0, 1] that an interval covers: (M,) -> (M, cells)."""
    edges = torch.arange(cells + 1, device=centre.device) / cells
    start, end = (centre - length / 2).unsqueeze(1), (centre + length / 2).unsqueeze(1)
    return ((torch.minimum(end, edges[1:]) - torch.maximum(start, edges[:-1])) * cells).clamp(0, 1)
