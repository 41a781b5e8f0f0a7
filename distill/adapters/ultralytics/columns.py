"""What of ours stands in results.csv: losses in training alone, figures as means over the epoch, and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from distill.adapters.ultralytics.supervision import supervised
from distill.adapters.ultralytics.wrapper import DistillingModule

OURS = ("at_", "ft_")  # what the names of our losses begin with
LOGGED = ("cos_", "r2_", "r_", "std_", "agree_", "iou_")  # of the terms' figures


def without_ours(items: Any, prefix: str, own: dict[str, Any]) -> Any:
    """Labelled losses, names or a mapping from them, less ours: in validation they would stand as zeros."""
    if not supervised(own):
        return items
    ours = tuple(f"{prefix}/{kind}" for kind in OURS)
    if isinstance(items, Mapping):
        return {name: value for name, value in items.items() if not name.startswith(ours)}
    return [name for name in items if not name.startswith(ours)]


def figures(wrapped: DistillingModule) -> dict[str, float]:
    """The epoch's means of each pair's cosine, each gate's correlation and spread, how outputs agree; the weights.

    `with_attention` and so on are the cosines of the terms' gradients and the task's when they were last measured.
    """
    means = {f"train/{name}": value for name, value in wrapped.means().items() if name.startswith(LOGGED)}
    weights = {f"train/weight_{name}": value for name, value in wrapped.distiller.weights.items()}
    latest = wrapped.guard.latest if wrapped.guard is not None else {}
    names = wrapped.distiller.weights if wrapped.guard is not None else ()
    return {**means, **weights, **{f"train/with_{name}": latest.get(name, math.nan) for name in names}}
