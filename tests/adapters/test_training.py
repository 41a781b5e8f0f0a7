"""Runs: nothing changes when nothing is asked, every option does what it says, and a run leaves what it promises."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import FrozenInstanceError
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import yaml
from ultralytics.models.rtdetr.train import RTDETRTrainer
from ultralytics.models.yolo.classify import ClassificationTrainer
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn import tasks
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import YAML
from ultralytics.utils.torch_utils import get_flops, unwrap_model

import distill
from distill import InputError, ProofFailed, TrainResult
from distill.adapters.ultralytics.trainer_settings import few_steps
from distill.adapters.ultralytics.wrapper import DistillingModule
from distill.records import command_line, sha256
from distill.teacher import Teacher

from .tiny import RTDETR, halved, hooks, micro, pairs_of, rows, same, weights

Train = Callable[..., TrainResult]
On = Callable[[str, Callable[[Any], None]], None]
Watched = dict[str, list[Any]]
State = dict[str, torch.Tensor]


# ---- nothing changes when nothing is asked


@pytest.fixture
def states(on: On) -> list[State]:
    """The final weights of each run, as the optimizer left them."""
    found: list[State] = []
    on(
        "on_train_end",
        lambda trainer: found.append({k: v.clone() for k, v in unwrap_model(trainer.model).state_dict().items()}),
    )
    return found


@pytest.mark.parametrize("kind", ["yaml", "pt"])
def test_weight_zero_is_plain_training_bit_for_bit(
    kind: str,
    student: Path,
    teacher: Path,
    scenes: Path,
    tiny: dict[str, Any],
    train: Train,
    checkpoint: Callable[..., Path],
    states: list[State],
    tmp_path: Path,
) -> None:
    file = student if kind == "yaml" else checkpoint(micro(), name="micro-student", seed=5)
    more = {"epochs": 2, "close_mosaic": 1, "seed": 3}  # one epoch with mosaic, one without
    DetectionTrainer(
        overrides={**tiny, **more, "model": str(file), "data": str(scenes), "save_dir": str(tmp_path / "plain")}
    ).train()
    zero = train(student=file, teacher=teacher, weight=0, **more)
    alone = train(student=file, **more)
    taught = train(student=file, teacher=teacher, **more)

    plain, *ours = states
    assert [same(plain, state) for state in ours] == [True, True, False]
    for name in ("best.pt", "last.pt"):  # the averaged weights, too
        saved = weights(tmp_path / "plain" / "weights" / name)
        assert [same(saved, weights(r.folder / "weights" / name)) for r in (zero, alone, taught)] == [True, True, False]
    columns = [column for column in rows(alone.table)[0] if column.split("/")[0] in ("train", "val", "metrics", "lr")]
    expected = [[row[column] for column in columns] for row in rows(tmp_path / "plain" / "results.csv")]
    for result in (zero, alone):
        assert [[row[column] for column in columns] for row in rows(result.table)] == expected
    assert all(row["train/at_loss"] == 0 and row["train/cos_P3"] > 0 for row in rows(zero.table))
    assert "train/at_loss" not in columns and alone.cosines == {}


@pytest.mark.parametrize("kind", ["rtdetr", "classify"])
def test_weight_zero_for_tasks_that_scale_their_loss_otherwise(
    kind: str,
    data: dict[str, Path],
    teacher: Path,
    tiny: dict[str, Any],
    train: Train,
    states: list[State],
    tmp_path: Path,
) -> None:
    file, trainer = tmp_path / f"micro-{kind}.yaml", {"rtdetr": RTDETRTrainer, "classify": ClassificationTrainer}[kind]
    YAML.save(file, micro(head=RTDETR) if kind == "rtdetr" else classifier())
    source = data["classify" if kind == "classify" else "detect"]
    trainer(overrides={**tiny, "model": str(file), "data": str(source), "save_dir": str(tmp_path / "plain")}).train()
    for weight in (0, None):
        train(student=file, teacher=teacher, data=source, weight=weight, layers=["4"])
    plain, zero, taught = states
    assert same(plain, zero) and not same(plain, taught)


def classifier() -> dict[str, Any]:
    return {**micro(), "head": [[-1, 1, "Classify", ["nc"]]]}


# ---- options of ours


def first_losses(train: Train, teacher: Path, **more: Any) -> dict[str, float]:
    """The row of a run of one step with weight 1, so that nothing was learned before its losses were taken."""
    (row,) = rows(train(teacher=teacher, batch=8, **{"weight": 1, **more}).table)
    return row


def test_the_forms_keep_their_proportions(train: Train, teacher: Path) -> None:
    l2, squared, mean = (first_losses(train, teacher, form=form) for form in ("l2", "squared", "mean"))
    for pair, cells in (("P3", 64), ("P4", 16), ("P5", 4)):
        assert squared[f"train/at_{pair}"] == pytest.approx(2 * (1 - squared[f"train/cos_{pair}"]), rel=1e-3)
        assert squared[f"train/at_{pair}"] == pytest.approx(mean[f"train/at_{pair}"] * cells, rel=1e-2)
        assert l2[f"train/at_{pair}"] ** 2 <= squared[f"train/at_{pair}"]  # Jensen, over the images of the batch


def test_weights_multiply(train: Train, teacher: Path) -> None:
    one = first_losses(train, teacher)
    three = first_losses(train, teacher, weight=3, layers=["P3@0.5", "P4"])
    assert three["train/at_P3"] == pytest.approx(3 * 0.5 * one["train/at_P3"], rel=1e-3)
    assert three["train/at_P4"] == pytest.approx(3 * one["train/at_P4"], rel=1e-3)
    assert "train/at_P5" not in three


def test_the_power_changes_the_maps(train: Train, teacher: Path) -> None:
    one, two = first_losses(train, teacher, p=1), first_losses(train, teacher)
    assert one["train/cos_P3"] > two["train/cos_P3"]  # a smaller power flattens the maps


def test_a_larger_share_weighs_more_in_proportion(train: Train, teacher: Path) -> None:
    small, large = (train(teacher=teacher, share=share).manifest["weights"]["attention"] for share in (0.1, 0.4))
    assert large == pytest.approx(4 * small, rel=1e-5)


@pytest.fixture
def shown(on: On, monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """What the teacher was shown, and the student: the shapes of the images of each training step."""
    seen: list[tuple[int, ...]] = []
    steps: list[tuple[int, ...]] = []
    teach, learn = Teacher.__call__, DistillingModule.forward
    monkeypatch.setattr(Teacher, "__call__", lambda self, x: seen.append(tuple(x.shape)) or teach(self, x))

    def forward(self: DistillingModule, x: Any, *args: Any, **kwargs: Any) -> Any:
        if isinstance(x, dict):
            seen.append(tuple(x["img"].shape))
        return learn(self, x, *args, **kwargs)

    monkeypatch.setattr(DistillingModule, "forward", forward)
    on("on_train_batch_start", lambda trainer: seen.clear())
    on("on_train_batch_end", lambda trainer: steps.extend(seen))
    return steps


def test_half_of_each_batch_goes_to_the_teacher(train: Train, teacher: Path, shown: list[tuple[int, ...]]) -> None:
    (row,) = rows(train(teacher=teacher, teacher_fraction=0.5).table)
    assert shown == [(4, 3, 64, 64), (2, 3, 64, 64)] * 2  # student, teacher, of two steps
    assert row["train/at_P3"] > 0


def note(grids: list[tuple[int, ...]], features: State) -> State:
    grids.extend(tuple(feature.shape[2:]) for feature in features.values())
    return features


def test_the_teacher_may_see_larger_images(
    train: Train, teacher: Path, shown: list[tuple[int, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    grids: list[tuple[int, ...]] = []
    read = Teacher.__call__
    monkeypatch.setattr(Teacher, "__call__", lambda self, x: note(grids, read(self, x)))
    result = train(teacher=teacher, teacher_imgsz=96, layers=["P3", "5:6"])
    assert shown == [(4, 3, 64, 64)] * 4  # the teacher scales them itself
    assert set(grids) == {(12, 12), (6, 6)}
    assert rows(result.table)[0]["train/at_P3"] > 0 and result.cosines["P3"] > 0
    profile = result.manifest["before"]["teacher"]["profile"]
    assert profile["gflops"] == pytest.approx(get_flops(tasks.load_checkpoint(teacher)[0], 96))


# ---- options of Ultralytics'


def test_multi_scale(train: Train, teacher: Path, shown: list[tuple[int, ...]]) -> None:
    result = train(teacher=teacher, multi_scale=0.5, epochs=4)
    assert len({shape[-1] for shape in shown}) > 1  # the sizes did vary
    assert shown[::2] == shown[1::2]  # and both saw the same
    assert all(0 < row["train/at_P3"] < 10 and row["train/at_P5"] < 10 for row in rows(result.table))


def test_rect(scenes: Path, train: Train, teacher: Path, shown: list[tuple[int, ...]], tmp_path: Path) -> None:
    result = train(teacher=teacher, data=halved(scenes, tmp_path / "wide"), rect=True)
    assert shown == [(4, 3, 32, 64)] * 4
    assert all(rows(result.table)[0][f"train/at_{pair}"] > 0 for pair in ("P3", "P4", "P5"))


def test_a_partly_frozen_student_trains_with_a_warning(train: Train, teacher: Path, watched: Watched) -> None:
    result = train(teacher=teacher, freeze=[0, 1])
    checks = result.manifest["checks"]
    assert [check for check in checks if check.startswith("warn") and "pair P3" in check and "frozen" in check]
    (trainer,) = watched["on_train_end"]
    start = weights(result.last)["model.0.conv.weight"]
    assert torch.equal(trainer.model.model[0].conv.weight.half().float(), start)
    assert not trainer.model.model[0].conv.weight.requires_grad and trainer.model.model[2].conv.weight.requires_grad


def test_a_wholly_frozen_path_is_refused(train: Train, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(ProofFailed, match="frozen: it cannot teach anything") as caught:
        train(teacher=teacher, freeze=8)  # all but the head
    assert [check.name for check in caught.value.checks if not check.ok] == ["pair P3", "pair P4", "pair P5"]
    assert not list((tmp_path / "runs").glob("*"))


def test_gradient_accumulation(train: Train, teacher: Path, on: On, states: list[State]) -> None:
    steps: list[int] = []
    on("on_train_batch_end", lambda trainer: steps.append(trainer.accumulate))
    result = train(teacher=teacher, nbs=16, epochs=2)
    train(teacher=teacher, weight=0, nbs=16, epochs=2)
    assert set(steps) == {4}
    assert rows(result.table)[-1]["train/at_loss"] > 0 and not same(*states)


def test_channels_last_and_amp(train: Train, teacher: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(teacher=teacher, channels_last=True, amp=False)
    assert "channels_last=True" in caplog.text and "only supported on CUDA" in caplog.text
    assert rows(result.table)[0]["train/at_loss"] > 0


def test_settings_that_change_what_is_seen_or_saved(train: Train, teacher: Path) -> None:
    result = train(teacher=teacher, single_cls=True, cache=True, fraction=0.5, val=False, save=False, epochs=2)
    assert [row["epoch"] for row in rows(result.table)] == [1, 2]
    assert all(row["train/at_loss"] > 0 for row in rows(result.table)) and result.last.is_file()
    assert "not known" in str(result).splitlines()[1]  # the teacher has six classes
    assert any("its classes differ from the student's" in check for check in result.manifest["checks"])


def test_a_teacher_of_another_task(train: Train, checkpoint: Callable[..., Path]) -> None:
    segmenter = checkpoint(micro(2, ("Segment", ["nc", 4, 8])), "segment", name="segmenter")
    result = train(teacher=segmenter)
    assert rows(result.table)[0]["train/at_P3"] > 0 and "not known" in str(result).splitlines()[1]
    assert any("its task differs from the student's" in check for check in result.manifest["checks"])


def test_plots_are_drawn(train: Train, teacher: Path) -> None:
    result = train(teacher=teacher, plots=True)  # as it is unless asked otherwise
    assert (result.folder / "results.png").is_file() and (result.folder / "labels.jpg").is_file()


def test_callbacks_see_the_plain_student(train: Train, teacher: Path, on: On, watched: Watched) -> None:
    seen: list[tuple[Any, ...]] = []

    def note(trainer: Any) -> None:
        inner, average = unwrap_model(trainer.model), trainer.ema.ema
        seen.append((type(trainer.model), type(inner), type(average), *hooks(inner), *hooks(average)))
        assert not [m for m in trainer.model.modules() if isinstance(m, Teacher)]
        assert len(list(trainer.model.parameters())) == len(list(inner.parameters()))

    for event in ("on_train_batch_start", "on_train_batch_end", "on_train_epoch_end", "on_model_save"):
        on(event, note)
    train(teacher=teacher, epochs=2)
    assert set(seen) == {(DistillingModule, DetectionModel, DetectionModel)}
    counts = {"on_train_start": 1, "on_train_batch_end": 4, "on_train_epoch_end": 2, "on_fit_epoch_end": 3}
    assert {event: len(watched[event]) for event in counts} == counts
    assert len(watched["on_model_save"]) == 2 and len(watched["on_train_end"]) == len(watched["teardown"]) == 1


# ---- what a run leaves


def test_a_run_leaves_everything_needed_to_trust_it(
    train: Train, teacher: Path, student: Path, scenes: Path, tmp_path: Path
) -> None:
    result = train(teacher=teacher, seed=7, name="mine")
    assert result.folder == tmp_path / "runs" / "mine"
    files = {path.relative_to(result.folder).as_posix() for path in result.folder.rglob("*") if path.is_file()}
    assert files == {"args.yaml", "distill.yaml", "manifest.json", "results.csv", "weights/best.pt", "weights/last.pt"}

    manifest = json.loads((result.folder / "manifest.json").read_text())
    assert manifest == result.manifest and manifest["finished"] is True
    assert set(manifest["versions"]) >= {"python", "platform", "torch", "torchvision", "ultralytics", "numpy"}
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert manifest["seed"] == 7 and manifest["command"] == command_line()
    assert manifest["teacher"] == {"file": str(teacher), "sha256": sha256(teacher)}
    assert manifest["data"]["file"] == str(scenes) and manifest["data"]["names"][0] == "disc"
    assert manifest["student"] == str(student)
    assert [(p["student"], p["teacher"]) for p in pairs_of(manifest)] == [(f"model.{i}",) * 2 for i in (5, 6, 7)]
    assert manifest["weights"]["attention"] > 0
    assert set(manifest["before"]) == {"student", "teacher", "attention", "step_ratio"}

    settings = yaml.safe_load((result.folder / "distill.yaml").read_text())
    assert (settings["share"], settings["seed"], settings["teacher"]) == (0.2, 7, str(teacher))
    assert settings["trainer"]["epochs"] == 1 and settings["weights"] == manifest["weights"]
    assert yaml.safe_load((result.folder / "args.yaml").read_text())["imgsz"] == 64


def test_the_result_is_frozen_and_prints_as_a_table(train: Train, teacher: Path) -> None:
    result = train(teacher=teacher)
    with pytest.raises(FrozenInstanceError):
        result.folder = Path()  # type: ignore[misc]
    assert isinstance(result, distill.TrainResult)
    assert result.best.is_file() and result.last.is_file() and result.table.is_file()
    assert 0 <= result.score <= 1 and result.metrics["metrics/mAP50-95(B)"] == result.score
    assert set(result.cosines) == set(result.distances) == set(result.cosines_before) == {"P3", "P4", "P5"}
    assert distill.TrainResult.read(result.folder) == result

    lines = str(result).splitlines()
    head = next(line.split() for line in lines if "parameters" in line)
    assert head == ["mAP50-95(B)", "parameters", "GFLOPs", "CPU", "ms"]
    by_name = {line.split("  ")[0]: line.split("  ")[1:] for line in lines if line}
    for name in ("teacher", "student before", "student after", "at_P3", "at_P4", "at_P5"):
        assert name in by_name
    assert f"{result.cosines_before['P3']:.4f}" in " ".join(by_name["at_P3"])
    assert f"{result.cosines['P3']:.4f}" in " ".join(by_name["at_P3"])
    assert "times a plain one" in str(result)
    for path in (result.best, result.last, result.table, result.folder):
        assert str(path) in str(result)


def test_folders_are_numbered_under_the_working_folder(train: Train, tmp_path: Path) -> None:
    results = [train(project=None), train(project=None)]
    assert [result.folder for result in results] == [
        tmp_path / "runs" / "distill" / name for name in ("train", "train2")
    ]


def test_a_named_folder_is_kept_unless_told_otherwise(train: Train, tmp_path: Path) -> None:
    kept = train(name="mine").last.stat().st_mtime_ns
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    with pytest.raises(InputError, match=r"--name mine: .*runs/mine exists: take another name, or add exist_ok=True"):
        train(name="mine")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert train(name="mine", exist_ok=True).last.stat().st_mtime_ns > kept


def test_unknown_keywords_are_errors(train: Train, teacher: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="'epochs'"):
        train(teacher=teacher, epoch=3)
    with pytest.raises(InputError, match="'share'"):
        train(teacher=teacher, shere=3)
    with pytest.raises(InputError, match="out of range"):
        train(teacher=teacher, share=-1)
    assert not list(tmp_path.iterdir())


# ---- the setting that the published study used


def test_the_six_layers(train: Train, checkpoint: Callable[..., Path]) -> None:
    result = train(config="yolo11-six-layers", student="yolo11n.yaml", teacher=checkpoint("yolo11s.yaml"))
    layers = ["model.6", "model.8", "model.13", "model.16", "model.19", "model.22"]
    assert [(pair["student"], pair["teacher"]) for pair in pairs_of(result.manifest)] == [(i, i) for i in layers]
    (row,) = rows(result.table)
    assert all(row[f"train/at_{layer.removeprefix('model.')}"] > 0 for layer in layers)


@pytest.mark.parametrize(
    ("asked", "batches", "accumulate", "time", "told"),
    [
        ({}, 400, 4, None, True),
        ({"nbs": 64}, 400, 4, None, False),
        ({}, 2000, 4, None, False),
        ({}, 400, 1, None, False),
        ({}, 400, 4, 1.0, False),
    ],
)
def test_a_run_of_few_optimizer_steps_is_told_so(
    asked: dict[str, int], batches: int, accumulate: int, time: float | None, told: bool
) -> None:
    """Because gradients are added up, which nobody asked for."""
    trainer = SimpleNamespace(
        args=SimpleNamespace(nbs=64, time=time),
        epochs=1,
        train_loader=range(batches),
        batch_size=16,
        accumulate=accumulate,
        own={"arguments": asked},
    )
    line = few_steps(trainer)
    assert bool(line) is told
    if told:
        assert line.startswith("about 100 optimizer steps in all") and "nbs=16 makes a step for each batch" in line
