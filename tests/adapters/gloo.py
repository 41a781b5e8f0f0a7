"""Our detection trainer on two processes of the CPU, through Ultralytics' own launcher.

Ultralytics knows several devices only as several GPUs. What it decides from the device is decided here instead: how
many processes there are, their back end (gloo), no device numbers for DDP, the CPU for the last validation. The rest is
as on GPUs: the launcher, the pickled trainer, the deleted folder, samplers, gradients, the gathering of results.
"""

from __future__ import annotations

import os
from datetime import timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import distributed as dist
from torch import nn
from ultralytics.engine import validator
from ultralytics.utils import LOCAL_RANK, RANK
from ultralytics.utils.torch_utils import unwrap_model

from distill import proof
from distill.adapters.ultralytics import trying
from distill.adapters.ultralytics.tasks import DistillDetectionTrainer
from distill.trial import Trial

SEEN = "DISTILL_TESTS_SEEN"  # the folder into which every process writes what it saw


class Witness(DistillDetectionTrainer):
    """On one process: BatchNorm with fixed statistics, so that an image's maps do not depend on its neighbours."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.losses: list[dict[str, float]] = []
        self.before: dict[str, torch.Tensor] = {}
        self.add_callback("on_train_batch_end", note)

    def _model_train(self) -> None:
        super()._model_train()
        self.before = self.before or copied(self.model)
        for module in self.model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()

    def _do_train(self) -> None:
        super()._do_train()
        seen = {
            "before": self.before,
            "after": copied(self.model),
            "losses": self.losses,
            "weights": self.own["weights"],
            "precision": self.own.get("precision_used"),
            "plain": type(unwrap_model(self.model)).__name__,
            "parallel": type(self.model).__name__,
            "processes": dist.get_world_size() if dist.is_initialized() else 1,
        }
        torch.save(seen, Path(os.environ[SEEN]) / f"{RANK}.pt")


def copied(model: nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in unwrap_model(model).named_parameters()}


def note(trainer: Witness) -> None:
    trainer.losses.append({name: value.item() for name, value in trainer.loss_items.items()})


class Gloo(Witness):
    """On two processes."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.world_size, self.ddp = 2, LOCAL_RANK == -1

    def _setup_ddp(self) -> None:
        nn.parallel.DistributedDataParallel = OnCPU
        validator.get_torch_device_backend = lambda device: SimpleNamespace(current_device=lambda: 0)
        validator.AutoBackend = on_cpu(validator.AutoBackend)
        measured = proof.weight_for_share  # on so few images both would come to the same
        proof.weight_for_share = lambda *norms: measured(*norms) * (1 + RANK)
        dist.init_process_group("gloo", timeout=timedelta(seconds=120), rank=RANK, world_size=self.world_size)


class Helped(Gloo):
    """Whose trial finds that features help."""

    change = -0.1

    def _setup_ddp(self) -> None:
        super()._setup_ddp()
        change = self.change if RANK == 0 else -self.change  # nobody but rank 0 is asked
        trying.Trial.of = lambda *_: Trial(change, 8)


class Harmed(Helped):
    """Whose trial finds that they do harm."""

    change = 0.1


class OnCPU(nn.parallel.DistributedDataParallel):
    def __init__(self, module: nn.Module, device_ids: Any = None, **kwargs: Any) -> None:
        super().__init__(module, **kwargs)


def on_cpu(backend: Any) -> Any:
    def make(*args: Any, **kwargs: Any) -> Any:
        return backend(*args, **{**kwargs, "device": torch.device("cpu")})

    return make
