"""Attention transfer: the distance between the normalised attention maps of paired layers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any

import torch
from torch import Tensor

from distill.attention.maps import AttentionMap, compared, meet, unit
from distill.attention.pairs import Pair, pair_layers
from distill.errors import InputError
from distill.ranges import NO_PAIRS
from distill.settings import Settings
from distill.terms.base import Batch, Reading, Term, View
from distill.terms.focus import BoxFocus, Focus, ScoreFocus
from distill.terms.method import Figures, Method, Networks, Planned, read_pairs
from distill.text import Table, figure

ROUNDING = 1e-5  # of a map's largest value: what its deviation from the mean must exceed to be more than rounding


def l2(a: Tensor, b: Tensor) -> Tensor:
    """||A_S - A_T||_2 of each sample, in [0, sqrt 2] for energy maps: the paper's equation 2 without its beta / 2.

    (B, N), (B, N) -> (B,). Equal maps give 0 with gradient 0. (Zagoruyko & Komodakis, arXiv 1612.03928.)
    """
    return torch.linalg.vector_norm(a - b, dim=1)


def squared(a: Tensor, b: Tensor) -> Tensor:
    """||A_S - A_T||_2^2, for unit maps 2 (1 - cos), in [0, 2] whatever the resolution. (B, N), (B, N) -> (B,)."""
    return (a - b).square().sum(dim=1)


def mean(a: Tensor, b: Tensor) -> Tensor:
    """The mean over positions of (A_S - A_T)^2, `squared` / HW: what the authors' code computes (with beta = 1000).

    With one weight for all pairs an 80x80 map counts 16 times less than a 20x20 map. (B, N), (B, N) -> (B,).
    (szagoruyko/attention-transfer, utils.py; the difference to equation 2 is its issue 34.)
    """
    return (a - b).square().mean(dim=1)


def pearson(a: Tensor, b: Tensor) -> Tensor:
    """1 - r, Pearson's correlation over the positions, in [0, 2]: PKD's distance (Cao et al. 2022, arXiv 2207.02039).

    Unlike the cosine it has no high floor: maps that share nothing but a background are at 1. Half the squared distance
    of the standardised maps, so equal maps give 0 with gradient 0; where one is flat, it counts as a map of zeros.
    (B, N), (B, N) -> (B,).
    """
    return squared(unit(centred(a)), unit(centred(b))) / 2


FORMS: dict[str, Callable[[Tensor, Tensor], Tensor]] = {"l2": l2, "squared": squared, "mean": mean, "pearson": pearson}


def centred(values: Tensor) -> Tensor:
    """(B, N) minus each sample's mean; exactly zero, without gradient, where only rounding is left of it."""
    result = values - values.mean(dim=1, keepdim=True)
    varied = result.detach().abs().amax(1, keepdim=True) > ROUNDING * values.detach().abs().amax(1, keepdim=True)
    return torch.where(varied, result, torch.zeros_like(result))


def _cosine_of_units(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=1)


