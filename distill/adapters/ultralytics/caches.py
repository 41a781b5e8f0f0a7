"""The label caches that lie beside a data set: pickles, which Ultralytics unpickles before it looks whether they fit.

It writes `labels/train.cache` at the first use of a data set and reads it with NumPy's `allow_pickle` ever after
(8.4.190), so a cache that came with a downloaded data set can carry code like any pickle.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from distill.adapters.ultralytics.environment import TRUST
from distill.adapters.ultralytics.pickles import actions
from distill.errors import InputError
from distill.text import one_line

SPLITS = ("train", "val", "test")
HARMLESS = {  # what NumPy's own pickles of label arrays name
    *(f"numpy.{core}.multiarray.{name}" for core in ("core", "_core") for name in ("_reconstruct", "scalar")),
    *(f"numpy.{core}.numeric._frombuffer" for core in ("core", "_core")),
    *("numpy.ndarray", "numpy.dtype", "_codecs.encode", "collections.OrderedDict"),
    *("pathlib.PosixPath", "pathlib.WindowsPath", "pathlib._local.PosixPath", "pathlib._local.WindowsPath"),
}


def check_caches(data: Mapping[str, Any], where: str) -> None:
    """Raise InputError if a label cache of this data set names anything but arrays; nothing in it is run."""
    for cache in dict.fromkeys(_caches(data)):
        try:
            foreign = sorted(_names(cache) - HARMLESS)
        except Exception as error:  # unpicklers raise nearly anything on damaged data
            raise InputError(f"{where}: the cache {cache} is damaged ({one_line(error)}); delete it") from error
        if foreign:
            named = one_line(", ".join(foreign[:3]))
            raise InputError(f"{where}: the cache {cache} names {named}, which no label needs; delete it, or {TRUST}")


def _names(cache: Path) -> frozenset[str]:
    """The dotted names in the pickle of a .npy file that holds one object; none where it holds plain numbers."""
    with open(cache, "rb") as file:
        version = np.lib.format.read_magic(file)
        read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        dtype = read(file)[2]
        return actions(file.read()).names if dtype.hasobject else frozenset()


def _caches(data: Mapping[str, Any]) -> Iterator[Path]:
    for split in SPLITS:
        entries = data.get(split) or []
        for entry in map(Path, entries if isinstance(entries, list) else [entries]):
            for folder in _folders(entry):
                for place in (folder, _labels(folder)):
                    yield from (c for c in (place.with_suffix(".cache"), Path(f"{place}.cache")) if c.is_file())
                    yield from place.rglob("*.cache")


def _folders(entry: Path) -> set[Path]:
    """The image folders of one entry: itself, or those of the images that a .txt lists."""
    if entry.is_dir():
        return {entry}
    if not entry.is_file():
        return set()
    with open(entry, encoding="utf-8", errors="replace") as lines:
        images = {(entry.parent / line.strip().removeprefix("./")).parent for line in lines if line.strip()}
    return images | {entry.parent}


def _labels(folder: Path) -> Path:
    """Where Ultralytics looks for the labels of a folder's images: the last `images` in the path becomes `labels`."""
    part = f"{os.sep}images{os.sep}"
    return Path(f"{os.sep}labels{os.sep}".join(f"{folder}{os.sep}".rsplit(part, 1)))
