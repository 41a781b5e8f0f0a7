"""One training run's teacher, proof and records, from before the first epoch to after the last."""

from __future__ import annotations

import re
import resource
import sys
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import distributed as dist
from ultralytics.utils import LOGGER, RANK, YAML
from ultralytics.utils.torch_utils import unwrap_model

from distill.adapters.ultralytics import rehearsal
from distill.adapters.ultralytics.anatomy import alphas_of, build_teacher
from distill.adapters.ultralytics.data import ordered
from distill.adapters.ultralytics.inputs import Checkpoint, read_checkpoint
from distill.adapters.ultralytics.probing import Probe
from distill.adapters.ultralytics.starting import DRAWN
from distill.adapters.ultralytics.supervision import check_shuffled, supervised, taught
from distill.adapters.ultralytics.transfer import (
    distiller_of,
    fixed_weights,
    schedule_of,
    shares_of,
    terms_of,
    zero_weights,
)
from distill.adapters.ultralytics.trying import on_trial, settle_features
from distill.adapters.ultralytics.wrapper import DistillingModule, over_ranks
from distill.distiller import Distiller
from distill.errors import InputError
from distill.guard import against, mean_cosines
from distill.modes import same_randomness
from distill.progress import progress
from distill.proof import Check, Pass, Proof, prove
from distill.records import (
    HEATMAPS,
    read_manifest,
    sha256,
    versions,
    write_manifest,
    write_settings,
)
from distill.settings import due
from distill.teacher import Teacher
from distill.terms.methods import tables_of

FITNESS = "fitness"  # Ultralytics' name for the figure by which best.pt is chosen
DIGITS = 5  # to which it rounds that of an epoch


class Session:
    """What a run holds beside the trainer: the distiller (None in plain training) and the proof that it works."""

    def __init__(self, distiller: Distiller | None = None, proof: Proof | None = None) -> None:
        self.distiller = distiller
        self.proof = proof
        self._probe: Probe | None = None

    @classmethod
    def begin(cls, trainer: Any) -> Session:
        """Load the teacher, prove, measure and record. Raises ProofFailed before anything is trained."""
        own = trainer.own
        fresh = not trainer.resume
        if not supervised(own):
            if fresh:
                _begin_alone(trainer, own)
            return cls()
        check_shuffled(trainer)
        checkpoint = read_teacher(own, own["trust"]) if taught(own) else None
        teacher = teacher_of(own, checkpoint).to(trainer.device) if checkpoint else None
        batches = rehearsal.training_batches(trainer)
        if teacher:
            _agree_on_precision(trainer, teacher, batches[0]["img"])

        whole = distiller_of(own, teacher)  # over a part of a batch the gradient's norm would be larger
        passes: Iterable[Pass] = rehearsal.passes(batches, whole, trainer.per_image)
        if RANK in {-1, 0}:
            passes = progress(passes, "training batches checked", len(batches))
        proof = prove(whole, rehearsal.student_copy(trainer), passes, shares_of(own), fixed_weights(own))
        if fresh and on_trial(own):
            proof = settle_features(trainer, whole, proof)
        distiller = distiller_of(
            own, teacher, fraction=own["teacher_fraction"], schedule=schedule_of(own, vars(trainer.args))
        )
        own["weights"] = distiller.weights = over_ranks(dict(proof.weights))
        _say("\n".join(map(str, proof.checks)))
        proof.raise_if_failed(zero_weights(own))
        if fresh:
            found = _before(trainer, distiller, checkpoint, batches[0])
            own["first_fitness"] = round(found["student"]["metrics"].get(FITNESS, 0.0), DIGITS)
            checks = (*proof.checks, *(_on_this_data(trainer, checkpoint, found) if checkpoint else ()))
            _say("\n".join(str(check) for check in checks[len(proof.checks) :]))
            proof = replace(proof, checks=checks)
            if RANK in {-1, 0}:
                _record(trainer, own, {"before": found, "checks": [str(check) for check in checks]})
            trainer._clear_memory()
        session = cls(distiller, proof)
        if fresh:
            session.keep_maps(trainer, 0)
        return session

    def keep_maps(self, trainer: Any, epoch: int) -> None:
        """Save the maps of the probe images after `epoch` where `--heatmaps` asks for it, and before the first (0)."""
        asked = trainer.own.get("heatmaps")
        if self.distiller is None or not asked or RANK not in {-1, 0} or not (epoch == 0 or due(asked, epoch)):
            return
        with same_randomness():
            self._probe = self._probe or Probe(trainer)
            self._probe.keep(trainer.save_dir / HEATMAPS / f"epoch{epoch:04}.npz", trainer.ema.ema, self.distiller)

    def end(self, trainer: Any, folder: Path) -> None:
        """Measure the student as Ultralytics saved it and complete the manifest; `folder` is where it will lie."""
        if RANK not in {-1, 0}:
            return
        file = trainer.best if trainer.best.exists() else trainer.last
        student = read_checkpoint(file, "the trained student", trainer.own.get("trust", False)).module
        imgsz = trainer.args.imgsz
        after: dict[str, Any] = {
            "checkpoint": str(folder / file.name),
            "metrics": {key: float(value) for key, value in (trainer.metrics or {}).items() if "metrics/" in key},
        }
        manifest = read_manifest(trainer.save_dir)
        if self.distiller is not None:
            after["attention"] = _audit(trainer, student, self.distiller)
            after["tables"] = tables_of(manifest["methods"], manifest["before"]["attention"], after["attention"])
        after["profile"] = rehearsal.profile(student, imgsz)
        after["first_is_best"] = trainer.own.get("first_is_best", False)
        start = {"weights": trainer.own.get("start"), "data": trainer.own.get("order", [])}
        entries = {"start": start, "peak_memory": peak_memory(), "weights_at_end": trainer.own["weights"]}
        entries["directions"] = mean_cosines(trainer.own.get("directions", {}))
        entries["against"] = against(trainer.own.get("directions", {}))
        write_manifest(trainer.save_dir, {**manifest, **entries, "after": after, "finished": True})


