"""How many operations each rung of a recipe adds to a step: what a GPU pays for that waits for its processor.

Beside a small student a GPU is idle for much of a step, and each operation, however small its tensors, costs the time
to launch it. Counted are the calls of PyTorch's operators, forward and backward, but for views, which launch nothing.
Networks, terms and "plain + its teacher" are those of `rungs.py`, all in float32; the size of images does not matter.
The step that measures the weights (one of 25) is not among those counted.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import torch
from _measure import conclude, machine, options, table
from rungs import PLAIN, RUNGS, Rungs
from step_cost import of_networks
from torch.utils._python_dispatch import TorchDispatchMode
from ultralytics.utils import LOGGER

from distill.teacher import Teacher

EMPTY = ("empty", "empty_like", "empty_strided", "new_empty", "new_empty_strided", "lift_fresh")  # memory, no work


class Launches(Rungs):
    """Every rung's step in one precision: what is counted must not depend on which is faster here."""

    def _settle(self, teacher: Teacher) -> None:
        teacher.use("float32")


class Count(TorchDispatchMode):
    """Operations that were called inside, but for views."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0

    def __torch_dispatch__(self, operation: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.total += not operation.is_view and operation.overloadpacket.__name__ not in EMPTY
        return operation(*args, **(kwargs or {}))


def count(step: Callable[[], Any]) -> int:
    """Of one step, after one that goes uncounted."""
    step()
    with torch.autograd.set_multithreading_enabled(False), Count() as found:  # the backward pass in this thread
        step()
    return found.total


def main() -> int:
    parser = options(__doc__)
    of_networks(parser)
    parser.set_defaults(imgsz=64, amp=False)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    LOGGER.setLevel("WARNING")

    bench = Launches(args)
    plain = count(bench.variant(PLAIN))
    rows, found = [[PLAIN, str(plain), "", ""]], {PLAIN: plain}
    for rung in RUNGS:
        base, own = (count(bench.variant(name)) for name in (f"{rung}: teacher", rung))
        rows.append([rung, str(own), f"{own / plain:.2f}", str(own - base)])
        found[rung] = own
    print(f"{machine(args.device)}\n{args.student} <- {args.teacher}, operations of a step")
    print(table(["step", "operations", "/ plain", "beyond plain + its teacher"], rows))
    return conclude([], not args.no_check, args.json, found)


if __name__ == "__main__":
    sys.exit(main())
