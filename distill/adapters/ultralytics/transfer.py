"""From a run's settings to what it transfers: the terms, their weights and shares, and the schedule."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from ultralytics.utils import RANK

from distill.distiller import Distiller
from distill.errors import InputError
from distill.proof import weight_check
from distill.schedule import Schedule
from distill.teacher import Teacher
from distill.terms import methods
from distill.terms.base import Term
from distill.weighting import Follower

USUAL_EPOCHS = 100  # where neither epochs= nor time= says


def terms_of(own: dict[str, Any], audit: bool = False) -> list[Term]:
    """What a run compares; see `methods.terms_of`. Nothing where the settings are not known yet, as on resume."""
    return methods.terms_of(own.get("methods", {}), own, audit)


def distiller_of(own: dict[str, Any], teacher: Teacher | None, **options: Any) -> Distiller:
    """The distiller of a run's settings, without weights yet; `options` are `Distiller`'s."""
    seed = own["seed"] + max(RANK, 0)
    return Distiller(teacher, terms_of(own), {}, seed=seed, shuffled=own.get("shuffled", False), **options)


def schedule_of(own: Mapping[str, Any], arguments: Mapping[str, Any]) -> Schedule:
    """How the weights go over the epochs; `arguments` are the trainer's, with their defaults.

    Raises InputError where no epoch is left for distillation, or nobody knows how many there will be.
    """
    shape, begin = own.get("schedule", "constant"), own.get("warmup", 0.0)
    tail = 0
    if own.get("stop_with_mosaic"):
        tail = arguments["close_mosaic"]
        if not tail or not arguments["mosaic"] or arguments["rect"]:  # with rect= Ultralytics makes none
            raise InputError(
                "--stop-with-mosaic has no effect: these settings train without mosaic, or with it to the end"
            )
    epochs = arguments["epochs"] or USUAL_EPOCHS
    if arguments["time"] and (tail or shape != "constant"):
        raise InputError("time= leaves open how many epochs there will be: leave out --schedule and --stop-with-mosaic")
    if begin + tail >= epochs and not arguments["time"]:
        raise InputError(
            f"--warmup {begin:g} and the last {tail} epochs without mosaic leave none of {epochs} epochs for "
            f"distillation: take more epochs, or another close_mosaic="
        )
    return Schedule(math.inf if shape == "constant" and not tail else epochs, shape, begin, own.get("floor", 0.1), tail)


def follower_of(own: dict[str, Any], distiller: Distiller) -> Follower | None:
    """What keeps measured weights at their share; None where all are fixed or held."""
    given, shares = _given(own), shares_of(own)
    followed = {term.name: shares[term.name] for term in distiller.terms if given[term.name] is None}
    if own.get("hold") or not followed:
        return None
    return Follower(distiller, followed, own.setdefault("first_weights", dict(own["weights"])))


def fixed_weights(own: dict[str, Any]) -> dict[str, float]:
    """The weights that are given, or were measured when the run began; the others are measured."""
    return {name: weight for name, weight in _given(own).items() if weight is not None} | own["weights"]


def zero_weights(own: dict[str, Any]) -> list[str]:
    """The checks that fail because a weight of 0 was asked for, as a control."""
    return [weight_check(name) for name, weight in _given(own).items() if weight == 0]


def shares_of(own: dict[str, Any]) -> dict[str, float]:
    """The share of the task's gradient that each term is to have."""
    return methods.shares_of(own["methods"], own)


def _given(own: dict[str, Any]) -> dict[str, float | None]:
    return methods.fixed_of(own["methods"], own)
