"""`compile=True`: the compiled student is read as the plain one is, and stays a plain one in its files."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from torch._dynamo.utils import counters
from ultralytics.utils.torch_utils import unwrap_model

import distill
from distill.adapters.ultralytics.trainers import DistillationMixin
from distill.adapters.ultralytics.wrapper import DistillingModule

from .tiny import hooks, rows, strings_in, weights

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(shutil.which("gcc") is None and shutil.which("g++") is None, reason="inductor needs a compiler"),
]
Train = Callable[..., distill.TrainResult]


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What each training step gave: whether it was compiled, its losses and its pairs' cosines."""
    seen: list[dict[str, Any]] = []
    add = DistillingModule._add

    def added(self: DistillingModule, loss: Any, items: Any, step: Any, images: int) -> Any:
        total, logged = add(self, loss, items, step, images)
        seen.append(
            {
                "compiled": self.module is not unwrap_model(self.module),
                **{name: value.item() for name, value in logged.items()},
                **{name: value.item() for name, value in step.figures().items()},
                "gradients": all(feature.requires_grad for feature in step.features.values()),
            }
        )
        return total, logged

    monkeypatch.setattr(DistillingModule, "_add", added)
    return seen


def test_a_compiled_student_is_distilled_in_every_step(
    train: Train, teacher: Path, steps: list[dict[str, Any]], watched: dict[str, list[Any]], monkeypatch: Any
) -> None:
    still = {"teacher": teacher, "epochs": 2, "teacher_precision": "float32", "name": "a"}
    train(**{**still, "name": "eager"})
    eager = [step for step in steps if not step["compiled"]]
    steps.clear()
    counters.clear()
    result = train(**still, compile=True)
    compiled = [step for step in steps if step["compiled"]]
    print(dict(counters["frames"]), dict(counters["stats"]), dict(counters["graph_break"]), dict(counters["unimplemented"]))
    for s in compiled: print(s)
    print(eager[-4:])
    assert len(compiled) == 4
