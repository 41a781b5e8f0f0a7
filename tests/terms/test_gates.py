"""Gates with a teacher: what the loss is, that nothing trivial satisfies it, and what each kind of target is."""

import copy
import itertools

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from distill import ranges
from distill.attention.maps import energy
from distill.attention.pairs import Pair
from distill.attention.taps import Taps
from distill.distiller import Distiller
from distill.errors import InputError
from distill.networks.unet import UNet
from distill.teacher import Teacher
from distill.terms.base import Batch, Reading, View
from distill.terms.gates import LEAST_VARIANCE, TARGETS, GateTerm, covered, normalised_error, relative

GATE = Pair("G2", "s.alpha", "t.alpha", kind="gate")
ENERGY = Pair("G2", "s.alpha", "t.decoder", kind="energy")
ALPHA = "gates.2.alpha"


def uniform(*shape: int, seed: int = 0) -> Tensor:
    return torch.rand(shape, generator=torch.Generator().manual_seed(seed))


def read(alpha: Tensor, guide: Tensor | None, pair: Pair = GATE, target: str = "teacher", **batch: Tensor) -> Reading:
    batch = {"images": torch.zeros(len(alpha), 3, 8, 8), **batch}
    term = GateTerm([pair], target)
    return term(View({pair.student: alpha}), View({} if guide is None else {pair.teacher: guide}), Batch(**batch))[
        "at_G2"
    ]


# ---- the loss


def test_the_error_by_hand():
    """Target (0, 1, 0, 1) has variance 1/4; alpha is off by 0.1, 0.2, 0, 0.5: mean square 0.075, so L^2 is 0.3."""
    alpha, target = torch.tensor([[0.1, 0.8, 0.0, 0.5]]), torch.tensor([[0.0, 1.0, 0.0, 1.0]])
    assert normalised_error(alpha, target).item() == pytest.approx(0.3**0.5)


def test_errors_of_the_batch_over_the_mean_variance_within_samples():
    alpha, target = uniform(4, 60, seed=1), torch.cat([uniform(3, 60, seed=2), torch.full((1, 60), 0.4)])
    variance = np.mean([((t - t.mean()) ** 2).mean().item() for t in target.double()])
    square = np.mean([((a - t) ** 2).mean().item() for a, t in zip(alpha.double(), target.double())])
    assert normalised_error(alpha, target).item() == pytest.approx((square / variance) ** 0.5, rel=1e-5)


def test_an_image_with_hardly_any_target_does_not_drown_the_others():
    """Open gates, an image empty and one half covered: the gradient is the same wherever the error is."""
    alpha, target = torch.ones(2, 100, requires_grad=True), torch.zeros(2, 100)
    target[1, :50] = 1
    normalised_error(alpha, target).backward()
    assert torch.allclose(alpha.grad[0], alpha.grad[1, 50:].mean()) and alpha.grad[1, :50].eq(0).all()


def test_equal_maps_leave_nothing_and_the_best_constant_of_an_image_everything():
    target = uniform(3, 50)
    same = target.clone().requires_grad_()
    normalised_error(same, target).backward()
    assert normalised_error(target, target).item() == 0 and same.grad.eq(0).all()  # not NaN, as a bare root would have
    mean = target.mean(1, keepdim=True).expand_as(target)
    assert normalised_error(mean, target).item() == pytest.approx(1, rel=1e-5)
    assert normalised_error(target.mean().expand_as(target), target) > 1


def test_it_does_not_depend_on_order_nor_on_a_common_shift_and_scale():
    alpha, target = uniform(2, 40, seed=1), uniform(2, 40, seed=2)
    expected = normalised_error(alpha, target)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(normalised_error(alpha[:, order], target[:, order]), expected)
    assert torch.allclose(normalised_error(0.2 + 0.7 * alpha, 0.2 + 0.7 * target), expected, rtol=1e-4)
    assert torch.allclose(normalised_error(1 - alpha, 1 - target), expected, rtol=1e-4)


