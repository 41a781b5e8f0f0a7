"""Feature transfer: how much of the teacher's features a linear map of the student's can tell."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from math import gcd, prod
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from distill.attention.pairs import Pair, pair_layers
from distill.errors import InputError
from distill.ranges import USUAL
from distill.settings import Settings
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.method import Figures, Method, Networks, Planned, read_pairs
from distill.text import Table, figure

RIDGE = 1e-3  # of each student channel's variance, at least: keeps the solution finite where channels are dependent
CONSTANT = 1e-6  # spread of a channel, over the size of the largest, which rounding alone explains
UNTRAINED = "features: not tried: its weights are random or copied, and a short trial says nothing of those"
TINY = 1e-20  # of a variance, for channels that are the same everywhere
ENOUGH = 2048  # positions of a batch, or 16 for each of the student's channels: what a map of them is well found from
AT_ONCE = 64  # of the teacher's channels, or half as many as the student has


class FeatureTerm(Term):
    """For each pair, the share of the teacher's variance that the best linear map of the student's features leaves.

    The channels of both at each position of the batch are centred, the teacher's scaled to variance 1; W is the least
    squares solution of X W = Y, found anew on every batch. The loss is the mean square of Y - X W, 1 - R^2, in [0, 1]
    whatever the channels. Of large levels a part of the positions is taken, and a part of the teacher's channels,
    others at each step. FitNets (Romero et al. 2015, arXiv 1412.6550) train such a map beside the student; here it has
    no parameters and is the best one from the first step on. (R^2 as a similarity of layers: Kornblith et al. 2019,
    arXiv 1905.00414.) The figure is `r2_` of the pair.
    """

    name = "features"

    def __init__(self, pairs: Sequence[Pair]) -> None:
        self.pairs = tuple(pairs)
        self.at = tuple(pair.student for pair in self.pairs)
        self.columns = {column(pair.name): f"features {pair.name}" for pair in self.pairs}
        self.logged = tuple(f"r2_{pair.name}" for pair in self.pairs)

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(pair.student for pair in self.pairs), tuple(pair.teacher for pair in self.pairs)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        readings = {}
        for pair in self.pairs:
            mine, theirs = student.features[pair.student], teacher.features[pair.teacher]
            size = [min(a, b) for a, b in zip(mine.shape[2:], theirs.shape[2:], strict=True)]
            part = some((len(mine), *size), mine.shape[1], batch)
            theirs = theirs[:, in_turn(theirs.shape[1], max(AT_ONCE, mine.shape[1] // 2), batch)]
            loss = unexplained(positions(mine, size, part), positions(theirs, size, part))
            readings[column(pair.name)] = Reading(pair.weight * loss, {f"r2_{pair.name}": 1 - loss.detach()})
        return readings


def column(pair: str) -> str:
    """The log column of a pair's loss."""
    return f"ft_{pair}"


