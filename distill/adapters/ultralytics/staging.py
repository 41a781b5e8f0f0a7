"""Checkpoints that appear whole: written aside, then renamed into place."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ultralytics.utils import RANK

STAGING = ".weights"  # checkpoints are written here and renamed into weights/


def keep_first(trainer: Any, fitness: float) -> None:
    """Write what a run begins with as best.pt: an epoch that is worth less than `fitness` does not replace it."""
    trainer.epoch, trainer.fitness, trainer.best_fitness = -1, fitness, fitness
    if RANK in {-1, 0}:
        period, trainer.save_period = trainer.save_period, -1
        with staged(trainer):
            trainer.write_checkpoints()
            trainer.last.unlink()  # there is no epoch to go on from
        trainer.save_period = period
    trainer.own["first_is_best"] = True
    trainer.fitness = None


@contextmanager
def staged(trainer: Any, copies: bool = False) -> Iterator[None]:
    """Point a trainer's checkpoint paths at a staging folder, then rename what was written into place.

    With `copies` the checkpoints there are lie in the folder from the start, to be changed.
    """
    if RANK not in {-1, 0}:
        yield
        return
    real = trainer.wdir, trainer.last, trainer.best
    staging = Path(trainer.save_dir) / STAGING
    shutil.rmtree(staging, ignore_errors=True)
    staging.mkdir(parents=True)
    if copies:
        for path in (trainer.last, trainer.best):
            if path.exists():
                shutil.copy2(path, staging / path.name)
    trainer.wdir, trainer.last, trainer.best = staging, staging / "last.pt", staging / "best.pt"
    try:
        yield
        for path in sorted(staging.iterdir()):  # best.pt before last.pt: an older last.pt only repeats an epoch
            os.replace(path, real[0] / path.name)
    finally:
        trainer.wdir, trainer.last, trainer.best = real
        shutil.rmtree(staging, ignore_errors=True)
