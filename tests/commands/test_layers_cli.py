"""`distill layers`: what is printed and written, and every mistake: one line, exit code 2, nothing written."""

from __future__ import annotations

import csv
import json
import math
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from distill.config import read_config, settings_from

from .conftest import listing

Cli = Callable[..., tuple[int, str, str]]
RunCli = Callable[..., subprocess.CompletedProcess[str]]
FILES = {
    *("layers.csv", "layers.json", "cka.csv", "cka_chance.csv", "cosine.csv", "cosine_shuffled.csv"),
    *("matrices.png", "suggestion.yaml"),
}


@pytest.fixture
def words(scenes: Path, student: Path, teacher: Path) -> Callable[..., list[str]]:
    def make(*more: object, **instead: object) -> list[str]:
        options = {"teacher": teacher, "student": student, "data": scenes, "split": "train", "imgsz": 64, **instead}
        named = [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]
        return ["layers", *named, *map(str, more)]

    return make


def table(file: Path) -> list[list[str]]:
    with open(file, encoding="utf-8", newline="") as lines:
        return list(csv.reader(lines))


# ---- what it does


def test_two_networks(cli: Cli, words: Callable[..., list[str]], tmp_path: Path) -> None:
    code, out, err = cli(words())
    assert (code, err) == (0, "")
    folder = tmp_path / "runs" / "layers" / "layers"
    assert {file.name for file in folder.iterdir()} == FILES
    for piece in ("teacher ", "student ", "untrained", "suggested pairs, from 8 images", "note: ", "matrices.png"):
        assert piece in out

    content = json.loads((folder / "layers.json").read_text())
    assert [pair["pattern"] for pair in content["suggestion"]["pairs"]] == content["suggestion"]["layers"]
    assert content["networks"]["teacher"]["trained"] and not content["networks"]["student"]["trained"]
    assert len(content["networks"]["teacher"]["sha256"]) == 64
    for name in ("cka", "cka_chance", "cosine", "cosine_shuffled"):
        head, *rows = table(folder / f"{name}.csv")
        assert head == ["teacher \\ student", *map(str, range(8))] and [row[0] for row in rows] == head[1:]
        numbers = [[float(cell) if cell else None for cell in row[1:]] for row in rows]
        assert numbers == content["compared"][name]
    head, *rows = table(folder / "layers.csv")
    assert head[:4] == ["network", "name", "type", "roles"] and len(rows) == 16
    assert all(0 < float(row[head.index("share")]) < 1 for row in rows)

    again, _, _ = cli(words())
    assert again == 0 and (folder.parent / "layers2" / "layers.json").is_file()
    assert len(list(folder.parent.iterdir())) == 2  # nothing half-written beside them


def test_the_suggestion_is_a_config(cli: Cli, words: Callable[..., list[str]], student: Path, checkpoint) -> None:
    from distill.jobs.layers.suggestions import Candidate

    from ..adapters.tiny import micro

    trained = checkpoint(micro(2), name="other", seed=3)
    code, out, _ = cli(words("--out", "here", student=trained, layers="P3,P4,B3,B4"))
    assert code == 0
    settings = settings_from(read_config("here/suggestion.yaml"))
    content = json.loads(Path("here/layers.json").read_text())
    assert list(settings.layers) == content["suggestion"]["layers"]
    if settings.layers:
        assert f"--layers {','.join(settings.layers)}" in out
    assert Candidate.__dataclass_fields__.keys() <= content["candidates"][0].keys()


def test_one_network(cli: Cli, words: Callable[..., list[str]], tmp_path: Path) -> None:
    code, out, err = cli(words("--depth", "all", "--out", "alone", teacher=None, data=None))
    assert (code, err) == (0, "") and "suggested" not in out
    assert {file.name for file in (tmp_path / "alone").iterdir()} == {"layers.csv", "layers.json"}
    head, *rows = table(tmp_path / "alone" / "layers.csv")
    inner = next(row for row in rows if row[1] == "model.3.conv")
    assert inner[head.index("share")] == "" and float(inner[head.index("reach")]) > 0  # not measured, so not 0


