"""Distillation at the output against torch's own Kullback-Leibler divergence and against sums written out."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from distill.distiller import Distiller
from distill.teacher import Teacher
from distill.terms.base import Batch, Reading, View
from distill.terms.logits import LogitsTerm, divergence


def logits(*shape: int, seed: int = 0) -> Tensor:
    return 3 * torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def read(student: Tensor, teacher: Tensor, temperature: float = 2.0) -> Reading:
    term = LogitsTerm("head", "top", temperature)
    return term(View({"head": student}), View({"top": teacher}), Batch(student))["at_logits"]


@pytest.mark.parametrize("temperature", [0.5, 1.0, 2.0, 4.0])
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (1, 2, 4, 3, 5), (3, 4, 6)])
def test_it_is_the_divergence_of_the_softened_probabilities(shape, temperature):
    mine, theirs = logits(*shape, seed=1), logits(*shape, seed=2)
    p, q = (F.softmax(values.double() / temperature, 1) for values in (theirs, mine))
    expected = temperature**2 * (p * (p.log() - q.log())).sum(1).mean()
    assert divergence(mine, theirs, temperature).item() == pytest.approx(expected.item(), rel=1e-5)
    by_torch = torch.distributions.kl_divergence(
        *(torch.distributions.Categorical(logits=v.movedim(1, -1) / temperature) for v in (theirs, mine))
    )
    assert read(mine, theirs, temperature).loss.item() == pytest.approx(
        (temperature**2 * by_torch.mean()).item(), rel=1e-5
    )


def test_by_hand():
    """One position: teacher (3/4, 1/4), student (1/2, 1/2), T = 1."""
    theirs, mine = torch.tensor([3.0, 1.0]).log().view(1, 2, 1, 1), torch.zeros(1, 2, 1, 1)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert read(mine, theirs, 1.0).loss.item() == pytest.approx(expected)
    assert read(theirs, mine, 1.0).loss.item() != pytest.approx(expected, rel=0.05)  # it has a direction


def test_the_value_does_not_grow_with_the_image():
    mine, theirs = logits(1, 3, 4, 4, seed=1), logits(1, 3, 4, 4, seed=2)
    large = (values.repeat(5, 1, 3, 2) for values in (mine, theirs))
    assert read(*large).loss.item() == pytest.approx(read(mine, theirs).loss.item(), rel=1e-5)


def test_equal_logits_give_zero_with_gradient_zero_and_a_common_constant_means_nothing():
    theirs = logits(2, 4, 3, 3)
    mine = (theirs + logits(2, 1, 3, 3, seed=5)).requires_grad_()
    reading = read(mine, theirs)
    reading.loss.backward()
    assert reading.loss.item() == pytest.approx(0, abs=1e-6)
    assert mine.grad.abs().max() < 1e-6
    assert reading.figures["agree_logits"] == 1 and reading.figures["dist_logits"].item() == pytest.approx(0, abs=1e-6)


def test_it_is_never_negative_and_finite_for_certain_networks():
    for scale in (1e-3, 1.0, 1e4):
        mine, theirs = scale * logits(2, 3, 4, 4, seed=1), scale * logits(2, 3, 4, 4, seed=2)
        loss = read(mine.requires_grad_(), theirs).loss
        loss.backward()
        assert loss >= -1e-6 and torch.isfinite(loss) and torch.isfinite(mine.grad).all()


def test_the_gradient_is_that_of_the_paper_and_keeps_its_size_at_high_temperature():
    """dL/dz = T (q - p) / positions; for large T it tends to (z - v) / K of centred logits, whatever T is."""
    theirs = logits(1, 3, 2, 2, seed=2)
    norms = {}
    for temperature in (2.0, 50.0, 100.0):
        mine = logits(1, 3, 2, 2, seed=1).requires_grad_()
        (grad,) = torch.autograd.grad(read(mine, theirs, temperature).loss, mine)
        q, p = (F.softmax(values.detach() / temperature, 1) for values in (mine, theirs))
        assert torch.allclose(grad, temperature * (q - p) / 4, atol=1e-5)
        norms[temperature] = grad.norm().item()
    centred = [values - values.mean(1, keepdim=True) for values in (mine.detach(), theirs)]
    assert norms[100.0] == pytest.approx(((centred[0] - centred[1]) / 3 / 4).norm().item(), rel=0.05)
    assert norms[100.0] == pytest.approx(norms[50.0], rel=0.05)


def test_the_figures_are_the_agreement_and_the_divergence_at_temperature_one():
    mine, theirs = torch.zeros(1, 2, 1, 4), torch.zeros(1, 2, 1, 4)
    mine[0, 1, 0], theirs[0, 1, 0] = torch.tensor([1.0, 1.0, -1.0, -1.0]), torch.tensor([2.0, -2.0, -2.0, -3.0])
    figures = read(mine.requires_grad_(), theirs, 7.0).figures
    assert list(figures) == ["agree_logits", "dist_logits"] and figures["agree_logits"] == 0.75
    assert torch.equal(figures["dist_logits"], read(mine, theirs, 1.0).loss.detach())
    assert not any(value.requires_grad for value in figures.values())


def test_half_precision_is_computed_in_float32():
    mine, theirs = logits(2, 3, 4, 4, seed=1), logits(2, 3, 4, 4, seed=2)
    low = read(mine.half(), theirs.bfloat16()).loss
    assert low.dtype == torch.float32 and low.item() == pytest.approx(read(mine, theirs).loss.item(), rel=0.02)


def test_through_networks_the_student_learns_its_teachers_scores():
    torch.manual_seed(0)
    student, network = (nn.Sequential(nn.Conv3d(1, 3, 1)) for _ in range(2))
    distiller = Distiller(Teacher(network, ["0"], stride=1), [LogitsTerm("0", "0")], {"logits": 1.0})
    optimizer = torch.optim.Adam(student.parameters(), lr=0.1)
    volumes = logits(2, 1, 4, 4, 4)
    for _ in range(100):
        with distiller.watch(student, Batch(volumes)) as step:
            student(volumes)
        optimizer.zero_grad()
        step.losses()["at_logits"].backward()
        optimizer.step()
    assert step.losses()["at_logits"] < 1e-3 and step.figures()["agree_logits"] > 0.95
    assert all(p.grad is None for p in network.parameters())
