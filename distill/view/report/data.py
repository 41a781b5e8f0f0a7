"""What the page is given: the overview, read at once, and a block per image, read when the image is opened."""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from pathlib import PureWindowsPath
from typing import Any

import numpy as np

from distill.attention.geometry import Lattice
from distill.progress import progress
from distill.view.boxes import styles
from distill.view.canvas import DIM
from distill.view.exhibit import TRUTH, Exhibit, Interval, Row, Sample
from distill.view.report.encode import SMALL, coarse, crop, half, mask, picture, thing
from distill.view.report.missed import missed, objects_of
from distill.view.scale import MODES, TITLES, Mode, RowScale, Scale, difference, lut, relative, scales

Scales = Mapping[Mode, Mapping[str, RowScale]]
IDENTITY = ("image", "pair", "network")  # the columns of a row of figures that are not figures


def overview(exhibits: Sequence[Exhibit], epochs: Sequence[int], all_scales: Scales) -> dict[str, Any]:
    """Everything but the images themselves. Of files only the names: a page is mailed, folders are private."""
    first = exhibits[0]
    return {
        "title": first.title,
        "networks": [{"key": n.key, "title": n.title} for n in first.networks],
        "reference": first.reference.key if first.reference else None,
        "epochs": list(epochs),
        "rows": [_row(row, all_scales) for row in first.rows],
        "modes": [{"key": mode, "title": TITLES[mode]} for mode in MODES],
        "dim": DIM,
        "colours": {name: _table(name) for name in _colour_names(all_scales)},
        "images": [
            {
                "name": s.name,
                "file": PureWindowsPath(s.file).name,  # both kinds of slashes separate
                "labelled": s.labels is not None or TRUTH in s.masks,
                "figured": s.figured,
                "thumbnail": picture(s.picture, SMALL),
            }
            for s in first.samples
        ],
        "predicted": any(found for e in exhibits for s in e.samples for found in _predicted(s)),
        "classes": _classes(first),
        "figures": [_figures(exhibit) for exhibit in exhibits],
    }


def image(exhibits: Sequence[Exhibit], index: int) -> dict[str, Any]:
    """One image: its picture, and for each epoch the maps, differences, boxes and figures.

    The reference's maps are those of the first exhibit; JavaScript looks there where an epoch has none.
    """
    sample = exhibits[0].samples[index]
    frame = sample.frame
    return {
        "picture": picture(sample.picture),
        "frame": {"picture": frame.picture, "input": frame.input, "scale": frame.scale, "shift": frame.shift},
        "labels": None if sample.labels is None else [thing(label) for label in sample.labels],
        "truth": mask(sample.masks[TRUTH], len(exhibits[0].classes)) if TRUTH in sample.masks else None,
        "lattices": {row: {key: _lattice(one) for key, one in sides.items()} for row, sides in sample.lattices.items()},
        "epochs": [
            _epoch(exhibit, exhibit.samples[index], later=number > 0) for number, exhibit in enumerate(exhibits)
        ],
    }


def _row(row: Row, all_scales: Scales) -> dict[str, Any]:
    sides = {
        key: {
            "layer": side.layer,
            "type": side.type,
            "channels": side.channels,
            "grid": side.grid,
            "lattice": _lattice(side.lattice),
        }
        for key, side in row.sides.items()
    }
    modes = {
        mode: {
            "maps": _scale(all_scales[mode][row.name].maps),
            "difference": _scale(all_scales[mode][row.name].difference),
        }
        for mode in MODES
    }
    return {"name": row.name, "about": row.about, "kind": row.kind, "p": row.p, "sides": sides, "modes": modes}


def _scale(scale: Scale | None) -> dict[str, Any] | None:
    if scale is None:
        return None
    return {"low": scale.low, "high": scale.high, "label": scale.label, "colours": scale.colours}


def _lattice(lattice: Lattice) -> dict[str, Any]:
    return {"offset": lattice.offset, "stride": lattice.stride}


def _table(name: str) -> str:
    return base64.b64encode(lut(name).tobytes()).decode("ascii")


def _colour_names(all_scales: Scales) -> set[str]:
    return {Scale.gate().colours} | {
        scale.colours
        for rows in all_scales.values()
        for row in rows.values()
        for scale in (row.maps, row.difference)
        if scale
    }


