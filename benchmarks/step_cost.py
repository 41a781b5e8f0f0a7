"""What a training step costs: plain, with the textbook teacher, with Ultralytics' own distillation, and with ours.

A step is the student's forward, its loss and the backward pass, without the optimizer, on one synthetic batch. All
variants are timed in turn within each round. The textbook teacher is what one writes first: float32, unfused,
contiguous, hooks, no_grad, cut behind its deepest tap. "Chosen" is the precision that `Teacher.choose_precision` finds
faster; the stricter targets hold where that is bfloat16. P and B stand for the pairs P3 to P5 and B3 to B5, "half" for
`teacher_fraction=0.5`. Peak memory is what a fresh process (Linux) or the GPU needed above what it held before the
networks were built. The networks are untrained, their BatchNorm statistics taken from the batch.
The CUDA path (--device 0, --amp for float16 autocast as in Ultralytics' training) has not been run.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from copy import deepcopy
from statistics import median
from typing import Any

import torch
from _measure import MB, Memory, Target, conclude, fresh, interleaved, machine, ratio, table
from torch import Tensor, nn

from distill.adapters.ultralytics.environment import prepare

PLAIN, NATIVE = "plain", "native"
VARIANTS = (PLAIN, "textbook P", "textbook B", NATIVE, "ours P float32", "ours P chosen", "ours P chosen half")
VARIANTS += ("ours B float32", "ours B chosen")
MEMORY_STEPS = 3


class Bench:
    """Student, teacher and batch, and every variant of a step on them."""

    def __init__(self, args: argparse.Namespace) -> None:
        prepare()
        from ultralytics.cfg import get_cfg
        from ultralytics.nn.tasks import DetectionModel

        torch.manual_seed(0)
        torch.set_num_threads(args.threads)
        self.device, self.amp = args.device, args.amp
        self.batch = self._batch(args.batch, args.imgsz, args.classes)
        self.memory = Memory(self.device)
        self.memory.start()
        student, teacher = (DetectionModel(f, nc=args.classes, verbose=False) for f in (args.student, args.teacher))
        self.student, self.teacher = student.to(self.device), teacher.to(self.device)
        self.student.args = get_cfg(overrides={"imgsz": args.imgsz})
        _settle(self.student.train(), self.batch["img"])
        _settle(self.teacher.train(), self.batch["img"])
        self.teacher.eval().requires_grad_(False)

    def _batch(self, images: int, side: int, classes: int, boxes: int = 8) -> dict[str, Tensor]:
        """What Ultralytics' loader gives after preprocessing, as far as the loss reads it."""
        wide = torch.rand(images * boxes, 2) * 0.4 + 0.05
        centre = wide / 2 + torch.rand(images * boxes, 2) * (1 - wide)
        batch = {
            "img": torch.rand(images, 3, side, side),
            "cls": torch.randint(classes, (images * boxes, 1)).float(),
            "bboxes": torch.cat([centre, wide], dim=1),  # xywh in [0, 1]
            "batch_idx": torch.arange(images).repeat_interleave(boxes).float(),
        }
        return {key: value.to(self.device) for key, value in batch.items()}

    def variant(self, name: str) -> Callable[[], None]:
        """A function that makes one such step."""
        kind, _, rest = name.partition(" ")
        if kind == "textbook":
            watch = self._textbook([pair.teacher for pair in self._pairs(rest)])
            return lambda: self._step(self.student, watch)
        if kind == "native":
            from ultralytics.nn.distill_model import DistillationModel

            module = DistillationModel(deepcopy(self.teacher), deepcopy(self.student)).train()
        else:
            module = self._ours(*rest.split()) if kind == "ours" else self.student
        return lambda: self._step(module)

    def _step(self, module: nn.Module, teacher: Callable[[Tensor], Any] = lambda images: None) -> None:
        kept = teacher(self.batch["img"])  # to live as long as a loss would need it
        with torch.autocast(self.device.type, torch.float16, enabled=self.amp):
            loss, _ = module(dict(self.batch))
        loss.sum().backward()
        del kept
        module.zero_grad(set_to_none=True)

    def _pairs(self, letter: str) -> list[Any]:
        from distill.adapters.ultralytics.anatomy import layers_of
        from distill.attention.pairs import pair_layers

        layers = (layers_of(network, 256) for network in (self.student, self.teacher))
        return pair_layers(*layers, [f"{letter}{level}" for level in (3, 4, 5)])

    def _ours(self, letter: str, precision: str, part: str = "") -> nn.Module:
        from distill.adapters.ultralytics.anatomy import build_teacher
        from distill.adapters.ultralytics.wrapper import DistillingModule
        from distill.distiller import Distiller
        from distill.terms.attention import AttentionTerm

        pairs = self._pairs(letter)
        teacher = build_teacher(self.teacher, [pair.teacher for pair in pairs])
        if precision == "chosen":
            probe = teacher.choose_precision(self.batch["img"][:4])
            print(f"{letter}: {probe}", file=sys.stderr)
            # an untrained network's maps agree less than a trained one's (0.995, 0.9998): only the speed decides here
            teacher.use("bfloat16" if probe["bfloat16"] < probe["float32"] else "float32")
        self.precision = teacher.precision
        distiller = Distiller(teacher, [AttentionTerm(pairs)], {"attention": 1.0}, 0.5 if part else 1.0)
        return DistillingModule(self.student, distiller, per_image=True).train()

    def _textbook(self, layers: list[str]) -> Callable[[Tensor], dict[str, Tensor]]:
        from distill.adapters.ultralytics.anatomy import run_layers

        network, features = deepcopy(self.teacher), {}
        network.model = network.model[: max(int(layer.split(".")[1]) for layer in layers) + 1]
        for layer in layers:
            keep = lambda _module, _inputs, output, layer=layer: features.update({layer: output})  # noqa: E731
            network.get_submodule(layer).register_forward_hook(keep)

        def run(images: Tensor) -> dict[str, Tensor]:
            with torch.no_grad():
                run_layers(network, images)
            return features

        return run


