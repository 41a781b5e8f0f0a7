"""The dense outputs of a detection head: a prediction for each cell of every level, compared position by position.

Teacher and student predict on the same cells where their strides and image sizes agree, so nothing is matched.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.terms.base import View

FEW = 1024  # cells of a batch that are compared in any case


@dataclass(frozen=True)
class Shared:
    """The classes that both networks know, by their numbers in each: those of one name, in the student's order."""

    student: tuple[int, ...]
    teacher: tuple[int, ...]

    @classmethod
    def by_name(cls, student: Sequence[str], teacher: Sequence[str]) -> Shared:
        """Raises InputError where no name is the same. Upper and lower case count as one."""
        known = {name.lower(): number for number, name in reversed(list(enumerate(teacher)))}
        both = [(number, known[name.lower()]) for number, name in enumerate(student) if name.lower() in known]
        if not both:
            raise InputError(
                f"the teacher's classes ({', '.join(teacher[:5])} ...) have none of the student's names "
                f"({', '.join(student[:5])} ...): its class scores mean nothing here"
            )
        return cls(*map(tuple, zip(*both, strict=True)))

    def only(self, numbers: Collection[int]) -> Shared:
        """Those of these numbers in the student. Raises InputError where none is left."""
        both = [pair for pair in zip(self.student, self.teacher, strict=True) if pair[0] in numbers]
        if not both:
            raise InputError("none of the classes that the student is trained on (classes=) is known to the teacher")
        return Shared(*map(tuple, zip(*both, strict=True)))

    def take(self, logits: Tensor, side: Sequence[int]) -> Tensor:
        """Those channels of (B, K, H, W); the tensor itself where that is all of them, in order."""
        return logits if list(side) == list(range(logits.shape[1])) else logits[:, list(side)]


def levels(pairs: Sequence[Pair], student: View, teacher: View) -> list[tuple[Tensor, Tensor]]:
    """Each level's outputs in float32, (B, K, H, W) of student and teacher.

    Raises InputError where their grids differ: predictions of different cells cannot be compared.
    """
    both = [(student.features[pair.student].float(), teacher.features[pair.teacher].float()) for pair in pairs]
    for pair, (mine, theirs) in zip(pairs, both, strict=True):
        if mine.shape[2:] != theirs.shape[2:]:
            grids = ["x".join(map(str, tensor.shape[2:])) for tensor in (mine, theirs)]
            raise InputError(
                f"--response compares cell by cell, but at {pair.name} the student has {grids[0]} cells and the "
                f"teacher {grids[1]}: leave out --teacher-imgsz"
            )
    return both


def flat(outputs: Sequence[Tensor]) -> Tensor:
    """All levels' cells in a row: (B, K, H, W) each -> (B, N, K)."""
    return torch.cat([tensor.flatten(2) for tensor in outputs], dim=2).transpose(1, 2)


def confidence(logits: Tensor) -> Tensor:
    """The teacher's highest class probability at each cell: (B, N, K) -> (B, N) in (0, 1), without gradient."""
    return logits.detach().amax(2).sigmoid()


def surest(weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Of (B, N) weights the largest, (M,), and where they stand, image and cell: a quarter of all cells, or `FEW`.

    The others are background, where weights are next to nothing: they cost most of the time and say as little.
    """
    every = weights.flatten()
    found, where = every.topk(min(len(every), max(FEW, len(every) // 4)), sorted=False)
    return found, (where // weights.shape[1], where % weights.shape[1])


def weighted(values: Tensor, weights: Tensor) -> Tensor:
    """The mean of values, each counted by its weight, over the whole batch: a scalar; 0 if all weights are."""
    return (values * weights).sum() / weights.sum().clamp(min=torch.finfo(weights.dtype).tiny)


def weighted_loss(values: Tensor, weights: Tensor) -> Tensor:
    """The same where the weights add up to 1 or more, as a single sure object's do; less where they do not.

    So a batch in which a teacher sees next to nothing teaches next to nothing, as in Ultralytics' own losses.
    """
    return (values * weights).sum() / weights.sum().clamp(min=1)


def in_words(output: str, branch: str) -> str:
    """What an output is called: the branch of a head that answers once for each object is named."""
    return f"{output}, one per object" if branch else output
