"""Images and volumes to look at: what a network reads of them, what is shown of them, and the planes of a volume.

Planes are drawn as radiologists hang them: anterior or superior is up, the patient's right (in a sagittal plane the
front) on the left. Which axis of the array points where is read from the file; without it, axes are x (to the
patient's right), y (to the front), z (up). The networks see the array as it is stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image
from torch import Tensor

from distill.adapters.segment.data import Case
from distill.adapters.segment.files import is_volume, stem
from distill.adapters.segment.reading import read_case, read_image
from distill.attention.geometry import Frame, Lattice

WINDOW = 1, 99  # percentiles of a volume's values that become black and white
USUAL_AXES = ("R", "A", "S")  # where an array's axes lead: to the right, the front, the top
AXES = {"R": "x", "L": "x", "A": "y", "P": "y", "S": "z", "I": "z"}
VIEWS = {"z": ("axial", "y", "x"), "y": ("coronal", "z", "x"), "x": ("sagittal", "z", "y")}  # cut: name, rows, columns
FIRST = ("A", "S", "R")  # what is at the top, or on the left


@dataclass(frozen=True, eq=False)
class Subject:
    """One image or volume.

    `images` (C, *S) is what a network reads, normalised as in training. `pixels` is what is shown: (H, W, 3) uint8 of a
    picture; of a volume (D, H, W) uint8, its first channel between the 1st and the 99th percentile. `truth` (*S) are
    class numbers, None where they are not known. `spacing` is the size of a voxel in millimetres, of a pixel 1;
    `directions` where each axis of a volume leads, such as ("R", "A", "S"), empty for a picture.
    """

    name: str
    file: str
    images: Tensor
    pixels: np.ndarray
    truth: np.ndarray | None
    spacing: tuple[float, ...]
    directions: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, ...]:
        """The grid, (H, W) or (D, H, W)."""
        return tuple(self.images.shape[1:])


@dataclass(frozen=True, eq=False)
class Plane:
    """A picture as it is, or one plane of a volume, with square pixels; maps and masks are cut like it.

    `name` is "axial", "coronal" or "sagittal" ("" for a picture), `label` says which plane of how many. `picture` is
    (H, W, 3) uint8. `frame` leads from it to coordinates on the array's axes `across` (those of rows and of columns);
    its scale is negative where the array runs the other way. `axis` is the one that is cut, at `index`; None for a
    picture.
    """

    name: str
    label: str
    picture: np.ndarray
    frame: Frame
    across: tuple[int, int] = (0, 1)
    axis: int | None = None
    index: int = 0

    def cut(self, values: np.ndarray, lattice: Lattice) -> np.ndarray:
        """A map on this plane, (rows, columns) on its own grid: of a volume's (d, h, w) the layer of cells around it.

        `lattice` says where the map's cells lie in the array; for a picture nothing is cut.
        """
        if self.axis is None:
            return values
        centre = (self.index + 0.5 - lattice.offset[self.axis]) / lattice.stride[self.axis]
        cell = int(np.clip(round(centre), 0, values.shape[self.axis] - 1))
        return np.ascontiguousarray(self._turned(np.take(values, cell, self.axis)))

    def lattice(self, lattice: Lattice) -> Lattice:
        """Where the cells of what `cut` gives lie, in the coordinates that `frame` leads to."""
        offset, stride = ((part[self.across[0]], part[self.across[1]]) for part in (lattice.offset, lattice.stride))
        return Lattice(offset, stride)

    def mask(self, labels: np.ndarray) -> np.ndarray:
        """Class numbers (*S) of the whole array as this picture shows them, (H, W)."""
        return labels if self.axis is None else _drawn(self._turned(np.take(labels, self.index, self.axis)), self.frame)

    def _turned(self, values: np.ndarray) -> np.ndarray:
        return values if self.across[0] < self.across[1] else values.T


def read_subject(
    image: Path, mask: Path | None = None, channels: int = 1, classes: int | None = None, name: str | None = None
) -> Subject:
    """An image for a network of so many channels, and its mask (with `classes`, those that it may hold) if it has one.

    Raises InputError for what cannot be read, has other channels, or does not fit its mask.
    """
    truth = None
    if mask is None or classes is None:
        images = read_image(image, channels)
    else:
        images, labels = read_case(Case(image, mask), channels, classes)
        truth = labels.numpy().astype(np.int64)
    known = (name or stem(image), str(image), images)
    if not is_volume(image):
        with Image.open(image) as opened:
            return Subject(*known, np.asarray(opened.convert("RGB")), truth, (1.0, 1.0))
    header = nibabel.load(image)
    spacing = tuple(map(float, header.header.get_zooms()[:3]))
    return Subject(*known, _grey(images[0].numpy()), truth, spacing, _directions(header.affine))


def window(subject: Subject, size: Sequence[int], at: np.ndarray | None = None) -> tuple[slice, ...]:
    """The part of a subject of at most this size around the middle of its foreground: that of the truth, or of `at`."""
    labels = next((one for one in (subject.truth, at) if one is not None and (one > 0).any()), None)
    parts = []
    for axis, (whole, most) in enumerate(zip(subject.size, size, strict=True)):
        middle = whole / 2 if labels is None else float(np.mean(np.nonzero(labels > 0)[axis])) + 0.5
        start = int(np.clip(round(middle - most / 2), 0, max(0, whole - most)))
        parts.append(slice(start, min(whole, start + most)))
    return tuple(parts)


def cut_out(subject: Subject, parts: tuple[slice, ...]) -> Subject:
    """The part of a subject that these slices of its grid leave."""
    truth = None if subject.truth is None else subject.truth[parts]
    return replace(subject, images=subject.images[(slice(None), *parts)], pixels=subject.pixels[parts], truth=truth)


def planes(subject: Subject, at: np.ndarray | None = None) -> list[Plane]:
    """The picture itself; of a volume the axial, the coronal and the sagittal plane that hold most foreground.

    Foreground is that of the truth; without it that of `at`, class numbers (*S) such as a prediction; where there is
    none, the middle planes are taken.
    """
    if not subject.directions:
        height, width = subject.size
        return [Plane("", "", subject.pixels, Frame((height, width), (height, width), (1.0, 1.0), (0.0, 0.0)))]
    labels = next((one for one in (subject.truth, at) if one is not None and (one > 0).any()), None)
    named = {AXES[direction]: axis for axis, direction in enumerate(subject.directions)}
    return [
        _plane(subject, named[cut], (named[rows], named[columns]), labels, view, cut)
        for cut, (view, rows, columns) in VIEWS.items()
    ]


def _plane(
    subject: Subject, axis: int, across: tuple[int, int], labels: np.ndarray | None, view: str, letter: str
) -> Plane:
    index = subject.size[axis] // 2
    if labels is not None:
        others = tuple(other for other in range(3) if other != axis)
        index = int((labels > 0).sum(axis=others).argmax())
    size = subject.size[across[0]], subject.size[across[1]]
    finest = min(subject.spacing[one] for one in across) or 1.0
    picture = tuple(max(1, round(n * subject.spacing[one] / finest)) for n, one in zip(size, across, strict=True))
    scale, shift = [], []
    for cells, pixels, one in zip(size, picture, across, strict=True):
        mirrored = subject.directions[one] in FIRST  # the axis leads to what is to be at the top or on the left
        scale.append((-cells if mirrored else cells) / pixels)
        shift.append(float(cells) if mirrored else 0.0)
    frame = Frame((picture[0], picture[1]), size, (scale[0], scale[1]), (shift[0], shift[1]))
    values = np.take(subject.pixels, index, axis)
    grey = _drawn(values if across[0] < across[1] else values.T, frame)
    label = f"{view}, plane {index + 1} of {subject.size[axis]} along {letter}"
    return Plane(view, label, np.repeat(grey[..., None], 3, axis=2), frame, across, axis, index)


def _drawn(values: np.ndarray, frame: Frame) -> np.ndarray:
    """Values (rows, columns) of an array as the frame's picture shows them: each pixel that of its voxel."""
    rows, columns = (
        np.floor((np.arange(pixels) + 0.5) * scale + shift).astype(int).clip(0, cells - 1)
        for pixels, cells, scale, shift in zip(frame.picture, frame.input, frame.scale, frame.shift, strict=True)
    )
    return np.ascontiguousarray(values[np.ix_(rows, columns)])


def _grey(values: np.ndarray) -> np.ndarray:
    low, high = np.percentile(values, WINDOW)
    return (np.clip((values - low) / ((high - low) or 1.0), 0, 1) * 255).round().astype(np.uint8)


def _directions(affine: np.ndarray) -> tuple[str, ...]:
    """Where the axes lead; the usual where the file does not tell all three apart."""
    codes: Sequence[str | None] = nibabel.aff2axcodes(affine)
    known = [code for code in codes if code in AXES]
    return tuple(known) if len({AXES[code] for code in known}) == 3 else USUAL_AXES
