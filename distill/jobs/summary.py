"""What a run brought, and the tables that end it."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from distill.errors import InputError
from distill.guard import REMEDY
from distill.jobs.course import CURVES
from distill.records import HEATMAPS, TABLE, read_manifest
from distill.text import Table, aligned

Row = Sequence[str]
FIRST = (
    "\nbest.pt holds the first weights: after no epoch did the student do better on the validation images.\n"
    "A lower learning rate or more images may improve on them; otherwise use them as they are."
)
WORSE = (
    "\nwarning: the student does worse than before training. Try a lower learning rate (optimizer=AdamW lr0=0.0005),\n"
    "more images, or fewer epochs; the weights that it began with are those before training."
)
GATED = (
    "The student's neck is gated: its checkpoints need the package attention-distill to load. Where it is missing,\n"
    "Ultralytics tries to install a package called 'distill', which is someone else's. Export it to use it anywhere:\n"
    "YOLO({best!r}).export(format='onnx')"
)


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
        return summary(self)


def summary(result: TrainResult) -> str:
    """Teacher, student before and after, side by side; then each pair and gate; then where the files are."""
    manifest = result.manifest
    parts = [_networks(result)]
    parts += [str(Table(**table)) for table in manifest["after"].get("tables", ())]
    if "step_ratio" in manifest.get("before", {}):
        parts.append(_weights(manifest))
    if manifest.get("directions"):
        parts.append(_directions(manifest))
    if (epoch := manifest["after"].get("epoch_95")) is not None:
        parts.append(f"The Dice first reached 95 % of the last epoch's in epoch {epoch}; best.ckpt is of epoch "
                     f"{manifest['after']['epoch']}.")  # fmt: skip
    parts.append(_files(result))
    if manifest.get("gated"):
        parts.append(GATED.format(best=str(result.best)))
    return "\n\n".join(parts)


def _networks(result: TrainResult) -> str:
    manifest = result.manifest
    key, before = manifest["score"], manifest.get("before", {})
    trained = manifest["after"]["profile"]
    rows: list[Row] = [("", key.removeprefix("metrics/"), "parameters", "GFLOPs", "CPU ms")]
    if "profile" in before.get("teacher", {}):
        rows.append(("teacher", *_figures(before["teacher"].get("metrics", {}).get(key), before["teacher"]["profile"])))
    first, last = before["student"]["metrics"].get(key) if before else None, result.metrics[key]
    if before:
        rows.append(("student before", *_figures(first, trained)))
    rows.append(("student after" if before else "student", *_figures(last, trained)))
    return aligned(rows) + _verdict(manifest, first, last)


def _verdict(manifest: Mapping[str, Any], first: float | None, last: float | None) -> str:
    """What there is to say of a student that training made no better."""
    if manifest["after"].get("first_is_best"):
        return FIRST
    return WORSE if first is not None and last is not None and last < first else ""


def _figures(score: float | None, profile: Mapping[str, Any]) -> Row:
    return (
        "not known" if score is None else f"{score:.4f}",
        f"{profile['parameters']:,}",
        f"{profile['gflops']:.2f}",
        f"{profile['cpu_ms']:.1f}",
    )


def _weights(manifest: Mapping[str, Any]) -> str:
    first = manifest["weights"]
    last = manifest.get("weights_at_end", first)
    moved = {name: "" if last[name] == weight else f" to {last[name]:.4g}" for name, weight in first.items()}
    each = ", ".join(f"{name} {weight:.4g}{moved[name]}" for name, weight in first.items())
    teacher = f"; teacher in {manifest['teacher_precision']}" if manifest["teacher"] else ""
    return f"weights: {each}{teacher}; a step costs {manifest['before']['step_ratio']:.2f} times a plain one"


def _directions(manifest: Mapping[str, Any]) -> str:
    titles = {**dict.fromkeys(manifest["directions"]), **manifest.get("titles", {})}
    each = ", ".join(f"{titles[name] or name} {cosine:.2f}" for name, cosine in manifest["directions"].items())
    line = f"teaching and task, cosine of their gradients over the run: {each}"
    if against := manifest.get("against"):
        names = " and ".join(titles[name] or name for name in against)
        line += f"\nwarning: {names} worked against the task; {REMEDY}"
    return line


def _files(result: TrainResult) -> str:
    lines = [f"best student  {result.best}", f"last student  {result.last}", f"epochs        {result.table}"]
    if (curves := result.folder / CURVES).is_file():
        lines.append(f"curves        {curves}")
    if (maps := result.folder / HEATMAPS).is_dir():
        page = maps / "report.html"
        lines.append(f"timeline      {page}" if page.is_file() else f"maps          {maps}")
    return "\n".join([*lines, f"everything    {result.folder}"])


def _named(figures: Mapping[str, float], prefix: str) -> dict[str, float]:
    """Of the pairs: the head's class scores have a distance too."""
    own = f"{prefix}cls"
    return {k.removeprefix(prefix): v for k, v in figures.items() if k.startswith(prefix) and not k.startswith(own)}
