"""What each layer of a network costs: the time it takes in a forward pass, as it is run to predict or to teach."""

from __future__ import annotations

import time
from collections.abc import Callable
from copy import deepcopy
from functools import partial
from statistics import median
from typing import Any

import torch
from torch import nn

from distill.adapters.ultralytics.anatomy import channels_of

WARM_UP, REPEATS = 2, 7


@torch.no_grad()
def layer_times(
    module: Any, imgsz: int, device: torch.device | str = "cpu", repeats: int = REPEATS
) -> dict[str, float]:
    """Seconds that each top-level layer `model.N` takes for one image of `imgsz` pixels square, the head included.

    Medians of `repeats` forward passes of a copy with its BatchNorms folded in, in float32. They sum to the whole.
    """
    network = deepcopy(module).float().eval().to(device)
    network = network.fuse(verbose=False)
    image = torch.zeros(1, channels_of(network), imgsz, imgsz, device=device)
    seconds: dict[str, list[float]] = {}
    started: dict[str, float] = {}
    now = partial(_now, image)
    for layer in network.model:  # the hooks go with the copy
        name = f"model.{layer.i}"
        layer.register_forward_pre_hook(_starter(started, name, now))
        layer.register_forward_hook(_stopper(started, seconds, name, now))
    for _ in range(WARM_UP + repeats):
        network(image)
    return {name: median(times[WARM_UP:]) for name, times in seconds.items()}


def _starter(started: dict[str, float], name: str, now: Callable[[], float]) -> Callable[..., None]:
    def start(_module: nn.Module, _inputs: Any) -> None:
        started[name] = now()

    return start


def _stopper(
    started: dict[str, float], seconds: dict[str, list[float]], name: str, now: Callable[[], float]
) -> Callable[..., None]:
    def stop(_module: nn.Module, _inputs: Any, _output: Any) -> None:
        seconds.setdefault(name, []).append(now() - started[name])

    return stop


def _now(image: torch.Tensor) -> float:
    if image.is_cuda:
        torch.cuda.synchronize(image.device)
    elif image.device.type == "mps":
        torch.mps.synchronize()
    return time.perf_counter()
