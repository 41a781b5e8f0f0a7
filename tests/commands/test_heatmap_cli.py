"""`distill heatmap` as it is typed."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from ..adapters.tiny import micro

Cli = Callable[[list[str]], tuple[int, str, str]]


@pytest.fixture
def networks(checkpoint: Callable[..., Path], teacher: Path) -> list[str]:
    return ["--teacher", str(teacher), "--student", str(checkpoint(micro(), name="small"))]


def test_it_ends_with_where_things_are(cli: Cli, networks: list[str], scenes: Path, tmp_path: Path) -> None:
    images = scenes.parent / "images" / "val"
    broken = tmp_path / "pictures"
    broken.mkdir()
    (broken / "bad.png").write_bytes(b"no image")
    for file in images.iterdir():
        (broken / file.name).write_bytes(file.read_bytes())
    words = ["heatmap", *networks, "--source", str(broken), "--data", str(scenes), "--imgsz", "64", "--device", "cpu"]
    code, out, err = cli([*words, "--layers", "P3,B5", "--max-images", "5"])
    assert (code, re.sub(r"\w+ \d+/\d+\n", "", err)) == (0, "")  # progress, where it takes longer than two seconds
    assert "left out:" in out and "bad.png (not readable as an image)" in out
    folder = tmp_path / "runs" / "distill" / "heatmap"
    assert f"report   {folder.relative_to(tmp_path)}/report.html" in out
    assert len(list((folder / "sheets").iterdir())) == 4
    assert {file.name for file in folder.iterdir()} == {
        *("sheets", "report.html", "maps.npz", "manifest.json"),
        *("metrics.csv", "objects.csv", "summary.csv"),
    }
    code, out, _ = cli([*words, "--layers", "P3", "--max-images", "1"])
    assert code == 0 and "runs/distill/heatmap2/report.html" in out


def test_a_video(cli: Cli, networks: list[str], tmp_path: Path) -> None:
    video = cv2.VideoWriter(str(tmp_path / "clip.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (64, 48))
    for shade in range(0, 200, 20):
        video.write(np.full((48, 64, 3), shade, np.uint8))
    video.release()
    words = ["heatmap", *networks[2:], "--source", "clip.avi", "--every", "4", "--imgsz", "64", "--device", "cpu"]
    code, _, _ = cli([*words, "--layers", "P3", "--out", "out"])
    assert code == 0
    names = sorted(file.stem for file in (tmp_path / "out" / "sheets").iterdir())
    assert names == ["clip_000000", "clip_000004", "clip_000008"]


@pytest.mark.parametrize(
    ("more", "says"),
    [
        (["--opacity", "3"], "--opacity 3.0: a number from 0 to 1"),
        (["--scale", "grey"], "invalid choice: 'grey'"),
        (["--imgsz", "big"], "argument --imgsz: invalid whole number value: 'big'"),
        (["--conf", "nan"], "argument --conf: invalid number value: 'nan'"),
        (["--out", "taken"], "taken exists and is not empty"),
        (["--out", "taken/file/below"], "taken/file/below cannot be made"),
        (["--layer", "P3"], "'--layer' is no option here; nearest: '--layers'"),
        (["--imgsz", "0"], "--imgsz 0"),
        (["--every", "0"], "--every 0"),
        (["--seed", "-1"], "--seed -1"),
    ],
)
def test_bad_input(cli: Cli, networks: list[str], scenes: Path, tmp_path: Path, more: list[str], says: str) -> None:
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "file").touch()
    images = str(scenes.parent / "images" / "val")
    code, out, err = cli(["heatmap", *networks, "--source", images, "--device", "cpu", *more])
    assert (code, out) == (2, "")
    assert says in err and err.count("\n") == 1
    assert not (tmp_path / "runs").exists()


def test_a_timeline_of_nothing(cli: Cli) -> None:
    code, out, err = cli(["timeline", "nowhere"])
    assert (code, out) == (2, "")
    assert "nowhere: it holds no heatmaps/epoch" in err and err.count("\n") == 1
