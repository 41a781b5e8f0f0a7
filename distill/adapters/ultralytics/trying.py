"""Trials before a run: does what is taught hold this student up?

A teacher that sees as the student does, both from COCO's weights, tells it more with features than with outputs alone:
the task's own loss falls faster from the first steps. One that came to see otherwise holds it up, from the first steps
to the end.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from copy import deepcopy
from dataclasses import replace
from typing import Any

from torch import distributed as dist
from ultralytics.utils import RANK

from distill.adapters.ultralytics.rehearsal import student_copy
from distill.adapters.ultralytics.sprints import sprint, steps_of
from distill.adapters.ultralytics.transfer import terms_of, zero_weights
from distill.adapters.ultralytics.wrapper import DistillingModule, over_ranks
from distill.distiller import Distiller
from distill.guard import REMEDY
from distill.progress import progress
from distill.proof import Check, Proof
from distill.settings import DEFAULT_SHARE
from distill.terms.features import FeatureTerm
from distill.terms.response import Response
from distill.trial import Trial

NAME = FeatureTerm.name
LONGER = 32  # steps, where nobody waits for a run to begin
OUTPUTS = Response.name
TRUSTED = 1.0  # share of the outputs of a teacher whose features are taught


def on_trial(own: Mapping[str, Any]) -> bool:
    """Are features to be tried before this run begins?"""
    return bool(own["methods"].get(NAME, {}).get("trial")) and not own.get("trial")


def settle_features(trainer: Any, distiller: Distiller, proof: Proof) -> Proof:
    """Try features, and return the proof of what the run will teach: with them, or without.

    Features that fail the proof on any rank are left out without a trial; where something else failed there is none,
    for the run will not begin. Rank 0 tries and decides for all. What came out stands in `own["trial"]`.
    """
    own = trainer.own
    theirs = [check for check in proof.checks if NAME in check.name.split()]
    forgiven = zero_weights(own)
    others = [check for check in proof.failed if check not in theirs and check.name not in forgiven]
    if any(_gathered(bool(others))):
        return proof
    broken = [check.detail for checks in _gathered(theirs) for check in checks if not check.ok]
    weights = over_ranks({NAME: proof.weights[NAME]})
    found: list[Any] = [{"taught": False, "said": f"left out: {broken[0]}"} if broken else None]
    if not broken and RANK in {-1, 0}:
        found = [_tried(trainer, distiller, weights)]
        trainer._clear_memory()
    if dist.is_initialized():
        dist.broadcast_object_list(found, 0)
    own["trial"] = found[0]
    said = Check(NAME, True, own["trial"]["said"])
    if own["trial"]["taught"]:
        return _louder_outputs(own, replace(proof, checks=(*proof.checks, said)))
    del own["methods"][NAME]
    return replace(proof.without(NAME), checks=(*(check for check in proof.checks if check not in theirs), said))


def _louder_outputs(own: dict[str, Any], proof: Proof) -> Proof:
    """A teacher whose features do no harm is worth listening to: its outputs count in full, unless a share is given."""
    alone = {name: planned for name, planned in own["methods"].items() if name == OUTPUTS}
    outputs = [term.name for term in terms_of({**own, "methods": alone})]
    if not outputs or own["response_share"] is not None or own["response_weight"] is not None:
        return proof
    own["response_share"] = TRUSTED
    return proof.louder(outputs, TRUSTED / DEFAULT_SHARE)


def try_teaching(trainer: Any, distiller: Distiller) -> Check:
    """Does all that the run would teach hold its student up? For `doctor`, which may take its time."""
    trial = _trial(trainer, distiller, distiller.weights, max(steps_of(trainer), LONGER), "teaching")
    if trial.harms:
        return Check("teaching", True, f"with it {trial}: it works against the task; {REMEDY}", warning=True)
    return Check("teaching", True, f"with it {trial}")


def _tried(trainer: Any, distiller: Distiller, weights: Mapping[str, float]) -> dict[str, Any]:
    """What a trial of features alone says, for the manifest and for the user.

    By the true teacher: a run that is shuffled as a control teaches what the run teaches that it is the control of.
    """
    began, steps = time.monotonic(), steps_of(trainer)
    trial = _trial(trainer, distiller, weights, steps, NAME, shuffled=False)
    took = round(time.monotonic() - began, 1)
    said = f"{'left out' if trial.harms else 'taught'}: with them {trial} ({took:.0f} s)"
    return {"taught": not trial.harms, "said": said, "change": trial.change, "steps": steps, "seconds": took}


def _trial(
    trainer: Any,
    distiller: Distiller,
    weights: Mapping[str, float],
    steps: int,
    what: str,
    shuffled: bool | None = None,
) -> Trial:
    """Train two copies of the student for some steps, one of them taught by the terms that have `weights`, in full.

    The schedule counts epochs, of which a trial has none.
    """
    terms = [term for term in distiller.terms if term.name in weights]
    shuffled = distiller.shuffled if shuffled is None else shuffled
    guide = Distiller(distiller.teacher, terms, weights, distiller.fraction, distiller.seed, shuffled=shuffled)
    alone = student_copy(trainer)
    taught = DistillingModule(deepcopy(alone), guide, trainer.per_image)
    numbers, seed = range(len(trainer.train_loader.dataset)), trainer.own["seed"]
    ticks = progress(range(2 * steps), f"steps of the trial of {what}", 2 * steps)
    losses = [sprint(trainer, model, numbers, steps, seed, ticks) for model in (alone, taught)]
    next(ticks, None)
    return Trial.of(*losses)


def _gathered(value: Any) -> list[Any]:
    """The value of each rank."""
    if not dist.is_initialized():
        return [value]
    found: list[Any] = [None] * dist.get_world_size()
    dist.all_gather_object(found, value)
    return found
