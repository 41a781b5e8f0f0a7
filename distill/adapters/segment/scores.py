"""How well a mask fits: MONAI's metrics, one image at a time, with what they mean where a class is absent.

An image without a class in which none is found is left out of that class's overlap (Dice, IoU; NaN): counted as 1, rare
classes would score high however badly they are found (nnU-Net does the same). Found although it is absent, it counts 0.
Precision is left out where nothing was found, recall where there is nothing to find; the surface distances where either
is empty.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch
from monai.inferers import SlidingWindowInferer
from monai.metrics import (
    compute_average_surface_distance,
    compute_dice,
    compute_hausdorff_distance,
    compute_iou,
    get_confusion_matrix,
)
from torch import Tensor, nn

from distill.adapters.segment.files import is_volume

OVERLAPS = ("dice", "iou")
DETAILS = ("precision", "recall", "hd95", "asd")
WINDOW = 2  # times the training crop, along each side: what larger images are cut into


def infer(network: nn.Module, images: Tensor, crop: Sequence[int]) -> Tensor:
    """Logits (B, K, *S) of images (B, C, *S) of any size: whole, or in overlapping windows where they are large."""
    window = [min(WINDOW * side, size) for side, size in zip(crop, images.shape[2:], strict=True)]
    if window == list(images.shape[2:]):
        return network(images)
    return SlidingWindowInferer(window, sw_batch_size=4, overlap=0.25, mode="gaussian")(images, network)


def one_hot(labels: Tensor, classes: int) -> Tensor:
    """(B, *S) class numbers -> (B, K, *S), true or false: torch's own takes 8 bytes each, too many of large volumes."""
    numbers = torch.arange(classes, device=labels.device).view(-1, *(1,) * (labels.ndim - 1))
    return labels.unsqueeze(1) == numbers


def overlaps(found: Tensor, truth: Tensor, classes: int) -> dict[str, Tensor]:
    """Dice and IoU of each class but the background, (B, K - 1) in [0, 1] or NaN, of class numbers (B, *S)."""
    a, b = one_hot(found, classes), one_hot(truth, classes)
    absent = ~(a | b).flatten(2).any(2)[:, 1:]
    options = {"include_background": False, "ignore_empty": False}
    scores = {"dice": compute_dice(a, b, **options), "iou": compute_iou(a, b, **options)}
    return {name: torch.where(absent, math.nan, values) for name, values in scores.items()}


def details(found: Tensor, truth: Tensor, classes: int, spacing: Sequence[float]) -> dict[str, Tensor]:
    """Precision, recall (in [0, 1]), 95 % Hausdorff and mean surface distance (both ways), (B, K - 1); NaN as above.

    Distances are in the unit of `spacing`, the length of a pixel or voxel along each axis.
    """
    a, b = one_hot(found, classes), one_hot(truth, classes)
    counted = get_confusion_matrix(a.byte(), b.byte(), include_background=False)  # it adds them up
    tp, fp, _, fn = counted.float().unbind(-1)
    per_axis = list(spacing)
    apart = {
        "hd95": compute_hausdorff_distance(a, b, percentile=95, spacing=per_axis),
        "asd": compute_average_surface_distance(a, b, symmetric=True, spacing=per_axis),
    }
    return {
        "precision": tp / (tp + fp),
        "recall": tp / (tp + fn),
        **{name: torch.where(values.isfinite(), values, math.nan) for name, values in apart.items()},
    }


def means(rows: Iterable[Mapping[str, float]], names: Sequence[str]) -> dict[str, float]:
    """`dice/anterior` and so on, means over the images that have them, and `dice`, the mean over classes."""
    table = list(rows)
    found: dict[str, float] = {}
    for score in (name for name in (*OVERLAPS, *DETAILS) if f"{name}/{names[1]}" in table[0]):
        per_class = {name: _mean([row[f"{score}/{name}"] for row in table]) for name in names[1:]}
        found[score] = _mean(list(per_class.values()))
        found |= {f"{score}/{name}": value for name, value in per_class.items()}
    return found


def spacing_of(path: Path, dims: int) -> tuple[float, ...]:
    """The size of a voxel in millimetres; of a pixel 1."""
    if not is_volume(path):
        return (1.0,) * dims
    return tuple(map(float, nibabel.load(path).header.get_zooms()[:dims]))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not math.isnan(value)]
    return float(np.mean(known)) if known else math.nan
