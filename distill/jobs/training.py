"""Train a student, with or without a teacher."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.config import TEACHER, read_config, settings_from, split, with_teacher
from distill.errors import InputError
from distill.jobs.course import note_course, of_unet
from distill.jobs.summary import TrainResult
from distill.loading import adapter_for, is_unet, segment_adapter, ultralytics_adapter
from distill.records import HEATMAPS, SETTINGS, command_line, read_settings
from distill.scenes import named_data
from distill.settings import Settings
from distill.terms.method import Method
from distill.terms.registry import with_own
from distill.text import one_line


def train(config: str | None = None, terms: Sequence[Method] = (), **values: Any) -> TrainResult:
    """Train `student` on `data`, guided by `teacher` when one is given; ours and the trainer's arguments as keywords.

    >>> distill.train(teacher="yolo11s.pt", student="yolo11n.yaml", data="voc.yaml", epochs=100)

    `config` names a YAML of settings that the keywords override; `terms` are ways of teaching of your own. Returns what
    the run brought. Raises InputError before anything is written for whatever cannot be used, and ProofFailed when
    distillation would not take place.
    """
    settings, arguments = resolved(config, values)
    adapter = adapter_for(settings)
    with with_own(terms):
        return _ended(adapter.train(adapter.plan(settings, arguments, command_line())), settings.trust)


def resume(
    folder: str | Path, device: str | None = None, trust: bool = False, terms: Sequence[Method] = ()
) -> TrainResult:
    """Go on with a run that was cut short, at any moment, with the settings it had.

    `terms` are those of your own that it is taught by: they are code, so no file can name them.
    """
    with with_own(terms):
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
