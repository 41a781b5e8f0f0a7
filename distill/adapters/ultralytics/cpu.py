"""Mixed precision on a CPU: Ultralytics' `amp` is for GPUs alone, and does nothing here."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from distill.adapters.ultralytics.wrapper import Passing
from distill.errors import InputError


class InBfloat16(Passing):
    """The network whose training forward runs in bfloat16 where that is safe, by autocast, with channels_last memory.

    Weights, optimizer and EMA stay float32. The convolutions of a processor with AMX or avx512_bf16 are several times
    faster in it, and channels_last saves their reordering: the network's parameters are laid out so, in place.
    """

    def __init__(self, module: nn.Module) -> None:
        super().__init__(module.to(memory_format=torch.channels_last))

    def forward(self, x: Any, *args: Any, **kwargs: Any) -> Any:
        """A batch, or its images (B, C, H, W), in training; all else passes through as it is."""
        if not self.training:
            return self.module(x, *args, **kwargs)
        if isinstance(x, dict):
            x = {**x, "img": x["img"].contiguous(memory_format=torch.channels_last)}
        with torch.autocast("cpu", torch.bfloat16):
            return self.module(x, *args, **kwargs)


def in_precision(model: nn.Module, own: dict[str, Any]) -> nn.Module:
    """The network as the run's settings want it trained."""
    return InBfloat16(model) if own.get("cpu_bfloat16") else model


def check_cpu(trainer: Any) -> None:
    """Raise InputError where --cpu-bfloat16 is asked for on another device, or in several processes."""
    if not trainer.own.get("cpu_bfloat16"):
        return
    if trainer.device.type != "cpu":
        raise InputError(f"--cpu-bfloat16 on {trainer.device.type}: it is for the CPU; there Ultralytics' amp= does it")
    if trainer.world_size > 1:
        raise InputError("--cpu-bfloat16 trains in one process: leave it out, or take one")
