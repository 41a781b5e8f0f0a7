"""Pictures of shapes: six classes on textured ground, among clutter that belongs to no class.

They partly hide each other, and colour says nothing about the class.
"""

from dataclasses import dataclass

import cv2
import numpy as np

from distill.errors import InputError

CLASSES = ("disc", "square", "triangle", "star", "cross", "moon")
SPLITS = ("train", "val")
CLUTTER = -1  # the kind of a shape that belongs to no class
SIDES = (0.16, 0.45)  # longer side of a whole object's box, as a share of the image's side
LEAST_VISIBLE = 0.6  # an object may lose the rest of its area to objects over it
LEAN = 0.4  # radians to either side: turned without limit, shapes take a small network far longer to tell apart
SQUARE = np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]])
FINE = 4  # shapes are drawn at this multiple of the resolution, then averaged: smooth edges


@dataclass(frozen=True)
class Scene:
    """One image with its labels; N objects, the later ones lie over the earlier ones.

    image: (H, W, 3) uint8, BGR as OpenCV has it. boxes: (N, 4) float32, x1 y1 x2 y2 in pixels, around the visible part.
    classes: (N,) int64, indices into `CLASSES`. polygons: N arrays (K, 2) float32, x y in pixels, along the edges of
    the visible pixels, so that their bounds are the boxes. masks: (N, H, W) bool, visible pixels; no two overlap.
    semantic: (H, W) uint8, 0 for background and class + 1 elsewhere.
    """

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray
    polygons: list[np.ndarray]
    masks: np.ndarray
    semantic: np.ndarray


def make_scene(index: int, split: str = "train", seed: int = 0, size: int = 160) -> Scene:
    """Scene `index` of a split: the same pixels for the same arguments, whatever was generated before.

    Raises `InputError` for an unknown split, a negative index or seed, or a size under 64 pixels.
    """
    if split not in SPLITS:
        raise InputError(f"scenes have no split '{split}'; there are {' and '.join(SPLITS)}")
    if index < 0 or seed < 0 or size < 64:
        raise InputError(f"scenes need index >= 0, seed >= 0, size >= 64; got {index}, {seed}, {size}")
    rng = np.random.default_rng([seed, SPLITS.index(split), index])
    image = _ground(rng, size)
    kinds = [*rng.integers(len(CLASSES), size=rng.integers(2, 6)), *[CLUTTER] * rng.integers(0, 3)]
    classes: list[int] = []
    masks: list[np.ndarray] = []  # (size, size) bool each
    areas: list[int] = []  # before anything lay over them
    for kind in rng.permutation(kinds):
        for _ in range(20):  # tries: a crowded scene goes without this shape
            cover = _cover(_outline(rng, kind), rng, size)
            shape = cover >= 0.5
            hidden = [mask & ~shape for mask in masks]
            seen = all(mask.sum() >= LEAST_VISIBLE * area for mask, area in zip(hidden, areas, strict=True))
            if seen and all(map(_one_piece, [shape, *hidden])):
                _paint(image, cover, rng)
                masks = hidden
                if kind != CLUTTER:
                    classes.append(kind)
                    masks.append(shape)
                    areas.append(shape.sum())
                break
    return _labelled(_exposed(image, rng), np.array(classes, np.int64), np.array(masks))


def _labelled(image: np.ndarray, classes: np.ndarray, masks: np.ndarray) -> Scene:
    """The scene with everything that follows from its visible masks (N, H, W)."""
    polygons = [_polygon(mask) for mask in masks]
    boxes = np.array([[*p.min(0), *p.max(0)] for p in polygons], np.float32)  # (N, 4)
    semantic = ((classes + 1)[:, None, None] * masks).sum(0).astype(np.uint8)  # masks do not overlap
    return Scene(image, boxes, classes, polygons, masks, semantic)


def _outline(rng: np.random.Generator, kind: int) -> np.ndarray:
    """The outline (K, 2) of a shape around the origin, upright, in any unit."""
    turn = np.linspace(0, 2 * np.pi, 64, endpoint=False)
    if kind == CLUTTER:
        if rng.random() < 0.5:
            return SQUARE * [1, rng.uniform(0.06, 0.25)]  # a bar
        waves = [rng.uniform(0.1, 0.25) * np.cos(n * turn + rng.uniform(0, 7)) for n in (2, 3, 4)]
        return _polar(turn, 1 + sum(waves))  # a blob
    name = CLASSES[kind]
    if name == "disc":
        return _polar(turn)
    if name == "square":
        return SQUARE
    if name == "triangle":
        return _polar(np.arange(3) * 2 * np.pi / 3 - np.pi / 2)
    if name == "star":
        return _polar(np.arange(10) * np.pi / 5 - np.pi / 2, np.tile([1, 0.4], 5))
    if name == "cross":
        corner = np.array([[1, -0.33], [1, 0.33], [0.33, 0.33]])
        quarter = np.array([[0, 1], [-1, 0]])
        return np.concatenate([corner @ np.linalg.matrix_power(quarter, n) for n in range(4)])
    outer = _polar(np.linspace(0.25, 1.75, 40) * np.pi)  # moon: a disc without another disc through its two tips
    inner = _polar(np.linspace(1.5, 0.5, 30) * np.pi, 0.707) + np.array([0.707, 0])
    return np.concatenate([outer, inner])


def _polar(angle: np.ndarray, radius: np.ndarray | float = 1.0) -> np.ndarray:
    """Points (K, 2) at these angles and distances from the origin."""
    return np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=-1)


