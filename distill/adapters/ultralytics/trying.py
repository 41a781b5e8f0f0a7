"""The trial of features: are they taught to this student, by this teacher, or do they hold it up?

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
from distill.progress import progress
from distill.proof import Check, Proof
from distill.terms.features import FeatureTerm
from distill.trial import Trial

NAME = FeatureTerm.name


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


def _tried(trainer: Any, distiller: Distiller, proof: Proof) -> dict[str, Any]:
    """Train two copies of the student for some steps, one of them taught features."""
    began, steps = time.monotonic(), steps_of(trainer)
    ticks = progress(range(2 * steps), "steps of the trial of features", 2 * steps)
    features = [term for term in distiller.terms if term.name == NAME]
    guide = Distiller(distiller.teacher, features, {NAME: proof.weights[NAME]}, shuffled=distiller.shuffled)
    alone = student_copy(trainer)
    taught = DistillingModule(deepcopy(alone), guide, trainer.per_image)
    numbers, seed = range(len(trainer.train_loader.dataset)), trainer.own["seed"]
    trial = Trial.of(*(sprint(trainer, model, numbers, steps, seed, ticks) for model in (alone, taught)))
    next(ticks, None)
    took = round(time.monotonic() - began, 1)
    return {"taught": trial.passed, "said": f"{trial} ({took:.0f} s)", "change": trial.change, "steps": steps,
            "seconds": took}  # fmt: skip
