"""What attention gates cost: parameters, GFLOPs, the time of a training step and of inference over the plain network.

U-Nets of 8 to 128 channels in 2-D (128x128 crops) and 3-D (32x48x32), plain, widened to the gated one's parameters,
gated as in the paper (all levels but the first) and at all levels; and a YOLO11n with gates in its neck. A step is
forward, loss and backward on one synthetic batch; inference is a forward pass of that batch in eval mode (of a single
image PyTorch runs another, slower convolution on one CPU thread). Times are medians of interleaved rounds, on one CPU
thread of processor time, which other jobs do not lengthen.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from statistics import median
from typing import Any

import torch
from _measure import Target, conclude, interleaved, machine, options, ratio, table
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from ultralytics.nn.tasks import DetectionModel

from distill.adapters.ultralytics.gating import gate_neck
from distill.networks.unet import UNet

PLAIN = "plain"
WIDTHS = (8, 16, 32, 64, 128)
WIDE = {2: (8, 17, 34, 68, 135), 3: (8, 16, 33, 66, 131)}  # as many parameters as gated, within 0.3 %
SHAPES = {2: (3, 128, 128), 3: (1, 32, 48, 32)}  # of one image: channels and sides
LAYOUTS = {2: torch.channels_last, 3: torch.channels_last_3d}
STEP, INFERENCE = 1.30, 1.30  # at most so many times the plain U-Net's
NECK = 1.10  # at most so many times the plain detector's inference


def main() -> int:
    """Measure, print, judge."""
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--imgsz", type=int, default=320, help="of the detector")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    torch.manual_seed(0)
    print(machine(args.device))
    found: dict[str, Any] = {}
    targets: list[Target] = []
    for dims in (2, 3):
        name = f"U-Net {dims}-D"
        found[name] = measured(name, unets(dims), SHAPES[dims], args)
        for what, limit in (("step", STEP), ("inference", INFERENCE)):
            targets.append(Target(f"{name} gated / plain, {what}", found[name]["gated"][what], limit))
    found["YOLO11n"] = measured("YOLO11n", detectors(), (3, args.imgsz, args.imgsz), args)
    targets.append(Target("YOLO11n gated neck / plain, inference", found["YOLO11n"]["gated neck"]["inference"], NECK))
    return conclude(targets, not args.no_check, args.json, found)


def unets(dims: int) -> dict[str, nn.Module]:
    """Networks of one task, by name."""
    channels, classes = (3, 2) if dims == 2 else (1, 3)
    made = {
        PLAIN: (WIDTHS, False),
        "widened": (WIDE[dims], False),
        "gated": (WIDTHS, True),
        "gated all": (WIDTHS, "all"),
    }
    return {
        name: UNet(channels, classes, widths, dims, gated).to(memory_format=LAYOUTS[dims])  # type: ignore[call-overload]
        for name, (widths, gated) in made.items()
    }


def detectors() -> dict[str, nn.Module]:
    """A YOLO11n, and the same with gates."""
    plain, gated = (DetectionModel("yolo11n.yaml", verbose=False) for _ in range(2))
    gate_neck(gated)
    return {PLAIN: plain, "gated neck": gated}


def measured(title: str, networks: Mapping[str, nn.Module], shape: tuple[int, ...], args: Any) -> dict[str, Any]:
    """Figures of each network, its times over the plain one's; prints the table."""
    image = torch.randn(1, *shape, device=args.device)
    images = image.repeat(args.batch, *[1] * len(shape)) + 0.1 * torch.randn(args.batch, *shape, device=args.device)
    steps: dict[str, Callable[[], Any]] = {}
    passes: dict[str, Callable[[], Any]] = {}
    for name, network in networks.items():
        network.to(args.device)
        steps[name] = lambda network=network: _step(network.train(), images)
        passes[name] = lambda network=network: _infer(network.eval(), images)
    times = {"step": interleaved(steps, args.rounds, args.device)}
    times["inference"] = interleaved(passes, args.rounds, args.device)
    found: dict[str, Any] = {}
    rows = []
    for name, network in networks.items():
        figures: dict[str, Any] = {
            "parameters": sum(p.numel() for p in network.parameters()),
            "gflops": _flops(network, image),
        }
        cells = [name, f"{figures['parameters']:,}", f"{figures['gflops']:.3f}"]
        for what, seconds in times.items():
            figures[what], low, high = ratio(seconds, name, PLAIN)
            cells += [f"{1e3 * median(seconds[name]):.1f}", f"{figures[what]:.2f} ({low:.2f}-{high:.2f})"]
        found[name] = figures
        rows.append(cells)
    sides = "x".join(map(str, shape[1:]))
    head = (
        f"{title} {sides}",
        "parameters",
        "GFLOPs",
        f"step ms (batch {args.batch})",
        "ratio",
        "inference ms",
        "ratio",
    )
    print(table(head, rows), end="\n\n", flush=True)
    return found


def _step(network: nn.Module, images: Tensor) -> None:
    sum(output.square().mean() for output in _tensors(network(images))).backward()
    network.zero_grad(set_to_none=True)


def _tensors(output: Any) -> list[Tensor]:
    """A U-Net's logits; a detector's in training are a mapping of lists."""
    if isinstance(output, Tensor):
        return [output] if output.is_floating_point() and output.requires_grad else []
    values = output.values() if isinstance(output, Mapping) else output
    return [tensor for value in values for tensor in _tensors(value)]


@torch.no_grad()
def _infer(network: nn.Module, image: Tensor) -> None:
    network(image)


def _flops(network: nn.Module, image: Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        _infer(network.eval(), image)
    return counter.get_total_flops() / 1e9


if __name__ == "__main__":
    sys.exit(main())
