"""What a loss term is given, and what it must answer."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass

from torch import Tensor

from distill.attention.pairs import Pair


@dataclass(frozen=True)
class Batch:
    """What a term may know of the training batch.

    `images` (B, C, *S) as the student sees them; `boxes` (M, 4) normalised xywh, `classes` (M,) and `box_image` (M,),
    the image each box lies in, where the task has boxes; `masks` (B, *S) whole numbers, 0 for background, where it has
    a class for each position. `epoch` and `step` count from 0; an epoch has `steps`.
    """

    images: Tensor
    boxes: Tensor | None = None
    classes: Tensor | None = None
    box_image: Tensor | None = None
    epoch: int = 0
    step: int = 0
    masks: Tensor | None = None
    steps: int = 1

    @property
    def epochs(self) -> float:
        """How many epochs of training lie behind this batch, in fractions."""
        return self.epoch + self.step / max(self.steps, 1)


@dataclass(frozen=True)
class View:
    """One network's answer to a batch: `features` (B, C, *S) by layer name."""

    features: Mapping[str, Tensor]


@dataclass(frozen=True)
class Reading:
    """A named loss, a scalar mean over the batch, and the figures (detached scalars) that go into the log with it.

    `apart` is how far the two sides are from being the same, 0 where they are and there is nothing to learn; `spread`
    the standard deviation of what is to be followed, 0 where it is everywhere alike. None where neither can be told.
    """

    loss: Tensor
    figures: Mapping[str, Tensor]
    apart: Tensor | None = None
    spread: Tensor | None = None


class Term(ABC):
    """A loss without trainable parameters: optimizer, DDP and resume are made before any term exists.

    `name` is the term's in the log and in the manifest, `title` what the user reads. `columns` are the log columns of
    its losses (at most ten characters each), with what each of them compares, in words; `logged` the figures that
    results.csv keeps. `at` are the student's layers where its gradient is measured against the task's.
    `may_begin_equal` says that both sides may be the same before training, and no fault. `maps` are the pairs whose
    attention maps, with the power `p`, it compares, and `alphas` those of gates' coefficients with what guides them.
    """

    name: str
    at: tuple[str, ...]
    columns: Mapping[str, str]
    logged: tuple[str, ...] = ()
    may_begin_equal: bool = False
    maps: tuple[Pair, ...] = ()
    p: float = 2.0
    alphas: tuple[Pair, ...] = ()

    @property
    def title(self) -> str:
        return self.name

    @abstractmethod
    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The student's and the teacher's layers whose features it needs."""

    @abstractmethod
    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        """The losses of a batch, by column."""
