"""Making a trainer from a plan and letting it run: in a new folder, in an old one that was cut short, or on trial."""

from __future__ import annotations

import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ultralytics.utils import LOGGER

from distill.adapters.ultralytics import fitting
from distill.adapters.ultralytics.devices import checked_device
from distill.adapters.ultralytics.environment import TRUST, quiet
from distill.adapters.ultralytics.inputs import read_checkpoint, read_data
from distill.adapters.ultralytics.plan import Plan, plan
from distill.adapters.ultralytics.session import read_teacher
from distill.adapters.ultralytics.tasks import TRAINERS
from distill.adapters.ultralytics.trainers import KEY
from distill.adapters.ultralytics.trying import try_teaching
from distill.config import settings_from, split
from distill.errors import InputError, Interrupted, ProofFailed, TrainingFailed
from distill.modes import same_randomness
from distill.proof import Check
from distill.records import MANIFEST, SETTINGS, numbered_folder, put_back, read_manifest, read_settings, set_aside
from distill.terms.registry import check_resumed

DEFAULT_PROJECT = Path("runs/distill")


def train(prepared: Plan) -> Path:
    """Train as planned; returns the run folder. A run that fails before its first checkpoint leaves no new folder."""
    return _run(prepared, claim_folder(prepared), new=True)


def resume(path: str, device: str | None = None, trust: bool = False) -> Path:
    """Go on with a run that was cut short, with the settings it had; returns its folder.

    A run killed before its first checkpoint starts over, one killed after its last epoch is only finished. Raises
    InputError when there is nothing to resume.
    """
    folder = Path(path).absolute()
    if folder.suffix == ".pt":
        folder = folder.parent.parent
    last = folder / "weights" / "last.pt"
    if not folder.is_dir():
        raise InputError(f"--resume {path}: no such run folder")
    put_back(folder)  # what a run set aside that was killed before it began
    if not last.is_file():
        return _run(_again(folder, device, trust), folder, new=False)
    raw = read_checkpoint(str(last), "--resume", trust)
    if (best := last.with_name("best.pt")).is_file():  # in the end Ultralytics strips it, and trusts it as it reads
        read_checkpoint(str(best), "--resume", trust)
    arguments = dict(raw.raw.get("train_args") or {})
    own = arguments.get(KEY)
    if raw.raw.get("epoch", -1) == -1 or not isinstance(own, dict):
        done = read_manifest(folder).get("finished") or isinstance(own, dict)
        why = "is finished: nothing is left to resume" if done else "is finished, or was not made by distill"
        raise InputError(f"--resume {path}: this run {why}")
    if "methods" not in own:
        raise InputError(f"--resume {path}: this run was made by an older version: start it anew")
    check_resumed(own["methods"])
    for name in ("pretrained", "distill_model"):
        if isinstance(arguments.get(name), str):
            read_checkpoint(arguments[name], f"{name}=", trust)
    if arguments.get("augmentations") and not trust:
        raise InputError(f"--resume {path}: it carries augmentations of its own, which are code: {TRUST}")
    read_data(str(arguments["data"]), raw.task, trust)
    if own.get("teacher"):
        read_teacher(own, trust)
    overrides: dict[str, Any] = {
        "resume": str(last),
        "model": str(last),
        "save_dir": str(folder),  # it may have been moved since
        KEY: {**own, "trust": trust},  # what the checkpoint says of its own trust counts for nothing
    }
    if device is not None:
        overrides["device"] = checked_device(device)
    return _run(Plan(TRAINERS[raw.family, raw.task], overrides), folder, new=False)


