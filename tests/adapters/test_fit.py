"""`--init fit` a start that a run can keep."""

from __future__ import annotations

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from ultralytics.engine.trainer import BaseTrainer

import distill
from distill.adapters.ultralytics import fitting, rehearsal
from distill.adapters.ultralytics.anatomy import build_teacher
from distill.adapters.ultralytics.fitting import Guide, convolutions, image_count, last_of
from distill.adapters.ultralytics.heads import outputs_of
from distill.adapters.ultralytics.inheriting import inherit, places_of, shared_tensors
from distill.adapters.ultralytics.plan import plan
from distill.adapters.ultralytics.wrapper import WithTeacher
from distill.attention.taps import Taps
from distill.config import settings_from
from distill.errors import InputError
from distill.records import read_manifest

from .test_inheriting import lively
from .tiny import micro, network, rows, same, weights

Train = Callable[..., distill.TrainResult]
Checkpoint = Callable[..., Path]
IMAGES = fitting.IMAGES
FAMILIES = ("yolov8", "yolo11", "yolo12", "yolo26")


@pytest.fixture
def big(checkpoint: Checkpoint) -> Path:
    return checkpoint(micro(2), name="big", seed=1)


def guide(student: Any, teacher: Any, images: Tensor) -> Guide:
    return Guide(student, teacher, teacher.names, images)


def apart(student: Any, teacher: Any, images: Tensor) -> float:
    """How far both networks' class logits lie apart, over their spread, the mean of all levels and branches."""
    names = [output.classes for output in outputs_of(student)]
    seen = []
    for model in (student, teacher):
        with torch.no_grad(), Taps(model.eval(), names) as taps:
            model(images)
            seen.append(taps.read())
    return sum(float((seen[0][n] - seen[1][n]).norm() / seen[1][n].std() / seen[1][n].numel() ** 0.5) for n in names)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_fitted_student_answers_more_like_its_teacher(family: str) -> None:
    """In every family, both branches of an end-to-end head included, and on images that it was not fitted on."""
    teacher = lively(f"{family}s.yaml", seed=1)
    images, others = (torch.rand(n, 3, 96, 96, generator=torch.Generator().manual_seed(n)) for n in (24, 8))
    taken, fitted = (network(f"{family}n.yaml", seed=2) for _ in range(2))
    for student in (taken, fitted):
        inherit(student, teacher, teacher.names)
    told = guide(fitted, teacher, images).fit(fitted)
    there = dict(convolutions(fitted))
    assert len(told) > 0.8 * len(there) and all(one.r2 <= 1 + 1e-6 for one in told.values())
    assert {last_of(fitted, output.classes) for output in outputs_of(fitted)} <= set(told)
    assert apart(fitted, teacher, others) < 0.7 * apart(taken, teacher, others)


