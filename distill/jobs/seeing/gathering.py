"""From networks and pictures to an exhibit: pair the layers, run the networks, keep maps and predictions."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from distill.attention.geometry import Frame, Lattice, calibrate
from distill.attention.layers import LayerInfo
from distill.attention.maps import AttentionMap
from distill.attention.objects import Object
from distill.attention.pairs import Pair, pair_layers
from distill.errors import InputError
from distill.modes import untrained
from distill.pictures.framing import Framing
from distill.pictures.source import Given, Picture, Source, find_pictures, spread
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Row, Sample, Side

TOGETHER = 8  # images of one shape that run as one batch


@dataclass(frozen=True)
class Looked:
    """One picture in the input, and what is known of it before any network has seen it."""

    picture: Picture
    images: Tensor  # (3, H, W)
    frame: Frame
    labels: tuple[Object, ...] | None


Paired = Sequence[tuple[Pair, Mapping[str, LayerInfo]]]  # each pair, and its layer in each network


def pair_rows(layers: Mapping[str, Sequence[LayerInfo]], patterns: Sequence[str]) -> Paired:
    """Each pair with every network's layer, of the `layers` by network. Raises InputError for what cannot be paired.

    A baseline is paired with the teacher like the student. A network alone is paired with itself.
    """
    reference = layers.get(TEACHER) or layers[STUDENT]
    first = layers.get(STUDENT) or reference
    pairs = pair_layers(first, reference, patterns)
    tables = {key: {layer.name: layer for layer in found} for key, found in layers.items()}
    rows = [(pair, {TEACHER: pair.teacher, STUDENT: pair.student}) for pair in pairs]
    if BASELINE in layers:
        try:
            others = pair_layers(layers[BASELINE], reference, patterns)
        except InputError as error:
            raise InputError(f"--baseline: {error}") from error
        if len(others) != len(pairs):
            raise InputError(f"--layers match {len(pairs)} in the student, but {len(others)} in the baseline")
        for (_, names), other in zip(rows, others, strict=True):
            names[BASELINE] = other.student
    return [(pair, {key: tables[key][name] for key, name in names.items() if key in tables}) for pair, names in rows]


def gather(
    lookers: Mapping[str, Any], pairs: Paired, inputs: Iterable[Looked], p: float, seed: int
) -> tuple[list[Row], list[Sample], dict[str, dict[str, np.ndarray]]]:
    """The rows, the samples in the order of the inputs, and the maps of an untrained student by sample and row.

    The inputs are taken one by one and let go once they were run. Without a teacher there is nothing that the
    untrained student could be compared with, and it is not run.
    """
    control = untrained(lookers[STUDENT].module, seed) if TEACHER in lookers and STUDENT in lookers else None
    lattices: dict[str, dict[str, Lattice]] = {}
    samples: dict[str, Sample] = {}
    beginner: dict[str, dict[str, np.ndarray]] = {}
    order: list[str] = []
    for batch in _batches(inputs, order):
        lattices = lattices or {key: _lattices(looker, key, pairs, batch, p) for key, looker in lookers.items()}
        for sample, fresh in _run(lookers, control, pairs, batch, p):
            samples[sample.name], beginner[sample.name] = sample, fresh
    if not order:
        return [], [], {}
    rows = [_row(pair, sides, lattices, samples[order[0]], p) for pair, sides in pairs]
    return rows, [samples[name] for name in order], beginner if control is not None else {}


def choose_pictures(
    adapter: Any, images: Given | None, data: Mapping[str, Any] | None, split: str, most: int, every: int | None
) -> Source:
    """What the user named, or else the `split` of a data set: at most so many pictures, evenly spread."""
    if images is None and data is not None:
        return Source(spread([(file, None) for file in adapter.images_of(data, split)], most))
    return find_pictures(images or (), most, every)


def prepare(picture: Picture, how: Framing, imgsz: int, stride: int, labels: tuple[Object, ...] | None) -> Looked:
    """A picture brought into the input."""
    images, frame = how(picture.pixels, imgsz, stride)
    return Looked(picture, images, frame, labels)


def _batches(inputs: Iterable[Looked], order: list[str]) -> Iterator[list[Looked]]:
    """Inputs of one shape together, `TOGETHER` at a time; their names are put into `order` as they come."""
    shapes: dict[tuple[int, ...], list[Looked]] = {}
    for looked in inputs:
        order.append(looked.picture.name)
        group = shapes.setdefault(tuple(looked.images.shape), [])
        group.append(looked)
        if len(group) == TOGETHER:
            yield group
            group.clear()
    yield from filter(None, shapes.values())


def _lattices(looker: Any, key: str, pairs: Paired, batch: Sequence[Looked], p: float) -> dict[str, Lattice]:
    kinds = {sides[key].name: pair.kind for pair, sides in pairs}

    def run(images: Tensor) -> dict[str, Tensor]:
        features = looker.features(images, list(kinds))
        return {layer: AttentionMap.read(output, layer, kinds[layer], p).values for layer, output in features.items()}

    return calibrate(run, torch.stack([looked.images for looked in batch]))


def _run(
    lookers: Mapping[str, Any],
    control: torch.nn.Module | None,
    pairs: Paired,
    batch: Sequence[Looked],
    p: float,
) -> Iterator[tuple[Sample, dict[str, np.ndarray]]]:
    images = torch.stack([looked.images for looked in batch])
    maps: dict[str, dict[str, np.ndarray]] = {pair.name: {} for pair, _ in pairs}  # (B, h, w) by row and network
    found: dict[str, list[tuple[Object, ...]]] = {}
    verdicts: dict[str, list[str]] = {}
    for key, looker in lookers.items():
        features, found[key], verdicts[key] = looker.look(images, [sides[key].name for _, sides in pairs])
        for pair, sides in pairs:
            maps[pair.name][key] = _values(features[sides[key].name], pair, sides[key].name, p)
    fresh: dict[str, np.ndarray] = {}
    if control is not None:
        layers = [sides[STUDENT].name for _, sides in pairs]
        features = lookers[STUDENT].features(images, layers, control)
        fresh = {pair.name: _values(features[pair.student], pair, pair.student, p) for pair, _ in pairs}
    for i, looked in enumerate(batch):
        sample = Sample(
            looked.picture.name,
            looked.picture.file,
            looked.picture.pixels,
            looked.frame,
            {name: {key: values[i] for key, values in sides.items()} for name, sides in maps.items()},
            looked.labels,
            {key: tuple(_in_picture(thing, looked.frame) for thing in things[i]) for key, things in found.items()},
            {key: lines[i] for key, lines in verdicts.items() if lines[i]},
        )
        yield sample, {name: values[i] for name, values in fresh.items()}


def _values(features: Tensor, pair: Pair, layer: str, p: float) -> np.ndarray:
    values: np.ndarray = AttentionMap.read(features, layer, pair.kind, p).values.cpu().numpy()
    if not np.isfinite(values).all():
        raise InputError(f"layer '{layer}' gives values that are not finite: the network is damaged, or p is too large")
    return values


def _in_picture(thing: Object, frame: Frame) -> Object:
    """An object found in the input, where it lies in the picture: cut off at its edges."""
    height, width = frame.picture
    (top, left), (bottom, right) = (frame.to_picture(*point) for point in (thing.box[1::-1], thing.box[:1:-1]))
    box = (max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height)))
    corners = tuple(frame.to_picture(y, x)[::-1] for x, y in thing.corners)
    return replace(thing, box=box, corners=corners)


def _row(
    pair: Pair, sides: Mapping[str, LayerInfo], lattices: Mapping[str, Mapping[str, Lattice]], first: Sample, p: float
) -> Row:
    shown = {}
    for key, layer in sides.items():
        grid = first.maps[pair.name][key].shape
        shown[key] = Side(layer.name, layer.type, layer.channels, grid, lattices[key][layer.name])
    return Row(pair.name, shown, pair.kind, p)
