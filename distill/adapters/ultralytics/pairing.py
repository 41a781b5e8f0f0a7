"""What makes two runs comparable, on record: the weights that a run began with, and what it was shown."""

from __future__ import annotations

from hashlib import sha256
from typing import Any
from zlib import crc32

import torch
from torch import nn

STEP = 509  # every so many values of an image enter the digest: a prime, so that no grid hides from it


def digest_of_weights(module: nn.Module) -> str:
    """A short digest of all parameters and buffers."""
    total = sha256()
    for name, tensor in sorted(module.state_dict().items()):
        total.update(name.encode())
        total.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return total.hexdigest()[:16]


class Seen:
    """A running digest of an epoch's batches: which images, in which order, and how they were augmented."""

    def __init__(self) -> None:
        self._crc = 0

    def add(self, batch: dict[str, Any]) -> None:
        """Take in a batch as the loader gave it."""
        for file in batch.get("im_file", ()):
            self._crc = crc32(str(file).encode(), self._crc)
        values = batch["img"].reshape(-1)[::STEP].contiguous().cpu()
        self._crc = crc32(values.view(torch.uint8).numpy().tobytes(), self._crc)

    def close(self) -> str:
        """The digest so far; the next epoch begins anew."""
        found, self._crc = f"{self._crc:08x}", 0
        return found