class AttentionTerm(Term):
    """The sum over pairs of a distance between unit attention maps, each pair a loss of its own.

    Maps of different size meet on the smaller grid, dimension by dimension. `p` is the power of the energy maps,
    `form` one of `FORMS`; with a `focus` both maps are multiplied by its weights before they are normalised. The
    figures are each pair's cosine and L2 distance, of the whole maps, means over the batch.
    """

    name = "attention"

    def __init__(self, pairs: Sequence[Pair], p: float = 2.0, form: str = "l2", focus: Focus | None = None) -> None:
        self.pairs = self.maps = tuple(pairs)
        self.p = p
        self.form = form
        self.focus = focus
        self.at = tuple(pair.student for pair in self.pairs)
        self.columns = {pair.column: f"pair {pair.name}" for pair in self.pairs}
        self.logged = tuple(f"cos_{pair.name}" for pair in self.pairs)
        self._distance = FORMS[form]

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        guides = tuple(pair.teacher for pair in self.pairs) + (self.focus.layers() if self.focus else ())
        return tuple(pair.student for pair in self.pairs), guides

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        readings = {}
        weights: dict[tuple[str, tuple[int, ...]], Tensor] = {}  # pairs that share a grid share them
        for pair in self.pairs:
            mine = AttentionMap.read(student.features[pair.student], pair.student, pair.kind, self.p)
            theirs = AttentionMap.read(teacher.features[pair.teacher], pair.teacher, pair.kind, self.p)
            both = meet(mine, theirs)
            a, b = (compared(m) for m in both)  # (B, N) each
            with torch.no_grad():
                cosine = (_cosine_of_units if pair.kind == "energy" else torch.cosine_similarity)(a, b).mean()
                distance = torch.linalg.vector_norm(a - b, dim=1).mean()
            if self.focus is not None:
                key = self.focus.reads(pair), both[0].size
                if key not in weights:
                    weights[key] = self.focus(pair, teacher, batch, both[0].size)
                a, b = (compared(replace(m, values=m.values * weights[key])) for m in both)
            loss = pair.weight * self._distance(a, b).mean()
            figures = {f"cos_{pair.name}": cosine, f"dist_{pair.name}": distance}
            readings[pair.column] = Reading(loss, figures, distance)
        return readings


class Attention(Method):
    """Attention maps of paired layers; of a U-Net's gates too, where both have some."""

    name = "attention"
    options = ("layers", "weight", "share", "p", "form", "focus")
    weight_option, share_option = "weight", "share"

    def asked(self, settings: Settings) -> bool:
        return settings.layers != NO_PAIRS

    def idle(self, settings: Settings) -> Sequence[str]:
        given = {"weight": settings.weight is not None, "layers": settings.layers not in ((), NO_PAIRS)}
        return [name for name, is_given in {**given, "focus": settings.focus != "none"}.items() if is_given]

    def plan(self, settings: Settings, networks: Networks) -> tuple[Planned, tuple[str, ...]]:
        if settings.focus == "boxes" and not networks.boxes:
            raise InputError(f"--focus boxes: {networks.task} has no labelled boxes")
        if not self.asked(settings) or settings.teacher is None:
            return {}, ()
        pairs = pair_layers(*networks.layers, settings.layers)
        return {"pairs": [asdict(pair) for pair in pairs], "scores": _scores(settings, pairs, networks)}, ()

    def terms(self, planned: Planned, settings: Mapping[str, Any], audit: bool = False) -> list[Term]:
        made: dict[str, Callable[[], Focus | None]] = {
            "none": lambda: None,
            "boxes": BoxFocus,
            "teacher": lambda: ScoreFocus(planned["scores"]),
        }
        return [AttentionTerm(read_pairs(planned), settings["p"], settings["form"], made[settings["focus"]]())]

    def rows(self, planned: Planned) -> list[tuple[str, Pair]]:
        return [(pair.column, pair) for pair in read_pairs(planned)]

    def table(self, planned: Planned, before: Figures, after: Figures) -> Table | None:
        rows: list[tuple[str, ...]] = [("pair", "student", "teacher", "cosine before", "after", "distance after")]
        for column, pair in self.rows(planned):
            figures = before[f"cos_{pair.name}"], after[f"cos_{pair.name}"], after[f"dist_{pair.name}"]
            rows.append((column, pair.student, pair.teacher, *map(figure, figures)))
        return Table(rows, "attention on validation images, network against network")


def _scores(settings: Settings, pairs: Sequence[Pair], networks: Networks) -> dict[str, str]:
    """For each pair, the teacher's class scores of its level, or of the nearest one; {} where no focus needs them."""
    if settings.focus != "teacher":
        return {}
    scores = networks.scores
    if not scores:
        raise InputError("--focus teacher needs class scores cell by cell: the teacher's head has none")
    levels = {layer.name: layer.level for layer in networks.layers[1]}
    return {pair.name: scores[min(scores, key=lambda k: abs(k - levels[pair.teacher]))] for pair in pairs}
