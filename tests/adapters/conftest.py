"""Fixtures for tests that run the Ultralytics adapter; what they are made of is in tiny.py.

    scenes      session   data.yaml: 8 + 4 images of 64 px, six classes, polygons; for detect, segment and semantic
    data        session   data["pose"]: the data of each task (a folder for classify, with two classes)
    checkpoint  session   checkpoint("yolo11n.yaml") -> path of an untrained .pt, made once; checkpoint(micro(3)) too
    student     session   micro.yaml, the default student: nine layers, a run takes about a second
    teacher     session   micro-teacher.pt: untrained, twice as wide
    train       function  train(teacher=..., **more): `distill.train` of the student on the scenes, tiny, in a folder of
                          the test's own, which becomes the working folder; runs go to tmp_path / "runs"
    tiny        function  the arguments that make it tiny: epochs=1 imgsz=64 batch=4, two steps with mosaic
    on          function  on("on_train_batch_end", f): f(trainer) at this event of every trainer
    watched     function  watched["on_train_end"]: the trainers that ran this event ("on_val_end": the validators)

What is made once per session must not be changed: copy it. It lies in a folder of this process alone, for Ultralytics
writes its label caches beside the labels, without a lock.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.utils import YAML, callbacks

import distill
from distill.adapters.ultralytics import fitting, racing, trying
from distill.adapters.ultralytics.session import Session
from distill.adapters.ultralytics.trainers import DistillationMixin
from distill.scenes import write_scenes

from .tiny import crops, key_points, micro, network, relabelled, turned_box


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_scenes(tmp_path_factory.mktemp("data") / "scenes", train=8, val=4, size=64)


@pytest.fixture(scope="session")
def data(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("tasks")
    return {
        **dict.fromkeys(("detect", "segment", "semantic"), scenes),
        "pose": relabelled(scenes, folder / "pose", key_points, kpt_shape=[4, 3]),
        "obb": relabelled(scenes, folder / "obb", turned_box),
        "classify": crops(scenes, folder / "classify"),
    }


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    folder = tmp_path_factory.mktemp("checkpoints")
    made: dict[str, Path] = {}

    def make(yaml: str | dict[str, Any], task: str = "detect", name: str | None = None, **keys: Any) -> Path:
        what = repr((yaml, task, name, keys))
        if what not in made:
            stem = name or (Path(yaml).stem if isinstance(yaml, str) else "micro")
            made[what] = folder / str(len(made)) / f"{stem}.pt"
            made[what].parent.mkdir()
            torch.save({"model": network(yaml, task, **keys)}, made[what])
        return made[what]

    return make


@pytest.fixture(scope="session")
def student(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("models") / "micro.yaml"
    YAML.save(file, micro())
    return file


@pytest.fixture(scope="session")
def teacher(checkpoint: Callable[..., Path]) -> Path:
    return checkpoint(micro(2), name="micro-teacher", seed=1)


@pytest.fixture(autouse=True)
def few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """A fit takes more images than a tiny test needs, and doctor's trial more steps."""
    monkeypatch.setattr(fitting, "IMAGES", (16, 32))
    monkeypatch.setattr(racing, "JUDGES", 16)
    monkeypatch.setattr(trying, "LONGER", 8)


@pytest.fixture
def tiny() -> dict[str, Any]:
    # by default so short a run has no mosaic, and its only optimizer step, amid the warm-up, a learning rate of zero
    return {
        "epochs": 1,
        "imgsz": 64,
        "batch": 4,
        "nbs": 4,
        "warmup_epochs": 0,
        "close_mosaic": 0,
        "workers": 0,
        "plots": False,
        "device": "cpu",
    }


@pytest.fixture
def train(
    scenes: Path, student: Path, tiny: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., distill.TrainResult]:
    monkeypatch.chdir(tmp_path)
    always = {"student": str(student), "data": str(scenes), "project": str(tmp_path / "runs"), **tiny}
    always |= {"init": "none", "response": "none"}  # attention alone, from the weights that a run without teacher has
    always["teacher_precision"] = "float32"  # "auto" takes the faster one, so that two runs may differ in the last bits

    def run(**more: Any) -> distill.TrainResult:
        return distill.train(**{**always, **{k: str(v) if isinstance(v, Path) else v for k, v in more.items()}})

    return run


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, torch.Tensor]]:
    """The state of each trainer's student when its session begins, before the first step."""
    seen: list[dict[str, torch.Tensor]] = []
    begin = Session.begin

    def began(trainer: Any) -> Session:
        seen.append({name: tensor.detach().clone() for name, tensor in trainer.model.state_dict().items()})
        return begin(trainer)

    monkeypatch.setattr(Session, "begin", began)
    return seen


@pytest.fixture
def cut_off(monkeypatch: pytest.MonkeyPatch) -> Callable[[Callable[[], Any]], None]:
    """Runs a training that dies in its second epoch."""
    train_mode = DistillationMixin._model_train

    def run(training: Callable[[], Any]) -> None:
        epochs = 0

        def stop(self: Any) -> None:
            nonlocal epochs
            epochs += 1
            if epochs == 2:
                raise ZeroDivisionError
            train_mode(self)

        with monkeypatch.context() as stopping:
            stopping.setattr(DistillationMixin, "_model_train", stop)
            with pytest.raises(ZeroDivisionError):
                training()

    return run


@pytest.fixture
def on(monkeypatch: pytest.MonkeyPatch) -> Callable[[str, Callable[[Any], None]], None]:
    known = callbacks.base.default_callbacks  # the one that trainers copy; `callbacks.default_callbacks` gets replaced

    def add(event: str, function: Callable[[Any], None]) -> None:
        monkeypatch.setitem(known, event, [*known[event], function])

    return add


@pytest.fixture
def watched(on: Callable[[str, Callable[[Any], None]], None]) -> dict[str, list[Any]]:
    seen: dict[str, list[Any]] = defaultdict(list)
    for event in callbacks.base.default_callbacks:
        on(event, lambda who, event=event: seen[event].append(who))
    return seen


class Died(BaseException):
    """As a kill: nothing is tidied up."""


@pytest.fixture
def die_once(on: Callable[[str, Callable[[Any], None]], None]) -> type[BaseException]:
    """The first epoch to begin dies, before any checkpoint, with the exception that is returned."""
    deaths = iter([Died()])

    def die(_: Any) -> None:
        for death in deaths:
            raise death

    on("on_train_epoch_start", die)
    return Died