def some(shape: Sequence[int], channels: int, batch: Batch) -> slice:
    """Which positions of a grid (B, *S), in order, are compared at this step: every k-th of them.

    k has no factor in common with the width, so that they do not stand in columns, and they are others at the next
    step: all of them in k steps.
    """
    every = -(-prod(shape) // max(ENOUGH, 16 * channels))
    while gcd(every, shape[-1]) > 1:
        every += 1
    return slice(_turn(batch) % every, None, every)


def in_turn(channels: int, most: int, batch: Batch) -> slice:
    """Which channels of the teacher are compared at this step: every k-th, at most so many; others at the next step."""
    every = -(-channels // most)
    return slice(_turn(batch) % every, None, every)


def _turn(batch: Batch) -> int:
    return batch.epoch * batch.steps + batch.step


def positions(features: Tensor, size: Sequence[int], part: slice = slice(None)) -> Tensor:
    """(B, C, *S) -> (B prod size, C) float32, by area means onto a smaller grid; a part of the rows."""
    if list(features.shape[2:]) != list(size):
        features = F.interpolate(features.float(), size=list(size), mode="area")
    return features.movedim(1, -1).flatten(0, -2)[part].float()


def unexplained(x: Tensor, y: Tensor) -> Tensor:
    """1 - R^2 of y (n, C_t) by least squares from x (n, C_s): the mean over the channels of y that vary at all.

    In [0, 1]; without gradient into y. Both are centred here. The fit is shrunk by C_s / n: deep layers have hardly
    more positions than channels, and would explain anything by chance.
    The gradient is that of the student's features under this map: where it is the best one, how it would change with
    them does not count.
    """
    with torch.autocast(x.device.type, enabled=False):
        x = x - x.mean(0)
        with torch.no_grad():
            mean = y.mean(0)
            y = y - mean
            variance = (y * y).mean(0)  # a norm along the first dimension takes five times as long on a CPU
            varies = variance > CONSTANT**2 * (variance + mean * mean).max()
            y = y / variance.sqrt()
            y = y if varies.all() else y[:, varies]
        if not y.shape[1]:
            return 1 + 0 * x.sum()  # there is nothing to tell
        return (x @ _map(x.detach(), y) - y).square().mean()


def _map(x: Tensor, y: Tensor) -> Tensor:
    """(C_s, C_t): the shrunk least squares solution of X W = Y."""
    xx, xy = x.T @ x / len(x), x.T @ y / len(x)
    spread = xx.diagonal().clamp(min=TINY).sqrt()
    alike = xx / spread / spread[:, None]  # correlations: no channel is large or small in them
    alike = alike + (RIDGE + len(alike) / len(x)) * torch.eye(len(alike), dtype=x.dtype, device=x.device)
    return torch.linalg.solve(alike, xy / spread[:, None]) / spread[:, None]


class Features(Method):
    """Features of paired layers. By default they are put on trial, beside the usual attention and outputs."""

    name = "features"
    options = ("features", "features_weight", "features_share")
    weight_option, share_option = "features_weight", "features_share"
    kinds = ("detector",)

    def asked(self, settings: Settings) -> bool:
        return bool(settings.named_features)

    def idle(self, settings: Settings) -> Sequence[str]:
        given = ["features"] if self.asked(settings) else []
        return [*given, *(name for name in self.options[1:] if getattr(settings, name) != getattr(Settings, name))]

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        if self.asked(settings) and settings.teacher is not None:
            pairs = pair_layers(*networks.layers, settings.named_features)
            return {"pairs": [asdict(pair) for pair in pairs], "trial": False}, ()
        may = settings.features == USUAL and not settings.layers and bool(settings.response) and bool(settings.teacher)
        if may and networks.knows:
            pairs = pair_layers(*networks.layers)
            return {"pairs": [asdict(pair) for pair in pairs], "trial": True}, ()
        if settings.features == USUAL:
            self._check_needless(settings)
        return {}, (UNTRAINED,) if may else ()

    def _check_needless(self, settings: Settings) -> None:
        for name in ("features_share", "features_weight"):
            if getattr(settings, name) != getattr(Settings, name):
                raise InputError(
                    f"--{name.replace('_', '-')} has no effect: features are tried for a trained or fitted student, "
                    f"beside the usual --layers and --response: name some, as --features P3,P4,P5"
                )

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        return [FeatureTerm(read_pairs(planned))]

    def rows(self, planned: Planned) -> list[tuple[str, Pair]]:
        return [(column(pair.name), pair) for pair in read_pairs(planned)] if not planned["trial"] else []

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        rows: list[tuple[str, ...]] = [("features", "student", "teacher", "told before", "after")]
        for pair in read_pairs(planned):
            cells = [figure(found[f"r2_{pair.name}"], ".1%") for found in (before, after)]
            rows.append((column(pair.name), pair.student, pair.teacher, *cells))
        what = "how much of the teacher's variance a linear map of the student's features tells (R2)"
        return Table(rows, f"on validation images: {what}")
