"""What a training step costs: plain, with the textbook teacher, with Ultralytics' own distillation, and with ours.

A step is the student's forward, its loss and the backward pass, without the optimizer, on one synthetic batch;
times are medians of interleaved steps, on one CPU thread of processor time, which other jobs do not lengthen. The
textbook teacher is what one writes first: float32, unfused, contiguous, hooks, no_grad, cut behind its deepest tap.
"Chosen" is the precision that `Teacher.choose_precision` finds faster; the stricter targets hold where that is
bfloat16. P and B stand for the pairs P3 to P5 and B3 to B5, "half" for `teacher_fraction=0.5`. Peak memory is what a
fresh process (or the GPU) needed above what it held before the networks were built. The networks are untrained, with
the BatchNorm statistics of the batch. "Mixed" is `--cpu-bfloat16`, on a CPU alone; on a GPU (--device 0) --amp gives
float16 autocast, as in Ultralytics' training.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from _measure import MB, Memory, Target, conclude, fresh, interleaved, machine, options, ratio, table
from torch import Tensor, nn
from ultralytics.cfg import get_cfg
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import LOGGER

from distill.adapters.ultralytics.anatomy import build_teacher, layers_of, run_layers
from distill.adapters.ultralytics.cpu import InBfloat16
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.attention.pairs import Pair, pair_layers
from distill.attention.taps import Taps
from distill.distiller import Distiller
from distill.terms.attention import AttentionTerm

PLAIN, NATIVE = "plain", "native"
OURS = ("ours P float32", "ours P chosen", "ours P chosen half", "ours B float32", "ours B chosen")
MIXED = ("plain mixed", "ours P chosen mixed")  # the student in bfloat16 on a CPU
VARIANTS = (PLAIN, "textbook P", "textbook B", NATIVE, *OURS, *MIXED)
MEMORY_STEPS = 3
BOXES = 8  # per image: a mosaic's worth

LIMITS = [  # of each variant, the reference and the most it may take, times the reference's
    *((f"ours {letter} float32", f"textbook {letter}", 1.05) for letter in "PB"),
    *(("ours P float32", NATIVE, 0.92), ("ours B float32", NATIVE, 0.80)),
]
LIMITS_BFLOAT16 = [  # where bfloat16 is fast
    *((f"ours {letter} chosen", f"textbook {letter}", 0.85) for letter in "PB"),
    *(("ours P chosen", NATIVE, 0.75), ("ours B chosen", NATIVE, 0.70), ("ours P chosen half", PLAIN, 1.20)),
    *((f"{name} mixed", name, 0.85) for name in (PLAIN, "ours P chosen")),
]


class Bench:
    """Student, teacher and batch, and every variant of a step on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        torch.manual_seed(0)
        self.device, self.amp, self.precision = args.device, args.amp, "float32"
        self.batch = {k: v.to(self.device) for k, v in synthetic(args.batch, args.imgsz, args.classes).items()}
        self.memory = Memory(self.device)
        self.memory.start()
        student, teacher = (DetectionModel(f, nc=args.classes, verbose=False) for f in (args.student, args.teacher))
        self.student = settled(student.to(self.device), self.batch["img"])
        self.student.args = get_cfg(overrides={"imgsz": args.imgsz})
        self.teacher = settled(teacher.to(self.device), self.batch["img"]).eval().requires_grad_(False)

    def variant(self, name: str) -> Callable[[], None]:
        """A function that makes one such step."""
        kind, *rest = name.removesuffix(" mixed").split()
        if kind == "textbook":
            watch = self._textbook([pair.teacher for pair in self._pairs(*rest)])
            return lambda: self._step(self.student, watch)
        if kind == NATIVE:
            module = DistillationModel(deepcopy(self.teacher), deepcopy(self.student)).train()
        else:
            student = deepcopy(self.student) if name in MIXED else self.student  # laid out otherwise
            module = student if kind == PLAIN else self._ours(student, *rest)
            module = InBfloat16(module).train() if name in MIXED else module
        return lambda: self._step(module)

    def remember(self, name: str) -> int:
        """The most memory that a few such steps needed above what was held before the networks were built, in bytes."""
        step = self.variant(name)
        self.memory.again()
        for _ in range(MEMORY_STEPS):
            step()
        return self.memory.peak()

    def peaks(self, names: Sequence[str]) -> dict[str, float]:
        """That of several, in MiB: on a GPU one after the other, elsewhere in a fresh process each."""
        print("peak memory, each by itself", file=sys.stderr)
        if self.device.type == "cuda":  # its allocator tells exactly what is in use
            return {name: self.remember(name) / MB for name in names}
        return {name: fresh("--memory", name) / MB for name in names}

    def _step(self, module: nn.Module, teacher: Callable[[Tensor], Any] = lambda images: None) -> None:
        kept = teacher(self.batch["img"])  # until the loss, which would need it
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            loss, _ = module(dict(self.batch))
        del kept
        loss.sum().backward()
        module.zero_grad(set_to_none=True)

    def _pairs(self, letter: str) -> list[Pair]:
        layers = (layers_of(network, 256) for network in (self.student, self.teacher))
        return pair_layers(*layers, [f"{letter}{level}" for level in (3, 4, 5)])

    def _textbook(self, layers: list[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        network = deepcopy(self.teacher)
        network.model = network.model[: max(int(layer.split(".")[1]) for layer in layers) + 1]
        taps = Taps(network, layers)

        def run(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad(), taps:
                run_layers(network, images)
                return taps.read()

        return run

    def _ours(self, student: nn.Module, letter: str, precision: str, half: str = "") -> nn.Module:
        pairs = self._pairs(letter)
        teacher = build_teacher(self.teacher, [pair.teacher for pair in pairs])
        if precision == "chosen":
            probe = teacher.choose_precision(self.batch["img"][:4])
            # an untrained network's maps agree less than a trained one's (0.995, 0.9998): only the speed decides here
            self.precision = "bfloat16" if probe["bfloat16"] < probe["float32"] else "float32"
            teacher.use(self.precision)
        distiller = Distiller(teacher, [AttentionTerm(pairs)], {"attention": 1.0}, 0.5 if half else 1.0)
        return DistillingModule(student, distiller, per_image=True).train()


def synthetic(images: int, side: int, classes: int) -> dict[str, Tensor]:
    """What Ultralytics' loader gives after preprocessing, as far as the loss reads it."""
    size = torch.rand(images * BOXES, 2) * 0.4 + 0.05
    centre = size / 2 + torch.rand(images * BOXES, 2) * (1 - size)
    return {
        "img": torch.rand(images, 3, side, side),
        "cls": torch.randint(classes, (images * BOXES, 1)).float(),
        "bboxes": torch.cat([centre, size], dim=1),  # xywh in [0, 1]
        "batch_idx": torch.arange(images).repeat_interleave(BOXES).float(),
    }


def settled(network: Any, images: Tensor) -> Any:
    """In train mode, with BatchNorm statistics of this very batch: or an untrained network's features would vanish."""
    norms = {module: module.momentum for module in network.train().modules() if isinstance(module, nn.BatchNorm2d)}
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(images)
    for norm, momentum in norms.items():
        norm.momentum = momentum
    return network


def of_networks(parser: argparse.ArgumentParser) -> None:
    """Add the options that say what makes a step."""
    parser.add_argument("--student", default="yolo11n.yaml")
    parser.add_argument("--teacher", default="yolo11s.yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=4)
    parser.add_argument("--classes", type=int, default=20)


def of_timing(parser: argparse.ArgumentParser, steps: int) -> None:
    """Add the options that say how it is timed, and how often by default."""
    parser.add_argument("--steps", type=int, default=steps, help="timed steps of each variant")
    parser.add_argument("--amp", action="store_true", help="float16 autocast around the student, on a GPU")
    parser.add_argument("--memory", metavar="STEP", help=argparse.SUPPRESS)


def main() -> int:
    parser = options(__doc__)
    of_networks(parser)
    of_timing(parser, steps=20)
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    LOGGER.setLevel("WARNING")  # it writes to stdout, which is for the table

    bench = Bench(args)
    if args.memory:
        print(bench.remember(args.memory))
        return 0
    variants = [name for name in VARIANTS if name not in MIXED or args.device.type == "cpu"]
    peak = bench.peaks(variants)
    seconds = interleaved({name: bench.variant(name) for name in variants}, args.steps, args.device)

    rows = []
    for name in variants:
        bases = [PLAIN, NATIVE, *([f"textbook {name.split()[1]}"] if name in OURS else [])]
        cells = ["{:.2f} ({:.2f}-{:.2f})".format(*ratio(seconds, name, base)) for base in bases]
        rows.append([name, f"{1e3 * median(seconds[name]):.0f}", *[*cells, ""][:3], f"{peak[name]:.0f}"])
    limits = LIMITS + (LIMITS_BFLOAT16 if bench.precision == "bfloat16" else [])
    limits = [limit for limit in limits if limit[0] in variants]
    targets = [Target(f"{a} / {b}", ratio(seconds, a, b)[0], limit) for a, b, limit in limits]
    targets += [Target(f"peak memory, {name} / native", peak[name] / peak[NATIVE], 1.0) for name in OURS]

    what = f"{args.student} <- {args.teacher}, {args.imgsz} px, batch {args.batch}, chosen: {bench.precision}"
    print(f"{machine(args.device)}\n{what}, {args.steps} steps, medians (quartiles)")
    print(table(["step", "ms", "/ plain", "/ native", "/ textbook of its pairs", "peak MB"], rows))
    found = {"machine": machine(args.device), "what": what, "seconds": seconds, "peak_mb": peak}
    return conclude(targets, not args.no_check, args.json, found)


if __name__ == "__main__":
    sys.exit(main())
