"""`--features`: from options to results.csv, and what is refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ultralytics.nn import tasks

import distill
from distill import InputError
from distill.adapters.ultralytics.plan import plan
from distill.config import settings_from
from distill.records import read_manifest

from .tiny import RTDETR, micro, pairs_of, rows, same, weights

Train = Callable[..., distill.TrainResult]
Checkpoint = Callable[..., Path]


def test_a_run_learns_features_and_says_how_much_it_tells(
    train: Train, teacher: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    result = train(teacher=teacher, layers="none", features="B3,P3,P4", features_share=0.5, epochs=2)
    table = rows(result.table)
    for pair in ("B3", "P3", "P4"):
        assert all(row[f"train/ft_{pair}"] > 0 and 0 < row[f"train/r2_{pair}"] < 1 for row in table)
    assert table[1]["train/weight_features"] > 0 and not any(c.startswith("val/ft") for c in table[0])
    manifest = read_manifest(result.folder)
    assert [pair["name"] for pair in pairs_of(manifest, "features")] == ["B3", "P3", "P4"] and pairs_of(manifest) == []
    checks = " ".join(manifest["checks"])
    assert "features P3: loss" in checks and "weight of features" in checks and "0.5 of the task" in checks
    assert "R2" in str(result) and "ft_B3" in str(result)
    assert not same(weights(result.last), weights(train().last))
    assert "distill" not in tasks.load_checkpoint(result.last)[0].args


def test_features_alone_teach_what_they_are_about(train: Train, teacher: Path) -> None:
    """Many steps of features alone: the student's tell more of the teacher's than those of a plain one."""
    budget: dict[str, Any] = {"epochs": 30, "optimizer": "AdamW", "lr0": 0.01, "val": False}
    runs = [
        train(teacher=teacher, layers="none", features="P3,P4", features_share=share, hold=True, **budget)
        for share in (10.0, 0.001)
    ]
    told = [run.manifest["after"]["attention"] for run in runs]
    assert all(told[0][f"r2_{pair}"] > told[1][f"r2_{pair}"] + 0.1 for pair in ("P3", "P4"))


def test_any_family_teaches_any(train: Train, checkpoint: Checkpoint) -> None:
    """No channels, head or family have to agree: RT-DETR's features teach a YOLO."""
    result = train(teacher=checkpoint(micro(2, RTDETR), "rtdetr"), layers="none", features="P3,P4", name="rtdetr")
    assert rows(result.table)[0]["train/ft_P3"] > 0


def test_a_resumed_run_goes_on_with_its_features(
    train: Train, teacher: Path, cut_off: Callable[[Callable[[], Any]], None], tmp_path: Path
) -> None:
    cut_off(lambda: train(teacher=teacher, features="P3", epochs=2, name="cut"))
    result = distill.resume(str(tmp_path / "runs" / "cut"))
    table = rows(result.table)
    assert len(table) == 2 and all(row["train/ft_P3"] > 0 for row in table)
    assert table[1]["train/weight_features"] == pytest.approx(result.manifest["weights"]["features"], rel=1e-4)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"features_share": 0.5, "init": "none"}, "has no effect: features are tried"),
        ({"features_weight": 1.0, "init": "none"}, "has no effect: features are tried"),
        ({"features": "none", "features_weight": 1.0}, "without --features"),
        ({"features": "P3", "features_weight": 1.0, "features_share": 0.5}, "beside --features-weight"),
        ({"features": "P9"}, "layer 'P9' not found"),
        ({"features": "P3", "teacher": None}, "--features has no effect with no --teacher"),
        ({"features": "P3,P3"}, "paired twice"),
    ],
)
def test_what_cannot_be_is_refused(
    scenes: Path, student: Path, teacher: Path, options: dict[str, Any], message: str
) -> None:
    given = {"student": str(student), "data": str(scenes), "teacher": str(teacher), **options}
    with pytest.raises(InputError, match=message):
        plan(settings_from({k: v for k, v in given.items() if v is not None}), {"imgsz": 64}, "")


def test_none_is_an_answer() -> None:
    assert settings_from({"features": "none"}).features == ()
