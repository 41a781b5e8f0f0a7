"""The training step of a U-Net, for Lightning: the task's loss, and a distiller's beside it."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from lightning.pytorch import LightningModule
from monai.losses import DiceCELoss, DiceLoss
from torch import Tensor, nn

from distill.adapters.segment import scores
from distill.adapters.segment.networks import MARK
from distill.adapters.segment.pipeline import reseed
from distill.adapters.segment.plan import Plan
from distill.distiller import Distiller, Step
from distill.errors import TrainingFailed
from distill.networks.unet import UNet
from distill.terms.base import Batch

DECAY = 0.9  # exponent of the learning rate's way to zero: (1 - epoch / epochs) ** 0.9, as nnU-Net has it
MOMENTUM = 0.99


def task_loss(name: str | None) -> nn.Module:
    """Logits (B, K, *S) and class numbers (B, 1, *S) -> a scalar, the mean per image.

    "dice-ce" (the default) is 1 - soft Dice, the mean over classes but the background, plus the cross-entropy; "dice"
    the first alone, in [0, 1]: 0, not below, for a class that is rightly absent.
    """
    if name == "dice":
        return DiceLoss(include_background=False, to_onehot_y=True, softmax=True)
    return DiceCELoss(include_background=False, to_onehot_y=True, softmax=True)


class Segmentation(LightningModule):
    """Trains `network`; `about` travels with its checkpoints. The distiller's networks are not parts of this module."""

    def __init__(self, network: UNet, prepared: Plan, distiller: Distiller | None, about: Mapping[str, Any]) -> None:
        super().__init__()
        self.network = network.to(memory_format=LAYOUTS[prepared.data.dims])
        self.task = task_loss(prepared.settings.loss)
        self.distiller = distiller
        self._plan, self._about = prepared, dict(about)
        self._sums: dict[str, Tensor] = {}

    def on_train_epoch_start(self) -> None:
        reseed(self.trainer.train_dataloader, self._plan.settings.seed + self.global_rank, self.current_epoch)
        if self.distiller is not None and self.distiller.teacher is not None:
            self.distiller.teacher.to(self.device)

    def training_step(self, batch: Mapping[str, Any], index: int) -> Tensor:
        steps = int(self.trainer.num_training_batches)
        seen = Batch(batch["image"], None, None, None, self.current_epoch, index, batch["mask"][:, 0], steps)
        task, step = training_pass(self.network, self.task, self.distiller, seen)
        losses = step.losses() if step else {}
        logged = {"train/task": task.detach(), **{f"train/{name}": loss.detach() for name, loss in losses.items()}}
        figures = {f"train/{name}": value for name, value in step.figures().items()} if step else {}
        self.log_dict({**logged, **figures}, on_step=False, on_epoch=True, batch_size=len(seen.images))
        total = torch.stack([task, *losses.values()]).sum()
        if not torch.isfinite(total):
            raise TrainingFailed(f"the loss is {total.item()} in epoch {self.current_epoch + 1}: try a smaller lr0")
        return total

    def on_validation_epoch_start(self) -> None:
        classes = len(self._plan.data.names) - 1
        self._sums = {score: torch.zeros(2, classes, device=self.device) for score in scores.OVERLAPS}  # sum, count

    def validation_step(self, batch: Mapping[str, Any], _index: int) -> None:
        logits = scores.infer(self.network, batch["image"], self._plan.crop).float()
        found = scores.overlaps(logits.argmax(1), batch["mask"][:, 0], len(self._plan.data.names))
        for score, values in found.items():
            self._sums[score] += torch.stack([values.nan_to_num(0)[0], values.isfinite()[0].float()])
        self.log("val/loss", self.task(logits, batch["mask"]), on_epoch=True, batch_size=1, sync_dist=True)

    def on_validation_epoch_end(self) -> None:
        """Means over the images that have a class; a class that none has, and none was found of, is in no mean."""
        for score, sums in self._sums.items():
            total, count = self.trainer.strategy.reduce(sums, reduce_op="sum")
            seen = count > 0
            means = total / count.clamp(min=1)
            self.log(f"val/{score}", means[seen].mean() if seen.any() else means.sum(), rank_zero_only=True)
            for name, value, there in zip(self._plan.data.names[1:], means, seen, strict=True):
                self.log(f"val/{score}/{name}", value if there else torch.tensor(math.nan), rank_zero_only=True)

    def configure_optimizers(self) -> Any:
        options, parameters = self._plan.options, self.network.parameters()
        extra = {"momentum": MOMENTUM, "nesterov": True} if options.optimizer == "SGD" else {}
        optimizer = getattr(torch.optim, options.optimizer)(parameters, lr=options.lr0, **extra)
        schedule = torch.optim.lr_scheduler.PolynomialLR(optimizer, options.epochs, DECAY)
        return {"optimizer": optimizer, "lr_scheduler": schedule}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint[MARK] = {**self._about, "epoch": self.current_epoch + 1}


LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}


def training_pass(
    network: nn.Module, task: nn.Module, distiller: Distiller | None, seen: Batch
) -> tuple[Tensor, Step | None]:
    """The task's loss on a batch, and the distiller's step if there is one."""
    assert seen.masks is not None
    masks = seen.masks.unsqueeze(1)
    if distiller is None:
        return task(network(seen.images).float(), masks), None
    with distiller.watch(network, seen) as step:
        logits = network(seen.images)
    return task(logits.float(), masks), step
