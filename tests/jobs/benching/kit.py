"""A bench without training: plans made by hand, and a command that writes what a run of `distill train` leaves."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from distill.jobs.benching.plans import Plan
from distill.jobs.benching.recipes import Arm
from distill.jobs.benching.states import Run

SCORE = "metrics/mAP50-95(B)"
SCRIPT = """
import json, sys, time
from pathlib import Path
folder, score, code, seconds, epochs = Path(sys.argv[1]), float(sys.argv[2]), *map(float, sys.argv[3:6])
folder.mkdir()  # it must not be there: a run begins anew
print("begun", folder, flush=True)
(folder / "manifest.json").write_text(json.dumps({"score": "metrics/mAP50-95(B)", "finished": False}))
time.sleep(seconds)
if code:
    print("out of luck", file=sys.stderr)
    sys.exit(int(code))
rows = [f"{e},{2 * e},{score * e / epochs}" for e in range(1, int(epochs) + 1)]
(folder / "results.csv").write_text("\\n".join(["epoch,time,metrics/mAP50-95(B)", *rows]) + "\\n")
(folder / "manifest.json").write_text(json.dumps({"score": "metrics/mAP50-95(B)", "finished": True}))
"""


def arm(name: str, epochs: int = 3, **recipe: Any) -> Arm:
    values = {"student": "s.yaml", "data": "d.yaml", "epochs": epochs, **recipe}
    return Arm(name, f"{name}.yaml", f"The arm {name}.", recipe, values)


def plan(arms: Sequence[str | Arm], seeds: Sequence[int] = (0, 1), **more: Any) -> Plan:
    made = tuple(one if isinstance(one, Arm) else arm(one) for one in arms)
    record = {"command": "distill bench", "created": "2026-01-01", "versions": {}, "teacher": None, "trust": False}
    settings = {"jobs": 1, "devices": ("cpu",), "threads": 1, "files": {}, "record": record, **more}
    return Plan(made, tuple(seeds), **settings)


class Fake:
    """Stands for `distill train`: score by arm and seed; `codes` and `seconds` by (arm, seed), `begun` is the order."""

    def __init__(self, scores: Mapping[str, float], codes: Any = None, seconds: Any = None) -> None:
        self.scores, self.codes, self.seconds = scores, codes or {}, seconds or {}
        self.begun: list[tuple[str, int]] = []
        self.devices: list[str | None] = []

    def __call__(self, run: Run, device: str | None) -> list[str]:
        key = run.arm, run.seed
        self.begun.append(key)
        self.devices.append(device)
        score = self.scores[run.arm] + 0.01 * run.seed
        words = [run.folder, score, self.codes.get(key, 0), self.seconds.get(key, 0), run.epochs]
        return [sys.executable, "-S", "-c", SCRIPT, *map(str, words)]


def leave(run: Run, scores: Sequence[float], column: str = SCORE, **manifest: Any) -> None:
    """What a finished run has in its folder."""
    run.folder.mkdir(parents=True)
    rows = [f"{epoch},{10.0 * epoch},{score}" for epoch, score in enumerate(scores, 1)]
    (run.folder / "results.csv").write_text("\n".join([f"epoch,time,{column}", *rows]) + "\n")
    (run.folder / "manifest.json").write_text(json.dumps({"score": SCORE, "finished": True, **manifest}))


def folder_of(plan: Plan, path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    plan.write(path)
    return path
