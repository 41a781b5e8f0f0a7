"""A gate in a detector's neck: what takes the place of the layer that joins up-sampled features and a skip."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from distill.attention.gates import AttentionGate


class GatedConcat(nn.Module):
    """Joins up-sampled features and a backbone's skip, which passes a gate that the former steer.

    `forward([gating, skip])`: (B, gating_channels, H, W) and (B, skip_channels, H, W) give their concatenation,
    (B, gating_channels + skip_channels, H, W), which at the start is that of a plain `Concat` to within rounding: the
    gate is of the form "bare", on the skip's own grid, so that its coefficients (`gate.alpha`, (B, 1, H, W)) have the
    skip's stride. `d` is the dimension, as in Ultralytics' `Concat`.

    A checkpoint that holds one needs this package to be read, also where nothing else of it is used. Importing this
    module admits it to torch's restricted loader.
    """

    d = 1

    def __init__(self, skip_channels: int, gating_channels: int) -> None:
        super().__init__()
        self.gate = AttentionGate(skip_channels, gating_channels, stride=1, form="bare")

    def forward(self, features: list[Tensor]) -> Tensor:
        gating, skip = features
        return torch.cat([gating, self.gate(skip, gating)], self.d)


# For the life of the process: the framework reads checkpoints by itself during a run, also restricted, and entries that
# are taken back on leaving a block vanish under the loads of other threads.
torch.serialization.add_safe_globals([GatedConcat, AttentionGate])
