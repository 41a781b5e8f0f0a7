"""What the benchmarks share: options, interleaved timing, memory of a fresh process, tables, targets."""

from __future__ import annotations

import argparse
import gc
import json
import os
import platform
import re
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from distill.records import versions

MB = 1 << 20


def options(description: str | None) -> argparse.ArgumentParser:
    """A parser with the options that every benchmark has."""
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=description, formatter_class=form)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--device", default="cpu", type=_device, help="cpu, or the number of a GPU")
    parser.add_argument("--json", metavar="FILE", help="write the figures there too")
    parser.add_argument("--no-check", action="store_true", help="exit 0 even when a target is missed")
    return parser


def _device(text: str) -> torch.device:
    return torch.device(f"cuda:{text}" if text.isdigit() else text)


def interleaved(runs: Mapping[str, Callable[[], Any]], rounds: int, device: torch.device) -> dict[str, list[float]]:
    """Seconds of every run in every round. All run in each round, so that a busy minute of the machine hits all alike.

    Each round starts with another run, or one of them would always follow the same neighbour. One round goes uncounted.
    On one CPU thread it is processor time, which other jobs on the machine do not lengthen; otherwise elapsed time.
    """
    clock = time.process_time if device.type == "cpu" and torch.get_num_threads() == 1 else time.perf_counter
    seconds: dict[str, list[float]] = {name: [] for name in runs}
    names = list(runs)
    for done in range(rounds + 1):
        print(f"\rround {done}/{rounds}", end="", file=sys.stderr, flush=True)
        for name in names[done % len(names) :] + names[: done % len(names)]:
            wait(device)
            start = clock()
            runs[name]()
            wait(device)
            if done:
                seconds[name].append(clock() - start)
    print(file=sys.stderr)
    return seconds


def wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def ratio(seconds: Mapping[str, Sequence[float]], name: str, base: str) -> tuple[float, float, float]:
    """Median over median, and the quartiles of the ratios within one round: the spread."""
    each = [a / b for a, b in zip(seconds[name], seconds[base], strict=True)]
    low, _, high = statistics.quantiles(each, n=4)
    return statistics.median(seconds[name]) / statistics.median(seconds[base]), low, high


class Memory:
    """The most memory in use since `start`, above what was in use then, in bytes: the GPU's, or this process's.

    A process is best a fresh one: where the high-water mark cannot be set back (macOS), it must not have been higher.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device

    def start(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        else:
            with suppress(OSError):
                Path("/proc/self/clear_refs").write_text("5")
        self._before = self._highest()

    def again(self) -> None:
        """Forget what was needed so far, where that can be told apart: on a GPU."""
        if self.device.type == "cuda":
            gc.collect()
            torch.cuda.reset_peak_memory_stats(self.device)

    def peak(self) -> int:
        return self._highest() - self._before

    def _highest(self) -> int:
        if self.device.type == "cuda":
            return torch.cuda.max_memory_allocated(self.device)
        if (status := Path("/proc/self/status")).exists():  # not ru_maxrss, which a child takes over from its parent
            return int(re.findall(r"VmHWM:\s+(\d+) kB", status.read_text())[0]) * 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def fresh(*arguments: str) -> float:
    """The number that the calling script prints when it runs anew, in a process of its own, with arguments added."""
    settings = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # or glibc keeps by chance some of what is freed
    command = [sys.executable, *sys.argv, *arguments]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env={**os.environ, **settings})
    return float(done.stdout.split()[-1])


@dataclass(frozen=True)
class Target:
    """A promise: `value` at most (or, with `least`, at least) `limit`."""

    name: str
    value: float
    limit: float
    least: bool = False

    @property
    def met(self) -> bool:
        return self.value >= self.limit if self.least else self.value <= self.limit

    def __str__(self) -> str:
        sign = ">=" if self.least else "<="
        return f"{'PASS' if self.met else 'MISS'}  {self.name}: {self.value:.2f} {sign} {self.limit:.2f}"


def machine(device: torch.device) -> str:
    """Processor, threads and versions on one line: no figure means anything without them."""
    found = versions()
    info = Path("/proc/cpuinfo")
    names = re.findall(r"model name\s*: (.*)", info.read_text()) if info.exists() else []
    processor = torch.cuda.get_device_name(device) if device.type == "cuda" else (names or [platform.processor()])[0]
    packages = f"torch {found['torch']}, ultralytics {found['ultralytics']}"
    return f"{processor}, {torch.get_num_threads()} thread(s), {packages}"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns under each other: the first flush left, numbers flush right."""
    widths = [max(map(len, column)) for column in zip(header, *rows, strict=True)]
    lines = []
    for row in (header, *rows):
        cells = [row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]
        lines.append("  ".join(cells).rstrip())
    return "\n".join(lines)


def conclude(targets: Sequence[Target], check: bool, file: str | None, found: dict[str, Any]) -> int:
    """Print the targets, write the JSON, and give the exit code: 1 when one is missed and `check` is set."""
    print("\n".join(map(str, targets)))
    if file:
        met = {target.name: {"value": target.value, "limit": target.limit, "met": target.met} for target in targets}
        Path(file).write_text(json.dumps({**found, "targets": met}, indent=2) + "\n", encoding="utf-8")
    return int(check and not all(target.met for target in targets))
