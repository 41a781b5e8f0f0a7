"""How attention moved over a training run: what `--heatmaps` kept, drawn once the run is over."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from distill.attention.geometry import Frame, Lattice
from distill.errors import InputError
from distill.jobs.course import draw_course, of_unet
from distill.jobs.seeing.figures import figures
from distill.jobs.seeing.kept import Arrays, count, moments
from distill.jobs.seeing.unet_timeline import unet_exhibits, write_alpha_courses
from distill.loading import ultralytics_adapter
from distill.pictures.source import Picture, Source
from distill.progress import progress
from distill.records import HEATMAPS, MANIFEST, TABLE, read_manifest, read_settings
from distill.text import title_of
from distill.view.exhibit import STUDENT, TEACHER, Exhibit, Network, Row, Sample, Side

REPORT, FILM, CURVES = "report.html", "timeline.gif", "curves.png"


def draw_timeline(run: str | Path, trust: bool = False) -> list[Path]:
    """Draw the maps that a run with `--heatmaps` kept, one scale for all epochs; returns the files.

    They lie beside the maps: a page with a slider over the epochs, an animation, curves of the figures; and for the
    gates of a U-Net on volumes NIfTI whose fourth axis is the epoch. Of every U-Net the run's own `curves.png` is
    drawn too, and only this where no maps were kept. Raises InputError for a folder that holds nothing to draw, or
    whose images are gone.
    """
    folder = Path(run)
    unet = of_unet(folder)
    drawn = [draw_course(folder)] if unet and (folder / TABLE).is_file() else []
    if drawn and not (folder / HEATMAPS).is_dir():
        return drawn
    return [*drawn, *_draw(folder, trust, unet)]


def _draw(run: Path, trust: bool, unet: bool) -> list[Path]:
    from distill.view.curves import save_curves
    from distill.view.film import save_film
    from distill.view.report.page import save_page

    kept = run / HEATMAPS
    exhibits, epochs = read_timeline(run, trust)
    with tempfile.TemporaryDirectory(prefix=".drawing.", dir=kept) as staging:  # what was there stays until all is new
        save_page(exhibits, Path(staging) / REPORT, epochs)
        save_film(exhibits, epochs, Path(staging) / FILM)
        save_curves(exhibits, epochs, Path(staging) / CURVES)
        if unet:
            write_alpha_courses(run, Path(staging))
        files = [kept / file.name for file in sorted(Path(staging).iterdir())]
        for file in files:
            os.replace(Path(staging) / file.name, file)
    return files


def read_timeline(run: Path, trust: bool = False) -> tuple[list[Exhibit], list[int]]:
    """An exhibit for each epoch whose maps were kept, and these epochs.

    An epoch whose maps are not finite, as those of a student that diverged, is left out and named on standard error.
    """
    kept = moments(run)
    manifest = read_manifest(run)
    if of_unet(run):
        return unet_exhibits(
            run, manifest, float(read_settings(run)["p"]), progress(kept, "kept epochs drawn", count(run))
        )
    return _of_detector(run, manifest, dict(kept), trust)


def _of_detector(
    run: Path, manifest: Mapping[str, Any], moments: Mapping[int, Arrays], trust: bool
) -> tuple[list[Exhibit], list[int]]:
    """Cells lie where the last epoch has them."""
    if not manifest:
        raise InputError(f"{run}: it holds no {MANIFEST}: not a run folder of distill")
    last = moments[max(moments)]
    pictures = list(Source([(Path(str(file)), None) for file in last["images"]]))
    if len(pictures) < len(last["images"]):
        raise InputError(f"{run}: its probe images are gone, such as {last['images'][0]}: put the data set back")
    labels = _labels(manifest, pictures, trust)
    p = float(read_settings(run).get("p", 2.0))
    rows = tuple(_row(pair, last, p) for pair in manifest.get("methods", {}).get("attention", {}).get("pairs", []))
    networks = tuple(Network(key, title_of(str(file)), str(file)) for key, file in _files(manifest).items())
    exhibits = []
    for arrays in progress(moments.values(), "kept epochs drawn", len(moments)):
        samples = tuple(_sample(i, picture, labels[i], arrays, rows) for i, picture in enumerate(pictures))
        exhibit = Exhibit(networks, rows, samples, title=f"training run {run.absolute().name}")
        exhibits.append(replace(exhibit, numbers=figures(exhibit)))
    return exhibits, list(moments)


def _files(manifest: Mapping[str, Any]) -> dict[str, str]:
    return {TEACHER: manifest["teacher"]["file"], STUDENT: manifest["student"]}


def _labels(manifest: Mapping[str, Any], pictures: list[Picture], trust: bool) -> list[Any]:
    adapter = ultralytics_adapter(trust)
    task = manifest["task"]
    with adapter.quiet():
        data = adapter.read_data(manifest["data"]["file"], task, trust)
    return [adapter.labels_of(Path(one.file), one.pixels.shape[:2], data, task, True) for one in pictures]


def _row(pair: Mapping[str, Any], arrays: Mapping[str, np.ndarray], p: float) -> Row:
    sides = {}
    for key in (TEACHER, STUDENT):
        name = f"{key}_{pair['name']}"
        layer, kind, channels = map(str, arrays[f"{name}_layer"])
        lattice = Lattice(*(tuple(arrays[f"{name}_{what}"].tolist()) for what in ("offset", "stride")))
        sides[key] = Side(layer, kind, int(channels), arrays[name].shape[1:], lattice)
    return Row(pair["name"], sides, pair["kind"], p)


def _sample(i: int, picture: Picture, labels: Any, arrays: Mapping[str, np.ndarray], rows: Sequence[Row]) -> Sample:
    frame = Frame(*(tuple(arrays[f"frame_{key}"][i].tolist()) for key in Frame.__dataclass_fields__))
    maps = {
        row.name: {
            key: arrays[f"{key}_{row.name}"][i].astype(np.float32) * arrays[f"{key}_{row.name}_rms"][i]
            for key in row.sides
        }
        for row in rows
    }
    return Sample(picture.name, picture.file, picture.pixels, frame, maps, labels)
