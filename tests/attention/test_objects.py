"""Boxes on maps: energy and pointing by hand on small grids, geometry, invariances; matching as COCO does it."""

import numpy as np
import pytest

from distill.attention.geometry import Frame, Lattice
from distill.attention.objects import Focus, Matches, Object, focus, match, size_class

STRIDE = 8
FULL = Frame((32, 48), (32, 48), (1.0, 1.0), (0.0, 0.0))
CENTRED = Lattice((4.0, 4.0), (8.0, 8.0))  # cell i is pixels 8 i to 8 i + 8
LETTERBOXED = Frame((16, 48), (32, 48), (1.0, 1.0), (8.0, 0.0))  # rows 1 and 2 of the cells are the picture


def ramp(h: int = 4, w: int = 6) -> np.ndarray:
    return np.arange(h * w, dtype=np.float32).reshape(h, w)


def test_energy_of_whole_cells():
    found = focus(ramp(), CENTRED, FULL, (8, 8, 24, 16))  # cells (1, 1) and (1, 2)
    assert found.energy == pytest.approx((7 + 8) / 276)
    assert found.share == pytest.approx(2 / 24)
    assert found.ratio == pytest.approx(15 / 276 * 12)


def test_energy_of_parts_of_cells():
    found = focus(
        ramp(), CENTRED, FULL, (12, 6, 18, 8)
    )  # a quarter of the rows, half of cell (0, 1), a quarter of (0, 2)
    assert found.energy == pytest.approx((0.5 * 1 + 0.25 * 2) / 4 / 276)


def test_the_offset_moves_the_cells():
    lattice = Lattice((0.0, 2.0), (8.0, 8.0))  # rows: cell 1 is 4 to 12; columns: cell 1 is 6 to 14
    values = np.zeros((4, 6), np.float32)
    values[1, 1] = 1
    assert focus(values, lattice, FULL, (6, 4, 14, 12)).energy == pytest.approx(1)
    assert focus(values, lattice, FULL, (8, 8, 16, 16)).energy == pytest.approx(0.5 * 0.75)


@pytest.mark.parametrize("frame", [FULL, LETTERBOXED, Frame((100, 90), (32, 48), (0.3, 0.5), (1.0, 2.0))])
@pytest.mark.parametrize("offset", [0.0, 2.0, 4.0, 7.0])
@pytest.mark.parametrize("box", [(0, 0, 48, 16), (40, 1, 47.5, 15.9), (0, 0, 0.5, 0.5), (3, 2, 20, 9)])
def test_a_flat_map_ignores_every_object(frame, offset, box):
    found = focus(np.full((4, 6), 3, np.float32), Lattice((offset, offset), (8.0, 8.0)), frame, box)
    assert found.ratio == pytest.approx(1)
    assert found.pointing is None or found.pointing == pytest.approx(found.pointing_chance)


def test_the_whole_picture_has_all_the_energy():
    found = focus(ramp(), CENTRED, LETTERBOXED, (0, 0, 48, 16))
    assert (found.energy, found.share, found.ratio) == (1, 1, 1)


def test_the_border_is_no_part_of_the_picture():
    values, other = ramp(), ramp()
    other[[0, 3]] = 1e6  # the letterbox's border
    box = (8, 0, 24, 8)  # in the picture; cells (1, 1) and (1, 2)
    assert focus(values, CENTRED, LETTERBOXED, box) == focus(other, CENTRED, LETTERBOXED, box)
    assert focus(values, CENTRED, LETTERBOXED, box).energy == pytest.approx((7 + 8) / ramp()[1:3].sum())


def test_the_scale_does_not_matter():
    enlarged = Frame((64, 48), (32, 48), (0.5, 1.0), (0.0, 0.0))
    a, b = focus(ramp(), CENTRED, FULL, (5, 3, 20, 11)), focus(7 * ramp(), CENTRED, enlarged, (5, 6, 20, 22))
    assert vars(a) == pytest.approx(vars(b))


def test_what_lies_outside_the_picture_is_cut_off():
    assert focus(ramp(), CENTRED, FULL, (40, 24, 80, 99)).share == pytest.approx(1 / 24)
    assert focus(ramp(), CENTRED, FULL, (60, 0, 80, 9)) == Focus(share=0)
    cropped = Frame((32, 96), (32, 48), (1.0, 1.0), (0.0, -48.0))  # the right half is what the network sees
    assert focus(ramp(), CENTRED, cropped, (48, 0, 56, 8)).share == pytest.approx(1 / 24)
    assert focus(ramp(), CENTRED, cropped, (0, 0, 40, 8)) == Focus(share=0)


def test_a_sliver_points_nowhere():
    found = focus(ramp(), CENTRED, FULL, (9, 9, 9 + 1e-7, 12))
    assert found.ratio == pytest.approx(7 * 24 / 276)
    assert (found.pointing, found.pointing_chance) == (None, None)


