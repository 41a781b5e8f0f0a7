"""Gates: the formula, its gradient by hand, the range of alpha, and that what a tap reads is what the skip met."""

import copy
import itertools
import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from distill.attention.gates import AttentionGate
from distill.attention.maps import AttentionMap
from distill.attention.taps import Taps

FORMS = ("official", "common", "bare")


def gate(skip=4, gating=6, seed=0, **settings):
    """A gate as it may be amid training: a bare one's psi has moved, or else nothing in it would matter."""
    torch.manual_seed(seed)
    module = AttentionGate(skip, gating, **settings)
    if settings.get("form") == "bare":
        nn.init.uniform_(module.psi.weight, -0.5, 0.5)
    return module


def inputs(skip=(2, 4, 8, 12), gating=(2, 6, 4, 6), seed=1, dtype=torch.float32):
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=generator, dtype=dtype) for shape in (skip, gating))


def attended(module, skip, gating):
    """alpha x, (B, K C, *S): what goes into the output transform."""
    caught = []
    handle = module.output.register_forward_pre_hook(lambda _module, args: caught.append(args[0]))
    module(skip, gating)
    handle.remove()
    return caught[0]


def alphas(module, skip, gating):
    with Taps(module, module.alphas) as taps:
        module(skip, gating)
        return list(taps.read().values())


def parameters(module):
    return sum(p.numel() for p in module.parameters())


# ---- what it is made of


@pytest.mark.parametrize(("channels", "expected"), [((32, 64), 11_425), ((64, 128), 45_377), ((128, 256), 180_865)])
def test_parameters_of_the_published_gates(channels, expected):
    assert parameters(AttentionGate(*channels, dims=3)) == expected


def test_parameters_of_two_heads_are_those_of_two_gates_and_of_their_mixture():
    mixture = 2 * 32 * 32 + 32 + 2 * 32  # 1x1 with bias, BatchNorm
    assert parameters(AttentionGate(32, 64, dims=3, heads=2)) == 2 * 11_425 + mixture


def test_parameters_of_the_common_form():
    inter, norm = 16, 2 * 16
    expected = (32 * inter + inter + norm) + (64 * inter + inter + norm) + (inter + 1 + 2)
    assert parameters(AttentionGate(32, 64, form="common")) == expected


def test_theta_has_no_bias_and_the_official_gate_normalises_its_output_alone():
    module = gate()
    assert module.theta.bias is None and module.phi.bias is not None and module.psi.bias is not None
    assert [name for name, m in module.named_modules() if isinstance(m, nn.BatchNorm2d)] == ["output.1"]


def test_gates_start_open():
    for seed in range(12):
        (alpha,) = alphas(gate(32, 64, seed=seed), *inputs((2, 32, 8, 8), (2, 64, 4, 4), seed=seed))
        assert 0.9 < alpha.mean() < 0.98


def test_inter_channels_are_passed_on():
    assert gate(inter_channels=3).theta.weight.shape == (3, 4, 2, 2)
    assert gate(inter_channels=3, form="common").theta[0].weight.shape == (3, 4, 1, 1)
    assert gate().theta.out_channels == 4 and gate(form="common").theta[0].out_channels == 2
    assert gate(64, form="bare").theta.out_channels == 16 and gate(form="bare").theta.out_channels == 8


# ---- what it computes


@pytest.mark.parametrize("dims", [2, 3])
def test_the_formula_written_out(dims):
    module = gate(dims=dims).double().eval()
    size, coarse = ((8, 12), (4, 6)) if dims == 2 else ((4, 6, 8), (2, 3, 4))
    skip, gating = inputs((2, 4, *size), (2, 6, *coarse), dtype=torch.float64)
    alpha = torch.zeros(2, 1, *coarse, dtype=torch.float64)
    for cell in itertools.product(*map(range, coarse)):
        patch = skip[(..., *(slice(2 * i, 2 * i + 2) for i in cell))]  # (B, C, 2, 2)
        theta = torch.einsum("mc...,bc...->bm", module.theta.weight.flatten(2), patch.flatten(2))
        phi = gating[(..., *cell)] @ module.phi.weight.flatten(1).T + module.phi.bias
        q = (theta + phi).clamp(min=0) @ module.psi.weight.flatten() + module.psi.bias
        alpha[(slice(None), 0, *cell)] = 1 / (1 + torch.exp(-q))
    torch.testing.assert_close(alphas(module, skip, gating)[0], alpha)
    fine = F.interpolate(alpha, size, mode="bilinear" if dims == 2 else "trilinear")
    torch.testing.assert_close(attended(module, skip, gating), fine * skip)
    torch.testing.assert_close(module(skip, gating), module.output(fine * skip))


