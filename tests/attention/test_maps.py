"""Attention maps against the published formula, written out in plain torch; their invariances, limits and cost."""

from collections.abc import Callable
from dataclasses import FrozenInstanceError
from functools import partial

import pytest
import torch
from torch import Tensor
from torch.autograd import gradcheck
from torch.profiler import ProfilerActivity, profile

from distill.attention.maps import AttentionMap, attention_map, energy, unit

SHAPES = [(2, 5, 7), (2, 5, 6, 9), (2, 5, 3, 4, 5)]  # 1-D, 2-D, 3-D
POWERS = [0.5, 1.0, 1.5, 2.0, 3.0, 4.0]


def features(*shape: int, seed: int = 0) -> Tensor:
    """Of both signs, float64, none nearer to zero than 0.01, where the slope of |F|^0.5 has no bound."""
    f = torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return f + 0.01 * torch.where(f < 0, -1.0, 1.0)


def textbook(f: Tensor, p: float = 2.0) -> Tensor:
    return f.abs().pow(p).sum(1)


def normalised(a: Tensor, eps: float = 0.0) -> Tensor:
    norm = a.flatten(1).pow(2).sum(1).sqrt() + eps
    return a / norm.view(-1, *[1] * (a.ndim - 1))


def published(f: Tensor, p: float = 2.0) -> Tensor:
    return normalised(textbook(f, p), eps=1e-8)


def unit_map(f: Tensor, p: float) -> Tensor:
    return unit(energy(f, p))


def normalised_map(f: Tensor, p: float) -> Tensor:
    return normalised(textbook(f, p))


def gradient(function: Callable[[Tensor], Tensor], f: Tensor) -> Tensor:
    """Of a weighted sum of the map, so that no position's gradient cancels another's."""
    f = f.detach().requires_grad_()
    out = function(f)
    weights = torch.linspace(-1, 2, out.numel(), dtype=torch.float64).view_as(out)
    (out.double() * weights).sum().backward()
    return f.grad.double()


def error(a: Tensor, b: Tensor) -> float:
    """Largest difference from the reference `b`, relative to its largest value."""
    assert a.shape == b.shape
    return ((a.double() - b.double()).abs().max() / b.double().abs().max()).item()


def close(a: Tensor, b: Tensor, within: float = 1e-6) -> bool:
    return error(a, b) <= within


# ---- the published formula


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("p", POWERS)
def test_values_and_gradients_are_the_published_ones(shape, p):
    for norm in (1.1e-3, 1.0, 1e4):  # ||a||; below 1e-3 the formula's 1e-8 begins to show
        f = features(*shape)
        f = (f * (norm / textbook(f, p).flatten(1).norm(dim=1).min()) ** (1 / p)).float()
        exact = f.double()
        assert energy(f, p).dtype == torch.float32
        assert close(energy(f, p), textbook(exact, p))
        assert close(attention_map(f, p), published(exact, p))
        assert close(unit(energy(f, p)), normalised(textbook(exact, p)))
        for ours, theirs in ((energy, textbook), (attention_map, published), (unit_map, normalised_map)):
            reference = gradient(partial(theirs, p=p), exact)
            rounding = error(gradient(partial(theirs, p=p), f), reference)  # of the formula itself in float32
            assert error(gradient(partial(ours, p=p), f), reference) <= 1e-6 + 2 * rounding
            assert close(gradient(partial(ours, p=p), exact), reference, within=1e-12)


def test_the_published_example():
    """a_T = 2500 of norm 8000 and a_S = 1800 of norm 6500: 0.3125, 0.2769, and 0.0356 between them."""

    def one_value(value: float, norm: float) -> Tensor:
        rest = (norm**2 - value**2) ** 0.5  # at the other position
        return attention_map(torch.tensor([[[value**0.5, rest**0.5]]]))[0, 0]

    teacher, student = one_value(2500, 8000), one_value(1800, 6500)
    assert teacher.item() == pytest.approx(0.3125, abs=1e-6)
    assert student.item() == pytest.approx(0.2769, abs=5e-5)
    assert (teacher - student).item() == pytest.approx(0.0356, abs=5e-5)


@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_gradcheck(p):
    f = features(2, 3, 2, 3).requires_grad_()
    assert gradcheck(lambda x: energy(x, p), (f,))
    assert gradcheck(lambda x: unit(energy(x, p)), (f,))
    assert gradcheck(lambda x: attention_map(x, p), (f,))


