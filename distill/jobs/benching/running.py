"""The runs of a bench, several at a time: begun in order, watched, stopped together; one that fails stops no other."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from distill.adapters.ultralytics.environment import THREADS
from distill.jobs.benching.plans import Plan
from distill.jobs.benching.processes import Child, Ended, ended_as_interrupts, stop
from distill.jobs.benching.states import DONE, Run
from distill.records import MANIFEST

Command = Callable[[Run, str | None], Sequence[str]]
PAUSE = 0.2  # seconds between looks at the runs


@dataclass
class Active:
    """A run under way, on a device."""

    run: Run
    child: Child
    device: str | None


def train_command(run: Run, device: str | None) -> list[str]:
    """`distill train` for one run."""
    command = [sys.executable, "-m", "distill", "train", "--config", str(run.settings), "--seed", str(run.seed)]
    command += ["--project", str(run.folder.parent), "--name", run.folder.name]
    return command + (["--device", device] if device is not None else [])


class Pool:
    """Runs `command` for each run in as many slots as the plan has.

    `watch(pool)` is called while they run, `ended(run, how)` after each. The first run begins alone until it has read
    its data: what Ultralytics keeps beside a data set must not be written by two at once.
    """

    def __init__(
        self,
        plan: Plan,
        lock: int,
        command: Command = train_command,
        watch: Callable[[Pool], None] = lambda pool: None,
        ended: Callable[[Run, Ended], None] = lambda run, how: None,
    ) -> None:
        self._plan, self._lock, self._command = plan, lock, command
        self._watch, self._ended = watch, ended
        self.active: list[Active] = []
        self.waiting: list[Run] = []
        self._alone = True

    def work(self, runs: Sequence[Run]) -> None:
        """Run all of them. On an interruption those under way are stopped, and it is raised again."""
        self.waiting = list(runs)
        with ended_as_interrupts():
            try:
                while self.waiting or self.active:
                    self._fill()
                    self._collect()
                    self._watch(self)
                    time.sleep(PAUSE if self.active else 0)
            finally:
                stop([one.child for one in self.active])

    def _fill(self) -> None:
        free = list(self._plan.slots)
        for one in self.active:
            free.remove(one.device)
        while free and self.waiting and not (self._alone and self.active):
            self._start(self.waiting.pop(0), free.pop(0))

    def _start(self, run: Run, device: str | None) -> None:
        run.clear()
        run.folder.parent.mkdir(parents=True, exist_ok=True)
        threads = {} if self._plan.threads is None else environment(self._plan.threads)
        self.active.append(Active(run, Child(self._command(run, device), run.log, threads, self._lock), device))

    def _collect(self) -> None:
        for one in list(self.active):
            how = one.child.poll()
            if how is None:
                self._alone = self._alone and not (one.run.folder / MANIFEST).exists()
                continue
            self._alone = False
            self.active.remove(one)
            if one.run.state() != DONE and how.code == 0:  # it says that all is well, and left no result
                how = Ended(1, how.seconds, how.memory)
            one.run.note(how, one.device)
            self._ended(one.run, how)


def environment(threads: int) -> dict[str, str]:
    """What holds a run to so many threads: Ultralytics sets its own number on a CPU, unless it is told."""
    return {"OMP_NUM_THREADS": str(threads), THREADS: str(threads)}