def _settle(network: nn.Module, images: Tensor) -> None:
    """BatchNorm statistics of this very batch, so that an untrained network's features have ordinary sizes."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        network(images)
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum


def promised(fast: bool) -> list[tuple[str, str, float]]:
    """Of each variant, the reference and the most it may take, times the reference's."""
    limits = [("ours P float32", NATIVE, 0.92), ("ours B float32", NATIVE, 0.80)]
    limits += [(f"ours {letter} float32", f"textbook {letter}", 1.05) for letter in "PB"]
    if fast:
        limits += [("ours P chosen", NATIVE, 0.75), ("ours B chosen", NATIVE, 0.70)]
        limits += [(f"ours {letter} chosen", f"textbook {letter}", 0.85) for letter in "PB"]
        limits += [("ours P chosen half", PLAIN, 1.20)]
    return limits


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--student", default="yolo11n.yaml")
    parser.add_argument("--teacher", default="yolo11s.yaml")
    parser.add_argument("--imgsz", type=int, default=320)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--classes", type=int, default=20)
    parser.add_argument("--steps", type=int, default=20, help="timed steps of each variant")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", help="cpu, or the number of a GPU")
    parser.add_argument("--amp", action="store_true", help="float16 autocast around the student, on a GPU")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--no-check", action="store_true", help="exit 0 even when a target is missed")
    parser.add_argument("--memory", choices=VARIANTS, help=argparse.SUPPRESS)
    args = parser.parse_args()
    args.device = torch.device("cpu" if args.device == "cpu" else f"cuda:{args.device}")

    bench = Bench(args)
    if args.memory:
        step = bench.variant(args.memory)
        for _ in range(MEMORY_STEPS):
            step()
        print(bench.memory.peak())
        return 0
    runs = {name: bench.variant(name) for name in VARIANTS}
    fast = bench.precision == "bfloat16"
    seconds = interleaved(runs, args.steps, bench.device)
    print("peak memory, each variant in a fresh process", file=sys.stderr)
    peak = {name: fresh([*sys.argv[1:], "--memory", name]) / MB for name in VARIANTS}

    rows = []
    for name in VARIANTS:
        references = [PLAIN, NATIVE, f"textbook {name.split()[1]}"] if name.startswith("ours") else [PLAIN, NATIVE]
        ratios = [ratio(seconds, name, base) for base in references]
        cells = [f"{middle:.2f} ({low:.2f}-{high:.2f})" for middle, low, high in ratios] + [""] * (3 - len(ratios))
        rows.append([name, f"{1e3 * median(seconds[name]):.0f}", *cells, f"{peak[name]:.0f}"])
    targets = [Target(f"{a} / {b}", ratio(seconds, a, b)[0], limit) for a, b, limit in promised(fast)]
    ours = [name for name in VARIANTS if name.startswith("ours")]
    targets += [Target(f"peak memory, {name} / native", peak[name] / peak[NATIVE], 1.0) for name in ours]

    what = f"{args.student} <- {args.teacher}, {args.imgsz} px, batch {args.batch}, chosen: {bench.precision}"
    print(f"{machine(bench.device)}\n{what}, {args.steps} steps")
    print(table(["step", "ms", "/ plain (quartiles)", "/ native", "/ textbook of its pairs", "peak MB"], rows))
    found = {"machine": machine(bench.device), "what": what, "seconds": seconds, "peak_mb": peak}
    return conclude(targets, not args.no_check, args.json, found)


if __name__ == "__main__":
    sys.exit(main())
