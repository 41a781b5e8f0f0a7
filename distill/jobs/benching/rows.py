"""A bench's tables as text, with a head, for the terminal and for the page."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from statistics import fmean

from distill.jobs.benching.paired import Difference, references
from distill.jobs.benching.results import Results
from distill.jobs.benching.timing import spoken
from distill.jobs.benching.words import chance, points, size, times

Rows = list[tuple[str, ...]]


def arm_rows(results: Results) -> Rows:
    """Mean and scatter of each arm's scores, and its budget where an arm has one of its own."""
    alike = len({arm.epochs for arm in results.plan.arms}) == 1
    rows: Rows = [("arm", "runs", "mean", "sd", "epochs")]
    for arm in results.plan.arms:
        spread = results.spread(arm.name)
        budget = "" if alike else str(arm.epochs)
        rows.append((arm.name, str(spread.n), points(spread.mean), points(spread.sd), budget))
    return rows


def cost_rows(results: Results) -> Rows:
    """What each arm's runs took: time and memory."""
    base = references([arm.name for arm in results.plan.arms])[0]
    rows: Rows = [("arm", "per run", "s per epoch", f"x {base}", "memory", "GPU memory")]
    for arm in results.plan.arms:
        wall, seconds = results.mean(arm.name, "wall"), results.mean(arm.name, "epoch_seconds")
        cells = "" if math.isnan(wall) else spoken(wall), "" if math.isnan(seconds) else f"{seconds:.1f}"
        memory = (size(results.mean(arm.name, figure)) for figure in ("memory", "gpu"))
        rows.append((arm.name, *cells, times(seconds, results.mean(base, "epoch_seconds")), *memory))
    return rows


def difference_rows(results: Results, found: Sequence[Difference]) -> Rows:
    """The arms that are held against one reference, and what they bring of its gap to the teacher; the verdict last."""
    heads = "seeds", "mean", "of the gap", "sd", "95 % interval", "p", "Holm's p", "verdict"
    rows: Rows = [(f"minus {found[0].reference}", *heads)]
    for one in found:
        gap = results.gap(one.reference, one.values)
        mean, sd = points(one.spread.mean, "+"), points(one.spread.sd)
        between = "" if one.low is None else f"{points(one.low, '+')} to {points(one.high, '+')}"
        way = (one.spread.mean or 0.0) / gap  # NaN where there is no gap
        part = f"{way:.0%}" if way > 0 else ""
        rows.append((one.arm, str(one.spread.n), mean, part, sd, between, chance(one.p), chance(one.holm), one.words))
    return rows


def run_rows(results: Results) -> Rows:
    """Every run."""
    rows: Rows = [("arm", "seed", "state", "score", "epochs", "took", "device")]
    for one in results.outcomes:
        took, score = "" if math.isnan(one.wall) else spoken(one.wall), points(one.score)
        rows.append((one.run.arm, str(one.run.seed), one.state, score, str(len(one.scores)), took, one.device))
    return rows


def closeness_rows(results: Results, pairs: Sequence[str]) -> Rows:
    """Each arm's mean cosines to the teacher's maps, of the same and of other images."""
    rows: Rows = [("arm", *pairs, *(f"{pair}, other images" for pair in pairs))]
    for arm in results.plan.arms:
        means = (_mean(results, arm.name, pair, figure) for figure in ("cosine", "other_images") for pair in pairs)
        rows.append((arm.name, *means))
    return rows


def by_reference(results: Results) -> Iterator[tuple[str, list[Difference]]]:
    """The differences of each reference."""
    for reference in dict.fromkeys(one.reference for one in results.differences):
        yield reference, [one for one in results.differences if one.reference == reference]


def filled(rows: Rows) -> Rows:
    """Without columns that hold nothing below their head."""
    return list(zip(*(column for column in zip(*rows, strict=True) if any(column[1:])), strict=True))


def _mean(results: Results, arm: str, pair: str, figure: str) -> str:
    found = [row[figure] for row in results.closeness if (row["arm"], row["pair"]) == (arm, pair)]
    known = [value for value in found if not math.isnan(value)]
    return f"{fmean(known):.3f}" if known else ""
