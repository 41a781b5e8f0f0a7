"""Intervals over images: known values, degenerate data, what counts together; the verdict of the controls."""

import warnings
from itertools import product
from math import sqrt

import numpy as np
import pytest

from distill.jobs.seeing.intervals import FIGURES, MAP_FIGURES, interval, silent_pairs, summarise

BLANK = dict.fromkeys(MAP_FIGURES)


def test_interval_of_two_values():
    # every resample is (a, a), (a, b), (b, a) or (b, b): the ends are the values themselves
    found = interval([1.0, 3.0])
    assert (found.mean, found.low, found.high, found.n) == (2, 1, 3, 2)


def test_interval_of_three_values_by_enumeration():
    values = [0.0, 1.0, 5.0]
    means = [np.mean(draw) for draw in product(values, repeat=3)]
    found = interval(values)
    assert [found.low, found.high] == pytest.approx(list(np.quantile(means, [0.025, 0.975], method="inverted_cdf")))


def test_interval_of_many_values_is_the_normal_one():
    values = np.random.default_rng(1).normal(5, 2, 400)
    found, half = interval(list(values)), 1.96 * values.std() / sqrt(400)
    assert found.low == pytest.approx(values.mean() - half, abs=0.03)
    assert found.high == pytest.approx(values.mean() + half, abs=0.03)


def test_interval_depends_on_values_and_seed_alone():
    values = list(np.random.default_rng(0).random(9))
    assert interval(values, 3) == interval(values, 3)
    assert interval(values, 3) != interval(values, 4)


@pytest.mark.parametrize("n", [2, 5])
def test_equal_values_neither_warn_nor_crash(n):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = interval([0.1] * n)
    assert (found.mean, found.low, found.high) == pytest.approx((0.1, 0.1, 0.1))


def test_too_few_values():
    assert vars(interval([0.25])) == {"mean": 0.25, "low": None, "high": None, "n": 1}
    with pytest.raises(ValueError, match="no values"):
        interval([])


# ---- the summary


def seen(image: str, pair: str = "P3", network: str = "student", **figures) -> dict:
    return {"image": image, "pair": pair, "network": network, **BLANK, **figures}


def thing(image: str, ratio: float | None, status: str | None = "hit", **figures) -> dict:
    blank = dict.fromkeys(("energy", "share", "ratio_gap", "pointing", "pointing_chance"))
    head = {"image": image, "pair": "P3", "network": "student", "size": "small", "status": status, "ratio": ratio}
    return head | blank | figures


def means(summary: dict, pair: str = "P3", network: str = "student") -> dict[str, float]:
    return {figure: found.mean for figure, found in summary[pair][network].items()}


def test_images_are_what_is_averaged_over():
    objects = [thing("a", 1.0), thing("a", 3.0), thing("b", 8.0)]
    found = summarise([], objects, ["P3"], ["student"])["P3"]["student"]["box_ratio"]
    assert (found.mean, found.n) == (5, 2)


def test_figures_that_do_not_exist_are_left_out():
    maps = [seen("a", distance=0.5), seen("b", distance=None), seen("c", distance=0.7)]
    found = summarise(maps, [], ["P3", "P4"], ["student", "teacher"])
    assert found["P3"]["student"]["distance"].n == 2
    assert list(found["P3"]["student"]) == ["distance"]
    assert found["P3"]["teacher"] == found["P4"]["student"] == {}


def test_parts_of_the_objects():
    objects = [
        thing("a", 1.0, "hit", size="small"),
        thing("a", 2.0, "miss", size="large"),
        thing("b", 4.0, None, size="large"),
        thing("b", 100.0, "false alarm", size="medium"),
    ]
    assert means(summarise([], objects, ["P3"], ["student"])) == {
        "box_ratio": (1.5 + 4) / 2,
        "box_ratio:small": 1,
        "box_ratio:large": 3,
        "box_ratio:hit": 1,
        "box_ratio:miss": 2,
        "box_ratio:false alarm": 100,
    }


def test_pointing_and_chance_are_of_the_same_objects():
    objects = [
        thing("a", None, pointing=1.0, pointing_chance=0.25),
        thing("a", None, pointing=None, pointing_chance=1.0),
    ]
    assert means(summarise([], objects, ["P3"], ["student"])) == {
        "pointing": 1,
        "pointing_chance": 0.25,
        "pointing:small": 1,
        "pointing:hit": 1,
    }


def test_order():
    maps = [seen("a", area=1.0, distance=1.0, network=network, pair=pair) for pair in "xy" for network in "ab"]
    found = summarise(maps, [], ["y", "x"], ["b", "a"])
    assert list(found) == ["y", "x"] and list(found["x"]) == ["b", "a"]
    assert list(found["x"]["a"]) == [figure for figure in FIGURES if figure in ("distance", "area")]


# ---- the verdict


def pairs(own: list[float], shuffled: list[float | None], untrained: float | None = None) -> list[dict]:
    return [
        seen(f"{i}", distance=a, shuffled_distance=b, untrained_distance=untrained)
        for i, (a, b) in enumerate(zip(own, shuffled))
    ]


def test_a_pair_that_tells_something():
    assert silent_pairs(pairs([0.1, 0.2, 0.3, 0.4], [0.2, 0.3, 0.4, 0.5], 0.9), ["P3"], "student") == {}


def test_images_are_paired():
    # the distances of images overlap widely, and yet each image is nearer to its own
    own = [0.1, 0.5, 0.9, 0.3, 0.7]
    assert silent_pairs(pairs(own, [d + 0.01 for d in own]), ["P3"], "student") == {}


def test_no_closer_than_shuffled():
    rows = pairs([0.4, 0.5, 0.4, 0.5], [0.5, 0.4, 0.4, 0.5], 0.9)
    reason = silent_pairs(rows, ["P3"], "student")["P3"]
    assert "0.450, is not clearly below that to its maps of other images, 0.450" in reason
    assert "\n" not in reason


def test_no_closer_than_untrained():
    rows = pairs([0.4, 0.5, 0.4, 0.5], [0.9, 0.9, 0.9, 0.9], 0.4)
    assert "that of an untrained student, 0.400" in silent_pairs(rows, ["P3"], "student")["P3"]


def test_no_closer_than_a_flat_map():
    rows = [{**row, "flat_distance": 0.3} for row in pairs([0.4, 0.5, 0.4, 0.5], [0.9] * 4, 0.9)]
    assert "that of a flat map, 0.300" in silent_pairs(rows, ["P3"], "student")["P3"]


def test_few_images_give_no_verdict():
    worse = pairs([0.9, 0.9, 0.9, 0.9], [0.1, 0.1, 0.1, 0.1])
    assert silent_pairs(worse, ["P3"], "student").keys() == {"P3"}
    assert silent_pairs(worse[:3], ["P3"], "student") == {}
    assert silent_pairs(worse, ["P4"], "student") == {}, "another pair"
    assert silent_pairs(worse, ["P3"], "baseline") == {}, "another network"
    assert silent_pairs(pairs([0.9] * 4, [None, 0.1, 0.1, 0.1]), ["P3"], "student") == {}, "three that can be paired"