def test_gradcheck_of_a_power_below_one_away_from_zero():
    f = features(2, 3, 2, 3)
    f = (f + 0.5 * f.sign()).requires_grad_()
    assert gradcheck(lambda x: energy(x, 0.5), (f,))
    assert gradcheck(lambda x: unit(energy(x, 0.5)), (f,))


def test_gradcheck_of_unit():
    assert gradcheck(unit, ((features(2, 3, 4).abs() + 0.1).requires_grad_(),))


# ---- what does not change the map


@pytest.mark.parametrize("p", POWERS)
def test_scaling_permuting_and_averaging_channels_leave_the_unit_map_alone(p):
    f = features(2, 6, 5, 4).float()
    a = unit(energy(f, p))
    for c in (1e-3, 0.37, 250.0):
        assert close(unit(energy(c * f, p)), a)
    assert close(unit(energy(f[:, torch.randperm(6)], p)), a)
    assert close(unit(f.abs().pow(p).mean(1)), a)


@pytest.mark.parametrize("p", POWERS)
def test_the_squared_distance_is_two_minus_twice_the_cosine(p):
    a, b = (unit(energy(features(4, 8, 6, 5, seed=seed).float(), p)).flatten(1) for seed in (1, 2))
    cosine = torch.cosine_similarity(a, b, dim=1)
    assert cosine.min() >= 0  # maps are not negative, so 2 (1 - cos) lies in [0, 2]
    assert torch.allclose((a - b).square().sum(1), 2 * (1 - cosine), rtol=0, atol=1e-6)


def test_a_flat_map_has_one_value_everywhere():
    for shape, value in (((80, 80), 0.0125), ((20, 40), 800**-0.5), ((5, 7, 9), 315**-0.5)):
        a = unit(energy(torch.full((1, 3, *shape), 0.7)))
        assert close(a, torch.full_like(a, value))


# ---- very small, very large, zero, negative


@pytest.mark.parametrize("scale", [1e-4, 1e-12, 1e-20, 1e15])
def test_the_unit_map_is_exact_at_any_scale(scale):
    f = (features(2, 64, 5, 4) * scale).float()
    a = unit(energy(f))
    assert close(a, normalised(textbook(f.double())))
    assert close(a.flatten(1).norm(dim=1), torch.ones(2))


def test_the_published_map_of_tiny_features_shrinks_and_ours_does_not():
    f = torch.full((1, 1, 2, 2), 1e-6)  # ||a|| = 2e-12, far under the formula's 1e-8
    assert attention_map(f).max() < 1e-3
    assert unit(energy(f)).tolist() == [[[0.5, 0.5], [0.5, 0.5]]]


@pytest.mark.parametrize("scale", [1e-12, 1e15])
def test_the_gradient_of_the_unit_map_is_exact_at_any_scale(scale):
    f = features(2, 8, 5, 4).float()
    reference = gradient(lambda x: normalised(textbook(x)), f.double())
    assert close(gradient(lambda x: unit(energy(x)), f * scale) * scale, reference)  # of A(cF) it is 1 / c times


def test_the_gradient_of_features_too_small_for_float32_is_zero_and_not_infinite():
    grad = gradient(lambda x: unit(energy(x)), (features(2, 8, 5, 4) * 1e-20).float())  # exact: 1e20 and above
    assert not grad.any()


@pytest.mark.parametrize("dtype", [torch.float16, torch.int64])
def test_the_unit_map_of_other_numbers_is_of_single_precision(dtype):
    a = unit(torch.tensor([[30000, 40000]]).to(dtype))  # whose norm no float16 holds
    assert a.dtype == torch.float32 and close(a, torch.tensor([[0.6, 0.8]]))


def test_a_zero_map_takes_no_gradient_whatever_comes_in():
    values = torch.tensor([[0.0, 0.0], [3.0, 4.0]], requires_grad=True)
    unit(values).backward(torch.tensor([[float("nan"), float("inf")], [1.0, 0.0]]))
    assert values.grad[0].tolist() == [0.0, 0.0] and torch.isfinite(values.grad).all() and values.grad[1].any()


@pytest.mark.parametrize("factor", [1e-37, 1e-20, 1.0, 1e20, 5e37])
def test_unit_does_not_underflow_or_overflow(factor):
    a = unit(torch.tensor([[3.0, 4.0]]) * factor)
    assert close(a, torch.tensor([[0.6, 0.8]]))


