"""Letting a plan run: in a new folder, in one that was cut short, or on trial."""

from __future__ import annotations

import csv
import os
import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from monai.utils import set_determinism

from distill.adapters.segment import callbacks, evaluation, scores
from distill.adapters.segment.module import Segmentation
from distill.adapters.segment.networks import read_checkpoint
from distill.adapters.segment.pipeline import (
    reseed,
    training_loader,
    training_set,
    usual_workers,
    validation_loader,
    validation_set,
)
from distill.adapters.segment.plan import Plan, device_of, plan
from distill.adapters.segment.probing import Probe
from distill.adapters.segment.session import (
    about,
    make_distiller,
    measure_before,
    prove_run,
    record,
    teacher_check,
)
from distill.config import settings_from, split
from distill.errors import InputError, Interrupted
from distill.modes import same_randomness
from distill.proof import Check, Proof, weight_check
from distill.records import (
    SETTINGS,
    numbered_folder,
    read_manifest,
    read_settings,
    sha256,
    write_manifest,
)
from distill.terms.methods import fixed_of, tables_of
from distill.terms.registry import check_resumed

DEFAULT_PROJECT = Path("runs/distill")
CASES = "cases.csv"
CLIP = 12.0  # norm of the gradient, as nnU-Net has it
CHILD = "DISTILL_RUN"  # tells the processes that Lightning starts for further devices which folder is theirs


def train(prepared: Plan) -> Path:
    """Train as planned; returns the run folder. A run that fails before its first checkpoint leaves no new folder."""
    return _first_process(_run(prepared, _claim(prepared), {}, new=True))


def resume(path: str, device: str | None = None) -> Path:
    """Go on with a run that was cut short, with the settings it had; returns its folder.

    Raises InputError when there is nothing to resume.
    """
    folder = Path(path).absolute()
    if folder.suffix == ".ckpt":
        folder = folder.parent.parent
    if not (folder / SETTINGS).is_file():
        raise InputError(f"--resume {path}: no run of a U-Net there: it holds no {SETTINGS}")
    if read_manifest(folder).get("finished"):
        raise InputError(f"--resume {path}: this run is finished: nothing is left to resume")
    saved = read_settings(folder)
    known, _ = split(saved)
    settings = settings_from({key: value for key, value in known.items() if value is not None})
    settings = replace(settings, device=device or settings.device)
    check_resumed(read_manifest(folder).get("methods", {}))
    prepared = plan(settings, saved["arguments"], saved["command"])
    if prepared.teacher and saved["teacher_sha256"] != sha256(prepared.teacher.path):
        raise InputError(f"--teacher {settings.teacher}: the file changed since this run began")
    return _first_process(_run(prepared, folder, saved["weights"], new=False))


def doctor(prepared: Plan) -> Sequence[Check]:
    """The checks that precede training, on the real data. Nothing is trained."""
    device = device_of(prepared.settings.device)
    set_determinism(prepared.settings.seed)
    loader = training_loader(training_set(prepared.data, prepared.crop), prepared.batch, 0)
    student = prepared.new_student()
    proof = prove_run(prepared, student, loader, {}, device)
    if proof.failed:
        return proof.checks
    found = measure_before(prepared, student, loader, validation_set(prepared.data), proof, device)
    return (*proof.checks, *teacher_check(prepared, found))


def _claim(prepared: Plan) -> Path:
    if CHILD in os.environ:
        return Path(os.environ[CHILD])
    settings = prepared.settings
    project = Path(settings.project or DEFAULT_PROJECT).expanduser().absolute()
    if not settings.name:
        return numbered_folder(project, "train")
    folder = project / settings.name
    try:
        if folder.exists() and any(folder.iterdir()):
            raise InputError(f"--name {settings.name}: {folder} exists: take another name")
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror or error}") from error
    return folder


def _first_process(folder: Path) -> Path:
    """The folder; the processes that Lightning started for further devices end here, for one of them reports."""
    if rank_zero_only.rank:
        sys.exit(0)
    return folder


def _run(prepared: Plan, folder: Path, weights: Mapping[str, float], new: bool) -> Path:
    os.environ[CHILD] = str(folder)
    try:
        _fit(prepared, folder, weights)
    except (KeyboardInterrupt, SystemExit) as stop:  # Lightning turns the first into the second
        if new and not (folder / callbacks.WEIGHTS / f"{callbacks.LAST}.ckpt").exists():
            shutil.rmtree(folder, ignore_errors=True)
            raise Interrupted("stopped before the first epoch ended; nothing was kept") from stop
        raise Interrupted(f"stopped; go on with: distill train --resume {shlex.quote(str(folder))}") from stop
    except BaseException:
        if new and not (folder / callbacks.WEIGHTS).exists():
            shutil.rmtree(folder, ignore_errors=True)
        raise
    finally:
        os.environ.pop(CHILD, None)
    return folder