def peak_memory() -> int:
    """The most memory that this process has had, in bytes: on the GPU if it is used, otherwise its resident set."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return int(torch.cuda.max_memory_allocated())
    if (status := Path("/proc/self/status")).exists():  # ru_maxrss a child takes over from its parent
        return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def read_teacher(own: dict[str, Any], trust: bool) -> Checkpoint:
    """The teacher's checkpoint. Raises InputError when the file is not the one that the run began with."""
    checkpoint = read_checkpoint(own["teacher"], "--teacher", trust)
    digest = sha256(checkpoint.path)
    if own.setdefault("teacher_sha256", digest) != digest:
        raise InputError(f"--teacher {own['teacher']}: the file changed since this run began")
    return checkpoint


def teacher_of(own: dict[str, Any], checkpoint: Checkpoint | None = None) -> Teacher:
    """The frozen teacher of a run's settings, on the CPU."""
    checkpoint = checkpoint or read_checkpoint(own["teacher"], "--teacher", own["trust"])
    layers = [layer for term in terms_of(own) for layer in term.layers()[1]]
    return build_teacher(checkpoint.module, layers, own["teacher_imgsz"])


def _begin_alone(trainer: Any, own: dict[str, Any]) -> None:
    """Record a run in which nothing stands beside the task's loss; of first weights of ours, what they detect."""
    entries = {}
    if own["init"] != DRAWN:  # every rank knows it, and all validate together
        metrics = rehearsal.validate(trainer, rehearsal.student_of(trainer))
        own["first_fitness"] = round(metrics.get(FITNESS, 0.0), DIGITS)
        entries = {"before": {"student": {"metrics": metrics}, "teacher": {}}}
    if RANK in {-1, 0}:
        _record(trainer, own, entries)


def _audit(trainer: Any, student: Any, distiller: Distiller) -> dict[str, float]:
    everything = Distiller(distiller.teacher, terms_of(trainer.own, audit=True), distiller.weights)
    return rehearsal.compare(trainer, student, everything)


