"""The attention loss against references written out by hand, for every form and power."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd import gradcheck

from distill import ranges, settings
from distill.attention.pairs import Pair
from distill.terms.attention import FORMS, AttentionTerm
from distill.terms.base import Batch, Reading, View

PAIR = Pair("P3", "student.3", "teacher.7")
BATCH = Batch(torch.zeros(2, 3, 8, 8))


def features(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float32) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def read(student: Tensor, teacher: Tensor, pair: Pair = PAIR, **options: object) -> Reading:
    views = View({pair.student: student}), View({pair.teacher: teacher})
    return AttentionTerm([pair], **options)(*views, BATCH)[pair.column]


def reference(student: Tensor, teacher: Tensor, p: float, form: str) -> Tensor:
    """Sample by sample, from the definition."""
    losses = []
    for s, t in zip(student, teacher):
        a, b = s.abs().pow(p).sum(0), t.abs().pow(p).sum(0)  # (H, W)
        d = a / a.pow(2).sum().sqrt() - b / b.pow(2).sum().sqrt()
        r = torch.corrcoef(torch.stack([a.flatten(), b.flatten()]))[0, 1] if form == "pearson" else d
        forms = {"l2": d.pow(2).sum().sqrt(), "squared": d.pow(2).sum(), "mean": d.pow(2).mean(), "pearson": 1 - r}
        losses.append(forms[form])
    return torch.stack(losses).mean()


def test_the_forms_are_those_that_the_settings_offer():
    assert tuple(FORMS) == ranges.FORMS
    assert AttentionTerm([PAIR]).form == settings.Settings().form
    assert AttentionTerm([PAIR]).p == settings.Settings().p


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0])
def test_value_and_gradient_are_those_of_the_reference(form, p):
    student, teacher = features(2, 8, 5, 7, seed=1).requires_grad_(), features(2, 12, 5, 7, seed=2)
    loss = read(student, teacher, p=p, form=form).loss
    assert loss.shape == () and loss.dtype == torch.float32 and loss.item() >= 0
    exact = student.detach().double().requires_grad_()
    expected = reference(exact, teacher.double(), p, form)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    (grad,), (expected_grad,) = torch.autograd.grad(loss, student), torch.autograd.grad(expected, exact)
    assert torch.allclose(grad.double(), expected_grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_gradcheck(form, p):
    teacher = features(2, 3, 2, 3, seed=2, dtype=torch.float64)
    student = features(2, 2, 4, 3, seed=1, dtype=torch.float64).requires_grad_()  # resized, too
    assert gradcheck(lambda f: read(f, teacher, p=p, form=form).loss, (student,))


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("p", [0.5, 1.0, 2.0, 3.0])
def test_identical_and_zero_maps_give_zero_with_gradient_zero(form, p):
    f = features(2, 6, 4, 4)
    for student, teacher in ((f, f), (f * 3, f), (f * 0, f * 0), (f[:, torch.randperm(6)], f)):
        student = student.clone().requires_grad_()
        reading = read(student, teacher, p=p, form=form)
        reading.loss.backward()
        assert reading.loss.item() == pytest.approx(0, abs=1e-6)
        if torch.equal(student, teacher):
            assert reading.loss.item() == 0 and torch.equal(student.grad, torch.zeros_like(f))
        assert torch.isfinite(student.grad).all()


@pytest.mark.parametrize("form", FORMS)
def test_a_zero_student_beside_a_live_teacher_is_finite(form):
    student = torch.zeros(2, 6, 4, 4, requires_grad=True)
    loss = read(student, features(2, 6, 4, 4), form=form).loss
    loss.backward()
    expected = {"mean": 1 / 16, "pearson": 1 / 2}.get(form, 1)
    assert loss.item() == pytest.approx(expected) and not student.grad.any()


def test_the_forms_of_one_known_difference():
    """Maps (1, 0) and (0.6, 0.8): the difference is (0.4, -0.8), and what one has more the other has less."""
    student, teacher = torch.tensor([[[[1.0, 0.0]]]]), torch.tensor([[[[0.6**0.5, 0.8**0.5]]]])
    values = {form: read(student, teacher, form=form).loss.item() for form in FORMS}
    assert values == pytest.approx({"l2": 0.8**0.5, "squared": 0.8, "mean": 0.4, "pearson": 2})


def test_the_squared_form_lies_between_zero_and_two_at_any_resolution():
    for n in (2, 40):
        student, teacher = torch.zeros(1, 1, n, n), torch.zeros(1, 1, n, n)
        student[..., 0, 0], teacher[..., -1, -1] = 5, 0.1  # they look at opposite corners
        assert read(student, teacher, form="squared").loss.item() == pytest.approx(2)
        assert read(student, teacher, form="l2").loss.item() == pytest.approx(math.sqrt(2))


def test_maps_of_different_size_meet_on_the_smaller_grid_dimension_by_dimension():
    student, teacher = features(2, 4, 8, 6, seed=1), features(2, 4, 4, 12, seed=2)
    a = F.avg_pool2d(student.square().sum(1, keepdim=True), (2, 1)).flatten(1)  # (B, 4 * 6)
    b = F.avg_pool2d(teacher.square().sum(1, keepdim=True), (1, 2)).flatten(1)
    expected = (F.normalize(a) - F.normalize(b)).norm(dim=1).mean()
    for pair in ((student, teacher), (teacher, student)):
        assert read(*pair).loss.item() == pytest.approx(expected.item(), abs=1e-6)


def test_the_figures_are_cosine_and_l2_distance_whatever_form_and_weight():
    student, teacher = features(3, 4, 5, 5, seed=1).requires_grad_(), features(3, 4, 5, 5, seed=2)
    a, b = student.detach().square().sum(1).flatten(1), teacher.square().sum(1).flatten(1)
    expected = {
        "cos_P3": ((a * b).sum(1) / (a.norm(dim=1) * b.norm(dim=1))).mean().item(),
        "dist_P3": (a / a.norm(dim=1, keepdim=True) - b / b.norm(dim=1, keepdim=True)).norm(dim=1).mean().item(),
    }
    for form in FORMS:
        figures = read(student, teacher, Pair("P3", "s", "t", weight=7.0), form=form).figures
        assert {name: value.item() for name, value in figures.items()} == pytest.approx(expected, abs=1e-6)
        assert not any(value.requires_grad for value in figures.values())


def test_pairs_keep_their_names_and_layers_and_their_weights_multiply():
    pairs = [Pair("P3", "s.3", "t.7"), Pair("P4", "s.4", "t.8", weight=2.5), Pair("x", "s.3", "t.8")]
    term = AttentionTerm(pairs)
    assert term.layers() == (("s.3", "s.4", "s.3"), ("t.7", "t.8", "t.8"))
    student = View({"s.3": features(2, 4, 6, 6, seed=1), "s.4": features(2, 8, 3, 3, seed=2)})
    teacher = View({"t.7": features(2, 4, 6, 6, seed=3), "t.8": features(2, 8, 3, 3, seed=4)})
    readings = term(student, teacher, BATCH)
    assert list(readings) == ["at_P3", "at_P4", "at_x"]
    assert [name for r in readings.values() for name in r.figures][2:4] == ["cos_P4", "dist_P4"]
    expected = reference(student.features["s.4"], teacher.features["t.8"], 2.0, "l2").item()
    assert readings["at_P4"].loss.item() == pytest.approx(2.5 * expected, abs=1e-6)
    expected = reference(student.features["s.3"], teacher.features["t.7"], 2.0, "l2").item()
    assert readings["at_P3"].loss.item() == pytest.approx(expected, abs=1e-6)


def test_gates_are_compared_as_they_are():
    student, teacher = torch.full((1, 1, 2, 2), 0.5), torch.full((1, 1, 2, 2), 0.25)
    gate = Pair("G2", "g", "g", kind="gate")
    assert read(student, teacher, gate, form="squared").loss.item() == pytest.approx(4 * 0.25**2)
    assert read(student, teacher, gate).figures["dist_G2"].item() == pytest.approx(0.5)
    assert read(student, teacher, form="squared").loss.item() == pytest.approx(0)  # as energies they are the same map


def test_under_autocast_and_with_half_precision_features_the_loss_is_float32():
    student, teacher = features(2, 32, 5, 5, seed=1), features(2, 32, 5, 5, seed=2)
    plain = read(student, teacher).loss
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(read(student, teacher).loss, plain)
        low = read(student.bfloat16().requires_grad_(), teacher.half()).loss
    assert low.dtype == torch.float32 and low.item() == pytest.approx(plain.item(), rel=0.02)


def test_volumes_are_compared_too():
    student, teacher = features(2, 4, 4, 4, 2, seed=1), features(2, 3, 2, 4, 4, seed=2)
    a = F.avg_pool3d(student.square().sum(1, keepdim=True), (2, 1, 1)).flatten(1)
    b = F.avg_pool3d(teacher.square().sum(1, keepdim=True), (1, 1, 2)).flatten(1)
    expected = (F.normalize(a) - F.normalize(b)).norm(dim=1).mean().item()
    assert read(student, teacher).loss.item() == pytest.approx(expected, abs=1e-6)


def test_an_unknown_form_is_refused():
    with pytest.raises(KeyError):
        AttentionTerm([PAIR], form="cosine")


def test_flat_maps_have_no_correlation_and_no_gradient_of_rounding():
    flat = torch.full((2, 3, 5, 5), 0.1).requires_grad_()
    loss = read(flat, features(2, 6, 5, 5), form="pearson").loss
    loss.backward()
    assert loss.item() == pytest.approx(0.5) and not flat.grad.any()


class Weights:
    """A focus that is given outright, and reads a layer of its own."""

    def __init__(self, values):
        self.values = values

    def layers(self):
        return ("teacher.9",)

    def reads(self, pair):
        return "teacher.9"

    def __call__(self, pair, teacher, batch, size):
        return self.values.expand(len(batch.images), *size)


def test_a_focus_multiplies_both_maps_before_they_are_normalised():
    weights = features(1, 5, 7, seed=5).abs()
    student, teacher = features(2, 4, 5, 7, seed=1).requires_grad_(), features(2, 6, 5, 7, seed=2)
    reading = read(student, teacher, focus=Weights(weights))
    a, b = ((f.square().sum(1) * weights).flatten(1) for f in (student, teacher))
    expected = (F.normalize(a) - F.normalize(b)).norm(dim=1).mean()
    assert reading.loss.item() == pytest.approx(expected.item(), abs=1e-6)
    assert reading.figures["dist_P3"].item() == read(student, teacher).figures["dist_P3"].item()  # of the whole maps
    assert AttentionTerm([PAIR], focus=Weights(weights)).layers() == (("student.3",), ("teacher.7", "teacher.9"))


def test_what_lies_outside_the_focus_has_no_gradient():
    weights = torch.zeros(5, 5)
    weights[1:3, 1:3] = 1
    student = features(2, 4, 5, 5, seed=1).requires_grad_()
    read(student, features(2, 6, 5, 5, seed=2), focus=Weights(weights)).loss.backward()
    assert student.grad[..., 1:3, 1:3].abs().min() > 0 and not (student.grad * (1 - weights)).any()
