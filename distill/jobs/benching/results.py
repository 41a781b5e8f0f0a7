"""A bench so far: every run's figures, the arms' means, the paired differences."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

from distill.jobs.benching.closeness import read_closeness
from distill.jobs.benching.paired import Difference, Spread, compared, references
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.recipes import Arm, silent
from distill.jobs.benching.starts import Pairing, pairing
from distill.jobs.benching.states import DONE, Run, clock, gpu_memory, number, runs_of, scores

SEEN = (
    "teacher",
    "data",
    "imgsz",
    "teacher_imgsz",
    "rect",
    "single_cls",
    "classes",
)  # all that its score stands on


@dataclass(frozen=True)
class Outcome:
    """One run: its state, the score after each epoch and the seconds since the first began.

    `before` is the score of its first weights and `prepared` the seconds that fitting these took. `wall` is the whole
    process's time in seconds, `memory` the peak of its largest process and `gpu` that on a GPU, in bytes. NaN where
    they are not known.
    """

    run: Run
    state: str
    scores: Sequence[float]
    times: Sequence[float]
    before: float
    prepared: float
    wall: float
    memory: float
    gpu: float
    device: str

    @property
    def score(self) -> float:
        """Of the last epoch; NaN for a run that is not done, or has none."""
        return self.scores[-1] if self.state == DONE and self.scores else math.nan

    @property
    def epoch_seconds(self) -> float:
        return self.times[-1] / len(self.times) if self.times else math.nan


@dataclass(frozen=True)
class Results:
    """Everything that a bench has to say. `notes` are sentences on what is missing.

    `teacher` is the score of the bench's teacher on the same validation images; NaN where no run measured it.
    """

    folder: Path
    plan: Plan
    outcomes: tuple[Outcome, ...]
    differences: tuple[Difference, ...]
    pairing: Pairing
    closeness: tuple[Mapping[str, Any], ...]
    score: str
    teacher: float = math.nan
    notes: tuple[str, ...] = ()

    @property
    def done(self) -> int:
        return sum(one.state == DONE for one in self.outcomes)

    def of(self, arm: str) -> list[Outcome]:
        """The runs of an arm that are done."""
        return [one for one in self.outcomes if one.run.arm == arm and one.state == DONE]

    def spread(self, arm: str) -> Spread:
        """Of the arm's scores."""
        return Spread.of([one.score for one in self.of(arm) if not math.isnan(one.score)])

    def gap(self, reference: str, seeds: Collection[int]) -> float:
        """How far the teacher is above the reference's mean over these seeds.

        NaN where one of them is not known, and where the reference scatters as much: there is nothing to be parted.
        """
        spread = Spread.of([s for o in self.of(reference) if o.run.seed in seeds and not math.isnan(s := o.score)])
        gap = math.nan if spread.mean is None else self.teacher - spread.mean
        return gap if gap > (spread.sd or 0.0) else math.nan

    def mean(self, arm: str, figure: str) -> float:
        """Of `wall`, `memory`, `gpu` or `epoch_seconds` over the arm's runs; NaN where none has it."""
        known = [value for one in self.of(arm) if not math.isnan(value := getattr(one, figure))]
        return fmean(known) if known else math.nan


def collect(folder: Path, notes: Sequence[str] = ()) -> Results:
    """Read a bench's folder. Raises InputError where it is none."""
    plan = Plan.read(folder)
    runs = runs_of(plan, folder)
    outcomes = tuple(_outcome(run) for run in runs)
    by_arm = {
        arm.name: {o.run.seed: o.score for o in outcomes if o.run.arm == arm.name and not math.isnan(o.score)}
        for arm in plan.arms
    }
    against = references(list(by_arm))
    found = [
        one for place, reference in enumerate(against) for one in compared(by_arm, reference, skip=against[:place])
    ]
    keys = [str(run.manifest().get("score")) for run, one in zip(runs, outcomes, strict=True) if one.state == DONE]
    score = keys[0] if keys else "score"
    measured = tuple(read_closeness(folder))
    return Results(
        folder, plan, outcomes, tuple(found), pairing(plan.arms, runs), measured, score,
        _of_teacher(plan.arms, outcomes, score), tuple(notes),
    )  # fmt: skip


def _of_teacher(arms: Sequence[Arm], outcomes: Sequence[Outcome], score: str) -> float:
    """What the runs that learned from the bench's teacher measured of it, on the bench's images, before they began."""
    of_the_bench = silent(arms, SEEN)
    for one in outcomes:
        if one.state == DONE and one.run.arm in of_the_bench:
            found = _before(one.run.manifest(), "teacher", score)
            if math.isfinite(found):
                return found
    return math.nan


def _outcome(run: Run) -> Outcome:
    noted, state, manifest = run.noted(), run.state(), run.manifest()
    return Outcome(
        run,
        state,
        scores(run),
        clock(run),
        _before(manifest, "student", str(manifest.get("score"))),
        _prepared(manifest),
        number(noted.get("seconds")),
        number(noted.get("memory")),
        gpu_memory(manifest),
        str(noted.get("device") or manifest.get("device") or ""),
    )


def _prepared(manifest: Mapping[str, Any]) -> float:
    """Seconds of fitting, a race, and a trial: none where there was none, NaN where the run kept no time."""
    initialised, trial = (manifest.get(key) or {} for key in ("initialised", "trial"))
    seconds = number(trial.get("seconds", 0.0))
    if "start" not in initialised:
        return seconds
    return seconds + number(initialised.get("seconds")) + number(initialised.get("raced_seconds", 0.0))


def _before(manifest: Mapping[str, Any], who: str, score: str) -> float:
    """What a run measured of its student or its teacher on the validation images before it began; NaN if nothing."""
    found = (manifest.get("before") or {}).get(who) or {}
    return number((found.get("metrics") or {}).get(score))
