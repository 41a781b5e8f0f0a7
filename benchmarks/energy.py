"""Attention maps: `distill.energy` against the textbook form `x.abs().pow(p).sum(1)`, forward and backward.

The shapes are those of the published study's layers 16, 13 and 22 with a batch of 16 at 640 px. Time is the median of
interleaved runs, on one CPU thread of processor time. Memory is what the process or the GPU needed at most, beyond the
input and its gradient, each form in a fresh process. The targets are for p = 2 on one CPU thread; p = 1 and p = 3 are
for information. The CUDA path (--device 0) has not been run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from statistics import median

import torch
from _measure import MB, Memory, Target, conclude, fresh, interleaved, machine, options, ratio, table
from torch import Tensor

from distill.attention.maps import energy

SHAPES = ((16, 256, 80, 80), (16, 512, 40, 40), (16, 512, 20, 20))
LEAST = (3.0, 3.0, 1.0)  # how many times faster, shape by shape
FORMS: dict[str, Callable[[Tensor, float], Tensor]] = {
    "ours": energy,
    "textbook": lambda x, p: x.abs().pow(p).sum(1),
}


def both_ways(form: str, x: Tensor, grad: Tensor, p: float) -> None:
    torch.autograd.grad(FORMS[form](x, p), x, grad)


def inputs(shape: tuple[int, ...], device: torch.device) -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    x = torch.randn(shape, device=device, requires_grad=True)  # (B, C, H, W)
    return x, torch.rand(shape[0], *shape[2:], device=device)  # the gradient that arrives at the map, (B, H, W)


def extra_memory(form: str, shape: tuple[int, ...], p: float, device: torch.device) -> int:
    """Bytes, beyond the input and its gradient; to be called in a fresh process."""
    both_ways(form, *inputs((1, 32, 8, 8), device), p)  # libraries and threads are set up before the count
    x, grad = inputs(shape, device)
    memory = Memory(device)
    memory.start()
    both_ways(form, x, grad, p)
    return memory.peak() - x.nbytes


def main() -> int:
    parser = options(__doc__)
    parser.add_argument("--rounds", type=int, default=11, help="timed runs of each form")
    parser.add_argument("--memory", nargs=3, metavar=("FORM", "SHAPE", "P"), help=argparse.SUPPRESS)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    device = args.device
    if args.memory:
        form, shape, p = args.memory
        print(extra_memory(form, SHAPES[int(shape)], float(p), device))
        return 0

    rows, figures, targets = [], [], []
    for p in (2.0, 1.0, 3.0):
        for i, shape in enumerate(SHAPES):
            x, grad = inputs(shape, device)
            runs = {form: (lambda form=form: both_ways(form, x, grad, p)) for form in FORMS}  # noqa: B023
            print(f"p={p:g} {shape}", file=sys.stderr)
            seconds = interleaved(runs, args.rounds, device)
            extra = {form: fresh("--memory", form, str(i), str(p)) / MB for form in FORMS}
            gain, low, high = ratio(seconds, "textbook", "ours")
            ms = {form: 1e3 * median(values) for form, values in seconds.items()}
            name = f"p={p:g} {'x'.join(map(str, shape))}"
            times = [f"{ms['ours']:.1f}", f"{ms['textbook']:.1f}", f"{gain:.2f}", f"{low:.2f}-{high:.2f}"]
            rows.append([name, *times, *(f"{v:.1f}" for v in (x.nbytes / MB, extra["ours"], extra["textbook"]))])
            figures.append({"p": p, "shape": shape, "ms": ms, "times_faster": gain, "extra_mb": extra})
            if p == 2.0:
                targets.append(Target(f"times faster, {name}", gain, LEAST[i], least=True))

    print(machine(device))
    header = ["forward + backward", "ours ms", "textbook ms", "times faster", "quartiles"]
    print(table([*header, "input MB", "ours extra MB", "textbook extra MB"], rows))
    return conclude(targets, not args.no_check, args.json, {"machine": machine(device), "rows": figures})


if __name__ == "__main__":
    sys.exit(main())
