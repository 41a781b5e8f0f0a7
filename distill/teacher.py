"""The frozen network that guides: how it is run, and how cheaply."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.attention.maps import energy, unit
from distill.attention.taps import Taps

EQUAL = 0.999  # cosine between attention maps of two precisions that counts as the same
PRECISIONS = ("float32", "bfloat16")
GREY = 114 / 255  # of the borders that letterboxing adds


class Teacher:
    """A network in eval mode, without gradients, read at `layers`.

    It is run under `no_grad`, not `inference_mode`, whose tensors cannot be saved for backward. `module` is taken
    over: its parameters are frozen and its memory made channels_last (channels_last_3d for volumes).
    `run(module, images)` is the forward pass, by default `module(images)`. `size` scales the images' longest side to
    so many pixels; `stride` is the network's largest: images whose sides are no multiples of it (1 for a U-Net) are
    scaled to the nearest where there is a `size`, and otherwise get a grey border, whose cells are not told.
    `scores` are those of the layers that give class logits.
    """

    def __init__(
        self,
        module: nn.Module,
        layers: Sequence[str],
        run: Callable[[nn.Module, Tensor], Any] | None = None,
        size: int | None = None,
        stride: int = 32,
        scores: Sequence[str] = (),
    ) -> None:
        volumes = any(parameter.ndim == 5 for parameter in module.parameters())
        self._layout = torch.channels_last_3d if volumes else torch.channels_last
        self.module = module.eval().requires_grad_(False).to(memory_format=self._layout)
        self.layers = tuple(layers)
        self.scores = frozenset(scores)
        self.size = size
        self.stride = stride
        self.precision = "float32"
        self._run = run or (lambda network, images: network(images))
        self._taps = Taps(self.module, self.layers)

    def __call__(self, images: Tensor) -> dict[str, Tensor]:
        """The features (B, C, H, W) of each layer, for `images` (B, 3, H, W)."""
        given = images.shape[2:]
        images = bordered(images, self.stride) if self.size is None else fitted(images, self.size, self.stride)
        images = images.contiguous(memory_format=self._layout)
        low = self.precision == "bfloat16"
        on_cpu = images.device.type == "cpu"  # there the weights are bfloat16 too
        images = images.bfloat16() if low and on_cpu else images.float()
        # neither the student's autocast nor its float16, which overflows in some teachers
        precision = torch.autocast(images.device.type, torch.bfloat16, enabled=low and not on_cpu)
        with torch.no_grad(), precision, self._taps as taps:
            self._run(self.module, images)
            seen = taps.read()
        whole = images.shape[2:]
        if self.size is not None or whole == given:
            return seen
        return {name: _without_border(features, given, whole) for name, features in seen.items()}

    def __deepcopy__(self, memo: dict[int, Any]) -> Teacher:
        """Itself: it never changes, so a copy of whatever holds it can share it."""
        return self

    def to(self, device: torch.device | str) -> Teacher:
        """The same teacher, moved."""
        self.module.to(device)
        return self

    def use(self, precision: str) -> None:
        """Run in "float32" or "bfloat16" from now on: weights and images on a CPU, autocast on a GPU."""
        if precision not in PRECISIONS:
            raise ValueError(f"precision must be one of {PRECISIONS}, not {precision!r}")
        self.precision = precision
        if next(self.module.parameters()).device.type == "cpu":
            self.module.to(getattr(torch, precision))

    def choose_precision(self, images: Tensor, repeats: int = 3) -> dict[str, float]:
        """Take bfloat16 where it is faster here and the maps stay the same; otherwise stay with float32.

        "The same" is a cosine of at least 0.999 for the median image, at every layer: now and then a single image's
        deep maps stand on an edge, where any rounding tips them. Returns what was measured: seconds for each
        precision (medians) and the cosine of the layer that agrees least. Call it before the first `use`: going down
        loses the low bits.
        """
        reference, full = self._timed(images, repeats)
        weights = {name: tensor.clone() for name, tensor in _state(self.module)}
        self.use("bfloat16")
        try:
            maps, low = self._timed(images, repeats)
            cosines = [self._agreement(layer, reference[layer], maps[layer]) for layer in self.layers]
            cosine = torch.tensor(cosines).min().item()  # NaN wherever one is NaN, which Python's min may pass over
        except RuntimeError:  # an operation without a bfloat16 kernel on this device
            cosine, low = float("nan"), float("nan")
        if not (cosine >= EQUAL and low < full):
            self.use("float32")
            for name, tensor in _state(self.module):
                tensor.copy_(weights[name])
        return {"float32": full, "bfloat16": low, "cosine": cosine}

    def _agreement(self, layer: str, a: Tensor, b: Tensor) -> float:
        """Of logits it is the probabilities that count: their energy is that of the background, far below zero."""
        return _cosine(a.float().sigmoid(), b.float().sigmoid()) if layer in self.scores else _cosine(a, b)

    def _timed(self, images: Tensor, repeats: int) -> tuple[dict[str, Tensor], float]:
        features = self(images)  # the first call pays for set-up
        seconds = []
        for _ in range(repeats):
            _wait(images)
            start = time.perf_counter()
            self(images)
            _wait(images)
            seconds.append(time.perf_counter() - start)
        return features, sorted(seconds)[len(seconds) // 2]


def bordered(images: Tensor, stride: int) -> Tensor:
    """Images (B, C, *S), with grey behind each axis up to the next multiple of `stride`: their cells stay in place."""
    added = [-side % stride for side in images.shape[2:]]
    if not any(added):
        return images
    return F.pad(images, [width for more in reversed(added) for width in (0, more)], value=GREY)


def _without_border(features: Tensor, given: Sequence[int], whole: Sequence[int]) -> Tensor:
    """Features (B, C, *s) of images with sides `whole`, in the cells that reach into the first `given` pixels."""
    if features.ndim != 2 + len(given):
        return features
    for axis, (side, full) in enumerate(zip(given, whole, strict=True), 2):
        features = features.narrow(axis, 0, -(-features.shape[axis] * side // full))
    return features


def fitted(images: Tensor, size: int, stride: int) -> Tensor:
    """Images (B, C, *S) with `size` pixels on the longest side, all multiples of `stride`."""
    sides = list(images.shape[2:])
    factor = size / max(sides)
    target = [max(1, round(side * factor / stride)) * stride for side in sides]
    if target == sides:
        return images
    if len(sides) == 3:  # torch does not smooth volumes before it shrinks them
        return F.interpolate(images, size=target, mode="trilinear", align_corners=False)
    return F.interpolate(images, size=target, mode="bilinear", align_corners=False, antialias=True)


def _state(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """Parameters and buffers, those that no checkpoint keeps too."""
    yield from ((name, parameter.detach()) for name, parameter in module.named_parameters())
    yield from module.named_buffers()


def _cosine(a: Tensor, b: Tensor) -> float:
    return (unit(energy(a)) * unit(energy(b))).flatten(1).sum(dim=1).median().item()


def _wait(images: Tensor) -> None:
    if images.is_cuda:
        torch.cuda.synchronize(images.device)


def freeze_report(module: nn.Module, before: Mapping[str, Tensor]) -> list[str]:
    """Which of a teacher's promises are broken: names of what trains, what is trainable, what moved since `before`."""
    broken = [f"'{name or 'the network'}' is in train mode" for name, m in module.named_modules() if m.training][:1]
    broken += [f"'{name}' is trainable" for name, p in module.named_parameters() if p.requires_grad][:1]
    state = module.state_dict()
    broken += [f"'{name}' moved" for name, old in before.items() if not torch.equal(old, state[name])][:1]
    return broken
