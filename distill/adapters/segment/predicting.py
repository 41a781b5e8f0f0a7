"""Masks of images that nobody has labelled: PNG for pictures, NIfTI with the input's affine for volumes."""

from __future__ import annotations

import colorsys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from PIL import Image

from distill.adapters.segment import scores
from distill.adapters.segment.files import find_images, is_volume, stem
from distill.adapters.segment.networks import Trained, read_checkpoint
from distill.adapters.segment.plan import device_of
from distill.adapters.segment.reading import read_image
from distill.errors import InputError
from distill.text import one_line


def predict(model: str, source: Any, device: str | None = None) -> Iterator[tuple[Path, np.ndarray, Trained]]:
    """Each image's file with its mask: class numbers, 0 for the background, uint8 on the image's own grid.

    `source` is a file, a folder, a pattern, or a list of these. Raises InputError for what cannot be used.
    """
    trained = read_checkpoint(model, "--model")
    files = find_images(source)
    named: dict[str, Path] = {}
    for file in files:
        if is_volume(file) != (trained.network["dims"] == 3):
            raise InputError(f"--source {file}: the network reads {'pictures' if is_volume(file) else 'volumes'}")
        if (other := named.setdefault(stem(file), file)) != file:
            raise InputError(f"--source: {other} and {file} would give one mask: predict them apart")
    for file in files:  # before hours of work: a broken one at the end would discard it
        _check_head(file)
    where = device_of(device)
    network = trained.module.to(where)
    return _masks(files, network, trained, where)


def _check_head(file: Path) -> None:
    try:
        if is_volume(file):
            nibabel.load(file)
        else:
            Image.open(file).close()
    except Exception as error:  # the readers raise whatever their formats do
        raise InputError(f"{file}: not readable as an image: {one_line(error)}") from error


def write_mask(folder: Path, file: Path, mask: np.ndarray) -> Path:
    """Write an image's mask: a PNG whose palette shows the classes, or a NIfTI with the affine of `file`."""
    if not is_volume(file):
        picture = Image.fromarray(mask, mode="P")
        picture.putpalette(_palette())
        picture.save(path := folder / f"{stem(file)}.png")
        return path
    like: Any = nibabel.load(file)
    header = like.header.copy()
    header.set_data_dtype(np.uint8)
    header.set_slope_inter(1, 0)
    nibabel.save(nibabel.Nifti1Image(mask, like.affine, header), path := folder / f"{stem(file)}.nii.gz")
    return path


def _masks(files: list[Path], network: Any, trained: Trained, device: torch.device) -> Iterator[Any]:
    for file in files:
        image = read_image(file, trained.network["in_channels"]).unsqueeze(0).to(device)
        with torch.no_grad():
            logits = scores.infer(network, image, trained.crop)
        yield file, logits[0].argmax(0).cpu().numpy().astype(np.uint8), trained


def _palette() -> list[int]:
    """Black, then hues far from one another, again and again."""
    hues = [colorsys.hsv_to_rgb((number * 0.381966) % 1, 0.75, 1.0) for number in range(255)]
    return [0, 0, 0, *(round(255 * part) for hue in hues for part in hue)]