def test_json_alone_on_standard_output(words: Callable[..., list[str]], run_cli: RunCli, tmp_path: Path) -> None:
    new = {"YOLO_CONFIG_DIR": str(tmp_path / "new")}  # where Ultralytics greets a new user on standard output
    done = run_cli(*words("--json", teacher=None, data=None), cwd=tmp_path, env=new)
    assert done.returncode == 0, done.stderr
    content = json.loads(done.stdout)
    assert content == json.loads((tmp_path / "runs" / "layers" / "layers" / "layers.json").read_text())
    assert list(content["networks"]) == ["student"]


def test_json_of_two_networks(words: Callable[..., list[str]], cli: Cli) -> None:
    code, out, _ = cli(words("--json", "--max-images", "4", layers="P3"))
    content = json.loads(out)
    assert code == 0
    assert len(content["images"]) == 4 and content["compared"]["student"] == ["model.5"]
    assert all(math.isfinite(value) for row in content["compared"]["cka"] for value in row)


def test_the_tool(
    words: Callable[..., list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tool = Path(__file__).resolve().parents[2] / "tools" / "compare_layers.py"
    monkeypatch.setattr(sys, "argv", [str(tool), *words()[1:], "--out", str(tmp_path / "out")])
    runpy.run_path(str(tool), run_name="__main__")
    assert "suggested pairs" in capsys.readouterr().out and (tmp_path / "out" / "matrices.png").is_file()


# ---- mistakes

MISTAKES: dict[str, tuple[list[str], dict[str, object], str]] = {  # more words, instead of the usual, what is said
    "no network": ([], {"teacher": None, "student": None}, "--student is missing"),
    "no data": ([], {"data": None}, "--data is missing"),
    "no such data": ([], {"data": "nowhere.yaml"}, "nowhere.yaml"),
    "no such teacher": ([], {"teacher": "gone.pt"}, "--teacher gone.pt: no such file"),
    "no such student": ([], {"student": "yolo11q.yaml"}, "--student yolo11q.yaml: no such file; nearest: 'yolo1"),
    "a description as teacher": ([], {"teacher": "yolo11s.yaml"}, "a description, not a trained network"),
    "no such split": ([], {"split": "test"}, "--split test: "),
    "an unknown role": ([], {"layers": "P9"}, "layer 'P9' not found in the teacher; nearest: 'P"),
    "an unknown layer": ([], {"layers": "P3,61:4"}, "layer '61' not found in the student"),
    "layers of one network": ([], {"layers": "P3", "teacher": None}, "--layers says what is compared"),
    "too small a grid": ([], {"layers": "P5", "imgsz": 32}, "has fewer than 2x2 cells: use a larger --imgsz"),
    "a size that does not fit": ([], {"imgsz": 70}, "--imgsz 70: not a multiple of 32: use 96"),
    "a size of nothing": ([], {"imgsz": 0}, "--imgsz 0: not a multiple of 32: use 32"),
    "too few images": (["--max-images", "3"], {}, "--max-images 3: at least 4"),
    "too few in the split": ([], {"data": "three/data.yaml"}, "3 images to compare on, and 4 are needed"),
    "too small a batch": (["--batch", "2"], {}, "--batch 2: at least 4"),
    "no number": (["--batch", "some"], {}, "--batch"),
    "a device that is not there": (["--device", "63"], {}, "--device 63: "),
    "a folder that is not empty": (["--out", "three"], {}, "three exists and is not empty"),
    "no depth": (["--depth", "some"], {}, "--depth"),
    "one option twice": (["--student", "x.pt"], {}, "--student is given twice"),
    "a seed": (["--seed", "-1"], {}, "--seed -1"),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_and_writes_nothing(
    mistake: str, words: Callable[..., list[str]], cli: Cli, tmp_path: Path, scenes: Path
) -> None:
    more, instead, expected = MISTAKES[mistake]
    (tmp_path / "three").mkdir()
    for image in sorted((scenes.parent / "images" / "train").glob("*.png"))[:3]:
        (tmp_path / "three" / image.name).write_bytes(image.read_bytes())
    folder = tmp_path / "three"
    (folder / "data.yaml").write_text(f"train: {folder}\nval: {folder}\nnames: [a]\n")
    before = listing(tmp_path)
    code, out, err = cli(words(*more, **instead))
    assert (code, out) == (2, ""), err
    assert expected in err
    assert err.startswith("distill: ") and err.endswith("\n") and err.count("\n") == 1
    assert listing(tmp_path) == before
