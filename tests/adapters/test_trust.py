"""Checkpoints that would act: nothing in a file is executed without trust.

These tests import ultralytics before `prepare` could set any flag: the harder case, where safety is ours alone.
"""

from __future__ import annotations

import builtins
import os
import pickle
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from torch import nn
from ultralytics.nn import tasks
from ultralytics.nn.distill_model import DistillationModel
from ultralytics.nn.modules import Conv
from ultralytics.utils.checks import check_requirements

from distill.adapters.ultralytics.inputs import read_checkpoint
from distill.adapters.ultralytics.pickles import actions

from .kit import Calls, description, network, teacher, write

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def attacks(mark: Path) -> Iterator[tuple[str, Calls]]:
    """Each would leave the file `mark`, run pip, or fetch and run code."""
    touch = f"import pathlib; pathlib.Path({str(mark)!r}).touch()"
    yield "posix.system", Calls(os.system, f"touch {mark}")
    yield "builtin", Calls(builtins.eval, f"exec({touch!r})")
    yield "builtin", Calls(builtins.exec, touch)
    pip = [sys.executable, "-m", "pip", "install", "--target", str(mark), "six"]
    yield "commands.call", Calls(subprocess.call, [sys.executable, "-c", touch])  # as Python 2 called it
    yield "commands.call", Calls(subprocess.call, pip)
    yield "check_requirements", Calls(check_requirements, "a-package-of-an-attacker")
    yield "torch.hub", Calls(torch.hub.load, str(mark.parent), "anything", "x", True, False)


def test_malicious_pickles_are_not_executed(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    (tmp_path / "hubconf.py").write_text(f"open({str(mark)!r}, 'w')")
    for words, attack in attacks(mark):
        torch.save({"model": attack, "train_args": {}}, tmp_path / "zip.pt")
        torch.save({"model": attack}, tmp_path / "legacy.pt", _use_new_zipfile_serialization=False)
        (tmp_path / "raw.pt").write_bytes(pickle.dumps(attack))
        text = teacher(tmp_path / "zip.pt")
        assert words in text and "--trust" in text, text
        assert "old format" in teacher(tmp_path / "legacy.pt")
        assert "old format" in teacher(tmp_path / "raw.pt")
        assert not mark.exists(), words


def test_the_attacks_are_real(tmp_path: Path) -> None:
    """Or else the test above shows nothing: with trust, the first one runs."""
    torch.save({"model": next(attacks(tmp_path / "mark"))[1]}, tmp_path / "zip.pt")
    teacher(tmp_path / "zip.pt", trust=True)
    assert (tmp_path / "mark").exists()


def test_constructors_are_not_called_either(tmp_path: Path) -> None:
    """The restricted loader would: the first one reads a second file without restriction (ultralytics 8.4.190)."""
    torch.save({"model": Calls(os.system, f"touch {tmp_path / 'mark'}")}, tmp_path / "second.pt")
    torch.save({"model": Calls(DistillationModel, str(tmp_path / "second.pt"), network())}, tmp_path / "first.pt")
    assert "unfinished run" in teacher(tmp_path / "first.pt")
    (tmp_path / "net.yaml").write_text("")
    for built in (Calls(tasks.DetectionModel, str(tmp_path / "net.yaml")), Calls(nn.Conv2d, 1, 1, 1)):
        torch.save({"model": built}, tmp_path / "first.pt")
        assert f"constructs {built.call[0].__module__}.{built.call[0].__name__}" in teacher(tmp_path / "first.pt")
    assert not (tmp_path / "mark").exists()


def test_rehearsal_reports_names_and_calls_alone() -> None:
    found = actions(pickle.dumps({"a": Calls(os.system, "exit 1"), "b": [Path, {os.getcwd}]}, protocol=2))
    assert found.calls == {"posix.system", "__builtin__.set"}
    assert found.names == {*found.calls, "pathlib.Path", "posix.getcwd"}


class Odd(Conv):
    """A layer that the restricted loader does not know."""


def test_trust_loads_an_unusual_class(tmp_path: Path) -> None:
    model = network(activation="compile('1', '', 'eval') and torch.nn.ReLU()")
    model.model[1].__class__ = Odd
    torch.save({"model": model}, tmp_path / "odd.pt")
    assert "test_trust.Odd" in teacher(tmp_path / "odd.pt")
    assert isinstance(read_checkpoint(tmp_path / "odd.pt", "--teacher", trust=True).module.model[1], Odd)


def test_code_in_the_architecture_of_a_checkpoint(tmp_path: Path) -> None:
    model = network()
    for key, value in (("activation", "__import__('os').system('touch mark') or nn.SiLU()"), ("head", [])):
        model.yaml = {**description(), key: value}
        torch.save({"model": model}, tmp_path / "m.pt")
        assert "the architecture in it" in teacher(tmp_path / "m.pt")
    model.yaml = description(backbone=[[-1, 1, "check_requirements", ["a-package-of-an-attacker"]]])
    torch.save({"model": model}, tmp_path / "m.pt")
    assert "layer 0 is 'check_requirements'" in teacher(tmp_path / "m.pt")
    assert not Path("mark").exists()


def test_a_user_who_imported_ultralytics_first_is_safe_too(tmp_path: Path) -> None:
    torch.save({"model": Calls(os.system, f"touch {tmp_path / 'mark'}")}, tmp_path / "evil.pt")
    torch.save({"model": Calls(DistillationModel, str(tmp_path / "evil.pt"), network())}, tmp_path / "nested.pt")
    write("m.yaml", description(activation=f"__import__('os').system('touch {tmp_path / 'mark'}')"))
    script = """
import ultralytics.nn.tasks as tasks
assert not tasks.SAFE_LOAD
from distill.adapters.ultralytics.environment import prepare
prepare()
assert not tasks.SAFE_LOAD  # too late for the flag
from distill.adapters.ultralytics.inputs import read_checkpoint, read_model_yaml
from distill.errors import InputError
for read, file in ((read_checkpoint, "evil.pt"), (read_checkpoint, "nested.pt"), (read_model_yaml, "m.yaml")):
    try:
        read(file, "--teacher")
    except InputError as error:
        print("refused:", error)
"""
    variables = {k: v for k, v in os.environ.items() if k not in ("ULTRALYTICS_SAFE_LOAD", "YOLO_AUTOINSTALL")}
    variables["PYTHONPATH"] = str(REPOSITORY)
    run = subprocess.run([sys.executable, "-c", script], env=variables, capture_output=True, text=True, timeout=120)
    assert run.returncode == 0 and run.stdout.count("refused:") == 3, run.stdout + run.stderr
    assert not (tmp_path / "mark").exists()
