"""A frame says where every point of the picture lies in the input: what is drawn there is found there."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np
import pytest
import torch
from PIL import Image
from ultralytics.data.augment import LetterBox, classify_transforms

from distill.pictures.framing import centre_crop, letterbox, stretch

WAYS = {
    "letterbox": letterbox,
    "square": partial(letterbox, square=True),
    "stretch": stretch,
    "crop": centre_crop,
}


@pytest.mark.parametrize("how", WAYS.values(), ids=WAYS)
@pytest.mark.parametrize("size", [(60, 100), (100, 60), (64, 64), (333, 500)])
def test_a_patch_is_found_where_the_frame_says(how: Callable[..., object], size: tuple[int, int]) -> None:
    height, width = size
    pixels = np.zeros((height, width, 3), np.uint8)
    y, x = int(height * 0.42), int(width * 0.55)
    pixels[y : y + height // 8, x : x + width // 8] = 255
    images, frame = how(pixels, 128, 32)  # type: ignore[misc]
    assert tuple(images.shape[1:]) == frame.input
    assert frame.picture == size
    bright = images[0] > 0.6  # the border is grey
    ys, xs = (torch.nonzero(bright.any(dim)).float().flatten() + 0.5 for dim in (1, 0))
    expected = frame.to_input(y + (height // 8) / 2, x + (width // 8) / 2)
    assert (ys.mean().item(), xs.mean().item()) == pytest.approx(expected, abs=0.75)
    assert frame.to_picture(*frame.to_input(3.0, 5.0)) == pytest.approx((3.0, 5.0))


def test_sides_are_multiples_of_the_stride_with_the_narrowest_border() -> None:
    pixels = np.zeros((300, 500, 3), np.uint8)
    images, frame = letterbox(pixels, 640, 32)
    assert tuple(images.shape) == (3, 384, 640)
    assert frame.shift == (0.0, 0.0) and frame.scale == (1.28, 1.28)
    images, frame = letterbox(pixels, 640, 32, square=True)
    assert tuple(images.shape) == (3, 640, 640)
    assert frame.shift == (128.0, 0.0)


@pytest.mark.parametrize("size", [(300, 500), (500, 300), (97, 64)])
@pytest.mark.parametrize("auto", [True, False])
def test_the_letterbox_is_ultralytics_own(size: tuple[int, int], auto: bool) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    theirs = LetterBox((320, 320), auto=auto, stride=32)(image=pixels)
    ours, _ = letterbox(pixels, 320, 32, square=not auto)
    assert (ours.permute(1, 2, 0) * 255).round().byte().numpy().tolist() == theirs.tolist()


@pytest.mark.parametrize("size", [(300, 500), (500, 301), (97, 64), (64, 64)])
def test_the_crop_is_ultralytics_own(size: tuple[int, int]) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    theirs = classify_transforms(64)(Image.fromarray(pixels))
    ours, _ = centre_crop(pixels, 64, 32)
    assert torch.equal(ours, theirs)
