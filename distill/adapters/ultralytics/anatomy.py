"""The parts of an Ultralytics network: head inputs, backbone, gates, and the layers a teacher really has to run."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn

from distill.attention.layers import Anatomy, LayerInfo, describe
from distill.networks.neck import GatedConcat
from distill.teacher import Teacher

FOLDED = (nn.Conv2d, nn.ConvTranspose2d, nn.BatchNorm2d)  # read at one of these, a folded network tells something else


def anatomy(model: Any) -> Anatomy:
    """What the head reads (`head.f`, whose order means nothing), the blocks under `backbone:` in its yaml, gates."""
    head = model.model[-1]
    sources = [head.f] if isinstance(head.f, int) else list(head.f)
    inputs = tuple(f"model.{source if source >= 0 else head.i + source}" for source in sources)
    return Anatomy(inputs, tuple(f"model.{i}" for i in range(len(model.yaml["backbone"]))), alphas_of(model))


def gates_of(model: Any) -> list[Any]:
    """The `GatedConcat` layers of a network's neck, in order; none in a plain network."""
    return [layer for layer in model.model if isinstance(layer, GatedConcat)]


def alphas_of(model: Any) -> tuple[str, ...]:
    """The names of the modules that give the gates' coefficients."""
    return tuple(f"model.{layer.i}.gate.alpha" for layer in gates_of(model))


def layers_of(model: Any, imgsz: int) -> list[LayerInfo]:
    """Every layer with its measured shape, stride and roles, for square images of `imgsz` pixels."""
    parameter = next(model.parameters())
    images = torch.zeros(1, channels_of(model), imgsz, imgsz, device=parameter.device, dtype=parameter.dtype)
    return describe(model, images, anatomy(model))


def channels_of(model: Any) -> int:
    """Input channels: 3 for colour images."""
    return int(model.yaml.get("channels", 3))


def stride_of(model: Any) -> int:
    """What image sides must be multiples of; 1 where the network takes any size (classification)."""
    return int(torch.as_tensor(getattr(model, "stride", 32)).max())


def build_teacher(module: Any, layers: Sequence[str], size: int | None = None) -> Teacher:
    """A frozen copy of `module`, cut behind the deepest layer that is read and with its BatchNorms folded in.

    The copy keeps every name in `layers`. A layer inside the head needs the whole network, unfolded: folding removes
    the branch that end-to-end heads use in training only.
    """
    network = deepcopy(module).float().eval()
    deepest = max(int(layer.split(".")[1]) for layer in layers)
    stride = stride_of(network)
    if deepest >= len(network.model) - 1:
        return Teacher(network, layers, size=size, stride=stride)
    network.model = network.model[: deepest + 1]
    modules = dict(network.named_modules())
    if not any(isinstance(modules.get(layer), FOLDED) for layer in layers):
        folded = deepcopy(network).fuse(verbose=False)
        if set(layers) <= {name for name, _ in folded.named_modules()}:  # folding may also drop branches
            network = folded
    return Teacher(network, layers, run=run_layers, size=size, stride=stride)


def run_layers(network: Any, images: Tensor) -> None:
    """The forward pass of a network without its head: each layer reads the outputs that its `f` names."""
    outputs: list[Any] = []
    x: Any = images
    for layer in network.model:
        if layer.f != -1:
            x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
        x = layer(x)
        outputs.append(x if layer.i in network.save else None)
