"""Scores by hand, above all where a class is absent, and that the loss agrees with them there."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from distill.adapters.segment import evaluation, scores
from distill.adapters.segment.data import read_data
from distill.adapters.segment.module import task_loss
from distill.adapters.segment.pipeline import validation_set
from distill.attention.pairs import Pair
from distill.distiller import Distiller
from distill.networks.unet import UNet
from distill.terms.gates import GateTerm

from .kit import noise, picture, pictures, square, volume, volumes

NAN = math.nan


def labels(*rows):
    """(1, H, W) class numbers from rows such as "0112"."""
    return torch.tensor([[int(cell) for cell in row] for row in rows]).unsqueeze(0)


def cube(at, side, size=(12, 12, 12)):
    return torch.from_numpy(square(size, at, side)).long().unsqueeze(0)


# ---- overlap


def test_one_hot_takes_a_byte_for_each_position():
    mask = labels("012", "220")
    hot = scores.one_hot(mask, 3)
    assert hot.element_size() == 1 and hot.shape == (1, 3, 2, 3)
    assert torch.equal(hot.long(), torch.nn.functional.one_hot(mask.long(), 3).movedim(-1, 1))


def test_dice_and_iou_by_hand():
    """Class 1: 3 found, 4 true, 2 common; class 2: 1 found, 2 true, 1 common."""
    found, truth = labels("0110", "0102", "0000"), labels("0011", "0112", "0002")
    result = scores.overlaps(found, truth, 3)
    assert result["dice"].tolist() == [pytest.approx([4 / 7, 2 / 3])]
    assert result["iou"].tolist() == [pytest.approx([2 / 5, 1 / 2])]


def test_overlap_lies_between_zero_and_one_and_iou_follows_from_dice():
    generator = torch.Generator().manual_seed(0)
    for size in ((6, 7), (3, 4, 5)):
        found, truth = (torch.randint(0, 4, (20, *size), generator=generator) for _ in range(2))
        truth[:5], found[3:8] = 0, 0
        dice, iou = scores.overlaps(found, truth, 4).values()
        assert dice.shape == iou.shape == (20, 3)
        known = ~dice.isnan()
        assert torch.equal(known, ~iou.isnan()) and known.sum() == 20 * 3 - 2 * 3  # both are empty in two images
        assert dice[known].min() >= 0 and dice[known].max() <= 1 and dice[10:].std() > 0
        assert torch.allclose(iou[known], (dice / (2 - dice))[known])
        assert torch.equal(scores.overlaps(truth, truth, 4)["dice"][5:], torch.ones(15, 3))


def test_a_class_that_is_absent():
    """Rightly absent: in no mean; found although absent, or missed altogether: 0. Each image counts by itself."""
    empty, some = labels("000", "000"), labels("011", "000")
    found, truth = torch.cat([empty, some, empty]), torch.cat([empty, empty, some])
    result = scores.overlaps(found, truth, 2)
    for found in result.values():
        assert found.tolist() == [[pytest.approx(NAN, nan_ok=True)], [0], [0]]


# ---- details


def test_precision_and_recall_by_hand():
    found, truth = labels("0110", "0102", "0000"), labels("0011", "0112", "0002")
    result = scores.details(found, truth, 3, (1, 1))
    assert result["precision"].tolist() == [pytest.approx([2 / 3, 1])]
    assert result["recall"].tolist() == [pytest.approx([2 / 4, 1 / 2])]


@pytest.mark.parametrize(
    ("found", "truth", "precision", "recall"), [(0, 0, NAN, NAN), (1, 0, 0, NAN), (0, 1, NAN, 0), (1, 1, 1, 1)]
)
@pytest.mark.filterwarnings("ignore:the .* of class")
def test_figures_that_do_not_exist_are_nan_and_never_zero(found, truth, precision, recall):
    mask = labels("0000", "0110", "0000")
    result = scores.details(mask * found, mask * truth, 2, (1, 1))
    assert result["precision"].item() == pytest.approx(precision, nan_ok=True)
    assert result["recall"].item() == pytest.approx(recall, nan_ok=True)
    surface = 0 if found and truth else NAN
    assert result["hd95"].item() == pytest.approx(surface, nan_ok=True)
    assert result["asd"].item() == pytest.approx(surface, nan_ok=True)


@pytest.mark.parametrize(("axis", "step"), [(0, 1.0), (1, 1.0), (2, 1.0), (0, 2.5), (1, 0.5)])
def test_surface_distances_of_two_cubes(axis, step):
    """One voxel and the voxel three further on: every surface point is three steps from the other surface."""
    one, other, spacing = [4, 4, 4], [4, 4, 4], [1.0, 1.0, 1.0]
    other[axis] += 3
    spacing[axis] = step
    result = scores.details(cube(one, 1), cube(other, 1), 2, spacing)
    assert result["hd95"].item() == pytest.approx(3 * step) and result["asd"].item() == pytest.approx(3 * step)


def brute_force(a, b, spacing):
    """Surface: mask voxels with a neighbour of six outside; then all distances."""
    surfaces = []
    for mask in (a[0].bool().numpy(), b[0].bool().numpy()):
        padded = np.pad(mask, 1)
        inner = mask.copy()
        for axis in range(3):
            for shift in (-1, 1):
                inner &= np.roll(padded, shift, axis)[1:-1, 1:-1, 1:-1]
        surfaces.append(np.argwhere(mask & ~inner) * np.array(spacing))
    distances = np.linalg.norm(surfaces[0][:, None] - surfaces[1][None], axis=-1)
    there, back = distances.min(1), distances.min(0)
    return max(np.percentile(there, 95), np.percentile(back, 95)), np.concatenate([there, back]).mean()


@pytest.mark.parametrize("spacing", [(1.0, 1.0, 1.0), (2.0, 1.0, 0.5)])
def test_surface_distances_of_larger_cubes_against_brute_force(spacing):
    a, b = cube((2, 2, 2), 5), cube((4, 2, 3), 6)
    hd95, asd = brute_force(a, b, spacing)
    result = scores.details(a, b, 2, spacing)
    assert result["hd95"].item() == pytest.approx(hd95, rel=1e-4) and result["asd"].item() == pytest.approx(
        asd, rel=1e-4
    )
    assert result["hd95"].item() == scores.details(b, a, 2, spacing)["hd95"].item()


# ---- means


def test_means_leave_out_what_does_not_exist():
    rows = [
        {"file": "a", "dice/x": 1.0, "iou/x": 1.0, "dice/y": 0.0, "iou/y": 0.0, "hd95/x": NAN, "hd95/y": 4.0},
        {"file": "b", "dice/x": 0.5, "iou/x": 1 / 3, "dice/y": 1.0, "iou/y": 1.0, "hd95/x": NAN, "hd95/y": NAN},
    ]
    found = scores.means(rows, ["background", "x", "y"])
    assert found == pytest.approx(
        {
            "dice": 0.625,
            "dice/x": 0.75,
            "dice/y": 0.5,
            "iou": 7 / 12,
            "iou/x": 2 / 3,
            "iou/y": 0.5,
            "hd95": 4.0,
            "hd95/x": NAN,
            "hd95/y": 4.0,
        },
        nan_ok=True,
    )


# ---- inference


@pytest.mark.parametrize("size", [(70, 41), (16, 90), (33, 32), (40, 22, 37)])
def test_windows_give_what_the_whole_image_gives(size):
    torch.manual_seed(0)
    network = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(2, 3, 1)
    images = torch.randn(2, 2, *size)
    seen = []
    network.register_forward_hook(lambda _m, inputs, _o: seen.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        found = scores.infer(network, images, [8] * len(size))
        assert set(seen) == {tuple(min(16, side) for side in size)} and len(seen) > 1
        assert torch.allclose(found, network(images), atol=1e-5)


@pytest.mark.parametrize("size", [(16, 16), (5, 16), (3, 2), (16, 7, 9)])
def test_images_within_the_window_are_seen_whole(size):
    network = (nn.Conv2d if len(size) == 2 else nn.Conv3d)(1, 2, 3, padding=1)
    images = torch.randn(1, 1, *size)
    seen = []
    network.register_forward_hook(lambda _m, inputs, _o: seen.append(tuple(inputs[0].shape[2:])))
    with torch.no_grad():
        assert torch.equal(scores.infer(network, images, [8] * len(size)), network(images)) and set(seen) == {size}


def test_the_spacing_of_a_voxel_and_of_a_pixel(tmp_path):
    assert scores.spacing_of(volume(tmp_path / "v.nii.gz", noise(4, 5, 6), (1, 2.5, 0.5)), 3) == (1, 2.5, 0.5)
    several = volume(tmp_path / "w.nii.gz", noise(4, 5, 6, 2), (1, 2.5, 0.5))
    assert scores.spacing_of(several, 3) == (1, 2.5, 0.5)
    assert scores.spacing_of(picture(tmp_path / "p.png", noise(4, 5)), 2) == (1, 1)


# ---- the loss that is trained agrees


def logits_of(truth, classes, certainty=20.0):
    return certainty * scores.one_hot(truth, classes).float()


@pytest.mark.parametrize("name", ["dice", "dice-ce", None])
@pytest.mark.parametrize("size", [(8, 9), (4, 5, 6)])
def test_perfect_logits_cost_next_to_nothing_and_wrong_ones_much(name, size):
    truth = torch.randint(0, 3, (2, *size), generator=torch.Generator().manual_seed(0))
    loss = task_loss(name)
    assert 0 <= loss(logits_of(truth, 3), truth.unsqueeze(1)) < 1e-3
    assert loss(logits_of((truth + 1) % 3, 3), truth.unsqueeze(1)) > 0.9


@pytest.mark.parametrize("size", [(16, 16), (8, 8, 8)])
def test_the_dice_loss_lies_between_zero_and_one_where_a_class_is_rightly_absent(size):
    """A Dice of numerator 0 over 0 made 0 or -1 somewhere else would cost 1 or 2 for the right answer."""
    empty, loss = torch.zeros(1, 1, *size), task_loss("dice")
    certain = logits_of(empty[:, 0], 2, 40.0)
    assert 0 <= loss(certain, empty).item() < 1e-3
    for certainty in (0.0, 1.0, 5.0, 10.0, 40.0):
        assert 0 <= loss(logits_of(empty[:, 0], 2, certainty), empty).item() <= 1
    wrong = logits_of(empty[:, 0] + 1, 2, 40.0)
    assert loss(wrong, empty).item() == pytest.approx(1, abs=1e-3)


def test_the_dice_loss_by_hand_is_a_mean_over_images_and_classes_but_the_background():
    truth = labels("0112", "0012").repeat(2, 1, 1)
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(2, 3, 2, 4, generator=generator)
    p, t = logits.softmax(1), scores.one_hot(truth, 3)
    dice = (2 * (p * t).sum((2, 3)) / (p + t).sum((2, 3)))[:, 1:]
    assert task_loss("dice")(logits, truth.unsqueeze(1)).item() == pytest.approx((1 - dice).mean().item(), rel=1e-4)
    entropy = nn.functional.cross_entropy(logits, truth)
    both = task_loss("dice-ce")(logits, truth.unsqueeze(1)).item()
    assert both == pytest.approx((1 - dice).mean().item() + entropy.item(), rel=1e-4)


# ---- a data set


class Oracle(nn.Module):
    """Finds class 1 where the first channel is bright."""

    dims = 2

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))

    def forward(self, images):
        return torch.stack([-images[:, 0], images[:, 0]], 1) * self.scale


def test_a_row_for_each_case(tmp_path):
    file = pictures(tmp_path, val=3, size=(20, 30))
    picture(tmp_path / "masks" / "val" / "val2.png", np.zeros((20, 30), np.uint8))
    for i in range(2):
        picture(
            tmp_path / "images" / "val" / f"val{i}.png",
            np.repeat(square((20, 30), (4 + i, 6), 9, 255)[..., None], 3, 2),
        )
    data, network = read_data(str(file)), Oracle().train()
    rows = evaluation.evaluate(network, validation_set(data), data.names, (8, 8), detailed=True)
    assert network.training and [row["file"] for row in rows] == [str(case.image) for case in data.val]
    assert rows[0]["foreground"] == pytest.approx(81 / 600) and rows[2]["foreground"] == 0
    assert all(row["dice/cell"] == 1 and row["hd95/cell"] == 0 for row in rows[:2])
    assert rows[2]["dice/cell"] == 0 and rows[2]["precision/cell"] == 0  # it finds something in noise
    assert math.isnan(rows[2]["recall/cell"]) and math.isnan(rows[2]["hd95/cell"])
    few = evaluation.evaluate(network, validation_set(data), data.names, (8, 8), detailed=False)
    assert set(few[0]) == {"file", "foreground", "dice/cell", "iou/cell"}
    assert scores.means(rows, data.names)["dice"] == pytest.approx(2 / 3)


def test_a_distillers_figures_are_means_over_validation_images(tmp_path):
    data = read_data(str(volumes(tmp_path, count=10, size=(16, 16, 16))))
    torch.manual_seed(0)
    network = UNet(1, 3, (2, 2, 4), dims=3, gated=True).train()
    distiller = Distiller(None, [GateTerm([Pair("G2", "gates.2.alpha", "", kind="gate")], "truth")], {"gates": 1.0})
    cases = validation_set(data)
    found = evaluation.compare(network, distiller, cases, (8, 8, 8))
    apart = [evaluation.compare(network, distiller, [cases[i]], (8, 8, 8)) for i in range(2)]
    assert set(found) == {"r_G2", "std_G2", "dist_G2", "spread_G2"} and network.training
    assert found == pytest.approx({name: (apart[0][name] + apart[1][name]) / 2 for name in found})


def test_what_a_network_costs():
    network = UNet(1, 2, (2, 4), dims=2)
    found = evaluation.profile(network, (16, 16))
    assert found["parameters"] == sum(p.numel() for p in network.parameters()) and found["cpu_ms"] > 0
    fine = 256 * 9 * (1 * 2 + 2 * 2 + 6 * 2 + 2 * 2) + 256 * 2 * 2  # positions, kernel, channels in and out; the head
    coarse = 64 * 9 * (2 * 4 + 4 * 4)
    assert found["gflops"] == pytest.approx(2 * (fine + coarse) / 1e9)
