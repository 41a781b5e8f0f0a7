"""The U-Net, plain or with attention gates on its skip connections, for images and volumes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from distill.attention.gates import CONVOLUTION, FORMS, AttentionGate, mixing, one_of, per_axis, positive
from distill.networks.blocks import POOL, DeepSupervision, block, cropped, linear, transposed

UPSAMPLING = ("linear", "transposed")


class UNet(nn.Module):
    """Encoder, decoder, skip connections: (B, in_channels, *S) -> logits (B, classes, *S), of any size S.

    After Ronneberger et al. 2015 (arXiv 1505.04597) and Çiçek et al. 2016 (arXiv 1606.06650), wired as the CT networks
    of the published Attention U-Net code (Oktay et al. 2018, arXiv 1804.03999), to the parameter. `channels` are the
    levels', from full resolution (level 1) down, as many as the network is to have. Blocks of two 3x3 convolutions,
    each with BatchNorm and ReLU; max-pooling by `stride` (one number, or one for each axis; 2) that rounds odd sizes
    up; up-sampling "linear", or "transposed", which also brings the channels to those of the level above; then skip
    and decoder are concatenated. `deep_supervision`: see `DeepSupervision`.

    `gated` says which skips have an `AttentionGate` of `heads` heads and this `form`: False none, True all but the
    full-resolution one (the paper's), "all" that one too, or a sequence of levels. The gate of a level is steered by
    the decoder's output one level below; the deepest by the deepest block's output after 1x1, BatchNorm and ReLU
    (`gating`), which itself goes up as it is. What a gate lets through is mixed by 1x1, BatchNorm and ReLU.

    Layers are named by level, so that names last, and `roles` says which is which. Gates add parameters: the control
    for them is a plain network with as many, not one with the same `channels`.

    Raises ValueError for settings that are none, and for inputs of other channels or dimensions.
    """

    def __init__(
        self,
        in_channels: int,
        classes: int,
        channels: Sequence[int] = (16, 32, 64, 128, 256),
        dims: int = 2,
        gated: bool | str | Sequence[int] = False,
        deep_supervision: bool = False,
        upsampling: str = "linear",
        heads: int = 1,
        form: str = "official",
        stride: int | Sequence[int] = 2,
    ) -> None:
        super().__init__()
        self.in_channels, self.classes = positive("in_channels", in_channels), positive("classes", classes)
        self.dims = one_of("dims", dims, CONVOLUTION)
        steps = per_axis("stride", stride, dims)
        one_of("upsampling", upsampling, UPSAMPLING)
        one_of("form", form, FORMS)  # form and heads are checked where no skip is gated, too
        positive("heads", heads)
        widths = _widths(channels)
        deepest, levels = len(widths), range(1, len(widths))  # the deepest level has no skip
        gates = _gated_levels(gated, deepest)

        self.encoder = _by_level({k: block(dims, widths.get(k - 1, in_channels), widths[k]) for k in widths})
        self.pool = POOL[dims](steps, steps, ceil_mode=True)
        if upsampling == "linear":
            risen = {k: widths[k + 1] for k in levels}
            self.up = _by_level({k: linear(dims, steps) for k in levels})
        else:
            risen = {k: widths[k] for k in levels}
            self.up = _by_level({k: transposed(dims, widths[k + 1], widths[k], steps) for k in levels})
        self.decoder = _by_level({k: block(dims, widths[k] + risen[k], widths[k]) for k in levels})

        self.gating = mixing(dims, widths[deepest], widths[deepest]) if deepest - 1 in gates else nn.Identity()
        self.gates = _by_level(
            {k: AttentionGate(widths[k], widths[k + 1], None, dims, steps, heads, form) for k in gates}
        )
        # a gate of several heads ends in such a mixture already
        self.mixers = _by_level({k: mixing(dims, widths[k], widths[k]) for k in gates if heads == 1})
        self.head = (
            DeepSupervision(classes, [widths[k] for k in levels], dims, steps)
            if deep_supervision
            else CONVOLUTION[dims](widths[1], classes, 1)
        )

    def forward(self, images: Tensor) -> Tensor:
        if images.ndim != self.dims + 2 or images.shape[1] != self.in_channels:
            wanted = f"(B, {self.in_channels}, {'D, ' * (self.dims - 2)}H, W)"
            raise ValueError(f"images must be {wanted}, not {tuple(images.shape)}")
        skips: dict[str, Tensor] = {}
        x = images
        for level, down in self.encoder.items():
            x = skips[level] = down(self.pool(x) if skips else x)  # (B, C_level, *S_level)
        signal = self.gating(x)
        decoded: list[Tensor] = []
        for level in reversed(list(self.decoder)):
            skip = self._gated(level, skips[level], signal)
            risen = cropped(self.up[level](x), skip.shape[2:])
            x = signal = self.decoder[level](torch.cat([skip, risen], dim=1))
            decoded.insert(0, x)
        logits: Tensor = self.head(decoded if isinstance(self.head, DeepSupervision) else x)
        return logits

    def _gated(self, level: str, skip: Tensor, signal: Tensor) -> Tensor:
        if level not in self.gates:
            return skip
        skip = self.gates[level](skip, signal)
        return self.mixers[level](skip) if level in self.mixers else skip

    @property
    def roles(self) -> dict[str, str]:
        """What layers stand for: role -> module name, by level, where level 1 has full resolution.

        `E1` and on are the encoder's outputs (the last is the deepest block), `D1` and on the decoder's, `G2` and on
        the gates' coefficients alpha; `G2.1`, `G2.2` where a gate has several heads; `X2` and on what of a gated skip
        reaches the decoder (`E2` is what entered the gate).
        """
        roles = {f"E{level}": f"encoder.{level}" for level in self.encoder}
        roles |= {f"D{level}": f"decoder.{level}" for level in self.decoder}
        for level, gate in self.gates.items():
            assert isinstance(gate, AttentionGate)
            for alpha in gate.alphas:
                roles[f"G{level}{alpha.removeprefix('alpha')}"] = f"gates.{level}.{alpha}"
            roles[f"X{level}"] = f"mixers.{level}" if level in self.mixers else f"gates.{level}"
        return roles


def _by_level(modules: dict[int, nn.Module]) -> nn.ModuleDict:
    """Named by level, so that a name means the same level in every network."""
    return nn.ModuleDict({str(level): module for level, module in modules.items()})


def _widths(channels: Sequence[int]) -> dict[int, int]:
    """Channels by level, from 1; ValueError for fewer than two levels."""
    if not isinstance(channels, Sequence) or len(channels) < 2:
        raise ValueError(f"channels must be those of two levels or more, not {channels!r}")
    return {level: positive("channels", width) for level, width in enumerate(channels, start=1)}


def _gated_levels(gated: bool | str | Sequence[int], deepest: int) -> tuple[int, ...]:
    """The levels whose skips are gated, in ascending order; ValueError for those that have no skip."""
    levels = range(1, deepest)
    if gated is False:
        return ()
    if gated is True and levels[1:]:
        return tuple(levels[1:])
    if gated == "all":
        return tuple(levels)
    if not isinstance(gated, Sequence) or not all(level in levels for level in gated):
        known = "True, False, 'all' or levels" if levels[1:] else "False, 'all' or a level"
        raise ValueError(f"gated must be {known} from 1 to {deepest - 1}, not {gated!r}")
    return tuple(level for level in levels if level in gated)
