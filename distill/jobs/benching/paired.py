"""What paired runs say: means, differences within a seed, Student's t for their mean, and a verdict in words.

Every figure is over seeds: the same data, split and recipe, other weights and another order of images. Nothing here
speaks of other data sets.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from scipy.stats import t as student

LEVEL = 0.95  # of intervals
POWER = 0.8  # chance to see a difference of the size that was seen, with as many seeds as are said to be needed
ROUNDING = 1e-9  # of scores in [0, 1]: what is smaller is none
MOST = 1000  # seeds; what needs more will not be settled
BETTER, WORSE, OPEN, EQUAL, ONE, NONE = "better", "worse", "not shown", "equal", "one seed says nothing", "no pair yet"


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation (n - 1) of `n` values; None where there are none, or too few."""

    n: int
    mean: float | None
    sd: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        return cls(len(values), fmean(values) if values else None, stdev(values) if len(values) > 1 else None)


@dataclass(frozen=True)
class Difference:
    """An arm less its reference, seed by seed: `values` by seed, their spread, the 95 % interval of the mean.

    `p` is two-sided, `holm` the same adjusted for the arms that are compared with this reference (Holm, Scandinavian
    Journal of Statistics 6, 1979). `needed` is the number of seeds that would settle a difference like the one seen.
    """

    arm: str
    reference: str
    values: Mapping[int, float]
    spread: Spread
    low: float | None
    high: float | None
    p: float | None
    holm: float | None
    verdict: str
    needed: int | None

    @property
    def words(self) -> str:
        """The verdict with what would settle it."""
        if self.verdict != OPEN:
            return self.verdict
        if self.low is None:
            return f"{OPEN}; every seed gave the same difference, which leaves no scatter to judge it by"
        if self.needed is None:
            return f"{OPEN}; not even {MOST} seeds would settle so small a difference"
        return f"{OPEN}; {self.needed} seeds would settle a difference like this one"


Scores = Mapping[int, float]  # by seed


def difference(arm: str, reference: str, ours: Scores, theirs: Scores) -> Difference:
    """What the seeds that both have say of `arm` against `reference`; `holm` is left open."""
    values = {seed: ours[seed] - theirs[seed] for seed in ours if seed in theirs}
    spread = Spread.of(list(values.values()))
    low, high, p = interval(spread)
    return Difference(arm, reference, values, spread, low, high, p, None, *_verdict(spread, low, high))


def interval(spread: Spread) -> tuple[float | None, float | None, float | None]:
    """The 95 % t-interval of the mean, and the two-sided p of a mean of 0; None where sd says nothing."""
    if spread.mean is None or (spread.sd or 0.0) < ROUNDING:
        return None, None, None
    error = (spread.sd or 0.0) / math.sqrt(spread.n)
    half = float(student.ppf(0.5 + LEVEL / 2, spread.n - 1)) * error
    return spread.mean - half, spread.mean + half, float(2 * student.sf(abs(spread.mean) / error, spread.n - 1))


def seeds_needed(mean: float, sd: float) -> int | None:
    """The fewest seeds with which a mean difference of this size and scatter is told from 0, in 4 of 5 attempts.

    The smallest n with (t(0.975, n - 1) + t(0.8, n - 1)) sd / sqrt n <= |mean|, the usual approximation to the power of
    the paired t-test; None above `MOST`.
    """
    for n in range(2, MOST + 1):
        reach = float(student.ppf(0.5 + LEVEL / 2, n - 1) + student.ppf(POWER, n - 1)) * sd / math.sqrt(n)
        if reach <= abs(mean):
            return n
    return None


def compared(scores: Mapping[str, Scores], reference: str, skip: Collection[str] = ()) -> list[Difference]:
    """Every other arm but those to `skip` against the reference, in order, with p adjusted for their number."""
    others = [arm for arm in scores if arm != reference and arm not in skip]
    return with_holm([difference(arm, reference, scores[arm], scores[reference]) for arm in others])


def with_holm(found: Sequence[Difference]) -> list[Difference]:
    """The differences with `holm` set: the p-values, smallest first, times how many are left, never decreasing."""
    known = sorted((i for i, one in enumerate(found) if one.p is not None), key=lambda i: found[i].p or 0.0)
    adjusted: dict[int, float] = {}
    highest = 0.0
    for rank, i in enumerate(known):
        highest = max(highest, min(1.0, (len(known) - rank) * (found[i].p or 0.0)))
        adjusted[i] = highest
    return [replace(one, holm=adjusted.get(i)) for i, one in enumerate(found)]


def references(arms: Sequence[str]) -> list[str]:
    """What the others are held against: plain training and a native arm, `native` before others; else the first.

    So are those two from first weights that come from the teacher, where a bench has such arms: they tell how much of a
    gain is that of the weights, and how much that of being taught.
    """
    kinds = "plain", r"native(-\d+)?", "fit|init", r"native(-\d+)?-(fit|init)"
    found = [sorted((a for a in arms if re.fullmatch(kind, a)), key=lambda a: a != "native")[:1] for kind in kinds]
    return [arm for one in found for arm in one] or list(arms[:1])


def _verdict(spread: Spread, low: float | None, high: float | None) -> tuple[str, int | None]:
    if spread.mean is None:
        return NONE, None
    if spread.n == 1:
        return ONE, None
    if low is None or high is None:  # all differences are the same
        return (EQUAL if abs(spread.mean) < ROUNDING else OPEN), None
    if low > 0 or high < 0:
        return (BETTER if low > 0 else WORSE), None
    return OPEN, seeds_needed(spread.mean, spread.sd or 0.0)
