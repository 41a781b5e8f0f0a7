"""Spatial attention maps: what they are, and how they are computed without large temporaries.

A map says where a network responds: one non-negative number per position. Two kinds exist. `energy` maps come from
features, A = sum_c |F_c|^p (Zagoruyko & Komodakis, "Paying More Attention to Attention", ICLR 2017, arXiv 1612.03928,
section 3.1); only their relative values mean something. `gate` maps are the coefficients of a learned attention gate,
absolute values in (0, 1).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

Kind = Literal["energy", "gate"]
PUBLISHED_EPS = 1e-8  # the paper's code adds this to the norm
FAINT = 1e-30  # a map's largest value below which its gradient, of the order of 1 / value, may not fit float32
CAST_CHANNELS = 16  # channels cast to float32 at a time where the processor cannot cast inside the reduction


def energy(features: Tensor, p: float = 2.0) -> Tensor:
    """Sum over channels of |F|^p, the un-normalised attention map.

    `features` is (B, C, *S) with any number of spatial dimensions; the result is (B, *S), float32 (float64 for
    float64 input), whatever the precision or autocast state around the call: in float16, 256^2 overflows and 1e-8
    underflows. No temporary as large as `features` is made, forward or backward, beyond the gradient itself.

    Raises ValueError for p <= 0 and for fewer than three dimensions.
    """
    if p <= 0:
        raise ValueError(f"p must be above 0, not {p}")
    if features.ndim < 3:
        raise ValueError(f"features must be (B, C, *spatial), not {tuple(features.shape)}")
    with torch.autocast(features.device.type, enabled=False):
        result: Tensor = _Energy.apply(features, float(p))
        return result


def attention_map(features: Tensor, p: float = 2.0, eps: float = PUBLISHED_EPS) -> Tensor:
    """The published formula: a = sum_c |F_c|^p, A = a / (||a||_2 + eps), the norm over the positions of each sample.

    `features` (B, C, *S) -> (B, *S). With eps the map of features near zero shrinks to zero; `unit` has no such bias.
    """
    a = energy(features, p)  # (B, *S)
    norm = torch.linalg.vector_norm(a.flatten(1), dim=1) + eps  # (B,)
    return a / norm.view(-1, *[1] * (a.ndim - 1))


def unit(values: Tensor) -> Tensor:
    """Each sample of `values` (B, *S) divided by its L2 norm, exactly, however small; a zero map stays zero.

    The gradient is exact too, and zero (not NaN or infinite) for a zero map and for one below `FAINT`. The result does
    not change under scaling, so a constant factor taken out first guards the squares against underflow and overflow
    without touching the gradient. The result is float32, of float64 float64.
    """
    flat = values.flatten(1)
    result: Tensor = _Unit.apply(flat if flat.dtype in (torch.float32, torch.float64) else flat.float())
    return result.view_as(values)


@dataclass(frozen=True)
class AttentionMap:
    """Where one layer responds, for each sample of a batch.

    `values` is (B, H, W), or (B, D, H, W) for volumes, non-negative; `layer` is the dotted name of the module it was
    read at. `kind` "energy" has relative values, "gate" absolute ones in (0, 1).
    """

    values: Tensor
    layer: str
    kind: Kind = "energy"

    @classmethod
    def read(cls, output: Tensor, layer: str, kind: Kind = "energy", p: float = 2.0) -> AttentionMap:
        """The map of a layer's output (B, C, *S): its energy, or for a gate its single channel as it is.

        Raises ValueError for a gate with more than one channel.
        """
        if kind == "energy":
            return cls(energy(output, p), layer, kind)
        if output.shape[1] != 1:
            raise ValueError(f"a gate has one channel, but layer '{layer}' gives {tuple(output.shape)}")
        return cls(output[:, 0].float(), layer, kind)

    @property
    def size(self) -> tuple[int, ...]:
        """The spatial grid, (H, W) or (D, H, W)."""
        return tuple(self.values.shape[1:])

    def unit(self) -> Tensor:
        """(B, prod S): each sample with L2 norm 1 (a zero map stays zero). What losses and distances compare."""
        return unit(self.values).flatten(1)

    def resize(self, size: Sequence[int]) -> AttentionMap:
        """The map on another grid: area means where it shrinks, linear interpolation where it grows.

        Each dimension is treated on its own, so non-square grids keep their shape.
        """
        target = tuple(size)
        if target == self.size:
            return self
        values = self.values.unsqueeze(1)  # (B, 1, *S)
        down = tuple(min(new, old) for new, old in zip(target, self.size, strict=True))
        if down != self.size:
            values = F.interpolate(values, size=down, mode="area")
        if down != target:
            mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(target)]
            values = F.interpolate(values, size=target, mode=mode, align_corners=False)
        return replace(self, values=values.squeeze(1))


def compared(attention: AttentionMap) -> Tensor:
    """What enters the distance, (B, prod S): energy maps with norm 1 (only their shape counts), gates as they are."""
    return attention.unit() if attention.kind == "energy" else attention.values.flatten(1)


def meet(a: AttentionMap, b: AttentionMap) -> tuple[AttentionMap, AttentionMap]:
    """Both maps on the smaller grid, dimension by dimension."""
    size = tuple(map(min, a.size, b.size))
    return a.resize(size), b.resize(size)


class _Unit(torch.autograd.Function):
    """v / ||v||_2 of each sample (B, N). Few operations: maps are small, and a GPU pays for launching each of them."""

    @staticmethod
    def forward(ctx: Any, values: Tensor) -> Tensor:
        peak = torch.linalg.vector_norm(values, ord=math.inf, dim=1, keepdim=True)
        scaled = values / peak.masked_fill(peak == 0, 1.0)
        norm = torch.linalg.vector_norm(scaled, dim=1, keepdim=True).clamp_(min=1.0)  # of a zero map alone below 1
        result = scaled.div_(norm)
        if ctx.needs_input_grad[0]:
            ctx.save_for_backward(result, norm.mul_(peak).reciprocal_(), ~(peak > FAINT))
        return result

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        result, slope, faint = ctx.saved_tensors
        along = (grad * result).sum(1, keepdim=True)
        return torch.addcmul(grad, result, along, value=-1).mul_(slope).masked_fill_(faint, 0.0)


class _Energy(torch.autograd.Function):
    """sum_c |F_c|^p, saving only F. Its textbook form writes |F|^p, as large as F, forward and again backward."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, p: float) -> Tensor:
        ctx.save_for_backward(features)
        ctx.p = p
        dtype = torch.float64 if features.dtype == torch.float64 else torch.float32
        if features.dtype == dtype or features.is_cuda:  # CUDA kernels cast inside the reduction
            return _power_sum(features, p, dtype)
        total = features.new_zeros((features.shape[0], *features.shape[2:]), dtype=dtype)  # (B, *S)
        for block in features.split(CAST_CHANNELS, dim=1):
            total += _power_sum(block, p, dtype)
        return total

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, None]:
        (features,) = ctx.saved_tensors
        p = ctx.p
        scale = (p * grad).unsqueeze(1)  # (B, 1, *S)
        result = torch.empty_like(features)
        if p == 2.0 and (features.dtype == grad.dtype or features.is_cuda):
            return torch.mul(features, scale, out=result), None
        for block, out in zip(features.split(CAST_CHANNELS, 1), result.split(CAST_CHANNELS, 1), strict=True):
            f = block.to(grad.dtype)
            # d|F|^p/dF = p sign(F) |F|^(p-1); below p = 1 it is infinite at 0, where 0 is taken instead
            slope = f if p == 2.0 else f.sign() * f.abs().pow(p - 1).nan_to_num(nan=math.nan, posinf=0.0)
            out.copy_(slope * scale)
        return result, None


def _power_sum(features: Tensor, p: float, dtype: torch.dtype) -> Tensor:
    """sum over dim 1 of |F|^p; the p-norm is a single fused reduction, its p-th power costs one map."""
    norm = torch.linalg.vector_norm(features, ord=p, dim=1, dtype=dtype)
    return norm.square() if p == 2.0 else norm.pow(p)
