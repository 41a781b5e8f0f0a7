"""`distill train`: what a user sees of a run, and of every mistake: one line, exit code 2, nothing written."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from ultralytics.utils import YAML

from distill.errors import InputError
from distill.jobs.training import resolved

from .conftest import listing

Words = Callable[..., list[str]]
Cli = Callable[..., tuple[int, str, str]]
RunCli = Callable[..., subprocess.CompletedProcess[str]]


# ---- a run


def test_a_run_from_the_shell(words: Words, run_cli: RunCli, tmp_path: Path) -> None:
    line = words("train", "--seed", "3", "optimizer=SGD", "--layers", "P3,P4@2", "lr0=0.02")  # options among the rest
    done = run_cli(*line, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    folder = tmp_path / "runs" / "distill" / "train"
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

    table = done.stdout[done.stdout.rindex("mAP50-95(B)") :]
    for piece in ("teacher ", "student before ", "student after ", "parameters", "GFLOPs", "CPU ms", "cosine before"):
        assert piece in table
    assert "at_P3" in table and "at_P4" in table and "at_P5" not in table and "times a plain one" in table
    for file in ("weights/best.pt", "weights/last.pt", "results.csv"):
        assert str(folder / file) in table and (folder / file).is_file()

    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["command"].startswith("python -m distill train --teacher ") and "lr0=0.02" in manifest["command"]
    assert manifest["seed"] == 3 and [pair["weight"] for pair in manifest["methods"]["attention"]["pairs"]] == [1, 2]
    args = YAML.load(folder / "args.yaml")
    assert (args["optimizer"], args["lr0"], args["imgsz"]) == ("SGD", 0.02, 64)


def test_a_config_file_and_what_overrides_it(words: Words, cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("share: 0.3\nlayers: [P3, P4]\noptimizer: SGD\nlr0: 0.5\n")
    code, out, _ = cli(words("train", "--config", "mine.yaml", "--layers", "P5", "lr0=0.01", project="here"))
    assert code == 0 and "at_P5" in out
    settings = YAML.load(tmp_path / "here" / "train" / "distill.yaml")
    assert (settings["share"], settings["layers"]) == (0.3, ["P5"])
    assert (settings["trainer"]["optimizer"], settings["trainer"]["lr0"]) == ("SGD", 0.01)


def test_plain_training(words: Words, cli: Cli, tmp_path: Path) -> None:
    code, out, _ = cli(words("train", teacher=None, name="plain", project="here"))
    assert (
        code == 0
        and "\nstudent  " in out
        and "student before" not in out
        and "student after" not in out
        and "cosine" not in out
    )
    assert json.loads((tmp_path / "here" / "plain" / "manifest.json").read_text())["methods"] == {}


@pytest.mark.parametrize(("recipe", "teacher"), [("native-1", None), ("native-1-fit", "t.pt"), ("plain", "t.pt")])
def test_a_recipe_that_names_the_teacher_is_given_it(recipe: str, teacher: str | None) -> None:
    """As in a bench: Ultralytics' own distillation learns from it, and ours only where the recipe does not say none."""
    settings, arguments = resolved(f"recipes/{recipe}", {"teacher": "t.pt", "student": "s.yaml"})
    assert arguments.get("distill_model") == (None if recipe == "plain" else "t.pt")
    assert settings.teacher == teacher
    with pytest.raises(InputError, match="--teacher is missing: --config recipes/native names it"):
        resolved("recipes/native", {})


# ---- mistakes

