"""The U-Net: the published networks to the parameter, their wiring, any size, and names that last."""

import pytest
import torch
from torch import nn

from distill.attention.layers import describe
from distill.attention.maps import AttentionMap
from distill.attention.taps import Taps
from distill.networks.unet import UNet

SMALL = (2, 3, 4, 5)


def unet(seed=0, in_channels=1, classes=2, channels=SMALL, **settings):
    torch.manual_seed(seed)
    return UNet(in_channels, classes, channels, **settings)


def images(*shape, seed=1):
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def parameters(module):
    return sum(p.numel() for p in module.parameters())


def calls(model, names, x):
    """The inputs and the output of each of these modules in one pass."""
    seen = {}
    handles = [
        model.get_submodule(name).register_forward_hook(
            lambda _m, args, out, name=name: seen.update({name: (args, out)})
        )
        for name in names
    ]
    model(x)
    for handle in handles:
        handle.remove()
    return seen


# ---- the published networks


@pytest.mark.parametrize(
    ("dims", "classes", "settings", "expected"),
    [
        (3, 4, {}, 5_888_004),
        (3, 4, {"gated": True}, 6_214_151),
        (3, 4, {"gated": True, "heads": 2}, 6_473_322),
        (2, 2, {}, 1_965_770),
        (2, 2, {"gated": True}, 2_205_901),
        (2, 2, {"gated": True, "heads": 2}, 2_379_056),
    ],
)
def test_parameters_of_the_published_networks(dims, classes, settings, expected):
    with torch.device("meta"):
        assert parameters(UNet(1, classes, dims=dims, deep_supervision=True, **settings)) == expected


def test_what_steers_the_gates_and_what_goes_up():
    model = unet(gated=True, deep_supervision=True).eval()
    blocks = [f"{part}.{k}" for part, last in (("encoder", 4), ("decoder", 3)) for k in range(1, last + 1)]
    seen = calls(
        model, [*blocks, "gating", "gates.2", "gates.3", "mixers.2", "mixers.3", "up.3", "head"], images(1, 1, 16, 16)
    )
    output = {name: out for name, (_, out) in seen.items()}
    taken = {name: args for name, (args, _) in seen.items()}
    assert taken["gating"][0] is output["encoder.4"]
    assert taken["gates.3"][0] is output["encoder.3"] and taken["gates.3"][1] is output["gating"]
    assert taken["gates.2"][0] is output["encoder.2"] and taken["gates.2"][1] is output["decoder.3"]
    assert taken["mixers.2"][0] is output["gates.2"]
    assert taken["up.3"][0] is output["encoder.4"]  # the deepest block goes up as it is, not as gating signal
    assert torch.equal(taken["decoder.3"][0], torch.cat([output["mixers.3"], output["up.3"]], dim=1))
    assert torch.equal(taken["decoder.1"][0][:, : SMALL[0]], output["encoder.1"])  # the first skip is not gated
    assert [id(x) for x in taken["head"][0]] == [id(output[f"decoder.{k}"]) for k in (1, 2, 3)]


@pytest.mark.parametrize(
    ("gated", "levels"), [(False, ""), (True, "234"), ("all", "1234"), ([3], "3"), ((4, 1), "14"), ([], "")]
)
def test_which_skips_are_gated(gated, levels):
    model = unet(channels=(1, 2, 3, 4, 5), gated=gated)
    assert list(model.gates) == list(levels) == list(model.mixers)
    assert bool(parameters(model.gating)) == ("4" in levels)


def test_the_plain_network_knows_no_gate():
    assert not [name for name, _ in unet().named_parameters() if "gat" in name or "mixer" in name]


def test_settings_of_the_gates_are_passed_on():
    gate = unet(gated="all", heads=3, form="common", dims=3, stride=(1, 2, 2)).gates["1"]
    assert len(gate.alphas) == 3 and gate.dims == 3 and isinstance(gate.psi, nn.Sequential)
    assert unet(gated=True, dims=3, stride=(1, 2, 2)).gates["2"].stride == (1, 2, 2)


