"""What a bench found, in words and in numbers as they are shown."""

from __future__ import annotations

import math

from distill.jobs.benching.paired import ONE, OPEN, Difference
from distill.jobs.benching.results import Results
from distill.jobs.benching.states import DONE, FAILED

POINTS = 100.0  # scores lie in [0, 1] and are shown in points
UNCORRECTED = "Intervals are of each comparison alone; Holm's p takes the number of arms into account."


def progress(results: Results) -> str:
    """How many of how many, and which failed."""
    failed = [f"{one.run.arm} seed {one.run.seed}" for one in results.outcomes if one.state == FAILED]
    told = f"; failed: {', '.join(failed)} (see {results.outcomes[0].run.log.parent})" if failed else ""
    lost = [f"{o.run.arm} seed {o.run.seed}" for o in results.outcomes if o.state == DONE and math.isnan(o.score)]
    if lost:
        told += f"; without a score, and in no mean: {', '.join(lost)}"
    return f"{results.done} of {len(results.outcomes)} runs are done{told}"


def figure(results: Results) -> str:
    """What the scores are."""
    return f"{results.score.removeprefix('metrics/')} of the last epoch, in points (of 100)"


def of_teacher(results: Results) -> str:
    """What the teacher scores, and whether it is above the students; empty where nothing is known of it."""
    if math.isnan(results.teacher):
        return ""
    means = {arm.name: results.spread(arm.name).mean for arm in results.plan.arms}
    level = [name for name, mean in means.items() if mean is not None and mean >= results.teacher]
    told = f"; no less than it: {', '.join(level)}, to which it has little to teach" if level else ""
    return f"the teacher scores {points(results.teacher)} on these images{told}"


def headline(one: Difference) -> str:
    """One comparison as a sentence."""
    about = f"{one.arm} against {one.reference}"
    if one.spread.mean is None:
        return f"{about}: no seed has both yet."
    seeds = f"{one.spread.n} seed{'s' * (one.spread.n != 1)}"
    if one.verdict == ONE:
        return f"{about}: {points(one.spread.mean, '+')} points with one seed, which says nothing."
    if one.low is None or one.high is None:
        return f"{about}: {points(one.spread.mean, '+')} points with each of {seeds}: {one.words}."
    between = f"{points(one.spread.mean, '+')} points ({points(one.low, '+')} to {points(one.high, '+')}, {seeds})"
    if one.verdict == OPEN:
        return f"{about}: {between}: {one.words}."
    doubt = f", but not after Holm's correction for all arms (p {chance(one.holm)})" if (one.holm or 0) > 0.05 else ""
    return f"{one.arm} is {one.verdict} than {one.reference}: {between}{doubt}."


def points(value: float | None, sign: str = "") -> str:
    """A score or a difference of scores; empty where there is none."""
    if value is None or math.isnan(value):
        return ""
    return f"{round(POINTS * value, 2) or 0.0:{sign}.2f}".replace("-", "−")  # no minus before a zero


def chance(p: float | None) -> str:
    """A p-value."""
    return "" if p is None else "< 0.001" if p < 0.001 else f"{p:.3f}"


def size(memory: float) -> str:
    """Bytes; empty where not known."""
    return "" if math.isnan(memory) else f"{memory / 2**30:.2f} GiB"


def times(seconds: float, base: float) -> str:
    """How many times as long as the base; empty where not known."""
    return f"{seconds / base:.2f}" if base > 0 and not math.isnan(seconds) else ""


def capital(text: str) -> str:
    """The text with a capital first letter."""
    return text[:1].upper() + text[1:]
