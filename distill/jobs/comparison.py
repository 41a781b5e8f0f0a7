"""Look at a teacher and a student, layer by layer, on the same pictures."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from distill.errors import InputError
from distill.jobs.figures import figures
from distill.jobs.gathering import Looked, choose_pictures, gather, pair_rows, prepare
from distill.jobs.tables import lines, write_tables
from distill.jobs.training import command_line
from distill.loading import ultralytics_adapter
from distill.pictures.source import Given, Source
from distill.records import sha256, versions, whole_folder, write_arrays, write_manifest
from distill.scenes import named_data
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Network

RANGES = {  # of settings: lowest, highest, in words
    "imgsz": (32, 2**16, "at least 32 pixels"),
    "teacher-imgsz": (32, 2**16, "at least 32 pixels"),
    "max-images": (1, 2**31, "a whole number from 1"),
    "every": (1, 2**31, "a whole number from 1"),
    "conf": (0, 1, "a score from 0 to 1"),
    "p": (1e-3, 1e3, "a number above 0"),
    "seed": (0, 2**31 - 1, "a whole number from 0, below 2**31"),
}
PICTURES, REPORT, MAPS = "sheets", "report.html", "maps.npz"


@dataclass(frozen=True)
class Comparison:
    """What was seen: everything shown is in `exhibit`; `skipped` names the images that could not be read, and why.

    In a notebook it shows itself as the report.
    """

    exhibit: Exhibit
    skipped: tuple[tuple[str, str], ...]
    manifest: Mapping[str, Any]

    def save(self, folder: str | Path, mode: str = "shared", opacity: float = 0.6) -> Path:
        """Write sheets/*.png, report.html, the tables, maps.npz and manifest.json into a new folder, and return it.

        `mode` is the sheets' scale, "shared", "raw" or "each"; `opacity`, 0 to 1, that of the maps over the picture.
        Raises InputError where something lies at `folder` already; then, as when stopped, nothing is written.
        """
        from distill.view.report.page import save_page
        from distill.view.sheet import save_sheets

        with whole_folder(Path(folder)) as staging:
            save_sheets(self.exhibit, staging / PICTURES, mode, opacity)
            save_page([self.exhibit], staging / REPORT)
            write_tables(self.exhibit.numbers, staging)
            write_arrays(staging / MAPS, arrays(self.exhibit))
            write_manifest(staging, dict(self.manifest))
        return Path(folder)

    def __str__(self) -> str:
        return lines(self.exhibit.numbers)

    def _repr_html_(self) -> str:
        from distill.view.report.page import page

        document = html.escape(page([self.exhibit]), quote=True)
        return f'<iframe srcdoc="{document}" style="width: 100%; height: 800px; border: 0" title="attention"></iframe>'


def compare(
    teacher: str | None = None,
    student: str | None = None,
    images: Given | None = None,
    *,
    baseline: str | None = None,
    data: str | None = None,
    split: str = "val",
    layers: Sequence[str] = (),
    imgsz: int | None = None,
    teacher_imgsz: int | None = None,
    max_images: int = 16,
    every: int | None = None,
    conf: float = 0.25,
    p: float = 2.0,
    device: str | None = None,
    seed: int = 0,
    trust: bool = False,
) -> Comparison:
    """Run the networks on the same pictures and read their attention maps at paired layers.

    >>> distill.compare("big.pt", "best.pt", "images/").save("out")

    `teacher` and `student` are trained networks (.pt), one of them is enough; `baseline` is a second student, such as
    one trained without a teacher. `images` is a file, a folder, a glob, a video (each `every`-th frame), or a list of
    these; without it the `split` of `data` is taken, of which at most `max_images`, evenly spread. `data` gives the
    labels. `layers` are patterns as for `pair_layers`. `imgsz` is the input's longer side in pixels, by default what
    the student was trained at, and `teacher_imgsz` the teacher's, where it differs; `conf` the least score of
    predictions, in [0, 1]; `seed` that of the untrained student beside which the figures stand. Raises InputError for whatever cannot be used.
    """
    adapter = ultralytics_adapter(trust)
    files = {key: file for key, file in ((TEACHER, teacher), (STUDENT, student), (BASELINE, baseline)) if file}
    numbers = {
        "imgsz": imgsz,
        "teacher-imgsz": teacher_imgsz,
        "max-images": max_images,
        "every": every,
        "conf": conf,
        "p": p,
        "seed": seed,
    }
    _check(files, data or images, numbers)
    lookers = adapter.open_lookers(files, conf, device, trust, teacher_imgsz)
    task = next(reversed(lookers.values())).task
    dataset = adapter.read_data(named_data(data), task, trust) if data else None
    source = choose_pictures(adapter, images, dataset, split, max_images, every)
    size = imgsz or lookers.get(STUDENT, next(iter(lookers.values()))).imgsz
    stride = max(looker.stride for looker in lookers.values())
    pairs = pair_rows(lookers, layers, size)
    how = adapter.framing(task, [looker.family for looker in lookers.values()])
    inputs: list[Looked] = []
    for picture in source:
        labels = None
        if dataset is not None:
            labels = adapter.labels_of(Path(picture.file), picture.pixels.shape[:2], dataset, task, images is None)
        inputs.append(prepare(picture, how, size, stride, labels))
    if not inputs:
        raise InputError(f"none of the {len(source)} images could be read; the first: {' '.join(source.skipped[0])}")
    rows, samples, untrained = gather(lookers, pairs, inputs, p, seed)
    networks = tuple(Network(key, title_of(looker.file), looker.file) for key, looker in lookers.items())
    exhibit = Exhibit(networks, tuple(rows), tuple(samples), title=" against ".join(_titles(networks)))
    exhibit = Exhibit(networks, exhibit.rows, exhibit.samples, figures(exhibit, untrained, seed), exhibit.title)
    manifest = _manifest(
        exhibit,
        source,
        {"imgsz": size, "teacher_imgsz": teacher_imgsz, "p": p, "conf": conf, "seed": seed, "task": task},
    )
    return Comparison(exhibit, tuple(source.skipped), manifest)


def arrays(exhibit: Exhibit) -> dict[str, np.ndarray]:
    """Every map on its native grid, (h, w) float16, divided by its root mean square: `image/P3/student`.

    `rms/image/P3/student` is what it was divided by (float32), so that raw values can be had from any of them.
    """
    found: dict[str, np.ndarray] = {}
    for sample in exhibit.samples:
        for row, sides in sample.maps.items():
            for key, values in sides.items():
                rms = np.sqrt(np.mean(np.square(values, dtype=np.float64)))
                found[f"{sample.name}/{row}/{key}"] = (values / (rms or 1.0)).astype(np.float16)
                found[f"rms/{sample.name}/{row}/{key}"] = np.array(rms, np.float32)
    return found


def title_of(file: str) -> str:
    """What to call a network: its file's name, behind that of its run where the file is one of many called best.pt."""
    path = Path(file)
    return f"{path.parent.parent.name}/{path.name}" if path.parent.name == "weights" else path.name


def _check(files: Mapping[str, str], pictures: Any, numbers: Mapping[str, float | None]) -> None:
    if not files:
        raise InputError("--student is missing: the trained network to look at; with --teacher the two are compared")
    if BASELINE in files and len(files) < 3:
        raise InputError("--baseline is compared with --teacher, beside --student: name all three")
    if not pictures:
        raise InputError("--source is missing: a file, a folder, a pattern or a video; or --data for its split")
    for name, (low, high, wanted) in RANGES.items():
        value = numbers[name]
        if value is not None and not low <= value <= high:
            raise InputError(f"--{name} {value}: {wanted}")


def _titles(networks: Sequence[Network]) -> list[str]:
    """The students' first, the teacher's last."""
    return [network.title for network in (*networks[1:], networks[0])]


def _manifest(exhibit: Exhibit, source: Source, settings: dict[str, Any]) -> dict[str, Any]:
    return {
        "command": command_line(),
        "versions": versions(),
        **settings,
        "networks": {n.key: {"file": n.file, "sha256": sha256(n.file)} for n in exhibit.networks},
        "pairs": [
            {
                "name": row.name,
                "kind": row.kind,
                **{
                    key: {
                        "layer": side.layer,
                        "grid": side.grid,
                        "stride": side.lattice.stride,
                        "offset": side.lattice.offset,
                        "agreement": side.lattice.agreement,
                    }
                    for key, side in row.sides.items()
                },
            }
            for row in exhibit.rows
        ],
        "images": {sample.name: sample.file for sample in exhibit.samples},
        "skipped": dict(source.skipped),
    }
