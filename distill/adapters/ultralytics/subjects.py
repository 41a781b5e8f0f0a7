"""A network to look at, trained or only described."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from ultralytics.utils.torch_utils import parse_device, select_device

from distill.adapters.ultralytics.anatomy import channels_of, stride_of
from distill.adapters.ultralytics.devices import checked_device
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.inputs import Checkpoint, ModelYaml, read_checkpoint, read_model_yaml
from distill.adapters.ultralytics.tasks import MODELS
from distill.modes import same_randomness

USUAL_SIZE = {"classify": 224}  # pixels; 640 for all other tasks


@dataclass(frozen=True, eq=False)
class Subject:
    """A network in eval mode, float32: `trained` is False for one made of a description, whose weights are random.

    `imgsz` is the side of the images it was trained on, or that its task usually takes.
    """

    file: str
    module: Any
    task: str
    family: str
    trained: bool
    imgsz: int

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
        return Subject(
            str(given.path),
            given.module.float().eval(),
            given.task,
            given.family,
            True,
            trained_at(given) or usual_size(given.task),
        )
    channels, nc = (data or {}).get("channels", given.channels), (data or {}).get("nc", given.nc)
    with same_randomness(), quiet():
        torch.manual_seed(seed)
        module = MODELS[given.family, given.task](given.path, ch=channels, nc=nc, verbose=False)
    return Subject(given.path, module.eval(), given.task, given.family, False, usual_size(given.task))


def trained_at(checkpoint: Checkpoint) -> int | None:
    """The side of the images that a network was trained on; None where its checkpoint does not say."""
    arguments = checkpoint.raw.get("train_args")
    found = arguments.get("imgsz") if isinstance(arguments, dict) else None
    return found if isinstance(found, int) else None


def usual_size(task: str) -> int:
    """The side of the images that a task is usually trained on."""
    return USUAL_SIZE.get(task, 640)


def device_of(text: str | None) -> torch.device:
    """The device that the user named, such as `cpu` or `0`; without a name, the first GPU or else the CPU.

    Raises InputError when this machine does not have it.
    """
    with quiet():
        named = "" if text is None else parse_device(checked_device(text))
        device: torch.device = select_device(named, verbose=False)
    return device
