"""What is paired with what, what the user is told of it, and what is refused before anything is written."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from ultralytics.utils import YAML

from distill import InputError, TrainResult
from distill.adapters.ultralytics.matching import image_size
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.tasks import DistillDetectionTrainer, DistillRTDETRTrainer
from distill.adapters.ultralytics.trainers import KEY
from distill.config import settings_from

from .kit import refusal
from .tiny import PICO, RTDETR, micro, network, pairs_of, rows

Checkpoint = Callable[..., Path]
Make = Callable[..., Plan]
Train = Callable[..., TrainResult]


@pytest.fixture
def make(scenes: Path, student: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Make:
    """make(teacher=..., layers=[...], imgsz=64): the plan of a run; none may write anything."""
    monkeypatch.chdir(tmp_path)

    def call(imgsz: int = 64, arguments: dict[str, Any] | None = None, **settings: Any) -> Plan:
        before = sorted(tmp_path.rglob("*"))
        state = torch.get_rng_state()
        values = {"student": str(student), "data": str(scenes), **settings}
        given = {key: str(value) if isinstance(value, Path) else value for key, value in values.items()}
        try:
            return plan(settings_from(given), {"imgsz": imgsz, **(arguments or {})}, "the command")
        finally:
            assert sorted(tmp_path.rglob("*")) == before
            assert torch.equal(torch.get_rng_state(), state)

    return call


def pairs(prepared: Plan) -> list[tuple[str, str, str]]:
    """Name and the two layers, without their common prefix."""
    return [
        (p["name"], *(p[side].removeprefix("model.") for side in ("student", "teacher")))
        for p in pairs_of(prepared.own)
    ]


# ---- which layers


@pytest.mark.parametrize(
    ("layers", "expected"),
    [
        ([], [("P3", "5", "5"), ("P4", "6", "6"), ("P5", "7", "7")]),
        (["P4", "B3"], [("P4", "6", "6"), ("B3", "2", "2")]),
        (["2", "model.5"], [("2", "2", "2"), ("5", "5", "5")]),
        (["model.5.conv"], [("5.conv", "5.conv", "5.conv")]),
        (["model.[56]"], [("5", "5", "5"), ("6", "6", "6")]),
        (["model.[23]:model.[56]"], [("2", "2", "5"), ("3", "3", "6")]),
        (["P3:B3", "2:6"], [("5", "5", "2"), ("2", "2", "6")]),
        (["P3", "P3:P4"], [("P3", "5", "5"), ("5", "5", "6")]),
    ],
)
def test_layers_by_role_number_name_and_glob(
    layers: list[str], expected: list[tuple[str, str, str]], make: Make, teacher: Path
) -> None:
    assert pairs(make(teacher=teacher, layers=layers)) == expected


@pytest.mark.parametrize(
    ("yaml", "task", "layers"),
    [
        ("yolov8n.yaml", "detect", ["15", "18", "21"]),
        ("yolo12n.yaml", "detect", ["14", "17", "20"]),
        ("yolo11m.yaml", "detect", ["16", "19", "22"]),
        ("yolov8n-rtdetr.yaml", "rtdetr", ["15", "18", "21"]),
        ("yolo11n-seg.yaml", "segment", ["16", "19", "22"]),
        ("yolov8n-p2.yaml", "detect", ["21", "24", "27"]),  # P2 has no partner
    ],
)
def test_across_family_width_and_task(
    yaml: str, task: str, layers: list[str], make: Make, checkpoint: Checkpoint
) -> None:
    prepared = make(teacher=checkpoint(yaml, task), student=PICO)
    assert pairs(prepared) == [(f"P{k}", mine, its) for k, mine, its in zip((3, 4, 5), ("16", "19", "22"), layers)]


def test_another_number_of_classes(make: Make, checkpoint: Checkpoint) -> None:
    assert len(pairs(make(teacher=checkpoint(micro(2), nc=80, name="coco")))) == 3


def test_where_no_head_level_is_shared_the_backbones_are_paired(make: Make, checkpoint: Checkpoint) -> None:
    one = {**micro(), "head": [[2, 1, "Conv", [16, 1, 1]], [[5], 1, "Detect", ["nc"]]]}
    other = {**micro(2), "head": [[4, 1, "Conv", [16, 1, 1]], [[5], 1, "Detect", ["nc"]]]}
    file = Path("one.yaml").absolute().parent.parent / "one.yaml"  # outside of the folder that must stay empty
    YAML.save(file, one)
    prepared = make(student=file, teacher=checkpoint(other, name="other"))
    assert [name for name, _, _ in pairs(prepared)] == ["B1", "B2", "B3", "B4", "B5"]


def test_without_a_teacher_there_are_no_pairs(make: Make) -> None:
    prepared = make()
    assert pairs_of(prepared.own) == [] and prepared.lines == () and prepared.own["teacher"] is None


# ---- what the user is told


def test_the_table_tells_names_shapes_strides_and_weights(make: Make, teacher: Path) -> None:
    prepared = make(teacher=teacher, layers=["P3@0.5", "2:6"], teacher_imgsz=96)
    left_out, head, *lines = (line.split() for line in prepared.lines if "to be fitted" not in line)
    assert " ".join(left_out).startswith(
        "outputs of the heads are left out: --response compares cell by cell, on one grid"
    )
    assert head == [
        "pair",
        *("student", "layer", "shape", "stride"),
        *("teacher", "layer", "shape", "stride"),
        "weight",
    ]
    assert lines[0] == ["at_P3", "model.5", "Conv", "16x8x8", "8", "model.5", "Conv", "32x12x12", "8", "0.5"]
    assert lines[1] == ["at_2", "model.2", "Conv", "16x8x8", "8", "model.6", "Conv", "32x6x6", "16", "1"]


def test_a_run_prints_the_table(train: Train, teacher: Path, caplog: pytest.LogCaptureFixture) -> None:
    result = train(teacher=teacher, layers=["P3@0.5", "2:6", "model.3", "model.[47]"], teacher_imgsz=96)
    for piece in ("at_P3", "model.5 Conv", "16x8x8", "32x12x12", "0.5", "model.6 Conv", "32x6x6"):
        assert piece in caplog.text
    (row,) = rows(result.table)
    assert [column for column in row if column.startswith("train/at_")] == [
        f"train/at_{name}" for name in ("loss", "P3", "2", "3", "4", "7")
    ]
    assert all(row[f"train/at_{name}"] > 0 for name in ("loss", "P3", "2", "3", "4", "7"))


# ---- what the trainer is given


def test_what_the_trainer_gets(make: Make, teacher: Path, student: Path, scenes: Path) -> None:
    prepared = make(teacher=teacher, seed=4, device="cpu", arguments={"epochs": "3", "lr0": 0.1})
    given = {**prepared.overrides}
    own = given.pop(KEY)
    assert prepared.trainer is DistillDetectionTrainer
    files = {"model": str(student), "data": str(scenes)}
    assert given == files | {
        "imgsz": 64,
        "epochs": 3,
        "lr0": 0.1,
        "mode": "train",
        "task": "detect",
        "seed": 4,
        "device": "cpu",
    }
    assert own["command"] == "the command" and own["teacher"] == str(teacher) and own["share"] == 0.2
    kinds = {type(value) for value in own.values()}
    assert kinds <= {str, float, int, bool, list, dict, type(None)}  # it goes through YAML, pickles and DDP's children


def test_each_family_gets_its_trainer(make: Make, checkpoint: Checkpoint, teacher: Path) -> None:
    prepared = make(student=checkpoint(micro(head=RTDETR), "rtdetr"), teacher=teacher)
    assert prepared.trainer is DistillRTDETRTrainer and len(pairs(prepared)) == 3


@pytest.mark.parametrize(
    ("arguments", "task", "stride", "size"),
    [
        ({}, "detect", 32, 640),
        ({}, "classify", 1, 224),
        ({"imgsz": 65}, "detect", 32, 96),
        ({"imgsz": 64}, "detect", 64, 64),
        ({"imgsz": 96}, "detect", 64, 128),
        ({"imgsz": 8}, "classify", 1, 32),
    ],
)
def test_the_image_size_is_the_trainers(arguments: dict[str, Any], task: str, stride: int, size: int) -> None:
    assert image_size(arguments, task, stride) == size


# ---- what is refused


def test_a_stride_that_does_not_fit(make: Make, checkpoint: Checkpoint) -> None:
    p6 = checkpoint("yolov8n-p6.yaml")
    text = refusal(lambda: make(teacher=p6, imgsz=96))
    assert text == (
        "--teacher yolov8n-p6.pt: its stride of 64 does not fit 96 px: use --teacher-imgsz 128, or imgsz=128"
    )
    assert [name for name, _, _ in pairs(make(teacher=p6, imgsz=96, teacher_imgsz=128))] == ["P3", "P4", "P5"]
    assert len(pairs(make(teacher=p6, imgsz=128))) == 3


def test_unknown_layers_name_the_nearest(make: Make, teacher: Path) -> None:
    assert "'model.61' not found in the student; nearest: 'model.6" in refusal(
        lambda: make(teacher=teacher, layers=["model.61"])
    )
    assert refusal(lambda: make(teacher=teacher, layers=["P9"])).startswith(
        "layer 'P9' not found in the student; nearest: 'P"
    )
    assert "not found in the teacher" in refusal(lambda: make(teacher=teacher, layers=["5:model.77"]))
    assert "'model.2?' not found" in refusal(lambda: make(teacher=teacher, layers=["model.2?"]))


def test_lists_of_different_length_are_not_cut(make: Make, teacher: Path) -> None:
    text = refusal(lambda: make(teacher=teacher, layers=["model.[56]:model.[567]"]))
    assert "match 2 in the student and 3 in the teacher" in text


def test_a_pair_given_twice(make: Make, teacher: Path) -> None:
    assert "paired twice" in refusal(lambda: make(teacher=teacher, layers=["P3", "5"]))


def test_weights_behind_a_layer(make: Make, teacher: Path) -> None:
    for weight in ("0", "-1", "x", "inf"):
        assert "must be a number above 0" in refusal(
            lambda weight=weight: make(teacher=teacher, layers=[f"P3@{weight}"])
        )


def test_maps_of_one_position_carry_no_attention(make: Make, teacher: Path) -> None:
    text = refusal(lambda: make(teacher=teacher, imgsz=32))
    assert text.startswith("pair P5: a stride of 32 leaves a map of one position")
    assert len(pairs(make(teacher=teacher, imgsz=32, layers=["P3", "P4"]))) == 2


def test_two_teachers(make: Make, teacher: Path) -> None:
    text = refusal(lambda: make(teacher=teacher, arguments={"distill_model": str(teacher)}))
    assert "ours or Ultralytics' own, not both at once" in text
    assert make(arguments={"distill_model": str(teacher)}).overrides["distill_model"] == str(teacher)


def test_a_teacher_of_other_images(make: Make, checkpoint: Checkpoint) -> None:
    grey = checkpoint(micro(2), channels=1, name="grey")
    assert "reads 1 channels, the data has 3" in refusal(lambda: make(teacher=grey))


def test_folded_networks_teach_but_do_not_learn(
    make: Make, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    file = tmp_path_factory.mktemp("folded") / "folded.pt"
    torch.save({"model": network(micro(2)).fuse(verbose=False)}, file)
    assert len(pairs(make(teacher=file))) == 3
    assert "BatchNorms are folded" in refusal(lambda: make(student=file, teacher=teacher))


@pytest.mark.parametrize("missing", ["student", "data"])
def test_what_is_missing_is_named(missing: str, make: Make) -> None:
    with pytest.raises(InputError, match=f"--{missing} is missing"):
        make(**{missing: None})


def test_image_sizes_are_one_number(make: Make, teacher: Path) -> None:
    with pytest.raises(InputError, match="one whole number of pixels"):
        make(teacher=teacher, arguments={"imgsz": [64, 96]})
