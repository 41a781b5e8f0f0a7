"""Leaving a network, and the random generators, as they were found; and a network as it was before training."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from copy import deepcopy

import numpy as np
import torch
from torch import nn


@contextmanager
def as_found(model: nn.Module) -> Iterator[None]:
    """Train or eval mode of every module restored on exit, module by module: a frozen BatchNorm stays in eval."""
    modes = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


@contextmanager
def same_randomness() -> Iterator[None]:
    """The states of Python's, NumPy's and torch's generators (every CUDA device's too) restored on exit."""
    python, array, cpu = random.getstate(), np.random.get_state(), torch.get_rng_state()
    cuda = torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []  # looking must not start CUDA
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(array)
        torch.set_rng_state(cpu)
        if cuda:
            torch.cuda.set_rng_state_all(cuda)


def untrained(network: nn.Module, seed: int = 0) -> nn.Module:
    """A copy with fresh random weights: every module that can draw its parameters anew does so, as torch starts them.

    Works for pruned networks too, which no description rebuilds.
    """
    fresh = deepcopy(network)
    with same_randomness():
        torch.manual_seed(seed)
        for module in fresh.modules():
            for name in ("reset_parameters", "_reset_parameters"):  # the latter in torch's attention layers
                if callable(again := getattr(module, name, None)):
                    again()
                    break
    return fresh
