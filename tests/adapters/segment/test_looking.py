"""A U-Net that is looked at: where its cells lie, what it predicts, what opening a gate changes, what is refused."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from distill.adapters.segment.data import read_data
from distill.adapters.segment.looking import choose_cases, open_lookers
from distill.attention.layers import by_role
from distill.attention.maps import energy
from distill.networks.unet import UNet

from . import kit

NAMES = ("background", "front", "back")


def looker(folder, **network):
    settings = {"in_channels": 1, "dims": 3, **network}
    file = kit.checkpoint(folder / "net.ckpt", names=settings.pop("names", NAMES), **settings)
    return open_lookers({"student": str(file)}, "cpu")["student"]


def passing(network: UNet) -> UNet:
    """Every 3x3 convolution passes each channel's mean on from the cell itself, so that cells do not mix."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.Conv3d)):
            nn.init.zeros_(module.weight)
            module.weight.data[(slice(None), slice(None), *(side // 2 for side in module.kernel_size))] = 1
            if module.bias is not None:
                nn.init.zeros_(module.bias)
    return network.eval()


@pytest.mark.parametrize("size", [(32, 24), (37, 29), (31, 18, 21)])
@pytest.mark.parametrize("stride", [2, (1, 2, 3)])
def test_a_bright_point_lies_in_its_cell(tmp_path, size, stride):
    """The response to a point is where the lattice says, for every level, odd sizes too."""
    dims = len(size)
    steps = stride if isinstance(stride, int) else stride[-dims:]
    one = looker(tmp_path, dims=dims, gated=True, stride=steps)
    passing(one.module)
    roles = by_role(one.layers)
    for point in ((3,) * dims, tuple(side - 1 for side in size), tuple(side // 2 for side in size)):
        image = torch.zeros(1, *size)
        image[(0, *point)] = 1
        maps = {role: roles[role].name for role in ("E1", "E2", "E3", "X2")}
        features = one.features(image, list(maps.values()))
        for role, name in maps.items():
            values = energy(features[name])[0]
            lattice = one.lattices[name]
            found = np.unravel_index(int(values.argmax()), values.shape)
            assert (values > values.max() / 2).sum() == 1
            for axis, cell in enumerate(found):
                centre = lattice.offset[axis] + cell * lattice.stride[axis]
                assert abs(centre - (point[axis] + 0.5)) <= lattice.stride[axis] / 2, (role, point)
            level = int(role[1:]) - 1
            assert lattice.stride == (
                tuple(s**level for s in steps) if isinstance(steps, tuple) else (2.0**level,) * dims
            )


def test_gates_have_the_lattice_of_their_own_grid(tmp_path):
    one = looker(tmp_path, gated=True)
    roles = by_role(one.layers)
    assert one.lattices[roles["G2"].name].stride == (4, 4, 4)
    assert one.lattices[roles["G2"].name].offset == (2, 2, 2)
    assert one.lattices[roles["D1"].name].offset == (0.5, 0.5, 0.5)


def test_opened_gates_are_those_of_a_network_whose_gates_are_1(tmp_path):
    one = looker(tmp_path, gated="all", dims=2, in_channels=1)
    image = torch.randn(1, 24, 20, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = one.module(image[None]).argmax(1)[0]
        assert torch.equal(one.predict(image), plain)
        opened = one.predict(image, ["G1", "G2"])
        for gate in one.module.gates.values():
            nn.init.zeros_(gate.psi.weight)
            nn.init.constant_(gate.psi.bias, 100.0)  # sigmoid(100) is 1
        assert torch.equal(opened, one.module(image[None]).argmax(1)[0])
        assert torch.equal(one.predict(image), opened)
    assert not any(module._forward_hooks for module in one.module.modules())


def test_dice_by_class(tmp_path):
    one = looker(tmp_path)
    truth = np.zeros((4, 4, 4), int)
    truth[:2] = 1
    found = torch.zeros(4, 4, 4, dtype=torch.long)
    found[1:3] = 1
    assert one.dice(found, truth) == {"front": 0.5}  # the other is rightly absent
    assert one.dice(found * 2, truth) == {"front": 0, "back": 0}
    assert one.dice(found * 0, truth * 0) == {}


def test_an_untrained_one_starts_anew(tmp_path):
    one = looker(tmp_path, gated=True)
    fresh = one.untrained(3)
    assert not torch.equal(fresh.head.weight, one.module.head.weight) and not fresh.training
    assert torch.equal(fresh.head.weight, one.untrained(3).head.weight)


def test_cases_and_their_masks(tmp_path):
    data = read_data(str(kit.pictures(tmp_path, train=3, val=4)))
    one = looker(tmp_path, dims=2, in_channels=3, names=NAMES[:2])
    cases = choose_cases(None, data, "val", 2, one)
    assert [(image.name, mask.parent.name) for image, mask in cases] == [("val0.png", "val"), ("val2.png", "val")]
    assert len(choose_cases(None, data, "train", 9, one)) == 3
    folder = tmp_path / "images" / "train"
    (image, mask), *_ = choose_cases(str(folder), data, "val", 9, one)
    assert (image.name, mask) == ("train0.png", data.train[0].mask)
    assert choose_cases([folder / "train1.png"], None, "val", 9, one) == [(folder / "train1.png", None)]
    assert len(choose_cases(str(folder / "*.png"), None, "val", 9, one)) == 3


def test_what_is_refused(tmp_path, refused):
    one = looker(tmp_path)
    pictures = kit.pictures(tmp_path / "flat")
    refused(lambda: choose_cases(None, read_data(str(pictures)), "val", 9, one), "2-D", "3-D")
    refused(lambda: choose_cases(str(tmp_path / "flat" / "images" / "val"), None, "val", 9, one), "2-D", "3-D")
    volumes = read_data(str(kit.volumes(tmp_path / "deep")))
    refused(lambda: choose_cases(None, volumes, "test", 9, one), "--split test", "train and val")
    refused(lambda: open_lookers({"student": "unet:8"}, None), "--student unet:8", "give a .ckpt")
    bad = tmp_path / "bad.ckpt"
    bad.write_bytes(b"no checkpoint")
    refused(lambda: open_lookers({"teacher": str(bad)}, None), "--teacher", "bad.ckpt", "not readable")
    flat = kit.checkpoint(tmp_path / "flat.ckpt", in_channels=1)
    files = {"student": str(tmp_path / "net.ckpt"), "baseline": str(flat)}
    refused(lambda: open_lookers(files, None), "--student 3-D", "--baseline 2-D")
