"""What a training run with `--heatmaps` kept, epoch by epoch."""

from __future__ import annotations

import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from distill.errors import InputError
from distill.records import HEATMAPS
from distill.text import one_line

Arrays = dict[str, np.ndarray]
DICE = "_dice"  # (images, classes): NaN for a class that is rightly not found


def moments(run: Path) -> Iterator[tuple[int, Arrays]]:
    """Each epoch with the arrays that were kept, read one after the other.

    An epoch whose maps are not finite, as those of a student that diverged, is left out and named on standard error.
    Raises InputError where there are none, or a file is damaged.
    """
    if not (files := _files(run)):
        raise InputError(f"{run}: it holds no {HEATMAPS}/epoch*.npz; train with --heatmaps 10, or 1,3,10")
    some = False
    for file in files:
        epoch, arrays = _read(file)
        maps = [values for name, values in arrays.items() if values.dtype.kind == "f" and not name.endswith(DICE)]
        if all(np.isfinite(values).all() for values in maps):
            some = True
            yield epoch, arrays
        else:
            print(f"distill: epoch {epoch} is left out of the timeline: its maps are not finite", file=sys.stderr)
    if not some:
        raise InputError(f"{run}: none of its {HEATMAPS} are finite: the student diverged from the start")


def count(run: Path) -> int:
    """How many epochs were kept."""
    return len(_files(run))


def _files(run: Path) -> list[Path]:
    return sorted((run / HEATMAPS).glob("epoch*.npz"))


def _read(file: Path) -> tuple[int, Arrays]:
    try:
        with np.load(file) as arrays:  # without pickles
            return int(file.stem.removeprefix("epoch")), dict(arrays)
    except (OSError, ValueError, zipfile.BadZipFile) as error:
        raise InputError(f"{file}: not readable as maps ({one_line(error)}): delete it") from error
