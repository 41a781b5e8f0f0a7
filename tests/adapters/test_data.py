"""Datasets: resolved as Ultralytics does, refused where they are not there or would be fetched."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from distill.adapters.ultralytics import environment
from distill.adapters.ultralytics.data import find_data_yaml
from distill.adapters.ultralytics.inputs import read_data

from .kit import refusal, write


@pytest.fixture(autouse=True)
def elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def images(*folders: str) -> None:
    for folder in folders:
        Path(folder).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8)).save(Path(folder) / "a.png")


GOOD_DATA = {"path": ".", "train": "images/train", "val": "images/val", "names": ["cat", "dog"]}


def data(content: Any = None, name: str = "data.yaml", task: str = "detect", **keys: Any) -> str:
    if content is not None:
        write(name, {**content, **keys} if isinstance(content, dict) else content)
    return refusal(lambda: read_data(name, task))


@pytest.fixture
def pictures() -> None:
    images("images/train", "images/val")
    Path("nothing").mkdir()


def test_a_dataset(pictures: None, tmp_path: Path) -> None:
    write("data.yaml", GOOD_DATA)
    for given_as in ("data.yaml", tmp_path / "data.yaml", tmp_path):
        read = read_data(given_as, "detect")
        assert read["names"] == {0: "cat", 1: "dog"} and read["nc"] == 2 and read["channels"] == 3
        assert read["train"] == str(tmp_path / "images/train")
    Path("list.txt").write_text("./images/train/a.png\n")
    write("data.yaml", {**GOOD_DATA, "train": ["list.txt", "images/train"], "names": None, "nc": 2})
    assert read_data("data.yaml", "detect")["nc"] == 2


def test_datasets_that_cannot_be_used(pictures: None) -> None:
    assert "nearest: 'coco128.yaml'" in data(name="coco127.yaml") and "no such file" in data(name="nowhere")
    assert "without one data.yaml" in data(name="images")
    assert "ends in .yaml" in data("x", name="data.txt")
    assert "not readable as YAML" in data("- 1") and "not readable as YAML" in data("a: [1")
    assert "no 'train:'" in data(GOOD_DATA, train=None) and "no 'val:'" in data(GOOD_DATA, val=None)
    assert "no 'train:'" in data("")
    assert "'train:' must be a" in data(GOOD_DATA, train={"a": 1})
    assert "no 'names:'" in data(GOOD_DATA, names=None)
    assert "'nc: 3' must match" in data(GOOD_DATA, nc=3)
    for names in ([], ["cat", None], [["cat"]]):
        assert "every class a name" in data(GOOD_DATA, names=names)
    for names in ({1: "cat", 2: "dog"}, {"cat": 0}):
        assert "from 0, without a gap" in data(GOOD_DATA, names=names)
    assert "'names:' must be a list or mapping" in data(GOOD_DATA, names="cat")
    assert "'val:' is" in (text := data(GOOD_DATA, val="images/test")) and "does not exist; correct" in text
    assert "'train:' is" in (text := data(GOOD_DATA, train="images/tset")) and "does not exist; correct" in text
    assert "holds no images" in data(GOOD_DATA, train="nothing") and "holds no images" in data(GOOD_DATA, val="nothing")
    assert "kpt_shape" in data(GOOD_DATA, task="pose")


def test_downloads_need_trust(pictures: None, tmp_path: Path) -> None:
    code = "import pathlib; pathlib.Path('mark').touch()"
    assert "'download:' would be" in data(GOOD_DATA, download=code, val="images/test")
    assert "'download:' would be" in data(GOOD_DATA, download="https://example.org/data.zip")
    for remote in ("https://a.b/data.zip", "ul://user/datasets/x", "data.zip", "data.ndjson", "http://a.b/data.yaml"):
        for task in ("detect", "classify"):
            assert "--trust" in data(name=remote, task=task)
    assert not Path("mark").exists()
    write("data.yaml", {**GOOD_DATA, "download": code, "val": "images/test"})
    assert "'val:'" in refusal(lambda: read_data("data.yaml", "detect", trust=True))  # fetched nothing, but ran
    assert Path("mark").exists()


def test_what_ultralytics_ships_may_download(pictures: None, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []

    def download(url: str, **_: Any) -> None:
        asked.append(url)
        raise ConnectionError("Environment may be offline.")

    monkeypatch.setattr("ultralytics.data.utils.safe_download", download)
    assert "offline" in data(name="coco8.yaml") and "offline" in data(name="coco8")
    assert len(asked) == 2 and all(url.endswith("coco8.zip") for url in asked)
    assert environment.shipped(find_data_yaml("coco8.yaml", ""))
    write("coco8.yaml", {**GOOD_DATA, "download": asked[0]})
    assert not environment.shipped(find_data_yaml("coco8.yaml", ""))
    assert "'download:' would be" in data(name="coco8.yaml") and len(asked) == 2


def test_classification_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    images("pets/train/cat", "pets/train/dog", "pets/test/cat", "pets/test/dog", "half/train/cat", "flat/train")
    images("bare/cat", "empty/train/cat")
    Path("empty/val/cat").mkdir(parents=True)
    Path("data.yaml").touch()
    read = read_data("pets", "classify")
    assert read["names"] == {0: "cat", 1: "dog"} and read["nc"] == 2
    expected = {
        "half": "no val/ or test/",
        "flat": "each class needs one",
        "bare": "no train/",
        "empty": "holds no images",
        "data.yaml": "a file",
        "pest": "nearest: 'pets'",
    }
    for name, words in expected.items():
        assert words in data(name=name, task="classify")
    assert {path.name for path in Path().iterdir()} == {"pets", "half", "flat", "bare", "empty", "data.yaml"}

    def download(*_: Any, **__: Any) -> None:
        raise ConnectionError("Environment may be offline.")

    monkeypatch.setattr("ultralytics.data.utils.download", download)
    assert "offline" in data(name="imagenet10", task="classify")
