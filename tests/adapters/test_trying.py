"""`--features auto`: a trained student is taught features where a short trial speaks for them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from ultralytics.utils.torch_utils import unwrap_model

import distill
from distill.adapters.ultralytics import fitting, sprints, trying
from distill.adapters.ultralytics.plan import plan
from distill.adapters.ultralytics.rehearsal import student_copy
from distill.adapters.ultralytics.sprints import drawn, sprint
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.attention.taps import Taps
from distill.config import settings_from
from distill.errors import InputError, ProofFailed, SilentTapError
from distill.proof import Check
from distill.records import read_manifest, read_settings
from distill.trial import Trial

from .tiny import micro, pairs_of, rows, same, weights

Train = Callable[..., distill.TrainResult]
Checkpoint = Callable[..., Path]
USUAL: dict[str, Any] = {"response": "auto", "init": "none"}


@pytest.fixture
def trained(checkpoint: Checkpoint) -> Path:
    return checkpoint(micro(), name="trained")


@pytest.fixture
def verdict(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Has every trial find this change."""
    return lambda change: monkeypatch.setattr(trying.Trial, "of", lambda *_: Trial(change, 8))


def columns(result: distill.TrainResult) -> set[str]:
    return {name for name in rows(result.table)[0] if "/ft_" in name}


def test_features_that_help_are_taught(
    train: Train, teacher: Path, trained: Path, verdict: Callable[[float], None], caplog: Any
) -> None:
    verdict(-0.05)
    result = train(teacher=teacher, student=trained, **USUAL)
    assert columns(result) == {"train/ft_P3", "train/ft_P4", "train/ft_P5"}
    manifest = result.manifest
    assert manifest["trial"]["taught"] and manifest["trial"]["change"] == -0.05
    assert {"attention", "features", "classes", "boxes"} == set(manifest["weights"])
    assert "features: taught: with them the task's loss was 5.0 % lower after 8 steps" in caplog.text
    assert "1 of the task's gradient" in "\n".join(c for c in manifest["checks"] if "weight of features" in c)


def test_the_outputs_of_a_teacher_whose_features_help_count_in_full(
    train: Train, teacher: Path, trained: Path, verdict: Callable[[float], None]
) -> None:
    verdict(-0.05)
    free = train(teacher=teacher, student=trained, name="free", **USUAL).manifest
    asked = train(teacher=teacher, student=trained, name="asked", response_share=0.2, **USUAL).manifest
    for name in ("classes", "boxes"):
        assert free["weights"][name] == pytest.approx(5 * asked["weights"][name])
        assert any(f"weight of {name}: {free['weights'][name]:.4g}, measured: 1 of" in line for line in free["checks"])
    assert free["weights"]["attention"] == asked["weights"]["attention"]
    assert free["weights"]["features"] == asked["weights"]["features"]
    fixed = train(teacher=teacher, student=trained, name="fixed", response_weight=2, **USUAL).manifest
    assert fixed["weights"]["classes"] == fixed["weights"]["boxes"] == 2


def test_features_that_hold_it_up_are_left_out_without_a_trace(
    train: Train, teacher: Path, trained: Path, verdict: Callable[[float], None]
) -> None:
    verdict(0.05)
    result = train(teacher=teacher, student=trained, name="tried", **USUAL)
    without = train(teacher=teacher, student=trained, name="without", features="none", **USUAL)
    assert (
        not columns(result)
        and "features" not in result.manifest["weights"]
        and pairs_of(result.manifest, "features") == []
    )
    assert not any("features P3" in check or "weight of features" in check for check in result.manifest["checks"])
    assert any("features: left out: with them" in check for check in result.manifest["checks"])
    assert same(weights(result.last), weights(without.last)) and without.manifest["trial"] is None


