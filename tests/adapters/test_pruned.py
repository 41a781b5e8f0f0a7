"""Pruned students are trained as they are; all others are rebuilt from their yaml, as Ultralytics does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from ultralytics.models.yolo.detect import DetectionTrainer
from ultralytics.nn import tasks
from ultralytics.nn.tasks import load_checkpoint

import distill
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.students import is_pruned
from distill.adapters.ultralytics.trainers import KEY
from distill.errors import InputError
from distill.settings import Settings

from .tiny import micro, network, rows, same, weights

Train = Callable[..., distill.TrainResult]
Shapes = dict[str, torch.Size]


def narrow(first: Any, second: Any, kept: int) -> None:
    """Take away all but `kept` of the channels between two of Ultralytics' Convs, as pruning does: for good."""
    for part, names in ((first.conv, ["weight"]), (first.bn, ["weight", "bias"])):
        for name in names:
            setattr(part, name, nn.Parameter(getattr(part, name).detach()[:kept].clone()))
    for name in ("running_mean", "running_var"):
        setattr(first.bn, name, getattr(first.bn, name)[:kept].clone())
    first.conv.out_channels = first.bn.num_features = second.conv.in_channels = kept
    second.conv.weight = nn.Parameter(second.conv.weight.detach()[:, :kept].clone())


def pruned(folder: Path, **keys: Any) -> Path:
    """The micro network with five of the eight channels between its first two layers."""
    model = network(micro(), **keys)
    narrow(model.model[0], model.model[1], 5)
    torch.save({"model": model}, folder / "pruned.pt")
    return folder / "pruned.pt"


def shapes(file: Path) -> Shapes:
    return {name: tensor.shape for name, tensor in weights(file).items()}


def test_a_pruned_yolo11n_is_trained_as_it_is(
    train: Train, checkpoint: Callable[..., Path], starts: list[dict[str, torch.Tensor]], tmp_path: Path, watched: Any
) -> None:
    """Without the hidden channels of one bottleneck, and those between two layers of the head."""
    model = load_checkpoint(checkpoint("yolo11n.yaml"))[0]
    bottleneck, head = model.model[2].m[0], model.model[-1].cv2[0]
    narrow(bottleneck.cv1, bottleneck.cv2, 5)
    narrow(head[0], head[1], 40)
    file = tmp_path / "pruned.pt"
    torch.save({"model": model}, file)

    larger = checkpoint({**tasks.yaml_model_load("yolo11n.yaml"), "scale": "s"}, seed=1)
    result = train(student=file, teacher=larger, init="best", response="auto")
    assert same(starts[0], weights(file)) and result.manifest["initialised"]["start"] == "own"
    for trained in (result.best, result.last):
        assert shapes(trained) == shapes(file)
        assert shapes(trained)["model.2.m.0.cv1.conv.weight"][0] == 5
    trainer = watched["on_train_end"][0]
    fixed = [name for name, p in trainer.model.named_parameters() if not p.requires_grad]
    assert fixed == ["model.23.dfl.conv.weight"]
    assert not same(weights(result.last), weights(file))
    assert all(rows(result.table)[0][f"train/{column}"] > 0 for column in ("at_P3", "at_cls", "at_box"))


def test_it_stays_pruned_when_it_goes_on(
    train: Train, teacher: Path, starts: list[dict[str, torch.Tensor]], tmp_path: Path, cut_off: Callable[..., None]
) -> None:
    file = pruned(tmp_path)
    cut_off(lambda: train(student=file, teacher=teacher, epochs=2, name="a"))
    folder = tmp_path / "runs" / "a"
    reached = weights(folder / "weights/last.pt")
    result = distill.resume(folder)
    assert same(starts[1], reached)
    assert shapes(result.best) == shapes(result.last) == shapes(file)
    assert [row["epoch"] for row in rows(result.table)] == [1, 2]


# ---- what is refused, before anything is written


def test_another_number_of_classes_is_refused_at_once(train: Train, teacher: Path, tmp_path: Path) -> None:
    before = set(tmp_path.rglob("*"))
    with pytest.raises(InputError, match="--student: a pruned network keeps its head, made for 4 classes.* has 6"):
        train(student=pruned(tmp_path, nc=4), teacher=teacher)
    assert set(tmp_path.rglob("*")) - before == {tmp_path / "pruned.pt"}


@pytest.fixture
def planned(scenes: Path, tmp_path: Path) -> Callable[..., Plan]:
    def make(student: Path | str, task: str = "detect", **arguments: Any) -> Plan:
        return plan(Settings(str(student), str(scenes)), {"imgsz": 64, "device": "cpu", **arguments}, "a test")

    return make


def test_classes_are_counted_as_the_trainer_will(planned: Callable[..., Plan], tmp_path: Path) -> None:
    file = pruned(tmp_path, nc=1)
    with pytest.raises(InputError, match="1 classes"):
        planned(file)
    assert planned(file, single_cls=True)
    assert planned(file, pretrained=False)  # its weights are not wanted, so it is rebuilt


def test_to_polygons_a_semantic_student_needs_a_background(planned: Callable[..., Plan], tmp_path: Path) -> None:
    for nc in (6, 7):
        model = network(micro(head=("SemanticSegment", ["nc"])), "semantic", nc=nc)
        narrow(model.model[0], model.model[1], 5)
        torch.save({"model": model}, tmp_path / f"{nc}.pt")
    assert planned(tmp_path / "7.pt")
    with pytest.raises(InputError, match="made for 6 classes, but the data has 7"):
        planned(tmp_path / "6.pt")


# ---- what is rebuilt


def built(prepared: Plan, folder: Path, trainer: type | None = None) -> Any:
    """The student as a trainer sets it up: ours, or the one given."""
    overrides = {**prepared.overrides, "save_dir": str(folder)}
    if trainer is not None:
        overrides.pop(KEY)
    made = (trainer or prepared.trainer)(overrides=overrides)
    made.setup_model()
    return made.model


@pytest.mark.parametrize("nc", [6, 80])
def test_an_ordinary_student_is_rebuilt_as_ultralytics_does(
    nc: int, planned: Callable[..., Plan], tmp_path: Path
) -> None:
    """Bit for bit: the weights that fit are taken over, the rest is drawn from the same seed."""
    model = network(micro(), nc=nc)
    model.names = {i: f"thing {i}" for i in range(nc)}  # Ultralytics takes over rows of the head by name
    file = tmp_path / "ordinary.pt"
    torch.save({"model": model}, file)
    assert not is_pruned(load_checkpoint(file)[0])
    prepared = planned(file)
    ours, theirs = built(prepared, tmp_path / "ours"), built(prepared, tmp_path / "theirs", DetectionTrainer)
    assert same(ours.state_dict(), theirs.state_dict())
    assert ours.names == theirs.names and ours.model[-1].nc == 6
    taken = {name for name, tensor in weights(file).items() if torch.equal(tensor, ours.state_dict()[name])}
    assert "model.1.conv.weight" in taken and ("model.8.cv3.0.2.weight" in taken) == (nc == 6)


def test_the_yaml_decides_where_weights_come_from_elsewhere(
    planned: Callable[..., Plan], student: Path, tmp_path: Path
) -> None:
    """`pretrained=` lends weights to a network; it does not replace it, and its classes do not matter."""
    full = {name: tensor.shape for name, tensor in network(micro()).state_dict().items()}
    file = pruned(tmp_path, nc=4)
    for prepared in (planned(student, pretrained=str(file)), planned(file, pretrained=False)):
        found = built(prepared, tmp_path / "run")
        assert {name: tensor.shape for name, tensor in found.state_dict().items()} == full
