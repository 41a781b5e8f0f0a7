"""What a run holds beside the student: the distiller, the proof that it works, and what is put on record."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping
from copy import deepcopy
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from monai.data import CacheDataset
from torch import nn
from torch.utils.data import DataLoader

from distill.adapters.segment import evaluation, scores
from distill.adapters.segment.module import task_loss, training_pass
from distill.adapters.segment.pipeline import reseed
from distill.adapters.segment.plan import Plan
from distill.distiller import ALWAYS, Distiller, Step
from distill.networks.unet import UNet
from distill.proof import Check, Proof, prove
from distill.records import sha256, versions, write_manifest, write_settings
from distill.schedule import Schedule
from distill.settings import Settings
from distill.teacher import Teacher
from distill.terms.base import Batch
from distill.terms.methods import fixed_of, shares_of

PROOF_BATCHES = 4
GATES = 0.1  # weight of the gates' losses: a new U-Net's task hardly moves alpha, so its gradient there is no measure
TIMED_STEPS = 3
SCORE = "dice"


def make_distiller(prepared: Plan, weights: Mapping[str, float], audit: bool = False) -> Distiller | None:
    """The run's distiller; None where nothing is transferred. An `audit` compares whole batches, and never shuffles."""
    settings, teacher, terms = prepared.settings, prepared.teacher, prepared.terms(audit)
    if not terms:
        return None
    guided = list(dict.fromkeys(layer for term in terms for layer in term.layers()[1]))
    frozen = Teacher(teacher.module, guided, stride=1) if teacher and guided else None
    if audit:
        return Distiller(frozen, terms, weights)
    schedule = Schedule(prepared.options.epochs, settings.schedule, settings.warmup, settings.floor)
    return Distiller(frozen, terms, weights, settings.teacher_fraction, settings.seed, schedule, settings.shuffled)


def prove_run(prepared: Plan, student: UNet, loader: DataLoader, weights: Mapping[str, float], device: Any) -> Proof:
    """Does distillation take place? On a copy of the student and a few training batches; measures what is not given."""
    distiller = make_distiller(prepared, {})
    assert distiller is not None
    distiller.fraction = 1.0  # over a part of a batch the gradient's norm would be larger
    distiller.schedule = ALWAYS
    if distiller.teacher:
        distiller.teacher.to(device)
    settings = prepared.settings
    fixed = fixed_of(prepared.methods, {"gates_weight": GATES, **_given(settings)})
    given = {name: weight for name, weight in fixed.items() if weight is not None}
    reseed(loader, settings.seed, 0)
    batches = list(islice(loader, PROOF_BATCHES))
    copy = deepcopy(student).to(device).train()
    task = task_loss(settings.loss)

    def run(network: nn.Module, number: int) -> tuple[torch.Tensor, Step]:
        loss, step = training_pass(network, task, distiller, _batch(batches[number], device))
        assert step is not None
        return loss, step

    passes = [lambda network, i=i: run(network, i) for i in range(len(batches))]
    return prove(distiller, copy, passes, shares_of(prepared.methods, settings.as_dict()), {**given, **weights})


def _given(settings: Settings) -> dict[str, Any]:
    """The settings that were given a value."""
    return {name: value for name, value in settings.as_dict().items() if value is not None}


def measure_before(prepared: Plan, student: UNet, loader: DataLoader, cases: CacheDataset, proof: Proof, device: Any):  # type: ignore[no-untyped-def]
    """Teacher and student as they stand, on the validation set; and what a distilling step costs over a plain one."""
    crop, names = prepared.crop, prepared.data.names
    audit = make_distiller(prepared, proof.weights, audit=True)
    assert audit is not None
    copy = deepcopy(student).to(device)
    found: dict[str, Any] = {"student": {"metrics": _scores(copy, cases, prepared)}, "teacher": {}}
    if prepared.teacher:
        module = prepared.teacher.module.to(device)
        known = prepared.teacher.names == names
        found["teacher"]["metrics"] = _scores(module, cases, prepared) if known else {}
        found["teacher"]["profile"] = evaluation.profile(module, crop)
    found["attention"] = evaluation.compare(copy, audit, cases, crop)
    found["step_ratio"] = _step_ratio(prepared, copy, loader, device)
    return found


