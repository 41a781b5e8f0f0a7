"""Features against the teacher's: R^2 of a least squares fit, its invariances, and its gradient."""

import pytest
import torch

from distill.attention.pairs import Pair
from distill.terms.base import Batch, View
from distill.terms.features import RIDGE, FeatureTerm, in_turn, positions, some, unexplained

N = 8192  # positions: the fit is shrunk by 6 / N
TIGHT = 2e-3
PAIRS = [Pair("P3", "s", "t")]
BATCH = Batch(torch.zeros(2, 3, 32, 32))


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def centred(x):
    return x - x.mean(0)


def fitted(x, y):
    """1 - R^2 by torch's own least squares, the mean over the channels of y."""
    x, y = centred(x), centred(y)
    rest = y - x @ torch.linalg.lstsq(x, y).solution
    return (rest.square().sum(0) / y.square().sum(0)).mean()


def related(n=N, mine=6, theirs=9, noise=1.0):
    x = draw(n, mine)
    return x, x @ draw(mine, theirs, seed=1) + noise * draw(n, theirs, seed=2)


def test_it_is_what_least_squares_leaves():
    x, y = related()
    assert unexplained(x, y).item() == pytest.approx(fitted(x, y).item(), abs=TIGHT)
    assert 0.05 < unexplained(x, y).item() < 0.6


def test_as_many_channels_as_positions_do_not_explain_everything():
    assert unexplained(draw(64, 64), draw(64, 9, seed=1)).item() > 0.1


def test_all_is_told_or_nothing():
    x, y = related(noise=0.0)
    assert unexplained(x, y).item() == pytest.approx(0, abs=TIGHT)
    assert unexplained(x, draw(N, 9, seed=3)).item() == pytest.approx(1, abs=TIGHT)


def test_it_is_the_same_for_any_basis_and_scale_of_the_student_and_any_scale_of_the_teacher():
    x, y = related()
    turn, _ = torch.linalg.qr(draw(6, 6, seed=4))
    expected = unexplained(x, y).item()
    assert unexplained(x @ turn, y).item() == pytest.approx(expected, abs=TIGHT)
    assert unexplained(x * torch.logspace(-3, 2, 6) + 5, y).item() == pytest.approx(expected, abs=1e-9)
    assert unexplained(x, y * torch.arange(1, 10) - 7).item() == pytest.approx(expected, abs=1e-9)


def test_its_gradient_is_that_of_the_best_map_held_still():
    for n, mine in ((64, 6), (16, 12)):
        x, y = related(n, mine)
        x.requires_grad_()
        (slope,) = torch.autograd.grad(unexplained(x, y), x)
        still, scaled = centred(x.detach()), centred(y) / centred(y).square().mean(0).sqrt()
        ridge = (RIDGE + mine / n) * torch.diag(still.square().mean(0))
        w = torch.linalg.solve(still.T @ still / n + ridge, still.T @ scaled / n)
        x = x.detach().requires_grad_()
        (expected,) = torch.autograd.grad((centred(x) @ w - scaled).square().mean(), x)
        torch.testing.assert_close(slope, expected)
    assert not unexplained(x.detach(), y.requires_grad_()).requires_grad


def test_a_step_against_the_gradient_explains_more():
    x, y = related(noise=2.0)
    x.requires_grad_()
    loss = unexplained(x, y)
    (slope,) = torch.autograd.grad(loss, x)
    assert unexplained(x.detach() - 0.1 * slope / slope.norm() * x.norm(), y) < loss


def test_channels_that_never_vary_are_not_counted_and_dead_students_explain_nothing():
    x, y = related()
    still = torch.cat([y, torch.full((N, 3), 2.0)], 1)
    assert unexplained(x, still).item() == pytest.approx(unexplained(x, y).item(), abs=1e-9)
    x.requires_grad_()
    for nothing in (torch.full_like(y, 3.0), y[:1].expand_as(y)):
        loss = unexplained(x, nothing)
        assert loss.item() == 1 and torch.autograd.grad(loss, x)[0].eq(0).all()
    assert unexplained(x[:1], y[:1]).item() == 1
    dead = torch.zeros_like(x).requires_grad_()
    loss = unexplained(dead, y)
    assert loss.item() == pytest.approx(1) and torch.autograd.grad(loss, dead)[0].isfinite().all()


