"""A network to look at, trained or only described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.torch_utils import parse_device, select_device

from distill.adapters.ultralytics.anatomy import channels_of, stride_of
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.inputs import Checkpoint, ModelYaml, read_checkpoint, read_model_yaml
from distill.adapters.ultralytics.plan import checked_device
from distill.adapters.ultralytics.tasks import MODELS
from distill.modes import same_randomness


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode, float32: `trained` is False for one made of a description, whose weights are random."""

    file: str
    module: Any
    task: str
    trained: bool

    @property
    def channels(self) -> int:
        return channels_of(self.module)

    @property
    def stride(self) -> int:
        return stride_of(self.module)


def read_network(file: str, argument: str, trust: bool = False) -> Checkpoint | ModelYaml:
    """What a .pt or a .yaml holds; `yolo11n` means yolo11n.pt. Raises InputError for what is neither."""
    path = file if Path(file).suffix or Path(file).exists() else f"{file}.pt"
    read = read_model_yaml if Path(path).suffix.lower() in (".yaml", ".yml") else read_checkpoint
    found: Checkpoint | ModelYaml = read(path, argument, trust)
    return found


def subject(given: Checkpoint | ModelYaml, data: Mapping[str, Any] | None = None, seed: int = 0) -> Subject:
    """The network itself; one that is only described is built for the classes and channels of `data`, from `seed`."""
    if isinstance(given, Checkpoint):
        return Subject(str(given.path), given.module.float().eval(), given.task, True)
    channels, nc = (data or {}).get("channels", given.channels), (data or {}).get("nc", given.nc)
    with same_randomness(), quiet():
        torch.manual_seed(seed)
        module = MODELS[given.family, given.task](given.path, ch=channels, nc=nc, verbose=False)
    return Subject(given.path, module.eval(), given.task, False)


def device_of(text: str) -> torch.device:
    """The device that the user named, such as `cpu` or `0`. Raises InputError when this machine does not have it."""
    with quiet():
        device: torch.device = select_device(parse_device(checked_device(text)), verbose=False)
    return device
