"""Trained networks on pictures: every task and family, boxes where they belong, results whole or not at all."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from distill import InputError, Taps, energy
from distill.jobs.seeing.comparing import compare
from distill.jobs.seeing.comparison import arrays
from distill.loading import ultralytics_adapter
from distill.modes import untrained

from ...adapters.tiny import RTDETR, micro, network

Checkpoint = Callable[..., Path]

TASKS = {  # network, changes to its yaml, classes, pairs
    "segment": ("yolo11n-seg.yaml", {}, 6, ["P3", "P4", "P5"]),
    "pose": ("yolo11n-pose.yaml", {"kpt_shape": [4, 3]}, 6, ["P3", "P4", "P5"]),
    "obb": ("yolo11n-obb.yaml", {}, 6, ["P3", "P4", "P5"]),
    "semantic": ("yolo26n-sem.yaml", {}, 7, ["P3", "P4"]),
    "classify": ("yolo11n-cls.yaml", {}, 2, ["P5"]),
}


@pytest.fixture
def micros(checkpoint: Checkpoint) -> dict[str, str]:
    return {
        "teacher": str(checkpoint(micro(2), name="big", seed=1)),
        "student": str(checkpoint(micro(), name="small")),
        "baseline": str(checkpoint(micro(), name="plain", seed=2)),
    }


def test_maps_are_the_networks_own(micros: dict[str, str], scenes: Path) -> None:
    found = compare(**micros, data=str(scenes), imgsz=64, layers=["P3", "B5"], device="cpu").exhibit
    assert [n.key for n in found.networks] == ["teacher", "student", "baseline"]
    assert [row.name for row in found.rows] == ["P3", "B5"]
    assert [row.sides["student"].layer for row in found.rows] == ["model.5", "model.4"]
    assert len(found.samples) == 4
    sample = found.samples[0]
    image = cv2.cvtColor(cv2.imread(sample.file), cv2.COLOR_BGR2RGB)
    assert (sample.picture == image).all()
    student = network(micro()).eval()
    with torch.no_grad(), Taps(student, ["model.5"]) as taps:
        student(torch.from_numpy(image).permute(2, 0, 1)[None].float() / 255)
        expected = energy(taps.read()["model.5"])[0].numpy()
    assert sample.maps["P3"]["student"] == pytest.approx(expected, rel=1e-4, abs=1e-6)


def test_labels_lie_where_the_data_set_has_them(micros: dict[str, str], scenes: Path) -> None:
    micros.pop("baseline")
    sample = compare(**micros, data=str(scenes), imgsz=96, device="cpu").exhibit.samples[0]
    label = Path(sample.file.replace("/images/", "/labels/")).with_suffix(".txt").read_text().splitlines()
    assert sample.labels is not None and len(sample.labels) == len(label)
    points = np.array(label[0].split()[1:], float).reshape(-1, 2) * 64
    assert sample.labels[0].box == pytest.approx((*points.min(0), *points.max(0)))


def test_without_data_labels_are_not_known(micros: dict[str, str], scenes: Path) -> None:
    images = scenes.parent / "images" / "val"
    found = compare(micros["teacher"], micros["student"], images, imgsz=64, device="cpu").exhibit
    assert [sample.labels for sample in found.samples] == [None] * 4


@pytest.mark.parametrize("task", TASKS)
def test_every_task(task: str, checkpoint: Checkpoint, data: dict[str, Path]) -> None:
    yaml, keys, classes, pairs = TASKS[task]
    file = str(checkpoint(yaml, task, nc=classes, **keys))
    found = compare(file, file, data=str(data[task]), imgsz=64, conf=0.0, max_images=2, device="cpu").exhibit
    assert [row.name for row in found.rows] == pairs
    rows = [row for row in found.numbers.maps if row["network"] == "student"]
    assert len(rows) == 2 * len(pairs)
    assert [row["distance"] for row in rows] == pytest.approx([0] * len(rows), abs=1e-5)  # a network and itself
    sample = found.samples[0]
    if task == "classify":
        assert sample.verdicts["student"].split()[0] in ("disc", "square")
    elif task != "semantic":
        assert sample.labels
        things = sample.predictions["student"]
        assert things and all(thing.score is not None and 0 <= thing.score <= 1 for thing in things)
        assert all((len(thing.corners) == 4) == (task == "obb") for thing in (*things, *sample.labels))


@pytest.mark.parametrize("yaml", ["yolov8n.yaml", "yolov8n-rtdetr.yaml"])
def test_a_teacher_of_another_family(yaml: str, checkpoint: Checkpoint, scenes: Path) -> None:
    teacher = str(checkpoint(yaml, "rtdetr" if "rtdetr" in yaml else "detect"))
    student = str(checkpoint("yolo11n.yaml"))
    found = compare(teacher, student, data=str(scenes), imgsz=64, max_images=2, conf=0.0, device="cpu").exhibit
    assert [row.name for row in found.rows] == ["P3", "P4", "P5"]
    layers = [(row.sides["teacher"].layer, row.sides["student"].layer) for row in found.rows]
    assert layers == [("model.15", "model.16"), ("model.18", "model.19"), ("model.21", "model.22")]
    assert all(0 < row["distance"] < 1.5 for row in found.numbers.maps)
    assert found.samples[0].predictions["teacher"]


def test_two_rtdetrs(checkpoint: Checkpoint, scenes: Path) -> None:
    teacher, student = (str(checkpoint(micro(width, RTDETR), "rtdetr")) for width in (2, 1))
    sample = compare(teacher, student, data=str(scenes), imgsz=64, max_images=1, device="cpu").exhibit.samples[0]
    assert sample.frame.scale == (1.0, 1.0)


@pytest.mark.parametrize("yaml", ["yolo11n.yaml", "yolov8n-rtdetr.yaml"])
def test_predictions_are_what_ultralytics_predicts(yaml: str, checkpoint: Checkpoint, tmp_path: Path) -> None:
    from ultralytics import RTDETR as Rtdetr
    from ultralytics import YOLO

    file = str(checkpoint(yaml, "rtdetr" if "rtdetr" in yaml else "detect"))
    picture = np.random.default_rng(0).integers(0, 255, (90, 150, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    ours = compare(student=file, images=tmp_path, imgsz=96, conf=0.0, device="cpu").exhibit.samples[0]
    kind = Rtdetr if "rtdetr" in yaml else YOLO
    (theirs,) = kind(file).predict(tmp_path / "a.png", imgsz=96, conf=0.0, save=False, verbose=False, device="cpu")
    boxes = np.minimum(theirs.boxes.xyxy.clamp(min=0).numpy(), [150, 90, 150, 90])
    mine = np.array([thing.box for thing in ours.predictions["student"]])
    assert mine.shape == boxes.shape and len(mine) > 5
    apart = np.abs(mine[:, None] - boxes).max(axis=2)  # equal scores come in any order
    assert apart.min(axis=1).max() < 0.51 and apart.min(axis=0).max() < 0.51  # theirs rounds the border


def test_a_teacher_that_sees_larger_images(checkpoint: Checkpoint, scenes: Path) -> None:
    file = str(checkpoint("yolo11n.yaml"))
    found = compare(file, file, data=str(scenes), imgsz=64, teacher_imgsz=128, conf=0.0, device="cpu").exhibit
    row, sample = found.rows[0], found.samples[0]
    assert (row.sides["teacher"].grid, row.sides["student"].grid) == ((16, 16), (8, 8))
    assert (row.sides["teacher"].lattice.stride, row.sides["student"].lattice.stride) == ((4, 4), (8, 8))
    large = compare(student=file, data=str(scenes), imgsz=128, conf=0.0, device="cpu").exhibit.samples[0]
    theirs = np.array([thing.box for thing in large.predictions["student"]])
    mine = np.array([thing.box for thing in sample.predictions["teacher"]])
    apart = np.abs(mine[:, None] - theirs).max(axis=2).min(axis=1)
    assert np.median(apart) < 1  # the same boxes but for how the image was enlarged: smoothly, or by OpenCV


def test_lattices_are_those_of_the_networks(checkpoint: Checkpoint, tmp_path: Path) -> None:
    """Binomial kernels in every convolution centre each cell on the pixel of index i stride, whatever the level."""
    file = checkpoint(micro(), name="binomial")
    content = torch.load(file, weights_only=False)
    line = torch.tensor([0.25, 0.5, 0.25])
    for module in content["model"].modules():
        if isinstance(module, torch.nn.Conv2d) and module.kernel_size == (3, 3):
            module.weight.data = (line[:, None] * line).expand_as(module.weight).clone()
    torch.save(content, tmp_path / "binomial.pt")
    for i in range(8):
        noise = np.random.default_rng(i).integers(0, 255, (24, 40, 3), np.uint8)
        cv2.imwrite(str(tmp_path / f"{i}.png"), cv2.resize(noise, (320, 192), interpolation=cv2.INTER_CUBIC))
    found = compare(student=str(tmp_path / "binomial.pt"), images=str(tmp_path / "*.png"), imgsz=320, device="cpu")
    for row in found.exhibit.rows:
        lattice = row.sides["student"].lattice
        if min(lattice.agreement) > 0:
            assert lattice.offset == pytest.approx((0.5, 0.5), abs=lattice.stride[0] / 8)
    assert min(found.exhibit.rows[0].sides["student"].lattice.agreement) > 0.9


def test_oriented_boxes_lie_in_the_picture(checkpoint: Checkpoint, tmp_path: Path) -> None:
    from ultralytics import YOLO

    file = str(checkpoint("yolo11n-obb.yaml", "obb"))
    picture = np.random.default_rng(0).integers(0, 255, (50, 100, 3), np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    sample = compare(student=file, images=tmp_path, imgsz=64, conf=0.0, device="cpu").exhibit.samples[0]
    network = YOLO(file)
    network.task = "obb"  # an untrained checkpoint does not say
    (theirs,) = network.predict(tmp_path / "a.png", imgsz=64, conf=0.0, save=False, verbose=False, device="cpu")
    expected = theirs.obb.xyxyxyxy.reshape(-1, 8).numpy()
    corners = np.array([thing.corners for thing in sample.predictions["student"]]).reshape(-1, 8)
    assert corners.shape == expected.shape and len(corners) > 0
    apart = np.abs(corners[:, None] - expected).max(axis=2)
    assert apart.min(axis=1).max() < 2 and apart.min(axis=0).max() < 2  # theirs rounds the border, and scales sides


def test_classes_that_a_network_does_not_know_are_no_misses(checkpoint: Checkpoint, scenes: Path) -> None:
    student = checkpoint(micro(), name="stranger", nc=3)
    content = torch.load(student, weights_only=False)
    content["model"].names = {0: "cat", 1: "dog", 2: "cow"}
    file = student.with_name("renamed.pt")
    torch.save(content, file)
    found = compare(student=str(file), data=str(scenes), imgsz=64, device="cpu")
    rows = [row for row in found.exhibit.numbers.objects if row["source"] == "label"]
    assert rows and {row["status"] for row in rows} == {None}
    assert "the student does not know the classes" in str(found)


def test_a_network_that_sees_another_size_than_it_learned_on(checkpoint: Checkpoint, scenes: Path) -> None:
    file = checkpoint(micro(), name="sized", seed=5)
    content = torch.load(file, weights_only=False)
    torch.save({**content, "train_args": {"imgsz": 128}}, file)
    at_home = compare(student=str(file), data=str(scenes), max_images=1, device="cpu")
    assert at_home.exhibit.samples[0].frame.input == (128, 128) and "sees" not in str(at_home)
    assert "was trained at 128 px and sees 64 px" in str(
        compare(student=str(file), data=str(scenes), imgsz=64, max_images=1, device="cpu")
    )


def test_one_network_alone(micros: dict[str, str], scenes: Path) -> None:
    found = compare(student=micros["student"], data=str(scenes), imgsz=64, device="cpu")
    assert found.exhibit.reference is None
    assert {row["distance"] for row in found.exhibit.numbers.maps} == {None}
    assert "student" in str(found)


def test_the_untrained_control_is_another_network_of_the_same_shape() -> None:
    student = network(micro())
    before = {name: tensor.clone() for name, tensor in student.state_dict().items()}
    fresh = untrained(student, seed=3)
    assert all(torch.equal(before[name], tensor) for name, tensor in student.state_dict().items())
    assert not torch.equal(fresh.state_dict()["model.0.conv.weight"], before["model.0.conv.weight"])
    again = untrained(student, seed=3).state_dict()
    assert all(torch.equal(again[name], tensor) for name, tensor in fresh.state_dict().items())


def test_what_is_saved(micros: dict[str, str], scenes: Path, tmp_path: Path) -> None:
    found = compare(**micros, data=str(scenes), imgsz=64, max_images=2, device="cpu")
    folder = found.save(tmp_path / "out")
    names = [sample.name for sample in found.exhibit.samples]
    assert sorted(file.name for file in (folder / "sheets").iterdir()) == sorted(f"{name}.png" for name in names)
    with open(folder / "metrics.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * 3 * 2  # images, pairs, networks
    with np.load(folder / "maps.npz") as kept:
        first = found.exhibit.samples[0]
        values = kept[f"{names[0]}/P3/teacher"].astype(float) * kept[f"rms/{names[0]}/P3/teacher"]
        assert values == pytest.approx(first.maps["P3"]["teacher"], rel=2e-3, abs=1e-5)
        assert kept[f"{names[0]}/P3/teacher"].dtype == np.float16
    manifest = json.loads((folder / "manifest.json").read_text())
    assert list(manifest["networks"]) == ["teacher", "student", "baseline"]
    assert (folder / "report.html").stat().st_size > 10_000
    assert "<iframe" in found._repr_html_()
    with pytest.raises(InputError, match="not empty"):
        found.save(folder)


def test_nothing_is_left_when_saving_fails(
    micros: dict[str, str], scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = compare(**micros, data=str(scenes), imgsz=64, max_images=1, device="cpu")
    with pytest.raises(InputError, match="scale 'grey' does not exist: choose one of shared, raw, each"):
        found.save(tmp_path / "out", mode="grey")
    monkeypatch.setattr("distill.jobs.seeing.comparison.write_tables", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        found.save(tmp_path / "deep" / "out")
    assert not list((tmp_path / "deep").iterdir())


def test_a_zero_map_is_kept_as_zeros(micros: dict[str, str], scenes: Path) -> None:
    found = compare(**micros, data=str(scenes), imgsz=64, max_images=1, device="cpu")
    sample = found.exhibit.samples[0]
    sample.maps["P3"]["student"][:] = 0
    kept = arrays(found.exhibit)
    assert not kept[f"{sample.name}/P3/student"].any()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"teacher": None, "student": None, "baseline": None}, "--student is missing"),
        ({"teacher": None}, "--baseline is compared with --teacher"),
        ({"data": None}, "--source is missing"),
        ({"images": "nowhere/*.png"}, "no such file, folder or pattern"),
        ({"split": "test"}, "--split test: the data set has no 'test'; it has train, val"),
        ({"layers": ["P9"]}, "layer 'P9' not found"),
        ({"p": 0.0}, "--p 0.0"),
        ({"conf": 2.0}, "--conf 2.0"),
        ({"max_images": 0}, "--max-images 0"),
        ({"student": "missing.pt"}, "--student missing.pt"),
        ({"device": "tpu9"}, "--device tpu9"),
    ],
)
def test_bad_input_is_one_line(micros: dict[str, str], scenes: Path, change: dict[str, Any], says: str) -> None:
    with pytest.raises(InputError, match=says) as caught:
        compare(**{**micros, "data": str(scenes), "imgsz": 64, "device": "cpu", **change})
    assert "\n" not in str(caught.value)


def test_only_broken_images(micros: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(InputError, match=r"none of the 1 images could be read; the first: .*a.png"):
        compare(student=micros["student"], images=tmp_path, imgsz=64, device="cpu")


def test_grey_networks_are_refused(checkpoint: Checkpoint, scenes: Path) -> None:
    grey = str(checkpoint(micro(), channels=1))
    with pytest.raises(InputError, match="reads 1 channels; pictures have 3"):
        compare(student=grey, data=str(scenes), imgsz=64, device="cpu")


def test_the_adapter_says_how_pictures_are_framed() -> None:
    adapter = ultralytics_adapter()
    wide = np.zeros((40, 80, 3), np.uint8)
    shapes = [
        tuple(adapter.framing(task, families, square)(wide, 64, 32)[0].shape[1:])
        for task, families, square in (
            ("detect", ["yolo", "yolo"], False),
            ("detect", ["yolo"], True),
            ("detect", ["rtdetr", "yolo"], False),
            ("detect", ["rtdetr"], False),
            ("classify", ["yolo"], False),
        )
    ]
    assert shapes == [(32, 64), (64, 64), (64, 64), (64, 64), (64, 64)]
