"""Generated volumes: the same for the same arguments, every kind in each, scales that differ, a Decathlon's files."""

import json

import numpy as np
import pytest

from distill.errors import InputError
from distill.scenes import KINDS, make_volume, write_volumes


@pytest.fixture(scope="module")
def sample():
    return [make_volume(index) for index in range(12)]


def test_a_volume_depends_on_its_arguments_only(sample):
    assert np.array_equal(make_volume(3).image, sample[3].image)
    for other in (make_volume(4), make_volume(3, "val"), make_volume(3, seed=1)):
        assert not np.array_equal(other.labels, sample[3].labels)


def test_background_and_every_kind_are_labelled_and_most_is_background(sample):
    for volume in sample:
        counts = np.bincount(volume.labels.ravel(), minlength=len(KINDS) + 1)
        assert volume.labels.dtype == np.uint8 and len(counts) == len(KINDS) + 1
        assert 0.75 < counts[0] / counts.sum() < 0.99
    assert (
        sum((volume.labels == kind + 1).any() for volume in sample for kind in range(len(KINDS))) >= 22
    )  # one may hide


def test_brightness_does_not_tell_the_class_and_scales_differ(sample):
    signs, scales = {kind: set() for kind in range(len(KINDS))}, []
    for volume in sample:
        scales.append(volume.image.max())
        for kind in signs:
            inside = volume.image[volume.labels == kind + 1]
            if inside.size:
                signs[kind].add(bool(inside.mean() > volume.image[volume.labels == 0].mean()))
    assert all(found == {True, False} for found in signs.values())
    assert max(scales) / min(scales) > 20
    assert all(np.isfinite(volume.image).all() and volume.image.min() >= 0 for volume in sample)


@pytest.mark.parametrize("wrong", [{"split": "test"}, {"index": -1}, {"seed": -1}, {"size": (8, 32, 32)}])
def test_wrong_arguments(wrong):
    with pytest.raises(InputError, match="volumes "):
        make_volume(**{"index": 0, **wrong})


def test_the_folder_is_a_decathlon(tmp_path):
    nibabel = pytest.importorskip("nibabel")
    file = write_volumes(tmp_path / "set", train=2, val=1)
    entries = json.loads(file.read_text())
    assert entries["labels"] == {"0": "background", "1": "ellipsoid", "2": "ring"}
    assert [len(entries[split]) for split in ("training", "validation")] == [2, 1]
    pair = entries["training"][1]
    expected = make_volume(1)
    assert np.array_equal(nibabel.load(file.parent / pair["image"]).get_fdata(dtype=np.float32), expected.image)
    assert np.array_equal(np.asanyarray(nibabel.load(file.parent / pair["label"]).dataobj), expected.labels)
    with pytest.raises(InputError, match="exists already"):
        write_volumes(file.parent)