def test_the_common_form_written_out():
    module = gate(form="common").double()
    with torch.no_grad():  # statistics that are not those of the start
        for norm in (m for m in module.modules() if isinstance(m, nn.BatchNorm2d)):
            norm.running_mean.uniform_(-1, 1)
            norm.running_var.uniform_(0.5, 2)
    module.eval()
    skip, gating = inputs(dtype=torch.float64)

    def side(part, x):
        conv, norm = part
        y = torch.einsum("mc,bchw->bmhw", conv.weight.flatten(1), x) + conv.bias.view(1, -1, 1, 1)
        mean, var, weight, bias = (
            t.view(1, -1, 1, 1) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias)
        )
        return (y - mean) / (var + norm.eps).sqrt() * weight + bias

    fine = F.interpolate(gating, skip.shape[2:], mode="bilinear")
    alpha = torch.sigmoid(side(module.psi, torch.relu(side(module.theta, skip) + side(module.phi, fine))))
    torch.testing.assert_close(alphas(module, skip, gating)[0], alpha)
    torch.testing.assert_close(module(skip, gating), alpha * skip)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [1, 3])
@pytest.mark.parametrize(
    ("dims", "stride", "skip", "coarse", "signal"),
    [
        (2, 2, (8, 12), (4, 6), (4, 6)),
        (2, 2, (65, 33), (33, 17), (33, 17)),
        (2, 2, (65, 1), (33, 1), (7, 40)),
        (2, (1, 4), (5, 9), (5, 3), (2, 2)),
        (3, (1, 2, 2), (3, 9, 8), (3, 5, 4), (3, 5, 4)),
    ],
)
def test_any_sizes_meet_and_each_gate_gives_one_map_in_range(form, heads, dims, stride, skip, coarse, signal):
    module = gate(dims=dims, stride=stride, heads=heads, form=form)
    x, g = inputs((2, 4, *skip), (2, 6, *signal))
    assert module(x, g).shape == x.shape
    maps = alphas(module, x, g)
    assert len(maps) == heads
    for alpha in maps:
        assert alpha.shape == (2, 1, *(skip if form == "common" else coarse))
        assert alpha.min() > 0 and alpha.max() < 1


@pytest.mark.parametrize("bias", [-1.5, 0.0, 3.0])
def test_without_psi_alpha_is_the_sigmoid_of_its_bias(bias):
    module = gate()
    nn.init.zeros_(module.psi.weight)
    nn.init.constant_(module.psi.bias, bias)
    skip, gating = inputs((2, 4, 9, 7), (2, 6, 5, 4))
    expected = torch.sigmoid(torch.tensor(bias))
    torch.testing.assert_close(alphas(module, skip, gating)[0], expected.expand(2, 1, 5, 4))
    torch.testing.assert_close(attended(module, skip, gating), expected * skip)


def test_a_size_that_the_stride_does_not_divide_makes_no_border():
    module = gate(stride=4)
    (alpha,) = alphas(module, torch.ones(2, 4, 9, 7), torch.ones(2, 6, 3, 2))
    torch.testing.assert_close(alpha, alpha[..., :1, :1].expand_as(alpha))


def test_an_open_gate_lets_everything_pass_and_a_shut_one_nothing():
    module, (skip, gating) = gate(), inputs()
    nn.init.constant_(module.psi.bias, 30)
    torch.testing.assert_close(attended(module, skip, gating), skip)
    nn.init.constant_(module.psi.bias, -30)
    torch.testing.assert_close(attended(module, skip, gating), torch.zeros_like(skip))


@pytest.mark.parametrize("form", FORMS)
def test_skip_and_gating_are_not_interchangeable(form):
    module = gate(4, 4, form=form).eval()
    skip, gating = inputs((2, 4, 8, 8), (2, 4, 8, 8))
    a, b = module(skip, gating), module(gating, skip)
    assert not torch.allclose(a, b, atol=1e-2)