@pytest.mark.parametrize("value", [0.0, 0.3, 1.0])
def test_a_flat_target_counts_with_the_least_variance(value):
    target = torch.full((1, 20), value)
    assert normalised_error(target, target).item() == 0
    assert normalised_error(target + 0.1, target).item() == pytest.approx(0.1 / LEAST_VARIANCE**0.5, rel=1e-4)
    almost = torch.zeros(1, 1000)
    almost[0, 0] = 1.0  # variance 0.000999, below the floor
    wanted = (0.001 / LEAST_VARIANCE) ** 0.5
    assert normalised_error(torch.zeros(1, 1000), almost).item() == pytest.approx(wanted, rel=1e-4)


@pytest.mark.parametrize("share", [0.02, 0.1, 0.5, 0.9])
def test_no_constant_is_better_than_one_however_little_the_target_covers(share):
    """The trivial answer: on a target of 2 % a closed gate has a mean square error of 0.02, and here still 1.01."""
    target = (torch.arange(1000.0) < 1000 * share).float().unsqueeze(0)
    assert target.var(correction=0) > LEAST_VARIANCE
    constants = torch.linspace(0, 1, 101)
    losses = torch.stack([normalised_error(torch.full((1, 1000), c), target) for c in constants.tolist()])
    assert losses.min().item() == pytest.approx(1, abs=1e-4)
    assert constants[losses.argmin()].item() == pytest.approx(share, abs=1e-6)


