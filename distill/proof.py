"""Proof, before the first epoch, that distillation takes place: taps fire, gradients flow, the teacher stays."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from distill.distiller import Distiller, Step
from distill.errors import ProofFailed, SilentTapError
from distill.guard import REMEDY, opposed
from distill.teacher import freeze_report
from distill.terms.base import Reading
from distill.weighting import Balance, balances_of, weight_for_share

FAINT = 0.02  # below this deviation it is worth a warning: the teacher's gate has hardly learned anything
FLAT = 1e-3  # standard deviation of a gate's target, values from 0 to 1, below which there is nothing to follow
HUGE = 1e3  # a measured weight above it is worth a warning: losses here are of the size of 1
IDENTICAL = 1e-4  # distance of unit maps that rounding alone makes, between two memory formats of one network
SAME = "the maps are identical"
Pass = Callable[[nn.Module], tuple[Tensor, Step]]
"""Runs the student (train mode) on one batch inside `watch`; returns the task's loss per image and the step."""


@dataclass(frozen=True)
class Check:
    """One question and its answer: `ok` False is an error, `warning` something to know that stops nothing."""

    name: str
    ok: bool
    detail: str
    warning: bool = False

    def __str__(self) -> str:
        mark = "FAIL" if not self.ok else "warn" if self.warning else "ok"
        return f"{mark:>4}  {self.name}: {self.detail}"


@dataclass(frozen=True)
class Proof:
    """The checks, and the weight of each term: the one given, or the one measured.

    `balances` are how the terms stood beside the task on each batch.
    """

    checks: tuple[Check, ...]
    weights: dict[str, float]
    balances: dict[str, list[Balance]] = field(default_factory=dict)

    @property
    def cosines(self) -> dict[str, float]:
        """The mean cosine between each term's gradient and the task's, where both have one."""
        known = {
            name: [one.cosine for one in found if math.isfinite(one.cosine)] for name, found in self.balances.items()
        }
        return {name: sum(found) / len(found) for name, found in known.items() if found}

    def without(self, term: str) -> Proof:
        """The proof of a run that leaves a term out; its checks are the caller's to drop."""
        weights = {name: weight for name, weight in self.weights.items() if name != term}
        return Proof(self.checks, weights, {name: of for name, of in self.balances.items() if name != term})

    def louder(self, terms: Iterable[str], factor: float) -> Proof:
        """The proof of a run in which these measured weights are so many times as large."""
        weights = {**self.weights, **{name: factor * self.weights[name] for name in terms}}
        checks = {weight_check(name): _weight(name, weights[name], self.balances[name], True) for name in terms}
        return Proof(tuple(checks.get(check.name, check) for check in self.checks), weights, self.balances)

    @property
    def failed(self) -> tuple[Check, ...]:
        return tuple(check for check in self.checks if not check.ok)

    def raise_if_failed(self, forgive: Iterable[str] = ()) -> None:
        """Raises ProofFailed, naming each failed check that is not forgiven."""
        if failed := [check for check in self.failed if check.name not in forgive]:
            raise ProofFailed("; ".join(f"{check.name}: {check.detail}" for check in failed), self.checks)


def prove(
    distiller: Distiller,
    student: nn.Module,
    passes: Iterable[Pass],
    share: float | Mapping[str, float],
    fixed: Mapping[str, float] | None = None,
) -> Proof:
    """Run every check on `student`, a copy that may be spoiled, in train mode; measure the weights not in `fixed`.

    A term's weight gives it a gradient at its layers `at` of `share` times the task's there (one number, or
    one for each term's name), over all `passes`. The teacher is read again at the end, to see that nothing moved.
    """
    teacher = distiller.teacher
    before = {name: tensor.clone() for name, tensor in teacher.module.state_dict().items()} if teacher else {}
    trainable = {id(p) for p in student.parameters() if p.requires_grad}
    for parameter in student.parameters():
        parameter.requires_grad_(parameter.is_floating_point())  # to see the whole path, frozen parts too
    distiller.weights = dict.fromkeys((term.name for term in distiller.terms), 1.0)

    balances: dict[str, list[Balance]] = {term.name: [] for term in distiller.terms}
    titles = {column: title for term in distiller.terms for column, title in term.columns.items()}
    spreads: dict[str, float] = {}  # of each loss's target, the largest of all passes
    paths: dict[str, Check] = {}  # from the first pass that has something to compare: the first images may be empty
    silent: set[str] = set()
    checks: list[Check] = []
    leak = False
    for number, run in enumerate(passes):
        try:
            task, step = run(student)
        except SilentTapError as error:
            return Proof((Check("taps", False, str(error)),), {})
        if number == 0:
            checks.append(_taps(step))
        for name, reading in step.readings.items():
            if name not in paths or name in silent:
                paths[name] = _path(titles[name], reading, student, trainable)
                silent = silent - {name} if reading.loss.ne(0) else silent | {name}
            if reading.spread is not None:
                spreads[name] = max(spreads.get(name, 0.0), reading.spread.item())
        for term, found in balances_of(task, step, distiller.terms).items():
            balances[term].append(found)
        leak |= any(f.requires_grad for f in step.guide.values())
    forgiven = {column for term in distiller.terms if term.may_begin_equal for column in term.columns}
    paths = _fitted_already(paths, forgiven)
    checks += [_varied(check, spreads.get(name, math.inf)) for name, check in paths.items()]
    if teacher:
        broken = freeze_report(teacher.module, before) + (["its features carry gradients"] if leak else [])
        sound = "in eval, frozen, unmoved; no gradient enters"
        checks.insert(1, Check("teacher", not broken, "; ".join(broken) or sound))

    fixed = fixed or {}
    for name, found_of in balances.items():
        tasks, owns = [found.task for found in found_of], [found.own for found in found_of]
        wanted = share[name] if isinstance(share, Mapping) else share
        weight = fixed[name] if name in fixed else weight_for_share(wanted, tasks, owns)
        checks.append(_weight(name, weight, found_of, name not in fixed))
        distiller.weights[name] = weight
    return Proof(tuple(checks), distiller.weights, balances)


