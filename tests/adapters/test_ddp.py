"""Two processes train one student: the same weights, the same teacher, one table, one manifest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean
from typing import Any

import pytest
import torch
import yaml

import distill
from distill.adapters.ultralytics import plan as planning
from distill.adapters.ultralytics.inheriting import inherit
from distill.adapters.ultralytics.trainers import KEY
from distill.errors import DistillError
from distill.records import SETTINGS

from . import gloo
from .tiny import micro, network, pairs_of, rows, same, strings_in, weights

pytest.importorskip("cloudpickle")

STILL = {  # every image as it lies on the disk, so that both ways of training see the same ones
    **dict.fromkeys(("mosaic", "hsv_h", "hsv_s", "hsv_v", "fliplr", "translate", "scale"), 0.0),
    "batch": 8,  # the whole of the training set: one step is one epoch
    "nbs": 8,
    "warmup_epochs": 0.0,
}
TINY = {"imgsz": 64, "epochs": 2, "close_mosaic": 0, "workers": 0, "plots": False, "device": "cpu", **STILL}
TINY |= {"init": "none", "features": "none"}  # its own weights, and nothing on trial


class Run:
    """A run and what each of its processes saw."""

    def __init__(self, result: distill.TrainResult, seen: Path) -> None:
        self.result = result
        self.processes = [torch.load(file, weights_only=False) for file in sorted(seen.iterdir())]


@pytest.fixture(scope="module")
def run(
    scenes: Path, checkpoint: Callable[..., Path], teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[..., Run]:
    student = checkpoint(micro(), seed=2)  # weights to begin with: each rank would draw others from the seed

    def train(trainer: type, **more: Any) -> Run:
        folder = tmp_path_factory.mktemp("ddp")
        (folder / "seen").mkdir()
        with pytest.MonkeyPatch.context() as patch:
            patch.setitem(planning.TRAINERS, ("yolo", "detect"), trainer)
            patch.setenv(gloo.SEEN, str(folder / "seen"))
            patch.syspath_prepend(str(Path(__file__).parents[1]))  # where the launcher's processes find `gloo`
            files = {"student": student, "teacher": teacher, "data": scenes, "project": folder / "runs"}
            result = distill.train(**{**{key: str(path) for key, path in files.items()}, **TINY, **more})
        return Run(result, folder / "seen")

    return train


@pytest.fixture(scope="module")
def together(run: Callable[..., Run]) -> Run:
    return run(gloo.Gloo)


@pytest.fixture(scope="module")
def alone(run: Callable[..., Run], together: Run) -> Run:
    """One process, with the precision that two chose."""
    return run(gloo.Witness, teacher_precision=together.processes[0]["precision"])


def test_both_processes_end_with_the_same_student(together: Run) -> None:
    first, second = together.processes
    assert first["processes"] == second["processes"] == 2
    assert first["parallel"] == second["parallel"] == "OnCPU" and first["plain"] == second["plain"] == "DetectionModel"
    assert same(first["after"], second["after"]) and not same(first["before"], first["after"])


def test_both_processes_measured_one_weight(together: Run) -> None:
    """What rank 0 wrote down holds for all: the mean of what each found (`gloo` sees to it that they find others)."""
    first, second = together.processes
    manifest = together.result.manifest
    assert first["weights"] == second["weights"] == manifest["weights"]
    assert manifest["weights"].keys() == {"attention", "classes", "boxes"} and min(manifest["weights"].values()) > 0
    assert first["precision"] == second["precision"] == manifest["teacher_precision"]


def test_the_loss_is_that_of_one_process_with_the_whole_batch(together: Run, alone: Run) -> None:
    """The mean over processes of each pair's loss, on the same eight images and the same untrained student.

    Each weight was measured on batches of its own, so the losses are compared without it. (Those of the head's outputs
    are means over each process's own confident cells, which is no mean of means.) BatchNorm is fixed; what is
    left is the order in which float32 is summed over four images or eight, hence the tolerance of 1e-4. (The task's
    loss is no mean: Ultralytics divides each process's by its own number of targets.)
    """
    assert same(together.processes[0]["before"], alone.processes[0]["before"])
    names = ("at_P3", "at_P4", "at_P5")
    several = [mean([p["losses"][0][n] / p["weights"]["attention"] for p in together.processes]) for n in names]
    one = [alone.processes[0]["losses"][0][n] / alone.processes[0]["weights"]["attention"] for n in names]
    assert several == pytest.approx(one, rel=1e-4)
    halves = [process["losses"][0]["at_P3"] for process in together.processes]
    assert halves[0] != pytest.approx(halves[1], rel=1e-3)  # each saw images of its own


def test_one_table_and_one_manifest(together: Run, alone: Run, teacher: Path) -> None:
    listed = rows(together.result.table)
    assert [row["epoch"] for row in listed] == [1, 2]
    assert list(listed[0]) == list(rows(alone.result.table)[0])
    assert all(0 < row["train/at_loss"] < 10 and 0 < row["train/cos_P3"] <= 1 for row in listed)
    assert all({"train/at_cls", "train/at_box"} <= row.keys() for row in listed)
    manifest, expected = together.result.manifest, alone.result.manifest
    assert manifest.keys() == expected.keys() and manifest["finished"] and manifest["world_size"] == 2
    assert manifest["after"]["metrics"].keys() == expected["after"]["metrics"].keys()
    assert manifest["before"]["student"]["metrics"].keys() == expected["before"]["student"]["metrics"].keys()
    assert not [path.name for path in together.result.folder.rglob(".*")]


def test_the_settings_survive_the_launcher_which_deletes_the_folder(together: Run, alone: Run, teacher: Path) -> None:
    assert together.result.manifest["teacher"]["file"] == str(teacher)
    assert pairs_of(together.result.manifest) == pairs_of(alone.result.manifest)
    args = yaml.safe_load((together.result.folder / "args.yaml").read_text())
    assert args[KEY]["weights"] == together.result.manifest["weights"]
    assert (together.result.folder / SETTINGS).is_file()
    for file in (together.result.best, together.result.last):
        assert weights(file).keys() == weights(alone.result.best).keys()
        assert not [text for text in strings_in(file) if text.startswith(("distill.", "adapters."))]


@pytest.mark.slow
def test_the_step_is_that_of_one_process_with_the_whole_batch(run: Callable[..., Run]) -> None:
    """With no loss but ours, one step of SGD moves the student alike: factors of batch size and processes are right.

    Tolerance: as above, now through a backward pass.
    """
    only_ours = {**dict.fromkeys(("box", "cls", "dfl", "weight_decay"), 0.0), "weight": 1.0, "response": "none"}
    ways = [
        run(t, epochs=1, optimizer="SGD", teacher_precision="float32", **only_ours) for t in (gloo.Gloo, gloo.Witness)
    ]
    moves = []
    for way in ways:
        before, after = way.processes[0]["before"], way.processes[0]["after"]
        moves.append(torch.cat([(after[name] - before[name]).flatten() for name in before]))
    assert moves[1].norm() > 0
    assert (moves[0] - moves[1]).norm() < 1e-3 * moves[1].norm()


@pytest.mark.slow
def test_a_proof_that_fails_in_the_processes_leaves_nothing(
    run: Callable[..., Run], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The exit code of the launcher is all that comes back: one line, no folder."""
    with pytest.raises(DistillError, match="training on several devices failed"):
        run(gloo.Gloo, freeze=8)  # all that the taps read
    last = max(tmp_path_factory.getbasetemp().glob("ddp*"), key=lambda folder: folder.stat().st_ctime)
    assert not list((last / "seen").iterdir()) and not list((last / "runs").iterdir())


@pytest.mark.slow
def test_both_processes_start_as_the_same_part_of_the_teacher(
    run: Callable[..., Run], student: Path, teacher: Path
) -> None:
    """Though each draws a student of its own from a seed of its own."""
    both = run(gloo.Gloo, student=str(student), init="teacher", epochs=1)
    part, whole = network(micro()), network(micro(2), seed=1)
    inherit(part, whole, whole.names)
    expected = {name: tensor.detach() for name, tensor in part.named_parameters()}
    assert all(same(process["before"], expected) for process in both.processes)
    assert both.result.manifest["initialised"]["share"] == 1.0


@pytest.mark.slow
def test_both_processes_go_on_from_one_fit_where_nothing_else_is_taught(run: Callable[..., Run], student: Path) -> None:
    """One of them fits; both validate what came of it together, or one would wait for ever."""
    both = run(gloo.Gloo, student=str(student), init="fit", layers="none", response="none", epochs=1)
    first, second = (process["before"] for process in both.processes)
    assert same(first, second)
    assert both.result.manifest["initialised"]["start"] == "fitted"
    assert "metrics/mAP50-95(B)" in both.result.manifest["before"]["student"]["metrics"]


@pytest.mark.slow
def test_both_processes_take_what_one_trial_found(run: Callable[..., Run]) -> None:
    """One of them tries features, and both teach them or leave them out; or they would wait for each other."""
    for trainer, taught in ((gloo.Helped, True), (gloo.Harmed, False)):
        both = run(trainer, features="auto", epochs=1)
        assert both.result.manifest["trial"]["taught"] is taught
        for process in both.processes:
            assert ("features" in process["weights"]) is taught
            assert all(("ft_P3" in loss) is taught for loss in process["losses"])
