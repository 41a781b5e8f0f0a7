"""A few steps of training on a copy of the student, before a run: they tell what comes of a start, or of a teacher."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import nn
from ultralytics.utils.torch_utils import unwrap_model

from distill.adapters.ultralytics.cpu import in_precision
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.views import BATCH, training_images
from distill.adapters.ultralytics.wrapper import DistillingModule

PART = 0.02  # of the run's steps, for each sprint
LEAST, MOST = 8, 100  # steps
CLIP = 10.0  # Ultralytics' own bound on the gradient's norm


def steps_of(trainer: Any) -> int:
    """How many steps a sprint has in this run."""
    return min(max(round(PART * trainer.epochs * len(trainer.train_loader)), LEAST), MOST)


def sprint(trainer: Any, model: nn.Module, numbers: Sequence[int], steps: int, seed: int, ticks: Any) -> list[float]:
    """Train `model`, a copy, at the run's own learning rate; the task's loss per image at each of the `steps`.

    It learns the images of these `numbers`, drawn and augmented as `seed` says: the same for all that get the same
    seed. Half of the steps are its warm-up. A `DistillingModule` is taught as the run would be.
    """
    seeded(seed)
    args = trainer.args
    with quiet():
        optimizer = trainer.build_optimizer(model, args.optimizer, args.lr0, momentum_of(trainer), args.weight_decay)
    rates = [group["lr"] for group in optimizer.param_groups]
    parameters = list(unwrap_model(model).parameters())
    ours = int(isinstance(model, DistillingModule))  # the last part of the loss
    model = in_precision(model, trainer.own)
    low = trainer.device.type == "cuda" and bool(trainer.amp) and torch.cuda.is_bf16_supported()
    size = min(BATCH, max(trainer.batch_size // max(trainer.world_size, 1), 1))
    losses = []
    for step, batch in enumerate(training_images(trainer, drawn(trainer, numbers, steps, size), size)):
        for group, rate in zip(optimizer.param_groups, rates, strict=True):
            group["lr"] = rate * min(1.0, (step + 1) / (steps / 2))
        with torch.autocast(trainer.device.type, torch.bfloat16, enabled=low):  # needs no scaler, as float16 would
            loss = model(batch)[0].reshape(-1)
        task = loss[: len(loss) - ours].sum().item()
        losses.append(task / (len(batch["img"]) if trainer.per_image else 1))
        optimizer.zero_grad()
        loss.sum().backward()
        nn.utils.clip_grad_norm_(parameters, CLIP)
        optimizer.step()
        next(ticks, None)
    return losses


def momentum_of(trainer: Any) -> float:
    """The momentum that the run has: optimizer=auto takes its own, and leaves `args.momentum` as it was."""
    group = trainer.optimizer.param_groups[0]
    return float(group["betas"][0] if "betas" in group else group["momentum"])


def drawn(trainer: Any, numbers: Sequence[int], steps: int, size: int) -> list[int]:
    """Numbers of images for so many batches of this `size`; with `rect` those of a batch have one shape."""
    dataset = trainer.train_loader.dataset
    shapes: dict[Any, list[int]] = {}
    for number in numbers:
        shape = tuple(dataset.batch_shapes[dataset.batch[number]]) if getattr(dataset, "rect", False) else ()
        shapes.setdefault(shape, []).append(number)
    chosen = random.choices(list(shapes.values()), [len(alike) for alike in shapes.values()], k=steps)
    return [number for alike in chosen for number in random.choices(alike, k=size)]


def seeded(seed: int) -> None:
    """Begin every random generator that draws and augments images anew."""
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)