def test_features_that_fail_the_proof_stop_nothing(
    train: Train, teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("distill.terms.features.unexplained", lambda x, y: x.sum() * float("nan"))
    result = train(teacher=teacher, student=trained, **USUAL)
    assert not columns(result) and "not finite" in result.manifest["trial"]["said"]


def test_a_trial_trains_both_on_the_same_and_leaves_the_student_alone(
    train: Train, teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both begin alike and part when the first step has been made; the run's student has not moved."""
    seen: list[list[float]] = []
    before: list[dict[str, torch.Tensor]] = []

    def noted(trainer: Any, *rest: Any) -> list[float]:
        before.append({name: tensor.clone() for name, tensor in student_copy(trainer).state_dict().items()})
        seen.append(sprint(trainer, *rest))
        assert same(before[0], student_copy(trainer).state_dict())
        return seen[-1]

    monkeypatch.setattr(trying, "sprint", noted)
    result = train(teacher=teacher, student=trained, **USUAL)
    alone, taught = seen
    assert len(alone) == len(taught) == 8 and alone[0] == taught[0] and alone[1:] != taught[1:]
    assert result.manifest["trial"]["change"] == Trial.of(alone, taught).change


@pytest.mark.parametrize(
    ("more", "tried"),
    [
        ({}, True),
        ({"features_share": 0.5}, True),
        ({"features": "none"}, False),
        ({"features": "P3"}, False),
        ({"layers": "P3"}, False),
        ({"layers": "none"}, False),
        ({"response": "bce"}, True),
        ({"response": "none"}, False),
        ({"init": "fit"}, True),
        ({"student": "yaml", "init": "teacher"}, False),
        ({"init": "auto"}, True),
        ({"init": "best"}, True),
        ({"student": "yaml"}, False),
        ({"student": "yaml", "init": "fit"}, True),
    ],
)
def test_they_are_tried_where_nothing_else_is_asked_for(
    more: dict[str, Any], tried: bool, scenes: Path, teacher: Path, student: Path, trained: Path
) -> None:
    given = {"data": str(scenes), "teacher": str(teacher), "student": str(trained), "init": "none", **more}
    given["student"] = str(student) if given["student"] == "yaml" else given["student"]
    planned = plan(settings_from(given), {"imgsz": 64}, "")
    own = planned.own
    assert own["methods"].get("features", {}).get("trial", False) is tried
    untrained = "student" in more and not tried
    assert any(line.startswith("features: not tried: ") for line in planned.lines) is untrained
    if tried:
        assert pairs_of(own, "features") == pairs_of(own)


@pytest.mark.parametrize("more", [{"student": "yaml"}, {"response": "none"}, {"layers": "P3"}])
def test_a_share_of_features_that_are_not_tried_is_refused(
    more: dict[str, str], scenes: Path, teacher: Path, student: Path, trained: Path
) -> None:
    given = {"data": str(scenes), "teacher": str(teacher), "student": str(trained), "init": "none", **more}
    given["student"] = str(student) if given["student"] == "yaml" else given["student"]
    for name in ("features_share", "features_weight"):
        with pytest.raises(InputError, match=f"--{name.replace('_', '-')} has no effect: features are tried for"):
            plan(settings_from({**given, name: "0.5"}), {"imgsz": 64}, "")


def test_weights_that_are_not_loaded_are_none(scenes: Path, teacher: Path, trained: Path) -> None:
    given = settings_from({"data": str(scenes), "teacher": str(teacher), "student": str(trained)})
    own = plan(given, {"imgsz": 64, "pretrained": False}, "").own
    assert own["init"] == "fit"


def test_all_weights_can_be_held_but_those_of_features_on_trial(scenes: Path, teacher: Path, trained: Path) -> None:
    given = {"data": str(scenes), "teacher": str(teacher), "student": str(trained), "init": "none"}
    given |= {"hold": "true", "weight": "1", "response_weight": "1"}
    assert pairs_of(plan(settings_from(given), {"imgsz": 64}, "").own, "features")
    with pytest.raises(InputError, match="all weights are fixed"):
        plan(settings_from({**given, "features": "none"}), {"imgsz": 64}, "")


def test_a_resumed_run_keeps_what_was_found(
    train: Train,
    teacher: Path,
    trained: Path,
    tmp_path: Path,
    verdict: Callable[[float], None],
    cut_off: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for change, name in ((-0.05, "taught"), (0.05, "left")):
        verdict(change)
        cut_off(lambda name=name: train(teacher=teacher, student=trained, epochs=2, name=name, **USUAL))
    monkeypatch.setattr(trying, "sprint", lambda *_: pytest.fail("tried again"))
    results = {name: distill.resume(tmp_path / "runs" / name) for name in ("taught", "left")}
    assert len(columns(results["taught"])) == 3 and not columns(results["left"])
    shares = {name: read_settings(result.folder)["response_share"] for name, result in results.items()}
    assert shares == {"taught": 1, "left": None}
    assert read_manifest(results["left"].folder)["trial"]["taught"] is False


@pytest.mark.parametrize("init", ["fit", "best"])
def test_a_fitted_student_is_tried_as_it_is_then(
    init: str, train: Train, checkpoint: Checkpoint, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "best_of", lambda losses: "fitted")
    seen: list[dict[str, torch.Tensor]] = []

    def noted(trainer: Any, model: Any, *rest: Any) -> list[float]:
        seen.append({name: tensor.clone() for name, tensor in unwrap_model(model).state_dict().items()})
        return sprint(trainer, model, *rest)

    monkeypatch.setattr(trying, "sprint", noted)
    teacher = checkpoint(micro(2), name="big", seed=1)
    result = train(teacher=teacher, student=trained, response="auto", init=init)
    assert result.manifest["initialised"]["start"] == "fitted" and result.manifest["trial"]["steps"] == 8
    assert len(seen) == 2 and not same(seen[0], weights(trained))


def test_a_run_that_died_before_its_first_checkpoint_is_planned_as_it_was(
    train: Train,
    teacher: Path,
    trained: Path,
    tmp_path: Path,
    die_once: type[BaseException],
    verdict: Callable[[float], None],
) -> None:
    verdict(-0.05)
    with pytest.raises(die_once):
        train(teacher=teacher, student=trained, name="cut", features_share=0.5, **USUAL)
    result = distill.resume(tmp_path / "runs" / "cut")
    assert len(columns(result)) == 3 and result.manifest["trial"]["taught"]
    assert read_settings(result.folder)["response_share"] == 1


def test_a_failed_proof_is_told_and_nothing_is_tried(
    train: Train, teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(trying, "sprint", lambda *_: pytest.fail("tried"))
    monkeypatch.setattr(Taps, "read", silent)
    with pytest.raises(ProofFailed, match="did not run"):
        train(teacher=teacher, student=trained, **USUAL)


def silent(_: Any) -> dict[str, torch.Tensor]:
    raise SilentTapError("layer did not run")


def test_images_of_many_shapes_and_a_shuffled_teacher(train: Train, teacher: Path, trained: Path) -> None:
    """Each step's images have one shape, and none is alone."""
    result = train(teacher=teacher, student=trained, rect=True, shuffled=True, **USUAL)
    assert result.manifest["trial"]["steps"] == 8


@pytest.mark.parametrize("optimizer", ["auto", "SGD", "AdamW"])
def test_a_sprint_has_the_momentum_of_the_run(
    optimizer: str, train: Train, teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[float, float]] = []

    def noted(trainer: Any, *rest: Any) -> list[float]:
        groups = trainer.optimizer.param_groups
        build = type(trainer).build_optimizer.__get__(trainer)
        monkeypatch.setattr(trainer, "build_optimizer", lambda *given: rest_of(build(*given), groups))
        return sprint(trainer, *rest)

    def rest_of(made: torch.optim.Optimizer, groups: list[dict[str, Any]]) -> torch.optim.Optimizer:
        seen.append((momentum(made.param_groups[0]), momentum(groups[0])))
        return made

    def momentum(group: dict[str, Any]) -> float:
        return float(group["betas"][0] if "betas" in group else group["momentum"])

    monkeypatch.setattr(trying, "sprint", noted)
    train(teacher=teacher, student=trained, optimizer=optimizer, **USUAL)
    assert seen == [(0.9 if optimizer == "auto" else 0.937,) * 2] * 2


def test_a_batch_of_a_sprint_has_one_shape() -> None:
    shapes = np.array([[64, 64], [64, 96], [96, 64]])
    dataset = SimpleNamespace(rect=True, batch=np.array([0, 0, 1, 1, 2]), batch_shapes=shapes)
    found = drawn(SimpleNamespace(train_loader=SimpleNamespace(dataset=dataset)), range(5), 20, 3)
    batches = [{int(dataset.batch[n]) for n in found[k : k + 3]} for k in range(0, 60, 3)]
    assert len(found) == 60 and all(len(batch) == 1 for batch in batches) and {0, 1, 2} == set().union(*batches)


def test_a_schedule_does_not_silence_a_trial(
    scenes: Path, tiny: dict[str, Any], teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It counts epochs; a trial has steps."""
    seen: list[bool] = []

    def noted(self: DistillingModule, step: Any) -> None:
        seen.append(all(step.losses()[name] > 0 for name in ("at_P3", "at_cls")))

    monkeypatch.setattr(DistillingModule, "_note", noted)
    more = {**tiny, "epochs": 10, "schedule": "cosine", "warmup": 2, "floor": 0.0}
    given = {"teacher": str(teacher), "student": str(trained), "data": str(scenes), "features": "none", "init": "none"}
    assert distill.doctor(**given, **more)[-1].name == "teaching"
    assert len(seen) >= 8 and all(seen[-8:])


@pytest.mark.parametrize(("change", "warning"), [(-0.03, False), (0.03, True)])
def test_doctor_tries_all_that_is_taught(
    change: float,
    warning: bool,
    scenes: Path,
    tiny: dict[str, Any],
    teacher: Path,
    student: Path,
    verdict: Callable[[float], None],
) -> None:
    verdict(change)
    checks = distill.doctor(teacher=str(teacher), student=str(student), data=str(scenes), init="none", **tiny)
    check = checks[-1]
    assert isinstance(check, Check) and check.name == "teaching" and check.ok and check.warning is warning
    assert ("works against the task" in check.detail) is warning and "3.0 %" in check.detail


def test_what_leaves_the_task_nothing_is_seen(
    train: Train, teacher: Path, trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The known answer, by real steps: at a huge weight the task is not learned, at next to none it is as if alone."""
    monkeypatch.setattr(sprints, "LEAST", 60)
    trials = {}
    for weight in (1e-9, 1e4):
        more = {"features_weight": weight, "lr0": 0.003, "optimizer": "AdamW", "name": f"{weight}", **USUAL}
        trials[weight] = train(teacher=teacher, student=trained, **more).manifest["trial"]
    assert trials[1e-9]["taught"] and abs(trials[1e-9]["change"]) < 1e-3
    assert not trials[1e4]["taught"] and trials[1e4]["change"] > 0.02
