"""How a picture is brought into a network's input, and the frame that leads back."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import torch
from PIL import Image
from torch import Tensor

from distill.attention.geometry import Frame

Framing = Callable[[np.ndarray, int, int], tuple[Tensor, Frame]]  # pixels, size, stride -> input (3, H, W), frame
BORDER = 114  # the grey that Ultralytics fills the letterbox's border with


def letterbox(pixels: np.ndarray, size: int, stride: int, square: bool = False) -> tuple[Tensor, Frame]:
    """The picture scaled so that its longer side has `size` pixels, on grey; both sides become multiples of `stride`.

    The border is as narrow as that allows, or fills the square. Gives (3, H, W) float32 in [0, 1].
    """
    height, width = pixels.shape[:2]
    ratio = size / max(height, width)
    inner = [max(1, round(side * ratio)) for side in (height, width)]
    whole = [-(-(size if square else side) // stride) * stride for side in inner]
    top, left = ((w - i) // 2 for w, i in zip(whole, inner, strict=True))
    canvas = np.full((*whole, 3), BORDER, np.uint8)
    canvas[top : top + inner[0], left : left + inner[1]] = _resized(pixels, inner)
    return _tensor(canvas), _frame(pixels, whole, inner, (top, left))


def stretch(pixels: np.ndarray, size: int, stride: int) -> tuple[Tensor, Frame]:
    """The picture brought to a square, whatever its shape: what RT-DETR reads."""
    side = -(-size // stride) * stride
    return _tensor(_resized(pixels, [side, side])), _frame(pixels, [side, side], [side, side], (0, 0))


def centre_crop(pixels: np.ndarray, size: int, stride: int) -> tuple[Tensor, Frame]:
    """The square in the middle of the picture, its shorter side scaled to `size`: what classification reads.

    As torchvision's Resize and CenterCrop do it, which smooth before they shrink.
    """
    height, width = pixels.shape[:2]
    shorter = min(height, width)
    inner = [int(size * side / shorter) for side in (height, width)]
    top, left = (round((side - size) / 2.0) for side in inner)
    scaled = np.asarray(Image.fromarray(pixels).resize((inner[1], inner[0]), Image.Resampling.BILINEAR))
    return _tensor(scaled[top : top + size, left : left + size]), _frame(pixels, [size, size], inner, (-top, -left))


def _frame(pixels: np.ndarray, whole: Sequence[int], inner: Sequence[int], shift: tuple[int, int]) -> Frame:
    height, width = pixels.shape[:2]
    scale = inner[0] / height, inner[1] / width
    return Frame((height, width), (whole[0], whole[1]), scale, (float(shift[0]), float(shift[1])))


def _resized(pixels: np.ndarray, size: Sequence[int]) -> np.ndarray:
    return pixels if pixels.shape[:2] == tuple(size) else cv2.resize(pixels, (size[1], size[0]))


def _tensor(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(pixels.transpose(2, 0, 1))).float() / 255
