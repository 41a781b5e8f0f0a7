"""U-Nets as a user names them, and as a checkpoint holds them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import yaml

from distill.attention.layers import Anatomy, LayerInfo, describe
from distill.errors import InputError
from distill.modes import same_randomness
from distill.networks.unet import UNet
from distill.text import nearest, one_line

LEVELS = 5  # of a network that is named by its first width alone; each level has twice the channels of the one above
WIDTH = 16
GIVEN_BY_DATA = ("in_channels", "classes", "dims")  # never by the description
DESCRIBED = ("channels", "gated", "deep_supervision", "upsampling", "heads", "form", "stride")
MARK = "distill"  # the key of a checkpoint under which stands what its network is


@dataclass(frozen=True, eq=False)
class Trained:
    """A U-Net from a checkpoint, in eval mode, with what belongs to it.

    `network` are the arguments it is built from; `names` the classes, background first; `crop` the size, in pixels or
    voxels, of what it was trained on; `about` everything that the checkpoint says of itself.
    """

    path: Path
    module: UNet
    network: Mapping[str, Any]
    names: tuple[str, ...]
    crop: tuple[int, ...]
    about: Mapping[str, Any]


def description(student: str) -> dict[str, Any]:
    """What `unet`, `attention-unet:8` or a YAML with a `unet:` mapping says, as arguments of `UNet`.

    Raises InputError for a width or an entry that is none.
    """
    if student.lower().endswith((".yaml", ".yml")):
        return _from_yaml(student)
    kind, colon, width = student.partition(":")
    if colon and not (width.isdecimal() and int(width) > 0):
        raise InputError(
            f"--student {student}: behind the colon stands the first level's number of channels, as in {kind}:8"
        )
    first = int(width) if colon else WIDTH
    return {"channels": [first * 2**level for level in range(LEVELS)], "gated": kind == "attention-unet"}


def _from_yaml(file: str) -> dict[str, Any]:
    try:
        entries = yaml.safe_load(Path(file).read_text(encoding="utf-8"))["unet"]
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InputError(f"--student {file}: not readable as YAML ({one_line(error)})") from error
    if not isinstance(entries, dict) or "channels" not in entries:
        raise InputError(f"--student {file}: 'unet' must be a mapping with 'channels', such as channels: [8, 16, 32]")
    for key in entries:
        if key not in DESCRIBED:
            why = "the data says that" if key in GIVEN_BY_DATA else f"unknown entry{nearest(str(key), DESCRIBED)}"
            raise InputError(f"--student {file}: {key}: {why}")
    return dict(entries)


def build(network: Mapping[str, Any], seed: int | None = None) -> UNet:
    """The network of these arguments; with `seed` its weights are drawn from that, otherwise from torch's generator.

    Raises InputError where they are none of a U-Net's.
    """
    try:
        if seed is None:
            return UNet(**network)
        with same_randomness():
            torch.manual_seed(seed)
            return UNet(**network)
    except (TypeError, ValueError) as error:
        raise InputError(f"--student: {one_line(error)}") from error


def read_checkpoint(file: str | Path, argument: str) -> Trained:
    """A checkpoint of a U-Net, best or last, read with `weights_only`: nothing in it can run.

    Raises InputError for what is missing or something else.
    """
    path = Path(file)
    if not path.is_file():
        raise InputError(f"{argument} {file}: no such file")
    try:
        raw = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of any kind; torch's own words advise to let the file run code
        why = one_line(error) if isinstance(error, OSError) else "damaged, or it holds more than weights"
        raise InputError(f"{argument} {file}: not readable as a U-Net's checkpoint: {why}") from error
    about = raw.get(MARK) if isinstance(raw, dict) else None
    if not isinstance(about, dict) or "network" not in about:
        raise InputError(f"{argument} {file}: a checkpoint, but not of a U-Net that distill trained")
    try:
        module = build(about["network"])
        weights = {name.removeprefix("network."): tensor for name, tensor in raw["state_dict"].items()}
        module.load_state_dict(weights)
        names, crop = tuple(about["names"]), tuple(about["crop"])
    except (InputError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        raise InputError(f"{argument} {file}: its weights are not those of the network that it names") from error
    return Trained(path, module.eval(), about["network"], names, crop, about)


def layers_of(module: UNet, crop: tuple[int, ...]) -> list[LayerInfo]:
    """Every layer with its shape, stride and roles, for one input of this size."""
    device = next(module.parameters()).device
    return describe(module, torch.zeros(1, module.in_channels, *crop, device=device), Anatomy(named=module.roles))
