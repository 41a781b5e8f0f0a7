"""What the layers of a network give at some positions of a batch: a sample of their feature maps, image by image."""

from __future__ import annotations

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.modes import as_found
from distill.progress import progress

POSITIONS = 20_000  # of a layer's grids over all images
FOCUSED = 0.5  # of them are drawn by interest, the others evenly
AT_ONCE = 16  # images in a forward pass


@torch.no_grad()
def note(
    network: nn.Module,
    modules: Mapping[str, str],
    images: Tensor,
    interest: Tensor | None = None,
    count: int = POSITIONS,
    title: str = "batches seen by the teacher",
    columns: Mapping[str, Tensor] | None = None,
) -> dict[str, tuple[Tensor, Tensor]]:
    """For each key of `modules`, what the module of that name gives in eval mode: positions (n,), values there (n, C).

    Positions are numbered over the batch of `images` (B, C, H, W), row by row; at most `count` are taken, half of them
    drawn by `interest` (B, 1, h, w), as probabilities. Of a key in `columns` only these channels are kept. A module
    that does not run is missing. Modes are restored.
    """
    known, notes, handles = dict(network.named_modules()), dict[str, _Note](), []
    with as_found(network):
        network.eval()
        try:
            for i, (key, name) in enumerate(modules.items()):
                notes[key] = _Note(len(images), i, interest, count, (columns or {}).get(key))
                handles.append(known[name].register_forward_hook(notes[key]))
            parts = images.split(AT_ONCE)
            for part in progress(parts, title, len(parts)):
                network(part)
        finally:
            for handle in handles:
                handle.remove()
    return {key: (found.where, found.values()) for key, found in notes.items() if found.parts}


class _Note:
    """A hook that keeps a layer's output at some positions, over several passes with a part of the batch each."""

    def __init__(
        self, batch: int, seed: int, interest: Tensor | None, count: int, columns: Tensor | None = None
    ) -> None:
        self.batch, self.seed, self.interest, self.count, self.columns = batch, seed, interest, count, columns
        self.parts: list[Tensor] = []
        self.where = torch.empty(0, dtype=torch.long)
        self._seen = 0

    def __call__(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        if not self.parts:
            self.where = positions(self.batch, output.shape[2:], self.seed, self.interest, self.count).to(output.device)
        end = self._seen + len(output) * output.shape[2:].numel()
        here = self.where[(self.where >= self._seen) & (self.where < end)] - self._seen
        taken = output.movedim(1, -1).flatten(0, -2)[here]  # (n, C)
        self.parts.append((taken if self.columns is None else taken[:, self.columns.to(taken.device)]).float())
        self._seen = end

    def values(self) -> Tensor:
        """All parts in one (n, C); the parts are let go, for all layers together are large."""
        whole = torch.cat(self.parts)
        self.parts.clear()
        return whole


def positions(batch: int, grid: torch.Size, seed: int, interest: Tensor | None, count: int) -> Tensor:
    """The numbers of some of a batch's positions, in ascending order: outputs are noted part by part."""
    total = batch * grid.numel()
    if total <= count:
        return torch.arange(total)
    generator = torch.Generator().manual_seed(seed)
    evenly = torch.randperm(total, generator=generator)
    if interest is None:
        return evenly[:count].sort().values
    chances = F.adaptive_max_pool2d(interest.float().cpu(), tuple(grid)).flatten()
    drawn = torch.rand(total, generator=generator).log() / chances.clamp(min=1e-6)  # without replacement, by their keys
    focused = int(FOCUSED * count)
    return torch.cat([drawn.topk(focused).indices, evenly[: count - focused]]).unique()
