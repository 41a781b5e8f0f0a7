"""An analysis of layers as files: tables, matrices, a picture, JSON, and settings to train with."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from torch import Tensor

from distill.attention.layers import LayerInfo
from distill.jobs.layers.findings import Compared, Costed, Findings, Surveyed
from distill.jobs.layers.suggestions import Candidate
from distill.jobs.layers.tables import short_name
from distill.records import sha256, versions, whole_folder, write_whole
from distill.text import csv_text, title_of

LAYERS, JSON, PICTURE, SUGGESTION = "layers.csv", "layers.json", "matrices.png", "suggestion.yaml"
DIGITS = 4


def save(analysis: Findings, folder: Path) -> Path:
    """Write everything into a new folder, and return it. Raises InputError where something lies there already."""
    with whole_folder(folder) as staging:
        rows = [{"network": n.key, **_layer(layer)} for n in analysis.networks for layer in n.layers]
        write_whole(staging / LAYERS, csv_text([list(rows[0]), *(list(row.values()) for row in rows)]))
        (staging / JSON).write_text(as_json(analysis), encoding="utf-8")
        if (found := analysis.compared) is not None:
            for name, values in _matrices(found).items():
                heads = ["teacher \\ student", *(short_name(layer.name) for layer in found.student)]
                names = [short_name(layer.name) for layer in found.teacher]
                lines = [[name, *row] for name, row in zip(names, values, strict=True)]
                write_whole(staging / f"{name}.csv", csv_text([heads, *lines]))
            (staging / SUGGESTION).write_text(suggestion_yaml(analysis), encoding="utf-8")
            _picture(analysis, found).savefig(staging / PICTURE)
    return folder


def as_json(analysis: Findings) -> str:
    """The whole analysis as one JSON document; a number that does not exist is null."""
    return json.dumps(as_dict(analysis), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def as_dict(analysis: Findings) -> dict[str, Any]:
    """The whole analysis in plain types. Times are in milliseconds, matrices are teacher by student."""
    content: dict[str, Any] = {
        "imgsz": analysis.imgsz,
        **analysis.sources,
        "notes": list(analysis.notes),
        "skipped": [{"image": image, "why": why} for image, why in analysis.skipped],
        "networks": {network.key: _network(network) for network in analysis.networks},
        "versions": versions(),
    }
    if (found := analysis.compared) is not None:
        content["images"] = list(found.images)
        sides = {"teacher": found.teacher, "student": found.student}
        content["compared"] = {key: [layer.name for layer in side] for key, side in sides.items()} | _matrices(found)
        content["compared"]["teacher_constant"] = list(map(_rounded, found.likeness.constant.tolist()))
        content["suggestion"] = {
            "layers": [pair.pattern for pair in found.suggested],
            "teacher_share": _rounded(found.teacher_share),
            "pairs": list(map(_pair, found.suggested)),
        }
        content["candidates"] = list(map(_pair, found.candidates))
    return content


def suggestion_yaml(analysis: Findings) -> str:
    """Settings for `distill train --config`: the pairs, with the reason for each in a comment."""
    found = analysis.compared
    if found is None or not found.suggested:
        return "# no pair to suggest\nlayers: []\n"
    lines = [
        f"# of `distill layers`, on {len(found.images)} images of {analysis.imgsz} px",
        *map(_comment, analysis.notes),
    ]
    lines += [
        f"# the teacher's forward pass up to the deepest layer: {found.teacher_share:.0%} of the whole",
        "layers:",
    ]
    return "\n".join([*lines, *(f'  - "{pair.pattern}"  # {pair.reason}' for pair in found.suggested), ""])


def _comment(note: str) -> str:
    return f"# {note}"


def _network(network: Surveyed) -> dict[str, Any]:
    return {
        "file": network.file,
        "sha256": sha256(network.file) if Path(network.file).is_file() else None,  # not for a shipped yaml's name
        "task": network.task,
        "trained": network.trained,
        "parameters": network.parameters,
        "ms": _rounded(1e3 * network.seconds),
        "layers": list(map(_layer, network.layers)),
    }


def _layer(layer: Costed) -> dict[str, Any]:
    info: LayerInfo = layer.info
    return {
        "name": info.name,
        "type": info.type,
        "roles": " ".join(info.roles),
        "grid": "x".join(map(str, info.size)),
        "stride": max(info.stride),
        "channels": info.channels,
        "parameters": info.parameters,
        "ms": _rounded(layer.seconds and 1e3 * layer.seconds),
        "share": _rounded(layer.share),
        "reach": _rounded(layer.reach),
    }


def _pair(pair: Candidate) -> dict[str, Any]:
    figures = {"distance": pair.distance, "unlearned": pair.unlearned, "score": pair.score}
    values = {**asdict(pair), **figures, "possible": pair.possible, "reason": pair.reason}
    return {key: _rounded(value) if isinstance(value, float) else value for key, value in values.items()}


def _matrices(found: Compared) -> dict[str, list[list[float | None]]]:
    likeness = found.likeness
    named = {
        "cka": likeness.cka,
        "cka_chance": likeness.chance,
        "cosine": likeness.cosine,
        "cosine_shuffled": likeness.shuffled,
    }
    return {name: _plain(values) for name, values in named.items()}


def _plain(values: Tensor) -> list[list[float | None]]:
    return [[_rounded(value) for value in row] for row in values.tolist()]


def _rounded(value: float | None) -> float | None:
    return None if value is None or not math.isfinite(value) else round(value, DIGITS)


def _picture(analysis: Findings, found: Compared) -> Any:
    from distill.view.matrix import Matrix, matrix_figure

    likeness = found.likeness
    above = (likeness.cosine - likeness.shuffled).numpy()
    peak = max(0.05, float(abs(above[above == above]).max(initial=0.0)))
    matrices = (
        Matrix("CKA of the features (debiased; 0: unrelated, 1: alike)", likeness.cka.numpy()),
        Matrix("cosine of the attention maps, same image", likeness.cosine.numpy()),
        Matrix("that cosine, minus the one of shuffled images", above, -peak, peak, "RdBu_r"),
    )
    titles = {network.key: title_of(network.file) for network in analysis.networks}
    axes = f"teacher: {titles['teacher']}", f"student: {titles['student']}"
    rows, columns = ([_label(layer) for layer in side] for side in (found.teacher, found.student))
    title = f"How alike the layers are: {len(found.images)} images of {analysis.imgsz} px"
    key = "Framed: the suggested pairs. Grey: no value (a layer that does not depend on the image)."
    caption = "\n".join([key, *analysis.notes])
    return matrix_figure(matrices, rows, columns, axes, found.outlined, title, caption)


def _label(layer: LayerInfo) -> str:
    return " ".join([*layer.roles, short_name(layer.name), layer.type])
