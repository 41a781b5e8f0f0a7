"""What of ours stands in results.csv: losses in training alone, figures as means over the epoch, and weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from distill.adapters.ultralytics.supervision import supervised
from distill.adapters.ultralytics.wrapper import TOTAL, DistillingModule
from distill.attention.pairs import Pair
from distill.terms import boxes, classes
from distill.terms.features import column

LOGGED = ("cos_", "r2_", "r_", "std_", "agree_", "iou_")  # of the terms' figures


def without_ours(items: Any, prefix: str, own: dict[str, Any]) -> Any:
    """Labelled losses, names or a mapping from them, less ours: in validation they would stand as zeros."""
    if not supervised(own):
        return items
    maps = (Pair(**pair).column for pair in (*own["pairs"], *own.get("gate_pairs", ())))
    features = (column(pair["name"]) for pair in own.get("feature_pairs", ()))
    ours = {f"{prefix}/{name}" for name in (TOTAL, classes.COLUMN, boxes.COLUMN, *maps, *features)}
    if isinstance(items, Mapping):
        return {name: value for name, value in items.items() if name not in ours}
    return [name for name in items if name not in ours]


def figures(wrapped: DistillingModule) -> dict[str, float]:
    """The epoch's means of each pair's cosine, each gate's correlation and spread, how outputs agree; the weights."""
    means = {f"train/{name}": value for name, value in wrapped.means().items() if name.startswith(LOGGED)}
    return {**means, **{f"train/weight_{name}": value for name, value in wrapped.distiller.weights.items()}}
