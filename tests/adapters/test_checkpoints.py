"""Checkpoints: what is read, and what is refused for what it is."""

from __future__ import annotations

import pickle
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import Conv
from ultralytics.nn.modules.head import Depth, WorldDetect, YOLOEDetect

from distill.adapters.ultralytics import checkpoints
from distill.adapters.ultralytics.inputs import read_checkpoint

from .kit import HEADS, network, refusal, teacher


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of three classes, as a run leaves it."""
    file = tmp_path_factory.mktemp("good") / "good.pt"
    model = tasks.DetectionModel("yolo11n.yaml", nc=3, verbose=False)
    model.names = {0: "cat", 1: "dog", 2: "cow"}
    torch.save({"epoch": 7, "model": model.half(), "ema": None, "train_args": {"imgsz": 64, "data": "x.yaml"}}, file)
    return file


# ---- read


def test_a_checkpoint(good: Path) -> None:
    read = read_checkpoint(str(good), "--teacher")
    assert (read.path, read.task, read.family, read.channels, read.nc) == (good, "detect", "yolo", 3, 3)
    assert read.names == {0: "cat", 1: "dog", 2: "cow"}
    assert not read.fused and not read.module.training
    assert {p.dtype for p in read.module.parameters()} == {torch.float32}
    assert read.raw == {"epoch": 7, "train_args": {"imgsz": 64, "data": "x.yaml"}}
    assert read.module.args["imgsz"] == 64 and "mosaic" in read.module.args
    with torch.no_grad():
        assert read.module(torch.zeros(1, 3, 64, 64)) is not None


@pytest.mark.parametrize("task", HEADS)
def test_every_kind(task: str, tmp_path: Path) -> None:
    torch.save({"model": network(task)}, tmp_path / "misleading-obb.pt")
    read = read_checkpoint(tmp_path / "misleading-obb.pt", "--teacher")
    assert (read.task, read.family) == (("detect", "rtdetr") if task == "rtdetr" else (task, "yolo"))
    assert read.nc == 3 and read.names[2] == "2"


def test_a_fused_one_says_so_and_the_ema_is_preferred(tmp_path: Path) -> None:
    torch.save({"model": network(), "ema": network("pose").fuse(verbose=False)}, tmp_path / "m.pt")
    read = read_checkpoint(tmp_path / "m.pt", "--teacher")
    assert read.fused and read.task == "pose"


def test_hooks_in_a_file_are_dropped_unless_trusted(tmp_path: Path) -> None:
    model = network()
    model.model[1].register_forward_hook(Conv(1, 1))
    torch.save({"model": model}, tmp_path / "hooked.pt")
    assert not read_checkpoint(tmp_path / "hooked.pt", "--teacher").module.model[1]._forward_hooks
    assert read_checkpoint(tmp_path / "hooked.pt", "--teacher", trust=True).module.model[1]._forward_hooks


def test_published_names_are_downloaded_by_ultralytics(good: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(checkpoints, "attempt_download_asset", lambda name: asked.append(name) or str(good))
    assert read_checkpoint("yolo11s.pt", "--teacher").path == good
    assert asked == ["yolo11s.pt"]
    assert "no such file" in teacher("folder/yolo11s.pt") and "no such file" in teacher("yolo99.pt")
    assert asked == ["yolo11s.pt"]


def test_without_a_network_a_download_fails_in_one_line() -> None:
    assert "download failed" in teacher("yolo11s.pt") and not list(Path().iterdir())


# ---- refused


@pytest.fixture
def clutter(tmp_path: Path, good: Path) -> Path:
    """One file of each thing that people give instead of a checkpoint."""
    whole = good.read_bytes()
    (tmp_path / "empty.pt").touch()
    (tmp_path / "truncated.pt").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "damaged.pt").write_bytes(whole.replace(b"ultralytics.nn.tasks", b"ultralytics\xff\xfe\x80", 1))
    (tmp_path / "text.pt").write_text("<html>not found</html>")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "plot.pt").write_bytes(pickle.dumps({"a": 1}))
    for name in ("export.onnx", "export.engine", "yolov5n.pt", "it's.pt"):
        (tmp_path / name).write_bytes(whole)
    model, weights = network(), network().state_dict()
    contents = {"list": [1, 2], "tensor": torch.zeros(3), "stateless": {"epoch": 3}}
    contents |= {"plain": {"model": nn.Conv2d(1, 1, 1)}, "weights": weights, "weights2": {"model": weights}}
    contents |= {"layers": {"model": nn.Sequential(nn.ReLU())}, "quantized": {"model": model, "modelopt": {"a": 1}}}
    for name, content in contents.items():
        torch.save(content, tmp_path / f"{name}.pt")
    torch.save({"model": model}, tmp_path / "old.pt", _use_new_zipfile_serialization=False)
    with pytest.warns(FutureWarning):
        torch.jit.save(torch.jit.script(nn.Conv2d(1, 1, 1)), tmp_path / "script.pt")
    (tmp_path / "run/weights").mkdir(parents=True)
    (tmp_path / "run/weights/best.pt").touch()
    return tmp_path


def test_what_is_no_checkpoint_is_named_for_what_it_is(clutter: Path) -> None:
    expected = {
        "empty.pt": "is empty",
        "truncated.pt": "truncated or damaged",
        "damaged.pt": "damaged",
        "text.pt": "not a PyTorch checkpoint",
        "notes.txt": "ends in .pt",
        "plot.pt": "old format",
        "old.pt": "old format",
        "export.onnx": "give the .pt",
        "export.engine": "give the .pt",
        "script.pt": "TorchScript",
        "list.pt": "not an Ultralytics checkpoint",
        "tensor.pt": "not an Ultralytics checkpoint",
        "stateless.pt": "holds no network",
        "plain.pt": "a Conv2d, not an Ultralytics network",
        "layers.pt": "a Sequential, not an Ultralytics network",
        "weights.pt": "state_dict",
        "weights2.pt": "state_dict",
        "quantized.pt": "modelopt",
        "run": "give the .pt file in it, weights/best.pt",
        "it's.pt": "rename the file",
        "wieghts.pt": "no such file; nearest: 'weights.pt'",
        "nowhere/best.pt": "no such file",
        "https://example.org/best.pt": "an address",
        "a\nb.pt": "no such file",
    }
    for name, words in expected.items():
        text = teacher(name)
        assert words in text and text.startswith("--teacher "), text
    assert refusal(lambda: read_checkpoint("empty.pt", "pretrained=")).startswith("pretrained=empty.pt: ")
    for name in ("empty.pt", "text.pt", "truncated.pt", "list.pt", "script.pt", "stateless.pt", "plain.pt"):
        teacher(name, trust=True)


def test_a_name_that_ultralytics_would_exchange(clutter: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It reads yolov5nu.pt where yolov5n.pt is asked for, unless there is a u somewhere in the path."""
    monkeypatch.setattr(checkpoints.os.path, "abspath", lambda path: f"/data/{path}")
    assert "would read /data/yolov5nu.pt instead" in teacher("yolov5n.pt")


def test_kinds_that_cannot_be_distilled(tmp_path: Path) -> None:
    for head, words in ((WorldDetect, "YOLO-World"), (YOLOEDetect, "YOLOE"), (Depth, "depth"), (Conv, "ends in Conv")):
        model = network()
        model.model[-1].__class__ = head
        torch.save({"model": model}, tmp_path / "m.pt")
        for trust in (False, True):
            assert words in teacher(tmp_path / "m.pt", trust)
    model = network()
    model.__class__ = tasks.WorldModel
    torch.save({"model": model}, tmp_path / "m.pt")
    assert "YOLO-World" in teacher(tmp_path / "m.pt")


def test_an_unfinished_native_distillation(tmp_path: Path) -> None:
    model = DistillationModel.__new__(DistillationModel)
    nn.Module.__init__(model)
    model._teacher_feats = model._student_feats = {}
    torch.save({"model": model}, tmp_path / "last.pt")
    assert "unfinished run of Ultralytics' own distillation" in teacher(tmp_path / "last.pt")