def test_a_zero_map_stays_zero_with_gradient_zero_beside_maps_that_do_not():
    f = features(3, 4, 5, 5).float()
    f[1] = 0
    for p in (0.5, 1.0, 2.0, 3.0):
        assert not unit(energy(f, p))[1].any()
        grad = gradient(lambda x, p=p: unit(energy(x, p)), f)
        assert torch.isfinite(grad).all() and not grad[1].any() and grad[0].any() and grad[2].any()


def test_a_power_below_one_has_a_finite_gradient_where_features_are_zero():
    f = features(1, 4, 3, 3).float()
    f[0, 0], f[0, :, 0, 0] = 0, 0  # a dead channel, and a position where nothing responds
    grad = gradient(lambda x: energy(x, 0.5), f)
    assert torch.isfinite(grad).all() and not grad[0, 0].any() and grad[0, 1, 1:].all()


def test_odd_powers_of_negative_features_are_not_negative():
    f = -features(2, 5, 4, 4).abs().float()
    for p in (1.0, 3.0):
        assert energy(f, p).min() > 0 and close(energy(f, p), energy(-f, p))
        assert (gradient(lambda x, p=p: energy(x, p).abs(), f)[0, :, -1, -1] < 0).all()  # more negative is more energy


# ---- precision


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("value", [300.0, 1e-4])
@pytest.mark.parametrize("p", [1.0, 2.0, 3.0])
def test_half_precision_neither_overflows_nor_underflows(dtype, value, p):
    f = torch.full((2, 40, 4, 6), value, dtype=dtype)  # 40: more than one block of channels, the last one not full
    f[:, ::2, 1, 2] *= -2
    exact = f.double()
    a = energy(f, p)
    assert a.dtype == torch.float32
    assert torch.allclose(a.double(), textbook(exact, p), rtol=1e-6, atol=0)
    assert close(unit(a), normalised(textbook(exact, p)))
    ours, theirs = (
        torch.autograd.grad(value * m(x, p)[:, 1, 2].sum(), x)[0]
        for m, x in ((unit_map, f.requires_grad_()), (normalised_map, exact.requires_grad_()))
    )  # times value: float16 holds it
    assert ours.dtype == dtype and close(ours, theirs, within=torch.finfo(dtype).eps)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_autocast_around_the_call_changes_nothing(dtype):
    f = (100 * features(2, 32, 5, 5)).to(dtype)
    plain = energy(f), attention_map(f), unit(energy(f))
    with torch.autocast("cpu", torch.bfloat16):
        cast = energy(f), attention_map(f), unit(energy(f))
    for a, b in zip(plain, cast):
        assert b.dtype == torch.float32 and torch.equal(a, b)


def test_double_stays_double():
    f = features(2, 20, 5, 5)
    assert energy(f).dtype == attention_map(f).dtype == AttentionMap.read(f, "x").unit().dtype == torch.float64
    assert close(attention_map(f), published(f), within=1e-14)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("p", [2.0, 3.0])
def test_channels_last_gives_the_same_map_and_keeps_its_layout_in_the_gradient(dtype, p):
    f = features(2, 20, 6, 4).to(dtype)
    last = f.contiguous(memory_format=torch.channels_last).requires_grad_()
    assert close(energy(last, p), energy(f, p))
    energy(last, p).sum().backward()
    assert last.grad.is_contiguous(memory_format=torch.channels_last)
    plain = f.clone().requires_grad_()
    energy(plain, p).sum().backward()
    assert torch.equal(last.grad, plain.grad)


# ---- memory


def cost(function: Callable[[Tensor], Tensor], f: Tensor) -> tuple[float, float]:
    """Most memory taken at a time forward and backward, in sizes of `f`; the allocator's own count, by the profiler."""
    sizes = []
    out: list[Tensor] = []
    for run in (lambda: out.append(function(f)), lambda: out[0].backward(torch.ones_like(out[0]))):
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as record:
            run()
        level = peak = 0
        for event in record.profiler.kineto_results.events():
            if event.name() == "[memory]":
                level += event.nbytes()
                peak = max(peak, level)
        sizes.append(peak / (f.numel() * f.element_size()))
    return sizes[0], sizes[1]


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_no_temporary_is_as_large_as_the_features(dtype, layout):
    f = features(2, 128, 16, 24).to(dtype).contiguous(memory_format=layout).requires_grad_()
    forward, backward = cost(energy, f)
    assert forward < 0.5
    assert backward < 1 + 0.8  # the gradient itself is 1
    forward, backward = cost(lambda x: textbook(x.float()), f)  # the yardstick sees what it is there to see
    assert forward >= 1 and backward > 1.9