def _figures(exhibit: Exhibit) -> dict[str, Any]:
    """The overview of one epoch: means, silent pairs, images by distance, missed objects."""
    numbers = exhibit.numbers
    return {
        "summary": {
            pair: {key: {name: _interval(i) for name, i in found.items()} for key, found in networks.items()}
            for pair, networks in numbers.summary.items()
        },
        "silent": dict(numbers.silent),
        "silentBaseline": dict(numbers.silent_baseline),
        "order": _order(exhibit),
        "gates": list(numbers.gates),
        "missed": [
            {**entry, "crop": crop(exhibit.samples[entry["image"]].picture, entry["box"])} for entry in missed(exhibit)
        ],
    }


def _interval(interval: Interval) -> list[float | int | None]:
    return [interval.mean, interval.low, interval.high, interval.n]


def _order(exhibit: Exhibit) -> list[dict[str, Any]]:
    """The images with the mean distance of the first other network over telling pairs, the farthest first."""
    key, numbers = exhibit.others[0].key, exhibit.numbers
    found: dict[str, list[float]] = {}
    for row in numbers.maps:
        distance = row.get("distance")
        if row["network"] == key and row["pair"] not in numbers.silent and distance is not None:
            found.setdefault(row["image"], []).append(distance)
    means = [(index, found.get(sample.figured)) for index, sample in enumerate(exhibit.samples)]
    entries = [{"image": index, "distance": float(np.mean(d)) if d else None} for index, d in means]
    return sorted(entries, key=lambda entry: (entry["distance"] is None, -(entry["distance"] or 0.0)))


def _epoch(exhibit: Exhibit, sample: Sample, later: bool) -> dict[str, Any]:
    reference = exhibit.reference.key if exhibit.reference else None
    left_out = reference if later else None
    maps = {
        row.name: {key: _map(row, sample, key) for key in sample.maps[row.name] if key != left_out}
        for row in exhibit.rows
    }
    differences = {
        row.name: {
            other.key: _differences(row, sample, other.key, reference)
            for other in exhibit.others
            if other.key in row.sides
        }
        for row in exhibit.rows
        if reference and reference in row.sides
    }
    return {
        "maps": maps,
        "differences": differences,
        "predictions": {key: [thing(item) for item in found] for key, found in sample.predictions.items()},
        "masks": {key: mask(found, len(exhibit.classes)) for key, found in sample.masks.items() if key != TRUTH},
        "verdicts": dict(sample.verdicts),
        "dice": sample.dice,
        "figures": [row for row in exhibit.numbers.maps if row["image"] == sample.figured],
        "objects": objects_of(exhibit, sample),
    }


def _predicted(sample: Sample) -> list[Any]:
    return [*sample.predictions.values(), *([True] for key in sample.masks if key != TRUTH)]


def _classes(exhibit: Exhibit) -> list[dict[str, Any]]:
    """The classes of masks by number, with their colours; the background has none."""
    look = styles(exhibit)
    return [{"name": name, "colour": look[name][0] if name in look else None} for name in exhibit.classes]


def _map(row: Row, sample: Sample, key: str) -> dict[str, Any]:
    """A map as it is, its root mean square and its own scale; on a coarser grid, whose lattice it brings, if large."""
    values = sample.maps[row.name][key]
    lattice = sample.lattices.get(row.name, {}).get(key) or row.sides[key].lattice
    shown, moved = coarse(values, lattice)
    peak = int(np.abs(values).argmax())
    ratio = float(relative(values).flat[peak])
    own = Scale.gate() if row.kind == "gate" else Scale.each(values)
    unit = float(values.flat[peak]) / ratio if ratio else 1.0
    return half(shown) | {"unit": unit, "own": _scale(own)} | ({} if moved is lattice else {"lattice": _lattice(moved)})


def _differences(row: Row, sample: Sample, key: str, reference: str) -> dict[str, Any]:
    """By mode, on the grid and lattice on which the two networks meet; gates have one for every mode."""
    modes: tuple[Mode, ...] = ("shared",) if row.kind == "gate" else ("shared", "raw")
    found = {mode: difference(row, sample, key, reference, mode) for mode in modes}
    shown = {mode: coarse(values, lattice) for mode, (values, lattice) in found.items()}
    return {mode: half(values) | {"lattice": _lattice(lattice)} for mode, (values, lattice) in shown.items()}


def collect(exhibits: Sequence[Exhibit], epochs: Sequence[int]) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """The overview, and one block per image."""
    all_scales: Scales = {mode: scales(exhibits, mode) for mode in MODES}
    count = len(exhibits[0].samples)
    blocks = [image(exhibits, index) for index in progress(range(count), "images on the page", count)]
    return overview(exhibits, epochs, all_scales), blocks
