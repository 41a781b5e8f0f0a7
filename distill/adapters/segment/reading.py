"""From a file to a tensor: MONAI's readers, normalised images, masks that fit.

Every image is brought to mean 0 and standard deviation 1, a volume channel by channel: scales differ from scan to scan
and stain to stain.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.transforms as mt
import numpy as np
import torch
from monai.data import NibabelReader, PILReader
from PIL import Image
from torch import Tensor

from distill.adapters.segment.data import Case
from distill.adapters.segment.files import is_volume, read_labels
from distill.errors import InputError
from distill.text import one_line

DEEP = ("I", "F")  # Pillow's modes of 32 bits


def read_image(path: Path, channels: int) -> Tensor:
    """One image as a network takes it, (C, *S) float32, normalised.

    Raises InputError for what cannot be read or has other channels.
    """
    try:
        image: Tensor = _reading(("image",), channels)({"image": str(path)})["image"]
    except RuntimeError as error:
        raise InputError(innermost(error)) from error
    return image


def read_case(case: Case, channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """An image (C, *S) and its mask, class numbers (*S), as training reads them. Raises InputError as `read_image`."""
    steps = mt.Compose(read_once(("image", "mask"), channels, classes))
    try:
        found = steps({"image": str(case.image), "mask": str(case.mask), "file": str(case.image)})
    except RuntimeError as error:
        raise InputError(innermost(error)) from error
    return found["image"], found["mask"][0].long()


def read_once(keys: Sequence[str], channels: int, classes: int) -> list[Any]:
    """What is done once and kept."""
    return [*_reading(keys, channels).transforms, _Checked(classes)]


def _reading(keys: Sequence[str], channels: int) -> mt.Compose:
    """Files to (C, *S) tensors; the image normalised."""
    return mt.Compose(
        [
            _Read(channels),
            mt.ToTensord(keys, dtype=torch.float32, track_meta=False),
        ]
    )


class _Read(mt.Transform):
    """An image, normalised, and its mask where it has one, as channel-first arrays: (C, *S) and (1, *S).

    The readers are asked themselves: `LoadImage` tries every other one where the right one fails.
    """

    def __init__(self, channels: int) -> None:
        self._pictures = PILReader(converter=_coloured, reverse_indexing=False)
        self._volumes = NibabelReader()
        self._channels = channels
        self._whole, self._each = mt.NormalizeIntensity(), mt.NormalizeIntensity(channel_wise=True)

    def __call__(self, files: Mapping[str, str]) -> dict[str, Any]:
        path = Path(files["image"])
        image = self._image(path)
        if image.shape[0] != self._channels:
            raise InputError(f"{path}: it has {image.shape[0]} channels, {self._channels} are needed")
        if not torch.isfinite(image).all():  # one such value, and all of the normalised image is none
            raise InputError(f"{path}: it holds values that are not finite")
        normal = self._each if is_volume(path) else self._whole  # a volume's channels are scans of their own
        read: dict[str, Any] = {**files, "image": normal(image)}
        if "mask" in files:
            read["mask"] = torch.from_numpy(read_labels(Path(files["mask"]))).unsqueeze(0)
        return read

    def _image(self, path: Path) -> Tensor:
        reader = self._volumes if is_volume(path) else self._pictures
        try:
            values = torch.from_numpy(np.array(reader.get_data(reader.read(str(path)))[0], np.float32, order="C"))
        except Exception as error:  # the readers raise whatever their formats do
            raise InputError(f"{path}: not readable as an image: {one_line(error)}") from error
        if is_volume(path):
            return values.movedim(-1, 0) if values.ndim > 3 else values.unsqueeze(0)
        return values.movedim(-1, 0) if values.ndim > 2 else values.expand(3, -1, -1)


def _coloured(image: Image.Image) -> Image.Image:
    """Red, green and blue; what is grey with more than 8 bits stays, for RGB would cut it off at 255."""
    return image if image.mode in DEEP or image.mode.startswith("I;16") else image.convert("RGB")


class _Checked(mt.Transform):
    """Masks that fit their image and the classes; black and white ones (0 and 255) of one class become 0 and 1."""

    def __init__(self, classes: int) -> None:
        self._classes = classes

    def __call__(self, case: Mapping[str, Any]) -> dict[str, Any]:
        image, mask = case["image"], case["mask"]
        if mask.shape[1:] != image.shape[1:]:
            shapes = tuple(mask.shape[1:]), tuple(image.shape[1:])
            raise InputError(f"{case['file']}: its mask is {shapes[0]}, the image {shapes[1]}")
        low, high = (value.item() for value in mask.aminmax())
        if self._classes == 2 and high == 255 and bool(((mask == 0) | (mask == 255)).all()):
            mask = mask / 255
        elif high >= self._classes or low < 0:
            wrong = low if low < 0 else high
            raise InputError(
                f"{case['file']}: its mask holds {wrong:g}, there are {self._classes} classes (from 0): mend the mask, "
                f"or name every class in the data.yaml"
            )
        return {**case, "mask": mask}


def innermost(error: BaseException) -> str:
    """MONAI wraps what a transform raises; what is ours, or else what was raised first, says what is wrong."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return " ".join(str(error).split())