def test_deep_supervision_adds_up_all_levels():
    """With one class and weights of 1 in the last convolution, the output is the sum of the sides at full size."""
    model = unet(classes=1, deep_supervision=True).eval()
    nn.init.ones_(model.head.final.weight)
    nn.init.zeros_(model.head.final.bias)
    x = images(2, 1, 16, 24)
    seen = calls(model, [f"decoder.{k}" for k in (1, 2, 3)], x)
    total = torch.zeros(2, 1, 16, 24)
    for k, (convolution, _) in enumerate(model.head.sides, start=1):
        side = convolution(seen[f"decoder.{k}"][1])
        total += nn.functional.interpolate(side, (16, 24), mode="bilinear")
    torch.testing.assert_close(model(x), total)


def test_gates_start_open():
    for seed in range(6):
        model = unet(seed, channels=(8, 16, 32, 64), gated=True).train()
        with Taps(model, [name for role, name in model.roles.items() if role[0] == "G"]) as taps:
            model(images(2, 1, 32, 32, seed=seed))
            assert all(0.85 < alpha.mean() < 0.99 for alpha in taps.read().values())


# ---- sizes


@pytest.mark.parametrize("upsampling", ["linear", "transposed"])
@pytest.mark.parametrize("deep_supervision", [False, True])
@pytest.mark.parametrize(
    ("dims", "channels", "size", "stride"),
    [
        (2, (2, 3, 4), (16, 16), 2),
        (2, (2, 3, 4), (17, 30), 2),
        (2, (2, 3, 4, 5), (65, 33), 2),
        (2, (2, 3, 4, 5, 6), (19, 50), 2),
        (2, (2, 3, 4, 5, 6), (1, 3), 2),
        (2, (2, 3, 4), (20, 21), 3),
        (3, (2, 3, 4), (7, 10, 13), 2),
        (3, (2, 3, 4, 5, 6), (9, 17, 20), 2),
        (3, (2, 3, 4), (1, 12, 9), (1, 2, 2)),
    ],
)
def test_any_size(upsampling, deep_supervision, dims, channels, size, stride):
    for gated in (False, "all"):
        model = unet(
            0, 3, 2, channels, dims=dims, stride=stride, gated=gated,
            upsampling=upsampling, deep_supervision=deep_supervision,
        ).eval()  # fmt: skip
        assert model(images(2, 3, *size)).shape == (2, 2, *size)


@pytest.mark.parametrize("upsampling", ["linear", "transposed"])
def test_an_odd_size_is_not_shifted(upsampling):
    """Far from the edges the answer on 73 x 81 is that on 96 x 96 with the same content."""
    model = unet(channels=(2, 3, 4), gated=True, upsampling=upsampling, deep_supervision=True).eval()
    model.double()
    large = images(1, 1, 96, 96).double()
    a, b = model(large)[..., :24, :24], model(large[..., :73, :81])[..., :24, :24]
    torch.testing.assert_close(a, b)


def test_a_flat_volume_is_an_image():
    settings = {"gated": True, "deep_supervision": True, "upsampling": "transposed", "channels": (2, 3, 4)}
    flat, volume = unet(**settings).eval(), unet(5, dims=3, stride=(1, 2, 2), **settings).eval()
    state = {}
    for key, value in volume.state_dict().items():
        twin = flat.state_dict()[key]
        if value.ndim == 5:  # the other planes of a 3x3x3 kernel meet padding only
            value = torch.zeros_like(value)
            value[:, :, value.shape[2] // 2] = twin
        state[key] = value if value.ndim == 5 else twin
    volume.load_state_dict(state)
    x = images(2, 1, 15, 12)
    torch.testing.assert_close(volume(x.unsqueeze(2)).squeeze(2), flat(x))


# ---- names


def test_roles_name_the_outputs_of_each_level():
    model = unet(gated=True)
    assert model.roles == {
        **{f"E{k}": f"encoder.{k}" for k in (1, 2, 3, 4)},
        **{f"D{k}": f"decoder.{k}" for k in (1, 2, 3)},
        "G2": "gates.2.alpha",
        "G3": "gates.3.alpha",
        "X2": "mixers.2",
        "X3": "mixers.3",
    }
    layers = {layer.name: layer for layer in describe(model, images(1, 1, 32, 32))}
    for role, name in model.roles.items():
        level = int(role[1:])
        assert layers[name].stride == (2 ** (level - (role[0] != "G")),) * 2  # alpha is on theta's grid
        assert layers[name].channels == (1 if role[0] == "G" else SMALL[level - 1])


@pytest.mark.parametrize(("dims", "heads", "form"), [(2, 1, "official"), (3, 2, "official"), (2, 2, "common")])
def test_every_alpha_is_heard(dims, heads, form):
    model = unet(dims=dims, heads=heads, form=form, gated="all", channels=(2, 3, 4))
    names = {role: name for role, name in model.roles.items() if role[0] == "G"}
    assert list(names) == (["G1", "G2"] if heads == 1 else ["G1.1", "G1.2", "G2.1", "G2.2"])
    with Taps(model, names.values()) as taps:
        model(images(2, 1, *(12,) * dims))
        for layer, output in taps.read().items():
            values = AttentionMap.read(output, layer, kind="gate").values
            assert values.min() > 0 and values.max() < 1


# ---- training and storage


@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"gated": True, "deep_supervision": True},
        {"gated": "all", "heads": 2, "upsampling": "transposed"},
        {"gated": [1], "form": "common"},
        {"gated": True, "dims": 3},
    ],
)
def test_gradient_reaches_every_parameter(settings):
    model = unet(channels=(4, 6, 8, 10), **settings).eval()  # in training BatchNorm cancels the biases before it
    model(images(2, 1, *(16,) * model.dims)).square().sum().backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


