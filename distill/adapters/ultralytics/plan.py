"""From what the user asked to a trainer ready to be made; every refusal happens here, before anything is written."""

from __future__ import annotations

from collections.abc import Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from torch import nn
from ultralytics.cfg import DEFAULT_CFG_DICT

from distill.adapters.ultralytics.anatomy import gates_of
from distill.adapters.ultralytics.devices import checked_device
from distill.adapters.ultralytics.environment import quiet
from distill.adapters.ultralytics.gating import check_gatable, gate_neck, told
from distill.adapters.ultralytics.inputs import (
    Checkpoint,
    ModelYaml,
    check_ultralytics_settings,
    read_checkpoint,
    read_data,
    read_model_yaml,
)
from distill.adapters.ultralytics.labels import need_labels
from distill.adapters.ultralytics.matching import look_at, table_of
from distill.adapters.ultralytics.starting import DRAWN, FITTED, MEASURED, first_weights
from distill.adapters.ultralytics.students import stays
from distill.adapters.ultralytics.supervision import check_plans
from distill.adapters.ultralytics.tasks import MODELS, TRAINERS
from distill.adapters.ultralytics.trainers import KEY
from distill.adapters.ultralytics.transfer import schedule_of
from distill.errors import InputError
from distill.modes import same_randomness
from distill.ranges import BOXLESS
from distill.settings import Settings
from distill.terms.methods import check_idle, plan_all, teaches
from distill.terms.registry import check_importable


@dataclass(frozen=True)
class Plan:
    """A run that was checked: the trainer class, its arguments (ours under `KEY`), and what to tell the user."""

    trainer: type
    overrides: dict[str, Any]
    lines: tuple[str, ...] = ()

    @property
    def own(self) -> dict[str, Any]:
        own: dict[str, Any] = self.overrides[KEY]
        return own


@dataclass(frozen=True)
class _Student:
    file: str
    family: str
    task: str
    module: nn.Module


def plan(settings: Settings, arguments: Mapping[str, Any], command: str) -> Plan:
    """Check everything the run needs. Raises InputError; writes nothing."""
    theirs = check_ultralytics_settings(dict(arguments))
    _check_asked(settings, theirs)
    if not settings.student:
        raise InputError("--student is missing: the network to train, such as --student yolo11n.yaml")
    if not settings.data:
        raise InputError("--data is missing: a data.yaml, or 'scenes' for the generated set")
    student_file = _with_suffix(settings.student)
    is_yaml = Path(student_file).suffix.lower() in (".yaml", ".yml")
    given = (read_model_yaml if is_yaml else read_checkpoint)(student_file, "--student", settings.trust)
    data = read_data(settings.data, given.task, settings.trust)
    if given.task not in BOXLESS:
        need_labels(data, given.task, f"--data {settings.data}")
    file = str(Path(settings.data).absolute()) if Path(settings.data).exists() else settings.data
    student = _built(given, data) if isinstance(given, ModelYaml) else _trained(given)
    kept = not is_yaml and stays(student.module, _classes(data, given.task, theirs), theirs.get("pretrained", True))
    if settings.gated_neck:
        check_gatable(student.module, f"--student {settings.student}")
    gated = settings.gated_neck or (bool(gates_of(student.module)) and not kept)  # a kept network has what it has
    if gated:
        gate_neck(student.module, settings.seed)
    teacher = read_checkpoint(_with_suffix(settings.teacher), "--teacher", settings.trust) if settings.teacher else None
    trained = _has_weights(is_yaml, theirs)
    check_idle(settings, "detector")
    if settings.stop_with_mosaic and student.task == "classify":
        raise InputError("--stop-with-mosaic has no effect: classify trains without mosaic")
    schedule_of(settings.as_dict(), {**DEFAULT_CFG_DICT, **theirs})
    networks = look_at(settings, theirs, student.module, student.task, teacher, data)
    init, started = first_weights(
        settings, theirs, deepcopy(student.module), trained, teacher, dict(enumerate(networks.names))
    )
    settings = replace(settings, init=init)
    networks = replace(networks, knows=init in (FITTED, MEASURED) or (trained and init == DRAWN))
    plans, lacking = plan_all(settings, networks)
    check_plans(settings, plans)
    own = {
        **settings.as_dict(),
        "gated_neck": gated,
        "student": student.file,
        "data": file,
        "methods": plans,
        "weights": {},
        "command": command,
        # as they were asked: training itself replaces optimizer=auto, batch=-1 and more by what it found
        "arguments": {key: value for key, value in theirs.items() if key != "augmentations"},
        "teacher": teacher and str(teacher.path),
    }
    overrides = {
        **theirs,
        "mode": "train",
        "task": student.task,
        "model": student.file,
        "data": file,
        "seed": settings.seed,
        KEY: own,
    }
    if settings.device is not None:
        if "," in settings.device:
            check_importable()
        overrides["device"] = checked_device(settings.device)
    lines = (*told(student.module), *started, *lacking, *table_of(plans, networks))
    return Plan(TRAINERS[student.family, student.task], overrides, lines)


def _check_asked(settings: Settings, theirs: Mapping[str, Any]) -> None:
    """Raise InputError for a second teacher, and for options that have no effect or are not a detector's."""
    for name in ("pretrained", "distill_model"):
        if isinstance(theirs.get(name), (str, Path)):
            read_checkpoint(theirs[name], f"{name}=", settings.trust)
    only_first = settings.init in ("teacher", "fit", "best") and not teaches(settings)
    if settings.teacher and theirs.get("distill_model") and not only_first:
        raise InputError(
            "--teacher and distill_model= both name a teacher: ours or Ultralytics' own, not both at once "
            "(but for first weights alone: --init fit --layers none --response none)"
        )
    if Path(settings.teacher or "").suffix.lower() in (".yaml", ".yml"):
        raise InputError(f"--teacher {settings.teacher}: a description, not a trained network: give a .pt")
    if settings.loss is not None:
        raise InputError("--loss is for U-Nets: a detector has no such thing")
    if settings.heatmaps and not settings.teacher:
        raise InputError("--heatmaps without --teacher has nothing to set beside the student: name a teacher")


def _with_suffix(file: str) -> str:
    """`yolo11n` means yolo11n.pt, as for Ultralytics; a folder stays one, to be refused as such."""
    return file if Path(file).suffix or Path(file).exists() else f"{file}.pt"


def _has_weights(is_yaml: bool, arguments: Mapping[str, Any]) -> bool:
    """Does the student begin with weights that were trained: its own, unless they are refused, or `pretrained=`'s?"""
    pretrained = arguments.get("pretrained")
    return isinstance(pretrained, (str, Path)) or not (is_yaml or pretrained is False)


def _trained(given: Checkpoint) -> _Student:
    if given.fused:
        raise InputError(f"--student {given.path}: its BatchNorms are folded, for inference only: use the unfolded .pt")
    return _Student(str(given.path), given.family, given.task, given.module)


def _built(given: ModelYaml, data: Mapping[str, Any]) -> _Student:
    with same_randomness(), quiet():
        kind = MODELS[given.family, given.task]
        model = kind(str(given.path), ch=data.get("channels", 3), nc=data["nc"], verbose=False)
    return _Student(str(given.path), given.family, given.task, model)


def _classes(data: Mapping[str, Any], task: str, arguments: Mapping[str, Any]) -> int:
    """How many classes the trainer will see: to polygons it adds a background."""
    nc = 1 if arguments.get("single_cls") else int(data["nc"])
    return nc + 1 if task == "semantic" and nc > 1 and not data.get("masks_dir") else nc
