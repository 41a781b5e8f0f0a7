"""A gate's coefficients over the epochs of a training, as 4-D NIfTI: what any viewer of volumes plays like a film."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import torch

from distill.attention.maps import AttentionMap

FINEST = 32767  # alpha is stored in whole numbers of 1/32767: half the size of float32, finer than any eye
NOTE = 79  # bytes that the header has for a note


def write_alphas(path: Path, like: Path, maps: Sequence[np.ndarray], epochs: Sequence[int], gate: str) -> Path:
    """Write the maps (d, h, w) of one gate and volume, one per epoch, on the grid and with the affine of `like`.

    They are enlarged linearly, by `AttentionMap.resize`; the fourth axis is the epoch. The header's note lists as many
    epochs as it has room for, and its time unit is left unknown: epochs are counted, not measured.
    """
    volume = nibabel.load(like)
    size = volume.shape[:3]
    enlarged = np.empty((*size, len(maps)), np.int16)
    for number, values in enumerate(maps):
        whole = AttentionMap(torch.from_numpy(values.astype(np.float32))[None], gate, "gate").resize(size)
        enlarged[..., number] = np.rint(whole.values[0].numpy().clip(0, 1) * FINEST)
    image = nibabel.Nifti1Image(enlarged, volume.affine, volume.header)
    header = image.header
    header.set_data_dtype(np.int16)
    header.set_slope_inter(1 / FINEST, 0)
    header.set_zooms((*volume.header.get_zooms()[:3], 1.0))
    header.set_xyzt_units(xyz=volume.header.get_xyzt_units()[0])
    header["descrip"] = _note(gate, epochs).encode()
    header["cal_min"], header["cal_max"] = 0, 1  # what viewers show as black and white
    nibabel.save(image, path)
    return path


def _note(gate: str, epochs: Sequence[int]) -> str:
    note = f"alpha {gate}, epochs {','.join(map(str, epochs))}"
    return note if len(note) <= NOTE else f"{note[: NOTE - 4].rpartition(',')[0]},..."
