"""What of ours stands in results.csv: losses in training alone, figures as means over the epoch, and weights."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from distill.adapters.ultralytics.wrapper import TOTAL, DistillingModule
from distill.terms.base import Term


def without_ours(items: Any, prefix: str, terms: Sequence[Term]) -> Any:
    """Labelled losses, names or a mapping from them, less ours: in validation they would stand as zeros."""
    if not terms:
        return items
    ours = {f"{prefix}/{column}" for column in (TOTAL, *(column for term in terms for column in term.columns))}
    if isinstance(items, Mapping):
        return {name: value for name, value in items.items() if name not in ours}
    return [name for name in items if name not in ours]


def figures(wrapped: DistillingModule) -> dict[str, float]:
    """The epoch's means of each pair's cosine, each gate's correlation and spread, how outputs agree; the weights.

    `with_attention` and so on are the cosines of the terms' gradients and the task's when they were last measured.
    """
    logged = {figure for term in wrapped.distiller.terms for figure in term.logged}
    means = {f"train/{name}": value for name, value in wrapped.means().items() if name in logged}
    weights = {f"train/weight_{name}": value for name, value in wrapped.distiller.weights.items()}
    latest = wrapped.guard.latest if wrapped.guard is not None else {}
    names = wrapped.distiller.weights if wrapped.guard is not None else ()
    return {**means, **weights, **{f"train/with_{name}": latest.get(name, math.nan) for name in names}}
