"""A run that is killed or stopped goes on as if nothing had happened; whatever cannot go on is refused in one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from ultralytics.nn import tasks

from distill.adapters.ultralytics.trainers import KEY, STAGING
from distill.records import MANIFEST, SETTINGS, keep_epochs, put_back, set_aside

from . import apart
from .apart import Ended, strike
from .tiny import rows, weights

EPOCHS = 3
TRAINERS = "distill.adapters.ultralytics.trainers"
MIXIN = f"{TRAINERS}:DistillationMixin"
SESSION = "distill.adapters.ultralytics.session:Session"
BASE = "ultralytics.engine.trainer"

Start = Callable[..., Ended]


@pytest.fixture
def start(scenes: Path, student: Path, teacher: Path, tiny: dict[str, Any], tmp_path: Path) -> Start:
    """`distill train` into runs/a in a process of its own; `before` spoils the process."""

    def run(*words: object, before: Callable[[], None] | None = None) -> Ended:
        ours = ("--student", student, "--teacher", teacher, "--data", scenes, "--project", "runs", "--name", "a")
        theirs = [f"{key}={value}" for key, value in {**tiny, "epochs": EPOCHS}.items()]
        return apart.distill("train", *ours, *theirs, *words, cwd=tmp_path, before=before)

    return run


@pytest.fixture
def resume(tmp_path: Path) -> Start:
    def run(path: object = "runs/a", *words: object, before: Callable[[], None] | None = None) -> Ended:
        return apart.distill("train", "--resume", path, *words, cwd=tmp_path, before=before)

    return run


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "runs" / "a"


@pytest.fixture(scope="module")
def whole(
    scenes: Path, student: Path, teacher: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[list[dict[str, float]], dict[str, torch.Tensor]]:
    """The table and the final weights of the same run, never interrupted."""
    place = tmp_path_factory.mktemp("whole")
    words = ("--student", student, "--teacher", teacher, "--data", scenes, "--project", "runs", "--name", "a")
    tiny = ("epochs=3", "imgsz=64", "batch=4", "close_mosaic=0", "workers=0", "plots=False", "device=cpu")
    assert apart.distill("train", *words, *tiny, cwd=place).code == 0
    return rows(place / "runs/a/results.csv"), weights(place / "runs/a/weights/last.pt")


def died(ended: Ended) -> None:
    assert ended.code == -signal.SIGKILL, ended.output[-3000:]


def manifest(folder: Path) -> dict[str, Any]:
    return json.loads((folder / MANIFEST).read_text())


def settings(folder: Path) -> dict[str, Any]:
    """What a run must keep whatever happens to it."""
    found = manifest(folder)
    return {key: found[key] for key in ("weights", "teacher_precision", "seed", "pairs", "teacher", "command", "data")}


def finished(folder: Path, whole: tuple[list[dict[str, float]], Any], kept: dict[str, Any]) -> None:
    """All epochs, once; the columns of a run that nothing interrupted; the settings of the beginning; nothing lying about."""
    table = rows(folder / "results.csv")
    assert [row["epoch"] for row in table] == [1, 2, 3]
    assert list(table[0]) == list(whole[0][0])
    assert all(row["train/at_loss"] > 0 and row["train/cos_P3"] > 0 for row in table)
    assert manifest(folder)["finished"] and settings(folder) == kept
    assert sorted(path.name for path in (folder / "weights").iterdir()) == ["best.pt", "last.pt"]
    assert not [path.name for path in folder.rglob(".*")]
    last = torch.load(folder / "weights/last.pt", map_location="cpu", weights_only=False)
    assert last["epoch"] == -1 and last["optimizer"] is None and KEY not in last["train_args"]
    assert all(tensor.isfinite().all() for tensor in weights(folder / "weights/last.pt").values())


# ---- killed at a moment


def die_half_written(name: str, time: int) -> None:
    """Dies in the `time`-th writing of a file of this name, half of its bytes written."""
    original, calls = Path.write_bytes, 0

    def write_bytes(self: Path, data: bytes) -> int:
        nonlocal calls
        calls += self.name == name
        if self.name == name and calls == time:
            original(self, data[: len(data) // 2])
            os.kill(os.getpid(), signal.SIGKILL)
        return original(self, data)

    Path.write_bytes = write_bytes  # type: ignore[method-assign, assignment]


def die_half_stripped(name: str) -> None:
    """Dies as Ultralytics strips the file of this name, which it does in place, half of its bytes written."""
    owner, attribute, original = apart.find(f"{BASE}:strip_optimizer")

    def strip_optimizer(file: Path, *args: Any, **kwargs: Any) -> Any:
        found = original(file, *args, **kwargs)
        if Path(file).name == name:
            os.truncate(file, Path(file).stat().st_size // 2)
            os.kill(os.getpid(), signal.SIGKILL)
        return found

    setattr(owner, attribute, strip_optimizer)


class Moment:
    """When the process dies, and after how many epochs the checkpoint that is left was written."""

    def __init__(self, before: Callable[[], None], epochs: int, listed: int) -> None:
        self.before, self.epochs, self.listed = before, epochs, listed


from functools import partial  # noqa: E402

MOMENTS = {
    "before the first checkpoint": Moment(strike(f"{MIXIN}.save_model"), 0, 1),
    "half of last.pt written": Moment(partial(die_half_written, "last.pt", 2), 1, 2),
    "row appended, last.pt not renamed": Moment(strike("os:replace", 2, if_named="last.pt"), 1, 2),
    "best.pt renamed, last.pt not": Moment(strike("os:replace", 2, after=True, if_named="best.pt"), 1, 2),
    "before the row": Moment(strike(f"{MIXIN}.save_metrics", 3), 2, 2),
    "after the last epoch": Moment(strike(f"{MIXIN}.final_eval"), 3, 3),
    "half of last.pt stripped": Moment(partial(die_half_stripped, "last.pt"), 3, 3),
    "half of best.pt stripped": Moment(partial(die_half_stripped, "best.pt"), 3, 3),
    "before the end is measured": Moment(strike(f"{SESSION}.end"), 3, 3),
    "after the end is recorded": Moment(strike(f"{SESSION}.end", after=True), 3, 3),
    "best.pt stripped, last.pt not": Moment(strike("os:replace", EPOCHS + 1, if_named="last.pt"), 3, 3),
}
FAST = ("before the first checkpoint", "row appended, last.pt not renamed", "half of best.pt stripped")


@pytest.mark.parametrize("moment", [pytest.param(m, marks=() if m in FAST else pytest.mark.slow) for m in MOMENTS])
def test_a_killed_run_goes_on(moment: str, start: Start, resume: Start, folder: Path, whole: Any) -> None:
    at = MOMENTS[moment]
    died(start(before=at.before))
    listed = rows(folder / "results.csv")
    assert [row["epoch"] for row in listed] == list(range(1, at.listed + 1))
    kept = settings(folder)
    last = folder / "weights/last.pt"
    if at.epochs == 0:
        assert not last.exists()
    else:
        assert tasks.torch_safe_load(last, safe_only=True)[0]["epoch"] == at.epochs - 1  # whole, and the last one
        assert weights(folder / "weights/best.pt")

    ended = resume("runs/a" if at.epochs != 2 else "runs/a/weights/last.pt")
    assert ended.code == 0, ended.output[-3000:]
    finished(folder, whole, kept)
    table = rows(folder / "results.csv")
    same = [name for name in table[0] if name != "time"]
    for epoch in range(at.epochs):  # what was done is not done again
        assert table[epoch] == listed[epoch]
    if at.epochs == 0:  # from the seed: the same run once more
        precision = settings(folder)["teacher_precision"]
        assert [table[0][name] for name in same] == pytest.approx([listed[0][name] for name in same], rel=1e-3), precision
