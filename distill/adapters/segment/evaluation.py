"""What a U-Net is worth on a data set, case by case, and what it costs."""

from __future__ import annotations

import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path

import torch
from monai.data import Dataset
from torch.utils.flop_counter import FlopCounterMode

from distill.adapters.segment import scores
from distill.distiller import Distiller
from distill.modes import as_found
from distill.networks.unet import UNet
from distill.progress import progress
from distill.terms.base import Batch

COMPARED = 32  # validation images, evenly spread, on which attention is measured
TIMED = 5


@torch.no_grad()
def evaluate(
    network: UNet, cases: Dataset, names: Sequence[str], crop: Sequence[int], detailed: bool
) -> list[dict[str, float | str]]:
    """A row per case: its file, its foreground's share, each score of each class; `detailed`: the slower ones too."""
    device = next(network.parameters()).device
    rows: list[dict[str, float | str]] = []
    with as_found(network):
        network.eval()
        for case in progress(cases, "validating", len(cases)):
            images, masks = case["image"].unsqueeze(0).to(device), case["mask"].to(device)  # (1, C, *S), (1, *S)
            found = scores.infer(network, images, crop).argmax(1)
            figures = scores.overlaps(found, masks, len(names))
            if detailed:
                spacing = scores.spacing_of(Path(case["file"]), network.dims)
                figures |= scores.details(found, masks, len(names), spacing)
            row: dict[str, float | str] = {"file": case["file"], "foreground": (masks > 0).float().mean().item()}
            for score, values in figures.items():
                row |= {f"{score}/{name}": values[0, i].item() for i, name in enumerate(names[1:])}
            rows.append(row)
    return rows


@torch.no_grad()
def compare(network: UNet, distiller: Distiller, cases: Dataset, crop: Sequence[int]) -> dict[str, float]:
    """The distiller's figures on validation images (their middles, where they are large), means over images."""
    device = next(network.parameters()).device
    every = -(-len(cases) // COMPARED)
    totals: dict[str, float] = {}
    count = 0
    with as_found(network):
        network.eval()
        for i in range(0, len(cases), every):
            images, masks = (_middle(cases[i][key], crop).unsqueeze(0).to(device) for key in ("image", "mask"))
            with distiller.watch(network, Batch(images, masks=masks[:, 0])) as step:
                network(images)
            count += 1
            for name, value in step.figures().items():
                totals[name] = totals.get(name, 0.0) + value.item()
    return {name: value / count for name, value in totals.items()}


def profile(network: UNet, crop: Sequence[int]) -> dict[str, float]:
    """Parameters, GFLOPs of one crop, and the median time of a forward pass of it on the CPU, in ms."""
    copy = deepcopy(network).float().cpu().eval()
    image = torch.zeros(1, copy.in_channels, *crop)
    seconds = []
    with torch.no_grad():
        with FlopCounterMode(display=False) as counter:
            copy(image)
        for _ in range(TIMED):
            start = time.perf_counter()
            copy(image)
            seconds.append(time.perf_counter() - start)
    parameters = sum(p.numel() for p in copy.parameters())
    flops = counter.get_total_flops() / 1e9
    return {"parameters": parameters, "gflops": flops, "cpu_ms": 1e3 * sorted(seconds)[TIMED // 2]}


def _middle(values: torch.Tensor, crop: Sequence[int]) -> torch.Tensor:
    for axis, side in enumerate(crop, start=1):
        length = min(scores.WINDOW * side, values.shape[axis])
        values = values.narrow(axis, (values.shape[axis] - length) // 2, length)
    return values
