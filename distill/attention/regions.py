"""How far a map attends to a region of any shape, such as the foreground of a mask; for images and volumes."""

from __future__ import annotations

import numpy as np

from distill.attention.geometry import Lattice
from distill.attention.objects import Focus


def focus_on(values: np.ndarray, lattice: Lattice, region: np.ndarray) -> Focus:
    """The energy of a map (*s) in a region (*S, true or false in each pixel), beside the region's share of the area.

    As `focus` for boxes: a cell spreads its energy evenly over one stride around its centre, the outermost ones reach
    on to the edge, so a flat map has a ratio of exactly 1. Pointing is left out: a region has no neighbourhood.
    """
    share = float(np.mean(region, dtype=np.float64))
    exact = values.astype(np.float64)
    whole, inside = (_per_cell(area, values.shape, lattice) for area in (np.ones(region.shape), region))
    total = float((exact * whole).sum())
    if not share or not np.isfinite(total) or not total:
        return Focus(share=share)
    part = float((exact * inside).sum()) / total
    return Focus(part, share, part / share)


def correlation(values: np.ndarray, lattice: Lattice, region: np.ndarray) -> float | None:
    """Pearson's correlation, over the cells, of a map with the share of the region in each cell; None if one is flat.

    In [-1, 1]; 0 is what an unrelated map has.
    """
    whole, inside = (_per_cell(area, values.shape, lattice) for area in (np.ones(region.shape), region))
    a, b = (one - one.mean() for one in (values.astype(np.float64), inside / np.where(whole > 0, whole, 1.0)))
    norm = np.sqrt((a**2).sum() * (b**2).sum())
    return float((a * b).sum() / norm) if np.ptp(values) > 0 and norm > 0 else None


def _per_cell(area: np.ndarray, grid: tuple[int, ...], lattice: Lattice) -> np.ndarray:
    """How much of `area` (*S) each cell takes up, in pixels: (*grid)."""
    for axis, cells in enumerate(grid):
        length = area.shape[axis]
        edges = lattice.offset[axis] + (np.arange(cells + 1) - 0.5) * lattice.stride[axis]
        edges[[0, -1]] = -np.inf, np.inf
        low, high = np.maximum(edges[:-1, None], np.arange(length)), np.minimum(edges[1:, None], np.arange(length) + 1)
        covered = np.maximum(0, high - low)  # (cells, length)
        area = np.moveaxis(np.tensordot(covered, area, (1, axis)), 0, axis)
    return area
