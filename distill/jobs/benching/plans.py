"""What a bench is going to do, checked as a whole before anything is started, and kept beside its results."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import yaml

from distill import __version__
from distill.errors import InputError
from distill.jobs.benching.recipes import FILES, NONE, Arm, absolute, read_arms, unheard
from distill.jobs.training import resolved
from distill.loading import adapter_for, is_unet
from distill.records import command_line, sha256, versions, write_whole

PLAN, ARMS, RUNS, LOGS = "bench.yaml", "arms", "runs", "logs"


@dataclass(frozen=True)
class Plan:
    """Arms and seeds, where they run, and on what: `files` are the SHA-256 of every file that goes into the runs.

    `devices` are spread over the runs, `jobs` of which run on each at the same time; without any the trainer chooses.
    `threads` is what a run has on a CPU.
    """

    arms: tuple[Arm, ...]
    seeds: tuple[int, ...]
    jobs: int
    devices: tuple[str, ...]
    threads: int | None
    files: Mapping[str, str]
    record: Mapping[str, Any]

    @property
    def teacher(self) -> str | None:
        """The bench's teacher: where arms have their own, the first."""
        found: str | None = self.record.get("teacher")
        return found

    @property
    def slots(self) -> tuple[str | None, ...]:
        """The device of each run that may be under way at the same time."""
        return tuple((self.devices or (None,)) * self.jobs)

    def write(self, folder: Path) -> None:
        """`bench.yaml`, and of each arm the settings of its runs, for `distill train --config`."""
        for arm in self.arms:
            write_whole(folder / ARMS / f"{arm.name}.yaml", _yaml(dict(arm.values)))
        write_whole(folder / PLAN, _yaml(_plain(asdict(self))))

    @classmethod
    def read(cls, folder: Path) -> Plan:
        """The plan in a bench's folder. Raises InputError where there is none."""
        try:
            values = yaml.safe_load((folder / PLAN).read_text(encoding="utf-8"))
            arms = tuple(Arm(**arm) for arm in values.pop("arms"))
            plan = cls(arms, tuple(map(int, values.pop("seeds"))), devices=tuple(values.pop("devices")), **values)
            if not arms or any(arm.epochs < 1 for arm in arms) or not {"command", "versions"} <= plan.record.keys():
                raise ValueError("arms, epochs or record are missing")
            return plan
        except FileNotFoundError as error:
            raise InputError(f"{folder}: no bench lies there: it has no {PLAN}") from error
        except (OSError, ValueError, TypeError, KeyError, AttributeError, yaml.YAMLError) as error:
            raise InputError(f"{folder / PLAN}: damaged: {' '.join(str(error).split())}") from error

    def changed(self) -> tuple[str, ...]:
        """The files that are no longer what they were when the bench began, or are gone."""
        return tuple(f for f, digest in self.files.items() if not Path(f).is_file() or sha256(f) != digest)


def make_plan(
    names: Sequence[str], common: Mapping[str, Any], seeds: Sequence[int], jobs: int, device: str | None, trust: bool
) -> Plan:
    """The plan of the arms of these names, each of them checked as `distill train` would.

    `common` are the settings that go to every arm. Raises InputError; writes nothing.
    """
    if not isinstance(jobs, int) or jobs < 1:
        raise InputError(f"--jobs {jobs}: a whole number from 1")
    if str(common.get("teacher")).lower() == NONE:
        common = {key: value for key, value in common.items() if key != "teacher"}
    arms = read_arms(names, common)
    lines = unheard(arms, common)
    devices = tuple(part.strip() for part in device.split(",") if part.strip()) if device else ()
    if len(set(devices)) < len(devices):
        raise InputError(f"--device {device}: the same device twice: several runs on one are --jobs 2")
    arms = tuple(check(arm, seeds[0], devices[:1], trust) for arm in arms)
    for other in devices[1:]:
        check(arms[0], seeds[0], (other,), trust)
    teacher = common.get("teacher")
    packages = ("lightning", "monai") if is_unet(str(arms[0].values["student"])) else ()
    for line in lines:
        print(f"distill: {line}", file=sys.stderr)
    record = {
        "command": command_line(),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "versions": program(packages),
        "teacher": teacher and str(Path(teacher).absolute()),
        "trust": trust,
        "common": {key: absolute(key, value) for key, value in common.items()},
    }
    cpu = devices == ("cpu",) or (not devices and not _has_gpu())
    return Plan(arms, tuple(seeds), jobs, devices, max(1, cores() // jobs) if cpu else None, digests(arms), record)


def program(packages: Iterable[str] = ()) -> dict[str, str]:
    """The versions of everything that a bench's figures depend on, and those of further packages."""
    usual = {"distill": __version__, **versions(("scipy",))}
    return {**usual, **versions([name for name in packages if name not in usual])}


def with_arms(plan: Plan, names: Sequence[str]) -> Plan:
    """The plan with further arms, to be run with its seeds. Raises InputError for one that it has; writes nothing."""
    common = plan.record.get("common")
    if common is None:
        raise InputError("--arms: this bench was begun by a version that did not keep what arms share: begin another")
    new = read_arms(names, common)
    known = {arm.name for arm in plan.arms}
    for arm in new:
        if arm.name in known:
            raise InputError(f"--arms: this bench has '{arm.name}' already: name others, or leave --arms out")
    checked = tuple(check(arm, plan.seeds[0], plan.devices[:1], plan.record["trust"]) for arm in new)
    record = {**plan.record, "command": f"{plan.record['command']} && {command_line()}"}
    return replace(plan, arms=plan.arms + checked, files={**plan.files, **digests(checked)}, record=record)


def digests(arms: Sequence[Arm]) -> dict[str, str]:
    """SHA-256 of the files that go into the runs of these arms."""
    files = {str(arm.values[key]) for arm in arms for key in FILES if key in arm.values}
    return {file: sha256(file) for file in sorted(files) if Path(file).is_file()}


def check(arm: Arm, seed: int, device: tuple[str, ...], trust: bool) -> Arm:
    """The arm with the data that its name stands for. Raises InputError, naming it, for what training would refuse."""
    values = {
        **arm.values,
        "seed": seed,
        **({"device": device[0]} if device else {}),
        **({"trust": True} if trust else {}),
    }
    try:
        settings, arguments = resolved(None, values)
        if settings.teacher and settings.weight == 0:
            raise InputError(
                "weight: 0 would distil nothing of attention: layers: none says so, teacher: none is plain training"
            )
        adapter_for(settings).plan(settings, arguments, command_line())
    except InputError as error:
        raise InputError(f"arm '{arm.name}': {error}") from error
    found = {**arm.values, "data": settings.data, **({"trust": True} if trust else {})}
    return Arm(arm.name, arm.file, arm.about, arm.recipe, found)


def cores() -> int:
    """The processor's cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _has_gpu() -> bool:
    import torch

    return torch.cuda.is_available()


def _yaml(values: Any) -> str:
    text: str = yaml.safe_dump(values, sort_keys=False, allow_unicode=True)
    return text


def _plain(value: Any) -> Any:
    """Tuples as lists, which is what safe YAML knows."""
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value
