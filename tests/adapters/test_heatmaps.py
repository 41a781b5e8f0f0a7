"""`--heatmaps` keeps the maps of the same few images, changes nothing else, and ends in a timeline."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from distill import InputError, TrainResult, compare
from distill.jobs.seeing.timeline import read_timeline

from .tiny import halved, pairs_of, same, weights

Train = Callable[..., TrainResult]


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the pictures, which take longer than the training."""
    monkeypatch.setattr("distill.jobs.seeing.timeline.draw_timeline", lambda *_: [])


def maps_of(result: TrainResult) -> dict[str, dict[str, Any]]:
    return {file.stem: dict(np.load(file)) for file in sorted((result.folder / "heatmaps").glob("*.npz"))}


@pytest.mark.usefixtures("undrawn")
def test_maps_are_kept_at_the_epochs_asked_for(train: Train, teacher: Path) -> None:
    plain = train(teacher=teacher, epochs=3)
    result = train(teacher=teacher, epochs=3, heatmaps="1,3")
    kept = maps_of(result)
    assert list(kept) == ["epoch0000", "epoch0001", "epoch0003"]  # before training, and what was asked for
    first, *_, last = kept.values()
    assert list(first["images"]) == list(last["images"])
    for pair in pairs_of(result.manifest):
        student, guide = first[f"student_{pair['name']}"], first[f"teacher_{pair['name']}"]
        assert student.dtype == np.float16 and student.ndim == 3 and len(student) == 4
        assert np.square(student.astype(float)).mean(axis=(1, 2)) == pytest.approx(1, abs=5e-3)
        assert (guide == last[f"teacher_{pair['name']}"]).all()
        assert (student != last[f"student_{pair['name']}"]).any()
        assert first[f"student_{pair['name']}_layer"][0] == pair["student"]
    assert same(weights(plain.last), weights(result.last))


@pytest.mark.usefixtures("undrawn")
def test_the_last_maps_are_those_that_compare_reads(train: Train, teacher: Path, scenes: Path) -> None:
    result = train(teacher=teacher, epochs=2, heatmaps="2")
    exhibits, epochs = read_timeline(result.folder)
    assert epochs == [0, 2]
    seen = compare(str(teacher), str(result.last), data=str(scenes), imgsz=64, device="cpu").exhibit
    for mine, theirs in zip(exhibits[-1].samples, seen.samples, strict=True):
        assert mine.file == theirs.file and mine.frame == theirs.frame and mine.labels == theirs.labels
        for name, sides in theirs.maps.items():
            for key, values in sides.items():
                got = mine.maps[name][key]
                cosine = (got * values).sum() / np.linalg.norm(got) / np.linalg.norm(values)
                assert cosine > 0.999  # last.pt is in half precision
                assert got.mean() == pytest.approx(values.mean(), rel=0.02)  # raw energies, not only their shape


def test_the_distances_of_the_closing_table_are_those_that_compare_finds(
    train: Train, teacher: Path, scenes: Path
) -> None:
    result = train(teacher=teacher)
    seen = compare(str(teacher), str(result.best), data=str(scenes), imgsz=64, device="cpu", max_images=64).exhibit
    found = {pair: seen.numbers.summary[pair]["student"]["distance"].mean for pair in result.distances}
    assert found == pytest.approx(dict(result.distances), abs=5e-3)


def test_the_timeline_is_drawn(train: Train, teacher: Path) -> None:
    result = train(teacher=teacher, epochs=2, heatmaps=1)
    folder = result.folder / "heatmaps"
    with Image.open(folder / "timeline.gif") as film:
        assert film.n_frames == 3
    assert Image.open(folder / "curves.png").size[0] > 300
    assert (folder / "report.html").stat().st_size > 10_000
    assert str(folder / "report.html") in str(result)


@pytest.mark.usefixtures("undrawn")
def test_pictures_that_are_not_square(train: Train, teacher: Path, scenes: Path, tmp_path: Path) -> None:
    result = train(teacher=teacher, heatmaps=1, data=halved(scenes, tmp_path / "wide"))
    exhibits, _ = read_timeline(result.folder)
    frame = exhibits[0].samples[0].frame
    assert frame.picture == (32, 64) and frame.input == (64, 64) and frame.shift == (16.0, 0.0)


def test_a_run_is_not_lost_with_its_pictures(train: Train, teacher: Path, monkeypatch: Any, capsys: Any) -> None:
    def fail(*_: Any) -> None:
        raise ValueError("disk full")

    monkeypatch.setattr("distill.view.film.save_film", fail)
    result = train(teacher=teacher, heatmaps=1)
    assert result.last.is_file()
    assert "the timeline was not drawn: disk full" in capsys.readouterr().err


@pytest.mark.usefixtures("undrawn")
def test_an_epoch_that_diverged_is_left_out(train: Train, teacher: Path, capsys: Any) -> None:
    result = train(teacher=teacher, epochs=1, heatmaps=1)
    file = result.folder / "heatmaps" / "epoch0001.npz"
    arrays = dict(np.load(file))
    arrays["student_P3"][0, 0, 0] = np.nan
    np.savez(file, **arrays)
    assert read_timeline(result.folder)[1] == [0]
    assert "epoch 1 is left out" in capsys.readouterr().err
    file.write_bytes(b"damaged")
    with pytest.raises(InputError, match="epoch0001.npz: not readable as maps"):
        read_timeline(result.folder)


def test_every_so_many_epochs(train: Train, teacher: Path) -> None:
    assert list(maps_of(train(teacher=teacher, epochs=3, heatmaps=2))) == ["epoch0000", "epoch0002"]


@pytest.mark.parametrize("wrong", ["0", "often", "1,-3"])
def test_what_is_no_epoch_is_refused(train: Train, teacher: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="heatmaps=.* is out of range"):
        train(teacher=teacher, heatmaps=wrong)


def test_maps_need_a_teacher(train: Train) -> None:
    with pytest.raises(InputError, match="--heatmaps without --teacher"):
        train(heatmaps=1)


def test_a_folder_without_maps(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="train with --heatmaps"):
        read_timeline(tmp_path)
