"""A smaller network fitted to a larger one of the same form, convolution by convolution, by least squares.

Once it is known which of the large network's channels each layer of the small one stands for, what a convolution should
give is known too: what the large network's gives in these channels on the same images. So its weights are the solution
of a linear problem, and no gradient is needed: a forward pass of the large network notes the targets, one of the small
network solves layer after layer, each on what the layers before it, already fitted, really give. The latter keeps
errors from adding up (Zhang et al. 2016, arXiv 1505.06798; with channels chosen He et al. 2017, arXiv 1707.06168).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.modes import as_found
from distill.networks.channels import Axis
from distill.networks.noting import note
from distill.progress import progress

BACKGROUND = 0.02  # what a position without interest weighs where outputs are told apart
FAINT = 1e-3  # of a standard deviation: what varies less, in logits or behind a BatchNorm, says nothing to be fitted to
TINY = 1e-12
RIDGES = 1e-3, 1e-2, 0.1, 1.0  # of each input's variance, from the one that is tried first
SHARPEST = 10.0  # of what is fitted


@dataclass(frozen=True)
class Target:
    """What a convolution is to give: `values` (n, C) at the `where` (n,) among its positions over the batch.

    NaN stands in channels that have no counterpart. `weights` (n,) say how much each position counts. `gains` (C,) are
    what the large network's BatchNorm multiplies each channel by, |gamma| / sqrt(variance).
    """

    where: Tensor
    values: Tensor
    weights: Tensor | None = None
    gains: Tensor | None = None


class Solved(NamedTuple):
    """How well a convolution could be fitted, and how safely.

    `r2` is the share of the target's variance that it tells, `sharpness` the largest of its outputs' (`sharpness`),
    `gain` the largest factor of its BatchNorm, |gamma| / sqrt(variance), 0 where there is none.
    """

    r2: float
    sharpness: float
    gain: float = 0.0


@torch.no_grad()
def targets_of(
    large: nn.Module,
    convolutions: Mapping[str, str],
    places: Mapping[Axis, Tensor],
    images: Tensor,
    interest: Tensor | None = None,
    scores: Mapping[str, Tensor] | None = None,
) -> dict[str, Target]:
    """What the small network's convolutions are to give on `images` (B, C, H, W), from the large one in eval mode.

    `convolutions` name a convolution and the BatchNorm behind it ("" for none); `places` tell which of the large
    network's channels each of the small one's stands for. Half of the positions are drawn by `interest` (B, 1, h, w),
    as probabilities; `scores` (B, 1, H, W) by convolution weigh the positions of outputs that are mostly background.
    The large network sees a few images at a time.
    """
    modules = dict(large.named_modules())
    found = {name: places.get((f"{name}.weight", 0)) for name in convolutions}
    columns = {
        name: place.clamp(0, modules[name].out_channels - 1) for name, place in found.items() if place is not None
    }
    names = {name: norm or name for name, norm in convolutions.items()}
    notes = note(large, names, images, interest, columns=columns)
    targets = {}
    for name, (where, values) in notes.items():
        place, score = found[name], (scores or {}).get(name)
        gains = _gains(modules[convolutions[name]]) if convolutions[name] else None
        if place is not None:
            there = (place == columns[name]).to(values.device)
            values = torch.where(there, values, torch.nan)
            gains = None if gains is None else gains[columns[name].to(gains.device)]
        weights = None if score is None else score.flatten()[where].to(values) + BACKGROUND
        targets[name] = Target(where, values, weights, gains)
    return targets


@torch.no_grad()
def fit(
    small: nn.Module, targets: Mapping[str, Target], convolutions: Mapping[str, str], images: Tensor
) -> dict[str, Solved]:
    """Overwrite the weights of the network's `convolutions`; how well each could be, on the positions it was fitted on.

    The `images` are those of the targets; they go through at once, for a layer is solved on all of them. A BatchNorm
    gets the statistics that its convolution then has on them, and gives what it gives a standard deviation as large as
    the target's: least squares shrinks what it cannot tell, and layers in a row would fade. Outputs without BatchNorm
    are fitted with their biases. Modes are restored. A convolution that does not run, or has no target of its size, is
    left as it is, and so are channels that hardly vary in the large network.
    """
    modules = dict(small.named_modules())
    fitted = [n for n in convolutions if n in targets and targets[n].values.shape[1] == modules[n].out_channels]
    ticks = progress(fitted, "convolutions fitted", len(fitted))
    told: dict[str, Solved] = {}

    def tell(name: str, solved: Solved) -> None:
        told[name] = solved
        next(ticks, None)

    handles = []
    with as_found(small), closing(ticks):
        small.eval()
        try:
            for name in fitted:
                norm = modules[convolutions[name]] if convolutions[name] else None
                solve = _Solve(targets[name], norm, partial(tell, name))
                handles.append(modules[name].register_forward_pre_hook(solve.before))
                handles.append(modules[name].register_forward_hook(solve.after))
            next(ticks, None)
            small(images)
        finally:
            for handle in handles:
                handle.remove()
    return told


class _Solve:
    """Hooks that set a convolution's weights just before it runs, on the inputs that it is about to get."""

    def __init__(self, target: Target, norm: Any, tell: Callable[[Solved], None]) -> None:
        self.target, self.norm, self.tell = target, norm, tell

    def before(self, conv: Any, inputs: tuple[Tensor, ...]) -> None:
        values = self.target.values.nan_to_num()
        x = _patches(inputs[0].float(), conv, self.target.where)  # (n, groups, p)
        found = least_squares(x, values.unflatten(1, (conv.groups, -1)), self.target.weights, SHARPEST)
        slope, offset, self.solved = found.slope, found.offset, Solved(found.r2, found.sharpness)
        weight = slope.transpose(1, 2).reshape(conv.weight.shape)
        self.spread, self.mean = values.std(0), values.mean(0)
        self.chosen = ~self.target.values[0].isnan() & (self.spread > FAINT) & weight.flatten(1).isfinite().all(1)
        if self.norm is None:
            _put(conv.weight, weight, self.chosen)
            _put(conv.bias, offset.flatten(), self.chosen)
            return
        # a BatchNorm undoes any scale: weights get the one at which its gain is the large network's. With larger gains
        # steps of an optimizer throw off what is behind them, with smaller ones the network learns more slowly
        given = torch.einsum("ngp,gpq->ngq", x, slope).flatten(1)  # (n, C)
        assert self.target.gains is not None
        size = self.spread / given.std(0).clamp(min=TINY) / self.target.gains
        self.given = given.mean(0) * size
        self.chosen &= (given.std(0) > 0) & size.isfinite()
        _put(conv.weight, weight * size.view(-1, *[1] * (weight.dim() - 1)), self.chosen)

    def after(self, conv: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A BatchNorm gets the statistics of all positions, as in training, and the fitted slope and offset."""
        if self.norm is None:
            self.tell(self.solved)
            return
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3))
        gain = self.target.gains
        assert gain is not None
        _put(self.norm.running_mean, mean, self.chosen)
        _put(self.norm.running_var, variance, self.chosen)
        _put(self.norm.weight, gain * (variance + self.norm.eps).sqrt(), self.chosen)
        _put(self.norm.bias, self.mean + (mean - self.given) * gain, self.chosen)
        self.tell(self.solved._replace(gain=float(_gains(self.norm).max())))


def _gains(norm: Any) -> Tensor:
    return (norm.weight.abs() / (norm.running_var + norm.eps).sqrt()).float()


def _put(tensor: Tensor, values: Tensor, rows: Tensor) -> None:
    chosen = rows.view(-1, *[1] * (tensor.dim() - 1))
    tensor.copy_(torch.where(chosen, values.to(tensor), tensor))


def _patches(x: Tensor, conv: Any, where: Tensor) -> Tensor:
    """What is multiplied at some of the output's positions: (B, C, H, W) -> (n, groups, C / groups kh kw)."""
    (kh, kw), (sh, sw), (ph, pw), (dh, dw) = conv.kernel_size, conv.stride, conv.padding, conv.dilation
    height, width = (
        (size + 2 * pad - gap * (kernel - 1) - 1) // step + 1
        for size, pad, gap, kernel, step in zip(x.shape[2:], (ph, pw), (dh, dw), (kh, kw), (sh, sw), strict=True)
    )
    image, cell = where // (height * width), where % (height * width)
    row, column = cell // width * sh, cell % width * sw
    padded = F.pad(x, (pw, pw, ph, ph))
    taps = [padded[image, :, row + i * dh, column + j * dw] for i in range(kh) for j in range(kw)]
    return torch.stack(taps, dim=-1).flatten(1).unflatten(1, (conv.groups, -1))


class Solution(NamedTuple):
    """Of a linear problem: slope (g, p, q), offset (g, q), R^2 of all, and the largest sharpness."""

    slope: Tensor
    offset: Tensor
    r2: float
    sharpness: float


def least_squares(x: Tensor, y: Tensor, weights: Tensor | None = None, sharpest: float = math.inf) -> Solution:
    """x (n, g, p) @ slope (g, p, q) + offset (g, q) nearest to y (n, g, q), for each of g groups; and its R^2.

    `weights` (n,) say how much each of the n counts. Each x is shrunk by `RIDGES[0]` of its variance. A column of slope
    that is still sharper than `sharpest` is shrunk by the next of them, and so on. Sharpness is how far the sum would
    spread if its inputs had nothing to do with each other, over how far it does: a small difference of large numbers is
    sharp, and the least step of training tells another thing.
    """
    x, y = x.movedim(1, 0), y.movedim(1, 0)  # (g, n, p), (g, n, q)
    w = torch.ones(x.shape[1], device=x.device) if weights is None else weights
    w = (w / w.sum()).view(1, -1, 1)
    mean_x, mean_y = (w * x).sum(1, keepdim=True), (w * y).sum(1, keepdim=True)
    x, y = x - mean_x, y - mean_y
    weighed = (w * x).transpose(1, 2)
    exact = torch.float32 if x.device.type == "mps" else torch.float64  # Apple's GPUs have no doubles
    xx, xy = (weighed @ x).to(exact), (weighed @ y).to(exact)  # (g, p, p), (g, p, q)
    scale = xx.diagonal(dim1=1, dim2=2).clamp(min=1e-12).sqrt().unsqueeze(2)  # (g, p, 1)
    alike = xx / scale / scale.transpose(1, 2)
    solution = torch.zeros_like(xy)
    sharp = torch.ones_like(xy[:, :1], dtype=torch.bool)  # (g, 1, q)
    for before, ridge in pairwise((0.0, *RIDGES)):
        alike.diagonal(dim1=1, dim2=2).add_(ridge - before)
        solution = torch.where(sharp, torch.linalg.solve(alike, xy / scale) / scale, solution)
        found = sharpness(solution, xx)
        sharp &= found > sharpest
        if not sharp.any():
            break
    slope = solution.to(x)
    left = (w * (y - x @ slope).square()).sum()
    whole = (w * y.square()).sum().clamp(min=1e-30)
    return Solution(slope, (mean_y - mean_x @ slope).squeeze(1), float(1 - left / whole), float(found.max()))


def sharpness(slope: Tensor, xx: Tensor) -> Tensor:
    """Of each column of slope (g, p, q), for inputs of covariance xx (g, p, p): (g, 1, q), 1 if they are unrelated."""
    loose = (xx.diagonal(dim1=1, dim2=2).unsqueeze(2) * slope.square()).sum(1, keepdim=True)
    return (loose / (slope * (xx @ slope)).sum(1, keepdim=True).clamp(min=1e-30)).sqrt()