def _taps(step: Step) -> Check:
    return Check("taps", True, f"{len(step.features)} student and {len(step.guide)} teacher layers fired")


def _path(title: str, reading: Reading, student: nn.Module, trainable: set[int]) -> Check:
    """Does this loss reach parameters of the student that train?"""
    loss = reading.loss
    if not torch.isfinite(loss):
        return Check(title, False, f"its loss is {loss.item()}: a map is not finite")
    if not loss.requires_grad:
        return Check(title, False, "detached: its loss has no gradient into the student")
    if reading.apart is not None and reading.apart < IDENTICAL:
        return Check(title, False, f"{SAME} (loss {loss.item():.4g}): there is nothing to learn")
    parameters = [p for p in student.parameters() if p.requires_grad]
    grads = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
    reached = [p for p, g in zip(parameters, grads, strict=True) if g is not None and bool(g.ne(0).any())]
    free = [p for p in reached if id(p) in trainable]
    if not reached:
        why = "into the student is zero: detached, or a map of zeros"
        return Check(title, False, f"the gradient of its loss ({loss.item():.4g}) {why}")
    if not free:
        return Check(title, False, f"all {len(reached)} parameters before it are frozen: it cannot teach anything")
    norm = sum(g.float().square().sum().item() for g in grads if g is not None) ** 0.5
    if not math.isfinite(norm):
        return Check(title, False, f"the gradient of its loss ({loss.item():.4g}) into the student is {norm}")
    detail = f"loss {loss.item():.4g}, gradient {norm:.3g} into {len(free)} parameters"
    if len(free) < len(reached):
        return Check(title, True, f"{detail}; {len(reached) - len(free)} before it are frozen", warning=True)
    return Check(title, True, detail)


def _fitted_already(paths: Mapping[str, Check], forgiven: Collection[str]) -> dict[str, Check]:
    """Outputs that are the teacher's from the start are no failure where maps differ: a fitted student's may be."""
    apart = any(check.ok for name, check in paths.items() if name not in forgiven)

    def softened(name: str, check: Check) -> Check:
        if check.ok or not check.detail.startswith(SAME) or name not in forgiven or not apart:
            return check
        return Check(check.name, True, check.detail.replace("there is nothing", "there is hardly anything"), True)

    return {name: softened(name, check) for name, check in paths.items()}


def _varied(check: Check, spread: float) -> Check:
    """The check of a pair, or that its target is flat in every batch: one without foreground says nothing."""
    if check.ok and FLAT <= spread < FAINT:
        return Check(check.name, True, f"{check.detail}; what it is to follow hardly varies (std {spread:.3f})", True)
    if not check.ok or spread >= FLAT:
        return check
    why = "what it is to follow is the same everywhere: there is nothing to learn: leave it out with --gate-layers"
    return Check(check.name, False, why)


def weight_check(term: str) -> str:
    """The name of the check of a term's weight."""
    return f"weight of {term}"


def _weight(term: str, weight: float, balances: Sequence[Balance], measured: bool) -> Check:
    task, own = [found.task for found in balances], [found.own for found in balances]
    cosines = [found.cosine for found in balances if math.isfinite(found.cosine)]
    title = weight_check(term)
    if weight == 0:
        return Check(title, False, f"it is zero: the {term} loss has no effect")
    if not 0 < weight < float("inf"):
        return Check(title, False, f"it came out as {weight}: task gradient {sum(task):.3g}, ours {sum(own):.3g}")
    reached = weight * sum(own) / sum(task) if sum(task) > 0 else float("inf")
    how = "measured" if measured else "fixed"
    detail = f"{weight:.4g}, {how}: {reached:.3g} of the task's gradient at the tapped layers"
    detail += f", cosine {sum(cosines) / len(cosines):.2f}" if cosines else ""
    if measured and weight > HUGE:
        return Check(title, True, f"{detail}; its loss is next to nothing: there is hardly anything to teach", True)
    if opposed(cosines):
        return Check(title, True, f"{detail}: it works against the task; {REMEDY}", True)
    return Check(title, True, detail)
