"""A U-Net's timeline: the gates, or the decoder, of fixed images or volumes at the epochs whose maps were kept."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.attention.geometry import Lattice
from distill.errors import InputError
from distill.jobs.seeing.figures import figures
from distill.jobs.seeing.kept import DICE, Arrays, moments
from distill.jobs.seeing.samples import samples_of, whole_of
from distill.loading import segment_adapter
from distill.pictures.source import unused_name
from distill.text import title_of
from distill.view.exhibit import STUDENT, TEACHER, TRUTH, Exhibit, Network, Row, Side

ALPHAS = "alphas.json"


def unet_exhibits(
    run: Path, manifest: Mapping[str, Any], p: float, kept: Iterable[tuple[int, Arrays]]
) -> tuple[list[Exhibit], list[int]]:
    """An exhibit for each epoch, and the epochs. Of a volume three planes are shown, figures are of the whole.

    Raises InputError where the images are gone, or others than those that were looked at.
    """
    exhibits, epochs = [], []
    subjects: list[tuple[Any, Any]] = []
    for epoch, arrays in kept:
        subjects = subjects or _subjects(run, manifest, arrays)
        exhibits.append(_exhibit(run, manifest, p, subjects, arrays))
        epochs.append(epoch)
    return exhibits, epochs


def write_alpha_courses(run: Path, folder: Path) -> list[Path]:
    """For each gate and volume `alpha_G2_<case>.nii.gz`, epochs on the fourth axis, and what these are as JSON.

    Nothing for pictures, and for a network without gates.
    """
    adapter = segment_adapter()
    courses: dict[tuple[str, str], list[np.ndarray]] = {}
    epochs, files = [], {}
    for epoch, arrays in moments(run):
        epochs.append(epoch)
        named = _named(arrays)
        for row, kind in zip(arrays["rows"].tolist(), arrays["kinds"].tolist(), strict=True):
            for number, name in enumerate(named):
                values = arrays[f"{STUDENT}_{row}_{number}"]
                if kind == "gate" and values.ndim == 3:
                    courses.setdefault((row, name), []).append(values)
        files = named
    written = [
        adapter.write_alphas(folder / f"alpha_{row}_{name}.nii.gz", files[name][0], maps, epochs, row)
        for (row, name), maps in courses.items()
    ]
    if written:
        about = {"epochs": epochs, "volumes": {name: str(image) for name, (image, _) in files.items()}}
        written.append(folder / ALPHAS)
        written[-1].write_text(json.dumps(about, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    return written


def _named(arrays: Arrays) -> dict[str, tuple[Path, Path]]:
    """Image and mask of each probe, by a name of its own."""
    found: dict[str, tuple[Path, Path]] = {}
    stem = segment_adapter().stem
    for image, truth in zip(arrays["images"].tolist(), arrays["truths"].tolist(), strict=True):
        found[unused_name(stem(Path(image)), set(found))] = Path(image), Path(truth)
    return found


def _subjects(run: Path, manifest: Mapping[str, Any], arrays: Arrays) -> list[tuple[Any, Any]]:
    """Each probe with the planes that are shown of it."""
    adapter = segment_adapter()
    channels, classes = manifest["network"]["in_channels"], len(manifest["data"]["names"])
    found = []
    for number, (name, (image, truth)) in enumerate(_named(arrays).items()):
        if not (image.is_file() and truth.is_file()):
            raise InputError(f"{run}: its probe images are gone, such as {image}: put the data set back")
        subject = adapter.read_subject(image, truth, channels, classes, name)
        if subject.size != arrays[f"{STUDENT}_mask_{number}"].shape:
            raise InputError(f"{run}: {image} is another image than the one that was looked at during training")
        found.append((subject, adapter.planes(subject)))
    return found


def _exhibit(
    run: Path, manifest: Mapping[str, Any], p: float, subjects: list[tuple[Any, Any]], arrays: Arrays
) -> Exhibit:
    names = manifest["data"]["names"]
    files = {TEACHER: (manifest["teacher"] or {}).get("file"), STUDENT: manifest["student"]}
    shown = [key for key in files if f"{key}_mask_0" in arrays]
    rows = tuple(_rows(arrays, shown, p))
    lattices = {row.name: {key: side.lattice for key, side in row.sides.items()} for row in rows}
    planes, wholes = [], []
    for number, (subject, cuts) in enumerate(subjects):
        maps = {row.name: {key: _map(arrays, key, row.name, number) for key in row.sides} for row in rows}
        known = [key for key in shown if f"{key}{DICE}" in arrays]
        masks = {TRUTH: subject.truth, **{key: arrays[f"{key}_mask_{number}"] for key in known}}
        dice = {key: told for key in known if (told := _told(names[1:], arrays[f"{key}{DICE}"][number]))}
        planes += samples_of(subject, cuts, maps, masks, dice, lattices)
        wholes.append(whole_of(subject, planes[-1], maps, masks))
    networks = tuple(Network(key, title_of(str(files[key])), str(files[key]), frozenset(names[1:])) for key in shown)
    title = f"training run {run.absolute().name}"
    whole = Exhibit(networks, rows, tuple(wholes), title=title, classes=tuple(names))
    return replace(whole, samples=tuple(planes), numbers=figures(whole))


def _rows(arrays: Arrays, networks: list[str], p: float) -> Iterator[Row]:
    for name, kind in zip(arrays["rows"].tolist(), arrays["kinds"].tolist(), strict=True):
        sides = {}
        for key in (key for key in networks if f"{key}_{name}_layer" in arrays):
            layer, type_, channels = map(str, arrays[f"{key}_{name}_layer"])
            stride = tuple(arrays[f"{key}_{name}_stride"].tolist())
            lattice = Lattice(tuple(step / 2 for step in stride), stride)  # exact: see `adapters.segment.lattices`
            sides[key] = Side(layer, type_, int(channels), arrays[f"{key}_{name}_0"].shape, lattice)
        yield Row(name, sides, kind, p)


def _told(classes: list[str], values: np.ndarray) -> dict[str, float]:
    """The Dice of an image by class, as `Looker.dice` tells it: without the classes that are rightly not found."""
    return {name: value for name, value in zip(classes, values.tolist(), strict=True) if not math.isnan(value)}


def _map(arrays: Arrays, key: str, row: str, number: int) -> np.ndarray:
    values: np.ndarray = arrays[f"{key}_{row}_{number}"].astype(np.float32) * arrays[f"{key}_{row}_rms"][number]
    return values
