"""A smaller network fitted to a larger one of the same form, convolution by convolution, by least squares.

Once it is known which of the large network's channels each layer of the small one stands for, what a convolution should
give is known too: what the large network's gives in these channels on the same images. So its weights are the solution
of a linear problem, and no gradient is needed: a forward pass of the large network notes the targets, one of the small
network solves layer after layer, each on what the layers before it, already fitted, really give. The latter keeps
errors from adding up (Zhang et al. 2016, arXiv 1505.06798; with channels chosen He et al. 2017, arXiv 1707.06168).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.modes import as_found
from distill.networks.channels import Axis
from distill.progress import progress

POSITIONS = 20_000  # of a layer's grids over all images that its problem is posed on
FOCUSED = 0.5  # of them are drawn by interest, the others evenly
BACKGROUND = 0.02  # what a position without interest weighs where outputs are told apart
FAINT = 1e-3  # of a standard deviation: what varies less, in logits or behind a BatchNorm, says nothing to be fitted to
TINY = 1e-12
AT_ONCE = 16  # images in a forward pass of the large network
RIDGE = 1e-3  # of each input's variance


@dataclass(frozen=True)
class Target:
    """What a convolution is to give: `values` (n, C) at the `where` (n,) among its positions over the batch.

    NaN stands in channels that have no counterpart. `weights` (n,) say how much each position counts.
    """

    where: Tensor
    values: Tensor
    weights: Tensor | None = None


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
    modules, notes = dict(large.named_modules()), dict[str, _Note]()
    handles = []
    with as_found(large):
        large.eval()
        try:
            for i, (name, norm) in enumerate(convolutions.items()):
                place, score = places.get((f"{name}.weight", 0)), (scores or {}).get(name)
                notes[name] = _Note(len(images), place, i, interest, score)
                handles.append(modules[norm or name].register_forward_hook(notes[name]))
            parts = images.split(AT_ONCE)
            for part in progress(parts, "batches seen by the teacher", len(parts)):
                large(part)
        finally:
            for handle in handles:
                handle.remove()
    return {name: note.target() for name, note in notes.items() if note.parts}


@torch.no_grad()
def fit(
    small: nn.Module, targets: Mapping[str, Target], convolutions: Mapping[str, str], images: Tensor
) -> dict[str, float]:
    """Overwrite the weights of the network's `convolutions`; R^2 of each, on the positions it was fitted on.

    The `images` are those of the targets; they go through at once, for a layer is solved on all of them. A BatchNorm
    gets the statistics that its convolution then has on them, and gives what it gives a standard deviation as large as
    the target's: least squares shrinks what it cannot tell, and layers in a row would fade. Outputs without BatchNorm
    are fitted with their biases. Modes are restored. A convolution that does not run, or has no target of its size, is
    left as it is, and so are channels that hardly vary in the large network.
    """
    modules = dict(small.named_modules())
    fitted = [n for n in convolutions if n in targets and targets[n].values.shape[1] == modules[n].out_channels]
    ticks = progress(fitted, "convolutions fitted", len(fitted))
    told: dict[str, float] = {}

    def tell(name: str, r2: float) -> None:
        told[name] = r2
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


class _Note:
    """A hook that keeps the large network's output at some positions, in the channels that the small one has."""

    def __init__(
        self, batch: int, place: Tensor | None, seed: int, interest: Tensor | None, score: Tensor | None
    ) -> None:
        self.batch, self.place, self.seed, self.interest, self.score = batch, place, seed, interest, score
        self.parts: list[Tensor] = []
        self.where = torch.empty(0, dtype=torch.long)
        self._seen = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self.parts:
            self.where = _positions(self.batch, output.shape[2:], self.seed, self.interest).to(output.device)
        end = self._seen + len(output) * output.shape[2:].numel()
        here = self.where[(self.where >= self._seen) & (self.where < end)] - self._seen
        self.parts.append(output.movedim(1, -1).flatten(0, -2)[here].float())  # (n, C)
        self._seen = end

    def target(self) -> Target:
        values = torch.cat(self.parts)
        if self.place is not None:
            place = self.place.to(values.device)
            there = (place >= 0) & (place < values.shape[1])
            values = torch.where(there, values[:, place.where(there, 0)], torch.nan)
        weights = None if self.score is None else self.score.flatten()[self.where].to(values) + BACKGROUND
        return Target(self.where, values, weights)