@pytest.mark.parametrize(
    ("form", "changed", "reach"),  # in cells of alpha; the last of 8 gating cells is spread linearly over 3 of 16
    [
        *(("official", "skip", 1), ("official", "gating", 1), ("common", "skip", 1), ("common", "gating", 3)),
        *(("bare", "skip", 1), ("bare", "gating", 1)),
    ],
)
def test_a_far_corner_leaves_alpha_elsewhere_unchanged(form, changed, reach):
    module, (skip, gating) = gate(form=form).eval(), inputs((2, 4, 16, 16), (2, 6, 8, 8))
    before = alphas(module, skip, gating)[0]
    (skip if changed == "skip" else gating)[..., -1, -1] += 5
    differs = (before != alphas(module, skip, gating)[0]).any(dim=0)[0]
    assert differs[-reach:, -reach:].all() and differs.sum() == reach**2


@pytest.mark.parametrize("form", FORMS)
def test_samples_are_independent_in_eval(form):
    module, (skip, gating) = gate(form=form, heads=2).eval(), inputs((3, 4, 8, 8), (3, 6, 4, 4))
    together = module(skip, gating)
    alone = torch.cat([module(skip[i : i + 1], gating[i : i + 1]) for i in range(3)])
    torch.testing.assert_close(together, alone)


def test_heads_are_gates_side_by_side_in_their_order():
    singles = [gate(seed=k, inter_channels=3).eval() for k in range(3)]
    with torch.no_grad():
        for single in singles:
            single.output[1].running_mean.uniform_(-1, 1)
    several = gate(heads=3, inter_channels=3).eval()
    states = [single.state_dict() for single in singles]
    joined = {
        key: torch.cat([state[key] for state in states]) for key in states[0] if states[0][key].ndim
    }  # groups of channels, theta's and phi's included
    missing = several.load_state_dict(joined, strict=False).missing_keys
    assert all(key.startswith("combine.") or key.endswith("num_batches_tracked") for key in missing)
    skip, gating = inputs()
    for alpha, single in zip(alphas(several, skip, gating), singles, strict=True):
        torch.testing.assert_close(alpha, alphas(single, skip, gating)[0])
    expected = several.combine(torch.cat([single(skip, gating) for single in singles], dim=1))
    torch.testing.assert_close(several(skip, gating), expected)


@pytest.mark.parametrize("form", FORMS)
def test_a_flat_volume_is_an_image(form):
    flat = gate(form=form, heads=2).eval()
    volume = gate(form=form, heads=2, dims=3, stride=(1, 2, 2), seed=5).eval()
    volume.load_state_dict({key: t.unsqueeze(2) if t.ndim == 4 else t for key, t in flat.state_dict().items()})
    skip, gating = inputs((2, 4, 9, 12), (2, 6, 5, 6))
    torch.testing.assert_close(volume(skip.unsqueeze(2), gating.unsqueeze(2)).squeeze(2), flat(skip, gating))


# ---- the bare form, which begins as if it were not there


def bare(skip=4, gating=6, **settings):
    torch.manual_seed(0)
    return AttentionGate(skip, gating, form="bare", **settings)


def test_parameters_of_the_bare_form():
    assert parameters(bare(32, 64)) == 2 * 2 * 32 * 8 + (64 * 8 + 8) + (8 + 1)
    assert not list(bare().output.parameters()) and not list(bare().buffers())


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_bare_gate_starts_as_the_identity(dims, stride):
    module = bare(dims=dims, stride=stride)
    for size, coarse in (((8, 12), (4, 6)), ((7, 5), (2, 9))):
        skip, gating = inputs((2, 4, *size, 6)[: dims + 2], (2, 6, *coarse, 3)[: dims + 2])
        torch.testing.assert_close(module(skip * 100, gating * 100), skip * 100, rtol=1e-6, atol=0)
        (alpha,) = alphas(module, skip, gating)
        torch.testing.assert_close(alpha, torch.full_like(alpha, 0.95257413), rtol=1e-6, atol=0)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_rounding_does_not_dim_what_a_bare_gate_lets_through(dtype):
    """0.9526 is 0.9531 in bfloat16, and so would be the skip, divided after it was multiplied."""
    skip, gating = (tensor.to(dtype) for tensor in inputs())
    assert torch.equal(bare().to(dtype)(skip, gating), skip)


def test_the_bare_form_written_out():
    module = gate(form="bare", stride=1, inter_channels=3).double()
    skip, gating = inputs(gating=(2, 6, 8, 12), dtype=torch.float64)
    theta, phi = (part.weight.flatten(1) for part in (module.theta, module.phi))
    s = torch.einsum("mc,bchw->bmhw", theta, skip) + torch.einsum("mg,bghw->bmhw", phi, gating)
    s = (s + module.phi.bias.view(1, -1, 1, 1)).clamp(min=0)
    q = torch.einsum("m,bmhw->bhw", module.psi.weight.flatten(), s) + module.psi.bias
    alpha = (1 / (1 + torch.exp(-q))).unsqueeze(1)
    torch.testing.assert_close(alphas(module, skip, gating)[0], alpha)
    torch.testing.assert_close(module(skip, gating), alpha * skip * (1 + math.exp(-3)))