def test_a_student_of_the_same_size_becomes_its_teacher() -> None:
    teacher, student = lively("yolo11n.yaml", seed=1), network("yolo11n.yaml", seed=2)
    images = torch.rand(24, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    before = apart(student, teacher, images)
    guide(student, teacher, images).fit(student)
    assert apart(student, teacher, images) < 0.2 * before


def test_a_run_begins_there_says_so_and_native_training_begins_there_too(
    train: Train, big: Path, caplog: pytest.LogCaptureFixture
) -> None:
    result = train(teacher=big, init="auto")
    assert "fitting the student to the teacher by least squares" in caplog.text
    assert "first weights: fitted, " in caplog.text and "R2 0." in caplog.text
    found = read_manifest(result.folder)["initialised"]
    assert found["seconds"] > 0
    assert found["start"] == "fitted" and "losses" not in found and 0 < found["r2"] < 1 and found["convolutions"] > 8
    alone = {"init": "fit", "layers": "none"}
    others = [train(teacher=big, **alone), train(teacher=big, **alone, distill_model=str(big))]
    starts = [run.manifest["start"]["weights"] for run in (result, *others)]
    assert len(set(starts)) == 1 and starts[0] != train().manifest["start"]["weights"]
    assert len({str(run.manifest["start"]["data"]) for run in (result, *others, train())}) == 1  # the images as ever
    assert train(teacher=big, init="auto", seed=5).manifest["start"]["weights"] != starts[0]  # other images, other fit


def test_the_average_begins_there_too(
    train: Train, big: Path, on: Callable[[str, Callable[[Any], None]], None]
) -> None:
    seen: list[bool] = []

    def look(trainer: Any) -> None:
        seen.append(same(trainer.ema.ema.state_dict(), fitting.student_of(trainer).state_dict()))

    on("on_train_start", look)
    train(teacher=big, init="fit")
    assert seen == [True]


def test_a_resumed_run_is_not_fitted_again(
    train: Train,
    big: Path,
    tmp_path: Path,
    cut_off: Callable[[Callable[[], Any]], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    cut_off(lambda: train(teacher=big, init="fit", epochs=2, name="a"))
    monkeypatch.setattr(fitting, "fit", lambda *_: pytest.fail("fitted again"))
    result = distill.resume(tmp_path / "runs" / "a")
    assert result.manifest["initialised"]["start"] == "fitted" and len(rows(result.table)) == 2


def test_blocks_of_another_kind_are_left_out() -> None:
    """In YOLO11m some blocks have other layers under the names that YOLO11s has."""
    teacher, student = lively("yolo11m.yaml", seed=1), network("yolo11s.yaml", seed=2)
    common = shared_tensors(student, teacher)
    told = guide(student, teacher, torch.rand(2, 3, 64, 64)).fit(student)
    both = {name for name, _ in convolutions(student)} & {name for name, _ in convolutions(teacher)}
    other = {name for name in both if f"{name}.weight" not in common}
    assert other and told and not other & set(told)


@pytest.mark.parametrize("arguments", [{"rect": True}, {"multi_scale": 0.5}])
def test_images_of_many_shapes(arguments: dict[str, Any], train: Train, big: Path) -> None:
    found = train(teacher=big, init="fit", **arguments).manifest["initialised"]
    assert found["images"] >= 16 and found["start"] == "fitted"


def test_a_trained_student_keeps_its_weights_where_no_race_can_be(
    scenes: Path, student: Path, big: Path, checkpoint: Checkpoint
) -> None:
    given = {"data": str(scenes), "teacher": str(big), "student": str(checkpoint(micro(), name="given"))}
    assert plan(settings_from(given), {"imgsz": 64}, "").own["init"] == "best"
    assert plan(settings_from(given), {"imgsz": 64, "freeze": 2}, "").own["init"] == "none"
    alike = {**given, "teacher": str(checkpoint(micro(), name="alike", seed=1))}
    other = {**given, "teacher": str(checkpoint("yolov8n.yaml"))}
    for teacher in (alike, other):
        assert plan(settings_from(teacher), {"imgsz": 64}, "").own["init"] == "none"
    assert plan(settings_from({**given, "init": "best"}), {"imgsz": 64}, "").own["init"] == "best"
    with pytest.raises(InputError, match="freeze= keeps layers as they are"):
        plan(settings_from({**given, "init": "best"}), {"imgsz": 64, "freeze": 2}, "")
    with pytest.raises(InputError, match="no weights of its own to keep"):
        plan(settings_from({**given, "init": "best", "student": str(student)}), {"imgsz": 64}, "")


def test_autobatch_measures_a_copy_with_the_teacher(big: Path) -> None:
    together = WithTeacher(network(micro()), build_teacher(network(micro(2)), ["model.5"]))
    assert deepcopy(together).teacher is together.teacher


def test_as_many_images_as_the_deepest_level_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fitting, "IMAGES", IMAGES)
    assert image_count(64) == image_count(256) == 256 and image_count(640) == 50 and image_count(1280) == 32


def test_the_teacher_is_read_as_it_is_deep_down(big: Path) -> None:
    """What a guide notes is the teacher's own answer: the last output's target is the output."""
    teacher, student = lively(micro(2), seed=1), network(micro())
    images = torch.rand(2, 3, 64, 64)
    noted = guide(student, teacher, images)
    name = outputs_of(student)[0].classes
    last = last_of(student, name)
    with torch.no_grad():
        expected = build_teacher(teacher, [name])(images)[name].movedim(1, -1).flatten(0, -2)
    assert torch.allclose(noted._targets[last].values, expected, rtol=0.05, atol=0.05)


@pytest.fixture
def good_start(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Tensor]]:
    """Whatever a run begins with is worth more than any epoch; the weights that were judged, in half precision."""
    original = rehearsal.validate
    found: list[dict[str, Tensor]] = []

    def better(trainer: Any, module: Any, *more: Any) -> dict[str, float]:
        found.append(halved(module.state_dict()))
        return {**original(trainer, module, *more), "fitness": 0.9}

    monkeypatch.setattr(rehearsal, "validate", better)
    return found


def halved(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.half() for name, tensor in state.items()}


@pytest.mark.parametrize("settings", [{}, {"layers": "none"}, {"val": False}, {"save": False}, {"save_period": 1}])
def test_a_run_never_ends_with_less_than_it_began_with(
    settings: dict[str, Any], train: Train, big: Path, good_start: list[dict[str, Tensor]]
) -> None:
    """The first weights are a candidate for best.pt, and the closing lines say so where they win."""
    result = train(teacher=big, init="fit", epochs=2, **settings)
    assert same(halved(weights(result.best)), good_start[0])
    assert not same(weights(result.last), weights(result.best))
    assert result.manifest["after"]["first_is_best"] and "best.pt holds the first weights" in str(result)
    assert len(rows(result.table)) == 2
    assert not (result.folder / "weights" / "epoch-1.pt").exists()


def test_an_epoch_that_is_better_takes_its_place(
    train: Train, big: Path, good_start: list[dict[str, Tensor]], monkeypatch: pytest.MonkeyPatch
) -> None:
    original = BaseTrainer.validate

    def perfect(self: Any) -> Any:
        metrics, _ = original(self)
        self.best_fitness = 1.0
        return metrics, 1.0

    monkeypatch.setattr(BaseTrainer, "validate", perfect)
    result = train(teacher=big, init="fit", epochs=1)
    assert not result.manifest["after"]["first_is_best"] and "holds the first weights" not in str(result)
    assert same(weights(result.last), weights(result.best))


def test_they_survive_an_interruption(
    train: Train, big: Path, good_start: list[dict[str, Tensor]], cut_off: Callable[..., None], tmp_path: Path
) -> None:
    cut_off(lambda: train(teacher=big, init="fit", epochs=2, name="a"))
    first = good_start[0]
    result = distill.resume(tmp_path / "runs" / "a")
    assert same(halved(weights(result.best)), first) and result.manifest["after"]["first_is_best"]


# ---- a fit that training does not throw off


def doubled(small: Any, large: Any, noise: float = 0.05) -> Any:
    """`large`, twice as wide, made to compute what `small` does: each channel twice, with some noise on its weights."""
    torch.manual_seed(0)
    source, wide = small.state_dict(), large.state_dict()
    for name, tensor in wide.items():
        part = source[name]
        for axis in range(tensor.dim()):
            if tensor.shape[axis] == 2 * part.shape[axis]:
                part = part.repeat_interleave(2, axis) / (2 if axis == 1 else 1)
        assert part.shape == tensor.shape
        if tensor.dim() == 4 and "dfl" not in name:
            part = part * (1 + noise * torch.randn(part.shape))
        tensor.copy_(part)
    return large


def gains(model: Any) -> Tensor:
    norms = [module for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    return torch.cat([norm.weight.abs() / (norm.running_var + norm.eps).sqrt() for norm in norms])


def test_of_channels_that_stand_twice_each_is_taken_once() -> None:
    """So a student of half of the width is what was doubled; by strength alone it would hold copies."""
    origin, student = lively(micro(2), seed=1), network(micro(2), seed=2)
    teacher = doubled(origin, lively(micro(4), seed=3))
    images = torch.rand(24, 3, 96, 96, generator=torch.Generator().manual_seed(0))
    made = guide(student, teacher, images)
    inherit(student, teacher, teacher.names, made.places)
    told = made.fit(student)
    assert min(one.r2 for one in told.values()) > 0.9
    assert apart(student, teacher, images) < 0.5
    strongest = places_of(student, teacher, teacher.names)

    def once(places: Any) -> list[float]:
        kept = [places[f"model.{layer}.conv.weight", 0] // 2 for layer in range(4)]  # the fifth has few positions here
        return [len(pairs.unique()) / len(pairs) for pairs in kept]

    assert min(once(made.places)) > 0.9 > max(once(strongest))  # of nearly every pair one
    assert gains(student).max() < 1.01 * gains(teacher).max()
