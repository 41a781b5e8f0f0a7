"""4-D NIfTI of a gate's coefficients: the volume's grid and affine, and alpha as it multiplied the skip."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
import torch

from distill.adapters.segment.alphas import NOTE, write_alphas
from distill.attention.maps import AttentionMap

SIZE = (9, 7, 6)
AFFINE = np.array([[-1.5, 0, 0.1, 20], [0, 0.8, 0, -7], [0.1, 0, 3.0, 4], [0, 0, 0, 1]])
EPOCHS = [0, 3, 60, 150]


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    image = nibabel.Nifti1Image(np.full(SIZE, 700, np.int16), AFFINE)
    image.header["cal_max"] = 900
    image.header.set_slope_inter(2, 5)
    image.header.set_xyzt_units("mm", "sec")
    nibabel.save(image, tmp_path / "case.nii.gz")
    return tmp_path / "case.nii.gz"


def maps() -> list[np.ndarray]:
    return [np.random.default_rng(n).random((3, 2, 2), np.float32) for n in range(len(EPOCHS))]


def test_values_are_alpha_enlarged_and_lie_where_the_volume_does(volume: Path):
    file = write_alphas(volume.with_name("alpha.nii.gz"), volume, maps(), EPOCHS, "G2")
    found, like = nibabel.load(file), nibabel.load(volume)
    assert found.shape == (*SIZE, 4)
    np.testing.assert_allclose(found.affine, like.affine)
    assert found.header["sform_code"] == like.header["sform_code"]
    for number, values in enumerate(maps()):
        wanted = AttentionMap(torch.from_numpy(values)[None], "alpha", "gate").resize(SIZE).values[0]
        np.testing.assert_allclose(found.get_fdata()[..., number], wanted, atol=2e-5)
    assert (found.header["cal_min"], found.header["cal_max"]) == (0, 1)  # not the scan's
    np.testing.assert_allclose(found.header.get_zooms(), [*like.header.get_zooms(), 1])
    assert found.header.get_xyzt_units() == ("mm", "unknown")


def test_the_ends_are_exact(volume: Path):
    ends = [np.zeros((3, 2, 2), np.float32), np.ones((3, 2, 2), np.float32)]
    values = nibabel.load(write_alphas(volume.with_name("a.nii.gz"), volume, ends, [0, 1], "G3")).get_fdata()
    assert (values[..., 0] == 0).all() and np.allclose(values[..., 1], 1, atol=1e-7)


def test_a_volume_of_several_channels_has_one_grid(tmp_path: Path):
    nibabel.save(nibabel.Nifti1Image(np.zeros((*SIZE, 2), np.float32), AFFINE), tmp_path / "two.nii.gz")
    found = nibabel.load(write_alphas(tmp_path / "a.nii", tmp_path / "two.nii.gz", maps()[:1], [7], "G2"))
    assert found.shape == (*SIZE, 1)
    np.testing.assert_allclose(found.affine, AFFINE, atol=1e-6)


def test_the_header_lists_the_epochs_as_far_as_it_has_room(volume: Path):
    def note(epochs: list[int]) -> str:
        file = write_alphas(volume.with_name("a.nii"), volume, [maps()[0]] * len(epochs), epochs, "G2")
        return nibabel.load(file).header["descrip"].item().decode()

    assert note(EPOCHS) == "alpha G2, epochs 0,3,60,150"
    long = note(list(range(0, 400, 10)))
    assert long.startswith("alpha G2, epochs 0,10,20,") and long.endswith("0,...") and len(long) <= NOTE