def teacher_check(prepared: Plan, found: Mapping[str, Any]) -> Iterator[Check]:
    """Is the teacher any good here?"""
    if not prepared.teacher:
        return
    name, mine = "teacher on this data", found["student"]["metrics"][SCORE]
    if not found["teacher"]["metrics"]:
        yield Check(name, True, "its classes differ from the data's: its accuracy here is not known", True)
        return
    theirs = found["teacher"]["metrics"][SCORE]
    detail = f"Dice {theirs:.4f}, the student before training {mine:.4f}"
    yield Check(name, True, detail if theirs > mine else f"{detail}: it is not better than the student", theirs <= mine)


def record(prepared: Plan, folder: Path, proof: Proof | None, entries: Mapping[str, Any]) -> None:
    """What the run is resolved to, and where it comes from."""
    settings, teacher = prepared.settings, prepared.teacher
    weights = proof.weights if proof else {}
    own = {**settings.as_dict(), **_files(prepared), "arguments": _plain(asdict(prepared.options))}
    origin = {"command": prepared.command, "weights": weights, "teacher_sha256": teacher and sha256(teacher.path)}
    write_settings(folder, {**own, **origin})
    manifest = {
        "command": prepared.command,
        "versions": versions(("monai", "lightning")),
        "task": "unet",
        "seed": settings.seed,
        "imgsz": list(prepared.crop),
        "batch": prepared.batch,
        "score": SCORE,
        "data": {"file": prepared.data.file, "names": list(prepared.data.names)},
        "student": settings.student,
        "network": prepared.network,
        "teacher": teacher and {"file": str(teacher.path), "sha256": sha256(teacher.path)},
        "teacher_precision": "float32",
        "methods": prepared.methods,
        "weights": weights,
        "titles": distiller.titles if (distiller := make_distiller(prepared, {})) else {},
        "checks": [str(check) for check in proof.checks] if proof else [],
        "finished": False,
    }
    write_manifest(folder, {**manifest, **entries})


def _files(prepared: Plan) -> dict[str, str | None]:
    """What the run reads, by absolute paths: it may be resumed from another folder."""
    student, teacher = str(prepared.settings.student), prepared.teacher
    return {
        "student": str(Path(student).absolute()) if Path(student).is_file() else student,
        "teacher": str(teacher.path.absolute()) if teacher else None,
        "data": prepared.data.file,
    }


def about(prepared: Plan) -> dict[str, Any]:
    """What a checkpoint says of itself, in plain types."""
    data = prepared.data
    told = {"network": prepared.network, "names": list(data.names), "crop": list(prepared.crop), "data": data.file}
    return {**told, "student": prepared.settings.student, "seed": prepared.settings.seed}


def _scores(network: UNet, cases: CacheDataset, prepared: Plan) -> dict[str, float]:
    names = prepared.data.names
    rows: Any = evaluation.evaluate(network, cases, names, prepared.crop, detailed=False)
    return scores.means(rows, names)


def _step_ratio(prepared: Plan, student: UNet, loader: DataLoader, device: Any) -> float:
    """Time of a distilling step over a plain one: the ratio of the best times."""
    distiller = make_distiller(prepared, dict.fromkeys((term.name for term in prepared.terms()), 1.0))
    assert distiller is not None
    if distiller.teacher:
        distiller.teacher.to(device)
    batch, task = _batch(next(iter(loader)), device), task_loss(prepared.settings.loss)
    best = {None: float("inf"), distiller: float("inf")}
    copy = deepcopy(student).train()
    for _ in range(TIMED_STEPS):
        for kind in best:
            start = time.perf_counter()
            loss, step = training_pass(copy, task, kind, batch)
            torch.stack([loss, *(step.losses().values() if step else ())]).sum().backward()
            if batch.images.is_cuda:
                torch.cuda.synchronize()
            best[kind] = min(best[kind], time.perf_counter() - start)
    return best[distiller] / best[None]


def _batch(batch: Mapping[str, Any], device: Any) -> Batch:
    return Batch(batch["image"].to(device), masks=batch["mask"][:, 0].to(device))


def _plain(options: Mapping[str, Any]) -> dict[str, Any]:
    return {key: list(value) if isinstance(value, tuple) else value for key, value in options.items()}
