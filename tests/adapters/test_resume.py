"""A run that is killed or stopped goes on as if nothing had happened; whatever cannot go on is refused in one line."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import signal
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import yaml
from ultralytics.nn import tasks

from distill.adapters.ultralytics.staging import STAGING
from distill.adapters.ultralytics.trainers import KEY
from distill.records import MANIFEST, sha256

from . import apart
from .apart import Ended, strike
from .kit import Calls
from .tiny import rows, weights

pytestmark = pytest.mark.skipif(sys.platform == "win32", reason="kills as POSIX does")
EPOCHS = 3
TRAINERS = "distill.adapters.ultralytics.trainers"
TASKS = "distill.adapters.ultralytics.tasks"
MIXIN = f"{TRAINERS}:DistillationMixin"
SESSION = "distill.adapters.ultralytics.session:Session"
BASE = "ultralytics.engine.trainer"


class Place:
    """A folder in which `distill train` runs in processes of its own; the run is in runs/a."""

    def __init__(self, path: Path, words: list[object]) -> None:
        self.path, self.words = path, words
        self.folder = path / "runs" / "a"

    def start(self, *words: object, name: str = "a", before: Callable[[], None] | None = None) -> Ended:
        return apart.distill("train", *self.words, "--name", name, *words, cwd=self.path, before=before)

    def resume(self, path: object = "runs/a", *words: object, before: Callable[[], None] | None = None) -> Ended:
        return apart.distill("train", "--resume", path, *words, cwd=self.path, before=before)

    def refused(self, path: object = "runs/a", *words: object) -> str:
        """The one line with which a resume is refused; the folder is left as it was."""
        before = contents(self.folder)
        ended = self.resume(path, *words)
        assert ended.code == 2, ended.output[-3000:]
        assert len(ended.output.strip().splitlines()) == 1 and ended.last_line.startswith("distill: ")
        assert contents(self.folder) == before
        return ended.last_line


@pytest.fixture(scope="module")
def words(scenes: Path, student: Path, teacher: Path) -> list[object]:
    ours = ("--student", student, "--teacher", teacher, "--data", scenes, "--project", "runs")
    theirs = (f"epochs={EPOCHS}", "imgsz=64", "batch=4", "close_mosaic=0", "workers=0", "plots=False", "device=cpu")
    return [*ours, *theirs]


@pytest.fixture
def place(tmp_path: Path, words: list[object]) -> Place:
    return Place(tmp_path, words)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, words: list[object]) -> Path:
    """The folder of a run that nothing interrupted."""
    there = Place(tmp_path_factory.mktemp("whole"), words)
    assert there.start().code == 0
    return there.folder


@pytest.fixture(scope="module")
def dead(tmp_path_factory: pytest.TempPathFactory, words: list[object]) -> Path:
    """The folder of a run that was killed in its second epoch."""
    there = Place(tmp_path_factory.mktemp("dead"), words)
    died(there.start(before=strike(f"{MIXIN}.save_model", 2)))
    return there.folder


@pytest.fixture
def moved(dead: Path, place: Place) -> Place:
    """That run, copied to another place."""
    shutil.copytree(dead, place.folder)
    return place


def died(ended: Ended) -> None:
    assert ended.code == -signal.SIGKILL, ended.output[-3000:]


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def manifest(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / MANIFEST).read_text())
    return found


def settings(folder: Path) -> dict[str, Any]:
    """What a run must keep whatever happens to it."""
    found = manifest(folder)
    keys = ("weights", "teacher_precision", "seed", "methods", "teacher", "initialised", "command", "data")
    first = {key: value for key, value in found["initialised"].items() if key != "seconds"}  # it may be done again
    return {**{key: found[key] for key in keys}, "initialised": first}


def check_finished(folder: Path, whole: Path, kept: dict[str, Any], epochs: int = EPOCHS) -> None:
    """All epochs, once; the columns of an uninterrupted run; the settings of the beginning; nothing lies about."""
    table = rows(folder / "results.csv")
    assert [row["epoch"] for row in table] == list(range(1, epochs + 1))
    assert list(table[0]) == list(rows(whole / "results.csv")[0])
    assert all(row[f"train/{name}"] > 0 for row in table for name in ("at_loss", "cos_P3", "at_cls", "at_box"))
    tried = {"features"} if manifest(folder)["trial"]["taught"] else set()
    assert kept["initialised"]["start"] == "fitted"
    assert kept["weights"].keys() == {"attention", "classes", "boxes"} | tried  # the default
    assert manifest(folder)["finished"] and manifest(folder).keys() == manifest(whole).keys()
    assert settings(folder) == kept
    used = yaml.safe_load((folder / "args.yaml").read_text())[KEY]
    assert (used["weights"], used["precision_used"]) == (kept["weights"], kept["teacher_precision"])
    assert contents(folder).keys() == contents(whole).keys()
    assert {path.name for path in folder.iterdir()} == {path.name for path in whole.iterdir()}
    for file in (folder / "weights").iterdir():
        content = torch.load(file, map_location="cpu", weights_only=False)
        assert content["epoch"] == -1 and content["optimizer"] is None and KEY not in content["train_args"]
        assert all(tensor.isfinite().all() for tensor in weights(file).values())


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


class Moment(NamedTuple):
    """How the process dies, how many epochs the checkpoint has that is left, how many are listed."""

    before: Callable[[], None]
    epochs: int
    listed: int


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


def measure_nothing() -> None:
    """What was measured at first is kept, for another time it might come out otherwise."""
    for where in ("distill.teacher:Teacher.choose_precision", "distill.proof:weight_for_share"):
        owner, name, _ = apart.find(where)
        setattr(owner, name, None)


@pytest.mark.parametrize("moment", [pytest.param(m, marks=() if m in FAST else pytest.mark.slow) for m in MOMENTS])
def test_a_killed_run_goes_on(moment: str, place: Place, whole: Path) -> None:
    at, folder = MOMENTS[moment], place.folder
    died(place.start(before=at.before))
    listed = rows(folder / "results.csv")
    assert [row["epoch"] for row in listed] == list(range(1, at.listed + 1))
    kept = settings(folder)
    last = folder / "weights/last.pt"
    assert last.exists() == (at.epochs > 0)
    if last.exists():
        assert tasks.torch_safe_load(last, safe_only=True)[0]["epoch"] == at.epochs - 1  # whole
        assert weights(folder / "weights/best.pt")

    ended = place.resume("runs/a/weights/last.pt" if at.epochs >= 2 else "runs/a", before=measure_nothing)
    assert ended.code == 0, ended.output[-3000:]
    check_finished(folder, whole, kept)
    table = rows(folder / "results.csv")
    assert table[: at.epochs] == listed[: at.epochs]  # what was done is not done again
    if at.epochs == 0:  # from the same seed, with the weight and the precision of then: the same epoch
        listed[0].pop("time"), table[0].pop("time")
        assert table[0] == listed[0]


@pytest.mark.slow
def test_a_run_may_be_killed_again(place: Place, whole: Path) -> None:
    died(place.start(before=strike(f"{MIXIN}.save_metrics")))
    kept = settings(place.folder)
    died(place.resume(before=strike(f"{MIXIN}.save_model", 2)))
    died(place.resume(before=strike(f"{MIXIN}.save_model")))
    died(place.resume(before=strike(f"{MIXIN}.final_eval")))
    assert place.resume().code == 0
    check_finished(place.folder, whole, kept)


def end_early() -> None:
    """Every epoch is worse than the one before it."""
    owner, name, original = apart.find(f"{BASE}:EarlyStopping.__call__")
    setattr(owner, name, lambda self, epoch, fitness: original(self, epoch, 1 / epoch))


def die_after_ending_early() -> None:
    end_early()
    strike(f"{MIXIN}.final_eval")()


def test_a_run_that_had_stopped_early_is_only_finished(place: Place, whole: Path) -> None:
    died(place.start("patience=1", before=die_after_ending_early))
    kept = settings(place.folder)
    assert place.resume().code == 0
    check_finished(place.folder, whole, kept, epochs=2)


def watch_links() -> None:
    """Every checkpoint gets a second name as soon as it is there: who writes into the file writes into both."""
    owner, name, original = apart.find(f"{BASE}:BaseTrainer.run_callbacks")

    def run_callbacks(self: Any, event: str) -> None:
        if event == "on_model_save":
            for file in (self.last, self.best):
                link = Path(f"{file.stem}-{self.epoch}.pt")
                os.link(file, link)
                shutil.copy(link, link.with_suffix(".copy"))
        original(self, event)

    setattr(owner, name, run_callbacks)


def test_a_checkpoint_is_replaced_and_never_written_into(place: Place) -> None:
    assert place.start(before=watch_links).code == 0
    links = sorted(place.path.glob("*.pt"))
    assert len(links) == 2 * EPOCHS
    for link in links:
        assert link.read_bytes() == link.with_suffix(".copy").read_bytes(), link.name
    assert len({link.stat().st_ino for link in links if link.name.startswith("last")}) == EPOCHS


# ---- stopped by the user


def test_ctrl_c_says_how_to_go_on(place: Place, whole: Path) -> None:
    ended = place.start(name="my run", before=strike(f"{MIXIN}._model_train", 2, after=True, sign=signal.SIGINT))
    folder = place.folder.with_name("my run")
    assert ended.code == 130, ended.output[-3000:]
    said = "distill: stopped; go on with: "
    assert ended.last_line.startswith(said) and "Traceback" not in ended.output
    command = shlex.split(ended.last_line.removeprefix(said))
    assert command == ["distill", "train", "--resume", str(folder)]
    kept = settings(folder)
    assert apart.distill(*command[1:], cwd=place.path).code == 0
    check_finished(folder, whole, kept)


@pytest.mark.parametrize(
    "where", [f"{TASKS}:DistillDetectionTrainer.get_dataset", "distill.adapters.ultralytics.session:prove"]
)
def test_ctrl_c_before_training_leaves_nothing(where: str, place: Place) -> None:
    ended = place.start(before=strike(where, sign=signal.SIGINT))
    assert ended.code == 130
    assert ended.last_line == "distill: stopped before training began; nothing was kept"
    assert "Traceback" not in ended.output
    assert not list((place.path / "runs").iterdir())


@pytest.mark.slow
def test_ctrl_c_while_a_checkpoint_is_written_or_stripped(place: Place, whole: Path) -> None:
    stop = partial(strike, sign=signal.SIGINT)
    assert place.start(before=stop(f"{BASE}:BaseTrainer.save_model", 2, after=True)).code == 130
    kept = settings(place.folder)
    assert not (place.folder / STAGING).exists()
    assert place.resume(before=stop(f"{BASE}:strip_optimizer", 2)).code == 130
    assert not (place.folder / STAGING).exists()
    assert place.resume().code == 0
    check_finished(place.folder, whole, kept)


# ---- where it goes on, and where it must not


def test_a_moved_folder_goes_on_where_it_is(moved: Place, whole: Path, dead: Path) -> None:
    before, kept = contents(dead), settings(dead)
    ended = moved.resume(moved.folder)
    assert ended.code == 0, ended.output[-3000:]
    check_finished(moved.folder, whole, kept)
    assert contents(dead) == before
    assert manifest(moved.folder)["after"]["checkpoint"] == str(moved.folder / "weights/best.pt")
    assert yaml.safe_load((moved.folder / "args.yaml").read_text())["save_dir"] == str(moved.folder)


def test_a_finished_run_has_nothing_to_resume(whole: Path, place: Place) -> None:
    shutil.copytree(whole, place.folder)
    for path in ("runs/a", "runs/a/weights/last.pt", "runs/a/weights/best.pt"):
        assert "is finished: nothing is left to resume" in place.refused(path)
    (place.folder / "weights/last.pt").unlink()
    assert "is finished: nothing is left to resume" in place.refused()


def test_a_folder_that_ultralytics_would_misread_is_refused_at_once(place: Place) -> None:
    """It drops apostrophes from paths: after the last epoch it would not find the checkpoint."""
    ended = place.start(name="it's mine")
    assert ended.code == 2 and ended.last_line.startswith("distill: ") and "it's mine" in ended.last_line
    assert not (place.path / "runs").exists()


def test_a_folder_used_again_is_back_after_a_kill_before_training_began(whole: Path, place: Place) -> None:
    """Ultralytics would have deleted its results.csv by then."""
    shutil.copytree(whole, place.folder)
    (place.folder / "notes.txt").write_text("mine")
    before = contents(place.folder)
    died(place.start("exist_ok=True", before=strike("distill.adapters.ultralytics.session:prove")))
    assert contents(place.folder) != before
    ended = place.resume()
    assert ended.code == 2 and "is finished: nothing is left to resume" in ended.last_line
    assert contents(place.folder) == before and [path.name for path in place.folder.parent.iterdir()] == ["a"]


def test_what_is_no_run_is_refused(place: Place) -> None:
    place.folder.mkdir(parents=True)
    assert "nothing to resume" in place.refused()
    assert "no such run folder" in place.refused("runs/b")


def test_the_teacher_has_to_be_the_one_of_the_beginning(moved: Place, checkpoint: Callable[..., Path]) -> None:
    other = checkpoint({"nc": 6, **yaml.safe_load(Path(moved.words[1]).read_text())}, name="other", seed=3)  # type: ignore[arg-type]
    teacher = moved.path / "teacher.pt"
    change(moved.folder, teacher=str(teacher))
    line = moved.refused()
    assert "--teacher" in line and str(teacher) in line and "no such file" in line
    shutil.copy(other, teacher)
    line = moved.refused()
    assert str(teacher) in line and "changed since this run began" in line


def change(folder: Path, **own: Any) -> None:
    """Our settings in last.pt, changed."""
    file = folder / "weights/last.pt"
    content = torch.load(file, map_location="cpu", weights_only=False)
    content["train_args"][KEY].update(own)
    torch.save(content, file)


# ---- trust


def test_a_checkpoint_does_not_vouch_for_itself(moved: Place) -> None:
    """Neither for the files that it names nor for those that lie beside it."""
    mark, bad = moved.path / "mark", moved.path / "bad.pt"
    torch.save({"model": Calls(open, str(mark), "w")}, bad)
    change(moved.folder, trust=True)
    honest = contents(moved.folder)

    change(moved.folder, teacher=str(bad), teacher_sha256=sha256(bad))
    assert "--teacher" in moved.refused() and not mark.exists()
    for name in ("last.pt", "best.pt"):
        shutil.copy(bad, moved.folder / "weights" / name)
        line = moved.refused()
        assert "--resume" in line and name in line and not mark.exists()
        for path, content in honest.items():
            (moved.folder / path).write_bytes(content)
    assert moved.resume().code == 0
    assert yaml.safe_load((moved.folder / "args.yaml").read_text())[KEY]["trust"] is False
