"""How closely each run's last student attends where the teacher does, at the head's levels, on validation images."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from distill.attention.maps import AttentionMap, meet
from distill.attention.pairs import pair_layers
from distill.errors import DistillError, InputError
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.states import DONE, Run, number
from distill.jobs.seeing.gathering import choose_pictures
from distill.loading import is_unet, ultralytics_adapter
from distill.progress import progress
from distill.records import sha256, write_whole
from distill.text import csv_text, one_line

TABLE = "attention.csv"
COLUMNS = ("arm", "seed", "pair", "cosine", "other_images", "images", "checkpoint")
IMAGES = 16
Row = Mapping[str, Any]


def read_closeness(folder: Path) -> list[dict[str, Any]]:
    """The rows of `attention.csv`, whose cosines are means over images; none where there is no table."""
    try:
        with (folder / TABLE).open(encoding="utf-8", newline="") as text:
            rows = list(csv.DictReader(text))
        return [{**r, "seed": int(r["seed"]), **{k: number(r[k]) for k in ("cosine", "other_images")}} for r in rows]
    except (OSError, ValueError, KeyError):
        return []


def measure_closeness(plan: Plan, folder: Path, runs: Sequence[Run]) -> str:
    """Bring `attention.csv` up to date; a sentence on what could not be measured, or an empty one.

    A run is measured once, as long as its checkpoint stays the same. `other_images` is the cosine to the teacher's maps
    of the other images: what is above it was seen in this one.
    """
    if plan.teacher is None:
        return "no teacher was named to compare attention with"
    if is_unet(plan.teacher):
        return "attention is compared for detectors only: of U-Nets see `distill heatmap`"
    known: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in read_closeness(folder):
        known.setdefault((row["arm"], row["seed"], row["checkpoint"]), []).append(row)
    done = [
        (run, last) for run in runs if run.state() == DONE and (last := run.folder / "weights" / "last.pt").is_file()
    ]
    keyed = [(run, last, sha256(last)[:16]) for run, last in done]
    fresh = [entry for entry in keyed if (entry[0].arm, entry[0].seed, entry[2]) not in known]
    if not fresh:
        return ""
    needed = plan.teacher, str(plan.arms[0].values["data"])
    if changed := [file for file in plan.changed() if file in needed]:
        return f"attention was not measured: changed or gone since this bench began: {', '.join(changed)}"
    try:
        gauge = _Gauge(plan)
        for run, last, digest in progress(fresh, "attention of runs", len(fresh)):
            known[run.arm, run.seed, digest] = [
                {"arm": run.arm, "seed": run.seed, "checkpoint": digest, **figures} for figures in gauge(last)
            ]
    except (DistillError, RuntimeError, OSError) as error:  # the scores stand without it
        return f"attention was not measured: {one_line(error)}"
    rows = [row for run, _, digest in keyed for row in known[run.arm, run.seed, digest]]
    cells = [[None if row[column] != row[column] else row[column] for column in COLUMNS] for row in rows]  # NaN: empty
    write_whole(folder / TABLE, csv_text([COLUMNS, *cells]))
    return ""


class _Gauge:
    """The teacher's maps of a few validation images, and how near a student comes to them."""

    def __init__(self, plan: Plan) -> None:
        self._device = plan.devices[0] if plan.devices else None
        self._trust = bool(plan.record.get("trust"))
        self._adapter = ultralytics_adapter(self._trust)
        self._teacher = self._open("teacher", str(plan.teacher))
        values = plan.arms[0].values
        with self._adapter.quiet():
            data = self._adapter.read_data(values["data"], self._teacher.task, self._trust)
        self._size = _size(values.get("imgsz"), self._teacher.imgsz)
        how = self._adapter.framing(self._teacher.task, [self._teacher.family])
        pictures = choose_pictures(self._adapter, None, data, "val", IMAGES, None)
        self._images = [how(picture.pixels, self._size, self._teacher.stride)[0] for picture in pictures]
        if len(self._images) < 2:
            raise InputError("too few validation images could be read")
        self._maps: dict[tuple[str, ...], dict[str, list[AttentionMap]]] = {}

    def __call__(self, checkpoint: Path) -> Iterator[dict[str, Any]]:
        """For each pair of the head's levels the mean cosine, to the same image's map and to those of the others."""
        student = self._open("student", str(checkpoint))
        pairs = pair_layers(student.layers(self._size), self._teacher.layers(self._size), ())
        layers = tuple(dict.fromkeys(pair.teacher for pair in pairs))
        if layers not in self._maps:
            self._maps[layers] = self._read(self._teacher, layers)
        own = self._read(student, tuple(dict.fromkeys(pair.student for pair in pairs)))
        for pair in pairs:
            same, other = cosines(own[pair.student], self._maps[layers][pair.teacher])
            yield {"pair": pair.name, "cosine": same, "other_images": other, "images": len(self._images)}

    def _open(self, key: str, file: str) -> Any:
        return self._adapter.open_lookers({key: file}, 0.25, self._device, self._trust)[key]

    def _read(self, looker: Any, layers: Sequence[str]) -> dict[str, list[AttentionMap]]:
        """One image at a time: validation images are of any shape."""
        found: dict[str, list[AttentionMap]] = {layer: [] for layer in layers}
        for image in self._images:
            for layer, output in looker.features(image[None], list(layers)).items():
                found[layer].append(AttentionMap.read(output, layer))
        return found


def cosines(ours: Sequence[AttentionMap], theirs: Sequence[AttentionMap]) -> tuple[float, float]:
    """The mean cosine of maps (1, h, w) of the same image, and of those of different images that are of one shape."""
    same: list[Tensor] = []
    other: list[Tensor] = []
    for i, own in enumerate(ours):
        for j, guide in enumerate(theirs):
            if i == j or theirs[i].size == guide.size:
                a, b = meet(own, guide)
                (same if i == j else other).append((a.unit() * b.unit()).sum())
    return torch.stack(same).mean().item(), torch.stack(other).mean().item() if other else float("nan")


def _size(asked: Any, usual: int) -> int:
    try:
        return int(float(asked))
    except (TypeError, ValueError):
        return usual