@pytest.mark.parametrize("target", ["truth", "teacher"])
def test_descent_on_a_free_alpha_reaches_the_target_and_not_a_constant(target):
    masks = torch.zeros(1, 16, 16, dtype=torch.long)
    masks[:, 3:6, 4:9] = 1  # 6 % of the image
    guide = masks.float().unsqueeze(1)
    q = torch.full((1, 1, 16, 16), 3.0, requires_grad=True)  # as open as gates start
    optimizer = torch.optim.Adam([q], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        reading = read(torch.sigmoid(q), guide, target=target, masks=masks)
        reading.loss.backward()
        optimizer.step()
    alpha = torch.sigmoid(q).detach()
    assert reading.loss < 0.15 and reading.figures["r_G2"] > 0.99
    assert alpha[0, 0, 3:6, 4:9].min() > 0.8 and alpha[guide == 0].max() < 0.1


def test_the_gradient_reaches_alpha_and_not_the_teacher():
    alpha, guide = uniform(2, 1, 5, 7, seed=1).requires_grad_(), uniform(2, 1, 5, 7, seed=2)
    read(alpha, guide).loss.backward()
    a, t = alpha.detach()[:, 0], guide[:, 0]  # d/da of |a - t| / sqrt(70 mean_B var)
    expected = (a - t) / (a - t).norm() / (70 * t.flatten(1).var(1, correction=0).mean()).sqrt()
    assert torch.allclose(alpha.grad[:, 0], expected, rtol=1e-4)
    network, images = UNet(1, 2, (2, 4, 4), gated=True), uniform(2, 1, 16, 16)
    teacher = Teacher(copy.deepcopy(network), ["gates.2.alpha"], stride=1)
    distiller = Distiller(
        teacher, [GateTerm([Pair("G2", "gates.2.alpha", "gates.2.alpha", kind="gate")])], {"gates": 1}
    )
    network.gates["2"].psi.weight.data.add_(1)
    with distiller.watch(network, Batch(images)) as step:
        network(images)
    step.losses()["at_G2"].backward()
    assert network.gates["2"].psi.weight.grad.any() and network.encoder["1"][0].weight.grad.any()
    assert all(p.grad is None for p in teacher.module.parameters())
    assert not any(f.requires_grad for f in step.guide.values())


# ---- an energy map as a target


def test_relative_lies_in_its_own_range_and_keeps_the_order():
    values = uniform(3, 9, 11).exp() * torch.tensor([1e-6, 1.0, 1e6]).view(3, 1, 1)
    found = relative(values)
    assert found.shape == values.shape and found.min() == 0 and found.max() == 1
    order = values.flatten(1).argsort(1)
    assert (found.flatten(1).gather(1, order).diff(dim=1) >= 0).all()
    assert torch.allclose(relative(5 * values), found, atol=1e-5)  # only the shape of an energy map means something


def test_relative_by_hand():
    values = torch.arange(101.0).view(1, 101)  # the 1 % quantile is 1, the 99 % quantile 99
    assert torch.allclose(relative(values), ((values - 1) / 98).clamp(0, 1))


def test_relative_clips_outliers_instead_of_following_them():
    values = torch.linspace(0, 1, 1000).view(1, 20, 50)
    spiked = values.clone()
    spiked[0, 0, 0], spiked[0, 19, 49] = -1e6, 1e6
    assert torch.allclose(relative(spiked), relative(values), atol=0.01)
    assert relative(spiked)[0, 19, 49] == 1 and relative(spiked)[0, 0, 0] == 0


@pytest.mark.parametrize("value", [0.0, 1e-30, 7.0])
def test_relative_of_a_flat_map_is_zero_and_finite(value):
    assert torch.equal(relative(torch.full((2, 4, 4), value)), torch.zeros(2, 4, 4))


@pytest.mark.parametrize(
    ("alpha", "guide", "down", "up"),
    [((6, 4), (12, 8), (6, 4), None), ((6, 4), (3, 8), (3, 4), (6, 4)), ((4, 6, 2), (8, 6, 1), (4, 6, 1), (4, 6, 2))],
)
def test_an_energy_is_brought_to_the_grid_of_alpha_and_then_into_its_range(alpha, guide, down, up):
    """Area means where it shrinks, linear where it grows; the finer of the two networks may be either."""
    mine, features = uniform(2, 1, *alpha, seed=1), uniform(2, 5, *guide, seed=2)
    target = getattr(F, f"adaptive_avg_pool{len(down)}d")(features.square().sum(1, keepdim=True), down)
    if up:
        target = F.interpolate(target, up, mode={2: "bilinear", 3: "trilinear"}[len(up)], align_corners=False)
    target = relative(target[:, 0]).flatten(1)
    expected = normalised_error(mine.flatten(1), target)
    assert read(mine, features, ENERGY).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert read(mine, 100 * features, ENERGY).loss.item() == pytest.approx(expected.item(), rel=1e-4)


def test_a_gate_as_a_target_is_the_absolute_value_it_is():
    mine, gate = uniform(2, 1, 4, 6, seed=1), 0.4 + 0.2 * uniform(2, 1, 8, 12, seed=2)
    target = F.avg_pool2d(gate, 2).flatten(1)  # from 0.4 to 0.6, not stretched to 0 to 1
    expected = normalised_error(mine.flatten(1), target)
    assert read(mine, gate).loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert read(mine, gate, ENERGY).loss.item() != pytest.approx(expected.item(), rel=0.1)


def test_the_power_is_that_of_the_energy():
    mine, features = uniform(1, 1, 4, 4, seed=1), uniform(1, 5, 4, 4, seed=2)
    term = GateTerm([ENERGY], p=4.0)
    loss = term(View({"s.alpha": mine}), View({"t.decoder": features}), Batch(mine))["at_G2"].loss
    assert loss.item() == pytest.approx(
        normalised_error(mine.flatten(1), relative(energy(features, 4.0)).flatten(1)).item()
    )


# ---- the control


def test_shuffled_is_the_teacher_on_the_next_image_of_the_batch():
    mine, theirs = uniform(3, 1, 4, 4, seed=1), uniform(3, 1, 4, 4, seed=2)
    moved = theirs[[2, 0, 1]]
    assert torch.equal(read(mine, theirs, target="shuffled").loss, read(mine, moved, target="teacher").loss)
    assert read(theirs, theirs, target="shuffled").loss > 1 and read(theirs, theirs).loss == 0
    by_energy = read(mine, theirs.expand(-1, 5, -1, -1), ENERGY, "shuffled").loss
    assert torch.equal(by_energy, read(mine, moved.expand(-1, 5, -1, -1), ENERGY).loss)


def test_a_batch_of_one_cannot_be_shuffled():
    with pytest.raises(InputError, match="batches of two or more"):
        read(uniform(1, 1, 4, 4), uniform(1, 1, 4, 4), target="shuffled")


# ---- the labels


@pytest.mark.parametrize("size", [(8, 12), (4, 6), (2, 4), (1, 3)])
def test_masks_give_the_share_of_foreground_in_each_cell(size):
    masks = (uniform(3, 8, 12) * 3).long()  # classes 0, 1, 2: both are foreground
    alpha = uniform(3, 1, *size, seed=1)
    kernel = 8 // size[0], 12 // size[1]
    target = F.avg_pool2d((masks > 0).float().unsqueeze(1), kernel).flatten(1)
    expected = normalised_error(alpha.flatten(1), target)
    assert read(alpha, None, target="truth", masks=masks).loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_masks_of_volumes_and_of_sizes_that_do_not_divide():
    masks = torch.zeros(1, 5, 4, 4, dtype=torch.long)
    masks[0, 2] = 1  # of 5 slices the middle one, which two cells of three share
    figures = read(torch.full((1, 1, 3, 2, 2), 0.5), None, target="truth", masks=masks).figures
    target = torch.tensor([0, 1 / 3, 0])  # cell 1 holds slices 1, 2 and 3
    assert figures["spread_G2"].item() == pytest.approx(target.std(correction=0).item(), rel=1e-5)


def rasterised(boxes: Tensor, owners: Tensor, images: int, size: tuple[int, int], fine: int = 40) -> Tensor:
    """Brute force: each cell in `fine` x `fine` points, of each box the share inside, of these the largest."""
    height, width = size
    ys, xs = ((torch.arange(n * fine) + 0.5) / (n * fine) for n in (height, width))
    found = torch.zeros(images, height, width)
    for (x, y, w, h), owner in zip(boxes.tolist(), owners.tolist()):
        inside = ((ys - y).abs() <= h / 2).float().unsqueeze(1) * ((xs - x).abs() <= w / 2).float()
        share = inside.view(height, fine, width, fine).mean((1, 3))
        found[int(owner)] = torch.maximum(found[int(owner)], share)
    return found


@pytest.mark.parametrize("size", [(5, 8), (8, 5), (1, 1), (3, 16)])
def test_boxes_cover_cells_as_a_fine_raster_finds(size):
    centres, lengths = uniform(12, 2, seed=1), uniform(12, 2, seed=2) ** 2
    boxes, owners = torch.cat([centres, lengths], 1), torch.arange(12.0) % 3  # some reach beyond the image
    found = covered(boxes, owners, 4, size)
    assert found.shape == (4, *size) and found.min() >= 0 and found.max() <= 1
    assert torch.allclose(found, rasterised(boxes, owners, 4, size), atol=0.03)
    assert not found[3].any()  # an image without boxes


def test_boxes_by_hand():
    def of(*boxes: list[float], size: tuple[int, int] = (2, 4)) -> Tensor:
        return covered(torch.tensor(boxes), torch.zeros(len(boxes)), 1, size)[0]

    assert of([0.5, 0.5, 1.0, 1.0]).tolist() == [[1] * 4] * 2
    assert of([0.125, 0.25, 0.25, 0.5]).tolist() == [[1, 0, 0, 0], [0] * 4]  # exactly one cell
    assert of([0.25, 0.25, 0.25, 0.25]).tolist() == [[0.25, 0.25, 0, 0], [0] * 4]  # astride two, half as high
    assert of([0.0, 0.25, 0.5, 0.5]).tolist() == [[1, 0, 0, 0], [0] * 4]  # half of it lies outside
    assert of([0.5, 0.5, 0.0, 0.5]).tolist() == [[0] * 4] * 2  # no width
    overlapping = of([0.125, 0.25, 0.25, 0.5], [0.125, 0.25, 0.125, 0.5], [0.1875, 0.25, 0.125, 0.5])
    assert overlapping.tolist() == [[1, 0, 0, 0], [0] * 4]  # not counted twice
    assert torch.equal(covered(torch.zeros(0, 4), torch.zeros(0), 2, (3, 3)), torch.zeros(2, 3, 3))


def test_boxes_are_a_target_and_an_order_of_them_means_nothing():
    boxes, owners = torch.tensor([[0.5, 0.5, 0.5, 0.5], [0.2, 0.3, 0.1, 0.3]]), torch.tensor([0.0, 1.0])
    alpha = uniform(2, 1, 6, 4)
    expected = normalised_error(alpha.flatten(1), rasterised(boxes, owners, 2, (6, 4), 120).flatten(1))
    for order in ([0, 1], [1, 0]):
        loss = read(alpha, None, target="truth", boxes=boxes[order], box_image=owners[order]).loss
        assert loss.item() == pytest.approx(expected.item(), rel=0.01)


def test_labels_that_are_missing_are_an_error():
    with pytest.raises(InputError, match="masks or boxes"):
        read(uniform(2, 1, 4, 4), None, target="truth")


# ---- the term


def test_the_targets_are_those_that_the_settings_offer():
    assert {"none", *TARGETS} == set(ranges.GATES)
    with pytest.raises(ValueError, match="teacher, shuffled, truth"):
        GateTerm([GATE], "teachers")


def test_layers_are_the_gates_and_their_guides_and_the_labels_need_no_guide():
    assert GateTerm([GATE, ENERGY]).layers() == (("s.alpha", "s.alpha"), ("t.alpha", "t.decoder"))
    assert GateTerm([GATE], "shuffled").layers() == (("s.alpha",), ("t.alpha",))
    assert GateTerm([Pair("G2", "s.alpha", "", kind="gate")], "truth").layers() == (("s.alpha",), ())


def test_the_figures_by_hand():
    """Sample 1: alpha (0, 1, 0, 1) on (0, 0, 1, 1), r = 0; sample 2: alpha (0.2, 0.2, 0.4, 0.4) on it, r = 1."""
    alpha = torch.tensor([[0.0, 1.0, 0.0, 1.0], [0.2, 0.2, 0.4, 0.4]]).view(2, 1, 2, 2).requires_grad_()
    target = torch.tensor([[0.0, 0.0, 1.0, 1.0]] * 2).view(2, 1, 2, 2)
    figures = read(alpha, target).figures
    assert {name: value.item() for name, value in figures.items()} == pytest.approx(
        {
            "r_G2": (0 + 1) / 2,
            "std_G2": (0.5 + 0.1) / 2,
            "dist_G2": (0.5**0.5 + ((0.04 + 0.36) / 2) ** 0.5) / 2,
            "spread_G2": 0.5,
        },
        abs=1e-6,
    )
    assert not any(value.requires_grad or value.shape for value in figures.values())


def test_an_image_whose_target_is_flat_has_no_correlation():
    alpha = uniform(1, 1, 6, 6)
    both = read(torch.cat([alpha, alpha]), torch.cat([alpha, torch.zeros(1, 1, 6, 6)]))
    assert both.figures["r_G2"].item() == pytest.approx(1, abs=1e-5)
    assert read(alpha, torch.zeros(1, 1, 6, 6)).figures["r_G2"].item() == 0


def test_the_correlation_has_a_sign():
    alpha = uniform(1, 1, 6, 6)
    assert read(alpha, 1 - alpha).figures["r_G2"].item() == pytest.approx(-1, abs=1e-5)


def test_several_heads_are_losses_of_their_own_and_weights_multiply():
    pairs = [Pair("G2.1", "a.1", "t", kind="gate"), Pair("G2.2", "a.2", "t", weight=2.5, kind="gate")]
    one, two, guide = (uniform(2, 1, 4, 4, seed=i) for i in range(3))
    readings = GateTerm(pairs)(View({"a.1": one, "a.2": two}), View({"t": guide}), Batch(one))
    assert list(readings) == ["at_G2.1", "at_G2.2"] and "r_G2.2" in readings["at_G2.2"].figures
    assert readings["at_G2.1"].loss.item() == pytest.approx(read(one, guide).loss.item())
    assert readings["at_G2.2"].loss.item() == pytest.approx(2.5 * read(two, guide).loss.item())


def test_half_precision_and_autocast_leave_the_loss_in_float32():
    mine, theirs = uniform(2, 1, 4, 4, seed=1), uniform(2, 3, 4, 4, seed=2)
    plain = read(mine, theirs, ENERGY).loss
    with torch.autocast("cpu", torch.bfloat16):
        low = read(mine, theirs.bfloat16(), ENERGY).loss
    assert low.dtype == torch.float32 and low.item() == pytest.approx(plain.item(), rel=0.05)


# ---- with networks

IMAGES = F.interpolate(uniform(12, 1, 6, 8, seed=5) - 0.5, (24, 32), mode="bilinear") * 4


def lively_teacher() -> UNet:
    """Untrained, but its BatchNorms know the images, so what it sees depends on them, and its gate is half open."""
    torch.manual_seed(7)
    network = UNet(1, 2, (4, 8, 8), gated=True)
    network.gates["2"].psi.weight.data *= 20
    with torch.no_grad(), Taps(network.gates["2"], ["psi"]) as taps:
        for _ in range(30):
            network(IMAGES)
            q = taps.read()["psi"]
        network.gates["2"].psi.bias -= q.mean()
    return network


def followed(target: str, guide: str, kind: str) -> float:
    """The correlation of alpha with the teacher on the images, after 100 steps under this target alone."""
    torch.manual_seed(3)
    student, network = UNet(1, 2, (3, 6, 6), gated=True), lively_teacher()
    pair = Pair("G2", ALPHA, guide, kind=kind)
    distiller = Distiller(Teacher(network, [guide], stride=1), [GateTerm([pair], target)], {"gates": 1.0})
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    order = torch.Generator().manual_seed(0)
    for _ in range(100):
        images = IMAGES[torch.randperm(12, generator=order)[:6]]
        with distiller.watch(student, Batch(images)) as step:
            student(images)
        optimizer.zero_grad()
        step.losses()["at_G2"].backward()
        optimizer.step()
    audit = Distiller(Teacher(network, [guide], stride=1), [GateTerm([pair])], {"gates": 1.0})
    student.eval()
    with torch.no_grad(), audit.watch(student, Batch(IMAGES)) as step:
        student(IMAGES)
    return step.figures()["r_G2"].item()


@pytest.mark.parametrize(("guide", "kind"), [(ALPHA, "gate"), ("decoder.2", "energy")])
def test_a_student_follows_its_teacher_and_does_not_under_the_shuffled_control(guide, kind):
    truly, control = followed("teacher", guide, kind), followed("shuffled", guide, kind)
    assert truly > 0.7
    assert control < truly - 0.3


def test_labels_need_no_teacher():
    torch.manual_seed(3)
    student = UNet(1, 2, (3, 6, 6), gated=True)
    distiller = Distiller(None, [GateTerm([Pair("G2", ALPHA, "", kind="gate")], "truth")], {"gates": 1.0})
    masks = (IMAGES[:, 0] > 0).long()
    optimizer = torch.optim.Adam(student.parameters(), lr=0.02)
    found = []
    for _ in range(40):
        with distiller.watch(student, Batch(IMAGES, masks=masks)) as step:
            student(IMAGES)
        optimizer.zero_grad()
        step.losses()["at_G2"].backward()
        optimizer.step()
        found.append(step.figures()["r_G2"].item())
    assert not step.guide
    assert found[-1] > 0.9 > 0.6 > abs(found[0])


def test_volumes_with_two_heads_through_networks():
    torch.manual_seed(0)
    student, network = (UNet(1, 2, (2, 2, 4), dims=3, gated=True, heads=heads) for heads in (2, 1))
    pairs = [Pair(f"G2.{head}", f"gates.2.alpha.{head}", ALPHA, kind="gate") for head in (1, 2)]
    distiller = Distiller(Teacher(network, [ALPHA], stride=1), [GateTerm(pairs)], {"gates": 1.0})
    volumes = uniform(2, 1, 8, 12, 10)
    with distiller.watch(student, Batch(volumes)) as step:
        student(volumes)
    assert set(itertools.chain(step.features)) == {"gates.2.alpha.1", "gates.2.alpha.2"}
    assert step.features["gates.2.alpha.1"].shape == (2, 1, 2, 3, 3)
    sum(step.losses().values()).backward()
    psi = student.gates["2"].psi.weight.grad.flatten(1)
    assert psi[0].any() and psi[1].any()  # each head by its own loss
