"""The commands are tried on the adapter's tiny data and networks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from distill.cli import main

from ..adapters.conftest import checkpoint, scenes, student, teacher  # noqa: F401

TINY = ("imgsz=64", "batch=4", "epochs=1", "nbs=4", "warmup_epochs=0", "plots=False")


@pytest.fixture
def words(scenes: Path, student: Path, teacher: Path) -> Callable[..., list[str]]:  # noqa: F811
    """words("train", "--seed", "1", data=None): a command line with the usual teacher, student and data, or others."""

    def make(command: str, *more: object, **instead: object) -> list[str]:
        options = {"teacher": teacher, "student": student, "data": scenes, "device": "cpu", **instead}
        named = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
        written = {str(word).partition("=")[0] for word in more}
        return [command, *named, *map(str, more), *(word for word in TINY if word.partition("=")[0] not in written)]

    return make


@pytest.fixture
def cli(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """cli(words): exit code, stdout and stderr of a command in this process, whose working folder is tmp_path."""
    monkeypatch.chdir(tmp_path)

    def run(words: list[str]) -> tuple[int, str, str]:
        capsys.readouterr()
        code = main(words)
        captured = capsys.readouterr()
        return code, captured.out, captured.err

    return run


def listing(folder: Path) -> dict[Path, int]:
    """Every file and folder under `folder`, with the time of its last change."""
    return {path: path.stat().st_mtime_ns for path in folder.rglob("*")}
