"""From files to batches: MONAI's transforms, its cache, loaders whose order follows from the seed and the epoch alone.

Every image is normalised to mean 0 and standard deviation 1: scales differ from scan to scan and stain to stain.
"""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import monai.transforms as mt
import numpy as np
import torch
from monai.data import CacheDataset, NibabelReader, PILReader, list_data_collate
from monai.data.utils import worker_init_fn
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, RandomSampler

from distill.adapters.segment.data import Case, Data, is_volume, read_labels, read_size
from distill.errors import InputError
from distill.text import one_line

MULTIPLE = 16  # pixels or voxels: crops that nobody chose divide by it
LARGEST = {2: 256, 3: 96}  # side of such a crop
LOOKED_AT = 32  # cases whose sizes decide on it
DEEP = ("I", "F")  # Pillow's modes of 32 bits
MEMORY = 0.25  # share of the machine's memory that cached cases may take


def read_image(path: Path, channels: int) -> Tensor:
    """One image as a network takes it, (C, *S) float32, normalised.

    Raises InputError for what cannot be read or has other channels.
    """
    try:
        image: Tensor = _reading(("image",), channels)({"image": str(path)})["image"]
    except RuntimeError as error:
        raise InputError(_innermost(error)) from error
    return image


def read_case(case: Case, channels: int, classes: int) -> tuple[Tensor, Tensor]:
    """An image (C, *S) and its mask, class numbers (*S), as training reads them. Raises InputError as `read_image`."""
    steps = mt.Compose(_steps(("image", "mask"), channels, classes))
    try:
        found = steps({"image": str(case.image), "mask": str(case.mask), "file": str(case.image)})
    except RuntimeError as error:
        raise InputError(_innermost(error)) from error
    return found["image"], found["mask"][0].long()


def sizes(cases: Sequence[Case]) -> list[tuple[int, ...]]:
    """The grids of some cases, evenly spread."""
    step = max(1, len(cases) // LOOKED_AT)
    return [read_size(case.mask) for case in cases[::step][:LOOKED_AT]]


def usual_crop(data: Data) -> tuple[int, ...]:
    """The median size of training images, each side rounded down to a multiple of 16: most of an image."""
    median = np.median(np.array(sizes(data.train)), axis=0)
    return tuple(min(LARGEST[data.dims], max(MULTIPLE, int(side) // MULTIPLE * MULTIPLE)) for side in median)


def training_set(data: Data, crop: Sequence[int]) -> CacheDataset:
    """Random crops of the training images, half of them around some foreground, flipped, turned and shaded."""
    keys = ("image", "mask")
    steps = [
        *_steps(keys, data.channels, len(data.names)),
        mt.SpatialPadd(keys, tuple(crop)),
        mt.RandCropByPosNegLabeld(keys, "mask", tuple(crop), pos=1, neg=1, num_samples=1),
        *(mt.RandFlipd(keys, prob=0.5, spatial_axis=axis) for axis in range(data.dims)),
        *_turns(keys, data.dims, crop),
        mt.RandScaleIntensityd(("image",), factors=0.2, prob=0.5),
        mt.RandShiftIntensityd(("image",), offsets=0.2, prob=0.5),
        mt.RandGaussianNoised(("image",), std=0.1, prob=0.15),
        mt.ToTensord(keys, track_meta=False),
    ]
    return _cached(data.train, steps)


def validation_set(data: Data) -> CacheDataset:
    """The validation images, whole."""
    return _cached(data.val, _steps(("image", "mask"), data.channels, len(data.names)))


def training_loader(dataset: CacheDataset, batch: int, workers: int) -> DataLoader:
    """Shuffled batches; a last one that is smaller is dropped, as BatchNorm and shuffled gates need several images."""
    sampler = RandomSampler(dataset, generator=torch.Generator())  # `reseed` sets it, epoch by epoch
    size = min(batch, len(dataset))
    options: dict[str, Any] = {
        "num_workers": workers,
        "worker_init_fn": worker_init_fn,
        "collate_fn": list_data_collate,
    }
    return DataLoader(dataset, size, sampler=sampler, drop_last=True, **options, generator=torch.Generator())


def validation_loader(dataset: Dataset, workers: int) -> DataLoader:
    """One image at a time: they differ in size."""
    return DataLoader(dataset, 1, num_workers=workers)


def reseed(loader: DataLoader, seed: int, epoch: int) -> None:
    """Order and augmentation of an epoch follow from these numbers: a resumed run sees what an unbroken one would."""
    number = (seed * 100_003 + epoch) % 2**31
    for generator in (loader.generator, getattr(loader.sampler, "generator", None)):
        if isinstance(generator, torch.Generator):
            generator.manual_seed(number)
    loader.dataset.transform.set_random_state(seed=number)  # type: ignore[attr-defined]


def usual_workers(cached: bool) -> int:
    """Processes that load: none for what lies in memory on a small machine, where they would only be in the way."""
    cores = os.cpu_count() or 1
    return 0 if cached and cores <= 4 else min(8, cores - 1)


def _reading(keys: Sequence[str], channels: int) -> mt.Compose:
    """Files to (C, *S) tensors; the image normalised."""
    return mt.Compose(
        [
            _Read(channels),
            mt.ToTensord(keys, dtype=torch.float32, track_meta=False),
        ]
    )


def _steps(keys: Sequence[str], channels: int, classes: int) -> list[Any]:
    """What is done once and kept."""
    return [*_reading(keys, channels).transforms, _Checked(classes)]


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


def _turns(keys: Sequence[str], dims: int, crop: Sequence[int]) -> list[Any]:
    """Quarter turns of square pictures, and turns by up to 15 degrees with a change of scale by a tenth."""
    angle = math.radians(15)
    affine = mt.RandAffined(
        keys,
        prob=0.3,
        rotate_range=(angle,) * (1 if dims == 2 else 3),
        scale_range=(0.1,) * dims,
        mode=("bilinear", "nearest"),
        padding_mode="border",
    )
    return [*([mt.RandRotate90d(keys, prob=0.5)] if dims == 2 and crop[0] == crop[1] else []), affine]


class _Cases(CacheDataset):
    """Says of a case that cannot be used why, in one line, also where it is read only when its turn comes."""

    def _transform(self, index: int) -> Any:
        try:
            return super()._transform(index)
        except RuntimeError as error:
            raise InputError(_innermost(error)) from error


def _cached(cases: Sequence[Case], steps: Sequence[Any]) -> CacheDataset:
    """As many cases as memory allows are read once."""
    files = [{"image": str(case.image), "mask": str(case.mask), "file": str(case.image)} for case in cases]
    whole = mt.Compose(list(steps))
    try:
        biggest = max(math.prod(size) for size in sizes(cases)) * 4 * 4  # float32, an image of 3 channels and a mask
        room = MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        live = sys.stderr.isatty() and len(cases) > 200
        return _Cases(files, whole, cache_num=int(room / biggest), num_workers=1, progress=live, copy_cache=False)
    except RuntimeError as error:
        raise InputError(_innermost(error)) from error


def _innermost(error: BaseException) -> str:
    """MONAI wraps what a transform raises; what is ours, or else what was raised first, says what is wrong."""
    while error.__cause__ is not None and not isinstance(error, InputError):
        error = error.__cause__
    return " ".join(str(error).split())
