"""Frames, lattices, and the whole way from a point of a picture to its place in the drawn map."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.attention.geometry import USUAL_OFFSET, Frame, Lattice, calibrate, resample
from distill.attention.maps import AttentionMap, energy

STRIDES = (2, 4, 8, 16, 32)
SHRUNK = {2: 4, 4: 4, 8: 2, 16: 1, 32: 1}  # the sizes below are divided by this, or small strides take long
# (picture, input): square without a border, landscape with one above and below, portrait with one left and right
SHAPES = {
    "square": ((256, 256), (256, 256)),
    "landscape": ((150, 300), (256, 384)),
    "portrait": ((400, 260), (384, 320)),
}


def letterbox(shape: str, stride: int) -> Frame:
    """The picture as large as fits, in the middle of the input."""
    picture, size = (tuple(n // SHRUNK[stride] for n in one) for one in SHAPES[shape])
    scale = min(size[0] / picture[0], size[1] / picture[1])
    shift = tuple((s - p * scale) / 2 for p, s in zip(picture, size))
    return Frame(picture, size, (scale, scale), (shift[0], shift[1]))


def gaussian(frame: Frame, y: float, x: float, spread: float) -> Tensor:
    """A bright blob at a point of the picture, as the input shows it, (1, 1, H, W); `spread` in input pixels."""
    centre = frame.to_input(y, x)
    rows, columns = (torch.arange(n) + 0.5 for n in frame.input)
    return torch.exp(-((rows[:, None] - centre[0]) ** 2 + (columns - centre[1]) ** 2) / (2 * spread**2))[None, None]


def convolutions(depth: int) -> nn.Module:
    """3x3, stride 2, padding 1, binomial weights: cell i of every layer is centred on the pixel of index i * stride."""
    line = torch.tensor([0.25, 0.5, 0.25])
    layers = [nn.Conv2d(1, 1, 3, 2, 1, bias=False) for _ in range(depth)]
    for layer in layers:
        layer.weight.data = (line[:, None] * line)[None, None]
    return nn.Sequential(*layers).requires_grad_(False)


def patches(depth: int) -> nn.Module:
    """Means of 2x2: cell i covers its own patch and is centred on (i + 1/2) stride."""
    return nn.Sequential(*(nn.AvgPool2d(2) for _ in range(depth)))


def maps(network: nn.Module) -> Callable[[Tensor], Mapping[str, Tensor]]:
    """The network's output as a map with p = 1, which for non-negative values is linear in them."""
    return lambda images: {"last": energy(network(images), p=1)}