def test_maps_without_energy():
    box = (8, 8, 24, 16)
    assert focus(np.zeros((4, 6), np.float32), CENTRED, FULL, box) == Focus(share=2 / 24)
    assert focus(np.full((4, 6), np.nan, np.float32), CENTRED, FULL, box) == Focus(share=2 / 24)


def test_pointing_by_hand():
    box = (8, 8, 24, 16)  # cells (1, 1), (1, 2); its neighbourhood is 0 to 32, 4 to 20: rows 0 to 2, columns 0 to 3
    values = np.ones((4, 6), np.float32)
    values[3, 5] = 9  # far from it
    values[1, 2] = 2
    assert focus(values, CENTRED, FULL, box).pointing == 1
    assert focus(values, CENTRED, FULL, box).pointing_chance == pytest.approx(2 / 12)
    values[2, 2] = 3
    assert focus(values, CENTRED, FULL, box).pointing == 0
    values[1, 1] = 3
    assert focus(values, CENTRED, FULL, box).pointing == 0.5, "two equally strong ones, one of them in the box"


def test_the_chance_is_what_random_maps_score():
    rng = np.random.default_rng(0)
    found = [focus(rng.random((4, 6)), CENTRED, FULL, (10, 9, 23, 15)) for _ in range(1000)]
    assert np.mean([f.pointing for f in found]) == pytest.approx(found[0].pointing_chance, abs=0.04)


def test_boxes_smaller_than_a_cell():
    within = focus(ramp(), CENTRED, FULL, (11, 11, 13, 13))  # grown, it is still within the same cell
    assert (within.pointing, within.pointing_chance) == (None, 1)
    at_the_edge = focus(ramp(), CENTRED, FULL, (11, 9, 13, 12))  # grown, it reaches into the row above
    assert at_the_edge.pointing_chance == 0.5
    assert at_the_edge.pointing == 1
    whole = focus(ramp(), CENTRED, FULL, (0, 0, 48, 32))
    assert whole.pointing is None


@pytest.mark.parametrize(
    ("box", "chance"),
    [
        ((24, 8, 40, 16), 2 / 12),  # grown: columns 2 to 5, rows 0 to 2
        ((8, 8, 24, 16), 2 / 12),  # columns 0 to 3, rows 0 to 2
        ((0, 16, 8, 32), 2 / 6),  # columns 0 and 1, rows 1 to 3
        ((40, 0, 48, 16), 2 / 6),  # columns 4 and 5, rows 0 to 2
        ((0, 0, 48, 16), 12 / 18),  # all columns, rows 0 to 2
    ],
)
def test_the_neighbourhood_is_twice_the_box(box, chance):
    assert focus(ramp(), CENTRED, FULL, box).pointing_chance == pytest.approx(chance)


@pytest.mark.parametrize("offset", [4 + 1e-14, 4 - 1e-14])
def test_a_shared_edge_is_no_overlap(offset):
    lattice = Lattice((offset, offset), (8.0, 8.0))
    assert focus(ramp(), lattice, FULL, (8, 8, 24, 16)).pointing_chance == pytest.approx(2 / 12)


@pytest.mark.parametrize(
    ("side", "expected"), [(1, "small"), (31.9, "small"), (32, "medium"), (95.9, "medium"), (96, "large")]
)
def test_sizes_are_cocos(side, expected):
    assert size_class((10, 20, 10 + side, 20 + side)) == expected


# ---- which prediction finds which label

A, B = Object((0, 0, 10, 10), "disc"), Object((20, 0, 30, 10), "disc")


def predicted(box: tuple, score: float = 0.9, name: str = "disc") -> Object:
    return Object(box, name, score)


def test_hits_misses_and_false_alarms():
    hit, astray = predicted((0, 0, 10, 9)), predicted((50, 50, 60, 60))
    assert match([A, B], [astray, hit]) == Matches((hit, None), (astray,))


def test_nothing_to_match():
    assert match([], []) == Matches((), ())
    assert match([A], []) == Matches((None,), ())
    assert match([], [predicted(A.box)]) == Matches((), (predicted(A.box),))


def test_the_class_counts():
    other = predicted(A.box, name="ring")
    assert match([A], [other]) == Matches((None,), (other,))


def test_a_second_prediction_is_a_false_alarm():
    second, first = predicted(A.box, 0.5), predicted((0, 0, 10, 8), 0.8)
    assert match([A], [second, first]) == Matches((first,), (second,)), "the higher score comes first"


def test_the_limit_is_included():
    half = predicted((0, 0, 10, 5))
    assert match([A], [half]).found == (half,)
    assert match([A], [half], iou=0.51).found == (None,)


def test_each_takes_the_label_that_it_covers_best():
    near = Object((0, 1, 10, 11), "disc")
    best, next_best = predicted((0, 1, 10, 11), 0.9), predicted((0, 1, 10, 11), 0.8)
    assert match([A, near], [best, next_best]) == Matches((next_best, best), ())


def test_boxes_without_area_match_nothing():
    empty = Object((5, 5, 5, 5), "disc")
    assert match([empty], [predicted(empty.box)]).found == (None,)
