"""Class logits against the teacher's: hand references, invariances, and the mapping of class lists."""

import math

import pytest
import torch
from torch.autograd import gradcheck

from distill import ranges
from distill.attention.pairs import Pair
from distill.errors import InputError
from distill.terms.base import Batch, View
from distill.terms.classes import FORMS, ClassTerm
from distill.terms.dense import Shared

PAIRS = [Pair("3", "s3", "t3"), Pair("4", "s4", "t4")]
BATCH = Batch(torch.zeros(2, 3, 32, 32))


def outputs(seed, classes=3, dtype=torch.float64):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(2, classes, n, n, generator=generator, dtype=torch.float64).to(dtype) for n in (4, 2)]


def read(mine, theirs, **options):
    student, teacher = View(dict(zip(("s3", "s4"), mine))), View(dict(zip(("t3", "t4"), theirs)))
    return ClassTerm(PAIRS, **options)(student, teacher, BATCH)["at_cls"]


def cells(levels):
    return [
        image[:, y, x]
        for level in levels
        for image in level
        for y in range(len(image[0]))
        for x in range(len(image[0]))
    ]


def by_cells(mine, theirs, loss):
    """The mean over cells of `loss`, each weighted by the teacher's best probability: written out in a loop."""
    total = weights = 0.0
    for s, t in zip(cells(mine), cells(theirs)):
        weight = 1 / (1 + math.exp(-t.max().item()))
        total, weights = total + weight * loss(s.double(), t.double()).item(), weights + weight
    return total / weights


def bernoulli(s, t):
    p, q = t.sigmoid(), s.sigmoid()
    return (p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()).sum()


def test_the_forms_are_those_that_the_settings_offer():
    assert tuple(FORMS) == ranges.RESPONSES[: len(FORMS)]


def test_bce_is_the_divergence_of_independent_probabilities_on_confident_cells():
    mine, theirs = outputs(1), outputs(2)
    assert read(mine, theirs).loss.item() == pytest.approx(by_cells(mine, theirs, bernoulli), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_kl_is_that_of_softened_classes(temperature):
    def loss(s, t):
        p, q = (t / temperature).softmax(0), (s / temperature).softmax(0)
        return temperature**2 * (p * (p / q).log()).sum()

    mine, theirs = outputs(1), outputs(2)
    found = read(mine, theirs, form="kl", temperature=temperature).loss.item()
    assert found == pytest.approx(by_cells(mine, theirs, loss), abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_cwd_is_a_divergence_over_positions_class_by_class(temperature):
    mine, theirs = outputs(1), outputs(2)
    levels = []
    for s, t in zip(mine, theirs):
        values = []
        for image in range(2):
            for c in range(3):
                p, q = ((side[image, c].flatten() / temperature).softmax(0) for side in (t, s))
                values.append((p * (p / q).log()).sum().item() * temperature**2)
        levels.append(sum(values) / len(values))
    found = read(mine, theirs, form="cwd", temperature=temperature).loss.item()
    assert found == pytest.approx(sum(levels) / 2, abs=1e-6)


def test_pkd_is_one_minus_the_correlation_class_by_class_and_knows_no_scale():
    mine, theirs = outputs(1), outputs(2)
    levels = []
    for s, t in zip(mine, theirs):
        r = [torch.corrcoef(torch.stack([s[:, c].flatten(), t[:, c].flatten()]))[0, 1].item() for c in range(3)]
        levels.append(1 - sum(r) / 3)
    assert read(mine, theirs, form="pkd").loss.item() == pytest.approx(sum(levels) / 2, abs=1e-6)
    assert read([3 * m - 5 for m in mine], theirs, form="pkd").loss.item() == pytest.approx(sum(levels) / 2, abs=1e-6)


@pytest.mark.parametrize("form", FORMS)
def test_equal_logits_give_zero_with_gradient_zero_and_others_more(form):
    theirs = outputs(2)
    mine = [t.clone().requires_grad_() for t in theirs]
    reading = read(mine, theirs, form=form)
    reading.loss.backward()
    assert reading.loss.item() == pytest.approx(0, abs=1e-6) and all(m.grad.abs().max() < 1e-6 for m in mine)
    assert read(outputs(1), theirs, form=form).loss.item() > 0.1


@pytest.mark.parametrize("form", FORMS)
def test_gradcheck(form):
    theirs = outputs(2, dtype=torch.float32)
    weights = outputs(3)

    def loss(*mine):
        return read(list(mine), theirs, form=form, temperature=2.0).loss.double()

    mine = tuple(m.requires_grad_() for m in weights)
    assert gradcheck(loss, mine, eps=1e-3, atol=2e-3, rtol=2e-2)  # the loss is float32


def test_large_logits_stay_finite():
    mine, theirs = [60 * m for m in outputs(1)], [-60 * t for t in outputs(2)]
    for form in FORMS:
        mine = [m.detach().requires_grad_() for m in mine]
        reading = read(mine, theirs, form=form)
        reading.loss.backward()
        assert torch.isfinite(reading.loss) and all(torch.isfinite(m.grad).all() for m in mine)


def test_only_the_teachers_confident_cells_count():
    mine, theirs = outputs(1), [torch.full_like(t, -30.0) for t in outputs(2)]
    theirs[0][0, 1, 2, 3] = 4.0
    expected = bernoulli(mine[0][0, :, 2, 3], theirs[0][0, :, 2, 3]).item()
    sure = 1 / (1 + math.exp(-4))  # in all, less than one sure cell: it counts for as much less
    assert read(mine, theirs).loss.item() == pytest.approx(sure * expected, rel=1e-4)
    theirs[1][1, 0, 0, 0] = 4.0
    both = expected + bernoulli(mine[1][1, :, 0, 0], theirs[1][1, :, 0, 0]).item()
    assert read(mine, theirs).loss.item() == pytest.approx(both / 2, rel=1e-4)


@pytest.mark.parametrize("form", ["bce", "kl"])
def test_a_teacher_that_sees_nothing_teaches_nothing(form):
    assert 0 <= read(outputs(1), [torch.full_like(t, -14.0) for t in outputs(2)], form=form).loss.item() < 1e-3


def test_classes_are_mapped_by_name():
    shared = Shared.by_name(["Cat", "bird", "dog"], ["dog", "person", "cat"])
    assert shared == Shared((0, 2), (2, 0))
    mine, theirs = outputs(1), outputs(2)
    expected = read([m[:, [0, 2]] for m in mine], [t[:, [2, 0]] for t in theirs]).loss.item()
    assert read(mine, theirs, shared=shared).loss.item() == pytest.approx(expected)
    with pytest.raises(InputError, match="none of the student's names"):
        Shared.by_name(["a"], ["b"])


def test_the_figures():
    theirs = [torch.full((1, 2, 1, 2), -30.0)]
    theirs[0][0, 0, 0, 0] = 0.0
    mine = [torch.tensor([[[[-30.0, 5.0]], [[math.log(3), 0.0]]]])]  # at the confident cell the other class, 0.75
    term = ClassTerm(PAIRS[:1])
    figures = term(View({"s3": mine[0]}), View({"t3": theirs[0]}), BATCH)["at_cls"].figures
    assert {k: v.item() for k, v in figures.items()} == pytest.approx({"dist_cls": 0.25, "agree_cls": 0.0}, abs=1e-5)


def test_other_grids_are_refused():
    mine, theirs = outputs(1), outputs(2)
    with pytest.raises(InputError, match="4x4 cells and the teacher 2x2"):
        read(mine, theirs[::-1])
