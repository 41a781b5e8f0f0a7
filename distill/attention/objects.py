"""Objects in a picture, labelled and predicted: which predictions find which labels, how far maps attend to them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from distill.attention.geometry import Frame, Lattice

Box = tuple[float, float, float, float]  # x1, y1, x2, y2
Span = tuple[float, float]  # from, to, along one axis

SMALL, MEDIUM = 32.0**2, 96.0**2  # picture pixels up to which an object is small, medium: COCO's limits
SLIVER = 1e-6  # of a cell: an overlap below it is rounding at an edge that two rectangles share


@dataclass(frozen=True)
class Object:
    """One object: `box` x1, y1, x2, y2 in picture pixels, its class by name, and the score if it was predicted.

    `corners` are the four corners (x, y) of an oriented box, whose bounds are then `box`.
    """

    box: tuple[float, float, float, float]
    name: str
    score: float | None = None
    corners: tuple[tuple[float, float], ...] = ()


@dataclass(frozen=True)
class Matches:
    """`found`: for each label the prediction that found it, None for a miss. `false_alarms`: the predictions left."""

    found: tuple[Object | None, ...]
    false_alarms: tuple[Object, ...]


@dataclass(frozen=True)
class Focus:
    """How far a map attends to one object; None where a figure does not exist.

    `energy` is the share of the picture's energy that lies in the box, `share` the box's share of the picture's area,
    `ratio` = energy / share: 1 if the map ignores the object. (The energy-based pointing game of Score-CAM, Wang et
    al. 2020, arXiv 1910.01279, which says nothing without the share beside it.)

    `pointing` is 1 if the strongest cell of the object's neighbourhood touches the box, else 0; equally strong ones
    each count in part. `pointing_chance` is what a random cell would score. The neighbourhood are the cells that
    touch the box grown to twice its sides about its centre. Where they all touch the box itself, as they may do if it
    is smaller than a cell, the chance is 1 and the answer would tell nothing: `pointing` is None. (After the pointing
    game, Zhang et al. 2018, arXiv 1608.00507, which asks for the strongest point of the whole picture.)
    """

    energy: float | None = None
    share: float | None = None
    ratio: float | None = None
    pointing: float | None = None
    pointing_chance: float | None = None


def size_class(box: Box) -> str:
    """COCO's classes by area in picture pixels: small below 32^2, medium below 96^2, large."""
    area = (box[2] - box[0]) * (box[3] - box[1])
    return "small" if area < SMALL else "medium" if area < MEDIUM else "large"


def match(labels: Sequence[Object], predictions: Sequence[Object], iou: float = 0.5) -> Matches:
    """Which label each prediction finds: the best first, each takes the free label of its class that it covers best.

    As COCO does: the IoU has to be at least `iou`, and a second prediction of the same object is a false alarm.
    Oriented boxes count with their bounds.
    """
    from torchvision.ops import box_iou  # here: it takes a second to import, and pictures do not need it

    overlaps = box_iou(_boxes(predictions), _boxes(labels)).tolist()
    found: list[Object | None] = [None] * len(labels)
    false_alarms = []
    for prediction, covers in sorted(
        zip(predictions, overlaps, strict=True), key=lambda pair: pair[0].score or 0.0, reverse=True
    ):
        free = [
            i
            for i, label in enumerate(labels)
            if found[i] is None and label.name == prediction.name and covers[i] >= iou
        ]
        if free:
            found[max(free, key=covers.__getitem__)] = prediction
        else:
            false_alarms.append(prediction)
    return Matches(tuple(found), tuple(false_alarms))


def focus(values: np.ndarray, lattice: Lattice, frame: Frame, box: Box) -> Focus:
    """How far a map (h, w), laid on the whole input, attends to a box in the picture.

    A cell spreads its energy evenly over one stride around its centre; the outermost ones reach on to the edge of the
    input, as when maps are drawn, so a flat map has a ratio of exactly 1 everywhere. The letterbox's border and what
    a crop cuts off count neither as picture nor as box.
    """
    picture = _shown(frame, (0, 0, frame.picture[1], frame.picture[0]))
    inside = _shown(frame, box)
    share = _area(inside) / _area(picture)
    values = values.astype(np.float64)
    if not share or not np.isfinite(values).all():
        return Focus(share=share)
    total, part = (_energy(values, lattice, region) for region in (picture, inside))
    if not total:
        return Focus(share=share)
    pointing, chance = _pointing(values, lattice, inside, _shown(frame, _grown(box)))
    return Focus(part / total, share, part / total / share, pointing, chance)


def _pointing(
    values: np.ndarray, lattice: Lattice, inside: tuple[Span, Span], around: tuple[Span, Span]
) -> tuple[float | None, float | None]:
    rows, columns = (cells > SLIVER for cells in _covered(values, lattice, around))
    box_rows, box_columns = (cells > SLIVER for cells in _covered(values, lattice, inside))
    near = values[np.ix_(rows, columns)]
    touches = np.outer(box_rows[rows], box_columns[columns])
    if not touches.any():  # the box is no more than a sliver
        return None, None
    chance = float(touches.mean())
    return (None if chance == 1 else float(touches[near == near.max()].mean())), chance


def _energy(values: np.ndarray, lattice: Lattice, region: tuple[Span, Span]) -> float:
    """In cells of unit area: a region of exactly one cell has that cell's value."""
    rows, columns = _covered(values, lattice, region)
    return float(rows @ values @ columns)


def _covered(values: np.ndarray, lattice: Lattice, region: tuple[Span, Span]) -> tuple[np.ndarray, np.ndarray]:
    """For rows (h,) and columns (w,), how many strides of each cell a region of the input covers."""
    covered = []
    for axis in (0, 1):
        edges = lattice.offset[axis] + (np.arange(values.shape[axis] + 1) - 0.5) * lattice.stride[axis]
        edges[[0, -1]] = -np.inf, np.inf
        covered.append(np.diff(np.clip(edges, *region[axis])) / lattice.stride[axis])
    return covered[0], covered[1]


def _shown(frame: Frame, box: Box) -> tuple[Span, Span]:
    """(rows, columns) of the input that a box takes up, cut to the picture and to the input."""
    x1, x2 = np.clip(box[0::2], 0, frame.picture[1])
    y1, y2 = np.clip(box[1::2], 0, frame.picture[0])
    corners = zip(frame.to_input(y1, x1), frame.to_input(y2, x2), frame.input, strict=True)
    rows, columns = ((float(np.clip(low, 0, end)), float(np.clip(high, 0, end))) for low, high, end in corners)
    return rows, columns


def _area(region: tuple[Span, Span]) -> float:
    (top, bottom), (left, right) = region
    return max(0.0, bottom - top) * max(0.0, right - left)


def _grown(box: Box) -> Box:
    """The box with twice its sides about its centre."""
    x1, y1, x2, y2 = box
    return (3 * x1 - x2) / 2, (3 * y1 - y2) / 2, (3 * x2 - x1) / 2, (3 * y2 - y1) / 2


def _boxes(objects: Sequence[Object]) -> torch.Tensor:
    return torch.tensor([thing.box for thing in objects], dtype=torch.float64).reshape(-1, 4)
