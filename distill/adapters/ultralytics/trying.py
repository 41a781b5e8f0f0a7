"""Trials before a run: are features taught to this student, by this teacher, or do they hold it up?

A teacher that sees as the student does, both from COCO's weights, tells it more with them than with outputs alone: the
task's own loss falls faster from the first steps. One that came to see otherwise holds it up, from the first steps to
the end.
"""

from __future__ import annotations

import time
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import distributed as dist
from ultralytics.utils import RANK

from distill.adapters.ultralytics.rehearsal import student_copy
from distill.adapters.ultralytics.sprints import sprint, steps_of
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.distiller import Distiller
from distill.guard import REMEDY
from distill.progress import progress
from distill.proof import Check, Proof
from distill.terms.features import FeatureTerm
from distill.trial import Trial

NAME = FeatureTerm.name
LONGER = 32  # steps, where nobody waits for a run to begin


def settle_features(trainer: Any, distiller: Distiller, proof: Proof) -> Proof:
    """The proof with what a trial of features says; without them, as the run will be, where it does not speak for them.

    Rank 0 tries and decides for all. What came out stands in `own["trial"]`. The caller restores the random generators.
    """
    own = trainer.own
    theirs = [check for check in proof.checks if NAME in check.name.split()]
    found: list[Any] = [None]
    if RANK in {-1, 0}:
        broken = [check.detail for check in theirs if not check.ok]
        found = [{"taught": False, "said": f"left out: {broken[0]}"} if broken else _tried(trainer, distiller, proof)]
    if dist.is_initialized():
        dist.broadcast_object_list(found, 0)
    own["trial"] = found[0]
    said = Check(NAME, True, own["trial"]["said"])
    if own["trial"]["taught"]:
        return replace(proof, checks=(*proof.checks, said))
    own["feature_pairs"] = []
    left = {key: {name: value for name, value in of.items() if name != NAME}
            for key, of in (("weights", proof.weights), ("cosines", proof.cosines))}  # fmt: skip
    return Proof((*(check for check in proof.checks if check not in theirs), said), **left)


def try_teaching(trainer: Any, distiller: Distiller) -> Check:
    """Does all that the run would teach hold its student up? For `doctor`, which may take its time."""
    trial = _trial(trainer, distiller, max(steps_of(trainer), LONGER), "teaching")
    if trial.passed:
        return Check("teaching", True, f"with it {trial}")
    return Check("teaching", True, f"with it {trial}: it works against the task; {REMEDY}", warning=True)


def _tried(trainer: Any, distiller: Distiller, proof: Proof) -> dict[str, Any]:
    """What a trial of features alone says, for the manifest and for the user."""
    began, steps = time.monotonic(), steps_of(trainer)
    features = [term for term in distiller.terms if term.name == NAME]
    guide = Distiller(distiller.teacher, features, {NAME: proof.weights[NAME]}, shuffled=distiller.shuffled)
    trial = _trial(trainer, guide, steps, NAME)
    took = round(time.monotonic() - began, 1)
    said = f"{'taught' if trial.passed else 'left out'}: with them {trial} ({took:.0f} s)"
    return {"taught": trial.passed, "said": said, "change": trial.change, "steps": steps, "seconds": took}


def _trial(trainer: Any, distiller: Distiller, steps: int, what: str) -> Trial:
    """Train two copies of the student for some steps, one of them taught."""
    ticks = progress(range(2 * steps), f"steps of the trial of {what}", 2 * steps)
    alone = student_copy(trainer)
    taught = DistillingModule(deepcopy(alone), distiller, trainer.per_image)
    numbers, seed = range(len(trainer.train_loader.dataset)), trainer.own["seed"]
    losses = [sprint(trainer, model, numbers, steps, seed, ticks) for model in (alone, taught)]
    next(ticks, None)
    return Trial.of(*losses)
