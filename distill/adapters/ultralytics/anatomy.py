"""The parts of an Ultralytics network: head inputs, backbone, gates, and the layers a teacher really has to run."""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules.head import Detect

from distill.adapters.ultralytics.heads import outputs_of
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

    The copy keeps every name in `layers`. Of a head whose class scores or boxes are read only those parts run,
    unfolded: folding removes the branch that end-to-end heads use in training only. Any other layer inside a head needs
    the whole network.
    """
    network = deepcopy(module).float().eval()
    stride = stride_of(network)
    layers = list(dict.fromkeys(layers))
    last = len(network.model) - 1
    inside = [layer for layer in layers if _index(layer) == last]
    dense = {name for output in outputs_of(network) for name in (output.classes, output.boxes)}
    if not set(inside) <= dense:
        return Teacher(network, layers, size=size, stride=stride)
    trunk = [layer for layer in layers if layer not in inside]
    deepest = last - 1 if inside else max(map(_index, trunk))
    head = network.model[-1]
    network.model = network.model[: deepest + 1]
    network = _folded(network, trunk)
    if not inside:
        return Teacher(network, layers, run=run_layers, size=size, stride=stride)
    network.model.add_module(str(last), head)
    sources = [source if source >= 0 else last + source for source in head.f]

    def run(whole: Any, images: Tensor) -> None:
        inputs = run_layers(whole, images)
        for name in inside:
            whole.get_submodule(name)(inputs[sources[int(name.rpartition(".")[2])]])

    scores = [output.classes for output in outputs_of(network) if output.classes in inside]
    return Teacher(network, layers, run=run, size=size, stride=stride, scores=scores)


def _index(layer: str) -> int:
    """12 for `model.12.cv1`."""
    return int(layer.split(".")[1])


def _folded(network: Any, layers: Sequence[str]) -> Any:
    """The network with its BatchNorms folded in, where the layers that are read stay what they are."""
    modules = dict(network.named_modules())
    if any(isinstance(modules.get(layer), FOLDED) for layer in layers):
        return network
    folded = deepcopy(network).fuse(verbose=False)
    kept = set(layers) <= {name for name, _ in folded.named_modules()}  # folding may also drop branches
    return folded if kept else network


def run_layers(network: Any, images: Tensor) -> list[Any]:
    """The forward pass of a network as far as its head: each layer reads the outputs that its `f` names.

    The result has each layer's output, or None for those that none reads later; the last one's always.
    """
    outputs: list[Any] = []
    x: Any = images
    for layer in network.model:
        if isinstance(layer, Detect):
            break
        if layer.f != -1:
            x = outputs[layer.f] if isinstance(layer.f, int) else [x if j == -1 else outputs[j] for j in layer.f]
        x = layer(x)
        outputs.append(x if layer.i in network.save else None)
    outputs[-1:] = [x]
    return outputs