@lru_cache
def textures(size: tuple[int, int], count: int = 3) -> Tensor:
    """Random images with structure at many scales, non-negative, (count, 1, H, W)."""
    generator = torch.Generator().manual_seed(0)
    total = torch.zeros(count, 1, *size)
    for cell in (2, 8, 32, 64):
        coarse = torch.rand(count, 1, size[0] // cell + 2, size[1] // cell + 2, generator=generator)
        total += F.interpolate(coarse, size=size, mode="bilinear")
    return total


def found(values: np.ndarray, lattice: Lattice, frame: Frame) -> tuple[float, float]:
    """The centroid of the map drawn on the picture, in picture coordinates."""
    drawn = resample(values, lattice, frame, frame.picture)
    rows, columns = (np.arange(n) + 0.5 for n in drawn.shape)
    return float(drawn.sum(1) @ rows / drawn.sum()), float(drawn.sum(0) @ columns / drawn.sum())


def misses(build: Callable[[int], nn.Module], stride: int, shape: str, lattice: Lattice | None = None) -> list[float]:
    """How far, in cells, from where they are, three points of a picture are found (the larger of both axes).

    Without `lattice` it is measured. The points lie at different places within a cell, away from the picture's edge by
    as much as their image in the map is wide.
    """
    frame = letterbox(shape, stride)
    network = build(STRIDES.index(stride) + 1)
    lattice = lattice or calibrate(maps(network), textures(frame.input))["last"]
    result = []
    for y, x in ((0.5, 0.5), (0.48, 0.53), (0.55, 0.46)):
        y, x = y * frame.picture[0], x * frame.picture[1]
        blob = gaussian(frame, y, x, spread=0.4 * stride)
        at = found(maps(network)(blob)["last"][0].numpy(), lattice, frame)
        pixels_per_cell = stride / frame.scale[0]
        result.append(max(abs(at[0] - y), abs(at[1] - x)) / pixels_per_cell)
    return result


# ---- alignment from end to end


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", STRIDES)
@pytest.mark.parametrize("build", [convolutions, patches])
def test_a_point_is_drawn_where_it_is(build: Callable[[int], nn.Module], stride: int, shape: str):
    assert max(misses(build, stride, shape)) < 0.25


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("stride", STRIDES[1:])
def test_the_usual_half_stride_misses_on_convolutions(stride: int, shape: str):
    usual = Lattice((stride / 2, stride / 2), (stride, stride))
    assert min(misses(convolutions, stride, shape, usual)) > 0.25
    assert max(misses(patches, stride, shape, usual)) < 0.25


# ---- frames and lattices


def test_a_frame_goes_there_and_back():
    frame = Frame((100, 200), (320, 320), (1.6, 1.6), (80.0, 0.0))
    assert frame.to_input(0, 0) == (80, 0)
    assert frame.to_input(100, 200) == (240, 320)
    assert frame.to_picture(*frame.to_input(12.5, 77.0)) == pytest.approx((12.5, 77.0))
    assert frame.to_picture(40, 0)[0] < 0  # the border lies outside the picture


def test_a_lattice_goes_there_and_back():
    lattice = Lattice((2.0, 4.0), (8.0, 16.0))
    assert lattice.centre(0, 3) == (2, 52)
    assert lattice.cell(*lattice.centre(1.25, 7)) == pytest.approx((1.25, 7))


@pytest.mark.parametrize("new", [(6, 8), (3, 4), (12, 2), (12, 16), (1, 1)])
def test_a_moved_lattice_follows_the_resized_map(new: tuple[int, int]):
    # a map whose values are its cells' own centres: after the area means they are those of the new cells
    size, lattice = (12, 16), Lattice((2.0, 5.0), (8.0, 16.0), (0.9, 0.8))
    moved = lattice.moved(size, new)
    for axis in (0, 1):
        centres = torch.arange(size[axis]) * lattice.stride[axis] + lattice.offset[axis]
        ramp = (centres[:, None] if axis == 0 else centres[None]).expand(size)
        values = AttentionMap(ramp[None], "layer").resize(new).values[0]
        expected = torch.arange(new[axis]) * moved.stride[axis] + moved.offset[axis]
        torch.testing.assert_close(values.movedim(axis, 0)[:, 0], expected)
    assert moved.agreement == lattice.agreement


def test_a_moved_lattice_follows_a_map_that_grows():
    lattice = Lattice((3.0,) * 2, (8.0,) * 2)
    moved = lattice.moved((4, 4), (8, 8))
    ramp = (torch.arange(4) * 8 + 3.0).expand(4, 4)
    values = AttentionMap(ramp[None], "layer").resize((8, 8)).values[0, 0]
    expected = torch.tensor([moved.centre(0, i)[1] for i in range(8)])
    torch.testing.assert_close(values[1:-1], expected[1:-1])  # beyond the outer centres the map is held constant
    assert lattice.moved((4, 4), (4, 4)) == lattice


# ---- drawing


def test_resample_interpolates_between_centres_and_holds_outside():
    frame = Frame((1, 8), (1, 8), (1.0, 1.0), (0.0, 0.0))
    lattice = Lattice((0.5, 2.5), (1.0, 4.0))  # the two cells are centred on pixels 2 and 6
    drawn = resample(np.array([[10.0, 30.0]]), lattice, frame, (1, 8))
    assert drawn[0].tolist() == [10, 10, 10, 15, 20, 25, 30, 30]


def test_resample_undoes_the_letterbox_at_any_size():
    frame = Frame((50, 100), (64, 64), (0.64, 0.64), (16.0, 0.0))
    lattice = Lattice((4.0, 4.0), (8.0, 8.0))
    rows = np.repeat(np.arange(8.0)[:, None], 8, axis=1)  # the map tells its row
    drawn = resample(rows, lattice, frame, (25, 10))
    inputs = (np.arange(25) + 0.5) * 2 * 0.64 + 16
    np.testing.assert_allclose(drawn[:, 3], (inputs - 4) / 8, rtol=1e-5)
    assert resample(np.full((8, 8), 3.0), lattice, frame, (7, 9)) == pytest.approx(3.0)


# ---- calibration


def test_answers_that_do_not_correlate_tell_nothing():
    generator = torch.Generator().manual_seed(1)
    measured = calibrate(lambda images: {"noise": torch.rand(2, 8, 10, generator=generator)}, torch.rand(2, 3, 64, 160))
    assert measured["noise"].stride == (8, 16)
    assert measured["noise"].offset == (USUAL_OFFSET * 8, USUAL_OFFSET * 16)
    assert measured["noise"].agreement == (0, 0)


@pytest.mark.parametrize("flat", [0.0, 2.5])
def test_flat_maps_tell_nothing(flat: float):
    measured = calibrate(lambda images: {"flat": torch.full((1, 8, 8), flat)}, torch.rand(1, 3, 64, 64))
    assert measured["flat"] == Lattice((2.0, 2.0), (8.0, 8.0), (0.0, 0.0))


def test_too_few_cells_tell_nothing():
    measured = calibrate(maps(patches(5)), textures((64, 64)))
    assert measured["last"] == Lattice((8.0, 8.0), (32.0, 32.0), (0.0, 0.0))  # 2 x 2 cells


def test_a_last_cell_that_is_cut_does_not_change_the_stride():
    measured = calibrate(maps(convolutions(1)), textures((65, 64)))["last"]  # 33 x 32 cells
    assert measured.stride == (2, 2)
    assert measured.offset == pytest.approx((0.5, 0.5), abs=2 / 16)
    assert min(measured.agreement) > 0.95


def noise(count, cells):
    """Answers of networks that look at nothing: whatever the image, and mirrored or not, something else."""
    generator = torch.Generator().manual_seed(count)
    return lambda images: {"last": torch.rand(len(images), cells, cells, generator=generator)}


@pytest.mark.parametrize("cells", [3, 5, 8, 20])
def test_noise_is_hardly_ever_believed(cells):
    believed = 0
    for trial in range(40):
        lattice = calibrate(noise(trial, cells), textures((cells * 8, cells * 8))[:1])["last"]
        believed += sum(agreement > 0 for agreement in lattice.agreement)
    assert believed <= 2  # of 80 axes


@pytest.mark.parametrize("spread", [0.0, 0.02])
def test_a_map_that_ignores_the_image_is_not_believed(spread):
    fixed = torch.ones(16, 16)
    fixed[:, 2] = 9  # a bright column, which stays on the left in the mirrored image

    def run(images):
        generator = torch.Generator().manual_seed(int(images[0, 0, 0, 0] * 1e6))
        return {"last": fixed + spread * torch.rand(len(images), 16, 16, generator=generator)}

    lattice = calibrate(run, textures((128, 128)))["last"]
    assert lattice.agreement == (0, 0)
    assert lattice.offset == (2, 2)


def test_one_image_is_enough():
    measured = calibrate(maps(convolutions(3)), textures((128, 192))[:1])["last"]
    assert measured.offset == pytest.approx((0.5, 0.5), abs=1)
    assert min(measured.agreement) > 0.9