def _agree_on_precision(trainer: Any, teacher: Teacher, images: torch.Tensor) -> None:
    """Probe once, on rank 0; resumed runs and other ranks take what was found: a run is one thing throughout."""
    own = trainer.own
    found = own.get("precision_used")
    if found is None and own["teacher_precision"] != "auto":
        found = own["teacher_precision"]
    if found is None and RANK in {-1, 0}:
        if images.is_cuda:  # small batches keep a GPU waiting, in either precision
            images = images.repeat(-(-trainer.batch_size // max(trainer.world_size, 1) // len(images)), 1, 1, 1)
        probe = teacher.choose_precision(images)
        found = teacher.precision
        _say(
            f"teacher precision: {found} (float32 {probe['float32'] * 1e3:.0f} ms, bfloat16 "
            f"{probe['bfloat16'] * 1e3:.0f} ms for {len(images)} images, cosine of their maps {probe['cosine']:.5f})"
        )
    if dist.is_initialized():
        answer = [found]
        dist.broadcast_object_list(answer, 0)
        found = answer[0]
    if teacher.precision != found:
        teacher.use(found)
    own["precision_used"] = found


def _before(trainer: Any, distiller: Distiller, checkpoint: Checkpoint | None, batch: dict[str, Any]) -> dict[str, Any]:
    """Teacher and student as they stand, on the validation set."""
    own, imgsz = trainer.own, trainer.args.imgsz
    student = unwrap_model(trainer.model)
    found: dict[str, Any] = {"student": {"metrics": rehearsal.validate(trainer, student)}, "teacher": {}}
    if checkpoint and _same_classes(trainer, checkpoint):
        _say(f"validating the teacher {checkpoint.path.name} on this data")
        size = own["teacher_imgsz"] or imgsz
        found["teacher"]["metrics"] = rehearsal.validate(trainer, checkpoint.module.to(trainer.device), size)
    found["attention"] = _audit(trainer, student, distiller)
    timed = distiller_of(own, distiller.teacher, fraction=own["teacher_fraction"])  # whatever the schedule says now
    timed.weights = distiller.weights
    wrapped = DistillingModule(rehearsal.student_copy(trainer), timed, trainer.per_image)
    found["step_ratio"] = rehearsal.step_cost(trainer, batch, wrapped)
    _say(f"a step costs {found['step_ratio']:.2f} times a plain one, the teacher's part included")
    if checkpoint and RANK in {-1, 0}:
        found["teacher"]["profile"] = rehearsal.profile(checkpoint.module, own["teacher_imgsz"] or imgsz)
    return found


def _same_classes(trainer: Any, checkpoint: Checkpoint) -> bool:
    same_task = checkpoint.task == trainer.args.task
    return same_task and ordered(checkpoint.names) == ordered(trainer.data["names"])


def _on_this_data(trainer: Any, checkpoint: Checkpoint, found: dict[str, Any]) -> list[Check]:
    key = rehearsal.score_name(trainer.args.task)
    student = found["student"]["metrics"].get(key)
    teacher = found["teacher"].get("metrics", {}).get(key)
    name = "teacher on this data"
    if not _same_classes(trainer, checkpoint):
        what = "task differs" if checkpoint.task != trainer.args.task else "classes differ"
        return [Check(name, True, f"its {what} from the student's: its accuracy here is not known", True)]
    if teacher is None or student is None:  # ranks above 0 hold no metrics
        return []
    detail = f"{key.removeprefix('metrics/')} {teacher:.4f}, the student before training {student:.4f}"
    if teacher <= student:
        return [Check(name, True, f"{detail}: it is not better than the student", True)]
    return [Check(name, True, detail)]


def _record(trainer: Any, own: dict[str, Any], entries: dict[str, Any]) -> None:
    args = {key: value for key, value in vars(trainer.args).items() if key != "distill"}
    write_settings(trainer.save_dir, {**own, "trainer": {**args, "save_dir": str(trainer.save_dir)}})
    YAML.save(trainer.save_dir / "args.yaml", vars(trainer.args))
    manifest = {
        "command": own["command"],
        "versions": versions(),
        "device": str(trainer.device),
        "world_size": max(trainer.world_size, 1),
        "seed": trainer.args.seed,
        "task": trainer.args.task,
        "imgsz": trainer.args.imgsz,
        "score": rehearsal.score_name(trainer.args.task),
        "data": {"file": str(trainer.args.data), "names": ordered(trainer.data["names"])},
        "student": own["student"],
        "teacher": own["teacher"] and {"file": own["teacher"], "sha256": own.get("teacher_sha256")},
        "initialised": own.get("initialised") or own.get("fitted"),
        "teacher_precision": own.get("precision_used"),
        "methods": own["methods"],
        "gated": list(alphas_of(rehearsal.student_of(trainer))),
        "trial": own.get("trial"),
        "weights": own["weights"],
        "titles": {term.name: term.title for term in terms_of(own)},
        "finished": False,
    }
    write_manifest(trainer.save_dir, {**manifest, **entries})


def _say(text: str) -> None:
    if RANK in {-1, 0} and text:
        LOGGER.info(text)