def test_eval_is_deterministic_and_samples_are_independent():
    model, x = unet(gated=True, deep_supervision=True).eval(), images(3, 1, 18, 15)
    assert torch.equal(model(x), model(x))
    torch.testing.assert_close(model(x)[1:2], model(x[1:2]))


def test_half_precision_is_finite():
    model = unet(gated=True, heads=2, deep_supervision=True)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        logits = model(images(2, 1, 17, 20))
    logits.float().square().sum().backward()
    assert logits.isfinite().all() and all(p.grad.isfinite().all() for p in model.parameters())


def test_state_survives_storage():
    settings = {"gated": True, "heads": 2, "deep_supervision": True, "upsampling": "transposed"}
    stored, other, x = unet(**settings), unet(9, **settings).eval(), images(2, 1, 16, 16)
    stored(x)  # moves the running statistics
    other.load_state_dict(stored.eval().state_dict())
    assert torch.equal(stored(x), other(x))


# ---- complaints


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"in_channels": 0}, "in_channels must be a whole number above 0, not 0"),
        ({"classes": 1.5}, "classes must be a whole number above 0, not 1.5"),
        ({"channels": (8,)}, r"channels must be those of two levels or more, not \(8,\)"),
        ({"channels": 16}, "channels must be those of two levels or more, not 16"),
        ({"channels": (8, 0)}, "channels must be a whole number above 0, not 0"),
        ({"dims": 4}, "dims must be 2 or 3, not 4"),
        ({"upsampling": "nearest"}, "upsampling must be 'linear' or 'transposed', not 'nearest'"),
        ({"form": "soft"}, "form must be 'official' or 'common' or 'bare', not 'soft'"),
        ({"heads": 0}, "heads must be a whole number above 0, not 0"),
        ({"stride": (2, 2, 2)}, r"stride must be one number or 2, not \(2, 2, 2\)"),
        ({"gated": [4]}, r"gated must be True, False, 'all' or levels from 1 to 3, not \[4\]"),
        ({"gated": "some"}, "gated must be True, False, 'all' or levels from 1 to 3, not 'some'"),
        ({"gated": 2}, "gated must be True, False, 'all' or levels from 1 to 3, not 2"),
        ({"gated": True, "channels": (2, 3)}, "gated must be False, 'all' or a level from 1 to 1, not True"),
    ],
)
def test_settings_that_are_none(settings, message):
    with pytest.raises(ValueError, match=f"^{message}$"):
        unet(**settings)


@pytest.mark.parametrize("shape", [(2, 3, 8, 8), (1, 8, 8), (2, 1, 4, 8, 8)])
def test_inputs_that_do_not_fit(shape):
    with pytest.raises(ValueError, match=r"^images must be \(B, 1, H, W\), not \("):
        unet()(torch.zeros(shape))
