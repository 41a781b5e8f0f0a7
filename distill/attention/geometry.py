"""Where in a picture a cell of a map lies: the frame of the picture in the input, and the lattice of the cells.

Two conventions meet here. Coordinates are continuous, in pixels: pixel j covers [j, j + 1). A picture of any size is
brought into the network's input by a scale and a shift for each axis (letterboxing); cell i of a layer is centred on
`offset + i stride` input pixels. The stride is the ratio of the sizes. The offset is not stride / 2, as is often drawn:
a 3x3 convolution of stride 2 and padding 1 centres cell i on pixel 2i, training moves the centre on, and every layer
ends elsewhere. So it is measured, see `calibrate`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

Axes = tuple[float, ...]  # one number per spatial axis, (y, x) for pictures

USUAL_OFFSET = 0.25  # of a stride: offsets lie between 0 (convolution arithmetic) and 0.5, so it is never far off
VARIED = 8  # images behind a measured lattice: with fewer, noise on small grids passes for agreement
LEAST_CELLS = 5  # on an axis: on fewer the search would compare single cells
LEAST_AGREEMENT = 0.5  # correlation under which the mirrored answer says nothing of the offset
LEAST_PEAK = 0.1  # of the best correlation over the worst, or what it lacks to 1, if less: flat scores tell of no place
FINE = 16  # steps per cell in the search for the mirrored answer's shift
STEPS = range(-22, 7)  # offsets of -0.19 to 0.69 of a stride: convolutions give 0 to 0.5, and training moves within
TOLERANCE = 1e-4  # of a correlation in float32
TINY = 1e-30  # guards the division for a map that is zero


@dataclass(frozen=True)
class Frame:
    """How a picture of `picture` (height, width) pixels lies in an input of `input` (height, width) pixels.

    `input coordinate = picture coordinate * scale + shift`, for each axis; a negative shift means a crop,
    a negative scale a mirrored axis (planes of volumes).
    """

    picture: tuple[int, int]
    input: tuple[int, int]
    scale: tuple[float, float]
    shift: tuple[float, float]

    def to_input(self, y: float, x: float) -> tuple[float, float]:
        """Input coordinates of a point of the picture."""
        return y * self.scale[0] + self.shift[0], x * self.scale[1] + self.shift[1]

    def to_picture(self, y: float, x: float) -> tuple[float, float]:
        """Picture coordinates of a point of the input; the letterbox's border lies outside the picture."""
        return (y - self.shift[0]) / self.scale[0], (x - self.shift[1]) / self.scale[1]


@dataclass(frozen=True)
class Lattice:
    """The centres of a layer's cells: cell i lies at `offset + i stride` input pixels, for each spatial axis.

    `agreement` is the correlation, for each axis, that the offset was read from; 0 where the usual one is taken.
    """

    offset: Axes
    stride: Axes
    agreement: Axes = ()

    def centre(self, *cell: float) -> Axes:
        """Input coordinates of a cell's centre."""
        return tuple(o + i * s for o, i, s in zip(self.offset, cell, self.stride, strict=True))

    def cell(self, *point: float) -> Axes:
        """The (fractional) cell at these input coordinates; whole numbers at centres."""
        return tuple((x - o) / s for o, x, s in zip(self.offset, point, self.stride, strict=True))

    def moved(self, size: Sequence[int], new: Sequence[int]) -> Lattice:
        """The lattice of the same map resized from `size` to `new` cells, as `AttentionMap.resize` does."""
        factors = [old / now for old, now in zip(size, new, strict=True)]
        offset = tuple(o + s * (f - 1) / 2 for o, s, f in zip(self.offset, self.stride, factors, strict=True))
        return Lattice(offset, tuple(s * f for s, f in zip(self.stride, factors, strict=True)), self.agreement)


def resample(values: np.ndarray, lattice: Lattice, frame: Frame, size: tuple[int, int]) -> np.ndarray:
    """A map (h, w) drawn on the picture: (rows, columns) of `size`, linear between cell centres, constant outside them.

    Row r of the result lies at the picture coordinate (r + 1/2) height / rows.
    """
    rows, columns = (
        _hats(values.shape[axis], size[axis], frame.picture[axis], frame.scale[axis], frame.shift[axis], lattice, axis)
        for axis in (0, 1)
    )
    return np.asarray(rows @ values.astype(np.float32) @ columns.T, dtype=np.float32)


def _hats(cells: int, pixels: int, extent: int, scale: float, shift: float, lattice: Lattice, axis: int) -> np.ndarray:
    """(pixels, cells): the weight of each cell in each pixel, rows sum to 1."""
    points = (np.arange(pixels) + 0.5) * extent / pixels * scale + shift
    position = np.clip((points - lattice.offset[axis]) / lattice.stride[axis], 0, cells - 1)
    weights: np.ndarray = np.maximum(0, 1 - np.abs(position[:, None] - np.arange(cells)))
    return weights.astype(np.float32)


