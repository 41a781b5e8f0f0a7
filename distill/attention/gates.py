"""Attention gates: what a coarser signal finds relevant of a skip connection is let through.

For the skip x and the gating signal g, at each position i

    q = psi^T ReLU(theta x + phi g + b_phi) + b_psi,   alpha = sigmoid(q),   x^_{i,c} = alpha_i x_{i,c}

(Oktay et al., "Attention U-Net", 2018, arXiv 1804.03999, equations 1 and 2). The coefficient alpha is an attention map
that the network itself learns; a tap on a gate's module `alpha` reads it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CONVOLUTION: dict[int, Callable[..., nn.Module]] = {2: nn.Conv2d, 3: nn.Conv3d}  # by the number of dimensions
NORM: dict[int, Callable[..., nn.Module]] = {2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
LINEAR = {2: "bilinear", 3: "trilinear"}
LEAST = 8  # channels in which a bare gate's parts meet: behind its ReLU a few could all be dead
OPEN = 3.0  # psi's bias at the start: sigmoid(3) = 0.953; the paper wants gates to start open, its code has 0.16-0.90


class AttentionGate(nn.Module):
    """A gate, or several in parallel, on a skip connection: `forward(skip, gating)` gives (B, skip_channels, *S).

    `skip` is (B, skip_channels, *S) and `gating` (B, gating_channels, *T) with `dims` spatial dimensions each, of any
    sizes: the gating signal is resampled linearly to the grid that the forms below name.

    `form` "official" is the published code's: theta a convolution without bias whose kernel is its stride, so that
    the sum is formed on a grid coarser than the skip's (sizes that the stride does not divide are filled up by
    repeating the edge: 65 gives 33), phi and psi 1x1, no normalisation before the sigmoid; the gated skip goes through
    a 1x1 convolution and BatchNorm. "common" is the variant of most re-implementations, kept for comparison: all 1x1
    and with BatchNorm, on the skip's own grid (`stride` means nothing), no output transform. Its BatchNorm before the
    sigmoid holds the mean of alpha near a half in training. "bare" is for a network that works without the gate: the
    official one without output transform, psi starting at weight 0 and bias 3, and what passes is x alpha / sigmoid(3).
    So the skip passes as it is at the start, to within rounding, while psi learns from the first step on, and theta and
    phi as soon as psi has moved; a gate that opens further amplifies by 1.05 at most. `inter_channels` is the width in
    which skip and signal meet: by default that of the skip, in the common form half of it, in the bare one a quarter
    and 8 at least.

    **What is drawn is what was used**: the output of the module `alpha` is the coefficient map, (B, 1, *s) in (0, 1),
    float32 also under autocast. As in the published code the sigmoid comes before the resampling: s is S over the
    stride, rounded up (S itself in the common form), and what multiplies the skip is `AttentionMap.resize(S)` of the
    map that a tap reads (in the bare form over sigmoid(3)), nothing else. (Resampling q, before the sigmoid, would not
    be the published function.)

    `heads` gates side by side each have an alpha of their own, `alpha.1`, `alpha.2` and so on (`alphas` has the
    names); their outputs are concatenated in this order and brought back to `skip_channels` by 1x1, BatchNorm and
    ReLU: the paper's multi-dimensional attention. Heads are groups of channels in theta, phi, psi and output.

    Raises ValueError for settings that are none, and for inputs of other channels, dimensions or batch sizes.
    """

    def __init__(
        self,
        skip_channels: int,
        gating_channels: int,
        inter_channels: int | None = None,
        dims: int = 2,
        stride: int | Sequence[int] = 2,
        heads: int = 1,
        form: str = "official",
    ) -> None:
        super().__init__()
        parts = FORMS[one_of("form", form, FORMS)](
            one_of("dims", dims, CONVOLUTION),
            positive("skip_channels", skip_channels),
            positive("gating_channels", gating_channels),
            inter_channels if inter_channels is None else positive("inter_channels", inter_channels),
            per_axis("stride", stride, dims),
            positive("heads", heads),
        )
        self.channels = skip_channels, gating_channels
        self.dims = dims
        self.stride = parts.stride
        self.unity = parts.unity
        self.theta, self.phi, self.psi, self.output = parts.theta, parts.phi, parts.psi, parts.output
        keys = [str(head) for head in range(1, heads + 1)]
        self.alpha = nn.Sigmoid() if heads == 1 else nn.ModuleDict({key: nn.Sigmoid() for key in keys})
        self.combine = nn.Identity() if heads == 1 else mixing(dims, heads * skip_channels, skip_channels)
        self.alphas = ("alpha",) if heads == 1 else tuple(f"alpha.{key}" for key in keys)

    def forward(self, skip: Tensor, gating: Tensor) -> Tensor:
        self._check(skip, gating)
        theta = self.theta(_filled(skip, self.stride))  # (B, K inter, *s)
        phi = self.phi(_resampled(gating, theta.shape[2:]))
        alpha = self._coefficients(self.psi(F.relu(theta + phi)))
        # it is divided, not the product, so that a bare gate starts as the identity in half precision too
        share = (_resampled(alpha, skip.shape[2:]) / self.unity).to(skip.dtype)  # (B, K, *S)
        gated = share.unsqueeze(2) * skip.unsqueeze(1)  # (B, K, C, *S)
        return self.combine(self.output(gated.flatten(1, 2)))

    def _coefficients(self, q: Tensor) -> Tensor:
        """(B, K, *s), each channel by its own module. In half precision an open gate rounds to 1 and stops learning."""
        q = q.to(torch.promote_types(q.dtype, torch.float32))
        sigmoids = self.alpha.values() if isinstance(self.alpha, nn.ModuleDict) else [self.alpha]
        return torch.cat([sigmoid(part) for sigmoid, part in zip(sigmoids, q.split(1, dim=1), strict=True)], dim=1)

    def _check(self, skip: Tensor, gating: Tensor) -> None:
        for name, features, channels in zip(("skip", "gating"), (skip, gating), self.channels, strict=True):
            if features.ndim != self.dims + 2 or features.shape[1] != channels:
                wanted = f"(B, {channels}, {'D, ' * (self.dims - 2)}H, W)"
                raise ValueError(f"{name} must be {wanted}, not {tuple(features.shape)}")
        if len(skip) != len(gating):
            raise ValueError(f"skip and gating must have one batch size, not {len(skip)} and {len(gating)}")


class Parts(NamedTuple):
    """What a form consists of; `stride` is theta's, `unity` the alpha that lets the skip pass as it is."""

    theta: nn.Module
    phi: nn.Module
    psi: nn.Module
    output: nn.Module
    stride: tuple[int, ...]
    unity: float = 1.0


