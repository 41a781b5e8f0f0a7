"""`distill doctor` passes where distillation would work, fails by name where it would not, and writes nothing."""

from __future__ import annotations

import subprocess
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from distill.teacher import Teacher
from distill.terms.attention import AttentionTerm
from distill.terms.base import Reading

from .conftest import listing

Words = Callable[..., list[str]]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture(autouse=True)
def nothing_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Neither in the working folder, nor is anything left where temporary files go."""
    folder = tmp_path / "cwd"
    temporary = tmp_path / "temporary"
    folder.mkdir()
    temporary.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(temporary))
    monkeypatch.setenv("TMPDIR", str(temporary))
    yield
    assert listing(folder) == {} and not list(temporary.glob("distill*"))


@pytest.fixture
def doctor(
    cli: Cli, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, list[str]]]:
    """doctor("--weight", "0"): the exit code and the lines of the failed checks."""
    monkeypatch.chdir(tmp_path / "cwd")

    def run(*more: str, **instead: Any) -> tuple[int, list[str]]:
        code, out, err = cli(words("doctor", *more, **instead))
        assert "distill: " not in err  # on a busy machine there is progress
        failed = [line.strip() for line in out.splitlines() if line.lstrip().startswith("FAIL  ")]
        assert out.rstrip().endswith("checks failed" if failed else "checks passed")
        return code, sorted(set(failed))  # the trainer logs them, the command prints them

    return run


def test_a_good_pairing_passes(
    words: Words, run_cli: Callable[..., subprocess.CompletedProcess[str]], tmp_path: Path
) -> None:
    done = run_cli(*words("doctor"), cwd=tmp_path / "cwd")
    assert done.returncode == 0, done.stderr
    end = done.stdout[done.stdout.rindex("taps:") :]
    for check in (
        *("taps", "teacher", "pair P3", "pair P4", "pair P5", "class scores", "boxes"),
        *(
            "weight of attention",
            "weight of classes",
            "weight of boxes",
            "features",
            "teacher on this data",
            "teaching",
        ),
    ):
        assert f"{check}: " in end
    taught = 4 * ("features: taught" in end)  # three pairs and a weight more, if the trial let them in
    assert "FAIL" not in done.stdout and end.rstrip().endswith(f"all {14 + taught} checks passed")
    assert "model.5 Conv" in done.stdout and "16x8x8" in done.stdout  # what is paired with what


def test_a_warning_fails_nothing(doctor: Callable[..., tuple[int, list[str]]]) -> None:
    assert doctor("freeze=2") == (0, [])


def test_a_dead_tap(doctor: Callable[..., tuple[int, list[str]]], checkpoint: Callable[..., Path]) -> None:
    pico = Path(__file__).resolve().parents[2] / "configs" / "models" / "yolo11-pico.yaml"
    layers = "model.23.dfl.conv:P3"  # box decoding, which training does without
    code, failed = doctor("--layers", layers, student=pico, teacher=checkpoint("yolo11n.yaml"))
    assert code == 1
    assert failed == [
        "FAIL  taps: layer 'model.23.dfl.conv' (Conv2d) did not run in this forward pass: tap another layer"
    ]


def test_a_weight_of_zero(doctor: Callable[..., tuple[int, list[str]]]) -> None:
    assert doctor("--weight", "0") == (1, ["FAIL  weight of attention: it is zero: the attention loss has no effect"])


def test_a_wholly_frozen_path(doctor: Callable[..., tuple[int, list[str]]]) -> None:
    code, failed = doctor("freeze=[0,1,2,5]", "--layers", "P3,P4")  # the way to P3; that to P4 leads over 3 and 6
    assert code == 1 and len(failed) == 1
    assert failed[0].startswith("FAIL  pair P3: all ") and failed[0].endswith("are frozen: it cannot teach anything")


def test_a_teacher_in_train_mode(doctor: Callable[..., tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    teach = Teacher.__call__

    def train_mode(self: Teacher, images: torch.Tensor) -> dict[str, torch.Tensor]:
        self.module.train()
        return teach(self, images)

    monkeypatch.setattr(Teacher, "__call__", train_mode)
    code, failed = doctor()
    assert code == 1 and failed[0].startswith("FAIL  teacher: ") and "is in train mode" in failed[0]


def test_a_detached_pair(doctor: Callable[..., tuple[int, list[str]]], monkeypatch: pytest.MonkeyPatch) -> None:
    read = AttentionTerm.__call__

    def detached(self: AttentionTerm, *args: Any) -> dict[str, Reading]:
        readings = read(self, *args)
        readings["at_P4"] = replace(readings["at_P4"], loss=readings["at_P4"].loss.detach())
        return readings

    monkeypatch.setattr(AttentionTerm, "__call__", detached)
    code, failed = doctor()
    assert code == 1
    assert failed == ["FAIL  pair P4: detached: its loss has no gradient into the student"]


def test_it_needs_a_teacher(cli: Cli, words: Words, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path / "cwd")
    code, _, err = cli(words("doctor", teacher=None))
    assert (code, err) == (2, "distill: --teacher is missing: doctor checks what a teacher would bring\n")