def calibrate(run: Callable[[Tensor], Mapping[str, Tensor]], images: Tensor) -> dict[str, Lattice]:
    """The lattice of each layer, measured by mirroring.

    `run(images)` gives each layer's maps (B, *S) for `images` (B, C, *S'); it is called once as they are and once for
    each axis mirrored. A network that answers alike to an image and to its mirror image gives the mirrored map shifted
    by (1 - 2 offset / stride) cells, which is where the two maps correlate best. What a map always is, whatever the
    image (a bright border), is taken off first, for it does not mirror; so several images are needed, and fewer than
    `VARIED` are filled up with copies moved round.

    Where the maps hardly correlate (under 0.5), where they do at any shift, or where the best shift is the last one
    tried, nothing is known, and a quarter of the stride is taken: it is at most a quarter of a cell from both 0, which
    convolution arithmetic gives a stack of strided 3x3 convolutions, and half a stride, that of patches.
    """
    images = _varied(images)
    plain = run(images)
    measured: dict[str, list[tuple[float, float, float]]] = {layer: [] for layer in plain}
    for axis in range(images.ndim - 2):
        mirrored = run(images.flip(axis + 2))
        pixels = images.shape[axis + 2]
        for layer, maps in plain.items():
            stride = _stride(pixels, cells := maps.shape[axis + 1])
            found = _shift(maps.float(), mirrored[layer].float().flip(axis + 1), axis + 1)
            if found is None:
                measured[layer].append((USUAL_OFFSET * stride, stride, 0.0))
            else:  # the mirrored map equals this one `shift` cells on: solve for the centre of cell 0
                shift, agreement = found
                measured[layer].append(((pixels - (cells - 1 - shift) * stride) / 2, stride, agreement))
    return {layer: Lattice(*(tuple(part) for part in zip(*found, strict=True))) for layer, found in measured.items()}


def _varied(images: Tensor) -> Tensor:
    """At least `VARIED` images: copies moved round by thirds and more of the sides where there are fewer."""
    copies = -(-VARIED // len(images))
    dims = tuple(range(2, images.ndim))
    moved = [images.roll([round(images.shape[d] * 0.38 * k) for d in dims], dims) for k in range(copies)]
    return torch.cat(moved) if copies > 1 else images


def _stride(pixels: int, cells: int) -> float:
    """Pixels per cell: a whole number where one fits the sizes (65 pixels on 33 cells are 2 each, not 1.97)."""
    whole = round(pixels / cells)
    return float(whole) if whole and -(-pixels // whole) == cells else pixels / cells


def _shift(a: Tensor, b: Tensor, dim: int) -> tuple[float, float] | None:
    """By how many cells b (B, *S) lies behind a along `dim`, where they correlate best, and that correlation."""
    if a.shape[dim] < LEAST_CELLS:
        return None
    fine = [_refined(_own(maps), dim) for maps in (a, b)]
    reach = max(map(abs, STEPS))
    length = fine[0].shape[dim] - 2 * reach
    window = fine[0].narrow(dim, reach, length)
    scores = [_correlation(window, fine[1].narrow(dim, reach + step, length)) for step in STEPS]
    best = int(np.argmax(scores))
    agreement, peak = scores[best], scores[best] - min(scores)
    at_the_end = best in (0, len(scores) - 1)
    if at_the_end or agreement < LEAST_AGREEMENT or peak < min(LEAST_PEAK, 1 - agreement + TOLERANCE):
        return None
    return STEPS[best] / FINE, agreement


def _own(maps: Tensor) -> Tensor:
    """Each image's part of its map, at one size: divided by the root mean square, less the mean over all images."""
    size = maps.flatten(1).square().mean(dim=1).sqrt().clamp_min(TINY)
    relative = maps / size.view(-1, *[1] * (maps.ndim - 1))
    return relative - relative.mean(dim=0)


def _refined(maps: Tensor, dim: int) -> Tensor:
    """The maps drawn linearly, `FINE` times as fine along `dim`, from the first cell's centre to the last's."""
    moved = maps.movedim(dim, -1)
    flat = moved.reshape(-1, 1, moved.shape[-1])
    flat = F.interpolate(flat, size=(moved.shape[-1] - 1) * FINE + 1, mode="linear", align_corners=True)
    return flat.reshape(*moved.shape[:-1], -1).movedim(-1, dim)


def _correlation(a: Tensor, b: Tensor) -> float:
    """Pearson's over all images together, each about its own mean; 0 for flat maps."""
    a, b = (x.flatten(1) - x.flatten(1).mean(dim=1, keepdim=True) for x in (a, b))
    return torch.cosine_similarity(a.flatten(), b.flatten(), dim=0).item()
