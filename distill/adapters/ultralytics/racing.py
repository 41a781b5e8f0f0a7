"""Which first weights are the better ones: both are trained for some steps, and judged on images kept apart.

The loss before training does not tell what training makes of a start. From COCO's weights with a teacher of the same
data a fitted student had the least loss and ended below the student that kept its own.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import nn

from distill.adapters.ultralytics.sprints import seeded, sprint, steps_of
from distill.adapters.ultralytics.views import spread, training_images
from distill.modes import as_found
from distill.progress import progress

OWN = "own"  # weights that a student has been trained to
MARGIN = 0.01  # by which the loss of another start has to be below that of its own
JUDGES = 64  # images on which starts are judged
APART = 4  # every so many images of the data are the judges': nobody is trained on them


def race(trainer: Any, starts: Mapping[str, nn.Module], seed: int) -> tuple[dict[str, float], int]:
    """The task's loss of each start after some steps at the run's own learning rate; and how many steps.

    The starts are left as they are. All are trained on the same batches of three quarters of the training images, and
    judged in eval mode, so that a start whose statistics do not keep up is seen, on views of the rest.
    """
    shown, held = parts_of(len(trainer.train_loader.dataset))
    steps = steps_of(trainer)
    seeded(seed)
    judges = list(training_images(trainer, spread(held, JUDGES)))
    whole = len(starts) * steps
    ticks = progress(range(whole), "steps of the race for first weights", whole)
    losses = {}
    for name, start in starts.items():
        runner = deepcopy(start).train()
        sprint(trainer, runner, shown, steps, seed, ticks)
        losses[name] = task_loss(runner, judges, trainer.per_image)
    next(ticks, None)
    return losses, steps


def parts_of(count: int) -> tuple[list[int], list[int]]:
    """Of so many images, the numbers of those that are fitted to and trained on, and of those that judge."""
    return [k for k in range(count) if k % APART] or list(range(count)), [k for k in range(count) if not k % APART]


@torch.no_grad()
def task_loss(student: Any, batches: list[dict[str, Any]], per_image: bool) -> float:
    """The task's own loss per image, in eval mode."""
    total = 0.0
    with as_found(student):
        student.eval()
        for batch in batches:
            loss = student.loss(dict(batch))[0].sum().item()
            total += loss / (len(batch["img"]) if per_image else 1)
    return total / len(batches)


def best_of(losses: Mapping[str, float]) -> str:
    """The start with the least loss; its own weights unless another is below them by a margin."""

    def key(name: str) -> tuple[bool, float]:
        loss = losses[name]
        if not math.isfinite(loss):
            return True, float(name != OWN)
        return False, loss if name == OWN else loss + MARGIN * abs(loss)

    return min(losses, key=key)
