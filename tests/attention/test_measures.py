"""Measures of two maps against hand references, their invariances, their chance levels, and zero maps."""

import math

import pytest
import torch
from scipy import stats
from torch import Tensor

from distill.attention.maps import AttentionMap
from distill.attention.measures import cosine, distance, effective_area, likeness, overlap, spearman
from distill.attention.pairs import Pair
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch, View

NAMES = ["distance", "cosine", "spearman", "overlap"]


def attention(values: Tensor | list, kind: str = "energy") -> AttentionMap:
    return AttentionMap(torch.as_tensor(values, dtype=torch.float32), "model.1", kind)


def noise(*shape: int, seed: int = 0) -> AttentionMap:
    return attention(torch.rand(shape, generator=torch.Generator().manual_seed(seed)))


def test_distance_is_what_the_loss_sees():
    student, teacher = torch.randn(3, 4, 6, 9), torch.randn(3, 7, 12, 9)
    term = AttentionTerm([Pair("P3", "s", "t")], form="l2")
    reading = term(View({"s": student}), View({"t": teacher}), Batch(torch.zeros(3, 3, 8, 8)))["at_P3"]
    maps = AttentionMap.read(student, "s"), AttentionMap.read(teacher, "t")
    torch.testing.assert_close(distance(*maps).mean(), reading.loss)
    torch.testing.assert_close(cosine(*maps).mean(), reading.figures["cos_P3"])


def test_by_hand():
    a, b = attention([[[3.0, 4.0]]]), attention([[[1.0, 0.0]]])
    assert distance(a, b).item() == pytest.approx(math.hypot(0.4, 0.8))
    assert cosine(a, b).item() == pytest.approx(0.6)
    assert spearman(a, b).item() == pytest.approx(-1)


def test_gates_are_compared_as_they_are():
    a, b = attention([[[0.5, 0.5]]], "gate"), attention([[[1.0, 1.0]]], "gate")
    assert distance(a, b).item() == pytest.approx(math.sqrt(0.5))
    assert cosine(a, b).item() == pytest.approx(1)
    assert distance(a, attention([[[0.0, 0.0]]], "gate")).item() == pytest.approx(math.sqrt(0.5))


def test_equal_maps():
    a = noise(2, 10, 7)
    found = likeness(a, attention(3 * a.values))
    assert list(found) == NAMES
    for name in NAMES:
        torch.testing.assert_close(found[name].double(), torch.full((2,), float(name != "distance")).double())


def test_only_the_order_counts_for_spearman_and_overlap():
    a, b = noise(2, 9, 8), noise(2, 9, 8, seed=1)
    for measure in (spearman, overlap):
        torch.testing.assert_close(measure(a, b), measure(attention(a.values.exp()), b))
    torch.testing.assert_close(spearman(a, attention(1 / (1 + a.values))), torch.tensor([-1.0, -1.0]).double())


def test_spearman_shares_the_ranks_of_equal_values():
    a, b = (attention((4 * noise(3, 6, 5, seed=seed).values).round()) for seed in (0, 1))
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a.values, b.values)]
    torch.testing.assert_close(spearman(a, b), torch.tensor(expected).double())


def test_overlap_by_hand():
    a = torch.arange(40.0).view(1, 5, 8)
    assert overlap(attention(a), attention(a.roll(1))).item() == pytest.approx(3 / 4)  # 36..39 against 37, 38, 39, 0
    assert overlap(attention(a), attention(a.flip(1))).item() == 0
    assert overlap(attention([[[1.0, 2.0]]]), attention([[[0.0, 5.0]]])).item() == 1  # one place for two cells
    unrelated = overlap(noise(200, 20, 20), noise(200, 20, 20, seed=1))
    assert unrelated.mean().item() == pytest.approx(0.1, abs=0.01)


def test_overlap_draws_lots_where_cells_tie():
    ramp, flat = torch.arange(40.0).view(1, 5, 8), torch.ones(1, 5, 8)
    assert overlap(attention(flat), attention(ramp)).item() == pytest.approx(0.1)
    peak = torch.zeros(1, 5, 8)
    peak[0, 4, 7] = 1  # the ramp's strongest cell; the other three places go to 39 cells, three of them the ramp's
    assert overlap(attention(ramp), attention(peak)).item() == pytest.approx((1 + 3 * 3 / 39) / 4)
    other = overlap(attention(peak), attention(peak.flip(1)))
    assert other.item() < 0.1, "two different peaks share no place but by lot"


def test_symmetric_and_sizes_meet():
    a, b = noise(2, 12, 5), noise(2, 6, 10, seed=1)
    small = a.resize((6, 5)), b.resize((6, 5))
    for name, found in likeness(a, b).items():
        torch.testing.assert_close(found, likeness(b, a)[name])
        torch.testing.assert_close(found, likeness(*small)[name])


@pytest.mark.parametrize("shape", [(2, 6, 5), (2, 3, 4, 5), (1, 1, 1), (0, 4, 4)])
def test_one_number_per_sample(shape):
    a, b = noise(*shape), noise(*shape, seed=1)
    for found in (*likeness(a, b).values(), effective_area(a)):
        assert found.shape == shape[:1]


def test_samples_do_not_touch_one_another():
    a, b = noise(2, 6, 5), noise(2, 6, 5, seed=1)
    second = likeness(attention(a.values[1:]), attention(b.values[1:]))
    for name, found in likeness(a, b).items():
        torch.testing.assert_close(found[1:], second[name])


def test_a_zero_map_has_no_figures():
    a = noise(2, 6, 5)
    a.values[0] = 0
    for found in (*likeness(a, noise(2, 6, 5)).values(), *likeness(noise(2, 6, 5), a).values(), effective_area(a)):
        assert found.isnan().tolist() == [True, False]
    flat = likeness(attention(torch.ones(1, 4, 5)), noise(1, 4, 5))
    assert {name: found.isnan().item() for name, found in flat.items()} == {name: name == "spearman" for name in NAMES}


def test_effective_area():
    assert effective_area(attention(torch.full((1, 7, 9), 0.3))).item() == pytest.approx(1)
    some = torch.zeros(2, 5, 8)
    some[0, 2, 3] = 1e-20
    some[1, :2, :3] = 7
    torch.testing.assert_close(effective_area(attention(some)), torch.tensor([1 / 40, 6 / 40]).double())
    p = torch.tensor([0.2, 0.3, 0.5]).double()
    assert effective_area(attention([[[2.0, 3.0, 5.0]]])).item() == pytest.approx(
        math.exp(-(p * p.log()).sum().item()) / 3
    )
    a = noise(3, 8, 9)
    torch.testing.assert_close(effective_area(a), effective_area(attention(1e4 * a.values)))
    assert ((effective_area(a) > 0) & (effective_area(a) <= 1)).all()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_maps_that_are_not_finite_have_no_figures(value):
    a = noise(1, 6, 5)
    a.values[0, 2, 2] = value
    for found in (*likeness(a, noise(1, 6, 5)).values(), effective_area(a)):
        assert not found.isfinite().any()
