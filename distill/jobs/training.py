"""Train a student, with or without a teacher."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from distill.config import TEACHER, read_config, settings_from, split, with_teacher
from distill.errors import InputError
from distill.jobs.course import note_course, of_unet
from distill.loading import adapter_for, is_unet, segment_adapter, ultralytics_adapter
from distill.records import HEATMAPS, SETTINGS, TABLE, read_manifest, read_settings
from distill.scenes import named_data
from distill.settings import Settings
from distill.text import one_line


@dataclass(frozen=True)
class TrainResult:
    """A finished run: where its files are and what it brought.

    `metrics` are Ultralytics' of the best checkpoint on the validation set; `cosines` and `distances` each pair's
    mean over validation images, by pair name, of the trained student, `cosines_before` of the untrained one (empty
    without a teacher). `manifest` holds everything that was recorded. It prints as the table that ends a run.
    """

    folder: Path
    metrics: Mapping[str, float]
    cosines: Mapping[str, float]
    distances: Mapping[str, float]
    cosines_before: Mapping[str, float]
    manifest: Mapping[str, Any]

    @classmethod
    def read(cls, folder: Path) -> TrainResult:
        """The result in a run folder. Raises InputError when the run is not finished."""
        manifest = read_manifest(folder)
        if not manifest.get("finished"):
            raise InputError(f"{folder}: this run is not finished: distill train --resume {folder}")
        after = manifest["after"].get("attention", {})
        before = manifest.get("before", {}).get("attention", {})
        return cls(
            folder,
            manifest["after"]["metrics"],
            _named(after, "cos_"),
            _named(after, "dist_"),
            _named(before, "cos_"),
            manifest,
        )

    @property
    def best(self) -> Path:
        return self.folder / "weights" / f"best{self._suffix}"

    @property
    def last(self) -> Path:
        return self.folder / "weights" / f"last{self._suffix}"

    @property
    def _suffix(self) -> str:
        """.pt, or .ckpt for a U-Net."""
        return Path(self.manifest["after"]["checkpoint"]).suffix

    @property
    def table(self) -> Path:
        """results.csv, a row per epoch."""
        return self.folder / TABLE

    @property
    def score(self) -> float:
        """The task's main figure, in [0, 1]: mAP50-95 for boxes, masks and key points, mIoU, top-1 accuracy, or Dice.

        NaN where there is none: validation images of a U-Net without any foreground, in which none was found.
        """
        found = self.metrics[self.manifest["score"]]
        return math.nan if found is None else float(found)

    def __str__(self) -> str:
        from distill.jobs.summary import summary

        return summary(self)


def train(config: str | None = None, **values: Any) -> TrainResult:
    """Train `student` on `data`, guided by `teacher` when one is given; ours and the trainer's arguments as keywords.

    >>> distill.train(teacher="yolo11s.pt", student="yolo11n.yaml", data="voc.yaml", epochs=100)

    `config` names a YAML of settings that the keywords override. Returns what the run brought. Raises InputError
    before anything is written for whatever cannot be used, and ProofFailed when distillation would not take place.
    """
    settings, arguments = resolved(config, values)
    adapter = adapter_for(settings)
    return _ended(adapter.train(adapter.plan(settings, arguments, command_line())), settings.trust)


def resume(folder: str | Path, device: str | None = None, trust: bool = False) -> TrainResult:
    """Go on with a run that was cut short, at any moment, with the settings it had."""
    if _of_unet(Path(folder)):
        return _ended(segment_adapter().resume(str(folder), device), trust)
    return _ended(ultralytics_adapter(trust).resume(str(folder), device, trust), trust)


def _of_unet(folder: Path) -> bool:
    """Was this run, told by its folder or its last checkpoint, one of a U-Net?"""
    if folder.suffix == ".ckpt":
        return True
    if of_unet(folder):  # its description may be gone by now
        return True
    settings = read_settings(folder) if (folder / SETTINGS).is_file() else {}
    return is_unet(str(settings.get("student")))


def _ended(folder: Path, trust: bool) -> TrainResult:
    """The result, and its pictures drawn; a run is not lost because they could not be made."""
    unet = of_unet(folder)
    if unet or (folder / HEATMAPS).is_dir():
        from distill.jobs.seeing.timeline import draw_timeline

        try:
            if unet:
                note_course(folder)
            draw_timeline(folder, trust)
        except Exception as error:  # whatever it is, the student is trained
            print(f"distill: the timeline was not drawn: {one_line(error)}", file=sys.stderr)
    return TrainResult.read(folder)


def resolved(config: str | None, values: Mapping[str, Any]) -> tuple[Settings, dict[str, Any]]:
    """Our settings and the trainer's arguments, from a config file and the values that override it."""
    ours, theirs = split(read_config(config)) if config else ({}, {})
    mine, trainers = split(values)
    if any(TEACHER in str(value) for value in theirs.values()):  # the trainer's own distillation learns from it
        teacher = mine.get("teacher")
        theirs = {key: with_teacher(value, teacher, f"--config {config}") for key, value in theirs.items()}
        if str(ours.get("teacher", "")).lower() == "none":
            mine = {key: value for key, value in mine.items() if key != "teacher"}
    settings = settings_from({**ours, **mine})
    if settings.data:
        unet = is_unet(settings.student or "")
        if settings.data == "volumes" and not unet:
            raise InputError("--data volumes: volumes are for U-Nets: --student attention-unet:8")
        settings = replace(settings, data=named_data(settings.data, masks=unet))
    return settings, {**theirs, **trainers}


def command_line() -> str:
    """How this process was started, for the record."""
    script = Path(sys.argv[0])
    start = ["python", "-m", script.parent.name] if script.name == "__main__.py" else [script.name]
    return shlex.join([*start, *sys.argv[1:]])


def _named(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Of the pairs: the head's class scores have a distance too."""
    own = f"{prefix}cls"
    return {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix) and not k.startswith(own)}