def test_a_bare_gate_learns_though_it_begins_at_zero():
    """At the first step psi alone has a gradient; once it has moved, everything has."""
    module, (skip, gating) = bare(inter_channels=3), inputs()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    moved = []
    for _ in range(2):
        optimizer.zero_grad()
        (module(skip, gating) * inputs(seed=7)[0]).sum().backward()
        optimizer.step()
        moved.append({name for name, p in module.named_parameters() if p.grad.abs().sum() > 0})
    assert moved == [{"psi.weight", "psi.bias"}, {name for name, _ in module.named_parameters()}]


# ---- its gradient


@pytest.mark.parametrize(("form", "heads"), [("official", 1), ("official", 2), ("common", 1), ("bare", 1)])
def test_gradients_are_exact(form, heads):
    module = gate(2, 3, inter_channels=2, form=form, heads=heads).double().eval()
    skip, gating = inputs((1, 2, 5, 4), (1, 3, 3, 2), dtype=torch.float64)
    names, values = zip(*module.named_parameters())

    def run(skip, gating, *values):
        return torch.func.functional_call(module, dict(zip(names, values)), (skip, gating))

    values = [value.detach().requires_grad_() for value in values]
    assert torch.autograd.gradcheck(run, (skip.requires_grad_(), gating.requires_grad_(), *values))


@pytest.mark.parametrize("form", FORMS)
def test_gradients_reach_every_part_and_both_inputs(form):
    module, (skip, gating) = gate(form=form, heads=2).eval(), inputs()  # in training BatchNorm cancels biases before it
    (module(skip.requires_grad_(), gating.requires_grad_()) * inputs(seed=7)[0]).sum().backward()
    for name, tensor in [*module.named_parameters(), ("skip", skip), ("gating", gating)]:
        assert tensor.grad is not None and tensor.grad.abs().sum() > 0, name


def test_equation_three_by_hand():
    """d(alpha x)/dPhi = alpha df/dPhi + (d alpha/dPhi) x, for x = f(image; Phi), a 1x1 convolution by Phi (C, K)."""
    module = gate(3, 2, inter_channels=4).double().eval()
    nn.init.constant_(module.psi.bias, 0.2)
    channels, colours, size, coarse = 3, 2, 4, 2
    image, gating = inputs((1, colours, size, size), (1, 2, coarse, coarse), dtype=torch.float64)
    phi = torch.randn(channels, colours, generator=torch.Generator().manual_seed(3), dtype=torch.float64)

    def f(phi):
        return torch.einsum("ck,bkhw->bchw", phi, image)

    jacobian = torch.autograd.functional.jacobian(lambda phi: attended(module, f(phi), gating)[0], phi)

    x = f(phi)[0]
    df = torch.einsum("cd,khw->chwdk", torch.eye(channels, dtype=torch.float64), image[0])  # (C, H, W, C', K)
    # cells (i, u) are the rows of patch i: (C, 2, 2, 2, 2, ...) is (c, i, u, j, v, ...)
    weight = module.theta.weight.detach()  # (M, C, 2, 2)
    s = torch.einsum("mcuv,ciujv->mij", weight, x.view(channels, 2, 2, 2, 2))
    s += torch.einsum("mg,gij->mij", module.phi.weight.flatten(1), gating[0]) + module.phi.bias.view(-1, 1, 1)
    ds = torch.einsum("mcuv,ciujvdk->mijdk", weight, df.view(channels, 2, 2, 2, 2, channels, colours))
    psi = module.psi.weight.detach().flatten()
    alpha = torch.sigmoid(torch.einsum("m,mij->ij", psi, s.clamp(min=0)) + 0.2)
    dq = torch.einsum("m,mij,mijdk->ijdk", psi, (s > 0).double(), ds)
    dalpha = (alpha * (1 - alpha))[..., None, None] * dq
    up = torch.tensor([[1, 0], [0.75, 0.25], [0.25, 0.75], [0, 1]], dtype=torch.float64)  # linear, 2 -> 4
    alpha, dalpha = (torch.einsum("hi,wj,ij...->hw...", up, up, t) for t in (alpha, dalpha))

    first, second = alpha[..., None, None] * df, dalpha * x[..., None, None]
    torch.testing.assert_close(jacobian, first + second)
    assert second.norm() > 0.05 * first.norm()  # the term of the gate itself is no rounding error


