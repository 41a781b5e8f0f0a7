"""How long a bench will take, measured before it starts: each arm trains three short epochs on a part of the data."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from distill.errors import DistillError
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.processes import Ended
from distill.jobs.benching.running import Command, Pool, train_command
from distill.jobs.benching.states import DONE, Run, clock
from distill.jobs.training import resolved
from distill.loading import is_unet, ultralytics_adapter
from distill.records import command_line

TRIAL = ".trial"
BATCHES = 8  # of a trial's epoch: enough that a step's time settles
EPOCHS = 3  # the first pays for the start of the loaders, the last one validates too
WORTH_IT = 20  # epochs of an arm over all seeds, from which a trial costs little beside them


def estimate(plan: Plan, bench: Path, lock: int, command: Command = train_command) -> dict[str, float]:
    """Seconds that a run of each arm will take, as far as that could be measured; see `whole_run`.

    Empty for benches so short that a trial would take as long, and for U-Nets, which take no part of their data.
    """
    first = plan.arms[0]
    epochs = sum(arm.epochs for arm in plan.arms) / len(plan.arms)
    if epochs * len(plan.seeds) < WORTH_IT or is_unet(str(first.values["student"])):
        return {}
    try:
        images = images_of(plan)
    except DistillError:  # what cannot be counted cannot be divided
        return {}
    print(f"timing each arm on {BATCHES} batches ...", file=sys.stderr, flush=True)
    trials = bench / TRIAL
    budget = {"epochs": EPOCHS, "patience": 100, "val": False, "close_mosaic": 0}
    parts = {arm.name: part_of(arm.values, images) for arm in plan.arms}
    arms = tuple(
        replace(arm, values={**arm.values, **budget, "fraction": parts[arm.name] * _fraction(arm.values)})
        for arm in plan.arms
    )
    ends: dict[str, Ended] = {}
    try:
        replace(plan, arms=arms).write(trials)
        runs = [Run(trials, arm.name, plan.seeds[0], EPOCHS) for arm in arms]
        Pool(plan, lock, command, ended=lambda run, how: ends.__setitem__(run.arm, how)).work(runs)
        found = {}
        for arm, run in zip(plan.arms, runs, strict=True):
            if run.state() == DONE and len(times := clock(run)) == EPOCHS:
                validated = arm.epochs if arm.validates else 1
                found[arm.name] = whole_run(times, ends[arm.name].seconds, parts[arm.name], arm.epochs, validated)
            else:
                print(f"distill: the trial of arm '{arm.name}' failed: {run.complaint()}", file=sys.stderr)
        return found
    finally:
        shutil.rmtree(trials, ignore_errors=True)


def whole_run(times: list[float], wall: float, part: float, epochs: int, validated: int) -> float:
    """Seconds of a run of so many epochs, of which so many validate, from a trial: its `times` at the end of three
    epochs, the last of which validates, on a `part` of the data, and the `wall` clock's from its start to its end.
    """
    training = times[1] - times[0]
    validation = max(0.0, times[2] - times[1] - training)
    around = wall - 2 * training - (times[2] - times[1])  # start, checks, the final validation
    return around + epochs * training / part + validated * validation


def part_of(values: Mapping[str, Any], images: int) -> float:
    """The part that makes `BATCHES` batches of those that an arm trains on, itself a `fraction` of so many images."""
    return min(1.0, BATCHES * _batch(values) / max(images * _fraction(values), 1))


def images_of(plan: Plan) -> int:
    """How many training images there are. Raises InputError for data that has no count."""
    values = plan.arms[0].values
    settings, arguments = resolved(None, values)
    adapter = ultralytics_adapter(settings.trust)
    task = adapter.plan(settings, arguments, command_line()).overrides["task"]
    return len(adapter.images_of(adapter.read_data(settings.data, task, settings.trust), "train"))


def _fraction(values: Mapping[str, Any]) -> float:
    return float(values.get("fraction", 1.0))  # Ultralytics' own checks were passed


def _batch(values: Mapping[str, Any]) -> int:
    try:
        asked = int(float(values.get("batch", 16)))
    except ValueError:
        return 16
    return asked if asked > 0 else 16  # -1: Ultralytics finds it, and 16 is its default
