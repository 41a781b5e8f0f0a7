"""What the tests of the Ultralytics adapter share: tiny data, tiny checkpoints, runs, and a look inside a trainer.

Fixtures (session: made once per process, never to be changed; copy what a test wants to spoil):

    scenes        session   data.yaml: 8 + 4 images of 64 px, six classes, polygons; detect, segment and semantic use it
    data          session   data["pose"]: path of the data for each task; a folder for classify
    checkpoint    session   checkpoint("yolo11n.yaml", nc=6, name=...) -> path of an untrained .pt, made at most once
    teacher       session   the .pt of an untrained YOLO11n on the six classes, the default teacher of most tests
    tiny          function  a fresh dict of the arguments that keep a run to a second: epochs=1 imgsz=64 batch=4 ...
    train         function  train(student=..., teacher=..., **more) = distill.train on `scenes` with `tiny`, in a folder
                            of the test's own (project=tmp_path/"runs"), which is also the working folder
    watched       function  events of every trainer in this process: watched["on_train_end"] lists (trainer, notes)

Functions:

    rows(path)              results.csv as a list of {column: float}
    weights(path)           the state_dict of a checkpoint's network, float32, through Ultralytics' own loader
    hooks(module)           names of the submodules that carry a forward or backward hook
    globals_in(path)        module names of every global that a .pt file's pickle names

Datasets lie in a folder of this process: Ultralytics writes its label caches beside the labels, without a lock.
"""

from __future__ import annotations

import csv
import pickletools
import shutil
import zipfile
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.utils import YAML, callbacks

import distill
from distill.scenes import CLASSES, SPLITS, write_scenes

PICO = str(Path(__file__).resolve().parents[2] / "configs" / "models" / "yolo11-pico.yaml")
NETWORKS = {
    "detect": tasks.DetectionModel,
    "segment": tasks.SegmentationModel,
    "pose": tasks.PoseModel,
    "obb": tasks.OBBModel,
    "semantic": tasks.SemanticSegmentationModel,
    "classify": tasks.ClassificationModel,
    "rtdetr": tasks.RTDETRDetectionModel,
}


# ---- data


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", train=8, val=4, size=64)


