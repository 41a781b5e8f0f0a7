"""Roles come from the network, never from numbers; a teacher that was cut short sees what the whole one sees."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from distill.adapters.ultralytics.anatomy import anatomy, build_teacher, channels_of, layers_of, stride_of
from distill.attention.layers import by_role
from distill.attention.taps import Taps

from .tiny import RTDETR, micro, network

# head inputs P3, P4, P5 and the last backbone blocks B3, B4, B5
YOLO5 = ((17, 20, 23), (4, 6, 9))
YOLO8 = ((15, 18, 21), (4, 6, 9))
YOLO11 = ((16, 19, 22), (4, 6, 10))
TABLE = {
    "yolov5n.yaml": YOLO5,
    "yolov8n.yaml": YOLO8,
    "yolov9t.yaml": YOLO8,
    "yolov10n.yaml": YOLO11,
    "yolo11n.yaml": YOLO11,
    "yolo26n.yaml": YOLO11,
    "yolo12n.yaml": ((14, 17, 20), (4, 6, 8)),
}


def numbers(model: nn.Module, imgsz: int = 64) -> dict[str, int]:
    """The number of each role's layer."""
    return {role: int(layer.name.removeprefix("model.")) for role, layer in by_role(layers_of(model, imgsz)).items()}


@pytest.mark.parametrize("yaml", TABLE)
def test_roles_of_detectors(yaml: str) -> None:
    head, backbone = TABLE[yaml]
    found = numbers(network(yaml))
    assert tuple(found[role] for role in ("P3", "P4", "P5")) == head
    assert tuple(found[role] for role in ("B3", "B4", "B5")) == backbone
    assert {role for role in found if role.startswith("P")} == {"P3", "P4", "P5"}


def test_roles_of_rtdetr() -> None:
    found = numbers(network("rtdetr-l.yaml", "rtdetr"))
    assert [found[role] for role in ("P3", "P4", "P5", "B3", "B4", "B5")] == [21, 24, 27, 3, 7, 9]


def test_roles_of_other_tasks() -> None:
    semantic = numbers(network("yolo26n-sem.yaml", "semantic"))
    assert [semantic[role] for role in ("P3", "P4", "B3", "B4", "B5")] == [16, 13, 4, 6, 10]
    classify = numbers(network("yolo11n-cls.yaml", "classify"))
    assert {role: n for role, n in classify.items() if role.startswith("P")} == {"P5": 9}


def test_levels_are_measured_not_counted() -> None:
    four = numbers(network("yolov8n-p2.yaml"))
    assert [role for role in four if role.startswith("P")] == ["P2", "P3", "P4", "P5"]
    six = numbers(network("yolov8n-p6.yaml"), 128)
    assert [role for role in six if role.startswith("P")] == ["P3", "P4", "P5", "P6"]
    turned = micro()
    turned["head"][-1][0] = [7, 5, 6]  # the head reads its levels in another order
    assert [numbers(network(turned))[role] for role in ("P3", "P4", "P5")] == [5, 6, 7]


def test_negative_sources_count_from_the_head() -> None:
    relative = micro()
    relative["head"][-1][0] = [5, 6, -1]
    assert anatomy(network(relative)).head_inputs == ("model.5", "model.6", "model.7")


def test_other_images() -> None:
    grey = network(micro(), channels=1)
    assert channels_of(grey) == 1 and numbers(grey)["P3"] == 5
    assert stride_of(network(micro())) == 32 and stride_of(network("yolov8n-p6.yaml")) == 64


def test_measuring_leaves_the_network_as_it_was() -> None:
    model = network(micro()).train()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    layers_of(model, 64)
    assert all(module.training for module in model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())


# ---- the teacher


def trained(model: nn.Module) -> nn.Module:
    """With BatchNorm statistics that matter, as after training; else features fade and folding could be anything."""
    with torch.no_grad():
        for _ in range(3):
            model.train()(torch.rand(4, 3, 64, 64))
    return model.eval()


def features(model: nn.Module, layers: list[str], images: torch.Tensor) -> dict[str, torch.Tensor]:
    with torch.no_grad(), Taps(model.eval(), layers) as taps:
        model(images)
        return taps.read()


@pytest.mark.parametrize(
    ("yaml", "task", "layers", "kept"),
    [
        ("yolo11n.yaml", "detect", ["model.16", "model.4", "model.19"], 20),
        ("yolov10n.yaml", "detect", ["model.10"], 11),
        ("yolo26n-sem.yaml", "semantic", ["model.13", "model.16"], 17),
        (micro(head=RTDETR), "rtdetr", ["model.5", "model.7"], 8),
    ],
)
def test_a_cut_and_folded_teacher_sees_the_same(yaml: str, task: str, layers: list[str], kept: int) -> None:
    whole = trained(network(yaml, task))
    images = torch.rand(2, 3, 64, 64)
    teacher = build_teacher(whole, layers)
    expected, found = features(whole, layers, images), teacher(images)
    for layer in layers:
        scale = expected[layer].abs().max()
        assert scale > 1e-3  # else there is nothing to compare
        assert torch.allclose(found[layer], expected[layer], atol=1e-4 * scale.item(), rtol=0)
    assert len(teacher.module.model) == kept  # the layers behind the deepest one are gone
    assert not [m for m in teacher.module.modules() if isinstance(m, nn.BatchNorm2d)]
    assert [m for m in whole.modules() if isinstance(m, nn.BatchNorm2d)]  # the original is not touched


def test_a_batchnorm_that_is_read_is_not_folded() -> None:
    whole = trained(network(micro()))
    teacher = build_teacher(whole, ["model.3.bn"])
    images = torch.rand(2, 3, 64, 64)
    # the block's activation works in place: what the tap should see is computed by hand
    before = features(whole, ["model.2"], images)["model.2"]
    expected = whole.model[3].bn(whole.model[3].conv(before)).detach()
    whole.model[3].act = teacher.module.model[3].act = nn.Identity()
    assert torch.allclose(teacher(images)["model.3.bn"], expected, atol=1e-5)


@pytest.mark.parametrize("yaml", ["yolo11n.yaml", "yolo26n.yaml"])
def test_a_layer_inside_the_head_keeps_the_head(yaml: str) -> None:
    model = network(yaml)
    last = len(model.model) - 1
    layer = f"model.{last}.cv2.0.0"
    teacher = build_teacher(model, [layer])
    images = torch.rand(1, 3, 64, 64)
    assert len(teacher.module.model) == last + 1
    assert torch.allclose(teacher(images)[layer], features(model, [layer], images)[layer], atol=1e-5)


def test_the_teacher_is_a_frozen_copy(checkpoint: Callable[..., Path]) -> None:
    model = network(micro()).train()
    trainable = [p.requires_grad for p in model.parameters()]
    teacher = build_teacher(model, ["model.5"], size=96)
    assert model.training and any(trainable) and [p.requires_grad for p in model.parameters()] == trainable
    assert not teacher.module.training and not [p for p in teacher.module.parameters() if p.requires_grad]
    found = teacher(torch.rand(2, 3, 64, 64, requires_grad=True))["model.5"]
    assert found.shape[2:] == (12, 12) and not found.requires_grad  # 96 px over a stride of 8
    kept = {p.data_ptr() for p in model.parameters()}
    assert not kept & {p.data_ptr() for p in teacher.module.parameters()}
