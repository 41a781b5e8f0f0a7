"""`--heatmaps` keeps the maps of the same few images, and changes nothing else."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from distill import InputError, TrainResult

from .tiny import same, weights

Train = Callable[..., TrainResult]


def maps_of(result: TrainResult) -> dict[str, dict[str, Any]]:
    return {file.stem: dict(np.load(file)) for file in sorted((result.folder / "heatmaps").iterdir())}


def test_maps_are_kept_at_the_epochs_asked_for(train: Train, teacher: Path) -> None:
    plain = train(teacher=teacher, epochs=3)
    result = train(teacher=teacher, epochs=3, heatmaps="1,3")
    kept = maps_of(result)
    assert list(kept) == ["epoch0001", "epoch0003"]
    assert "heatmaps" in str(result)
    first, last = kept.values()
    names = [pair["name"] for pair in result.manifest["pairs"]]
    assert set(first) == {"images", *(f"{side}_{name}" for side in ("student", "teacher") for name in names)}
    assert list(first["images"]) == list(last["images"])
    for name in names:
        student, guide = first[f"student_{name}"], first[f"teacher_{name}"]
        assert student.dtype == np.float16 and student.ndim == 3
        assert np.linalg.norm(student.astype(float), axis=(1, 2)) == pytest.approx(1, abs=5e-3)
        assert (guide == last[f"teacher_{name}"]).all()
        assert (student != last[f"student_{name}"]).any()
    assert same(weights(plain.last), weights(result.last))


def test_every_so_many_epochs(train: Train, teacher: Path) -> None:
    assert list(maps_of(train(teacher=teacher, epochs=3, heatmaps=2))) == ["epoch0002"]


@pytest.mark.parametrize("wrong", ["0", "often", "1,-3"])
def test_what_is_no_epoch_is_refused(train: Train, teacher: Path, wrong: str) -> None:
    with pytest.raises(InputError, match="heatmaps=.* is out of range"):
        train(teacher=teacher, heatmaps=wrong)


def test_maps_need_a_teacher(train: Train) -> None:
    with pytest.raises(InputError, match="--heatmaps without --teacher"):
        train(heatmaps=1)
