"""From files to batches: what is read is what is there, image and mask stay together, and epochs can be repeated."""

import math

import numpy as np
import pytest
import torch
from PIL import Image

from distill.adapters.segment import pipeline
from distill.adapters.segment.data import Case, read_data
from distill.adapters.segment.pipeline import (
    reseed,
    training_loader,
    training_set,
    usual_crop,
    validation_loader,
    validation_set,
)
from distill.adapters.segment.reading import read_case, read_image
from distill.errors import InputError

from .kit import noise, picture, pictures, square, volume, volumes


def epoch(loader, seed, number):
    reseed(loader, seed, number)
    return [batch["image"] for batch in loader]


def same(one, two):
    return len(one) == len(two) and all(map(torch.equal, one, two))


# ---- reading


def test_a_picture_is_normalised_and_height_and_width_are_not_swapped(tmp_path):
    values = noise(20, 31, 3)
    values[2, 29] = 255, 0, 128
    image = read_image(picture(tmp_path / "x.png", values), 3)
    assert image.shape == (3, 20, 31) and image.dtype == torch.float32
    assert image.mean().item() == pytest.approx(0, abs=1e-5) and image.std(correction=0).item() == pytest.approx(1)
    expected = torch.from_numpy(values).float().movedim(-1, 0)
    expected = (expected - expected.mean()) / expected.std(correction=0)
    assert torch.allclose(image, expected, atol=1e-4)
    assert image[0, 2, 29] > image[2, 2, 29] > image[1, 2, 29]  # red, blue, green


def test_a_volume_is_normalised_and_its_axes_stay(tmp_path):
    values = np.random.default_rng(0).normal(300, 40, (9, 10, 11)).astype(np.float32)
    values[1, 2, 3] = 5000
    image = read_image(volume(tmp_path / "x.nii.gz", values, (1, 2, 3)), 1)
    assert image.shape == (1, 9, 10, 11) and type(image) is torch.Tensor
    assert image.mean().item() == pytest.approx(0, abs=1e-5) and image.std(correction=0).item() == pytest.approx(1)
    assert image.flatten().argmax() == np.ravel_multi_index((1, 2, 3), (9, 10, 11))


def test_a_volume_of_four_channels(tmp_path):
    values = noise(8, 9, 10, 4).astype(np.float32)
    image = read_image(volume(tmp_path / "x.nii.gz", values), 4)
    assert image.shape == (4, 8, 9, 10)
    expected = torch.from_numpy(values).movedim(-1, 0)
    assert torch.corrcoef(torch.stack([image[2].flatten(), expected[2].flatten()]))[0, 1] > 0.999


@pytest.mark.parametrize("suffix", ["png", "bmp", "tif", "jpg"])
def test_a_grey_picture_has_three_equal_channels(tmp_path, suffix):
    image = read_image(picture(tmp_path / f"x.{suffix}", noise(8, 12)), 3)
    assert image.shape == (3, 8, 12) and torch.equal(image[0], image[1]) and torch.equal(image[1], image[2])


def test_a_palette_and_transparency_are_colours(tmp_path):
    mask = square((8, 12), (2, 3), 4)
    image = read_image(picture(tmp_path / "p.png", mask, "P"), 3)  # 0 is reddish, 1 greenish
    assert image[0, 0, 0] > image[1, 0, 0] and image[1, 3, 4] > image[0, 3, 4]
    assert read_image(picture(tmp_path / "a.png", noise(8, 12, 4)), 3).shape == (3, 8, 12)


@pytest.mark.parametrize(("name", "kind"), [("x.png", np.uint16), ("x.tif", np.uint16), ("f.tif", np.float32)])
def test_more_than_eight_bits_are_not_cut_off(tmp_path, name, kind):
    """Converted to RGB, what exceeds 255 would all be white."""
    values = (np.arange(20 * 30).reshape(20, 30) * 100).astype(kind)
    image = read_image(picture(tmp_path / name, values), 3)
    assert image.shape == (3, 20, 30) and len(image[0].unique()) == 600
    expected = torch.from_numpy(values.astype(np.float32))
    assert torch.allclose(image[1], (expected - expected.mean()) / expected.std(correction=0), atol=1e-4)


