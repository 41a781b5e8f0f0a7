"""Attention transfer: the distance between the normalised attention maps of paired layers."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from distill.attention.maps import AttentionMap, compared, meet
from distill.attention.pairs import Pair
from distill.terms.base import Batch, Reading, View


def l2(difference: Tensor) -> Tensor:
    """||A_S - A_T||_2 of each sample, in [0, sqrt 2] for energy maps: the paper's equation 2 without its beta / 2.

    (B, N) -> (B,). Equal maps give 0 with gradient 0. (Zagoruyko & Komodakis, arXiv 1612.03928.)
    """
    return torch.linalg.vector_norm(difference, dim=1)


def squared(difference: Tensor) -> Tensor:
    """||A_S - A_T||_2^2, for unit maps 2 (1 - cos), in [0, 2] whatever the resolution. (B, N) -> (B,)."""
    return difference.square().sum(dim=1)


def mean(difference: Tensor) -> Tensor:
    """The mean over positions of (A_S - A_T)^2, `squared` / HW: what the authors' code computes (with beta = 1000).

    With one weight for all pairs an 80x80 map counts 16 times less than a 20x20 map. (B, N) -> (B,).
    (szagoruyko/attention-transfer, utils.py; the difference to equation 2 is its issue 34.)
    """
    return difference.square().mean(dim=1)


FORMS: dict[str, Callable[[Tensor], Tensor]] = {"l2": l2, "squared": squared, "mean": mean}


class AttentionTerm:
    """The sum over pairs of a distance between unit attention maps, each pair a loss of its own.

    Maps of different size meet on the smaller grid, dimension by dimension. `p` is the power of the energy maps,
    `form` one of `FORMS`. The figures are each pair's cosine and L2 distance, means over the batch.
    """

    name = "attention"

    def __init__(self, pairs: Sequence[Pair], p: float = 2.0, form: str = "l2") -> None:
        self.pairs = tuple(pairs)
        self.p = p
        self.form = form
        self._distance = FORMS[form]

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        return tuple(pair.student for pair in self.pairs), tuple(pair.teacher for pair in self.pairs)

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        readings = {}
        for pair in self.pairs:
            mine = AttentionMap.read(student.features[pair.student], pair.student, pair.kind, self.p)
            theirs = AttentionMap.read(teacher.features[pair.teacher], pair.teacher, pair.kind, self.p)
            a, b = (compared(m) for m in meet(mine, theirs))  # (B, N) each
            with torch.no_grad():
                cosine = torch.cosine_similarity(a, b, dim=1).mean()
                distance = torch.linalg.vector_norm(a - b, dim=1).mean()
            loss = pair.weight * self._distance(a - b).mean()
            readings[pair.column] = Reading(loss, {f"cos_{pair.name}": cosine, f"dist_{pair.name}": distance})
        return readings