def _positions(batch: int, grid: torch.Size, seed: int, interest: Tensor | None) -> Tensor:
    """The numbers of some of a batch's positions, in ascending order: outputs are noted part by part."""
    total = batch * grid.numel()
    if total <= POSITIONS:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    evenly = torch.randperm(total, generator=generator)
    if interest is None:
        return evenly[:POSITIONS].sort().values
    chances = F.adaptive_max_pool2d(interest.float().cpu(), tuple(grid)).flatten()
    drawn = torch.rand(total, generator=generator).log() / chances.clamp(min=1e-6)  # without replacement, by their keys
    count = int(FOCUSED * POSITIONS)
    return torch.cat([drawn.topk(count).indices, evenly[: POSITIONS - count]]).unique()


class _Solve:
    """Hooks that set a convolution's weights just before it runs, on the inputs that it is about to get."""

    def __init__(self, target: Target, norm: Any, tell: Callable[[float], None]) -> None:
        self.target, self.norm, self.tell = target, norm, tell

    def before(self, conv: Any, inputs: tuple[Tensor, ...]) -> None:
        values = self.target.values.nan_to_num()
        x = _patches(inputs[0].float(), conv, self.target.where)  # (n, groups, p)
        slope, offset, told = least_squares(x, values.unflatten(1, (conv.groups, -1)), self.target.weights)
        self.tell(told)
        weight = slope.transpose(1, 2).reshape(conv.weight.shape)
        self.spread, self.mean = values.std(0), values.mean(0)
        self.chosen = ~self.target.values[0].isnan() & (self.spread > FAINT) & weight.flatten(1).isfinite().all(1)
        if self.norm is None:
            _put(conv.weight, weight, self.chosen)
            _put(conv.bias, offset.flatten(), self.chosen)
            return
        # a BatchNorm undoes any scale: weights keep the size that they had, which weight decay and optimizers feel
        size = conv.weight.flatten(1).norm(dim=1).to(weight) / weight.flatten(1).norm(dim=1).clamp(min=TINY)
        given = torch.einsum("ngp,gpq->ngq", x, slope).flatten(1) * size  # (n, C)
        self.given = given.mean(0), given.std(0)
        self.chosen &= self.given[1] > 0
        _put(conv.weight, weight * size.view(-1, *[1] * (weight.dim() - 1)), self.chosen)

    def after(self, conv: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        """A BatchNorm gets the statistics of all positions, as in training, and the fitted slope and offset."""
        if self.norm is None:
            return
        variance, mean = torch.var_mean(output.float(), dim=(0, 2, 3))
        gain = self.spread / self.given[1].clamp(min=TINY)
        _put(self.norm.running_mean, mean, self.chosen)
        _put(self.norm.running_var, variance, self.chosen)
        _put(self.norm.weight, gain * (variance + self.norm.eps).sqrt(), self.chosen)
        _put(self.norm.bias, self.mean + (mean - self.given[0]) * gain, self.chosen)


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


def least_squares(x: Tensor, y: Tensor, weights: Tensor | None = None) -> tuple[Tensor, Tensor, float]:
    """x (n, g, p) @ slope (g, p, q) + offset (g, q) nearest to y (n, g, q), for each of g groups; and its R^2.

    `weights` (n,) say how much each of the n counts. Each x is shrunk by `RIDGE` of its variance.
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
    alike.diagonal(dim1=1, dim2=2).add_(RIDGE)
    slope = (torch.linalg.solve(alike, xy / scale) / scale).to(x)
    left = (w * (y - x @ slope).square()).sum()
    whole = (w * y.square()).sum().clamp(min=1e-30)
    return slope, (mean_y - mean_x @ slope).squeeze(1), float(1 - left / whole)
