"""Descriptions of networks: found as Ultralytics finds them, refused where building them would run code or fail."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.nn.modules import Conv
from ultralytics.utils import ROOT, YAML

from distill.adapters.ultralytics.inputs import read_model_yaml
from distill.adapters.ultralytics.model_yaml import check_architecture

from .kit import description, refusal, write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def student(name: str, content: Any = None) -> str:
    if content is not None:
        write(name, content)
    return refusal(lambda: read_model_yaml(name, "--student"))


def test_shipped_descriptions() -> None:
    read = read_model_yaml("yolo11n.yaml", "--student")
    assert (read.path, read.task, read.family, read.channels, read.nc) == ("yolo11n.yaml", "detect", "yolo", 3, 80)
    assert read.yaml["scale"] == "n"
    kinds = {"yolo26s-sem.yaml": "semantic", "yolo11m-cls.yaml": "classify", "yolov8l-obb.yaml": "obb"}
    assert all(read_model_yaml(name, "--student").task == task for name, task in kinds.items())
    assert read_model_yaml("rtdetr-l.yaml", "--student").family == "rtdetr"
    assert read_model_yaml("yolov6n.yaml", "--student").yaml["activation"].startswith("torch.nn.ReLU")
    refused = {"yolov8s-world.yaml": "YOLO-World", "yoloe-11s.yaml": "YOLOE", "yolo26n-depth.yaml": "depth"}
    assert all(words in student(name) for name, words in refused.items())


def test_every_shipped_layer_counts_as_one() -> None:
    for file in (ROOT / "cfg/models").rglob("*.yaml"):
        if file.name != "yolo11-cls-resnet18.yaml":  # it does download weights
            check_architecture(YAML.load(file), file.name)


def test_a_local_description_wins(tmp_path: Path) -> None:
    write("yolo11.yaml", description("pose", scales={"n": [1, 1, 64]}))
    assert read_model_yaml("yolo11n.yaml", "--student").task == "pose"
    write("nets/mine11n.yaml", description(activation="nn.LeakyReLU(0.1)"))
    read = read_model_yaml("nets/mine11n.yaml", "--student")
    assert read.path == str(tmp_path / "nets/mine11n.yaml") and read.nc == 3


def test_descriptions_that_run_code() -> None:
    nested = "(" * 500 + "nn.SiLU()" + ")" * 500
    codes = ("__import__('os').system('touch mark')", "nn.SiLU", "nn.Foo()", "nn.SiLU(open('mark', 'w'))", nested, 7)
    for code in codes:
        assert "would be run as code" in student("m.yaml", description(activation=code))
    for layer in ("check_requirements", "DetectionModel", "nn.init", "torchvision.ops.nms", "Nonsense"):
        assert "is no layer" in student("m.yaml", description(backbone=[[-1, 1, layer, ["x"]]]))
    weights = ["x", "resnet18", "DEFAULT"]
    assert "downloads the weights" in student("m.yaml", description(backbone=[[-1, 1, "TorchVision", weights]]))
    assert not Path("mark").exists()
    for kind in ("nn.SiLU()", "torch.nn.LeakyReLU(0.1)", "nn.ReLU(inplace=True)"):
        assert read_model_yaml(write("m.yaml", description(activation=kind)), "--student").task == "detect"
    write("m.yaml", description(activation="nn.SiLU() if True else 0"))
    assert read_model_yaml("m.yaml", "--student", trust=True).nc == 3


def test_descriptions_that_describe_nothing(tmp_path: Path) -> None:
    assert "nearest: 'yolo11-cls.yaml'" in student("yolo11-clz.yaml")
    assert "ends in .yaml" in student("yolo11n.pt") and "an address" in student("https://a.b/c.yaml")
    assert "not readable as YAML" in student("m.yaml", "a: [1") and "not readable as YAML" in student("m.yaml", "- 1")
    assert "no backbone" in student("m.yaml", "") and "no head" in student("m.yaml", description(head=None))
    assert "is not [from, repeats, layer" in student("m.yaml", description(head=[[-1, 1, "Conv"]]))
    assert "no 'kpt_shape'" in student("m.yaml", description("pose", kpt_shape=None))
    assert "'nc' (number of classes)" in student("m.yaml", description(nc="three"))
    assert "has no scale 's', only n" in student("yolo11s.yaml", description(scales={"n": [1, 1, 64]}))
    assert "cannot be built" in student("m.yaml", description(backbone=[[-1, 1, "Conv", ["wide"]]]))
    assert "ends in Conv" in student("m.yaml", description(head=[[-1, 1, "Conv", [8]]]))
    assert "YOLO-World" in student("m.yaml", description(head=[[[1, 2], 1, "WorldDetect", ["nc", 512, True]]]))
    (tmp_path / "folder.yaml").mkdir()
    assert "no such file" in student("folder.yaml")


def test_trying_a_description_leaves_random_numbers_and_activation_alone() -> None:
    write("m.yaml", description(activation="nn.ReLU()"))
    before, activation = torch.get_rng_state(), Conv.default_act
    read_model_yaml("m.yaml", "--student")
    assert torch.equal(before, torch.get_rng_state()) and Conv.default_act is activation
