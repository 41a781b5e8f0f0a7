"""`--init best`: both starts are trained for some steps, and the one that comes of it better is taken."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from ultralytics.nn import tasks
from ultralytics.nn.tasks import load_checkpoint

import distill
from distill.adapters.ultralytics import fitting, racing, sprints
from distill.adapters.ultralytics.racing import best_of, race, task_loss
from distill.adapters.ultralytics.sprints import steps_of
from distill.adapters.ultralytics.views import spread, training_images
from distill.networks.fitting import Solved

from .test_matrix import TASKS
from .tiny import rows, same

Train = Callable[..., distill.TrainResult]
Checkpoint = Callable[..., Path]
On = Callable[[str, Callable[[Any], None]], None]


# ---- starts of known worth


@pytest.mark.parametrize("better", ["own", "fitted"])
def test_the_start_that_knows_the_data_is_taken(
    better: str,
    train: Train,
    teacher: Path,
    starts: list[dict[str, Tensor]],
    caplog: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One of both has learned the images, the other has the same weights in another order."""
    learned = train(epochs=25, optimizer="AdamW", lr0=0.003, val=False).last
    network = load_checkpoint(learned)[0].float()
    spoiled = deepcopy(network)
    for module in spoiled.modules():
        if isinstance(module, nn.Conv2d) and module.kernel_size == (3, 3):
            weight = module.weight.data
            module.weight.data = weight.flatten()[torch.randperm(weight.numel())].view_as(weight)
    own, fitted = (network, spoiled) if better == "own" else (spoiled, network)

    def made(student: Any, *_: Any) -> tuple[Any, dict[str, Solved]]:
        copy = deepcopy(student)
        copy.load_state_dict(fitted.state_dict())
        return copy, {"all": Solved(0.5, 1.0, 1.0)}

    monkeypatch.setattr(fitting, "_fitted", made)
    file = learned.with_name("own.pt")
    torch.save({"model": own}, file)
    result = train(teacher=teacher, student=file, init="best")
    assert same(starts[-1], dict(network.state_dict()))
    found = result.manifest["initialised"]
    other = {"own": "fitted", "fitted": "own"}[better]
    assert found["start"] == better and found["losses"][better] < found["losses"][other]
    assert found["raced_steps"] == 8 and found["raced_seconds"] > 0
    what = "kept" if better == "own" else "replaced"
    assert f"first weights: your student's weights were {what}: loss after 8 steps of training" in caplog.text


@pytest.mark.parametrize("task", [task for task in TASKS if task != "detect"])
def test_in_every_task_starts_are_made_and_raced(
    task: str, data: dict[str, Path], checkpoint: Checkpoint, train: Train
) -> None:
    """Whatever a head gives: a start is taken by its loss, and the run goes on from there."""
    yaml, _, nc, keys, _ = TASKS[task]
    scaled = {**tasks.yaml_model_load(yaml), **keys}
    student, teacher = (
        checkpoint({**scaled, "scale": scale}, task, name=f"{task}-{scale}", nc=nc, seed=seed)
        for scale, seed in (("n", 0), ("s", 1))
    )
    result = train(teacher=teacher, student=student, data=data[task], init="best")
    losses = result.manifest["initialised"]["losses"]
    assert list(losses) == ["fitted", "own"]
    assert all(0 < loss < float("inf") for loss in losses.values())
    assert rows(result.table)[0]["train/at_loss"] > 0


# ---- the race itself


def test_it_leaves_the_starts_alone_and_gives_the_same_again(train: Train, teacher: Path, on: On) -> None:
    seen: list[tuple[dict[str, float], int]] = []

    def look(trainer: Any) -> None:
        student = fitting.student_of(trainer)
        before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        seen.extend(race(trainer, {"one": student, "two": student}, seed=3) for _ in range(2))
        assert same(before, student.state_dict()) and all(p.grad is None for p in student.parameters())

    on("on_train_start", look)
    train(teacher=teacher)
    (losses, steps), again = seen
    assert losses["one"] == losses["two"] > 0 and (losses, steps) == again and steps == 8


def test_nobody_is_judged_on_what_was_trained_on(
    train: Train, teacher: Path, student: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Neither by the fit nor by the race."""
    seen: list[list[int]] = []

    def noted(trainer: Any, numbers: list[int], *size: int) -> Any:
        seen.append(list(numbers))
        return training_images(trainer, numbers, *size)

    monkeypatch.setattr(racing, "training_images", noted)
    monkeypatch.setattr(sprints, "training_images", noted)
    monkeypatch.setattr(fitting, "training_images", noted)
    file = train(student=student).last
    train(teacher=teacher, student=file, init="best")
    fitted, judged, *trained = seen
    assert set(judged) == {0, 4} and set(fitted) == {1, 2, 3, 5, 6, 7} >= set(trained[0])
    assert trained[0] == trained[1] and len(trained[0]) == 8 * 4  # eight steps of the run's batches


def test_a_race_takes_a_small_part_of_a_run() -> None:
    def steps(epochs: int, batches: int) -> int:
        return steps_of(SimpleNamespace(epochs=epochs, train_loader=range(batches)))

    assert steps(4, 100) == 8 and steps(500, 2) == 20 and steps(1000, 1000) == 100
    assert 2 * steps(1, 400) <= 0.05 * 400
    assert spread(range(3), 5) == [0, 1, 2, 0, 1]


def test_the_loss_that_decides_is_the_tasks_own_and_changes_nothing(teacher: Path, train: Train, on: On) -> None:
    seen: list[float] = []

    def look(trainer: Any) -> None:
        student = fitting.student_of(trainer)
        before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
        batches = list(training_images(trainer, range(8)))
        seen.extend(task_loss(student, batches, trainer.per_image) for _ in range(2))
        assert same(before, student.state_dict()) and student.training

    on("on_train_epoch_start", look)
    train(teacher=teacher)
    assert seen[0] == seen[1] > 0


NAN = float("nan")


@pytest.mark.parametrize(
    ("losses", "best"),
    [
        ((2.0, 4.0), "fitted"),
        ((2.0, 2.0), "own"),
        ((1.995, 2.0), "own"),
        ((-1.0, -1.0), "own"),
        ((-1.5, -1.0), "fitted"),
        ((NAN, 3.0), "own"),
        ((2.0, NAN), "fitted"),
        ((NAN, NAN), "own"),
    ],
)
def test_its_own_weights_win_a_tie_and_what_is_no_number_never(losses: tuple[float, ...], best: str) -> None:
    assert best_of(dict(zip(("fitted", "own"), losses, strict=True))) == best
