"""Look at a teacher and a student, layer by layer, on the same pictures."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from os import PathLike
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.jobs.seeing.comparison import Comparison
from distill.jobs.seeing.figures import figures
from distill.jobs.seeing.gathering import Looked, choose_pictures, gather, pair_rows, prepare
from distill.jobs.seeing.intervals import LEAST_IMAGES
from distill.jobs.seeing.manifest import heading, manifest_of
from distill.jobs.seeing.unets import compare_unets
from distill.loading import is_unet, ultralytics_adapter
from distill.pictures.source import Given, Picture
from distill.progress import progress
from distill.ranges import BOXLESS
from distill.scenes import named_data
from distill.text import as_text, plain, title_of
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Network

DETECTORS_ONLY = ("imgsz", "teacher-imgsz", "every")
USUAL = 16  # images, unless the user says
RANGES = {  # of settings: lowest, highest, in words
    "imgsz": (32, 2**16, "at least 32 pixels"),
    "teacher-imgsz": (32, 2**16, "at least 32 pixels"),
    "max-images": (1, 2**31, "a whole number from 1"),
    "every": (1, 2**31, "a whole number from 1"),
    "conf": (0, 1, "a score from 0 to 1"),
    "p": (1e-3, 1e3, "a number above 0"),
    "seed": (0, 2**31 - 1, "a whole number from 0, below 2**31"),
}


def compare(
    teacher: str | PathLike[str] | None = None,
    student: str | PathLike[str] | None = None,
    images: Given | None = None,
    *,
    baseline: str | PathLike[str] | None = None,
    data: str | PathLike[str] | None = None,
    split: str = "val",
    layers: str | Sequence[str] = (),
    imgsz: int | None = None,
    teacher_imgsz: int | None = None,
    max_images: int | None = None,
    every: int | None = None,
    conf: float = 0.25,
    p: float = 2.0,
    device: str | None = None,
    seed: int = 0,
    trust: bool = False,
) -> Comparison:
    """Run the networks on the same pictures and read their attention maps at paired layers.

    >>> distill.compare("big.pt", "best.pt", "images/").save("out")

    `teacher` and `student` are trained networks (detectors .pt, U-Nets .ckpt), one of them is enough; `baseline` is a
    second student, such as one trained without a teacher. `images` is a file, a folder, a glob, a video (each
    `every`-th frame), or a list of these; without it the `split` of `data` is taken, of which at most `max_images` (16;
    of volumes 4), evenly spread. `data` gives the labels. `layers` are patterns as for `pair_layers`, a list or a text
    with commas. `imgsz` is the input's longer side in pixels, by default what the student was trained at, and
    `teacher_imgsz` the teacher's, where it differs; `conf` the least score of predictions, in [0, 1]; `seed` that of
    the untrained student beside which the figures stand. U-Nets see images at their own size and predict masks, so for
    them sizes, `every` and `conf` mean nothing.

    Raises InputError for whatever cannot be used.
    """
    given = {TEACHER: as_text(teacher), STUDENT: as_text(student), BASELINE: as_text(baseline)}
    files, data = {key: file for key, file in given.items() if file}, as_text(data)
    numbers = {"imgsz": imgsz, "teacher-imgsz": teacher_imgsz, "max-images": max_images, "every": every}
    unets = _are_unets(files)
    _check(files, data or images, {**numbers, "conf": conf, "p": p, "seed": seed}, unets)
    patterns = [pattern.strip() for pattern in (layers.split(",") if isinstance(layers, str) else layers)]
    patterns = [pattern for pattern in patterns if pattern]
    if unets:
        return compare_unets(files, images, data, split, patterns, max_images, p, device, seed)
    adapter = ultralytics_adapter(trust)
    lookers = adapter.open_lookers(files, conf, device, trust, teacher_imgsz)
    judged = lookers.get(STUDENT) or next(iter(lookers.values()))
    with adapter.quiet():
        dataset = adapter.read_data(named_data(data), judged.task, trust) if data else None
    source = choose_pictures(adapter, images, dataset, split, max_images or USUAL, every)
    size, stride = imgsz or judged.imgsz, max(looker.stride for looker in lookers.values())
    pairs = pair_rows({key: looker.layers(size) for key, looker in lookers.items()}, patterns)
    how = adapter.framing(judged.task, [looker.family for looker in lookers.values()])

    def prepared(picture: Picture) -> Looked:
        labels = None
        if dataset is not None:
            shape = picture.pixels.shape[:2]
            labels = adapter.labels_of(Path(picture.file), shape, dataset, judged.task, images is None)
        return prepare(picture, how, size, stride, labels)

    inputs = (prepared(picture) for picture in progress(source, "images looked at", len(source)))
    rows, samples, untrained = gather(lookers, pairs, inputs, p, seed)
    if not samples:
        raise InputError(f"none of the {len(source)} images could be read; the first: {' '.join(source.skipped[0])}")
    networks = tuple(
        Network(key, title_of(looker.file), looker.file, frozenset(map(str, looker.names.values())))
        for key, looker in lookers.items()
    )
    exhibit = Exhibit(networks, tuple(rows), tuple(samples), title=heading(networks))
    exhibit = replace(exhibit, numbers=figures(exhibit, untrained, seed))
    settings = {"imgsz": size, "teacher_imgsz": teacher_imgsz, "p": p, "conf": conf, "seed": seed, "task": judged.task}
    notes = tuple(_notes(exhibit, None if judged.task in BOXLESS else data or "", lookers, size))
    return Comparison(exhibit, tuple(source.skipped), notes, manifest_of(exhibit, source.skipped, settings, notes))


def _notes(exhibit: Exhibit, data: str | None, lookers: Mapping[str, Any], size: int) -> Iterator[str]:
    """What would otherwise go unseen."""
    count = len(exhibit.samples)
    if exhibit.reference and count < LEAST_IMAGES:
        yield f"{count} images are too few to say of any pair that it tells nothing: at least {LEAST_IMAGES}"
    unlabelled = sum(sample.labels is None for sample in exhibit.samples)
    if unlabelled and data is not None:
        where = "" if data == "" else f" where --data {data} would have them"
        whose = exhibit.networks[0].key
        yield f"{unlabelled} of {count} images without labels{where}: the {whose}'s predictions stand for their objects"
    shown = {thing.name for sample in exhibit.samples for thing in sample.labels or ()}
    for network in exhibit.networks:
        if network.classes is not None and (unknown := shown - network.classes):
            named = ", ".join(sorted(map(plain, unknown)))
            yield f"the {network.key} does not know the classes {named}: these objects are no misses of its"
    for key, looker in lookers.items():
        seen = looker.size or size
        trained = looker.trained_at
        if trained is not None and abs(trained - seen) > seen / 4:
            remedy = f"--teacher-imgsz {trained}" if key == TEACHER else f"--imgsz {trained}"
            yield f"the {key} was trained at {trained} px and sees {seen} px here; {remedy} shows it what it knows"


def _are_unets(files: Mapping[str, str]) -> bool:
    """Raises InputError for U-Nets beside detectors."""
    kinds = {key: is_unet(file) for key, file in files.items()}
    if len(set(kinds.values())) > 1:
        told = ", ".join(f"--{key} is a {'U-Net' if unet else 'detector'}" for key, unet in kinds.items())
        raise InputError(f"U-Nets and detectors see different things and cannot be compared: {told}")
    return any(kinds.values())


def _check(files: Mapping[str, str], pictures: Any, numbers: Mapping[str, float | None], unets: bool) -> None:
    if not files:
        raise InputError("--student is missing: the trained network to look at; with --teacher the two are compared")
    if unets and BASELINE in files and STUDENT not in files:
        raise InputError("--baseline stands beside --student: name that too")
    if not unets and BASELINE in files and len(files) < 3:
        raise InputError("--baseline is compared with --teacher, beside --student: name all three")
    if not pictures:
        raise InputError("--source is missing: a file, a folder, a pattern or a video; or --data for its split")
    for name, (low, high, wanted) in RANGES.items():
        value = numbers[name]
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} {value}: {wanted}")
        if unets and value is not None and name in DETECTORS_ONLY:
            raise InputError(f"--{name} is for detectors: a U-Net sees every image whole, at its own size")