@pytest.mark.parametrize("size", [(8, 12), (6, 7, 8)])
def test_a_constant_image_is_zero(tmp_path, size):
    values = np.full(size, 7, np.uint8)
    file = picture(tmp_path / "x.png", values) if len(size) == 2 else volume(tmp_path / "x.nii", values)
    image = read_image(file, 3 if len(size) == 2 else 1)
    assert not image.any()


def test_what_cannot_be_read_is_named(tmp_path, refused):
    for name in ("x.png", "x.nii.gz", "x.nii"):
        (tmp_path / name).write_bytes(b"nothing of the kind")
        refused(lambda name=name: read_image(tmp_path / name, 1), name, "not readable as an image")
    refused(lambda: read_image(tmp_path / "y.png", 3), "y.png", "not readable")
    file = volume(tmp_path / "z.nii", noise(8, 8, 8, 2).astype(np.float32))
    refused(lambda: read_image(file, 1), "z.nii", "it has 2 channels, 1 are needed")


# ---- masks


def case(tmp_path, mask, size=(16, 20), name="x"):
    return Case(picture(tmp_path / f"{name}.png", noise(*size, 3)), picture(tmp_path / "masks" / f"{name}.png", mask))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_values_that_are_not_finite_are_an_error(tmp_path, refused, value):
    """One of them makes the whole normalised image NaN, of which a network makes a mask of nothing."""
    values = np.ones((4, 5, 6), np.float32)
    values[1, 2, 3] = value
    file = volume(tmp_path / "v.nii.gz", values)
    refused(lambda: read_image(file, 1), "v.nii.gz", "not finite")


def test_sizes_are_read_without_the_labels(tmp_path, monkeypatch):
    data = read_data(str(pictures(tmp_path, size=(40, 70))))
    monkeypatch.setattr(Image.Image, "load", lambda _: pytest.fail("the pixels were read"))
    assert usual_crop(data) == (32, 64)


@pytest.mark.parametrize("workers", [0, 1])
def test_a_wrong_mask_is_named_where_nothing_is_kept_in_memory(tmp_path, monkeypatch, workers):
    file = pictures(tmp_path)
    picture(tmp_path / "masks" / "train" / "train1.png", np.full((24, 32), 7, np.uint8))
    monkeypatch.setattr(pipeline, "MEMORY", 0)
    loader = training_loader(training_set(read_data(str(file)), (16, 16)), 3, workers)
    with pytest.raises(InputError, match=r"train1.png: its mask holds 7, there are 2 classes"):
        next(iter(loader))


def test_a_mask_below_zero_says_so(tmp_path, refused):
    image = volume(tmp_path / "v.nii.gz", np.ones((4, 4, 4), np.float32))
    mask = volume(tmp_path / "m.nii.gz", np.array([[[-1, 1], [0, 0]]] * 4, np.int16).repeat(2, 1).repeat(2, 2))
    refused(lambda: read_case(Case(image, mask), 1, 2), "v.nii.gz", "holds -1")


def test_a_mask_is_class_numbers(tmp_path):
    mask = square((16, 20), (2, 3), 5, 2) + square((16, 20), (9, 10), 4)
    image, labels = read_case(case(tmp_path, mask), 3, 3)
    assert image.shape == (3, 16, 20) and np.array_equal(labels.numpy(), mask)


