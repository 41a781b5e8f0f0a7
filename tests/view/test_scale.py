"""Scales: what a colour stands for, the same for every network, image and epoch that may be compared."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from distill.attention.geometry import Lattice
from distill.attention.maps import AttentionMap, unit
from distill.errors import InputError
from distill.view.exhibit import Exhibit, Row, Side
from distill.view.scale import DIFFERENCES, MAPS, MODES, Scale, as_mode, difference, lut, relative, scales
from tests.view import kit

RNG = np.random.default_rng(0)


def with_maps(exhibit: Exhibit, change) -> Exhibit:
    """The exhibit with every map replaced by `change(values, network key)`."""
    samples = tuple(
        replace(s, maps={r: {k: change(v, k) for k, v in maps.items()} for r, maps in s.maps.items()})
        for s in exhibit.samples
    )
    return replace(exhibit, samples=samples)


def as_gates(exhibit: Exhibit) -> Exhibit:
    return replace(exhibit, rows=tuple(replace(row, kind="gate") for row in exhibit.rows))


def side(cells: int, offset: float, stride: float) -> Side:
    return Side("layer", "Conv", 8, (cells, cells), Lattice((offset, offset), (stride, stride)))


# ---- what is drawn


@pytest.mark.parametrize("shape", [(1, 1), (3, 5), (80, 80)])
@pytest.mark.parametrize("value", [1e-30, 1.0, 7.5, 1e30])
def test_a_flat_map_is_one_on_any_grid(shape: tuple[int, int], value: float):
    assert relative(np.full(shape, value, np.float32)) == pytest.approx(1.0)


def test_relative_is_the_unit_map_times_the_root_of_the_cells():
    values = RNG.random((6, 9)).astype(np.float32)
    expected = unit(torch.from_numpy(values)[None])[0].numpy() * np.sqrt(54)
    np.testing.assert_allclose(relative(values), expected, rtol=1e-6)
    np.testing.assert_allclose(relative(values * 700), relative(values), rtol=1e-6)


def test_a_zero_map_stays_zero():
    assert not relative(np.zeros((4, 4), np.float32)).any()


# ---- ranges


def test_shared_reaches_from_zero_to_the_largest_percentile_of_a_network():
    ramp = np.linspace(0, 100, 101).reshape(1, -1)
    scale = Scale.shared([[ramp], [ramp / 10, ramp / 10]])
    assert (scale.low, scale.high) == (0, 99)
    assert scale.comparable


def test_a_networks_grid_has_no_say_in_the_range():
    fine, coarse = [np.zeros((100, 100))], [np.full((2, 2), 5.0)]
    assert Scale.shared([fine, coarse]).high == 5  # pooled, the 10000 cells would have outvoted the four


def test_raw_reaches_from_percentile_to_percentile():
    scale = Scale.raw([[np.arange(101.0).reshape(1, -1)], [np.arange(1000.0, 1101.0).reshape(1, -1)]])
    assert (scale.low, scale.high) == (1, 1099)


def test_each_is_marked_as_not_comparable():
    scale = Scale.each(np.array([[3.0, 5.0]]))
    assert (scale.low, scale.high, scale.comparable) == (3, 5, False)
    assert "not comparable" in scale.label


def test_differences_are_symmetric_about_zero():
    scale = Scale.difference([np.array([[-8.0, 1.0]]), np.array([[2.0, 2.0]])])
    assert scale.low == -scale.high
    assert 2 < scale.high <= 8


@pytest.mark.parametrize(
    "scale",
    [
        Scale.shared([]),
        Scale.raw([[np.full((2, 2), 4.0)]]),
        Scale.each(np.zeros((2, 2))),
        Scale.each(np.full((2, 2), 1e20)),
        Scale.difference([np.zeros((2, 2))]),
        Scale.difference([]),
    ],
)
def test_no_range_is_empty(scale: Scale):
    assert scale.high > scale.low
    assert np.isfinite(scale.normalise(np.array([[scale.low, scale.high]]))).all()


# ---- colours


def test_values_outside_take_the_end_colours():
    scale = Scale(2.0, 4.0, "")
    assert scale.normalise(np.array([0, 2, 3, 4, 9.0])).tolist() == [0, 0, 0.5, 1, 1]
    painted = scale.paint(np.array([[-1.0, 2.0, 4.0, 99.0]]))
    assert painted.dtype == np.uint8
    assert painted[0].tolist() == lut(MAPS)[[0, 0, 255, 255]].tolist()


def test_no_difference_is_the_middle_of_a_diverging_scale():
    painted = Scale.difference([np.array([[-1.0, 1.0]])]).paint(np.array([[-1.0, 0.0, 1.0]]))[0].astype(int)
    assert painted[0, 2] > painted[0, 0]  # blue for less
    assert painted[2, 0] > painted[2, 2]  # red for more
    assert painted[1].min() > 235  # near white


@pytest.mark.parametrize("name", [MAPS, DIFFERENCES])
def test_a_table_has_256_colours_and_cannot_be_changed(name: str):
    table = lut(name)
    assert table.shape == (256, 3)
    assert table.dtype == np.uint8
    with pytest.raises(ValueError, match="read-only"):
        table[0] = 0


def test_the_maps_colours_grow_brighter_in_even_steps():
    brightness = lut(MAPS).astype(float) @ (0.299, 0.587, 0.114)
    assert (np.diff(brightness) > -1).all()
    assert brightness[-1] - brightness[0] > 200


# ---- the difference of two networks


def test_difference_is_the_network_minus_the_reference():
    exhibit = kit.exhibit(images=1)
    sample, row = exhibit.samples[0], exhibit.rows[0]
    values, lattice = difference(row, sample, "student", "teacher", "raw")
    np.testing.assert_allclose(values, sample.maps["P3"]["student"] - sample.maps["P3"]["teacher"])
    assert (lattice.offset, lattice.stride) == (row.sides["student"].lattice.offset, (8, 8))


def test_its_root_mean_square_is_the_distance_that_the_loss_sees():
    exhibit = kit.exhibit(images=1)
    sample = exhibit.samples[0]
    values, _ = difference(exhibit.rows[0], sample, "student", "teacher", "shared")
    a, b = (AttentionMap(torch.from_numpy(sample.maps["P3"][k])[None], "").unit() for k in ("student", "teacher"))
    assert np.sqrt((values**2).mean()) == pytest.approx(torch.linalg.vector_norm(a - b).item(), rel=1e-5)


def test_alignment_survives_the_way_to_the_smaller_grid():
    # both maps tell the place of their cells in the input, so their difference vanishes where the grids meet
    sides = {"teacher": side(8, 1.0, 8.0), "student": side(4, 5.0, 16.0)}
    places = {key: np.tile(one.lattice.centre(0, 0)[1] + np.arange(one.grid[1]) * one.lattice.stride[1],
                           (one.grid[0], 1)).astype(np.float32) for key, one in sides.items()}  # fmt: skip
    sample = replace(kit.exhibit(images=1).samples[0], maps={"P3": places})
    values, lattice = difference(Row("P3", sides), sample, "student", "teacher", "raw")
    assert values.shape == (4, 4)
    assert values == pytest.approx(0)
    assert (lattice.offset, lattice.stride) == ((5, 5), (16, 16))


def test_it_is_drawn_half_way_between_the_two_layers_cells():
    sides = {"teacher": side(4, 0.0, 16.0), "student": side(4, 8.0, 16.0)}
    maps = {"P3": dict.fromkeys(sides, np.ones((4, 4), np.float32))}
    sample = replace(kit.exhibit(images=1).samples[0], maps=maps)
    assert difference(Row("P3", sides), sample, "student", "teacher", "shared")[1].offset == (4, 4)


# ---- the scales of an exhibit


@pytest.mark.parametrize("mode", ["shared", "raw"])
def test_one_range_covers_all_networks_images_and_epochs(mode: str):
    first = kit.exhibit(networks=("teacher", "student", "baseline"))
    second = with_maps(first, lambda values, key: values**3 if key == "student" else values)
    alone = [scales([one], mode)["P3"].maps.high for one in (first, second)]
    assert scales([first, second], mode)["P3"].maps.high > min(alone)
    assert list(scales([first], mode)) == ["P3", "P4", "P5"]


def test_shared_ignores_a_networks_magnitude_and_raw_does_not():
    plain = kit.exhibit()
    louder = with_maps(plain, lambda values, key: values * (100 if key == "student" else 1))
    quiet, loud = (scales([one], "shared")["P3"] for one in (plain, louder))
    assert loud.maps.high == pytest.approx(quiet.maps.high, rel=1e-5)
    assert loud.difference.high == pytest.approx(quiet.difference.high, rel=1e-4)
    assert scales([louder], "raw")["P3"].maps.high > 10 * scales([plain], "raw")["P3"].maps.high


def test_maps_with_scales_of_their_own_have_no_difference():
    row = scales([kit.exhibit()], "each")["P3"]
    assert row.maps is None
    assert row.difference is None
    assert row.of(np.array([[1.0, 2.0]])) == Scale.each(np.array([[1.0, 2.0]]))


@pytest.mark.parametrize("mode", MODES)
def test_gates_are_never_normalised(mode: str):
    gates = as_gates(with_maps(kit.exhibit(), lambda values, _: values / 1000))
    row = scales([gates], mode)["P3"]
    values = gates.samples[0].maps["P3"]["teacher"]
    assert row.maps == Scale.gate()
    assert (row.maps.low, row.maps.high) == (0, 1)
    assert row.shown(values) is values
    found, _ = difference(gates.rows[0], gates.samples[0], "student", "teacher", mode)
    np.testing.assert_allclose(found, gates.samples[0].maps["P3"]["student"] - values)
    assert 0 < row.difference.high < 1


@pytest.mark.parametrize("mode", MODES)
def test_a_single_network_has_no_difference(mode: str):
    assert scales([kit.exhibit(networks=("student",))], mode)["P3"].difference is None


def test_an_unknown_mode_is_an_error_that_names_the_modes():
    assert [as_mode(mode) for mode in MODES] == list(MODES)
    with pytest.raises(InputError, match="shared, raw, each"):
        as_mode("minmax")
