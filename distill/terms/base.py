"""What a loss term is given, and what it must answer."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor


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
    """A named loss, a scalar mean over the batch, and the figures (detached scalars) that go into the log with it."""

    loss: Tensor
    figures: Mapping[str, Tensor]


class Term(Protocol):
    """A loss without trainable parameters: optimizer, DDP and resume are made before any term exists."""

    name: str
    at: tuple[str, ...]  # the student's layers where its gradient is measured against the task's

    def layers(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The student's and the teacher's layers whose features it needs."""
        ...

    def __call__(self, student: View, teacher: View, batch: Batch) -> dict[str, Reading]:
        """Named losses: the keys become log columns, so they have at most ten characters."""
        ...
