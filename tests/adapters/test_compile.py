"""`compile=True`: the compiled student is read as the plain one is, and stays a plain one in its files.

What could go wrong lies in the tracing, which is the same whatever makes code of the graph. So most tests have the
graph run operation by operation; one takes Ultralytics' own choice, which compiles C++ for minutes.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch._dynamo.utils import counters
from ultralytics.nn import tasks
from ultralytics.utils.torch_utils import unwrap_model

import distill
from distill.adapters.ultralytics.wrapper import DistillingModule

from .tiny import hooks, rows, strings_in, weights

Train = Callable[..., distill.TrainResult]
Watched = dict[str, list[Any]]
LOSSES = ("at_P3", "at_P4", "at_P5")


class Step(dict[str, float]):
    """A step's losses and figures; whether the student was compiled, how many images it saw."""

    compiled: bool
    images: int


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[Step]:
    """Every step of training, and of what is timed before it."""
    seen: list[Step] = []
    add = DistillingModule._add

    def added(self: DistillingModule, loss: Any, items: Any, step: Any, images: int) -> Any:
        total, logged = add(self, loss, items, step, images)
        assert all(feature.requires_grad for feature in step.features.values())
        seen.append(Step({name: value.item() for name, value in {**logged, **step.figures()}.items()}))
        seen[-1].compiled, seen[-1].images = self.module is not unwrap_model(self.module), images
        return total, logged

    monkeypatch.setattr(DistillingModule, "_add", added)
    return seen


@pytest.fixture(autouse=True)
def fresh(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv("TORCHINDUCTOR_CACHE_DIR", str(tmp_path / "inductor"))
    torch._dynamo.reset()
    counters.clear()
    yield
    torch._dynamo.reset()


@pytest.fixture
def traced(monkeypatch: pytest.MonkeyPatch) -> None:
    """Dynamo and autograd trace, nothing is compiled."""
    original = torch.compile
    monkeypatch.setattr(torch, "compile", lambda model, **_: original(model, backend="aot_eager"))


def check_compiled(train: Train, teacher: Path, steps: list[Step], watched: Watched) -> None:
    still = {"teacher": teacher, "epochs": 2, "teacher_precision": "float32"}
    train(**still, name="eager")
    eager = [step for step in steps if not step.compiled][-4:]
    steps.clear()
    counters.clear()
    result = train(**still, name="compiled", compile=True)
    compiled = [step for step in steps if step.compiled]

    assert len(compiled) == 4  # two epochs of two steps
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]  # traced once, with its hooks
    assert all(step[name] > 0 for step in compiled for name in LOSSES)
    assert len({step["at_P3"] for step in compiled}) == 4  # not the first step's over and over
    assert compiled[0] == pytest.approx(eager[0], rel=1e-4)  # later ones drift apart: the sums have another order
    assert compiled[1] == pytest.approx(eager[1], rel=1e-2)
    for row in rows(result.table):
        assert all(row[f"train/{name}"] > 0 for name in ("at_loss", *LOSSES, "cos_P3"))

    trainer = watched["on_train_end"][-1]
    assert trainer.args.compile is True and type(trainer.model).__name__ == "OptimizedModule"
    assert type(unwrap_model(trainer.model)) is type(trainer.ema.ema) is tasks.DetectionModel
    assert not hooks(unwrap_model(trainer.model)) and not hooks(trainer.ema.ema)
    assert yaml.safe_load((result.folder / "args.yaml").read_text())["compile"] is True
    for file in (result.best, result.last):
        content = torch.load(file, weights_only=False)
        assert content["train_args"]["compile"] is True and content["model"].args["compile"] is True
        assert weights(file).keys() == trainer.ema.ema.state_dict().keys()
        assert not [text for text in strings_in(file) if text.startswith("distill.") or "dynamo" in text]


def test_a_traced_student_is_distilled_in_every_step(
    traced: None, train: Train, teacher: Path, steps: list[Step], watched: Watched
) -> None:
    check_compiled(train, teacher, steps, watched)


@pytest.mark.slow
@pytest.mark.skipif(not (shutil.which("g++") or shutil.which("clang++")), reason="needs a C++ compiler")
def test_a_compiled_student_is_distilled_in_every_step(
    train: Train, teacher: Path, steps: list[Step], watched: Watched
) -> None:
    check_compiled(train, teacher, steps, watched)


@pytest.mark.slow
def test_a_compiled_run_goes_on_compiled(
    traced: None, train: Train, teacher: Path, steps: list[Step], cut_off: Callable[..., None], tmp_path: Path
) -> None:
    cut_off(lambda: train(teacher=teacher, epochs=2, compile=True, name="a"))
    folder = tmp_path / "runs" / "a"
    assert torch.load(folder / "weights/last.pt", weights_only=False)["train_args"]["compile"] is True
    steps.clear()
    torch._dynamo.reset()
    result = distill.resume(folder)
    assert sum(step.compiled for step in steps) == 2
    assert [row["epoch"] for row in rows(result.table)] == [1, 2]
    assert all(row["train/at_P3"] > 0 for row in rows(result.table))


@pytest.mark.slow
def test_another_batch_size_is_traced_again_with_its_hooks(
    traced: None, train: Train, teacher: Path, steps: list[Step], monkeypatch: pytest.MonkeyPatch
) -> None:
    """After memory ran out. Batches that are not full are dropped, then too, as Ultralytics does for compiled ones."""
    loss, failed = tasks.BaseModel.loss, False

    def fail(self: Any, *args: Any) -> Any:
        nonlocal failed
        if not failed and any(step.compiled for step in steps):
            failed = True
            raise RuntimeError("CUDA out of memory")
        return loss(self, *args)

    monkeypatch.setattr(tasks.BaseModel, "loss", fail)
    result = train(teacher=teacher, batch=3, compile=True)
    compiled = [step for step in steps if step.compiled]
    assert failed and [step.images for step in compiled] == [3, *[1] * 8]
    assert all(step[name] > 0 for step in compiled for name in LOSSES)
    assert rows(result.table)[0]["train/at_loss"] > 0
