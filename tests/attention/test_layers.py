"""What a network is made of, measured on it: shapes, strides, roles, and the names a pattern means."""

import pytest
import torch
from torch import nn

from distill.attention.layers import Anatomy, LayerInfo, by_role, describe, resolve
from distill.errors import InputError


class Toy(nn.Module):
    """A pyramid of strides 2 to 16 with two blocks at stride 8, and a head that names its inputs out of order."""

    def __init__(self):
        super().__init__()
        down = [nn.Sequential(nn.Conv2d(c, 4, 3, 2, 1), nn.BatchNorm2d(4)) for c in (3, 4, 4, 4)]
        self.model = nn.ModuleList([*down[:3], nn.Conv2d(4, 6, 1), down[3], nn.Flatten()])
        self.model[4] = nn.Sequential(nn.Conv2d(6, 4, 3, 2, 1), nn.BatchNorm2d(4), nn.Dropout(0.5))

    def forward(self, x):
        for layer in self.model:
            x = layer(x)
        return x


ANATOMY = Anatomy(head_inputs=("model.4", "model.1", "model.3"), backbone=tuple(f"model.{i}" for i in range(5)))


@pytest.fixture
def toy():
    torch.manual_seed(0)
    return Toy()


def hooks(module):
    return sum(len(m._forward_hooks) for m in module.modules())


def test_every_feature_map_is_listed_in_order_with_what_was_measured(toy):
    layers = describe(toy, torch.rand(2, 3, 32, 64))
    names = [layer.name for layer in layers]
    tops = [name for name in names if name.count(".") == 1]
    assert tops == ["model.0", "model.1", "model.2", "model.3", "model.4"]  # the flattened vector is no map
    assert names.index("model.0.0") < names.index("model.0.1") < names.index("model.0") < names.index("model.1.0")
    layer = layers[names.index("model.3")]
    assert layer == LayerInfo("model.3", "Conv2d", (2, 6, 4, 8), (8.0, 8.0), 4 * 6 + 6)
    assert (layer.channels, layer.size, layer.level) == (6, (4, 8), 3)
    assert layers[names.index("model.4")].parameters == sum(p.numel() for p in toy.model[4].parameters())


def test_strides_are_measured_for_each_dimension():
    network = nn.Sequential(nn.Conv2d(3, 4, 3, (1, 2), 1), nn.MaxPool2d((2, 4)))
    first, second = describe(network, torch.rand(1, 3, 16, 32))
    assert first.stride == (1.0, 2.0) and second.stride == (2.0, 8.0)
    assert second.level == 3  # of the larger


def test_volumes_are_described_too():
    (layer,) = describe(nn.Sequential(nn.Conv3d(1, 2, 3, 2, 1)), torch.rand(1, 1, 8, 8, 16))
    assert layer.shape == (1, 2, 4, 4, 8) and layer.stride == (2.0, 2.0, 2.0)


def test_the_model_is_left_as_it_was_found(toy):
    toy.train()
    toy.model[1][1].eval()  # a frozen BatchNorm
    state = {name: tensor.clone() for name, tensor in toy.state_dict().items()}
    modes = [m.training for m in toy.modules()]
    random = torch.get_rng_state()
    describe(toy, torch.rand(2, 3, 32, 32, generator=torch.Generator()))
    assert [m.training for m in toy.modules()] == modes and modes.count(False) == 1
    assert hooks(toy) == 0
    assert torch.equal(torch.get_rng_state(), random)  # no dropout was drawn
    for name, tensor in toy.state_dict().items():
        assert torch.equal(tensor, state[name])  # running statistics too
    assert all(p.grad is None and p.requires_grad for p in toy.parameters())


def test_the_model_is_left_as_it_was_found_when_its_forward_fails(toy):
    toy.train()
    toy.model[1][1].eval()
    with pytest.raises(RuntimeError):
        describe(toy, torch.rand(1, 5, 32, 32))
    assert hooks(toy) == 0 and toy.training and not toy.model[1][1].training


