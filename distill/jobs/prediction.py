"""Masks for a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from os import PathLike, fspath
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.loading import is_unet, segment_adapter
from distill.progress import progress
from distill.records import next_folder, whole_folder
from distill.text import aligned

DEFAULT = Path("runs/distill"), "predict"


def predict(
    model: str | PathLike[str], source: str | Sequence[str], out: str | Path | None = None, device: str | None = None
) -> tuple[Path, dict[str, float]]:
    """Write a mask for every image of `source`; returns the folder, and each class's mean share of an image.

    `model` is a U-Net's .ckpt; `source` a file, a folder, a pattern or a list of these. Masks are PNG with class
    numbers (a palette shows them), or NIfTI with the input's affine. The folder, `runs/distill/predict` and numbered
    unless `out` names one, appears whole or not at all. Raises InputError for what cannot be used.
    """
    model = fspath(model)
    if not is_unet(model):
        raise InputError(
            f"--model {model}: masks come from a U-Net's .ckpt; for a detector: yolo predict model={model}"
        )
    adapter = segment_adapter()
    masks = adapter.predict(model, source, device)
    folder = Path(out) if out else next_folder(*DEFAULT)
    shares: list[np.ndarray] = []
    names: Sequence[str] = ()
    with whole_folder(folder) as staging:
        for file, mask, trained in progress(masks, "images", len(adapter.find_images(source))):
            adapter.write_mask(staging, file, mask)
            names = trained.names
            shares.append(np.bincount(mask.ravel(), minlength=len(names)) / mask.size)
    return folder, dict(zip(names, np.mean(shares, axis=0).tolist(), strict=True))


def shares_table(shares: dict[str, float]) -> str:
    """Each class with its share of the images, for the terminal."""
    return aligned([("class", "share of the images"), *((name, f"{share:.2%}") for name, share in shares.items())])
