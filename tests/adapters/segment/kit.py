"""Tiny data sets and U-Nets, made on the spot."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
import yaml
from PIL import Image

from distill.adapters.segment.networks import MARK, build

TINY = [2, 3, 4]  # channels of a U-Net of three levels


def square(size: Sequence[int], at: Sequence[int], side: int, value: int = 1) -> np.ndarray:
    """A mask with one square or cube of this class."""
    mask = np.zeros(size, np.uint8)
    mask[tuple(slice(start, start + side) for start in at)] = value
    return mask


def picture(file: Path, values: np.ndarray, mode: str | None = None) -> Path:
    """A picture file of an array (H, W) or (H, W, 3), in a mode such as "P" (a palette) if one is given."""
    file.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(values)
    if mode == "P":
        image = Image.fromarray(values, "P")
        image.putpalette([200, 10, 10, 10, 200, 10, 10, 10, 200] * 4)
    image.save(file)
    return file


def volume(file: Path, values: np.ndarray, spacing: Sequence[float] = (1, 1, 1)) -> Path:
    """A NIfTI file of an array (D, H, W) or (D, H, W, C)."""
    file.parent.mkdir(parents=True, exist_ok=True)
    nibabel.save(nibabel.Nifti1Image(values, np.diag([*spacing, 1.0])), file)
    return file


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def pictures(
    root: Path, train: int = 3, val: int = 2, size: tuple[int, int] = (24, 32), masks: str = "masks", **entries: Any
) -> Path:
    """data.yaml with images/{train,val} and masks beside them: noise, and a bright square where the mask is 1."""
    for split, count in (("train", train), ("val", val)):
        (root / "images" / split).mkdir(parents=True, exist_ok=True)
        (root / masks / split).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            mask = square(size, (4 + i, 6), 9)
            image = noise(*size, 3, seed=i) // 2 + 120 * mask[..., None]
            picture(root / "images" / split / f"{split}{i}.png", image)
            picture(root / masks / split / f"{split}{i}.png", mask)
    named = {"train": "images/train", "val": "images/val", "names": {0: "background", 1: "cell"}, **entries}
    file = root / "data.yaml"
    file.write_text(yaml.safe_dump({key: value for key, value in named.items() if value is not None}))
    return file


def volumes(root: Path, count: int = 5, size: tuple[int, int, int] = (12, 10, 8), **entries: Any) -> Path:
    """dataset.json of the Decathlon: noise, and bright cubes of classes 1 and 2."""
    training = []
    for i in range(count):
        mask = square(size, (1, 1, 1), 4) + square(size, (6, 5, 3), 4, 2)
        volume(root / "imagesTr" / f"v{i}.nii.gz", (noise(*size, seed=i) // 4 + 60 * mask).astype(np.float32))
        volume(root / "labelsTr" / f"v{i}.nii.gz", mask)
        training.append({"image": f"./imagesTr/v{i}.nii.gz", "label": f"./labelsTr/v{i}.nii.gz"})
    labels = {"0": "background", "1": "front", "2": "back"}
    file = root / "dataset.json"
    file.write_text(json.dumps({"labels": labels, "training": training, **entries}))
    return file


def checkpoint(file: Path, seed: int = 0, names: Sequence[str] = ("background", "cell"), **network: Any) -> Path:
    """A checkpoint of an untrained U-Net, as training leaves one."""
    settings = {"in_channels": 3, "classes": len(names), "dims": 2, "channels": TINY, "gated": False, **network}
    about = {"network": settings, "names": list(names), "crop": [16] * settings["dims"], "epoch": 3}
    torch.save({"state_dict": build(settings, seed).state_dict(), MARK: about}, file)
    return file
