"""Files of images and masks: which they are, by their names, and what masks hold."""

from __future__ import annotations

from collections.abc import Sequence
from glob import glob
from pathlib import Path

import nibabel
import numpy as np
from PIL import Image

from distill.errors import InputError
from distill.text import one_line

PICTURES = (".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff")
VOLUMES = (".nii", ".nii.gz")


def stem(path: Path) -> str:
    """The name without `.png` or `.nii.gz`."""
    return path.name[: -len(suffix)] if (suffix := suffix_of(path)) else path.stem


def find_images(source: str | Sequence[str]) -> list[Path]:
    """The images and volumes of a file, a folder or a pattern, or of several of these. Raises InputError for none."""
    files: list[Path] = []
    for text in [source] if isinstance(source, str) else source:
        path = Path(text).expanduser()
        matched = sorted(map(Path, glob(str(path), recursive=True)))
        here = sorted(path.iterdir()) if path.is_dir() else [path] if path.is_file() else matched
        found = [file for file in here if suffix_of(file)]
        if not found:
            raise InputError(f"--source {text}: no images or volumes there ({', '.join((*PICTURES, *VOLUMES))})")
        files += found
    return files


def is_volume(path: Path) -> bool:
    """Is it NIfTI, by its name?"""
    return suffix_of(path) in VOLUMES


def read_labels(path: Path) -> np.ndarray:
    """A mask as it is stored, whole numbers (H, W) or (D, H, W); palettes give their indices.

    Raises InputError for what cannot be read or has channels.
    """
    try:
        if is_volume(path):
            values = np.asanyarray(nibabel.load(path).dataobj).round().astype(np.int64)
        else:
            with Image.open(path) as image:
                values = np.array(image).astype(np.int64)
    except Exception as error:  # the readers raise whatever their formats do
        raise InputError(f"{path}: not readable as a mask: {one_line(error)}") from error
    if values.ndim != (3 if is_volume(path) else 2):
        raise InputError(f"{path}: a mask holds class numbers, one for each position, but this is {values.shape}")
    return values


def read_size(path: Path) -> tuple[int, ...]:
    """The grid of a mask, (H, W) or (D, H, W), by the head of its file. Raises InputError as `read_labels` does."""
    try:
        if is_volume(path):
            size = tuple(map(int, nibabel.load(path).shape))
        else:
            with Image.open(path) as image:
                size = image.height, image.width
    except Exception as error:  # as in `read_labels`
        raise InputError(f"{path}: not readable as a mask: {one_line(error)}") from error
    if len(size) != (3 if is_volume(path) else 2):
        raise InputError(f"{path}: a mask holds class numbers, one for each position, but this is {size}")
    return size


def suffix_of(path: Path) -> str:
    """The suffix by which a file is known as an image or volume, in lower case; nothing for any other."""
    name = path.name.lower()
    if name.startswith("."):  # what some systems leave beside every file
        return ""
    return next((suffix for suffix in (*VOLUMES[::-1], *PICTURES) if name.endswith(suffix)), "")
