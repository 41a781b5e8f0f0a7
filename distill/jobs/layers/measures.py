"""What is measured of two networks on the same images, and of each layer's price."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from itertools import accumulate
from typing import Any

import torch
from torch import Tensor

from distill.attention.layers import LayerInfo
from distill.attention.similarity import LEAST_IMAGES, Likeness, LikenessMeter, Response
from distill.attention.taps import Taps
from distill.errors import InputError
from distill.jobs.layers.findings import STUDENT, TEACHER, Costed, Surveyed
from distill.pictures.framing import Framing
from distill.pictures.source import Source
from distill.progress import progress


def read_images(source: Source, how: Framing, size: int, seed: int) -> tuple[tuple[str, ...], Tensor]:
    """The files and the images (N, 3, size, size), uint8 to save memory, in an order drawn from `seed`.

    `how` must bring all pictures to one shape.
    """
    pictures, images = [], []
    for picture in progress(source, "images read", len(source)):
        pictures.append(picture.file)
        images.append((how(picture.pixels, size, 32)[0] * 255).round().byte())
    if len(images) < LEAST_IMAGES:
        why = f"; left out: {' '.join(source.skipped[0])}" if source.skipped else ""
        raise InputError(f"--data: {len(images)} images to compare on, and {LEAST_IMAGES} are needed{why}")
    order = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed)).tolist()
    return tuple(pictures[i] for i in order), torch.stack([images[i] for i in order])


def minibatches(images: Tensor, batch: int) -> list[Tensor]:
    """Parts of nearly the same size, about `batch`, none under the four images that CKA needs."""
    number = max(1, min(-(-len(images) // batch), len(images) // LEAST_IMAGES))
    return list(images.tensor_split(number))


def measure_likeness(
    networks: Mapping[str, Any],
    chosen: Mapping[str, Sequence[LayerInfo]],
    images: Tensor,
    batch: int,
    device: torch.device,
) -> Likeness:
    """How alike the chosen layers of both networks are on `images` (N, 3, H, W), uint8. N is at least 4."""
    meter = LikenessMeter()
    respond = {key: _responder(one, [x.name for x in chosen[key]], device) for key, one in networks.items()}
    parts = minibatches(images, batch)
    for part in progress(parts, f"minibatches of {len(parts[0])} images compared", len(parts)):
        seen = part.to(device).float() / 255
        meter.add(respond[TEACHER](seen), respond[STUDENT](seen))
    return meter.result()


def _responder(network: Any, layers: Sequence[str], device: torch.device) -> Callable[[Tensor], Response]:
    module = network.module.to(device)

    @torch.no_grad()
    def respond(images: Tensor) -> Response:
        with Taps(module, layers) as taps:
            module(images)
            features = taps.read()
        for layer, output in features.items():
            if not torch.isfinite(output).all():
                raise InputError(f"layer '{layer}' gives values that are not finite: the network is damaged")
        return Response.of(features)

    return respond


def survey(key: str, network: Any, table: Sequence[LayerInfo], times: Mapping[str, float], depth: str) -> Surveyed:
    """A network's layers with their prices: `times` are the seconds of its top-level layers, in order of execution."""
    total = sum(times.values())
    rows = []
    for layer in table:
        seconds = times.get(layer.name)
        if depth == "all" or layer.name.count(".") == 1:
            share = None if seconds is None else seconds / total
            rows.append(Costed(layer, seconds, share, reach(layer.name, times)))
    parameters = sum(p.numel() for p in network.module.parameters())
    return Surveyed(key, network.file, network.task, network.trained, parameters, total, tuple(rows))


def reach(layer: str, times: Mapping[str, float]) -> float:
    """The share of the forward pass up to and including the top-level layer that `layer` is or lies in."""
    outer = ".".join(layer.split(".")[:2])
    upto = dict(zip(times, accumulate(times.values()), strict=True))
    return upto[outer] / sum(times.values())
