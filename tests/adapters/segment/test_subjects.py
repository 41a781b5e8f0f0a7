"""What is shown of a volume: the right planes, the right way up, at the right cells."""

from __future__ import annotations

import nibabel
import numpy as np
import pytest
from PIL import Image

from distill.adapters.segment.reading import read_image
from distill.adapters.segment.subjects import cut_out, planes, read_subject, window
from distill.attention.geometry import Lattice, resample

SIZE = (10, 12, 14)


def volume(folder, values, name="a", affine=None):
    path = folder / f"{name}.nii.gz"
    nibabel.save(nibabel.Nifti1Image(values, np.eye(4) if affine is None else affine), path)
    return path


@pytest.fixture
def subject(tmp_path):
    """x, y, z to the right, the front, the top; the foreground is one block."""
    values = np.random.default_rng(0).random(SIZE).astype(np.float32)
    labels = np.zeros(SIZE, np.uint8)
    labels[2:5, 7:8, 3:9] = 2
    return read_subject(volume(tmp_path, values), volume(tmp_path, labels, "mask"), 1, 3)


def test_what_a_subject_is(subject, tmp_path):
    assert subject.name == "a" and subject.size == SIZE and subject.directions == ("R", "A", "S")
    assert (subject.images == read_image(tmp_path / "a.nii.gz", 1)).all()
    assert subject.pixels.dtype == np.uint8 and subject.pixels.min() == 0 and subject.pixels.max() == 255
    assert set(np.unique(subject.truth)) == {0, 2}


def test_planes_go_through_most_of_the_foreground(subject):
    found = {plane.name: plane for plane in planes(subject)}
    assert list(found) == ["axial", "coronal", "sagittal"]
    assert (found["coronal"].axis, found["coronal"].index) == (1, 7)
    assert found["sagittal"].axis == 0 and found["sagittal"].index in (2, 3, 4)
    assert [plane.picture.shape for plane in found.values()] == [(12, 10, 3), (14, 10, 3), (14, 12, 3)]
    assert (found["coronal"].mask(subject.truth) > 0).sum() == 18
    assert "plane 8 of 12 along y" in found["coronal"].label


def test_without_truth_the_prediction_decides_and_without_both_the_middle(subject, tmp_path):
    bare = read_subject(tmp_path / "a.nii.gz")
    assert bare.truth is None
    assert [plane.index for plane in planes(bare)] == [7, 6, 5]
    found = np.zeros(SIZE, int)
    found[1, 2, 3] = 1
    assert [plane.index for plane in planes(bare, found)] == [3, 2, 1]
    assert [plane.index for plane in planes(bare, found * 0)] == [7, 6, 5]


@pytest.mark.parametrize("directions", [(1, 1, 1), (-1, 1, -1), (-1, -1, 1)])
def test_front_and_top_are_up_and_the_right_is_left(tmp_path, directions):
    """One bright voxel at the patient's right, front and top, wherever the axes lead."""
    values = np.zeros(SIZE, np.float32)
    values[tuple(0 if direction < 0 else -1 for direction in directions)] = 1
    path = volume(tmp_path, values, affine=np.diag([*directions, 1.0]))
    subject = read_subject(path)
    place = np.array(subject.images[0] > 0).astype(int)
    for plane in planes(subject, place):
        assert plane.mask(place)[0, 0] == 1 and plane.mask(place).sum() == 1, plane.name


def test_axes_in_another_order(tmp_path):
    """Stored as z, x, y: the planes are the same."""
    values = np.random.default_rng(0).random(SIZE).astype(np.float32)
    usual = planes(read_subject(volume(tmp_path, values)))
    affine = np.zeros((4, 4))
    affine[[0, 1, 2, 3], [1, 2, 0, 3]] = 1
    turned = planes(read_subject(volume(tmp_path, values.transpose(2, 0, 1), "turned", affine)))
    for a, b in zip(usual, turned, strict=True):
        assert a.name == b.name and (a.picture == b.picture).all()


