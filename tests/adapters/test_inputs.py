"""The trainer's settings, the environment, and the words that errors are made of."""

from __future__ import annotations

import os
import sys

import pytest
from ultralytics.nn import tasks
from ultralytics.utils import LOGGER

from distill.adapters.ultralytics import environment
from distill.adapters.ultralytics.inputs import check_ultralytics_settings
from distill.text import given, nearest, one_line

from .kit import refusal

# ---- the trainer's settings


def test_settings_are_parsed_as_on_ultralytics_command_line() -> None:
    asked = {"epochs": "3", "lr0": "1e-2", "cos_lr": "true", "freeze": "[0, 1]", "name": "7", "time": "None", "seed": 5}
    found = check_ultralytics_settings(asked)
    assert found == {"epochs": 3, "lr0": 0.01, "cos_lr": True, "freeze": [0, 1], "name": "7", "time": None, "seed": 5}
    assert check_ultralytics_settings({"optimizer": "sgd", "save_dir": "x", "batch": 0.5})["optimizer"] == "sgd"
    assert check_ultralytics_settings({"label_smoothing": "0.1", "hide_labels": "True"}) == {"show_labels": False}
    assert asked["epochs"] == "3"


def test_settings_that_are_refused(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LOGGER, "propagate", True)
    expected = {
        ("epohcs", "3"): "nearest: 'epochs'",
        ("epochs", "many"): "epochs=many",
        ("epochs", "0"): "must be >= 1",
        ("epochs", ""): "no value",
        ("lr0", "2"): "between 0.0 and 1.0",
        ("lr0", None): "must not be None",
        ("amp", "fp8"): "amp=fp8",
        ("cos_lr", "maybe"): "must be a bool",
        ("imgsz", "big"): "image size",
        ("imgsz", "-64"): "image size",
        ("imgsz", "64.5"): "image size",
        ("optimizer", "AdamX"): "nearest: 'Adamax', 'Adam'",
        ("mode", "val"): "the command decides",
        ("task", "pose"): "the network decides",
        ("cfg", "x.yaml"): "--config",
        ("resume", "True"): "--resume",
        ("end2end", "3"): "must be a bool",
    }
    for (key, value), words in expected.items():
        text = refusal(lambda: check_ultralytics_settings({key: value}))  # noqa: B023
        assert words in text, text
    assert "yolo TASK MODE" not in caplog.text


# ---- the environment


def test_prepare_sets_the_flags_unless_trusted(monkeypatch: pytest.MonkeyPatch) -> None:
    for flag in ("ULTRALYTICS_SAFE_LOAD", "YOLO_AUTOINSTALL"):
        monkeypatch.setenv(flag, "")  # so that monkeypatch puts back what was there
        monkeypatch.delenv(flag)
    environment.prepare(trust=True)
    assert "ULTRALYTICS_SAFE_LOAD" not in os.environ and "YOLO_AUTOINSTALL" not in os.environ
    environment.prepare()
    assert (os.environ["ULTRALYTICS_SAFE_LOAD"], os.environ["YOLO_AUTOINSTALL"]) == ("true", "false")


def test_prepare_names_what_is_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("8.4.179", "8.5.0", "9.0"):
        with monkeypatch.context() as patch:
            patch.setattr("ultralytics.__version__", version)
            assert environment.NEEDED in refusal(environment.prepare)
    with monkeypatch.context() as patch:
        patch.setattr(tasks, "torch_safe_load", lambda weight: None)
        assert "torch_safe_load" in refusal(environment.prepare)
    with monkeypatch.context() as patch:
        patch.setattr(tasks._SafeLoad, "SUPPORTED", False)
        assert "torch>=2.6" in refusal(environment.prepare)
    with monkeypatch.context() as patch:
        patch.setitem(sys.modules, "ultralytics", None)
        assert environment.NEEDED in refusal(environment.prepare)


# ---- words


def test_words() -> None:
    assert nearest("epohcs", ["epochs", "batch"]) == "; nearest: 'epochs'"
    assert nearest("P9", ["P3", "P4"]) == "; nearest: 'P4', 'P3'"
    assert nearest("x", [], n=0) == "" and nearest("qqq", ["model"]) == ""
    assert one_line("ERROR ❌️ a\n  b\x1b[31m c") == "a b c"
    assert given("--teacher", "a.pt") == "--teacher a.pt" and given("pretrained=", "a.pt") == "pretrained=a.pt"
    assert "\n" not in given("--teacher", "a\nb")
