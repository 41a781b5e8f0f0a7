"""Look at the layers of one network, or at those of two: which match, how alike they are, what to pair."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from distill.attention.layers import LayerInfo
from distill.attention.pairs import find_layers
from distill.attention.similarity import LEAST_IMAGES
from distill.errors import InputError
from distill.jobs.layers.files import save
from distill.jobs.layers.findings import STUDENT, TEACHER, Compared, Findings, Surveyed
from distill.jobs.layers.measures import measure_likeness, reach, read_images, survey
from distill.jobs.layers.suggestions import candidates, suggest
from distill.jobs.layers.tables import text
from distill.jobs.seeing.gathering import choose_pictures
from distill.loading import is_unet, ultralytics_adapter
from distill.pictures.source import Given, Source
from distill.progress import progress
from distill.scenes import named_data
from distill.text import as_text

DEPTHS = ("top", "all")


@dataclass(frozen=True)
class Analysis(Findings):
    """What `analyse` found. It prints as tables, and saves itself as files."""

    def save(self, folder: str | Path) -> Path:
        """Write the tables, layers.json, and of two networks the picture and suggestion.yaml, into a new folder.

        Raises InputError where something lies there already; then, as when stopped, nothing is written.
        """
        return save(self, Path(folder))

    def __str__(self) -> str:
        return text(self)


def analyse(
    teacher: str | PathLike[str] | None = None,
    student: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    *,
    images: Given | None = None,
    every: int | None = None,
    split: str = "val",
    layers: Sequence[str] = (),
    depth: str = "top",
    imgsz: int | None = None,
    max_images: int = 32,
    batch: int = 16,
    device: str = "cpu",
    seed: int = 0,
    trust: bool = False,
) -> Analysis:
    """The layers of the networks, and with two of them how alike each layer of one is to each of the other.

    `teacher` is a .pt, `student` a .pt or a .yaml (untrained); one of them is enough. Two need pictures: `images` (a
    file, a folder, a glob, a video (each `every`-th frame), or a list of these), or the `split` of `data`. At most
    `max_images` are taken, evenly spread, brought to a square of `imgsz` pixels (default: what the student, or else the
    teacher, was trained at), and run in minibatches of about `batch`, in an order drawn from `seed`. Compared
    are the top-level layers with a grid of at least 2x2, or those that `layers` names (roles, numbers, dotted names,
    globs, meant for both networks, or `student:teacher`). `depth` "all" lists the layers inside others too.

    Raises InputError for whatever cannot be used.
    """
    teacher, student, data = as_text(teacher), as_text(student), as_text(data)
    _check(teacher, student, data or images, layers, depth)
    _check_numbers(max_images, batch, seed)
    adapter = ultralytics_adapter(trust)
    from distill.adapters.ultralytics import environment, layer_costs, subjects

    with environment.quiet():
        files = {key: file for key, file in ((TEACHER, teacher), (STUDENT, student)) if file}
        given = {key: subjects.read_network(file, f"--{key}", trust) for key, file in files.items()}
        dataset = adapter.read_data(named_data(data), list(given.values())[-1].task, trust) if data else None
        networks = {key: subjects.subject(one, dataset, seed) for key, one in given.items()}
        place = subjects.device_of(device)
        size = _size(networks, imgsz)
        tables = {key: adapter.layers_of(one.module, size) for key, one in networks.items()}
        chosen = {key: _chosen(table, layers, key) for key, table in tables.items()}
        compare = len(networks) == 2
        source = choose_pictures(adapter, images, dataset, split, max_images, every) if compare else Source(())
        how = adapter.framing(list(networks.values())[-1].task, [one.family for one in networks.values()], square=True)
        names, batches = read_images(source, how, size, seed) if compare else ((), torch.empty(0))

        timed = progress(networks.items(), "networks timed", len(networks))
        times = {key: layer_costs.layer_times(one.module, size, place) for key, one in timed}
        surveys = {key: survey(key, one, tables[key], times[key], depth) for key, one in networks.items()}
        compared = None
        if compare:
            likeness = measure_likeness(networks, chosen, batches, batch, place)
            cost = {layer.name: reach(layer.name, times[TEACHER]) for layer in chosen[TEACHER]}
            pairs = candidates(chosen[STUDENT], chosen[TEACHER], likeness, cost)
            sides = tuple(chosen[TEACHER]), tuple(chosen[STUDENT])
            compared = Compared(*sides, likeness, names, tuple(pairs), tuple(suggest(pairs)))
    sources = {
        "data": data,
        "images": None if images is None else str(images),
        "split": split,
        "batch": batch,
        "device": str(place),
        "seed": seed,
    }
    notes = tuple(_notes(surveys.values(), compared, seed))
    return Analysis(tuple(surveys.values()), size, sources, compared, notes, tuple(source.skipped))


def _check(teacher: str | None, student: str | None, pictures: Any, layers: Sequence[str], depth: str) -> None:
    both = bool(teacher and student)
    if not teacher and not student:
        raise InputError("--student is missing: the network to look at; with --teacher the two are compared")
    for key, file in ((TEACHER, teacher), (STUDENT, student)):
        if file and is_unet(file):
            raise InputError(f"--{key} {file}: this is for detectors; a U-Net's levels are shown by distill heatmap")
    if both and str(teacher).lower().endswith((".yaml", ".yml")):
        raise InputError(f"--teacher {teacher}: a description, not a trained network: give a .pt")
    if both and not pictures:
        raise InputError("--data is missing: a data.yaml, or 'scenes', for images to compare on; or name a --source")
    if layers and not both:
        raise InputError("--layers says what is compared: give --teacher and --student, or leave it out")
    if depth not in DEPTHS:
        raise InputError(f"--depth {depth}: one of {', '.join(DEPTHS)}")


def _check_numbers(most: int, batch: int, seed: int) -> None:
    if not 0 <= seed < 2**31:
        raise InputError(f"--seed {seed}: a whole number from 0, below 2**31")
    for name, value in (("--max-images", most), ("--batch", batch)):
        if value < LEAST_IMAGES:
            raise InputError(f"{name} {value}: at least {LEAST_IMAGES}, from which CKA can be estimated")


def _size(networks: Mapping[str, Any], imgsz: int | None) -> int:
    """The side of the images. Raises InputError where it does not fit the networks, or these not each other."""
    trained = [one for one in networks.values() if one.trained] or list(networks.values())
    size = trained[-1].imgsz if imgsz is None else imgsz
    channels = {one.channels for one in networks.values()}
    if len(networks) > 1 and channels != {3}:
        raise InputError(f"--teacher and --student read images of {sorted(channels)} channels: pictures have 3")
    stride = max(32, *(one.stride for one in networks.values()))
    if size < stride or size % stride:
        raise InputError(f"--imgsz {size}: not a multiple of {stride}: use {max(stride, -(-size // stride) * stride)}")
    return size


def _chosen(table: Sequence[LayerInfo], patterns: Sequence[str], key: str) -> list[LayerInfo]:
    """The layers to compare, in order of execution. Raises InputError for a pattern that matches none of them."""
    wide = [layer for layer in table if min(layer.size) >= 2]
    if not patterns:
        return [layer for layer in wide if layer.name.count(".") == 1]
    names: set[str] = set()
    for pattern in patterns:
        mine, _, theirs = pattern.partition(":")
        side = theirs or mine if key == TEACHER else mine
        names.update(layer.name for layer in find_layers(table, side, key))
    if narrow := names - {layer.name for layer in wide}:
        raise InputError(f"layer '{min(narrow)}' of the {key} has fewer than 2x2 cells: use a larger --imgsz")
    return [layer for layer in wide if layer.name in names]


def _notes(surveys: Iterable[Surveyed], compared: Compared | None, seed: int) -> Iterator[str]:
    if compared is None:
        return
    for one in surveys:
        if not one.trained:
            yield (
                f"the {one.key} is untrained: layers of random weights (seed {seed}) answer nearly alike, so this "
                "ranks the teacher's layers more than the pairs; a student trained without a teacher tells more"
            )
    if not compared.suggested:
        yield (
            "no pair is surely alike enough to be learned and not alike already: nothing to suggest; "
            "`distill train` pairs the levels that both heads read"
        )