MISTAKES: dict[str, tuple[list[str], dict[str, str | None], str]] = {  # more words, instead of the usual, what is said
    "an unknown layer": (["--layers", "model.61"], {}, "layer 'model.61' not found in the student; nearest: 'model.6"),
    "an unknown role": (["--layers", "P9"], {}, "layer 'P9' not found in the student; nearest: 'P"),
    "a glob without a match": (["--layers", "model.1?"], {}, "layer 'model.1?' not found"),
    "no partner for it": (["--layers", "5:model.99"], {}, "not found in the teacher"),
    "too small an image": (["imgsz=32"], {}, "leaves a map of one position"),
    "a trainer's setting": (["epoch=3"], {}, "nearest: 'epochs'"),
    "one of our settings": (["teacher_imgz=96"], {}, "nearest: 'teacher_imgsz'"),
    "an option": (["--shere", "0.3"], {}, "'--shere' is no option here; nearest: '--share'"),
    "a trainer's as an option": (["--lr0", "0.3"], {}, "'--lr0' is no option here"),
    "a bare word": (["share"], {}, "'share' is neither an option nor key=value; nearest: '--share'"),
    "a task": (["detect"], {}, "the task follows from the student"),
    "p": (["--p", "0"], {}, "p=0.0 is out of range: a number above 0"),
    "share": (["--share", "-1"], {}, "share=-1.0 is out of range"),
    "form": (["--form", "round"], {}, "form='round' is out of range: one of l2, squared, mean"),
    "a number": (["--teacher-fraction", "half"], {}, "teacher_fraction='half': a number is needed"),
    "a fraction": (["--teacher-fraction", "1.5"], {}, "teacher_fraction=1.5 is out of range"),
    "a size": (["imgsz=big"], {}, "imgsz=big"),
    "a trainer's value": (["lr0=fast"], {}, "lr0"),
    "a weight of zero": (["--weight", "0"], {}, "--weight 0 would distil nothing"),
    "a weight of zero, as a key": (["weight=0.0"], {}, "--weight 0 would distil nothing"),
    "a weight without a teacher": (["--weight", "3"], {"teacher": None}, "--weight has no effect with no --teacher"),
    "a device that is not there": ([], {"device": "63"}, "--device 63: "),
    "a folder as teacher": ([], {"teacher": "runs/distill/done"}, "a folder; give the .pt file"),
    "a description as teacher": ([], {"teacher": "yolo11s.yaml"}, "a description, not a trained network"),
    "two teachers": (["distill_model={teacher}"], {}, "ours or Ultralytics' own, not both at once"),
    "one thing twice": (["--seed", "1", "seed=1"], {}, "'seed' is given twice"),
    "one option twice": (["--seed", "1", "--seed", "2"], {}, "--seed is given twice"),
    "one key twice": (["lr0=1", "lr0=2"], {}, "'lr0' is given twice"),
    "one thing under two names": (["model=x.yaml"], {}, "'student' is given twice"),
    "no data": ([], {"data": None}, "--data is missing"),
    "no student": ([], {"student": None}, "--student is missing"),
    "no such data": ([], {"data": "nowhere.yaml"}, "nowhere.yaml"),
    "no such checkpoint": ([], {"teacher": "gone.pt"}, "--teacher gone.pt: no such file"),
    "no such student": ([], {"student": "yolo11q.yaml"}, "--student yolo11q.yaml: no such file; nearest: 'yolo1"),
    "no such config": (["--config", "yolo11-six-layer"], {}, "no such file; nearest: 'yolo11-six-layers'"),
    "data without val": ([], {"data": "no-val.yaml"}, "no 'val:'"),
    "data without names": ([], {"data": "no-names.yaml"}, "no 'names:'"),
    "an existing folder": (["--name", "done"], {}, "--name done: "),
    "resume with a setting": (
        ["--resume", "runs/distill/done"],
        {},
        "--resume keeps the run's own settings: leave out",
    ),
}


@pytest.fixture
def used(tmp_path: Path, scenes: Path) -> Path:
    """A working folder with a finished run in it, and with two damaged data descriptions."""
    (tmp_path / "runs" / "distill" / "done" / "weights").mkdir(parents=True)
    (tmp_path / "runs" / "distill" / "done" / "results.csv").write_text("epoch\n1\n")
    for key in ("val", "names"):
        content = {**YAML.load(scenes), "path": str(scenes.parent)}
        del content[key]
        YAML.save(tmp_path / f"no-{key}.yaml", content)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    mistake: str, words: Words, cli: Cli, used: Path, teacher: Path
) -> None:
    more, instead, expected = MISTAKES[mistake]
    before = listing(used)
    code, _, err = cli(words("train", *(word.format(teacher=teacher) for word in more), **instead))
    assert code == 2, err
    assert expected in err
    assert err.startswith("distill: ") and err.endswith("\n") and err.count("\n") == 1
    assert listing(used) == before


def test_no_command_shows_the_help(cli: Cli) -> None:
    code, _, err = cli([])
    assert code == 2 and "train a student" in err


def test_a_stride_that_does_not_fit(words: Words, cli: Cli, used: Path, checkpoint: Callable[..., Path]) -> None:
    before = listing(used)
    code, _, err = cli(words("train", "imgsz=96", teacher=checkpoint("yolov8n-p6.yaml")))
    assert (code, err.count("\n")) == (2, 1)
    assert "its stride of 64 does not fit 96 px: use --teacher-imgsz 128, or imgsz=128" in err
    assert listing(used) == before


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (["trian"], "'train'"),
        (["train", "--seed"], "argument --seed: expected one argument"),
        (["info", "more"], "'more' is no option here"),
        (["train", "--teach", "x.pt"], "'--teach' is no option here; nearest: '--teacher'"),  # no abbreviations
    ],
)
def test_a_line_that_is_no_command(line: list[str], expected: str, cli: Cli) -> None:
    code, out, err = cli(line)
    assert (code, out) == (2, "") and err.startswith("distill: ") and expected in err and err.count("\n") == 1


@pytest.mark.parametrize("mistake", ["an unknown layer", "no such checkpoint"])
def test_the_same_from_the_shell(mistake: str, words: Words, run_cli: RunCli, used: Path) -> None:
    more, instead, expected = MISTAKES[mistake]
    before = listing(used)
    done = run_cli(*words("train", *more, **instead), cwd=used)
    assert done.returncode == 2
    assert expected in done.stderr and done.stderr.count("\n") == 1
    assert listing(used) == before


def test_a_failed_proof_leaves_no_folder(words: Words, cli: Cli, used: Path) -> None:
    shutil.rmtree(used / "runs")
    before = listing(used)
    code, _, err = cli(words("train", "freeze=8"))
    assert code == 1 and err.count("\n") == 1
    assert "pair P3: all" in err and "frozen: it cannot teach anything" in err
    assert not list((used / "runs" / "distill").iterdir())
    assert {path: time for path, time in listing(used).items() if "runs" not in path.parts} == before
