"""How strongly distillation counts over a training, and that losses and gradients follow it."""

import math

import pytest
import torch
from torch import nn

from distill import ranges, settings
from distill.attention.pairs import Pair
from distill.distiller import Distiller
from distill.schedule import SHAPES, Schedule
from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Batch

IMAGES = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0))


def test_the_shapes_are_those_that_the_settings_offer():
    assert ranges.SCHEDULES == SHAPES and settings.Settings().schedule == Schedule().shape
    assert settings.Settings().floor == Schedule().floor and settings.Settings().warmup == Schedule().warmup


def test_by_default_it_is_one_for_ever():
    assert {Schedule()(epoch) for epoch in (0, 3.7, 1e6)} == {1.0}


def test_warm_up_rises_linearly_from_zero_within_epochs_too():
    schedule = Schedule(10, warmup=2)
    assert [schedule(e) for e in (0, 0.5, 1, 2, 9.9)] == [0, 0.25, 0.5, 1, 1]


def test_cosine_falls_from_one_to_the_floor_half_way_in_the_middle():
    schedule = Schedule(12, "cosine", warmup=2, floor=0.2)
    assert schedule(2) == 1 and schedule(7) == pytest.approx(0.6) and schedule(12 - 1e-9) == pytest.approx(0.2)
    assert schedule(4.5) == pytest.approx(0.2 + 0.8 * (1 + math.cos(math.pi / 4)) / 2)


def test_it_rests_in_the_tail_and_the_decay_ends_where_that_begins():
    schedule = Schedule(30, "cosine", floor=0.1, tail=10)
    assert schedule(20 - 1e-9) == pytest.approx(0.1) and schedule(20) == 0 and schedule(29.9) == 0
    assert schedule(10) == pytest.approx(0.55)


class Counting(Teacher):
    calls = 0

    def __call__(self, images):
        self.calls += 1
        return super().__call__(images)


@pytest.fixture
def distiller():
    torch.manual_seed(1)
    pairs = [Pair("P1", "0", "0")]
    teacher = Counting(nn.Sequential(nn.Conv2d(3, 4, 3)), ["0"], stride=1)
    return Distiller(teacher, [AttentionTerm(pairs)], {"attention": 3.0}, schedule=Schedule(4, warmup=1, tail=1))


def gradient(distiller, student, epoch, step=0, steps=1):
    student.zero_grad()
    with distiller.watch(student, Batch(IMAGES, epoch=epoch, step=step, steps=steps)) as seen:
        task = student(IMAGES).square().mean()
    loss = seen.losses()["at_P1"]
    (task + loss).backward()
    total = student[0].weight.grad.clone()
    student.zero_grad()
    student(IMAGES).square().mean().backward()
    return loss, total - student[0].weight.grad


def test_the_gradient_follows_it(distiller):
    student = nn.Sequential(nn.Conv2d(3, 5, 3))
    _, full = gradient(distiller, student, 1)
    assert full.abs().max() > 1e-4
    for epoch, step, factor in ((0, 1, 0.25), (0, 2, 0.5), (2, 3, 1), (3, 0, 0), (3, 1, 0)):
        loss, found = gradient(distiller, student, epoch, step, steps=4)
        assert torch.allclose(found, factor * full, atol=1e-7), (epoch, step)
        assert (loss == 0) == (factor == 0)


def test_at_rest_the_teacher_runs_once_an_epoch_for_the_log(distiller):
    student = nn.Sequential(nn.Conv2d(3, 5, 3))
    gradient(distiller, student, 2)
    assert distiller.teacher.calls == 1
    for step in range(5):
        loss, _ = gradient(distiller, student, 3, step, steps=5)
        assert loss.shape == () and loss.dtype == torch.float32
    assert distiller.teacher.calls == 2 and not student[0]._forward_hooks


def test_at_rest_the_first_step_still_has_figures(distiller):
    student = nn.Sequential(nn.Conv2d(3, 5, 3))
    for step, names in ((0, {"cos_P1", "dist_P1"}), (1, set())):
        with distiller.watch(student, Batch(IMAGES, epoch=3, step=step, steps=2)) as seen:
            student(IMAGES)
        assert set(seen.figures()) == names and list(seen.losses()) == ["at_P1"]
