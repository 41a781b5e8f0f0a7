"""What the channels of a teacher are worth to what reads them, and which of them tell the same."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Conv

from distill.adapters.ultralytics.anatomy import channels_of, stride_of
from distill.modes import as_found
from distill.networks.channels import Axis, Channels
from distill.networks.noting import note
from distill.networks.tracing import trace_channels

CELLS = 2  # of the deepest level, on a side of the images that channels are followed with
NORMAL = torch.special.ndtri((torch.arange(32) + 0.5) / 32)  # a standard normal variable, by its quantiles
SIGNALS = 4000  # positions at which a block's channels are compared


@torch.no_grad()
def values_of(teacher: nn.Module, channels: Channels) -> tuple[Tensor, Tensor]:
    """By class of channels, what it carries, and the weights that read it, squared: the product is what it is worth.

    What a channel carries is the mean square behind its activation for a BatchNorm's output that is normal; the weights
    are those with BatchNorm folded in. So their product stays when a channel is scaled and its readers by the inverse,
    which the norm of the weights does not, and it is zero for a channel that its activation shuts.
    """
    carried, read = torch.zeros(2, channels.count)
    blocks = {f"{name}.conv.weight": module for name, module in teacher.named_modules() if isinstance(module, Conv)}

    def add(total: Tensor, axis: Axis, values: Tensor) -> None:
        if axis in channels.numbers and channels.known(axis):
            total.index_add_(0, torch.tensor(channels.classes(axis)), values.float())

    for name, weight in teacher.named_parameters():
        if weight.dim() < 2:
            continue
        folded, block = weight, blocks.get(name)
        if block is not None:
            bn = block.bn
            signal = block.act(bn.bias[:, None] + bn.weight[:, None] * NORMAL)  # (C, 32)
            add(carried, (name, 0), signal.square().mean(1))
            folded = weight * (bn.weight / (bn.running_var + bn.eps).sqrt()).view(-1, 1, 1, 1)
        for axis in (0, 1):
            norms = folded.movedim(axis, 0).flatten(1).square().sum(1)
            if (name, axis) in channels.readers:
                add(read, (name, axis), norms)
            elif block is None:
                add(carried, (name, axis), norms)
    read[[number for number in range(channels.count) if number not in channels.read]] = 1
    return carried, read


def channels_in(model: Any) -> Channels:
    """Where each channel of a network is written and read, followed on a small image."""
    side = CELLS * max(stride_of(model), 32)
    with as_found(model):
        model.train()  # raw outputs, for what is decoded from them has no weights, and branches for training only
        return trace_channels(model, (1, channels_of(model), side, side))


def signals_of(teacher: nn.Module, images: Tensor, interest: Tensor | None) -> dict[str, Tensor]:
    """What the blocks of a teacher give at some positions of `images` (B, C, H, W): (n, C) by the convolution's name.

    Half of the positions are drawn by `interest` (B, 1, h, w), as for the fit.
    """
    blocks = {f"{name}.conv": name for name, module in teacher.named_modules() if isinstance(module, Conv)}
    noted = note(teacher, blocks, images, interest, SIGNALS, "batches for the choice of channels")
    return {name: values.cpu() for name, (_, values) in noted.items()}


class Grams:
    """How alike the channels of a teacher are: inner products of what they carry, for any channels side by side.

    `signals` (n, C) are what each block gives, by its convolution; each channel counts by the weights that `read` it,
    and what it always carries is left to biases.
    """

    def __init__(self, channels: Channels, signals: Mapping[str, Tensor], read: Tensor) -> None:
        self._signals = {name: found.sub_(found.mean(0)) for name, found in signals.items()}
        self._root = read.sqrt()
        self._where: dict[int, dict[str, int]] = defaultdict(dict)  # of a class of channels: blocks, and columns there
        for name in signals:
            axis: Axis = (f"{name}.weight", 0)
            if axis in channels.numbers and channels.known(axis):
                for column, found in enumerate(channels.classes(axis)):
                    self._where[found].setdefault(name, column)

    def __call__(self, classes: Sequence[int]) -> Tensor:
        """(C, C), in double precision; of channels that several blocks give, as in a sum, those of all of them."""
        total = torch.zeros(len(classes), len(classes), dtype=torch.float64)
        for name in self._where[classes[0]]:
            if all(name in self._where[found] for found in classes):
                columns = [self._where[found][name] for found in classes]
                carried = (self._signals[name][:, columns] * self._root[list(classes)]).double()
                total += carried.T @ carried
        return total
