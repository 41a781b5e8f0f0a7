"""`distill bench`: every mistake is one line, exit code 2, and nothing is written or started."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.jobs.benching import benches

from ..jobs.benching import kit
from .conftest import listing

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def words(scenes: Path, student: Path, teacher: Path) -> Callable[..., list[str]]:
    """A command line of `distill bench` with the usual files, or others, or without (None)."""

    def make(*more: object, **instead: object) -> list[str]:
        options = {"teacher": teacher, "student": student, "data": scenes, "arms": "plain,attention", **instead}
        options = {"seeds": 1, "device": "cpu", **options}
        named = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
        return ["bench", *named, "imgsz=64", *([] if "epochs" in str(more) else ["epochs=1"]), *map(str, more)]

    return make


MISTAKES: dict[str, tuple[list[str], dict[str, str | None], str]] = {  # more words, instead of the usual, what is said
    "no arms": ([], {"arms": None}, "--arms is missing"),
    "no student": ([], {"student": None}, "--student is missing"),
    "no data": ([], {"data": None}, "--data is missing"),
    "an unknown arm": ([], {"arms": "plain,atention"}, "no such recipe; nearest: 'attention'"),
    "an arm twice": ([], {"arms": "plain,plain"}, "'plain' is listed twice"),
    "a recipe that is not there": ([], {"arms": "gone.yaml"}, "--arms gone.yaml: no such file"),
    "a recipe with a wrong key": ([], {"arms": "plain,wrong.yaml"}, "arm 'wrong': lr00= is no setting"),
    "a recipe with a wrong layer": ([], {"arms": "plain,layer.yaml"}, "arm 'layer': layer 'P9' not found"),
    "a recipe with a seed": ([], {"arms": "plain,seeded.yaml"}, "arm 'seeded': 'seed' is not for it to set"),
    "a recipe of weight 0": ([], {"arms": "zero.yaml"}, "arm 'zero': weight: 0 would distil nothing"),
    "both teachers": ([], {"arms": "both.yaml"}, "ours or Ultralytics' own, not both at once"),
    "no teacher": ([], {"teacher": None}, "--teacher is missing: arm 'attention' learns from one"),
    "a teacher that is not there": ([], {"teacher": "gone.pt"}, "arm 'attention': --teacher gone.pt: no such file"),
    "no seeds": ([], {"seeds": "0"}, "--seeds 0: no seed, no run"),
    "seeds that are none": ([], {"seeds": "1,x"}, "'x' is neither a number"),
    "no jobs": (["--jobs", "0"], {}, "--jobs 0: a whole number from 1"),
    "half a job": (["--jobs", "0.5"], {}, "invalid whole number value: '0.5'"),
    "a device that is not there": ([], {"device": "cpu,63"}, "--device 63"),
    "a device twice": ([], {"device": "cpu,cpu"}, "the same device twice"),
    "a trainer's setting": (
        ["epoch=3"],
        {},
        "arm 'plain': epoch= is no setting of ours or of Ultralytics'; nearest: 'epochs'",
    ),
    "no budget": (["epochs=0"], {}, "epochs=0: a whole number from 1 is needed"),
    "an option of every arm's": (["--cpu-bfloat16"], {}, "here it is written cpu_bfloat16=..."),
    "arms apart": (["native"], {}, "several values are separated by commas"),
    "what no arm takes": (["share=0.4"], {}, "share=0.4: no arm takes it"),
    "no teacher by name": ([], {"teacher": "none", "arms": "attention"}, "--teacher is missing: arm 'attention'"),
    "a seed for all": (["seed=3"], {}, "a bench: 'seed' is not for it to set"),
    "a folder that exists": (["--name", "done"], {}, "exists: go on with --resume"),
    "somebody else's folder": (["--name", "other"], {}, "exists and is not empty"),
    "a bare word": (["fast"], {}, "'fast' is neither an option nor key=value"),
    "an option": (["--seed", "3"], {}, "'--seed' is no option here; nearest: '--seeds'"),
    "resume with settings": (["--resume", "runs/bench/done"], {}, "--resume keeps the bench's own settings: leave out"),
}
RECIPES = {
    "wrong": "teacher: none\nlr00: 1\n",
    "layer": "layers: [P9]\n",
    "seeded": "seed: 3\n",
    "zero": "weight: 0\n",
    "both": 'distill_model: "{teacher}"\n',
}


@pytest.fixture
def used(tmp_path: Path) -> Path:
    """A working folder with recipes, a bench and something else where benches lie."""
    kit.folder_of(kit.plan(["plain"]), tmp_path / "runs" / "bench" / "done")
    (tmp_path / "runs" / "bench" / "other").mkdir()
    (tmp_path / "runs" / "bench" / "other" / "thesis.txt").touch()
    for name, text in RECIPES.items():
        (tmp_path / f"{name}.yaml").write_text(text)
    return tmp_path


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    mistake: str, words: Callable[..., list[str]], cli: Cli, used: Path
) -> None:
    more, instead, expected = MISTAKES[mistake]
    before = listing(used)
    code, _, err = cli(words(*more, **instead))
    assert code == 2, err
    assert expected in err
    assert err.startswith("distill: ") and err.count("\n") == 1
    assert listing(used) == before


@pytest.mark.parametrize("option", ["--resume", "--report"])
def test_a_folder_that_is_no_bench(option: str, cli: Cli, used: Path) -> None:
    before = listing(used)
    code, _, err = cli(["bench", option, "runs/bench/other"])
    assert code == 2 and "no bench lies there" in err and err.count("\n") == 1
    assert listing(used) == before


def test_report_at_any_time(cli: Cli, used: Path) -> None:
    code, out, err = cli(["bench", "--report", "runs/bench/done"])
    assert (code, err) == (0, "") and "0 of 2 runs are done" in out
    assert (used / "runs" / "bench" / "done" / "report.html").is_file()


def test_exit_codes_of_runs(cli: Cli, used: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = kit.Fake({"plain": 0.4}, codes={("plain", 1): 5})
    monkeypatch.setattr(benches, "train_command", fake)
    code, out, _ = cli(["bench", "--resume", "runs/bench/done"])
    assert code == 1 and "1 of 2 runs are done; failed: plain seed 1" in out
    fake.codes.clear()
    assert cli(["bench", "--resume", "runs/bench/done"])[0] == 0
    note = used / "runs" / "bench" / "done" / "runs" / "plain" / "seed1.json"
    assert json.loads(note.read_text())["code"] == 0
