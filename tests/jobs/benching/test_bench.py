"""A bench from the command line, trained for real: two arms, two seeds, one epoch at 64 px."""

from __future__ import annotations

import csv
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from distill.cli import main
from distill.errors import InputError
from distill.jobs.benching.benches import Arms, bench, report_bench
from distill.jobs.benching.plans import Plan

from ...conftest import ROOT

RunCli = Callable[..., subprocess.CompletedProcess[str]]
TINY = ("imgsz=64", "batch=4", "nbs=4", "warmup_epochs=0", "workers=0", "epochs=1")


def test_a_real_bench(
    scenes: Path,
    student: Path,
    teacher: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(filter(None, [str(ROOT), os.environ.get("PYTHONPATH", "")])))
    (tmp_path / "mine.yaml").write_text("# Two levels only.\nlayers: [P3, P4]\nteacher_precision: float32\n")
    words = ("bench", "--teacher", teacher, "--student", student, "--data", scenes, "--arms", "plain,mine.yaml")
    code = main([*map(str, words), "--seeds", "2", "--jobs", "2", "--device", "cpu", *TINY])  # its runs are processes
    out, err = capsys.readouterr()
    assert code == 0, err
    folder = tmp_path / "runs" / "bench" / "bench"
    assert "4 of 4 runs are done" in out and "minus plain" in out
    assert "paired: yes" in out
    assert "the first runs will tell how long it takes" in err

    with (folder / "runs.csv").open(newline="") as text:
        runs = list(csv.DictReader(text))
    assert [(run["arm"], run["seed"], run["state"]) for run in runs] == [
        *(("plain", "0", "done"), ("mine", "0", "done"), ("plain", "1", "done"), ("mine", "1", "done"))
    ]
    assert all(float(run["memory_bytes"]) > 1e8 and float(run["wall_seconds"]) > 1 for run in runs)
    with (folder / "attention.csv").open(newline="") as text:
        attention = list(csv.DictReader(text))
    assert [row["pair"] for row in attention] == ["P3", "P4", "P5"] * 4
    assert all(0 <= float(row["cosine"]) <= 1 and row["images"] == "4" for row in attention)

    settings = yaml.safe_load((folder / "runs" / "mine" / "seed1" / "distill.yaml").read_text())
    assert (settings["seed"], settings["layers"], settings["share"]) == (1, ["P3", "P4"], 0.2)
    assert (settings["trainer"]["patience"], settings["trainer"]["plots"]) == (1, False)
    page = (folder / "report.html").read_text()
    assert "Two levels only." in page and "Attention and gain" in page and "://" not in page

    before = (folder / "attention.csv").stat().st_mtime_ns
    assert str(report_bench(folder)) in out
    assert (folder / "attention.csv").stat().st_mtime_ns == before  # nothing is measured twice

    (tmp_path / "half.yaml").write_text("# Half of each batch.\nteacher_fraction: 0.5\n")
    more = ["bench", "--resume", str(folder), "--arms"]
    results = [(folder / "runs" / arm / f"seed{seed}" / "results.csv") for arm in ("plain", "mine") for seed in (0, 1)]
    kept = [file.stat().st_mtime_ns for file in results]
    assert main([*more, "half.yaml"]) == 0
    out, err = capsys.readouterr()
    assert "3 arms x 2 seeds (0, 1) = 6 runs, 4 of them done" in err and "6 of 6 runs are done" in out
    assert "paired: yes" in out and [file.stat().st_mtime_ns for file in results] == kept
    added = yaml.safe_load((folder / "runs" / "half" / "seed1" / "distill.yaml").read_text())
    assert (added["seed"], added["teacher_fraction"], added["trainer"]["imgsz"]) == (1, 0.5, 64)
    assert Plan.read(folder).record["command"].count(" && ") == 1
    plan = (folder / "bench.yaml").read_bytes()
    assert main([*more, "plain,default"]) == 2
    assert "this bench has 'plain' already" in capsys.readouterr().err
    assert main([*more, "default", "--seeds", "3"]) == main([*more, ""]) == 2
    assert (folder / "bench.yaml").read_bytes() == plan


@pytest.mark.slow
def test_native_and_a_trial(scenes: Path, student: Path, teacher: Path, run_cli: RunCli, tmp_path: Path) -> None:
    words = ("bench", "--teacher", teacher, "--student", student, "--data", scenes, "--arms", "native-1,attention")
    tiny = [word for word in TINY if not word.startswith("epochs")]
    done = run_cli(
        *words, "--seeds", "7-8", "--jobs", "2", "--device", "cpu", *tiny, "epochs=10", cwd=tmp_path, timeout=900
    )
    assert done.returncode == 0, done.stderr
    assert "timing each arm on" in done.stderr and "left, as measured" in done.stderr
    assert not (tmp_path / "runs" / "bench" / "bench" / ".trial").exists()


@pytest.mark.slow
def test_unets(scenes: Path, run_cli: RunCli, tmp_path: Path) -> None:
    pytest.importorskip("monai")
    (tmp_path / "truth.yaml").write_text("teacher: none\ngates: truth\n")
    words = ("bench", "--student", "attention-unet:2", "--data", scenes.with_name("semantic.yaml"))
    words += ("--arms", "plain,truth.yaml", "--seeds", "2", "--jobs", "2", "--device", "cpu")
    done = run_cli(*words, "epochs=2", "batch=4", "workers=0", cwd=tmp_path, timeout=900)
    assert done.returncode == 0, done.stderr
    assert "4 of 4 runs are done" in done.stdout and "dice of the last epoch" in done.stdout
    assert "no teacher was named to compare attention with" in done.stdout


@pytest.mark.parametrize("arms", [Path("none.yaml"), [Path("none.yaml")], "none.yaml"])
def test_arms_may_be_paths(arms: Arms, scenes: Path, student: Path) -> None:
    with pytest.raises(InputError, match="--arms none.yaml: no such file"):
        bench(student, scenes, arms, epochs=1)
