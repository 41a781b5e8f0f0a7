"""Which first weights are the better ones: both are trained for some steps, and judged on images kept apart.

The loss before training does not tell what training makes of a start. From COCO's weights with a teacher of the same
data a fitted student had the least loss and ended below the student that kept its own.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import numpy as np
import torch
from torch import nn

from distill.adapters.ultralytics.cpu import in_precision
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.views import BATCH, spread, training_images
from distill.modes import as_found
from distill.progress import progress

OWN = "own"  # weights that a student has been trained to
MARGIN = 0.01  # by which the loss of another start has to be below that of its own
JUDGES = 64  # images on which starts are judged
APART = 4  # every so many images of the data are the judges': nobody is trained on them
PART = 0.02  # of the run's steps, for each start
LEAST, MOST = 8, 100  # steps
CLIP = 10.0  # Ultralytics' own bound on the gradient's norm


def race(trainer: Any, starts: Mapping[str, nn.Module], seed: int) -> tuple[dict[str, float], int]:
    """The task's loss of each start after some steps at the run's own learning rate; and how many steps.

    The starts are left as they are. All are trained on the same batches of three quarters of the training images, and
    judged in eval mode, so that a start whose statistics do not keep up is seen, on views of the rest.
    """
    count = len(trainer.train_loader.dataset)
    shown, held = parts_of(count)
    size = min(BATCH, max(trainer.batch_size // max(trainer.world_size, 1), 1))
    steps = steps_of(trainer.epochs * len(trainer.train_loader))
    _seed(seed)
    judges = list(training_images(trainer, spread(held, JUDGES)))
    whole = len(starts) * steps
    ticks = progress(range(whole), "steps of the race for first weights", whole)
    losses = {}
    for name, start in starts.items():
        _seed(seed)  # the same images for all, augmented alike
        runner = deepcopy(start).train()
        _train(trainer, runner, random.choices(shown, k=steps * size), steps, ticks)
        losses[name] = task_loss(runner, judges, trainer.per_image)
    next(ticks, None)
    return losses, steps


def _seed(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


def steps_of(total: int) -> int:
    """How many steps each start gets in a run of `total`."""
    return min(max(round(PART * total), LEAST), MOST)


def parts_of(count: int) -> tuple[list[int], list[int]]:
    """Of so many images, the numbers of those that are fitted to and trained on, and of those that judge."""
    return [k for k in range(count) if k % APART] or list(range(count)), [k for k in range(count) if not k % APART]


def _train(trainer: Any, runner: nn.Module, numbers: Sequence[int], steps: int, ticks: Any) -> None:
    args = trainer.args
    with quiet():
        optimizer = trainer.build_optimizer(runner, args.optimizer, args.lr0, args.momentum, args.weight_decay, steps)
    rates = [group["lr"] for group in optimizer.param_groups]
    model = in_precision(runner, trainer.own)
    low = trainer.device.type == "cuda" and bool(trainer.amp) and torch.cuda.is_bf16_supported()
    for step, batch in enumerate(training_images(trainer, numbers, len(numbers) // steps)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / (steps / 2))  # half of the race is its warm-up
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=low):  # needs no scaler, as float16 would
            loss = model(batch)[0].sum()
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(runner.parameters(), CLIP)
        optimizer.step()
        next(ticks, None)


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