def _fit(prepared: Plan, folder: Path, weights: Mapping[str, float]) -> None:
    say = rank_zero_only(lambda text: print(text, flush=True))
    settings, options = prepared.settings, prepared.options
    device = device_of(settings.device)
    for line in prepared.lines:
        say(line)
    set_determinism(settings.seed)
    cases = training_set(prepared.data, prepared.crop)
    workers = usual_workers(cases.cache_num >= len(cases)) if options.workers is None else options.workers
    loader = training_loader(cases, prepared.batch, workers)
    validation = validation_set(prepared.data)
    student = prepared.new_student()
    last = folder / callbacks.WEIGHTS / f"{callbacks.LAST}.ckpt"
    proof: Proof | None = None
    with same_randomness():
        if make_distiller(prepared, {}) is not None:
            proof = prove_run(prepared, student, loader, weights, device)
            say("\n".join(map(str, proof.checks)))
            given = fixed_of(prepared.methods, settings.as_dict())
            proof.raise_if_failed(forgive=[weight_check(name) for name, weight in given.items() if weight == 0])
            if not last.exists():
                found = measure_before(prepared, student, loader, validation, proof, device)
                further = tuple(teacher_check(prepared, found))
                say("\n".join(map(str, further)))
                proof = Proof((*proof.checks, *further), proof.weights)
                rank_zero_only(record)(prepared, folder, proof, {"before": found})
        elif not last.exists():
            rank_zero_only(record)(prepared, folder, None, {})
    distiller = make_distiller(prepared, proof.weights) if proof else None
    done = _epochs_of(last) if last.exists() else 0
    module = Segmentation(student, prepared, distiller, about(prepared))
    bar = callbacks.progress_bar()
    trainer = pl.Trainer(
        **_devices(settings.device, device),
        precision=_precision(options.amp, device),
        max_epochs=options.epochs,
        callbacks=[
            callbacks.Table(folder, done),
            *([Probe(folder, prepared, validation)] if settings.heatmaps else []),
            callbacks.early_stopping(options.patience),
            *callbacks.checkpoints(folder),
            *bar,
        ],
        plugins=[callbacks.WholeCheckpoints()],
        gradient_clip_val=CLIP,
        logger=callbacks.loggers(folder),
        enable_progress_bar=bool(bar),
        enable_model_summary=False,
        num_sanity_val_steps=0,
        default_root_dir=folder,
    )
    reseed(loader, settings.seed, done)  # Lightning asks for the first batches before the epoch begins
    trainer.fit(module, loader, validation_loader(validation, workers), ckpt_path=last if last.exists() else None)
    if trainer.is_global_zero:
        _end(prepared, folder, validation, device)


def _epochs_of(last: Path) -> int:
    """How many epochs a run's last checkpoint has behind it. Raises InputError for a damaged one."""
    try:
        return int(torch.load(last, map_location="cpu", weights_only=True)["epoch"]) + 1
    except Exception as error:  # of any kind, as in `read_checkpoint`
        raise InputError(f"--resume: {last} is damaged: start the run again") from error


def _end(prepared: Plan, folder: Path, validation: Any, device: torch.device) -> None:
    """Strip the best checkpoint, measure it case by case, complete the manifest."""
    best = folder / callbacks.WEIGHTS / f"{callbacks.BEST}.ckpt"
    callbacks.strip(best)
    trained = read_checkpoint(best, "the trained student")
    network = trained.module.to(device)
    rows: Any = evaluation.evaluate(network, validation, trained.names, trained.crop, detailed=True)
    write_cases(folder / CASES, rows)
    audit = make_distiller(prepared, dict.fromkeys((term.name for term in prepared.terms()), 1.0), audit=True)
    after: dict[str, Any] = {"checkpoint": str(best), "metrics": scores.means(rows, trained.names)}
    if audit is not None:
        after["attention"] = evaluation.compare(network, audit, validation, trained.crop)
        before = read_manifest(folder)["before"]["attention"]
        after["tables"] = tables_of(prepared.methods, before, after["attention"])
    after["profile"] = evaluation.profile(network, trained.crop)
    after["epoch"] = trained.about["epoch"]
    write_manifest(folder, {**read_manifest(folder), "after": after, "finished": True})


def write_cases(file: Path, rows: Sequence[Mapping[str, float | str]]) -> None:
    """A row per validation image: its foreground's share and each class's scores."""
    with file.open("w", encoding="utf-8", newline="") as text:
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(rows[0])
        writer.writerows([_cell(value) for value in row.values()] for row in rows)


def _cell(value: float | str) -> str:
    return value if isinstance(value, str) else "" if value != value else f"{value:.6g}"


def _devices(text: str | None, device: torch.device) -> dict[str, Any]:
    if device.type != "cuda":
        return {"accelerator": device.type, "devices": 1}
    numbers = [int(part) for part in text.split(",")] if text and text[0].isdigit() else [device.index or 0]
    return {"accelerator": "gpu", "devices": numbers, "strategy": "ddp" if len(numbers) > 1 else "auto"}


def _precision(amp: bool | None, device: torch.device) -> Any:
    return "16-mixed" if device.type == "cuda" and amp is not False else "32-true"
