"""The main job on data that needs no download: a teacher, a plain student and a distilled one, on generated scenes."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from distill.config import find_config
from distill.errors import DistillError
from distill.jobs.seeing.comparing import compare
from distill.jobs.seeing.comparison import REPORT
from distill.jobs.summary import TrainResult
from distill.loading import ultralytics_adapter
from distill.records import TABLE
from distill.scenes import scenes_data

EPOCHS = {"teacher": 9, "plain": 5, "distilled": 5}  # the same budget for both students
SETTINGS = (  # what lets these networks learn from so few images in minutes; the same for all three
    *("imgsz=160", "batch=8", "nbs=8", "optimizer=MuSGD", "lr0=0.02", "cos_lr=True", "cls=1.5"),
    *("mosaic=0", "scale=0.1", "translate=0.05", "warmup_epochs=0", "warmup_bias_lr=0", "plots=False"),
)
FLOORS = {"teacher": 0.5, "plain": 0.2}  # mAP50-95 under which a network has not learned enough to show anything
PROGRESS_SECONDS = 15


class DemoFailed(DistillError):
    """A network stayed under its floor, or a training run failed."""

    exit_code = 1


def demo(project: str = "runs/demo", device: str = "cpu") -> str:
    """Train the three networks, seed 0, and return the comparison as text.

    Teacher and plain student are trained side by side, one thread each on two cores. Raises DemoFailed when a
    network stays under its floor: a comparison of networks that learned nothing would say nothing; and InputError for a
    device that is not there.
    """
    ultralytics_adapter().checked_device(device)
    folder = _new(Path(project).absolute())
    data = scenes_data()
    pico = find_config("models/yolo11-pico.yaml")
    common = ["--data", str(data), "--project", str(folder), "--device", device, *SETTINGS]
    print(
        f"demo: teacher YOLO11n and student {pico.stem} on generated scenes, logs and results in {folder}", flush=True
    )

    first = {
        "teacher": [*common, "--student", "yolo11n.yaml", "--name", "teacher"],
        "plain": [*common, "--student", str(pico), "--name", "plain"],
    }
    _train(first, folder)
    teacher = TrainResult.read(folder / "teacher")
    guided = [*common, "--student", str(pico), "--name", "distilled", "--teacher", str(teacher.best), "--heatmaps", "1"]
    _train({"distilled": guided}, folder)

    results = {name: TrainResult.read(folder / name) for name in EPOCHS}
    for name, floor in FLOORS.items():
        if results[name].score < floor:
            raise DemoFailed(
                f"the {name} network reached mAP50-95 {results[name].score:.3f}, under {floor}: see {folder}"
            )
    files = {name: str(result.best) for name, result in results.items()}
    seen = compare(files["teacher"], files["distilled"], baseline=files["plain"], data=str(data), device=device)
    pictures = seen.save(folder / "heatmap")
    return f"{_comparison(results)}\n\nwhere they look, on validation images\n{seen}\n\nsee {pictures / REPORT}"


def _train(runs: Mapping[str, list[str]], folder: Path) -> None:
    """Run `distill train` once for each entry, side by side, and say how far they are."""
    threads = max(1, (os.cpu_count() or 1) // len(runs))
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "YOLO_OFFLINE": "true"}
    started: dict[str, subprocess.Popen[bytes]] = {}
    try:
        for name, arguments in runs.items():
            command = [sys.executable, "-m", "distill", "train", *arguments, f"epochs={EPOCHS[name]}"]
            with open(folder / f"{name}.log", "wb") as log:
                started[name] = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, env=environment)
        said = time.monotonic()
        while any(process.poll() is None for process in started.values()):
            time.sleep(0.2)
            if time.monotonic() - said >= PROGRESS_SECONDS:
                said = time.monotonic()
                print(
                    "      " + "   ".join(f"{name} {_epochs(folder / name)}/{EPOCHS[name]}" for name in runs),
                    flush=True,
                )
    finally:
        for process in started.values():
            if process.poll() is None:
                process.terminate()
                process.wait()
    for name, process in started.items():
        if process.returncode:
            raise DemoFailed(f"training the {name} network failed ({process.returncode}): see {folder}/{name}.log")


def _epochs(run: Path) -> int:
    table = run / TABLE
    return max(0, len(table.read_text(encoding="utf-8").splitlines()) - 1) if table.is_file() else 0


def _comparison(results: Mapping[str, TrainResult]) -> str:
    lines = ["", str(results["distilled"]), "", "same student, same budget, seed 0"]
    for name in ("plain", "distilled"):
        lines.append(f"  {name:10} mAP50-95 {results[name].score:.4f}   {results[name].best}")
    lines.append(f"  {'teacher':10} mAP50-95 {results['teacher'].score:.4f}   {results['teacher'].best}")
    lines.append("One seed shows how the job runs, not how much distillation brings: docs/results.md has paired seeds.")
    return "\n".join(lines)


def _new(project: Path) -> Path:
    """A folder that did not exist: the one asked for, or the next number behind it."""
    number = 1
    while True:
        folder = project if number == 1 else project.with_name(f"{project.name}{number}")
        try:
            folder.mkdir(parents=True)
            return folder
        except FileExistsError:
            number += 1
