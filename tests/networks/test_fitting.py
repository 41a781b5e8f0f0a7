"""A network fitted to another by least squares: hand references, exact recovery, and nothing left behind."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill import progress
from distill.networks import fitting
from distill.networks.fitting import RIDGES, fit, least_squares, sharpness, targets_of
from distill.networks.noting import note, positions

BLOCKS = {"0.conv": "0.bn", "1.conv": "1.bn", "2.conv": "2.bn", "3": ""}


def draw(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


class Block(nn.Module):
    def __init__(self, c: int, out: int, groups: int = 1, stride: int = 1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(c, out, 3, stride, 1, groups=groups, bias=False)
        self.bn = nn.BatchNorm2d(out, eps=1e-3)

    def forward(self, x: Tensor) -> Tensor:
        return F.silu(self.bn(self.conv(x)))


def network(width: int, seed: int) -> Any:
    torch.manual_seed(seed)
    model = nn.Sequential(
        Block(3, width, stride=2), Block(width, width, groups=width), Block(width, width), nn.Conv2d(width, 5, 1)
    )
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 2)
            nn.init.uniform_(module.bias, -1, 1)
            nn.init.uniform_(module.running_mean, -0.3, 0.3)
            nn.init.uniform_(module.running_var, 0.5, 2)
    return model


# ---- the linear problem


@pytest.mark.parametrize("weighted", [False, True])
def test_least_squares_is_torchs_own_for_each_group(weighted: bool) -> None:
    x, y = draw(4000, 2, 5), draw(4000, 2, 3, seed=1)
    y = y + torch.einsum("ngp,gpq->ngq", x, draw(2, 5, 3, seed=2)) + 4
    weights = torch.rand(4000, generator=torch.Generator().manual_seed(3)) if weighted else None
    slope, offset, told, _ = least_squares(x, y, weights)
    root = (torch.ones(4000) if weights is None else weights).sqrt().view(-1, 1)
    for g in range(2):
        inputs = torch.cat([x[:, g], torch.ones(4000, 1)], 1)
        exact = torch.linalg.lstsq(root * inputs, root * y[:, g]).solution
        assert torch.allclose(slope[g], exact[:-1], atol=5 * RIDGES[0])
        assert torch.allclose(offset[g], exact[-1], atol=5 * RIDGES[0])
    assert 0.7 < told < 0.95


@pytest.mark.parametrize(
    "how",
    [
        {},
        {"stride": 2, "padding": 1},
        {"padding": 2, "dilation": 2},
        {"groups": 3, "padding": 1},
        {"groups": 6, "padding": (1, 0), "stride": (2, 1)},
    ],
)
def test_patches_are_what_a_convolution_multiplies(how: dict[str, Any]) -> None:
    conv = nn.Conv2d(6, 12, 3, bias=False, **how)
    x = draw(2, 6, 9, 11)
    out = conv(x).movedim(1, -1).flatten(0, -2)
    where = torch.tensor([0, 5, len(out) - 1, len(out) // 2])
    patches = fitting._patches(x, conv, where)  # (4, groups, p)
    weight = conv.weight.reshape(conv.groups, 12 // conv.groups, -1).transpose(1, 2)  # (groups, p, q)
    mine = torch.einsum("ngp,gpq->ngq", patches, weight).flatten(1)
    assert torch.allclose(mine, out[where], atol=1e-5)


def test_half_of_the_positions_are_where_something_is() -> None:
    interest = torch.zeros(2, 1, 8, 8)
    interest[1, 0, 2:4, 2:4] = 1.0
    where = positions(2, torch.Size((32, 32)), 0, interest, 400)
    image, row, column = where // 1024, where % 1024 // 32, where % 32
    inside = (image == 1) & (row >= 8) & (row < 16) & (column >= 8) & (column < 16)
    assert inside.sum() == 64  # all of them, without replacement; the rest of the half is drawn elsewhere
    assert len(where) == len(where.unique()) > 330
    assert torch.equal(where, positions(2, torch.Size((32, 32)), 0, interest, 400))
    assert len(positions(2, torch.Size((10, 10)), 0, interest, 400)) == 200


# ---- networks


@pytest.mark.parametrize("interest", [None, torch.ones(40, 1, 8, 8)])
def test_positions_and_values_belong_together_when_only_some_are_taken_over_several_passes(
    interest: Tensor | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """40 images go through the large network in three parts; a layer of its own form can still be found exactly."""
    monkeypatch.setattr(note, "__defaults__", (None, 3000, ""))  # of 40 x 32 x 32 and less
    teacher, student = network(8, 0).eval(), network(8, 1).eval()
    images = draw(40, 3, 64, 64)
    told = fit(student, targets_of(teacher, BLOCKS, {}, images, interest), BLOCKS, images)
    assert min(one.r2 for one in told.values()) > 0.99


def test_a_network_of_the_same_size_becomes_the_other_one() -> None:
    """Every convolution can give exactly what it should: nothing is left."""
    teacher, student = network(8, 0).eval(), network(8, 1).eval()
    images = draw(16, 3, 24, 32)
    before = (student(images) - teacher(images)).norm()
    told = fit(student, targets_of(teacher, BLOCKS, {}, images), BLOCKS, images)
    assert list(told) == list(BLOCKS) and min(one.r2 for one in told.values()) > 0.999
    fresh = draw(8, 3, 24, 32, seed=5)
    assert (student(fresh) - teacher(fresh)).norm() < 0.05 * teacher(fresh).norm() < before
    student.train()  # the batch's statistics are those that it was given
    assert (student(images) - teacher(images)).norm() < 0.1 * teacher(images).norm()


def test_a_fit_that_takes_long_tells_how_far_it_is(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(progress, "SILENT", -1.0)
    monkeypatch.setattr(progress, "EVERY", -1.0)
    teacher, student, images = network(8, 0).eval(), network(8, 1).eval(), draw(32, 3, 24, 32)
    fit(student, targets_of(teacher, BLOCKS, {}, images), BLOCKS, images)
    told = capsys.readouterr().err
    assert "batches seen by the teacher 2/2\n" in told
    assert "convolutions fitted 1/4\n" in told and told.endswith("convolutions fitted 4/4\n")


def test_training_goes_on_from_what_was_fitted() -> None:
    """With half of the positions where something is, the BatchNorms' statistics are still those of all of them."""
    teacher, student = network(8, 0).eval(), network(8, 1)
    images = draw(16, 3, 64, 64)
    images[:, :, 8:24, 8:24] *= 4
    interest = torch.zeros(16, 1, 16, 16)
    interest[:, :, 2:6, 2:6] = 1
    fit(student, targets_of(teacher, BLOCKS, {}, images, interest), BLOCKS, images)
    far = {}
    for mode in (True, False):
        student.train(mode)
        far[mode] = float((student(images) - teacher(images)).norm() / teacher(images).norm())
    assert far[False] < 0.1 and far[True] < 0.1