def _cover(outline: np.ndarray, rng: np.random.Generator, size: int) -> np.ndarray:
    """How much of each pixel the shape covers, (size, size) in 0 to 1, at random angle, stretch, scale and place."""
    angle = rng.uniform(-LEAN, LEAN)
    turn = np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
    points = outline * [1, rng.uniform(0.8, 1)] @ turn
    points -= points.min(0)
    side = size * np.exp(rng.uniform(*np.log(SIDES)))  # small shapes as often as large ones, per octave
    points *= side / points.max()
    points += rng.uniform(0, size - points.max(0))
    fine = np.zeros((size * FINE, size * FINE), np.uint8)
    cv2.fillPoly(fine, [np.round(points * FINE).astype(np.int32)], 255)
    return cv2.resize(fine, (size, size), interpolation=cv2.INTER_AREA) / np.float32(255)


def _one_piece(mask: np.ndarray) -> bool:
    """Whether one outline describes the mask (H, W): not gone, not split, no hole. YOLO labels can say no more."""
    return len(cv2.findContours(mask.astype(np.uint8), cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)[0]) == 1


def _polygon(mask: np.ndarray) -> np.ndarray:
    """The outline (K, 2) of a mask of one piece, along the edges of its pixels."""
    double = cv2.resize(mask.astype(np.uint8), None, fx=2, fy=2, interpolation=cv2.INTER_NEAREST)
    outline = cv2.findContours(double, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_SIMPLE)[0][0]
    corners = (outline + 1) // 2  # pixel x became 2x and 2x + 1, whose outer edges are x and x + 1
    return cv2.approxPolyDP(corners, 0.1, closed=True)[:, 0].astype(np.float32)  # drops repeated and straight points


def _ground(rng: np.random.Generator, size: int) -> np.ndarray:
    """A graded, textured ground with thin curves on it, (size, size, 3) float32."""
    first, last = rng.uniform(50, 190) + rng.uniform(-45, 45, (2, 3))
    image = first + (last - first) * _ramp(rng, (size, size))[..., None]
    for cells, strength in ((4, 12), (16, 7), (64, 4)):
        image += strength * _noise(rng, (size, size), cells)[..., None]
    image = np.ascontiguousarray(image, np.float32)
    for _ in range(rng.integers(2, 7)):
        x, width = np.linspace(-0.1, 1.1, 50) * size, int(rng.integers(1, 3))
        y = rng.uniform(0, size) + rng.uniform(-1, 1) * x + rng.uniform(0, 15) * np.sin(x * rng.uniform(0.02, 0.1))
        points = np.stack([x, y] if rng.random() < 0.5 else [y, x], axis=-1)
        colour = image.mean((0, 1)) + rng.uniform(-40, 40, 3)
        cv2.polylines(image, [np.round(points * 16).astype(np.int32)], False, colour.tolist(), width, cv2.LINE_AA, 4)
    return image


def _paint(image: np.ndarray, cover: np.ndarray, rng: np.random.Generator) -> None:
    """Lay a shape over the image, in place: a soft shadow, then a shaded, sometimes striped fill of any colour."""
    x, y, width, height = cv2.boundingRect((cover > 0).astype(np.uint8))
    part = np.s_[max(y - 8, 0) : y + height + 8, max(x - 8, 0) : x + width + 8]  # 8: as far as a shadow reaches
    below, cover = image[part], cover[part]
    colour = rng.uniform(20, 235, 3)
    while np.abs(colour - below.mean((0, 1))).max() < 70:  # a shape that cannot be seen must not be asked for
        colour = rng.uniform(20, 235, 3)
    shade = rng.uniform(10, 50) * (_ramp(rng, cover.shape) - 0.5) + 4 * _noise(rng, cover.shape, 8)
    if rng.random() < 0.3:
        shade += rng.uniform(8, 22) * np.sign(np.sin(rng.uniform(8, 25) * _ramp(rng, cover.shape)))
    shadow = cv2.GaussianBlur(np.roll(cover, rng.integers(-3, 4, 2), (0, 1)), (0, 0), 1.6) * rng.uniform(0.1, 0.4)
    below = below * (1 - shadow[..., None])
    image[part] = below + (colour + shade[..., None] - below) * cover[..., None]


def _exposed(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The image as a camera might give it, uint8: brightness, contrast, blur and noise vary."""
    image = cv2.GaussianBlur(image, (0, 0), rng.uniform(0.2, 0.8))
    image = (image - 128) * rng.uniform(0.6, 1.1) + rng.uniform(95, 160)
    grain = rng.uniform(1, 6) * rng.standard_normal(image.shape, np.float32)
    return np.clip(image + grain, 0, 255).round().astype(np.uint8)


def _ramp(rng: np.random.Generator, shape: tuple[int, int]) -> np.ndarray:
    """A plane from 0 to 1 in a random direction, (H, W)."""
    angle = rng.uniform(0, 2 * np.pi)
    y, x = np.ogrid[-1 : 1 : shape[0] * 1j, -1 : 1 : shape[1] * 1j]
    plane = x * np.cos(angle) + y * np.sin(angle)
    return (plane - plane.min()) / np.ptp(plane)


def _noise(rng: np.random.Generator, shape: tuple[int, int], cells: int) -> np.ndarray:
    """Smooth noise of about unit strength, (H, W), with this many grains along each side."""
    return cv2.resize(rng.standard_normal((cells, cells)), shape[::-1], interpolation=cv2.INTER_CUBIC)
