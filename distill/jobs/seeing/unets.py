"""Look at U-Nets, level by level, on the same images or volumes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.attention.maps import AttentionMap
from distill.errors import InputError
from distill.jobs.seeing.comparison import Comparison
from distill.jobs.seeing.figures import figures
from distill.jobs.seeing.gathering import Paired
from distill.jobs.seeing.intervals import LEAST_IMAGES
from distill.jobs.seeing.levels import about, level_rows
from distill.jobs.seeing.manifest import heading, manifest_of
from distill.jobs.seeing.samples import samples_of, whole_of
from distill.jobs.seeing.worth import gate_worth
from distill.loading import segment_adapter
from distill.pictures.source import Given, unused_name
from distill.progress import progress
from distill.scenes import named_data
from distill.text import plain, title_of
from distill.view.exhibit import STUDENT, TEACHER, TRUTH, Exhibit, Network, Row, Sample, Side

USUAL = {2: 16, 3: 4}  # images shown, by their dimensions; a volume is three pictures
LARGEST = 2**22  # pixels or voxels of which a network's features are kept: 160^3, half a gigabyte for 32 channels
WEIGHED = 200  # images, evenly spread, on which gates are weighed: each is seen once more for every gate
WINDOW = 2  # times the crop of training: what is shown of larger ones


@dataclass
class _Seen:
    """What was gathered: samples to show, the whole images behind them for the figures, and what went wrong."""

    samples: list[Sample] = field(default_factory=list)
    wholes: list[Sample] = field(default_factory=list)
    untrained: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)
    skipped: list[tuple[str, str]] = field(default_factory=list)
    cut: int = 0


def compare_unets(
    files: Mapping[str, str],
    images: Given | None,
    data: str | None,
    split: str,
    patterns: Sequence[str],
    most: int | None,
    p: float,
    device: str | None,
    seed: int,
) -> Comparison:
    """As `compare`, for checkpoints of U-Nets (.ckpt) by network key; `most` is None for `USUAL`.

    Every image is seen whole, at its own size. Of a volume three planes are shown, and the figures are of the whole.
    Raises InputError for whatever cannot be used.
    """
    adapter = segment_adapter()
    lookers = adapter.open_lookers(files, device)
    judged = lookers.get(STUDENT) or next(iter(lookers.values()))
    dataset = adapter.read_data(named_data(data)) if data else None
    cases = adapter.choose_cases(images, dataset, split, most or USUAL[judged.dims], judged)
    pairs = level_rows({key: looker.layers for key, looker in lookers.items()}, patterns)
    classes = _classes(lookers, dataset)
    subjects = _Subjects(adapter, judged.channels, dataset)
    seen = _Seen(skipped=subjects.skipped)
    control = lookers[STUDENT].untrained(seed) if TEACHER in lookers and STUDENT in lookers else None
    for subject in subjects.read(
        progress(cases, "volumes looked at" if judged.dims == 3 else "images looked at", len(cases))
    ):
        _see(seen, adapter, lookers, pairs, subject, classes, p, control)
    if not seen.samples:
        raise InputError(f"none of the {len(cases)} images could be read; the first: {' '.join(seen.skipped[0])}")
    networks = tuple(
        Network(key, title_of(looker.file), looker.file, frozenset(looker.names[1:])) for key, looker in lookers.items()
    )
    rows = tuple(_row(pair, sides, lookers, seen.wholes[0], p) for pair, sides in pairs)
    whole = Exhibit(networks, rows, tuple(seen.wholes), title=heading(networks), classes=classes)
    numbers = figures(whole, seen.untrained if control is not None else None, seed)
    worth, about = _worth(subjects, lookers, cases, dataset, images is None and split)
    whole = replace(whole, numbers=replace(numbers, gates=tuple(gate_worth(worth, about, seed))))
    skipped = tuple(dict.fromkeys(seen.skipped))
    exhibit = replace(whole, samples=tuple(seen.samples))
    notes = tuple(_notes(whole, lookers, dataset, seen))
    settings = {"p": p, "seed": seed, "task": "unet", "data": dataset and dataset.file}
    entries = manifest_of(exhibit, skipped, settings, notes, ("monai", "nibabel"))
    return Comparison(exhibit, skipped, notes, entries, whole if judged.dims == 3 else None)


class _Subjects:
    """Reads images one by one; a broken one is left out and named in `skipped`."""

    def __init__(self, adapter: Any, channels: int, dataset: Any) -> None:
        self._adapter, self._channels = adapter, channels
        self._known = len(dataset.names) if dataset is not None else None
        self.skipped: list[tuple[str, str]] = []

    def read(self, cases: Iterable[tuple[Path, Path | None]]) -> Iterator[Any]:
        taken: set[str] = set()
        for image, mask in cases:
            name = unused_name(self._adapter.stem(image), taken)
            try:
                subject = self._adapter.read_subject(image, mask, self._channels, self._known, name)
            except InputError as error:
                self.skipped.append((plain(str(image)), plain(str(error).removeprefix(f"{image}: "))))
                continue
            taken.add(name)
            yield subject


def _see(
    seen: _Seen,
    adapter: Any,
    lookers: Mapping[str, Any],
    pairs: Paired,
    subject: Any,
    classes: Sequence[str],
    p: float,
    control: Any,
) -> None:
    """One image: predictions of the whole, maps of what fits into memory."""
    masks: dict[str, np.ndarray] = {}
    dice: dict[str, dict[str, float]] = {}
    for key, looker in lookers.items():
        found = looker.predict(subject.images)
        masks[key] = _renumbered(found.cpu().numpy(), looker.names, classes)
        known = subject.truth is not None and looker.names == tuple(classes)
        if known and (told := looker.dice(found, subject.truth)):
            dice[key] = told
    if math.prod(subject.size) > LARGEST:
        size = np.max([looker.crop for looker in lookers.values()], axis=0) * WINDOW
        parts = adapter.window(subject, size.astype(int).tolist(), masks[next(iter(lookers))])
        subject, masks = adapter.cut_out(subject, parts), {key: mask[parts] for key, mask in masks.items()}
        seen.cut += 1
    if subject.truth is not None:
        masks = {TRUTH: subject.truth, **masks}
    maps: dict[str, dict[str, np.ndarray]] = {pair.name: {} for pair, _ in pairs}
    for key, looker in lookers.items():
        for name, values in _maps(looker, key, pairs, subject, p).items():
            maps[name][key] = values
    if control is not None:
        seen.untrained[subject.name] = _maps(lookers[STUDENT], STUDENT, pairs, subject, p, control)
    planes = adapter.planes(subject, masks[next(iter(lookers))])
    lattices = {pair.name: {k: lookers[k].lattices[side.name] for k, side in sides.items()} for pair, sides in pairs}
    seen.samples += samples_of(subject, planes, maps, masks, dice, lattices)
    seen.wholes.append(whole_of(subject, seen.samples[-1], maps, masks))


def _maps(looker: Any, key: str, pairs: Paired, subject: Any, p: float, module: Any = None) -> dict[str, np.ndarray]:
    """The maps (*s) of one network, by row."""
    layers = {pair.name: (sides[key].name, pair.kind) for pair, sides in pairs if key in sides}
    features = looker.features(subject.images, [layer for layer, _ in layers.values()], module)
    found = {}
    for name, (layer, kind) in layers.items():
        values: np.ndarray = AttentionMap.read(features[layer], layer, kind, p).values[0].cpu().numpy()
        if not np.isfinite(values).all():
            raise InputError(
                f"layer '{layer}' gives values that are not finite: the {key} is damaged, or p is too large"
            )
        found[name] = values
    return found


def _row(pair: Any, sides: Mapping[str, Any], lookers: Mapping[str, Any], first: Sample, p: float) -> Row:
    shown = {
        key: Side(
            layer.name, layer.type, layer.channels, first.maps[pair.name][key].shape, lookers[key].lattices[layer.name]
        )
        for key, layer in sides.items()
    }
    return Row(pair.name, shown, pair.kind, p, about(pair.name))


def _classes(lookers: Mapping[str, Any], dataset: Any) -> tuple[str, ...]:
    """The data's classes, or else the first network's, and behind them those that only a network knows."""
    lists = [*([dataset.names] if dataset is not None else []), *(looker.names for looker in lookers.values())]
    return tuple(dict.fromkeys(name for names in lists for name in names))


def _renumbered(labels: np.ndarray, own: Sequence[str], classes: Sequence[str]) -> np.ndarray:
    """Class numbers of a network as numbers of `classes`."""
    return np.array([classes.index(name) for name in own])[labels]


def _worth(
    subjects: _Subjects, lookers: Mapping[str, Any], cases: Sequence[Any], dataset: Any, split: str | bool
) -> tuple[dict[str, Any], Iterator[Any]]:
    """Of which networks, and on which images, gates are weighed: on the split where the data alone is given."""
    known = {} if dataset is None else {key: one for key, one in lookers.items() if one.names == dataset.names}
    if split:
        cases = [(case.image, case.mask) for case in getattr(dataset, str(split))]
    labelled = [case for case in cases if case[1] is not None]
    labelled = [labelled[i * len(labelled) // WEIGHED] for i in range(WEIGHED)] if len(labelled) > WEIGHED else labelled
    fitting = (
        one
        for one in subjects.read(progress(labelled, "images with gates opened", len(labelled)))
        if math.prod(one.size) <= LARGEST
    )
    return (known if labelled else {}), fitting


def _notes(exhibit: Exhibit, lookers: Mapping[str, Any], dataset: Any, seen: _Seen) -> Iterator[str]:
    """What would otherwise go unseen."""
    count = len(exhibit.samples)
    things = "volumes" if len(exhibit.samples[0].masks) and seen.samples[0].case else "images"
    if things == "volumes":
        yield "sheets and report show three planes of each volume; figures are of whole volumes"
    if exhibit.reference and count < LEAST_IMAGES:
        yield f"{count} {things} are too few to say of any pair that it tells nothing: at least {LEAST_IMAGES}"
    if unlabelled := sum(TRUTH not in sample.masks for sample in exhibit.samples):
        yield f"{unlabelled} of {count} {things} have no known masks: --data names them"
    gated = any(row.kind == "gate" for row in exhibit.rows)
    if gated and not exhibit.numbers.gates and seen.cut == count and TRUTH in exhibit.samples[0].masks:
        yield f"what each gate is worth is not told: all {things} are larger than {LARGEST:,} pixels or voxels"
    if seen.cut:
        yield f"{seen.cut} of {count} {things} are large: maps are of a part around the foreground, Dice of the whole"
    for key, looker in lookers.items():
        if dataset is not None and looker.names != dataset.names:
            yield f"the {key} knows {', '.join(map(plain, looker.names))}; the data has others: its Dice is not told"