def test_black_and_white_masks_of_one_class(tmp_path):
    mask = square((16, 20), (2, 3), 5, 255)
    for name, values in (("some", mask), ("none", mask * 0), ("all", np.full_like(mask, 255))):
        _, labels = read_case(case(tmp_path, values, name=name), 3, 2)
        assert np.array_equal(labels.numpy(), values // 255), name


@pytest.mark.parametrize("values", [(0, 3), (0, 255), (255,), (0, 1, 255)])
def test_a_mask_of_more_classes_than_there_are(tmp_path, refused, values):
    """Of three classes 255 is none, also where a mask holds nothing else."""
    mask = np.full((16, 20), values[0], np.uint8)
    for i, value in enumerate(values):
        mask[i] = value
    refused(lambda: read_case(case(tmp_path, mask), 3, 3), "x.png", f"holds {values[-1]}", "3 classes")


def test_a_mask_of_another_size(tmp_path, refused):
    refused(lambda: read_case(case(tmp_path, square((20, 16), (1, 1), 3)), 3, 2), "x.png", "(20, 16)", "(16, 20)")


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_wrong_mask_is_an_error_before_training(tmp_path, refused, split):
    file = pictures(tmp_path)
    picture(tmp_path / "masks" / split / f"{split}0.png", square((24, 32), (1, 1), 3, 7))
    data = read_data(str(file))
    refused(
        lambda: training_set(data, (16, 16)) if split == "train" else validation_set(data),
        f"{split}0.png",
        "holds 7",
    )


def test_channels_that_differ_from_the_first_case_are_an_error_before_training(tmp_path, refused):
    file = volumes(tmp_path)
    volume(tmp_path / "imagesTr" / "v3.nii.gz", noise(12, 10, 8, 2).astype(np.float32))
    data = read_data(str(file))
    refused(lambda: training_set(data, (8, 8, 8)), "v3.nii.gz", "2 channels")


# ---- augmentation


@pytest.mark.parametrize("dims", [2, 3])
def test_image_and_mask_move_together(tmp_path, dims):
    """The mask is put into the image: where the mask is, the image must be bright, however both were turned."""
    size = (24, 32) if dims == 2 else (14, 12, 10)
    mask = square(size, (3, 5, 2)[:dims], 6)
    for i in range(2):
        if dims == 2:
            picture(tmp_path / "images" / f"c{i}.png", np.repeat(mask[..., None] * 200, 3, -1))
            picture(tmp_path / "masks" / f"c{i}.png", mask)
        else:
            volume(tmp_path / "images" / f"c{i}.nii", (mask * 200).astype(np.float32))
            volume(tmp_path / "masks" / f"c{i}.nii", mask)
    for i in range(2, 5):
        for kind in ("images", "masks"):
            first = next((tmp_path / kind).glob("c0*"))
            (tmp_path / kind / first.name.replace("c0", f"c{i}")).write_bytes(first.read_bytes())
    cases = training_set(read_data(str(tmp_path)), (16, 16, 8)[:dims])
    cases.transform.set_random_state(seed=0)
    assert len(cases) == 4
    overlaps, shapes = [], set()
    for _ in range(15):
        for i in range(4):
            (one,) = cases[i]
            image, moved = one["image"], one["mask"]
            assert image.shape[1:] == moved.shape[1:] == (16, 16, 8)[:dims] and set(moved.unique().tolist()) <= {0, 1}
            inside, outside = image[0][moved[0] > 0.5], image[0][moved[0] < 0.5]
            if len(inside) and len(outside):
                shapes.add(tuple(moved.flatten().nonzero().flatten().tolist()))
                bright = image[0] > (inside.median() + outside.median()) / 2
                truth = moved[0] > 0.5
                overlaps.append(((bright & truth).sum() / (bright | truth).sum()).item())
    assert len(shapes) > 20  # it does move
    assert np.median(overlaps) > 0.95 and min(overlaps) > 0.5  # the image is turned linearly, the mask to the nearest


@pytest.mark.parametrize(("size", "crop"), [((16, 24), (16, 24)), ((20, 20), (16, 16)), ((10, 40), (32, 32))])
def test_crops_have_the_size_that_was_asked_for_and_small_images_are_padded(tmp_path, size, crop):
    cases = training_set(read_data(str(pictures(tmp_path, size=size))), crop)
    for i in range(3):
        (one,) = cases[i]
        assert one["image"].shape == (3, *crop) and one["mask"].shape == (1, *crop)
        assert type(one["image"]) is torch.Tensor and one["image"].dtype == torch.float32


def test_foreground_is_in_most_crops_and_a_mask_without_any_gives_crops_too(tmp_path):
    file = pictures(tmp_path, train=2, size=(64, 64))
    picture(tmp_path / "masks" / "train" / "train1.png", np.zeros((64, 64), np.uint8))
    cases = training_set(read_data(str(file)), (16, 16))
    cases.transform.set_random_state(seed=0)
    found = [bool(cases[0][0]["mask"].any()) for _ in range(40)]
    assert sum(found) > 16 and not all(found)  # a random crop would hold some in one of four
    assert not cases[1][0]["mask"].any()


def test_augmentation_leaves_what_is_kept_in_memory_alone(tmp_path):
    cases = training_set(read_data(str(pictures(tmp_path))), (16, 16))
    before = [{key: one[key].clone() for key in ("image", "mask")} for one in cases._cache]
    for _ in range(10):
        for i in range(len(cases)):
            cases[i]
    for one, then in zip(cases._cache, before):
        assert all(torch.equal(one[key], then[key]) for key in then)


def test_validation_images_are_whole_and_as_they_are(tmp_path):
    data = read_data(str(pictures(tmp_path, val=2, size=(20, 34))))
    for batch, one in zip(validation_loader(validation_set(data), 0), data.val):
        assert torch.equal(batch["image"][0], read_image(one.image, 3)) and batch["mask"].shape == (1, 1, 20, 34)
        assert np.array_equal(batch["mask"][0, 0].numpy(), np.asarray(Image.open(one.mask)))
        assert batch["file"] == [str(one.image)]


# ---- order


def test_an_epoch_follows_from_seed_and_number_alone(tmp_path):
    data = read_data(str(pictures(tmp_path, train=6)))
    loader = training_loader(training_set(data, (16, 16)), 2, 0)
    first = epoch(loader, 3, 5)
    torch.manual_seed(99)
    np.random.seed(99)
    other = training_loader(training_set(data, (16, 16)), 2, 0)
    next(iter(other))  # what was drawn before means nothing
    assert same(epoch(other, 3, 5), first)
    epoch(loader, 3, 6)
    assert same(epoch(loader, 3, 5), first)
    assert not same(epoch(loader, 3, 6), first) and not same(epoch(loader, 4, 5), first)


def test_order_differs_between_epochs_and_so_does_augmentation(tmp_path):
    data = read_data(str(pictures(tmp_path, train=6)))
    loader = training_loader(training_set(data, (16, 16)), 1, 0)
    orders, versions = [], set()
    for number in range(4):
        reseed(loader, 0, number)
        batches = list(loader)
        orders.append([batch["file"][0] for batch in batches])
        versions |= {b["image"].sum().item() for b in batches if b["file"][0].endswith("train0.png")}
    assert all(sorted(order) == sorted(orders[0]) and len(set(order)) == 6 for order in orders)
    assert len(set(map(tuple, orders))) > 1 and len(versions) == 4


def test_workers_repeat_an_epoch_too(tmp_path):
    loader = training_loader(training_set(read_data(str(pictures(tmp_path, train=4))), (16, 16)), 2, 1)
    first = epoch(loader, 3, 5)
    assert same(epoch(loader, 3, 5), first) and not same(epoch(loader, 3, 6), first)


def test_an_epoch_disturbs_no_global_generator(tmp_path):
    loader = training_loader(training_set(read_data(str(pictures(tmp_path))), (16, 16)), 1, 0)
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    epoch(loader, 0, 0)
    assert torch.equal(torch.get_rng_state(), states[0]) and np.array_equal(np.random.get_state()[1], states[1])


def test_a_last_smaller_batch_is_dropped_and_a_batch_is_no_larger_than_the_data(tmp_path):
    cases = training_set(read_data(str(pictures(tmp_path, train=5))), (16, 16))
    assert [len(batch) for batch in epoch(training_loader(cases, 2, 0), 0, 0)] == [2, 2]
    assert [len(batch) for batch in epoch(training_loader(cases, 64, 0), 0, 0)] == [5]


# ---- crops


@pytest.mark.parametrize(
    ("size", "crop"), [((50, 70), (48, 64)), ((20, 31), (16, 16)), ((10, 12), (16, 16)), ((300, 64), (256, 64))]
)
def test_the_usual_crop_is_most_of_an_image_in_multiples_of_16(tmp_path, size, crop):
    assert usual_crop(read_data(str(pictures(tmp_path, size=size)))) == crop


def test_the_usual_crop_goes_by_the_median_of_each_axis(tmp_path):
    file = pictures(tmp_path, train=3, size=(32, 48))
    picture(tmp_path / "masks" / "train" / "train0.png", np.zeros((200, 16), np.uint8))
    assert usual_crop(read_data(str(file))) == (32, 48)
    assert usual_crop(read_data(str(volumes(tmp_path / "v", size=(40, 17, 12))))) == (32, 16, 16)
    assert all(side % 16 == 0 for side in (256, 96)) and math.prod((96, 96, 96)) < 1e6
