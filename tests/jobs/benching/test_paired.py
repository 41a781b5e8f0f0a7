from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from distill.jobs.benching.paired import (
    EQUAL,
    MOST,
    ONE,
    OPEN,
    Spread,
    compared,
    difference,
    interval,
    references,
    seeds_needed,
)

PLAIN = {0: 0.40, 1: 0.43, 2: 0.41, 3: 0.44, 4: 0.42}
BETTER = {0: 0.42, 1: 0.455, 2: 0.425, 3: 0.462, 4: 0.441}


def test_a_difference_is_scipys_paired_t_test() -> None:
    found = difference("a", "plain", BETTER, PLAIN)
    test = stats.ttest_rel(list(BETTER.values()), list(PLAIN.values()))
    between = test.confidence_interval(0.95)
    assert found.p == pytest.approx(test.pvalue)
    assert (found.low, found.high) == (pytest.approx(between.low), pytest.approx(between.high))
    assert (found.verdict, found.needed) == ("better", None)
    assert difference("plain", "a", PLAIN, BETTER).verdict == "worse"


def test_an_interval_by_hand() -> None:
    # differences 1, 2, 3: mean 2, sd 1, t(0.975, 2) = 4.302653
    low, high, p = interval(Spread(3, 2.0, 1.0))
    assert (low, high) == (pytest.approx(2 - 4.302653 / math.sqrt(3)), pytest.approx(2 + 4.302653 / math.sqrt(3)))
    assert p == pytest.approx(0.0742, abs=1e-4)


def test_only_seeds_that_both_have_are_paired() -> None:
    found = difference("a", "plain", {0: 0.5, 7: 0.9}, {0: 0.4, 8: 0.1})
    assert dict(found.values) == {0: pytest.approx(0.1)} and found.verdict == ONE
    assert difference("a", "plain", {7: 0.9}, {8: 0.1}).spread.mean is None


def test_one_seed_says_nothing() -> None:
    found = difference("a", "plain", {0: 0.9}, {0: 0.1})
    assert found.words == "one seed says nothing" and found.low is None and found.p is None


def test_the_same_runs_are_equal_and_no_scatter_shows_nothing() -> None:
    assert difference("a", "plain", PLAIN, PLAIN).verdict == EQUAL
    found = difference("a", "plain", {0: 0.75, 1: 0.5}, {0: 0.5, 1: 0.25})
    assert found.verdict == OPEN and "no scatter" in found.words
    rounded = difference(
        "a", "plain", {0: 0.3, 1: 0.31}, {0: 0.4, 1: 0.41}
    )  # differences of -0.1 and -0.09999999999999998
    assert rounded.verdict == OPEN and rounded.p is None


def test_what_is_not_shown_says_how_many_seeds_would_show_it() -> None:
    found = difference("a", "plain", {0: 0.50, 1: 0.48, 2: 0.50}, {0: 0.40, 1: 0.50, 2: 0.47})
    assert found.verdict == OPEN and found.needed is not None and found.needed > 3
    assert f"{found.needed} seeds" in found.words


@pytest.mark.parametrize(("mean", "sd"), [(1.0, 1.0), (0.5, 1.0), (-0.3, 1.0), (2.0, 1.0)])
def test_seeds_needed_have_the_power(mean: float, sd: float) -> None:
    """Power of the t-test from the noncentral t distribution: at least 80 % there, clearly less with two fewer."""

    def power(n: int) -> float:
        edge, shift = stats.t.ppf(0.975, n - 1), abs(mean) / sd * math.sqrt(n)
        return float(stats.nct.sf(edge, n - 1, shift))

    n = seeds_needed(mean, sd)
    assert n is not None and power(n) > 0.78
    assert power(max(2, n - 2)) < 0.8


def test_too_many_seeds_are_none() -> None:
    assert seeds_needed(0.0, 1.0) is None
    assert seeds_needed(1e-3, 1.0) is None and (seeds_needed(0.1, 1.0) or MOST) < MOST


def test_intervals_cover_the_truth() -> None:
    draws = np.random.default_rng(0).normal(0.3, 1.0, (400, 6))
    covered = 0
    for draw in draws:
        low, high, _ = interval(Spread.of(list(draw)))
        assert low is not None and high is not None
        covered += low < 0.3 < high
    assert 0.92 < covered / 400 < 0.98


def test_holm_by_hand() -> None:
    rng = np.random.default_rng(1)
    plain = {k: float(v) for k, v in enumerate(rng.normal(0, 1, 8))}
    arms = {
        f"a{i}": {k: v + float(rng.normal(shift, 0.5)) for k, v in plain.items()} for i, shift in enumerate((1, 0.5, 0))
    }
    found = {one.arm: one for one in compared({"plain": plain, **arms}, "plain")}
    ordered = sorted(found.values(), key=lambda one: one.p or 0)
    expected = 0.0
    for one, factor in zip(ordered, (3, 2, 1)):
        assert one.p is not None
        expected = max(expected, min(1.0, factor * one.p))
        assert one.holm == pytest.approx(expected)


def test_references() -> None:
    assert references(["attention", "native", "plain"]) == ["plain", "native"]
    assert references(["mine", "native"]) == ["native"]
    assert references(["native-2", "native", "plain"]) == ["plain", "native"]
    assert references(["native-2", "plain", "native-1"]) == ["plain", "native-2"]
    assert references(["native-1-init", "native-2", "plain", "init"]) == ["plain", "native-2", "init", "native-1-init"]
    assert references(["default", "native-1-fit", "fit", "my-fit"]) == ["fit", "native-1-fit"]
    assert references(["mine", "other"]) == ["mine"]
