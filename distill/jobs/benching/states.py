"""One run of a bench: where its files lie, and how far it is, as they tell."""

from __future__ import annotations

import csv
import json
import math
import shutil
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from distill.jobs.benching.plans import ARMS, LOGS, RUNS, Plan
from distill.jobs.benching.processes import Ended
from distill.records import TABLE, put_back, read_manifest, write_whole

WAITING, RUNNING, DONE, FAILED = "waiting", "running", "done", "failed"
LAST_LINES = 4  # of a log, told of a run that failed


@dataclass(frozen=True)
class Run:
    """An arm with a seed, in the bench's folder."""

    bench: Path
    arm: str
    seed: int
    epochs: int

    @property
    def folder(self) -> Path:
        return self.bench / RUNS / self.arm / f"seed{self.seed}"

    @property
    def log(self) -> Path:
        return self.bench / LOGS / f"{self.arm}-seed{self.seed}.log"

    @property
    def settings(self) -> Path:
        return self.bench / ARMS / f"{self.arm}.yaml"

    @property
    def _note(self) -> Path:
        return self.folder.with_suffix(".json")

    def clear(self) -> None:
        """Begin anew: whatever an earlier attempt left is removed."""
        put_back(self.folder)
        shutil.rmtree(self.folder, ignore_errors=True)
        self._note.unlink(missing_ok=True)

    def note(self, ended: Ended, device: str | None) -> None:
        """Keep how its process ended; what the run itself cannot know."""
        write_whole(self._note, json.dumps({**asdict(ended), "device": device}) + "\n")

    def noted(self) -> dict[str, Any]:
        """What was kept; empty where the process is not known to have ended."""
        try:
            return dict(json.loads(self._note.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError):
            return {}

    def state(self) -> str:
        """Done, failed or waiting: what the files say. A run whose bench was killed may be done all the same."""
        if self.manifest().get("finished") and self.rows():
            return DONE
        return FAILED if self.noted().get("code") else WAITING

    def manifest(self) -> dict[str, Any]:
        try:
            return dict(read_manifest(self.folder))
        except (OSError, ValueError, TypeError):  # damaged
            return {}

    def rows(self) -> list[dict[str, str]]:
        """The epochs so far, from results.csv."""
        try:
            with (self.folder / TABLE).open(encoding="utf-8", newline="") as text:
                return [row for row in csv.DictReader(text, skipinitialspace=True) if None not in row.values()]
        except (OSError, ValueError, csv.Error):
            return []

    def complaint(self) -> str:
        """The last lines of its log, without empty ones."""
        try:
            text = self.log.read_text(encoding="utf-8", errors="replace").replace("\r", "\n")
        except OSError:
            return "no log"
        return "\n".join([line for line in text.splitlines() if line.strip()][-LAST_LINES:])


def runs_of(plan: Plan, bench: Path) -> list[Run]:
    """All runs in the order in which they are begun: a seed's arms before the next seed, so that pairs are complete."""
    return [Run(bench, arm.name, seed, arm.epochs) for seed in plan.seeds for arm in plan.arms]


def scores(run: Run) -> list[float]:
    """The task's main figure after each epoch, of the averaged weights that are saved; NaN where there is none."""
    rows, key = run.rows(), str(run.manifest().get("score"))
    return [number(row.get(key, row.get(f"val/{key}"))) if _validated(row) else math.nan for row in rows]


def _validated(row: Mapping[str, Any]) -> bool:
    """Ultralytics writes zeros for epochs that `val=False` left out, where a loss is never exactly 0."""
    losses = [number(value) for key, value in row.items() if key.startswith("val/") and key.endswith("loss")]
    return not losses or any(losses)


def clock(run: Run) -> list[float]:
    """Seconds since the first epoch began, at the end of each."""
    rows = run.rows()
    if rows and "time" in rows[0]:
        return [number(row["time"]) for row in rows]
    return running_sum(number(row.get("seconds")) for row in rows)  # a U-Net's are those of the epoch


def running_sum(values: Iterable[float]) -> list[float]:
    """1, 2, 3 -> 1, 3, 6."""
    found: list[float] = []
    for value in values:
        found.append(value + (found[-1] if found else 0.0))
    return found


def number(cell: Any) -> float:
    """A cell of a table; NaN for an empty one."""
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def gpu_memory(manifest: Mapping[str, Any]) -> float:
    """Peak memory on the GPU in bytes, as the run itself measured it; NaN where it did not, or ran elsewhere."""
    return number(manifest.get("peak_memory")) if str(manifest.get("device")).startswith("cuda") else math.nan