# ---- AttentionMap


def test_a_map_is_read_as_energy_or_as_a_gate():
    f = features(2, 3, 4, 6).float()
    a = AttentionMap.read(f, "model.16", p=3.0)
    assert (a.layer, a.kind, a.size) == ("model.16", "energy", (4, 6)) and torch.equal(a.values, energy(f, 3.0))
    alpha = torch.sigmoid(f[:, :1]).half()
    gate = AttentionMap.read(alpha, "decoder.3.gate.alpha", "gate", p=3.0)
    assert gate.kind == "gate" and gate.values.dtype == torch.float32 and torch.equal(gate.values, alpha[:, 0].float())


def test_unit_flattens_and_normalises_each_sample():
    a = AttentionMap(torch.tensor([[[3.0, 0.0], [0.0, 4.0]], [[0.0, 0.0], [0.0, 0.0]]]), "x")
    assert close(a.unit(), torch.tensor([[0.6, 0.0, 0.0, 0.8], [0.0, 0.0, 0.0, 0.0]]))


def test_a_map_cannot_be_changed():
    with pytest.raises(FrozenInstanceError):
        AttentionMap(torch.ones(1, 2, 2), "x").layer = "y"


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: energy(torch.ones(1, 2, 3), 0), "p must be above 0, not 0"),
        (lambda: energy(torch.ones(1, 2, 3), -1.0), "above 0"),
        (lambda: energy(torch.ones(2, 3)), r"must be \(B, C, \*spatial\), not \(2, 3\)"),
        (
            lambda: AttentionMap.read(torch.ones(1, 2, 4, 4), "d.gate", "gate"),
            r"one channel, but layer 'd.gate'",
        ),
    ],
)
def test_wrong_input_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


@pytest.mark.parametrize(("size", "to"), [((8, 12), (4, 3)), ((12,), (4,)), ((4, 6, 8), (2, 3, 2)), ((8, 12), (8, 6))])
def test_shrinking_takes_means_over_areas(size, to):
    a = AttentionMap(features(2, *size).abs(), "x", "energy")
    small = a.resize(to)
    assert small.size == to and (small.layer, small.kind) == ("x", "energy")
    assert close(small.values.flatten(1).mean(1), a.values.flatten(1).mean(1))
    first = a.values[(slice(None), *(slice(n // m) for n, m in zip(size, to)))]  # the area of the first cell
    assert close(small.values.flatten(1)[:, 0], first.flatten(1).mean(1))


def test_growing_interpolates_linearly():
    ramp = torch.arange(4.0).expand(1, 3, 4)  # (1, 3, 4): rises from left to right only
    grown = AttentionMap(ramp, "x").resize((6, 8)).values
    assert grown.shape == (1, 6, 8)
    assert close(grown, torch.tensor([0, 0.25, 0.75, 1.25, 1.75, 2.25, 2.75, 3]).expand(1, 6, 8))
    assert AttentionMap(torch.ones(1, 2, 3, 4), "x").resize((4, 6, 8)).values.eq(1).all()


def test_each_dimension_is_resized_on_its_own():
    """Down in height (means of row pairs), up in width (linear)."""
    rows = torch.tensor([[0.0, 0.0], [2.0, 2.0], [10.0, 10.0], [20.0, 20.0]]).unsqueeze(0)  # (1, 4, 2)
    mixed = AttentionMap(rows, "x").resize((2, 4))
    assert mixed.size == (2, 4) and mixed.values.tolist() == [[[1.0] * 4, [15.0] * 4]]
    columns = AttentionMap(rows.transpose(1, 2), "x").resize((4, 2))
    assert torch.equal(columns.values, mixed.values.transpose(1, 2))


def test_the_same_size_is_the_same_map_and_another_number_of_dimensions_an_error():
    a = AttentionMap(torch.rand(2, 3, 5), "x")
    assert a.resize((3, 5)) is a and a.resize([3, 5]) is a
    with pytest.raises(ValueError, match="shorter|longer"):
        a.resize((3,))
