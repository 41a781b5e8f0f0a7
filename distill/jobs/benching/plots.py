"""The marks in the charts of a bench's page, from its results."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from statistics import fmean, stdev

from distill.jobs.benching.paired import Difference
from distill.jobs.benching.results import Outcome, Results
from distill.jobs.benching.words import POINTS, points
from distill.view.benching.content import Dot, Estimate, Line


def estimates(found: Sequence[Difference], arms: Sequence[str]) -> list[Estimate]:
    """The differences to one reference that there are."""
    return [
        Estimate(
            one.arm,
            arms.index(one.arm),
            POINTS * one.spread.mean,
            None if one.low is None else POINTS * one.low,
            None if one.high is None else POINTS * one.high,
            [POINTS * value for value in one.values.values()],
            f"{points(one.spread.mean, '+')} ({one.verdict})",
        )
        for one in found
        if one.spread.mean is not None
    ]


def courses(results: Results, arms: Sequence[str], clock: bool = False) -> list[Line]:
    """Each arm's mean score after each epoch, plus and minus a standard deviation, against the epoch or minutes.

    Where runs know what their first weights were worth, a line begins there: at epoch 0, after the time they took.
    """
    lines = []
    for number, arm in enumerate(arms):
        if places := [place for place in _places(results.of(arm)) if place]:
            xs = [place[0 if clock else 1] for place in places]
            means, sds = ([place[i] for place in places] for i in (2, 3))
            low, high = ([m + sign * sd for m, sd in zip(means, sds, strict=True)] for sign in (-1, 1))
            lines.append(Line(arm, number, xs, means, low, high))
    return lines


def dots(results: Results, arms: Sequence[str], pair: str, reference: str) -> list[Dot]:
    """For each run its attention's cosine at a pair, and its gain over the reference's run with the same seed."""
    score = {(one.run.arm, one.run.seed): one.score for one in results.outcomes}
    found = []
    for row in results.closeness:
        gain = score.get((row["arm"], row["seed"]), math.nan) - score.get((reference, row["seed"]), math.nan)
        if row["pair"] == pair and not math.isnan(gain + row["cosine"]):
            name = f"{row['arm']} seed {row['seed']}"
            found.append(Dot(name, arms.index(row["arm"]), row["cosine"], POINTS * gain))
    return found


def _places(runs: Sequence[Outcome]) -> list[tuple[float, float, float, float] | None]:
    """For each epoch, from 0: minutes, epoch, mean and standard deviation over the runs that have it."""
    found: list[tuple[float, float, float, float] | None] = []
    for epoch, cells in enumerate(zip_longest(*map(_course, runs))):
        known = [cell for cell in cells if cell is not None and not math.isnan(cell[1])]
        values = [POINTS * score for _, score in known]
        sd = stdev(values) if len(values) > 1 else 0.0
        minutes = fmean(time for time, _ in known) / 60 if known else 0.0
        found.append((minutes, float(epoch), fmean(values), sd) if known else None)
    return found


def _course(one: Outcome) -> list[tuple[float, float]]:
    """Seconds and score before the first epoch and after each."""
    after = [(one.prepared + time, score) for time, score in zip(one.times, one.scores, strict=True)]
    return [(one.prepared, one.before), *after]