def test_roles_come_from_strides_and_not_from_the_order_of_the_head(toy):
    roles = {role: layer.name for role, layer in by_role(describe(toy, torch.rand(1, 3, 32, 32), ANATOMY)).items()}
    assert list(roles) == ["P2", "P3", "P4", "B1", "B2", "B3", "B4"]  # by level
    assert (roles["P2"], roles["P3"], roles["P4"]) == ("model.1", "model.3", "model.4")


def test_the_last_block_of_a_stride_has_the_backbone_role_and_a_layer_may_have_two(toy):
    layers = {layer.name: layer for layer in describe(toy, torch.rand(1, 3, 32, 32), ANATOMY)}
    assert layers["model.2"].level == layers["model.3"].level == 3
    assert layers["model.2"].roles == () and layers["model.3"].roles == ("P3", "B3")


def test_a_role_of_a_layer_that_gives_no_map_is_left_out(toy):
    layers = describe(toy, torch.rand(1, 3, 32, 32), Anatomy(head_inputs=("model.5",), backbone=("model.9",)))
    assert not by_role(layers)


NAMES = ["model.1", "model.1.conv", "model.1.bn", "model.16", "model.16.m", "model.16.m.0", "model.16.m.0.cv1", "head"]


@pytest.mark.parametrize(
    ("pattern", "names"),
    [
        ("16", ["model.16"]),
        ("model.16.m", ["model.16.m"]),
        ("head", ["head"]),
        ("model.*", ["model.1", "model.16"]),  # a star stays within one part of the name
        ("model.1*", ["model.1", "model.16"]),
        ("model.*.*", ["model.1.conv", "model.1.bn", "model.16.m"]),
        ("*", ["head"]),
        ("model.1.[cb]*", ["model.1.conv", "model.1.bn"]),
        ("model.16.m.?.cv1", ["model.16.m.0.cv1"]),
    ],
)
def test_patterns(pattern, names):
    assert resolve(NAMES, pattern) == names


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("61", r"layer '61' not found in the teacher; nearest: .*'model.16'"),
        ("model.16.n", r"'model.16.n' not found in the teacher; nearest: 'model.16.m'"),
        ("model.*.cv9", r"'model.\*.cv9' not found"),
        ("zzz", r"'zzz' not found in the teacher$"),  # nothing is similar: no suggestion
        ("MODEL.16", r"nearest: 'model.16'"),
        ("", r"'' not found"),
    ],
)
def test_a_pattern_that_matches_nothing_is_named_with_the_nearest(pattern, message):
    with pytest.raises(InputError, match=message):
        resolve(NAMES, pattern, "teacher")


LARGE = {"16": (256, 80), "6": (512, 40), "13": (512, 40), "19": (512, 40), "8": (512, 20), "22": (512, 20)}
SMALL = {"16": (128, 80), "6": (256, 40), "13": (256, 40), "19": (256, 40), "8": (512, 20), "22": (512, 20)}


@pytest.mark.parametrize(("size", "table"), [("l", LARGE), ("s", SMALL)])
def test_the_six_layers_of_the_published_study(size, table):
    """YOLO11l and YOLO11s at 640 px: (channels, height = width)."""
    from ultralytics.nn.tasks import DetectionModel

    network = DetectionModel(f"yolo11{size}.yaml", verbose=False)
    head = Anatomy(tuple(f"model.{i}" for i in network.model[-1].f), tuple(f"model.{i}" for i in range(11)))
    layers = describe(network, torch.zeros(1, 3, 640, 640), head)
    infos = {layer.name: layer for layer in layers}
    for number, (channels, side) in table.items():
        (name,) = resolve(list(infos), number)
        assert name == f"model.{number}"
        assert infos[name].shape == (1, channels, side, side) and infos[name].stride == (640 / side, 640 / side)
    roles = {role: layer.name.removeprefix("model.") for role, layer in by_role(layers).items()}
    assert roles == {"P3": "16", "P4": "19", "P5": "22", "B1": "0", "B2": "2", "B3": "4", "B4": "6", "B5": "10"}
