"""What each rung of a recipe costs: a step with it, beside a plain step and the teacher's forward that it needs.

Steps, networks, batch and timing are those of `step_cost.py`. "plain + its teacher" is a plain step after the same
teacher's forward, read at the same layers, in the same precision: what is left between the two is the terms' own work.
Weights are followed as in training, so every 25th step measures.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from _measure import Target, conclude, interleaved, machine, options, ratio, table
from step_cost import Bench, of_networks, of_timing
from ultralytics.utils import LOGGER

from distill.adapters.ultralytics.anatomy import anatomy, build_teacher
from distill.adapters.ultralytics.heads import as_pairs, bins_of, output_pairs
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.attention.pairs import Pair
from distill.distiller import Distiller
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Term
from distill.terms.boxes import DistributionTerm
from distill.terms.classes import ClassTerm
from distill.terms.features import FeatureTerm
from distill.terms.focus import BoxFocus, Focus, ScoreFocus
from distill.weighting import Follower

PLAIN = "plain"
RUNGS = {  # attention at these levels, its focus, what of the head's outputs, and whether features at P3 to P5
    "attention P": ("P", "none", (), False),
    "attention B, P": ("BP", "none", (), False),
    "attention B, P on boxes": ("BP", "boxes", (), False),
    "attention B, P by scores": ("BP", "scores", (), False),
    "response bce": ("", "none", ("bce",), False),
    "response cwd": ("", "none", ("cwd",), False),
    "response bce, boxes": ("", "none", ("bce", "boxes"), False),
    "attention P + bce, boxes": ("P", "none", ("bce", "boxes"), False),
    "attention B, P on boxes + bce, boxes": ("BP", "boxes", ("bce", "boxes"), False),
    "features P": ("", "none", (), True),
    "attention P + bce, boxes + features P": ("P", "none", ("bce", "boxes"), True),
}
LIMIT = 1.10


class Rungs(Bench):
    """The steps of every rung."""

    def variant(self, name: str) -> Callable[[], None]:
        if name == PLAIN:
            return lambda: self._step(self.student)
        rung = name.removesuffix(": teacher")
        terms = self._terms(*RUNGS[rung])
        teacher = build_teacher(self.teacher, [layer for term in terms for layer in term.layers()[1]])
        self._settle(teacher)
        if rung != name:
            return lambda: self._step(self.student, teacher)
        weights = dict.fromkeys((term.name for term in terms), 1.0)
        distiller = Distiller(teacher, terms, weights)
        follower = Follower(distiller, dict.fromkeys(weights, 0.2), weights)
        module = DistillingModule(self.student, distiller, True, follower).train()
        return lambda: self._step(module)

    def _settle(self, teacher: Teacher) -> None:
        """The precision that is faster here."""
        probe = teacher.choose_precision(self.batch["img"][:4])
        self.precision = "bfloat16" if probe["bfloat16"] < probe["float32"] else "float32"
        teacher.use(self.precision)

    def _terms(self, letters: str, focused: str, responses: tuple[str, ...], features: bool) -> list[Term]:
        both = output_pairs(self.student, self.teacher)
        classes, boxes = as_pairs(both, "classes"), as_pairs(both, "boxes")
        terms: list[Term] = []
        if letters:
            pairs = [pair for letter in letters for pair in self._pairs(letter)]
            terms.append(AttentionTerm(pairs, focus=focus(focused, pairs, classes)))
        if features:
            terms.append(FeatureTerm(self._pairs("P")))
        at = anatomy(self.student).head_inputs
        for form in responses:
            if form == "boxes":
                bins = bins_of(self.student), bins_of(self.teacher)
                terms.append(DistributionTerm(boxes, [pair.teacher for pair in classes], bins, at=at))
            else:
                terms.append(ClassTerm(classes, form, at=at))
        return terms


def focus(name: str, pairs: list[Pair], classes: list[Pair]) -> Focus | None:
    """The focus of a rung; by scores, each pair's are those of its level."""
    scores = {pair.name: pair.teacher for pair in classes}
    made: dict[str, Any] = {"none": lambda: None, "boxes": BoxFocus}
    made["scores"] = lambda: ScoreFocus({pair.name: scores[pair.name[1:]] for pair in pairs})
    return made[name]()  # type: ignore[no-any-return]


def main() -> int:
    parser = options(__doc__)
    of_networks(parser)
    of_timing(parser, steps=26)  # one of them measures the weights
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    LOGGER.setLevel("WARNING")

    bench = Rungs(args)
    if args.memory:
        print(bench.remember(args.memory))
        return 0
    names = [PLAIN, *(part for rung in RUNGS for part in (f"{rung}: teacher", rung))]
    peak = bench.peaks([PLAIN, *RUNGS])
    seconds = interleaved({name: bench.variant(name) for name in names}, args.steps, args.device)

    rows = [[PLAIN, f"{1e3 * median(seconds[PLAIN]):.0f}", "", "", f"{peak[PLAIN]:.0f}"]]
    for rung in RUNGS:
        cells = ["{:.2f} ({:.2f}-{:.2f})".format(*ratio(seconds, rung, base)) for base in (PLAIN, f"{rung}: teacher")]
        rows.append([rung, f"{1e3 * median(seconds[rung]):.0f}", *cells, f"{peak[rung]:.0f}"])
    targets = [Target(f"{r} / (plain + its teacher)", ratio(seconds, r, f"{r}: teacher")[0], LIMIT) for r in RUNGS]
    what = f"{args.student} <- {args.teacher}, {args.imgsz} px, batch {args.batch}, teacher in {bench.precision}"
    print(f"{machine(args.device)}\n{what}, {args.steps} steps, medians (quartiles)")
    print(table(["step", "ms", "/ plain", "/ (plain + its teacher)", "peak MB"], rows))
    found = {"machine": machine(args.device), "what": what, "seconds": seconds, "peak_mb": peak}
    return conclude(targets, not args.no_check, args.json, found)


if __name__ == "__main__":
    sys.exit(main())
