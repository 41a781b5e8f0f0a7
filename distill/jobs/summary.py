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
from distill.text import aligned

Row = Sequence[str]
OUTPUTS = (
    ("agree_cls", "class scores", "share of cells with the same best class"),
    ("iou_box", "boxes", "mean IoU"),
    ("agree_cls_one", "class scores, one per object", "share of cells with the same best class"),
    ("iou_box_one", "boxes, one per object", "mean IoU"),
)
FIRST = (
    "\nbest.pt holds the first weights: after no epoch did the student do better on the validation images.\n"
    "A lower learning rate or more images may improve on them; otherwise use them as they are."
)
FLAT = 1e-4  # standard deviation of alpha below which its correlation with anything is that of rounding
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
    if manifest["pairs"]:
        parts.append(_pairs(result))
    if manifest.get("features"):
        parts.append(_features(result))
    if manifest.get("outputs"):
        parts.append(_outputs(result))
    if manifest.get("gates", {}).get("pairs"):
        parts.append(_gates(result))
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
    if before:
        rows.append(("student before", *_figures(before["student"]["metrics"].get(key), trained)))
    rows.append(("student after", *_figures(result.metrics[key], trained)))
    return aligned(rows) + (FIRST if manifest["after"].get("first_is_best") else "")


def _figures(score: float | None, profile: Mapping[str, Any]) -> Row:
    return (
        "not known" if score is None else f"{score:.4f}",
        f"{profile['parameters']:,}",
        f"{profile['gflops']:.2f}",
        f"{profile['cpu_ms']:.1f}",
    )


def _pairs(result: TrainResult) -> str:
    rows: list[Row] = [("pair", "student", "teacher", "cosine before", "after", "distance after")]
    for pair in result.manifest["pairs"]:
        name = pair["name"]
        cosines = f"{result.cosines_before[name]:.4f}", f"{result.cosines[name]:.4f}"
        rows.append((f"at_{name}", pair["student"], pair["teacher"], *cosines, f"{result.distances[name]:.4f}"))
    return aligned(rows) + "\n(attention on validation images, network against network)"


def _features(result: TrainResult) -> str:
    before, after = (result.manifest[when]["attention"] for when in ("before", "after"))
    rows: list[Row] = [("features", "student", "teacher", "told before", "after")]
    for pair in result.manifest["features"]:
        figure = f"r2_{pair['name']}"
        told = ["not known" if found[figure] is None else f"{100 * found[figure]:.1f} %" for found in (before, after)]
        rows.append((f"ft_{pair['name']}", pair["student"], pair["teacher"], *told))
    what = "how much of the teacher's variance a linear map of the student's features tells (R2)"
    return f"{aligned(rows)}\n(on validation images: {what})"


def _gates(result: TrainResult) -> str:
    manifest = result.manifest
    before, after = (manifest[when]["attention"] for when in ("before", "after"))
    rows: list[Row] = [("gate", "student", "guide", "correlation before", "after", "deviation before", "after")]
    for pair in manifest["gates"]["pairs"]:
        spread = [found[f"std_{pair['name']}"] for found in (before, after)]
        alike = [found[f"r_{pair['name']}"] for found in (before, after)]
        cells = [f"{r:.4f}" if std > FLAT else "flat" for r, std in zip(alike, spread, strict=True)]
        guide = pair["teacher"] or "labels"
        rows.append((f"at_{pair['name']}", pair["student"], guide, *cells, *(f"{s:.4f}" for s in spread)))
    by = manifest["gates"]["by"]
    shuffled = "; in training they followed the guide on another image" if by == "shuffled" else ""
    return (
        f"{aligned(rows)}\n(alpha on validation images: correlation with its guide, and standard deviation{shuffled})"
    )


def _outputs(result: TrainResult) -> str:
    before, after = (result.manifest[when]["attention"] for when in ("before", "after"))
    rows: list[Row] = [("output", "what", "before", "after")]
    for key, name, what in OUTPUTS:
        if key in after:
            rows.append((name, what, f"{before[key]:.4f}", f"{after[key]:.4f}"))
    return aligned(rows) + "\n(on validation images, at the cells where the teacher is confident)"


def _weights(manifest: Mapping[str, Any]) -> str:
    first = manifest["weights"]
    last = manifest.get("weights_at_end", first)
    moved = {name: "" if last[name] == weight else f" to {last[name]:.4g}" for name, weight in first.items()}
    each = ", ".join(f"{name} {weight:.4g}{moved[name]}" for name, weight in first.items())
    teacher = f"; teacher in {manifest['teacher_precision']}" if manifest["teacher"] else ""
    return f"weights: {each}{teacher}; a step costs {manifest['before']['step_ratio']:.2f} times a plain one"


def _directions(manifest: Mapping[str, Any]) -> str:
    titles = manifest["titles"]
    each = ", ".join(f"{titles[name]} {cosine:.2f}" for name, cosine in manifest["directions"].items())
    line = f"teaching and task, cosine of their gradients over the run: {each}"
    if against := manifest.get("against"):
        names = " and ".join(titles[name] for name in against)
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
