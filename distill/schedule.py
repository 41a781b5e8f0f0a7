"""How strongly distillation counts over a training: warm-up, decay, and an end before the end."""

from __future__ import annotations

import math
from dataclasses import dataclass

SHAPES = ("constant", "cosine")


@dataclass(frozen=True)
class Schedule:
    """A factor in [0, 1] on all weights, over the `epochs` of a training.

    It rises linearly from 0 over the first `warmup` epochs (fractions count), then stays at 1 ("constant") or falls to
    `floor` along half a cosine ("cosine", as DAMO-YOLO and YOLOv6 do), and is 0 in the last `tail` epochs: those
    without mosaic, as RTMDet stops before its end. The decay ends where the tail begins.
    """

    epochs: float = math.inf
    shape: str = "constant"
    warmup: float = 0.0
    floor: float = 0.1
    tail: float = 0.0

    def __call__(self, epoch: float) -> float:
        """The factor after so many epochs, from 0; 2.5 is half-way through the third."""
        end = self.epochs - self.tail
        if epoch >= end:
            return 0.0
        if epoch < self.warmup:
            return epoch / self.warmup
        if self.shape == "constant":
            return 1.0
        done = (epoch - self.warmup) / (end - self.warmup)
        return self.floor + (1 - self.floor) * (1 + math.cos(math.pi * done)) / 2
