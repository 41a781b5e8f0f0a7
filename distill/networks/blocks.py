"""The parts of a U-Net: blocks of convolutions, the way up, and the side heads of deep supervision."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from distill.attention.gates import CONVOLUTION, LINEAR, NORM

TRANSPOSED: dict[int, Callable[..., nn.Module]] = {2: nn.ConvTranspose2d, 3: nn.ConvTranspose3d}
POOL: dict[int, Callable[..., nn.Module]] = {2: nn.MaxPool2d, 3: nn.MaxPool3d}


def block(dims: int, channels: int, out: int) -> nn.Sequential:
    """Twice a 3x3 convolution, BatchNorm and ReLU: (B, channels, *S) -> (B, out, *S)."""
    convolution, norm = CONVOLUTION[dims], NORM[dims]
    parts = [(convolution(width, out, 3, padding=1), norm(out), nn.ReLU(inplace=True)) for width in (channels, out)]
    return nn.Sequential(*parts[0], *parts[1])


def linear(dims: int, factor: Sequence[int]) -> nn.Upsample:
    """Linear up-sampling by a factor for each axis."""
    return nn.Upsample(scale_factor=tuple(map(float, factor)), mode=LINEAR[dims], align_corners=False)


def transposed(dims: int, channels: int, out: int, factor: Sequence[int]) -> nn.Module:
    """Learned up-sampling by a factor for each axis: a transposed convolution whose kernel is its stride."""
    return TRANSPOSED[dims](channels, out, tuple(factor), tuple(factor))


def cropped(features: Tensor, size: Sequence[int]) -> Tensor:
    """The first `size` positions of each axis: what an odd size lacks to twice the pooled size, which is rounded up."""
    for axis, length in enumerate(size, start=2):
        features = features.narrow(axis, 0, length)
    return features


class DeepSupervision(nn.Module):
    """One prediction from the outputs of all decoder levels, so that each gets a gradient of its own.

    A 1x1 convolution reads `classes` channels from each level, which are brought to full size by linear up-sampling
    and concatenated, the finest first; a last 1x1 convolution makes one prediction of them (after Lee et al.,
    "Deeply-Supervised Nets", 2015, arXiv 1409.5185; wired as in the published Attention U-Net code: one output, one
    loss). `channels` are the levels', the finest first; `stride` leads from each level to the next, for each axis.
    """

    def __init__(self, classes: int, channels: Sequence[int], dims: int, stride: Sequence[int]) -> None:
        super().__init__()
        self.sides = nn.ModuleList(
            nn.Sequential(CONVOLUTION[dims](width, classes, 1), linear(dims, [step**level for step in stride]))
            for level, width in enumerate(channels)
        )
        self.final = CONVOLUTION[dims](len(channels) * classes, classes, 1)

    def forward(self, decoded: Sequence[Tensor]) -> Tensor:
        """`decoded` are the levels' outputs, the finest (B, C, *S) first; the result is (B, classes, *S)."""
        size = decoded[0].shape[2:]
        sides = [cropped(side(features), size) for side, features in zip(self.sides, decoded, strict=True)]
        result: Tensor = self.final(torch.cat(sides, dim=1))
        return result