@pytest.fixture(scope="session")
def data(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    return {
        **dict.fromkeys(("detect", "segment", "semantic"), scenes),
        "pose": _relabelled(scenes, folder / "pose", _key_points, kpt_shape=[4, 3]),
        "obb": _relabelled(scenes, folder / "obb", _turned_box),
        "classify": _crops(scenes, folder / "classify"),
    }


def _relabelled(scenes: Path, folder: Path, label: Callable[[np.ndarray], np.ndarray], **keys: Any) -> Path:
    """The scenes with other numbers behind each class: `label(polygon (K, 2))`, both in parts of the image."""
    shutil.copytree(scenes.parent / "images", folder / "images")
    for split in SPLITS:
        (folder / "labels" / split).mkdir(parents=True)
        for file in (scenes.parent / "labels" / split).glob("*.txt"):
            lines = []
            for kind, *numbers in map(str.split, file.read_text().splitlines()):
                values = label(np.array(numbers, float).reshape(-1, 2))
                lines.append(" ".join([kind, *(f"{value:.6f}" for value in values.ravel())]))
            (folder / "labels" / split / file.name).write_text("\n".join(lines) + "\n")
    YAML.save(folder / "data.yaml", {**YAML.load(scenes), **keys})
    return folder / "data.yaml"


def _key_points(polygon: np.ndarray) -> np.ndarray:
    """The box, then its outline's four extreme points, each with a 2 for "visible"."""
    low, high = polygon.min(0), polygon.max(0)
    ends = polygon[[*polygon.argmin(0), *polygon.argmax(0)]]  # (4, 2)
    return np.concatenate([(low + high) / 2, high - low, np.c_[ends, np.full(4, 2)].ravel()])


def _turned_box(polygon: np.ndarray) -> np.ndarray:
    return cv2.boxPoints(cv2.minAreaRect(polygon.astype(np.float32))).clip(0, 1)  # (4, 2)


def _crops(scenes: Path, folder: Path) -> Path:
    """One image per object, cut out along its box, in a folder named after its class; two classes are enough."""
    for split in SPLITS:
        for file in sorted((scenes.parent / "labels" / split).glob("*.txt")):
            image = cv2.imread(str(scenes.parent / "images" / split / f"{file.stem}.png"))
            for number, (kind, *numbers) in enumerate(map(str.split, file.read_text().splitlines())):
                polygon = np.array(numbers, float).reshape(-1, 2) * 64
                (x1, y1), (x2, y2) = polygon.min(0).astype(int), polygon.max(0).astype(int)
                into = folder / split / ("round" if CLASSES[int(kind)] in ("disc", "moon") else "pointed")
                into.mkdir(parents=True, exist_ok=True)
                cv2.imwrite(str(into / f"{file.stem}-{number}.png"), image[y1:y2, x1:x2])
    return folder


# ---- networks


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("checkpoints")

    def make(yaml: str | dict, task: str = "detect", nc: int = 6, name: str | None = None, **keys: Any) -> Path:
        """An untrained network as `torch.save({"model": m})`; `keys` change its yaml (kpt_shape=[4, 3])."""
        stem = name or "-".join([Path(yaml).stem, task, str(nc), *map(str, keys.values())])
        file = folder / f"{stem}.pt"
        if not file.exists():
            with torch.random.fork_rng():
                torch.manual_seed(len(stem))
                description = {**(tasks.yaml_model_load(yaml) if isinstance(yaml, str) else yaml), **keys}
                model = NETWORKS[task](description, nc=nc, verbose=False)
            model.names = dict(enumerate(CLASSES[:nc])) if nc <= 6 else {i: f"class {i}" for i in range(nc)}
            torch.save({"model": model}, file)
        return file

    return make


@pytest.fixture(scope="session")
def teacher(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint("yolo11n.yaml")


# ---- runs


@pytest.fixture
def tiny() -> dict[str, Any]:
    return {"epochs": 1, "imgsz": 64, "batch": 4, "workers": 0, "plots": False, "device": "cpu"}


@pytest.fixture
def train(
    scenes: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., distill.TrainResult]:
    monkeypatch.chdir(tmp_path)

    def run(**more: Any) -> distill.TrainResult:
        return distill.train(**{"student": PICO, "data": str(scenes), "project": str(tmp_path / "runs"), **tiny, **more})

    return run


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[Any]]:
    """Events of every trainer: for each name, in order, the trainer that ran it."""
    seen: dict[str, list[Any]] = defaultdict(list)

    def watcher(event: str) -> Callable[[Any], None]:
        return lambda trainer: seen[event].append(trainer)

    for event, known in callbacks.default_callbacks.items():
        monkeypatch.setitem(callbacks.default_callbacks, event, [*known, watcher(event)])
    return seen


# ---- looking inside


def rows(table: Path) -> list[dict[str, float]]:
    with open(table, encoding="utf-8", newline="") as file:
        return [{key.strip(): float(value) for key, value in row.items()} for row in csv.DictReader(file)]


def weights(file: Path) -> dict[str, torch.Tensor]:
    return tasks.load_checkpoint(file)[0].float().state_dict()


def hooks(module: nn.Module) -> list[str]:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return [name for name, part in module.named_modules() if any(getattr(part, kind) for kind in kinds)]


def globals_in(file: Path) -> set[str]:
    """Names ("package.module") are pushed as strings before STACK_GLOBAL, or stand in GLOBAL: all strings are looked at."""
    with zipfile.ZipFile(file) as archive:
        pickled = archive.read(next(name for name in archive.namelist() if name.endswith("/data.pkl")))
    return {
        str(argument).split(" ")[0]
        for operation, argument, _ in pickletools.genops(pickled)
        if operation.name == "GLOBAL" or (isinstance(argument, str) and "UNICODE" in operation.name)
    }