def test_maps_meet_on_the_smaller_grid_and_positions_keep_their_images():
    features = draw(2, 3, 4, 4)
    assert torch.equal(positions(features, (4, 4))[5], features[0, :, 1, 1].float())
    assert torch.equal(positions(features, (4, 4))[16], features[1, :, 0, 0].float())
    assert positions(features, (2, 2))[0].tolist() == pytest.approx(features[0, :, :2, :2].mean((1, 2)).tolist())
    volume = draw(2, 3, 2, 4, 4)
    assert positions(volume, (2, 4, 4)).shape == (64, 3)
    assert torch.equal(positions(volume, (2, 4, 4))[17], volume[0, :, 1, 0, 1].float())


def test_of_large_levels_a_part_is_compared_and_all_of_it_after_a_while():
    def batch(step):
        return Batch(torch.zeros(1, 3, 8, 8), epoch=step // 3, step=step % 3, steps=3)

    assert some((2, 32, 32), 64, batch(0)) == slice(0, None, 1) == some((4, 32, 32), 256, batch(5))
    for images, width in ((16, 32), (8, 80), (4, 40), (8, 60), (2, 48)):
        shape = images, width, width
        every = some(shape, 64, batch(0)).step
        parts = [range(images * width**2)[some(shape, 64, batch(step))] for step in range(every)]
        assert all(900 < len(part) <= 2048 for part in parts)
        assert sorted(where for part in parts for where in part) == list(range(images * width**2))
        columns = [where % width for where in parts[-1]]
        assert max(map(columns.count, range(width))) - min(map(columns.count, range(width))) < 3

    mine, theirs = draw(4, 3, 32, 32), draw(4, 5, 32, 32, seed=1)
    term = FeatureTerm(PAIRS)
    seen = [term(View({"s": mine}), View({"t": theirs}), batch(step))["ft_P3"].loss.item() for step in (0, 1)]
    rows = [slice(step, None, 3) for step in (0, 1)]
    assert seen == [
        unexplained(positions(mine, (32, 32), row), positions(theirs, (32, 32), row)).item() for row in rows
    ]
    assert seen[0] != seen[1]


def test_of_many_channels_a_part_is_told_at_each_step_and_all_of_them_after_a_while():
    def batch(step):
        return Batch(torch.zeros(1, 3, 8, 8), epoch=step // 3, step=step % 3, steps=3)

    assert in_turn(64, 64, batch(7)) == slice(0, None, 1)
    for channels in (65, 128, 200, 512):
        parts = [range(channels)[in_turn(channels, 64, batch(step))] for step in range(-(-channels // 64))]
        assert all(0 < len(part) <= 64 for part in parts)
        assert sorted(channel for part in parts for channel in part) == list(range(channels))

    mine, theirs = draw(4, 3, 8, 8), draw(4, 130, 8, 8, seed=1)
    seen = [
        FeatureTerm(PAIRS)(View({"s": mine}), View({"t": theirs}), batch(step))["ft_P3"].loss.item() for step in (0, 4)
    ]
    x, y = positions(mine, (8, 8)), positions(theirs, (8, 8))
    assert seen == [pytest.approx(unexplained(x, y[:, first::3]).item()) for first in (0, 1)]
    assert seen[0] != seen[1]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_term_gives_a_loss_and_what_was_explained(dtype):
    mine = draw(2, 6, 8, 8).to(dtype).requires_grad_()
    guide = torch.cat([mine.detach().float().movedim(1, -1) @ draw(6, 4, seed=1).float()], -1).movedim(-1, 1)
    with torch.autocast("cpu", torch.bfloat16):
        reading = FeatureTerm([Pair("P3", "s", "t", weight=3.0)])(
            View({"s": mine}), View({"t": guide + draw(2, 4, 8, 8, seed=2).float()}), BATCH
        )["ft_P3"]
    assert reading.loss.item() == pytest.approx(3 * (1 - reading.figures["r2_P3"].item()), abs=1e-5)
    assert 0.5 < reading.figures["r2_P3"].item() < 1 and not reading.figures["r2_P3"].requires_grad
    reading.loss.backward()
    assert mine.grad.abs().sum() > 0


def test_it_names_what_it_reads():
    term = FeatureTerm(PAIRS)
    assert term.layers() == (("s",), ("t",)) and term.at == ("s",) and term.name == "features"
