"""`--cpu-bfloat16`: the training forward is in mixed precision on a CPU, everything else as it was."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from ultralytics.utils.torch_utils import unwrap_model

import distill
from distill.adapters.ultralytics.cpu import InBfloat16, check_cpu
from distill.errors import InputError
from distill.records import read_manifest, read_settings

from .tiny import hooks, network, rows, weights

Train = Callable[..., distill.TrainResult]
Watched = dict[str, list[Any]]


@pytest.mark.parametrize("way", ["plain", "distilled", "native"])
def test_convolutions_run_in_bfloat16_and_what_is_kept_is_float32(
    way: str, train: Train, teacher: Path, on: Any, watched: Watched
) -> None:
    seen: list[Any] = []

    def look(trainer: Any) -> None:
        student = unwrap_model(trainer.model)
        student = getattr(student, "student_model", student)
        student.model[0].conv.register_forward_hook(lambda _, i, out: seen.append((out.dtype, i[0].stride(1))))

    on("on_train_start", look)
    ways: dict[str, dict[str, Any]] = {
        "plain": {"teacher": None},
        "distilled": {"teacher": teacher},
        "native": {"teacher": None, "distill_model": str(teacher)},
    }
    result = train(**ways[way], cpu_bfloat16=True)
    assert {dtype for dtype, _ in seen} >= {torch.bfloat16} and (torch.bfloat16, 1) in seen  # channels_last: stride 1
    (trainer,) = watched["on_train_end"]
    assert all(p.dtype == torch.float32 for p in unwrap_model(trainer.model).parameters())
    assert not isinstance(trainer.model, InBfloat16)  # the wrapper is gone
    assert all(torch.isfinite(value).all() for value in weights(result.last).values())
    assert read_settings(result.folder)["cpu_bfloat16"] is True
    if way == "distilled":
        assert rows(result.table)[0]["train/at_loss"] > 0
        assert read_manifest(result.folder)["before"]["step_ratio"] > 0


def test_it_trains_nearly_what_float32_trains(train: Train, teacher: Path) -> None:
    low, full = (rows(train(teacher=teacher, cpu_bfloat16=flag, name=str(flag)).table)[0] for flag in (True, False))
    for name in ("train/box_loss", "train/cls_loss", "train/at_P3"):
        assert low[name] == pytest.approx(full[name], rel=0.05) and low[name] != full[name]


def test_a_copy_is_the_network_alone_and_evaluation_passes_through() -> None:
    model: Any = network("yolo11n.yaml")
    wrapped = InBfloat16(model)
    copied = deepcopy(wrapped)
    assert type(copied) is type(model) and hooks(copied) == []
    images = torch.rand(1, 3, 64, 64)
    model.eval()
    wrapped.eval()
    assert torch.equal(wrapped(images)[0], model(images)[0])


def test_other_devices_and_several_processes_are_refused() -> None:
    def trainer(device: str, world: int) -> Any:
        return SimpleNamespace(own={"cpu_bfloat16": True}, device=torch.device(device), world_size=world)

    check_cpu(trainer("cpu", 1))
    with pytest.raises(InputError, match="--cpu-bfloat16 on cuda: .* amp="):
        check_cpu(trainer("cuda", 1))
    with pytest.raises(InputError, match="in one process"):
        check_cpu(trainer("cpu", 2))
