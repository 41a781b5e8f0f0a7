"""A label cache is a pickle: one that came with a data set must not run anything."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill.adapters.ultralytics.environment import prepare
from distill.errors import InputError
from distill.scenes import write_scenes

prepare()

from distill.adapters.ultralytics.inputs import read_data  # noqa: E402


class Shell:
    """Unpickling it runs a command."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> Any:
        return os.system, (f"touch {self.marker}",)


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_scenes(tmp_path / "scenes", train=4, val=4, size=64)


def save(cache: Path, content: Any) -> None:
    with open(cache, "wb") as file:  # as Ultralytics does
        np.save(file, content)


@pytest.mark.parametrize("place", ["labels/train.cache", "labels/val.cache", "labels/train/deep.cache"])
def test_a_cache_that_would_run_a_command_is_refused(data: Path, tmp_path: Path, place: str) -> None:
    marker = tmp_path / "marker"
    save(data.parent / place, {"labels": [], "hash": Shell(marker)})
    with pytest.raises(InputError, match=r"names posix.system.*delete it") as error:
        read_data(data, "detect")
    assert "\n" not in str(error.value)
    assert not marker.exists()


def test_a_list_of_images_leads_to_its_cache(data: Path, tmp_path: Path) -> None:
    marker = tmp_path / "marker"
    images = sorted((data.parent / "images/train").iterdir())
    (data.parent / "train.txt").write_text("\n".join(map(str, images)))
    data.write_text(data.read_text().replace("train: images/train", "train: train.txt"))
    save(data.parent / "labels/train.cache", {"hash": Shell(marker)})
    with pytest.raises(InputError, match=r"names posix.system"):
        read_data(data, "detect")
    assert not marker.exists()


def test_trust_reads_on(data: Path, tmp_path: Path) -> None:
    save(data.parent / "labels/train.cache", {"hash": Shell(tmp_path / "marker")})
    assert read_data(data, "detect", trust=True)["nc"] == 6


def test_a_damaged_cache_is_named(data: Path) -> None:
    (data.parent / "labels/train.cache").write_bytes(b"nothing of the kind")
    with pytest.raises(InputError, match=r"train.cache is damaged.*delete it"):
        read_data(data, "detect")


def test_the_caches_that_ultralytics_writes_pass(data: Path) -> None:
    from ultralytics.cfg import get_cfg
    from ultralytics.data.build import build_yolo_dataset

    found = read_data(data, "detect")
    build_yolo_dataset(get_cfg(overrides={"imgsz": 64}), found["train"], 2, found, mode="train", stride=32)
    assert (data.parent / "labels/train.cache").is_file()
    assert read_data(data, "detect")["nc"] == 6