# ---- what is drawn is what was used


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize(("dims", "size"), [(2, (8, 12)), (2, (65, 33)), (3, (5, 8, 9))])
def test_what_is_drawn_is_what_was_used(form, heads, dims, size):
    module = gate(dims=dims, heads=heads, form=form)
    skip, gating = inputs((2, 4, *size), (2, 6, *(3,) * dims))
    used = attended(copy.deepcopy(module), skip, gating).view(2, heads, 4, *size)
    with Taps(module, module.alphas) as taps:
        module(skip, gating)
        read = taps.read()
    for head, (layer, output) in enumerate(read.items()):
        drawn = AttentionMap.read(output, layer, kind="gate")
        share = drawn.resize(size).values.unsqueeze(1) / module.unity
        torch.testing.assert_close(used[:, head], share * skip, rtol=0, atol=0)


def test_what_the_module_alpha_answers_is_what_multiplies_the_skip():
    module, (skip, gating) = gate(heads=2), inputs()
    module.alpha["2"].register_forward_hook(lambda _module, _inputs, output: torch.zeros_like(output))
    first, second = attended(module, skip, gating).chunk(2, dim=1)
    assert first.abs().sum() > 0 and not second.any()


# ---- precision, storage, complaints


@pytest.mark.parametrize("form", FORMS)
def test_half_precision_is_finite_and_keeps_alpha_exact(form):
    module, (skip, gating) = gate(form=form), inputs((2, 4, 9, 7), (2, 6, 5, 4))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        (alpha,) = alphas(module, skip * 100, gating * 100)
        output = module(skip * 100, gating * 100)
    output.float().sum().backward()
    assert alpha.dtype == torch.float32
    assert output.isfinite().all() and all(p.grad.isfinite().all() for p in module.parameters())


def test_an_open_gate_still_learns_in_half_precision():
    module, (skip, gating) = gate(), inputs()
    nn.init.zeros_(module.psi.weight)
    nn.init.constant_(module.psi.bias, 10)  # 1 - alpha = 5e-5, which bfloat16 cannot tell from 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        attended(module, skip, gating).float().square().sum().backward()
    assert module.psi.bias.grad.abs() > 0


@pytest.mark.parametrize("form", FORMS)
def test_state_survives_storage(form):
    stored, other = gate(form=form, heads=2), gate(form=form, heads=2, seed=9).eval()
    skip, gating = inputs()
    stored(skip, gating)  # moves the running statistics
    other.load_state_dict(stored.eval().state_dict())
    assert torch.equal(stored(skip, gating), other(skip, gating))


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"dims": 1}, "dims must be 2 or 3, not 1"),
        ({"dims": [2]}, r"dims must be 2 or 3, not \[2\]"),
        ({"form": "additive"}, "form must be 'official' or 'common' or 'bare', not 'additive'"),
        ({"heads": 0}, "heads must be a whole number above 0, not 0"),
        ({"heads": True}, "heads must be a whole number above 0, not True"),
        ({"inter_channels": 0}, "inter_channels must be a whole number above 0, not 0"),
        ({"skip": -1}, "skip_channels must be a whole number above 0, not -1"),
        ({"gating": 2.0}, "gating_channels must be a whole number above 0, not 2.0"),
        ({"stride": 0}, "stride must be a whole number above 0, not 0"),
        ({"stride": (1, 2, 2)}, r"stride must be one number or 2, not \(1, 2, 2\)"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        gate(**settings)


@pytest.mark.parametrize(
    ("skip", "gating", "message"),
    [
        ((2, 6, 8, 8), (2, 4, 4, 4), r"skip must be \(B, 4, H, W\), not \(2, 6, 8, 8\)"),  # swapped
        ((2, 4, 8, 8), (2, 5, 4, 4), r"gating must be \(B, 6, H, W\), not \(2, 5, 4, 4\)"),
        ((4, 8, 8), (2, 6, 4, 4), r"skip must be \(B, 4, H, W\), not \(4, 8, 8\)"),
        ((2, 4, 8, 8), (1, 6, 4, 4), "skip and gating must have one batch size, not 2 and 1"),
    ],
)
def test_inputs_that_do_not_fit(skip, gating, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        gate()(torch.zeros(skip), torch.zeros(gating))
