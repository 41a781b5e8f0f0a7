"""Attention gates in a detector's neck: where they go, and how they stay when Ultralytics rebuilds the network."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from ultralytics.nn.modules import Concat

from distill.adapters.ultralytics.anatomy import channels_of, gates_of, run_layers, stride_of
from distill.errors import InputError
from distill.modes import same_randomness
from distill.networks.neck import GatedConcat

CELLS = 2  # of the deepest level, on a side of the images that channels are measured with


def top_down(model: Any) -> list[Any]:
    """The layers, gated or not, that join what an `Upsample` just before them gives with an output of the backbone."""
    layers, backbone = model.model, len(model.yaml["backbone"])
    return [
        layer
        for layer in layers
        if isinstance(layer, (Concat, GatedConcat))
        and isinstance(layer.f, list)
        and len(layer.f) == 2
        and layer.f[0] == -1
        and isinstance(layers[layer.i - 1], nn.Upsample)
        and 0 <= layer.f[1] < backbone
        and layer.d == 1
    ]


def check_gatable(model: Any, where: str) -> None:
    """Raise InputError if there is nothing in this network that could be gated; `where` says what the user gave."""
    if not top_down(model):
        raise InputError(
            f"{where}: --gated-neck gates skips that are concatenated with up-sampled features, as in YOLOv3, v5 and "
            f"v8 to 26 of all tasks but classify; this network has none"
        )


def gate_neck(model: Any, seed: int = 0) -> None:
    """Replace the top-down `Concat` layers in place by gated ones; what is gated already stays.

    Every other layer keeps its index and so its name. The network computes what it computed before, to within
    rounding. The gates' weights come from `seed` and leave the random generators as they are.
    """
    plain = [layer for layer in top_down(model) if not isinstance(layer, GatedConcat)]
    if plain:
        shapes = _inputs(model, [layer.i for layer in plain])
        like = next(model.parameters())
        with same_randomness():
            torch.manual_seed(seed)
            for layer in plain:
                gating, skip = (shape[1] for shape in shapes[layer.i])
                model.model[layer.i] = _in_place_of(layer, GatedConcat(skip, gating).to(like))


def take_gates(model: Any, source: Any) -> None:
    """Give the gates of `model` the weights of those of `source` that lie in the same place and have the same shape."""
    state = model.state_dict()
    fitting = {name: t for name, t in gate_state(source).items() if name in state and t.shape == state[name].shape}
    model.load_state_dict(fitting, strict=False)


def told(model: Any) -> tuple[str, ...]:
    """A line on the gates of a network, for whoever trains it; none for a plain network."""
    gates = gates_of(model)
    if not gates:
        return ()
    where = ", ".join(f"model.{layer.i} gates model.{layer.f[1]}" for layer in gates)
    parameters = sum(layer.np for layer in gates)
    return (f"gated neck: {where}; {parameters:,} parameters; its checkpoints need attention-distill to load",)


def gate_state(model: Any) -> Mapping[str, Tensor]:
    """The part of a network's state that belongs to its gates, by full names."""
    return {
        f"model.{layer.i}.{name}": tensor for layer in gates_of(model) for name, tensor in layer.state_dict().items()
    }


def _in_place_of(old: Any, new: Any) -> nn.Module:
    """What Ultralytics notes on every layer: its number, its sources, its kind, its parameters."""
    new.i, new.f, new.np = old.i, old.f, sum(p.numel() for p in new.parameters())
    new.type = f"{type(new).__module__}.{type(new).__name__}"
    gated: nn.Module = new.train(old.training)
    return gated


def _inputs(model: Any, layers: list[int]) -> dict[int, list[torch.Size]]:
    """The shapes of what these layers read. Measured: the weights of a pruned network are not what its yaml says."""
    network = deepcopy(model).float().cpu().eval()
    shapes: dict[int, list[torch.Size]] = {}
    for index in layers:
        network.model[index].register_forward_pre_hook(
            lambda layer, inputs: shapes.update({layer.i: [each.shape for each in inputs[0]]})
        )
    network.model = network.model[: max(layers) + 1]
    side = CELLS * max(stride_of(network), 32)
    with torch.no_grad():
        run_layers(network, torch.zeros(1, channels_of(network), side, side))
    return shapes
