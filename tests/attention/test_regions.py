"""Maps on regions: by hand, for flat maps, for volumes, and as for boxes where the region is one."""

import numpy as np
import pytest

from distill.attention.geometry import Frame, Lattice
from distill.attention.objects import focus
from distill.attention.regions import correlation, focus_on


def lattice(*strides):
    return Lattice(tuple(stride / 2 for stride in strides), tuple(map(float, strides)))


def region(size, *spans):
    found = np.zeros(size, bool)
    found[tuple(slice(*span) for span in spans)] = True
    return found


def test_by_hand():
    found = focus_on(np.array([[1.0, 2.0], [3.0, 4.0]]), lattice(2, 2), region((4, 4), (0, 2), (1, 4)))
    assert found.energy == pytest.approx((1 / 2 + 2) / 10)  # half of the first cell, all of the second
    assert found.share == pytest.approx(6 / 16)
    assert found.ratio == pytest.approx(found.energy / found.share)
    assert found.pointing is None


@pytest.mark.parametrize("size", [(8, 8), (7, 5), (35, 48, 31)])
@pytest.mark.parametrize("stride", [1, 2, 4, 16])
def test_a_flat_map_has_a_ratio_of_1(size, stride):
    grid = tuple(-(-side // stride) for side in size)
    inside = np.random.default_rng(0).random(size) > 0.7
    assert focus_on(np.full(grid, 3.0), lattice(*[stride] * len(size)), inside).ratio == pytest.approx(1)


def test_a_rectangle_is_a_box():
    values = np.random.default_rng(1).random((5, 6))
    grid = Lattice((1.0, 2.5), (4.0, 4.0))  # also where cells do not begin at the edge
    inside = region((20, 24), (3, 11), (5, 20))
    box = focus(values, grid, Frame((20, 24), (20, 24), (1.0, 1.0), (0.0, 0.0)), (5, 3, 20, 11))
    found = focus_on(values, grid, inside)
    assert (found.energy, found.share, found.ratio) == pytest.approx((box.energy, box.share, box.ratio))


def test_what_does_not_exist_is_none():
    assert focus_on(np.ones((2, 2)), lattice(2, 2), np.zeros((4, 4), bool)).ratio is None
    nothing = focus_on(np.zeros((2, 2)), lattice(2, 2), np.ones((4, 4), bool))
    assert (nothing.energy, nothing.share) == (None, 1)
    assert correlation(np.ones((2, 2)), lattice(2, 2), region((4, 4), (0, 2), (0, 2))) is None
    assert correlation(np.random.rand(2, 2), lattice(2, 2), np.zeros((4, 4), bool)) is None


def test_correlation_is_that_with_the_share_in_each_cell():
    values = np.random.default_rng(2).random((2, 3))
    inside = region((4, 5), (0, 3), (2, 5))  # the last column of cells is cut to half
    shares = np.array([[0, 1, 1], [0, 0.5, 0.5]])
    expected = np.corrcoef(values.ravel(), shares.ravel())[0, 1]
    assert correlation(values, lattice(2, 2), inside) == pytest.approx(expected)
    assert correlation(shares, lattice(2, 2), inside) == pytest.approx(1)
    assert correlation(-shares, lattice(2, 2), inside) == pytest.approx(-1)
