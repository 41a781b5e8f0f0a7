"""From cases to batches: MONAI's transforms and cache, loaders whose order follows from seed and epoch alone."""

from __future__ import annotations

import math
import os
import sys
from collections.abc import Sequence
from typing import Any

import monai.transforms as mt
import numpy as np
import torch
from monai.data import CacheDataset, list_data_collate
from monai.data.utils import worker_init_fn
from torch.utils.data import DataLoader, Dataset, RandomSampler

from distill.adapters.segment.data import Case, Data
from distill.adapters.segment.files import read_size
from distill.adapters.segment.reading import innermost, read_once
from distill.errors import InputError

MULTIPLE = 16  # pixels or voxels: crops that nobody chose divide by it
LARGEST = {2: 256, 3: 96}  # side of such a crop
LOOKED_AT = 32  # cases whose sizes decide on it
MEMORY = 0.4  # share of the machine's memory for cached cases, of two sets in each of torchrun's processes


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
        *read_once(keys, data.channels, len(data.names)),
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
    return _cached(data.val, read_once(("image", "mask"), data.channels, len(data.names)))


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
            raise InputError(innermost(error)) from error


def _cached(cases: Sequence[Case], steps: Sequence[Any]) -> CacheDataset:
    """As many cases as memory allows are read once."""
    files = [{"image": str(case.image), "mask": str(case.mask), "file": str(case.image)} for case in cases]
    whole = mt.Compose(list(steps))
    try:
        biggest = max(math.prod(size) for size in sizes(cases)) * 4 * 4  # float32, an image of 3 channels and a mask
        sharing = 2 * int(os.environ.get("WORLD_SIZE", 1))
        room = MEMORY * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / sharing
        live = sys.stderr.isatty() and len(cases) > 200
        return _Cases(files, whole, cache_num=int(room / biggest), num_workers=1, progress=live, copy_cache=False)
    except RuntimeError as error:
        raise InputError(innermost(error)) from error
