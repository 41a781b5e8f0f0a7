"""What Lightning is told to do beside training: the table of epochs, a line for each, checkpoints that appear whole."""

from __future__ import annotations

import csv
import io
import os
import sys
import time
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import EarlyStopping, ModelCheckpoint, ProgressBar, TQDMProgressBar
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.plugins.io import TorchCheckpointIO

from distill.adapters.segment.networks import MARK
from distill.records import TABLE, keep_epochs, write_whole

WEIGHTS, BEST, LAST = "weights", "best", "last"
WATCHED = "val/dice"


class WholeCheckpoints(TorchCheckpointIO):
    """Checkpoints are written aside and renamed: whoever reads one, at any moment, reads a whole one."""

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any = None) -> None:
        aside = Path(path).with_name(f".{Path(path).name}.{os.getpid()}")
        super().save_checkpoint(checkpoint, aside, storage_options)
        os.replace(aside, path)

    def load_checkpoint(self, path: Any, *args: Any, **options: Any) -> dict[str, Any]:
        """Of a run that was moved, too: Lightning would forget which checkpoint was the best, and write over it."""
        loaded: dict[str, Any] = super().load_checkpoint(path, *args, **options)
        for state in loaded.get("callbacks", {}).values():
            if "dirpath" in state:
                state["dirpath"] = os.path.realpath(Path(path).parent)
        return loaded


class Table(Callback):
    """results.csv, a row per epoch (from 1), and a line on standard output."""

    def __init__(self, folder: Path, first: int = 0) -> None:
        self._file = folder / TABLE
        self._start, self._lr = time.monotonic(), 0.0
        keep_epochs(self._file, first)

    def on_train_epoch_start(self, trainer: Trainer, module: LightningModule) -> None:
        self._start, self._lr = time.monotonic(), _rate(trainer)

    def on_train_epoch_end(self, trainer: Trainer, module: LightningModule) -> None:
        """Write the row before the checkpoint: what a kill leaves in between, a resumed run drops and writes again."""
        if not trainer.is_global_zero:
            return
        epoch, seconds = trainer.current_epoch + 1, time.monotonic() - self._start
        figures = {name: value.item() for name, value in trainer.callback_metrics.items()}
        row = {"epoch": epoch, "seconds": round(seconds, 3), "lr": self._lr, **figures}
        written = self._file.read_text(encoding="utf-8") if self._file.is_file() else _line(row)
        write_whole(self._file, written + _line(row.values()))
        losses = ", ".join(f"{name.removeprefix('train/')} {figures[name]:.4f}" for name in figures if _loss(name))
        scores = f"Dice {figures[WATCHED]:.4f}, IoU {figures['val/iou']:.4f}"
        _say(trainer, f"epoch {epoch}/{trainer.max_epochs}  {losses}  {scores}  {seconds:.1f} s")


def checkpoints(folder: Path) -> list[ModelCheckpoint]:
    """best.ckpt by mean Dice, and last.ckpt after every epoch; `save_last` would skip epochs that are not the best."""
    common = {"dirpath": folder / WEIGHTS, "save_on_train_epoch_end": True, "enable_version_counter": False}
    return [
        ModelCheckpoint(filename=BEST, monitor=WATCHED, mode="max", **common),
        ModelCheckpoint(filename=LAST, **common),
    ]


def early_stopping(patience: int) -> EarlyStopping:
    """Ends training where the mean Dice has not risen for so many epochs."""
    return EarlyStopping(WATCHED, mode="max", patience=patience, check_on_train_epoch_end=True)


def progress_bar() -> list[ProgressBar]:
    """Lightning's bar of batches, where somebody watches."""
    return [TQDMProgressBar()] if sys.stdout.isatty() else []


def loggers(folder: Path) -> list[TensorBoardLogger]:
    """TensorBoard's files beside results.csv, where that package is installed."""
    return [TensorBoardLogger(folder, "", "tensorboard")] if find_spec("tensorboard") else []


def strip(file: Path) -> None:
    """Leave of a checkpoint what a network needs: its weights, and what it says of itself."""
    raw = torch.load(file, map_location="cpu", weights_only=True)
    weights = {name.removeprefix("network."): tensor.contiguous() for name, tensor in raw["state_dict"].items()}
    aside = file.with_name(f".{file.name}.{os.getpid()}")
    torch.save({"state_dict": weights, MARK: raw[MARK]}, aside)
    os.replace(aside, file)


def _line(cells: Any) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def _loss(name: str) -> bool:
    return name == "train/task" or name.startswith("train/at_")


def _say(trainer: Trainer, line: str) -> None:
    """A line of its own, above the bar if there is one."""
    bar = trainer.progress_bar_callback
    if bar is None:
        print(line, flush=True)
    else:
        bar.print(line)


def _rate(trainer: Trainer) -> float:
    return float(trainer.optimizers[0].param_groups[0]["lr"])
