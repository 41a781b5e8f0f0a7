"""One image or volume of a U-Net as the samples of an exhibit: itself, or the planes that are shown of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Any

import numpy as np

from distill.attention.geometry import Lattice
from distill.view.exhibit import Sample

ByRow = Mapping[str, Mapping[str, Any]]  # by row and network


def samples_of(
    subject: Any,
    planes: Sequence[Any],
    maps: ByRow,
    masks: Mapping[str, np.ndarray],
    dice: Mapping[str, Mapping[str, float]],
    lattices: Mapping[str, Mapping[str, Lattice]],
) -> list[Sample]:
    """A sample for each plane (a picture is one); `maps`, `masks` and `dice` are of the whole, maps on their grids."""
    return [_sample(subject, plane, maps, masks, dice, lattices) for plane in planes]


def whole_of(subject: Any, shown: Sample, maps: ByRow, masks: Mapping[str, np.ndarray]) -> Sample:
    """The whole in the place of its planes, one of which is `shown`: for figures, which look at no picture or frame."""
    return replace(shown, name=subject.name, file=subject.file, maps=maps, masks=masks, lattices={}, case="")


def _sample(
    subject: Any,
    plane: Any,
    maps: ByRow,
    masks: Mapping[str, np.ndarray],
    dice: Mapping[str, Mapping[str, float]],
    lattices: Mapping[str, Mapping[str, Lattice]],
) -> Sample:
    told = f"Dice {{:.3f}}{' of the whole volume' if plane.name else ''}"
    return Sample(
        f"{subject.name}-{plane.name}" if plane.name else subject.name,
        f"{subject.file} {plane.label}".strip(),
        plane.picture,
        plane.frame,
        {
            name: {key: plane.cut(one, lattices[name][key]) for key, one in sides.items()}
            for name, sides in maps.items()
        },
        verdicts={key: told.format(fmean(found.values())) for key, found in dice.items()},
        masks={key: plane.mask(mask) for key, mask in masks.items()},
        dice=dice,
        case=subject.name if plane.name else "",
        lattices={row: {key: plane.lattice(one) for key, one in sides.items()} for row, sides in lattices.items()},
    )
