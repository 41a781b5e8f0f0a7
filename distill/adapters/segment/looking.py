"""A trained U-Net that is looked at: the maps of its layers, what it predicts, and how well."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from distill.adapters.segment import scores
from distill.adapters.segment.data import Data
from distill.adapters.segment.files import find_images, is_volume
from distill.adapters.segment.lattices import exact_lattice, layers_of_whole_cells
from distill.adapters.segment.networks import Trained, build, read_checkpoint
from distill.adapters.segment.plan import device_of
from distill.attention.geometry import Lattice
from distill.attention.layers import LayerInfo
from distill.attention.taps import Taps
from distill.errors import InputError
from distill.networks.unet import UNet


class Looker:
    """A U-Net in eval mode on `device`. `names` are its classes, background first; `crop` what it was trained on."""

    def __init__(self, trained: Trained, device: torch.device) -> None:
        self.file = str(trained.path)
        self.module: UNet = trained.module.requires_grad_(False).to(device)
        self.network: Mapping[str, Any] = trained.network
        self.names, self.crop = trained.names, trained.crop
        self.dims, self.channels = self.module.dims, self.module.in_channels
        self.device = device

    @cached_property
    def layers(self) -> list[LayerInfo]:
        """Every layer with its stride and roles; `shape` is that for some small input."""
        return layers_of_whole_cells(self.module)

    @cached_property
    def lattices(self) -> dict[str, Lattice]:
        """Where each layer's cells lie, for every input."""
        return {layer.name: exact_lattice(layer) for layer in self.layers}

    def untrained(self, seed: int) -> UNet:
        """The same network with fresh weights, as training begins with."""
        fresh = build(self.network, seed).eval().to(self.device)
        return fresh.requires_grad_(False)

    def features(self, images: Tensor, layers: Sequence[str], module: nn.Module | None = None) -> dict[str, Tensor]:
        """The outputs (1, C, *s) of these layers for one image (C, *S); of another `module` of the same shape."""
        network = module or self.module
        with torch.no_grad(), Taps(network, layers) as taps:
            network(images[None].to(self.device))
            return taps.read()

    def predict(self, images: Tensor, opened: Sequence[str] = ()) -> Tensor:
        """The class of each position (*S), for an image (C, *S) of any size, as validation infers it.

        `opened` names gates, such as "G2", whose coefficients are 1 throughout instead of what they found.
        """
        with torch.no_grad(), ExitStack() as stack:
            for role in opened:
                alpha = self.module.get_submodule(self.module.roles[role])
                stack.callback(alpha.register_forward_hook(_ones).remove)
            return scores.infer(self.module, images[None].to(self.device), self.crop).argmax(1)[0]

    def dice(self, found: Tensor, truth: np.ndarray) -> dict[str, float]:
        """The Dice of each class but the background, of a prediction and the truth (*S), as validation counts it.

        Without the classes that validation leaves out: those that are rightly not found.
        """
        labels = torch.from_numpy(truth).to(found.device)
        values = scores.overlaps(found[None], labels[None], len(self.names))["dice"][0]
        found_by_class = zip(self.names[1:], values.tolist(), strict=True)
        return {name: value for name, value in found_by_class if not math.isnan(value)}


def _ones(_alpha: nn.Module, _inputs: Any, output: Tensor) -> Tensor:
    return torch.ones_like(output)


def open_lookers(files: Mapping[str, str], device: str | None) -> dict[str, Looker]:
    """A looker for each U-Net that is given by `--key file`. Raises InputError for what cannot be looked at."""
    for key, file in files.items():
        if not file.lower().endswith(".ckpt"):
            raise InputError(f"--{key} {file}: a description, not a trained network: give a .ckpt that distill trained")
    where = device_of(device)
    lookers = {key: Looker(read_checkpoint(file, f"--{key}"), where) for key, file in files.items()}
    asked = {key: (looker.dims, looker.channels) for key, looker in lookers.items()}
    if len(set(asked.values())) > 1:
        told = ", ".join(f"--{key} {dims}-D images of {channels}" for key, (dims, channels) in asked.items())
        raise InputError(f"the networks read different images, so there is nothing to compare ({told} channels)")
    return lookers


def choose_cases(
    source: Any, data: Data | None, split: str, most: int, looker: Looker
) -> list[tuple[Path, Path | None]]:
    """At most so many images, evenly spread, each with its mask if it is known.

    `source` is a file, a folder, a pattern or a list of these; where it is None the `split` ("train" or "val") of the
    data. Masks are those that the data has for these very files. Raises InputError for none, and for images of other
    dimensions or channels than the network reads.
    """
    if data is not None and (data.dims, data.channels) != (looker.dims, looker.channels):
        raise InputError(
            f"--data {data.file}: {data.dims}-D images of {data.channels} channels; the networks read {looker.dims}-D "
            f"ones of {looker.channels}"
        )
    listed = [] if data is None else [*data.val, *data.train]
    masks = {case.image.resolve(): case.mask for case in listed}
    if source is None:
        assert data is not None
        if split not in ("train", "val"):
            raise InputError(f"--split {split}: the data set has train and val")
        files = [case.image for case in getattr(data, split)]
    else:
        files = find_images([str(one) for one in ([source] if isinstance(source, (str, Path)) else source)])
    for file in files:
        if is_volume(file) != (looker.dims == 3):
            raise InputError(
                f"--source {file}: a {2 + is_volume(file)}-D image; the networks read {looker.dims}-D ones"
            )
    shown = [files[i * len(files) // most] for i in range(most)] if len(files) > most else files
    return [(file, masks.get(file.resolve())) for file in shown]