def _official(dims: int, skip: int, gating: int, inter: int | None, stride: tuple[int, ...], heads: int) -> Parts:
    convolution, width = CONVOLUTION[dims], heads * (inter or skip)
    psi = convolution(width, heads, 1, groups=heads)
    nn.init.constant_(psi.bias, OPEN)  # type: ignore[arg-type]
    output = nn.Sequential(convolution(heads * skip, heads * skip, 1, groups=heads), NORM[dims](heads * skip))
    theta = convolution(skip, width, stride, stride, bias=False)
    return Parts(theta, convolution(gating, width, 1), psi, output, stride)


def _common(dims: int, skip: int, gating: int, inter: int | None, _stride: tuple[int, ...], heads: int) -> Parts:
    convolution, norm, width = CONVOLUTION[dims], NORM[dims], heads * (inter or max(1, skip // 2))
    theta, phi = (nn.Sequential(convolution(channels, width, 1), norm(width)) for channels in (skip, gating))
    psi = nn.Sequential(convolution(width, heads, 1, groups=heads), norm(heads))
    return Parts(theta, phi, psi, nn.Identity(), (1,) * dims)


def _bare(dims: int, skip: int, gating: int, inter: int | None, stride: tuple[int, ...], heads: int) -> Parts:
    parts = _official(dims, skip, gating, inter or max(LEAST, skip // 4), stride, heads)
    nn.init.zeros_(parts.psi.weight)  # type: ignore[arg-type]
    return parts._replace(output=nn.Identity(), unity=1 / (1 + math.exp(-OPEN)))


FORMS: dict[str, Callable[..., Parts]] = {"official": _official, "common": _common, "bare": _bare}


def mixing(dims: int, channels: int, out: int) -> nn.Sequential:
    """1x1 convolution, BatchNorm, ReLU: (B, channels, *S) -> (B, out, *S)."""
    return nn.Sequential(CONVOLUTION[dims](channels, out, 1), NORM[dims](out), nn.ReLU(inplace=True))


def _filled(features: Tensor, stride: tuple[int, ...]) -> Tensor:
    """Up to the next sizes that the stride divides, by repeating the last row of each axis."""
    missing = [-size % step for size, step in zip(features.shape[2:], stride, strict=True)]
    ends = [end for count in reversed(missing) for end in (0, count)]
    return F.pad(features, ends, mode="replicate") if any(missing) else features


def _resampled(features: Tensor, size: Sequence[int]) -> Tensor:
    """Linearly, as `AttentionMap.resize` enlarges."""
    if features.shape[2:] == size:
        return features
    return F.interpolate(features, size=tuple(size), mode=LINEAR[len(size)], align_corners=False)


def positive(name: str, value: int) -> int:
    """The value, if it is a whole number above 0; else ValueError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 1:
        raise ValueError(f"{name} must be a whole number above 0, not {value!r}")
    return value


def per_axis(name: str, value: int | Sequence[int], dims: int) -> tuple[int, ...]:
    """One whole number above 0 for each of `dims` axes, from one for all or one each; else ValueError."""
    values = tuple(value) if isinstance(value, Sequence) else (value,) * dims
    if len(values) != dims:
        raise ValueError(f"{name} must be one number or {dims}, not {value!r}")
    return tuple(positive(name, each) for each in values)


def one_of(name: str, value: Any, known: Iterable[Any]) -> Any:
    """The value, if it is among the known; else ValueError."""
    if value not in list(known):
        raise ValueError(f"{name} must be {' or '.join(map(repr, known))}, not {value!r}")
    return value