def test_a_smaller_network_gives_what_it_can_in_the_channels_that_it_stands_for() -> None:
    teacher, student = network(8, 0).eval(), network(4, 1).eval()
    kept = torch.tensor([1, 2, 5, 7])
    places = {(f"{name}.weight", 0): kept for name in BLOCKS if name != "3"}
    images = draw(16, 3, 24, 32)
    told = fit(student, targets_of(teacher, BLOCKS, places, images), BLOCKS, images)
    assert told["0.conv"].r2 > 0.999 and told["1.conv"].r2 > 0.99  # image and own channel are all that these read
    assert 0.2 < told["2.conv"].r2 < 0.99
    assert torch.allclose(student[:2](images), teacher[:2](images)[:, kept], atol=0.1)
    random = network(4, 1).eval()
    target = teacher(images)
    assert (student(images) - target).norm() < 0.7 * (random(images) - target).norm()


def test_outputs_without_a_counterpart_stay() -> None:
    teacher, student = network(8, 0), network(8, 1)
    last = student[3].weight.detach().clone(), student[3].bias.detach().clone()
    images = draw(8, 3, 16, 16)
    rows = torch.tensor([0, -1, 2, 3, -1])
    fit(student, targets_of(teacher, BLOCKS, {("3.weight", 0): rows}, images), BLOCKS, images)
    for mine, old in zip((student[3].weight, student[3].bias), last, strict=True):
        assert torch.equal(mine[rows < 0], old[rows < 0]) and not torch.equal(mine[rows >= 0], old[rows >= 0])


def test_dead_channels_and_sizes_that_differ_are_left_alone() -> None:
    teacher, student = network(8, 0), network(6, 1)
    nn.init.zeros_(teacher[0].bn.weight)
    old = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    images = draw(8, 3, 16, 16)
    assert list(fit(student, targets_of(teacher, BLOCKS, {}, images), BLOCKS, images)) == ["3"]
    assert all(torch.equal(tensor, old[name]) for name, tensor in student.state_dict().items() if name[0] != "3")
    same = network(8, 1)
    fit(same, targets_of(teacher, BLOCKS, {}, images), BLOCKS, images)
    assert all(tensor.isfinite().all() for tensor in same.state_dict().values())
    assert same[0].conv.weight.abs().sum() > 0


def gains(model: Any) -> Tensor:
    return torch.cat([(m.weight.abs() / (m.running_var + m.eps).sqrt()) for m in model.modules() if hasattr(m, "eps")])


