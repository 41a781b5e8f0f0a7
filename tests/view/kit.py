"""An exhibit made by hand: generated scenes, maps that peak at their objects, figures of plausible size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np

from distill.attention.geometry import Frame, Lattice
from distill.attention.objects import Object
from distill.scenes import CLASSES, make_scene
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Interval, Network, Numbers, Row, Sample, Side

STRIDES = {"P3": 8, "P4": 16, "P5": 32, "B3": 8, "B4": 16, "B5": 32}
FILES = {TEACHER: "big.pt", STUDENT: "best.pt", BASELINE: "plain.pt"}
CHANNELS = {TEACHER: 256, STUDENT: 64, BASELINE: 64}
SHARPNESS = {TEACHER: 1.0, STUDENT: 1.3, BASELINE: 2.5}  # how far beside the objects a network looks
FIGURES = ("distance", "cosine", "spearman", "overlap", "area", "reference_area")
CONTROLS = ("shuffled_distance", "shuffled_cosine", "untrained_distance", "untrained_cosine")


def exhibit(
    images: int = 3,
    pairs: tuple[str, ...] = ("P3", "P4", "P5"),
    networks: tuple[str, ...] = (TEACHER, STUDENT),
    height: int = 120,
    classes: tuple[str, ...] = CLASSES,
    seed: int = 0,
) -> Exhibit:
    """Pictures are 160 wide and `height` high, in an input of twice the size with a border above and below."""
    rng = np.random.default_rng(seed)
    size = (-(-2 * height // 32) * 32, 320)
    frame = Frame((height, 160), size, (2.0, 2.0), ((size[0] - 2 * height) / 2, 0.0))
    rows = tuple(_row(name, networks, size) for name in pairs)
    samples = tuple(_sample(i, frame, rows, networks, classes, rng) for i in range(images))
    shown = tuple(Network(key, FILES[key], f"runs/{FILES[key]}") for key in networks)
    return Exhibit(shown, rows, samples, _numbers(samples, rows, networks, rng), "big.pt to best.pt")


def _row(name: str, networks: tuple[str, ...], size: tuple[int, int]) -> Row:
    stride = STRIDES[name]
    lattice = Lattice((stride / 4, stride / 4), (stride, stride), (0.9, 0.9))
    grid = (size[0] // stride, size[1] // stride)
    sides = {key: Side(f"model.{10 + stride}", "C3k2", CHANNELS[key], grid, lattice) for key in networks}
    return Row(name, sides)


def _sample(
    index: int, frame: Frame, rows: tuple[Row, ...], networks: tuple[str, ...], classes: tuple[str, ...], rng: Any
) -> Sample:
    scene = make_scene(index, "val")
    top = (160 - frame.picture[0]) // 2
    picture = cv2.cvtColor(scene.image, cv2.COLOR_BGR2RGB)[top : top + frame.picture[0]].copy()
    boxes = [np.clip(b - [0, top, 0, top], 0, [160, frame.picture[0]] * 2) for b in scene.boxes]
    labels = tuple(
        Object(tuple(map(float, b)), classes[k % len(classes)]) for b, k in zip(boxes, scene.classes) if b[3] - b[1] > 4
    )
    maps = {row.name: {key: _map(row, key, frame, labels, rng) for key in networks} for row in rows}
    predictions = {
        key: tuple(Object(o.box, o.name, float(rng.uniform(0.3, 1))) for o in labels[: len(labels) - n])
        for n, key in enumerate(networks)
    }
    return Sample(f"scene{index:04}", f"scenes/val/scene{index:04}.png", picture, frame, maps, labels, predictions)


def _map(row: Row, key: str, frame: Frame, labels: tuple[Object, ...], rng: Any) -> np.ndarray:
    lattice = row.sides[key].lattice
    y, x = (lattice.offset[a] + np.arange(row.sides[key].grid[a]) * lattice.stride[a] for a in (0, 1))
    values = 0.1 + 0.05 * rng.random(row.sides[key].grid)
    for thing in labels:
        x1, y1, x2, y2 = thing.box
        centre = frame.to_input((y1 + y2) / 2, (x1 + x2) / 2)
        spread = SHARPNESS[key] * (x2 - x1 + y2 - y1) / 2
        values += np.exp(-((y[:, None] - centre[0]) ** 2 + (x - centre[1]) ** 2) / 2 / spread**2)
    return (CHANNELS[key] * values).astype(np.float32)


def _numbers(samples: tuple[Sample, ...], rows: tuple[Row, ...], networks: tuple[str, ...], rng: Any) -> Numbers:
    others = networks[1:] or networks
    maps = [
        {"image": s.name, "pair": r.name, "network": key}
        | {figure: float(rng.uniform(0.1, 0.9)) for figure in (*FIGURES, *CONTROLS)}
        for s in samples
        for r in rows
        for key in others
    ]
    objects = [
        {
            "image": s.name,
            "pair": r.name,
            "network": key,
            "object": i,
            "source": "label",
            "class": thing.name,
            **dict(zip(("x1", "y1", "x2", "y2"), thing.box)),
            "size": "small",
            "status": "miss" if i == 0 else "hit",
            "score": None,
            "energy": 0.2,
            "share": 0.1,
            "ratio": 2.0,
            "pointing": 1,
            "pointing_chance": 0.3,
        }
        for s in samples
        for r in rows
        for key in networks
        for i, thing in enumerate(s.labels or ())
    ]
    figures = (*FIGURES, *CONTROLS, "box_energy", "box_share", "box_ratio", "pointing", "pointing_chance")
    summary = {
        r.name: {
            key: {f: Interval(m := float(rng.uniform(0.2, 0.8)), m - 0.1, m + 0.1, 3) for f in figures}
            for key in others
        }
        for r in rows
    }
    return Numbers(
        tuple(maps), tuple(objects), summary, {rows[-1].name: "matched images are no closer than shuffled ones"}
    )
