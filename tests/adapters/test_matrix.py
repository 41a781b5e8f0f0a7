"""Every task, and teachers of every family: the losses are there, they train, and what is left is plain Ultralytics."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.models.rtdetr.val import RTDETRValidator
from ultralytics.nn import tasks
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import unwrap_model

from distill import TrainResult
from distill.adapters.ultralytics import rehearsal
from distill.adapters.ultralytics.wrapper import DistillingModule

from .tiny import NETWORKS, PICO, RTDETR, hooks, micro, pairs_of, rows, strings_in

Train = Callable[..., TrainResult]
Checkpoint = Callable[..., Path]
Watched = dict[str, list[Any]]

TASKS = {  # student and teacher, classes, changes to the teacher's yaml, pairs
    "detect": (PICO, "yolo11n.yaml", 6, {}, ["P3", "P4", "P5"]),
    "segment": ("yolo11n-seg.yaml", "yolo11n-seg.yaml", 6, {}, ["P3", "P4", "P5"]),
    "pose": ("yolo11n-pose.yaml", "yolo11n-pose.yaml", 6, {"kpt_shape": [4, 3]}, ["P3", "P4", "P5"]),
    "obb": ("yolo11n-obb.yaml", "yolo11n-obb.yaml", 6, {}, ["P3", "P4", "P5"]),
    "semantic": ("yolo26n-sem.yaml", "yolo26n-sem.yaml", 7, {}, ["P3", "P4"]),  # 7: with the background
    "classify": ("yolo11n-cls.yaml", "yolo11n-cls.yaml", 2, {}, ["P5"]),
}
FAMILIES = {
    "yolov8n.yaml": ["model.15", "model.18", "model.21"],
    "yolo11n.yaml": ["model.16", "model.19", "model.22"],
    "yolo12n.yaml": ["model.14", "model.17", "model.20"],
    "yolo26n.yaml": ["model.16", "model.19", "model.22"],
    "yolov8n-rtdetr.yaml": ["model.15", "model.18", "model.21"],
}


def check_run(result: TrainResult, kind: type[nn.Module], pairs: list[str], seen: Watched) -> None:
    """What every distilling run must show."""
    assert [pair["name"] for pair in pairs_of(result.manifest)] == pairs
    (row,) = rows(result.table)
    for pair in pairs:
        assert row[f"train/at_{pair}"] > 0
        assert 0 < row[f"train/cos_{pair}"] < 1
        assert 0 < result.cosines_before[pair] < 1.0001 and 0 < result.cosines[pair] < 1 and result.distances[pair] > 0
    together = sum(row[f"train/at_{pair}"] for pair in pairs)
    assert row["train/at_loss"] == pytest.approx(
        together, rel=1e-3, abs=1e-5 * (len(pairs) + 1)
    )  # columns have 5 places
    assert not [column for column in row if column.startswith("val/at_")]
    assert 0 < result.manifest["weights"]["attention"] < float("inf")
    for file in (result.best, result.last):
        model = tasks.load_checkpoint(file)[0]
        assert type(model) is kind
        assert not hooks(model)
        assert not [text for text in strings_in(file) if text.split(".")[0] == "distill"]
    (trainer,) = seen["on_train_end"]
    assert type(trainer.model) is type(trainer.ema.ema) is kind
    assert not hooks(trainer.model) and not hooks(trainer.ema.ema)


def check_scale(trainer: Any) -> None:
    """Ours is multiplied by the batch size exactly where the task multiplies its own, which its logged items show."""
    batch = rehearsal.training_batches(trainer)[0]
    images = batch["img"].shape[0]
    student = rehearsal.student_copy(trainer)
    factors = []
    with torch.no_grad():
        for data in (batch, doubled(batch)):
            loss, items = student(data)
            factors.append(loss.sum().item() / sum(item.item() for item in items.values()))
    assert factors[1] / factors[0] == pytest.approx(2 if trainer.per_image else 1, rel=0.2)  # RT-DETR draws queries
    wrapped = DistillingModule(student, trainer.session.distiller, trainer.per_image)
    loss, items = wrapped(batch)
    assert loss[-1].item() == pytest.approx(items["at_loss"].item() * (images if trainer.per_image else 1), rel=1e-5)


def doubled(batch: dict[str, Any]) -> dict[str, Any]:
    """A batch in which every image comes twice."""
    twice = {
        key: torch.cat([value, value]) if torch.is_tensor(value) else [*value, *value] for key, value in batch.items()
    }
    if "batch_idx" in batch:
        twice["batch_idx"] = torch.cat([batch["batch_idx"], batch["batch_idx"] + len(batch["img"])])
    return twice


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str, data: dict[str, Path], checkpoint: Checkpoint, train: Train, watched: Watched) -> None:
    student, teacher, nc, keys, pairs = TASKS[task]
    file = checkpoint(teacher, task, nc=nc, **keys)
    result = train(teacher=file, student=student, data=data[task])
    check_run(result, NETWORKS[task], pairs, watched)
    check_scale(watched["on_train_end"][0])


def test_rtdetr_as_student(teacher: Path, train: Train, watched: Watched, tmp_path: Path) -> None:
    YAML.save(tmp_path / "micro-rtdetr.yaml", micro(head=RTDETR))
    result = train(teacher=teacher, student=tmp_path / "micro-rtdetr.yaml")
    check_run(result, tasks.RTDETRDetectionModel, ["P3", "P4", "P5"], watched)
    check_scale(watched["on_train_end"][0])


@pytest.mark.slow
def test_the_full_rtdetr_as_student_and_teacher(checkpoint: Checkpoint, train: Train, watched: Watched) -> None:
    result = train(teacher=checkpoint("rtdetr-l.yaml", "rtdetr", seed=1), student="rtdetr-l.yaml")
    check_run(result, tasks.RTDETRDetectionModel, ["P3", "P4", "P5"], watched)
    assert [pair["teacher"] for pair in pairs_of(result.manifest)] == ["model.21", "model.24", "model.27"]


def test_an_end_to_end_head_as_student(teacher: Path, train: Train, watched: Watched, tmp_path: Path) -> None:
    YAML.save(tmp_path / "micro-26.yaml", {**micro(), "end2end": True, "reg_max": 1})  # as YOLO26 has it
    result = train(teacher=teacher, student=tmp_path / "micro-26.yaml")
    check_run(result, tasks.DetectionModel, ["P3", "P4", "P5"], watched)
    check_scale(watched["on_train_end"][0])
    assert hasattr(tasks.load_checkpoint(result.best)[0].model[-1], "one2one_cv2")


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_as_teacher(family: str, checkpoint: Checkpoint, train: Train, watched: Watched) -> None:
    rtdetr = "rtdetr" in family
    result = train(teacher=checkpoint(family, "rtdetr" if rtdetr else "detect"), student=PICO)
    check_run(result, tasks.DetectionModel, ["P3", "P4", "P5"], watched)
    assert [pair["teacher"] for pair in pairs_of(result.manifest)] == FAMILIES[family]
    # the teacher is judged by its own family's validator: the other one would misread its boxes
    assert [isinstance(validator, RTDETRValidator) for validator in watched["on_val_end"]].count(True) == rtdetr
    assert "metrics/mAP50-95(B)" in result.manifest["before"]["teacher"]["metrics"]
    assert unwrap_model(watched["on_train_end"][0].model) is watched["on_train_end"][0].model