def test_voxels_that_are_no_cubes_give_pictures_in_proportion(tmp_path):
    values = np.random.default_rng(0).random((10, 12, 4)).astype(np.float32)
    axial, coronal, _ = planes(read_subject(volume(tmp_path, values, affine=np.diag([1.0, 1.0, 3.0, 1.0]))))
    assert axial.picture.shape == (12, 10, 3) and coronal.picture.shape == (12, 10, 3)
    assert (coronal.picture[0] == coronal.picture[2]).all() and (coronal.picture[2] != coronal.picture[3]).any()


def test_a_map_lies_where_its_cells_are(subject):
    """A map of cells of 2x3x4 voxels that repeats the truth, drawn on each plane, is the truth's picture."""
    stride = (2.0, 3.0, 4.0)
    lattice = Lattice(tuple(s / 2 for s in stride), stride)
    for axis, plane in zip((2, 1, 0), planes(subject), strict=True):
        grid = [np.arange(int(-(-n // s))) for n, s in zip(SIZE, stride, strict=True)]
        centres = [np.minimum((g * s + s / 2).astype(int), n - 1) for g, s, n in zip(grid, stride, SIZE, strict=True)]
        ramp = sum(np.meshgrid(*[c * 10.0**k for k, c in enumerate(centres)], indexing="ij"))
        cut = plane.cut(ramp, lattice)
        cell = int(plane.index // stride[axis])
        assert cut.shape == tuple(len(grid[one]) for one in plane.across)
        assert (cut == np.take(ramp, cell, axis).transpose(np.argsort(np.argsort(plane.across)))).all()
        values = np.meshgrid(*[np.arange(len(g)) * s + s / 2 for g, s in zip(grid, stride, strict=True)], indexing="ij")
        for way, one in enumerate(plane.across):  # coordinates themselves, drawn: a ramp along the picture's axis
            drawn = resample(plane.cut(values[one], lattice), plane.lattice(lattice), plane.frame, plane.frame.picture)
            line = drawn[:, 0] if way == 0 else drawn[0]
            true = np.arange(SIZE[one]) + 0.5
            true = true[::-1] if plane.frame.scale[way] < 0 else true
            assert line[3:-3] == pytest.approx(true[3:-3], abs=1e-4)


def test_pictures_are_as_they_are(tmp_path):
    pixels = np.random.default_rng(0).integers(0, 255, (9, 7, 3), np.uint8)
    Image.fromarray(pixels).save(tmp_path / "p.png")
    Image.fromarray(np.uint8([[0, 255]] * 9).repeat(4, 1)[:, :7]).save(tmp_path / "m.png")
    subject = read_subject(tmp_path / "p.png", tmp_path / "m.png", 3, 2)
    (plane,) = planes(subject)
    assert (plane.picture == pixels).all() and plane.name == "" and subject.directions == ()
    assert set(np.unique(subject.truth)) == {0, 1}  # black and white masks
    values = np.arange(12.0).reshape(3, 4)
    assert plane.cut(values, Lattice((1, 1), (2, 2))) is values and plane.mask(subject.truth) is subject.truth


def test_the_window_is_around_the_foreground(subject):
    parts = window(subject, (4, 4, 20))
    assert parts == (slice(2, 6), slice(6, 10), slice(0, 14))
    part = cut_out(subject, parts)
    assert part.size == (4, 4, 14) == part.pixels.shape == part.truth.shape
    assert (part.truth > 0).sum() == (subject.truth > 0).sum()


def test_a_mask_that_does_not_fit(subject, tmp_path, refused):
    other = volume(tmp_path, np.zeros((3, 3, 3), np.uint8), "small")
    refused(lambda: read_subject(tmp_path / "a.nii.gz", other, 1, 3), "a.nii.gz", "mask")
    refused(lambda: read_subject(tmp_path / "a.nii.gz", None, 2), "1 channels, 2 are needed")
