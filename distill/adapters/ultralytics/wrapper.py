"""The module that stands in for the student during training, and disappears wherever Ultralytics looks inside."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from statistics import geometric_mean
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist
from ultralytics.utils import LOGGER, RANK
from ultralytics.utils.torch_utils import unwrap_model

from distill.distiller import Distiller, Step
from distill.guard import Guard
from distill.teacher import Teacher
from distill.terms.base import Batch
from distill.weighting import Follower, due, measure

TOTAL = "at_loss"


class Around(nn.Module):
    """Stands in for a network: its only submodule is called `module`, which `unwrap_model` peels off.

    Whatever else is asked of it, the network answers. What it holds beside the network is outside the module tree.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            return getattr(super().__getattr__("module"), name)


class Passing(Around):
    """What is around a network while it trains: a deep copy is a copy of the network alone."""

    def __deepcopy__(self, memo: dict[int, Any]) -> nn.Module:
        copied: nn.Module = deepcopy(self.module, memo)
        return copied


class WithTeacher(Around):
    """Student and teacher as one network, for AutoBatch to measure: the forward runs both."""

    def __init__(self, module: nn.Module, teacher: Teacher) -> None:
        super().__init__(module)
        self.teacher = teacher

    def forward(self, images: Tensor) -> Any:
        kept = self.teacher(images)  # as in training, where its features wait for the student's
        answer = self.module(images)
        del kept
        return answer


class DistillingModule(Passing):
    """The student with the attention terms added to its training loss.

    EMA, checkpoints, optimizer, NaN recovery and callbacks keep seeing the plain student, and a deep copy is a copy of
    the student alone. Anything but a training batch passes through.

    `guard` is told which way the terms pull. `per_image` says that the task multiplies its loss by the batch size, so
    ours is multiplied too. A compiled student gets its forward and its loss called apart, as Ultralytics does for
    compiled models.
    """

    def __init__(
        self,
        module: nn.Module,
        distiller: Distiller,
        per_image: bool,
        follower: Follower | None = None,
        guard: Guard | None = None,
    ) -> None:
        super().__init__(module)
        self.distiller = distiller
        self.per_image = per_image
        self.follower = follower
        self.guard = guard
        self.epoch = 0
        self.step = 0
        self.steps = 1
        self.figures: dict[str, Tensor] = {}
        self.seen = 0

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """A training batch (dict) gives (loss vector, dict of detached losses); all else passes through."""
        if not (self.training and isinstance(x, dict)):
            return self.module(x, *args, **kwargs)
        student = unwrap_model(self.module)
        batch = as_batch(x, self.epoch, self.step, self.steps)
        with self.distiller.watch(student, batch) as step:
            if student is self.module:
                loss, items = student(x)
            else:
                loss, items = student.loss(x, self.module(x["img"]))
        self.step += 1
        images = x["img"].shape[0]
        if (self.follower or self.guard) and due(batch):
            self._measure(loss.sum() / (images if self.per_image else 1), step)
        return self._add(loss, items, step, images)

    def _measure(self, task: Tensor, step: Step) -> None:
        balances = measure(task, step, self.distiller)
        if self.follower is not None:
            self.follower.move(over_ranks(self.follower.wanted(balances)))
        for line in self.guard.note(balances) if self.guard is not None else ():
            if RANK in {-1, 0}:
                LOGGER.warning(line)

    def _add(self, loss: Tensor, items: dict[str, Tensor], step: Step, images: int) -> tuple[Tensor, dict[str, Tensor]]:
        self._note(step)
        losses = step.losses()
        total = torch.stack(list(losses.values())).sum()
        logged = {TOTAL: total.detach(), **{name: value.detach() for name, value in losses.items()}}
        extra = total * images if self.per_image else total
        return torch.cat([loss.reshape(-1), extra.reshape(1)]), {**items, **logged}

    def _note(self, step: Step) -> None:
        for name, value in step.figures().items():
            self.figures[name] = self.figures[name] + value if name in self.figures else value
        self.seen += bool(step.readings)

    def start_epoch(self, epoch: int, steps: int) -> None:
        """Figures and the step count begin anew; an epoch has so many `steps`."""
        self.epoch, self.step, self.steps, self.seen, self.figures = epoch, 0, steps, 0, {}

    def means(self) -> dict[str, float]:
        """The figures' means over the epoch so far."""
        return {name: value.item() / self.seen for name, value in self.figures.items()}


def over_ranks(weights: dict[str, float]) -> dict[str, float]:
    """The geometric means over all processes, of those that have a value."""
    if not dist.is_initialized():
        return weights
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, weights)
    names = dict.fromkeys(name for one in found for name in one)
    values = {name: [one[name] for one in found if name in one] for name in names}
    return {name: geometric_mean(them) if min(them) > 0 else 0.0 for name, them in values.items()}


def as_batch(data: dict[str, Any], epoch: int = 0, step: int = 0, steps: int = 1) -> Batch:
    """The parts of an Ultralytics batch that terms may know; turned boxes as the upright ones around them."""
    boxes = data.get("bboxes")
    if boxes is not None and boxes.shape[-1] == 5:
        boxes = upright(boxes, data["img"].shape[2:])
    return Batch(data["img"], boxes, data.get("cls"), data.get("batch_idx"), epoch, step, steps=steps)


def upright(boxes: Tensor, size: Sequence[int]) -> Tensor:
    """(M, 5) x, y, w, h in shares of the image's sides and an angle -> (M, 4), the least upright boxes around them.

    Ultralytics turns the box before it divides by the sides, so in an image that is not square (`size` h, w) w and h
    are shares of sides of their own.
    """
    height, width = size
    x, y, w, h, angle = boxes.unbind(1)
    w, h, cos, sin = w * width, h * height, angle.cos().abs(), angle.sin().abs()
    return torch.stack([x, y, (w * cos + h * sin) / width, (w * sin + h * cos) / height], dim=1)