def test_a_batchnorms_gain_is_the_large_networks_and_gradients_are_not_built() -> None:
    """Whatever size the solution has: with larger gains the first steps of training would throw it off."""
    teacher, student = network(8, 0).eval(), network(8, 1)
    for module in student.modules():
        if isinstance(module, nn.Conv2d):
            module.weight.data *= 0.01  # once weights kept such sizes, and gains grew by as much
    images = draw(8, 3, 16, 16)
    told = fit(student, targets_of(teacher, BLOCKS, {}, images), BLOCKS, images)
    assert torch.allclose(gains(student), gains(teacher), rtol=1e-3)
    assert max(one.gain for one in told.values()) == pytest.approx(gains(teacher).max().item(), rel=1e-3)
    assert told["3"].gain == 0 < told["0.conv"].sharpness
    assert all(p.requires_grad and p.grad is None and p.is_leaf for p in student.parameters())


def test_modes_are_restored_and_no_hook_stays_even_after_an_error() -> None:
    teacher, student = network(8, 0).train(), network(8, 1).train()
    teacher[1].eval()
    images = draw(4, 3, 16, 16)
    targets = targets_of(teacher, BLOCKS, {}, images)
    fit(student, targets, BLOCKS, images)
    with pytest.raises(RuntimeError):
        targets_of(teacher, BLOCKS, {}, draw(4, 2, 16, 16))
    with pytest.raises(RuntimeError):
        fit(student, targets, BLOCKS, draw(4, 2, 16, 16))
    assert student.training and student[0].bn.training and teacher.training and not teacher[1].training
    for model in (teacher, student):
        assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())


# ---- a problem that is nearly singular


def test_a_small_difference_of_large_numbers_is_not_told_by_sharp_weights() -> None:
    """Two inputs that are all but the same: what tells them apart is mostly noise, and training would not keep it."""
    common, apart = draw(3000, 1), draw(3000, 1, seed=1)
    x = torch.cat([common, common + 0.05 * apart, draw(3000, 1, seed=2)], 1).unsqueeze(1)
    y = torch.stack([apart[:, 0], x[:, 0, 2]], 1).unsqueeze(1)
    xx = torch.cov(x[:, 0].T).unsqueeze(0)
    free, _, told, sharp = least_squares(x, y)
    held, _, less, _ = least_squares(x, y, sharpest=5.0)
    assert sharpness(free, xx)[0, 0, 0] == pytest.approx(sharp, rel=1e-2) and sharp > 20 and told > 0.9
    assert sharpness(held, xx).max() <= 5.01 and less < told
    assert torch.equal(free[..., 1], held[..., 1])  # a column that is not sharp is solved as ever


def test_sharpness_is_one_for_inputs_that_have_nothing_to_do_with_each_other() -> None:
    slope = draw(1, 4, 3)
    assert torch.allclose(sharpness(slope, torch.diag(torch.rand(4) + 0.1).unsqueeze(0)), torch.ones(1, 1, 3))


# ---- what training makes of it


def doubled(small: Any) -> Any:
    """A network of twice the width that computes the same: each channel twice, what reads them halved."""
    large, source = network(2 * small[0].conv.out_channels, 0), small.state_dict()
    for name, tensor in large.state_dict().items():
        part = source[name]
        for axis in range(tensor.dim()):
            if tensor.shape[axis] == 2 * part.shape[axis]:
                part = part.repeat_interleave(2, axis) / (2 if axis == 1 else 1)
        tensor.copy_(part)
    return large


@pytest.mark.parametrize("kind", ["ordinary", "doubled"])
def test_a_few_steps_at_an_ordinary_learning_rate_do_not_throw_it_off(kind: str) -> None:
    """With the sizes that half of a doubled teacher's weights have, gains were so large that they did."""
    teacher = network(8, 0) if kind == "ordinary" else doubled(network(8, 0))
    every = torch.arange(0, 16, 2)
    places = {} if kind == "ordinary" else {(f"{name}.weight", 0): every for name in BLOCKS if name != "3"}
    student, images = network(8, 1), draw(16, 3, 24, 32)
    for block in student[:3]:
        block.conv.weight.data *= 0.01  # as far below the teacher as they were seen to be
    fit(student, targets_of(teacher, BLOCKS, places, images), BLOCKS, images)
    target = teacher.eval()(images).detach()

    def apart() -> float:
        """What the running statistics, which follow slowly, make of it, beside what training sees."""
        seen = student.train()(images)
        return float(((student.eval()(images) - seen).norm() / seen.norm()).detach())

    before = apart()
    other = target.flip(0)  # a task of its own
    optimizer = torch.optim.AdamW(student.parameters(), lr=0.002)
    for module in student.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = 0.03  # as Ultralytics sets it
    for _ in range(12):
        optimizer.zero_grad()
        (student.train()(images) - other).square().mean().backward()
        optimizer.step()
    assert before < 0.05 and apart() < 0.3
