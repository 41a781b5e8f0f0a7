"""What is measured before and after training: validation images without the border that Ultralytics adds to them."""

import pytest
import torch

from distill.adapters.ultralytics.rehearsal import sample, without_border

STRIDE = 32


class Loader:
    """A loader of numbers: each image is its place in the data set."""

    def __init__(self, images, batch_size):
        self.dataset = Numbers(range(images))
        self.batch_size = batch_size
        self.collate_fn = list


class Numbers(list):
    """A data set with the attributes that one is looked at for."""


@pytest.mark.parametrize(
    ("images", "batch_size", "count", "size", "groups"),
    [
        (800, 16, 4, 8, 4),  # a group from each of four batches
        (200, 32, 8, 8, 8),  # six whole batches: two groups from some of them
        (106, 32, 8, 8, 8),
        (128, 64, 4, 8, 4),
        (20, 32, 8, 8, 2),  # no whole batch: what there is
        (5, 32, 8, 8, 1),
        (12, 4, 8, 8, 3),  # a batch is smaller than a group
    ],
)
def test_a_sample_is_spread_and_shows_no_image_twice(images, batch_size, count, size, groups):
    found = list(sample(Loader(images, batch_size), count, size))
    assert len(found) == groups
    seen = [number for group in found for number in group]
    assert len(seen) == len(set(seen)) == groups * min(size, batch_size, images)
    assert max(seen) - min(seen) >= (images - min(batch_size, images)) * (groups - 1) / groups - size
    for group in found:  # with `rect` only the images of one batch share a shape
        assert len({number // batch_size for number in group}) == 1


def padded(contents, side):
    """Images whose contents are their own numbers, in the middle of grey, as LetterBox lays them; one box each."""
    images, pads, boxes = torch.full((len(contents), 3, *side), -1.0), [], []
    for i, (height, width) in enumerate(contents):
        top, left = (side[0] - height) // 2, (side[1] - width) // 2
        images[i, :, top : top + height, left : left + width] = torch.rand(3, height, width)
        pads.append(((1.0, 1.0), (left, top)))
        x, y, w, h = left + width / 4, top + height / 2, width / 2, height / 4
        boxes.append([x / side[1], y / side[0], w / side[1], h / side[0]])
    return {"img": images, "ratio_pad": pads, "bboxes": torch.tensor(boxes), "other": 1}


@pytest.mark.parametrize(
    ("contents", "side", "expected"),
    [
        ([(64, 64)], (96, 96), (64, 64)),
        ([(64, 64), (64, 64)], (64, 64), (64, 64)),
        ([(60, 96)], (96, 128), (64, 96)),  # sides stay multiples of the stride
        ([(64, 40), (96, 64)], (128, 96), (96, 64)),  # the largest content stays whole
    ],
)
def test_the_border_is_cut_off_and_nothing_else(contents, side, expected):
    batch = padded(contents, side)
    found = without_border(batch, STRIDE)
    assert found["img"].shape[2:] == expected and found["other"] == 1
    for i, (height, width) in enumerate(contents):
        inside = [image[i][(image[i] != -1)] for image in (batch["img"], found["img"])]
        assert torch.equal(*inside) and len(inside[0]) == 3 * height * width
        x, y, w, h = (found["bboxes"][i] * torch.tensor([expected[1], expected[0]] * 2)).tolist()
        top, left = (expected[0] - height) // 2, (expected[1] - width) // 2
        wanted = [left + width / 4, top + height / 2, width / 2, height / 4]
        assert [x, y, w, h] == pytest.approx(wanted, abs=1e-3)


def test_boxes_that_are_turned_keep_their_angle():
    batch = padded([(64, 64)], (96, 96))
    batch["bboxes"] = torch.cat([batch["bboxes"], torch.tensor([[0.3]])], 1)
    assert without_border(batch, STRIDE)["bboxes"][0, 4].item() == pytest.approx(0.3)


def test_images_that_were_not_letterboxed_stay_as_they_are():
    batch = {"img": torch.rand(2, 3, 70, 70)}
    assert without_border(batch, STRIDE) is batch