def doctor(prepared: Plan) -> Sequence[object]:
    """The checks that precede training, on the real data, in a folder that vanishes, on copies of the student."""
    with tempfile.TemporaryDirectory(prefix="distill-doctor-") as folder:
        overrides = {**prepared.overrides, "save_dir": folder, "plots": False, "val": True}
        if "," in str(overrides.get("device")):  # several devices: one of them is enough to see
            overrides["device"] = str(overrides["device"]).strip("[]()").split(",")[0]
        with quiet():  # the caller shows the checks
            trainer = prepared.trainer(overrides=overrides)
            try:
                trainer._setup_train()
                distiller = trainer.session.distiller
                with same_randomness():
                    tried = (try_teaching(trainer, distiller),) if distiller and distiller.teacher else ()
            except ProofFailed as failure:
                return failure.checks
            finally:
                trainer.leave()
        found = trainer.own.get("fitted")
        first = (Check("first weights", True, fitting.said(found)),) if found else ()
        proof = trainer.session.proof  # none where the teacher only gives the student its first weights
        return (*first, *(proof.checks if proof else ()), *tried)


def claim_folder(prepared: Plan) -> Path:
    """Make the run folder, numbered unless it is named.

    Raises InputError for a named one that exists, unless `exist_ok=True`: then what lies in it is set aside.
    """
    own = prepared.own
    project = Path(own["project"] or DEFAULT_PROJECT).expanduser().absolute()
    if "'" in f"{project}{own['name'] or ''}":
        raise InputError(
            f"run folder {project / (own['name'] or '')}: Ultralytics drops the ' from paths: name it without"
        )
    if own["name"]:
        folder = project / own["name"]
        if folder.exists():
            if any(folder.iterdir()) and not prepared.overrides.get("exist_ok"):
                raise InputError(f"--name {own['name']}: {folder} exists: take another name, or add exist_ok=True")
            set_aside(folder)
        folder.mkdir(parents=True)
        return folder
    return numbered_folder(project, "train")


def _again(folder: Path, device: str | None, trust: bool) -> Plan:
    """The plan of a run that was killed before its first checkpoint, from the settings it had written."""
    if not (folder / SETTINGS).is_file():
        raise InputError(f"--resume {folder}: it holds neither weights/last.pt nor {SETTINGS}: nothing to resume")
    if read_manifest(folder).get("finished"):
        raise InputError(f"--resume {folder}: this run is finished: nothing is left to resume")
    saved = read_settings(folder)
    if saved["trainer"].get("augmentations"):
        raise InputError(f"--resume {folder}: its augmentations are not kept before the first epoch: start it anew")
    if saved.get("teacher"):
        read_teacher(saved, trust)
    known, _ = split(saved)
    settings = settings_from({key: value for key, value in known.items() if value is not None})
    settings = replace(settings, device=device or settings.device, trust=trust)
    check_resumed(saved.get("methods", {}))
    prepared = plan(settings, saved["arguments"], saved["command"])
    found = (
        "weights",
        "precision_used",
        "teacher_sha256",
        *(("trial", "methods", "response_share") if saved.get("trial") else ()),
    )
    prepared.own.update({key: saved[key] for key in found if key in saved})
    return prepared


def _run(prepared: Plan, folder: Path, new: bool) -> Path:
    prepared = replace(prepared, overrides={**prepared.overrides, "save_dir": str(folder)})
    for line in prepared.lines:
        LOGGER.info(line)
    try:
        trainer = prepared.trainer(overrides=prepared.overrides)
        trainer.train()
    except KeyboardInterrupt as stop:
        if _drop_if_empty(folder, new):
            raise Interrupted("stopped before training began; nothing was kept") from stop
        raise Interrupted(f"stopped; go on with: distill train --resume {shlex.quote(str(folder))}") from stop
    except subprocess.CalledProcessError as error:
        _drop_if_empty(folder, new)
        raise TrainingFailed(f"training on several devices failed (exit {error.returncode}): see above") from error
    except BaseException:
        _drop_if_empty(folder, new)
        raise
    finally:
        put_back(folder)
    return folder


def _drop_if_empty(folder: Path, new: bool) -> bool:
    """Remove a folder of ours in which training never began: it would only look like a result."""
    if not new or (folder / MANIFEST).exists():
        return False
    shutil.rmtree(folder, ignore_errors=True)
    return True
