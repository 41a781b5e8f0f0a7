"""Augmented training images, drawn beside the loop that trains on them, which then finds its data as it was."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from distill.adapters.ultralytics.rehearsal import untouched

BATCH = 16


def spread(numbers: Sequence[int], count: int) -> list[int]:
    """`count` of these at even steps; they come round again where there are fewer."""
    step = max(1, len(numbers) // count)
    return [numbers[k * step % len(numbers)] for k in range(count)]


def training_images(trainer: Any, numbers: Sequence[int], size: int = BATCH) -> Iterator[dict[str, Any]]:
    """Augmented training batches of the images of these `numbers`, `size` in each, on the device.

    Each has images of one shape (with `rect` they differ), none of them scaled once more by `multi_scale`.
    """
    args = trainer.args
    scaled, args.multi_scale = args.multi_scale, 0.0
    try:
        with untouched(trainer.train_loader.dataset) as dataset:
            for start in range(0, len(numbers), size):
                items = [dataset[k] for k in numbers[start : start + size]]
                items = [item for item in items if item["img"].shape == items[0]["img"].shape]
                yield trainer.preprocess_batch(trainer.train_loader.collate_fn(items))
    finally:
        args.multi_scale = scaled


def alike(batches: list[dict[str, Any]]) -> Tensor:
    """The images of one shape, the first's, of all batches: (B, C, H, W)."""
    shape = batches[0]["img"].shape[1:]
    return torch.cat([batch["img"] for batch in batches if batch["img"].shape[1:] == shape])
