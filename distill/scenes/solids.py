"""Volumes of solids: ellipsoids and rings in textured tissue, among rods that belong to no class.

Brightness says nothing about the class, and the scale of intensities differs from volume to volume, as in MRI.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from distill.errors import InputError
from distill.scenes.shapes import SPLITS

KINDS = ("ellipsoid", "ring")
ROD = -1  # the kind of a solid that belongs to no class
SIZE = (32, 40, 32)  # voxels
REACH = (0.14, 0.24)  # radius of a solid, as a share of the shortest side


@dataclass(frozen=True)
class Volume:
    """image: (X, Y, Z) float32, any scale. labels: (X, Y, Z) uint8, 0 for background and kind + 1 elsewhere."""

    image: np.ndarray
    labels: np.ndarray


def make_volume(index: int, split: str = "train", seed: int = 0, size: tuple[int, int, int] = SIZE) -> Volume:
    """Volume `index` of a split: the same voxels for the same arguments, whatever was generated before.

    Raises `InputError` for an unknown split, a negative index or seed, or a side under 16 voxels.
    """
    if split not in SPLITS:
        raise InputError(f"volumes have no split '{split}'; there are {' and '.join(SPLITS)}")
    if index < 0 or seed < 0 or min(size) < 16:
        raise InputError(f"volumes need index >= 0, seed >= 0, sides >= 16; got {index}, {seed}, {size}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index, 3])
    image = sum(strength * _texture(rng, size, cells) for cells, strength in ((3, 0.5), (8, 0.25)))
    labels = np.zeros(size, np.uint8)
    kinds = [0, 1, *rng.integers(len(KINDS), size=rng.integers(0, 3)), *[ROD] * rng.integers(1, 4)]
    for kind in rng.permutation(kinds):
        inside = 1 / (1 + np.exp(_distance(kind, rng, size) / 0.5))  # (X, Y, Z): soft over about two voxels
        image += rng.uniform(1.2, 2.5) * rng.choice([-1, 1]) * inside
        labels[inside >= 0.5] = kind + 1
    image += rng.uniform(0.1, 0.4) * rng.standard_normal(size)
    scale = np.exp(rng.uniform(np.log(100), np.log(100_000)))
    return Volume((scale * (image - image.min())).astype(np.float32), labels)


def _distance(kind: int, rng: np.random.Generator, size: tuple[int, int, int]) -> np.ndarray:
    """The distance in voxels to a solid's surface, negative inside, at a random place, size and angle, (X, Y, Z)."""
    radius = min(size) * rng.uniform(*REACH)
    centre = [rng.uniform(radius, side - radius) for side in size]
    points = np.stack(np.meshgrid(*map(np.arange, size), indexing="ij"), axis=-1) + 0.5 - centre
    turn, _ = np.linalg.qr(rng.standard_normal((3, 3)))
    x, y, z = np.moveaxis(points @ turn, -1, 0)
    if kind == ROD:
        along = np.clip(z, -1.5 * radius, 1.5 * radius)
        return np.sqrt(x**2 + y**2 + (z - along) ** 2) - 0.2 * radius
    if KINDS[kind] == "ring":
        return np.hypot(np.hypot(x, y) - 0.75 * radius, z) - 0.35 * radius
    axes = rng.uniform(0.6, 1, 3)
    return (np.sqrt((x / axes[0]) ** 2 + (y / axes[1]) ** 2 + (z / axes[2]) ** 2) - 0.9 * radius) * axes.min()


def _texture(rng: np.random.Generator, size: tuple[int, int, int], cells: int) -> np.ndarray:
    """Smooth noise of about unit strength, (X, Y, Z), with this many grains along each side."""
    grains = rng.standard_normal((cells, cells, cells))
    planes = np.stack(
        [cv2.resize(plane, size[1::-1], interpolation=cv2.INTER_CUBIC) for plane in np.moveaxis(grains, 2, 0)]
    )
    flat = cv2.resize(planes.reshape(cells, -1), (size[0] * size[1], size[2]), interpolation=cv2.INTER_CUBIC)
    return flat.T.reshape(size)
