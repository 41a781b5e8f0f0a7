"""How far a bench is: a table of arms and seeds that is redrawn in a terminal, elsewhere a line per finished run."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Sequence

from distill.jobs.benching.plans import Plan
from distill.jobs.benching.processes import Ended
from distill.jobs.benching.running import Pool
from distill.jobs.benching.states import DONE, FAILED, WAITING, Run, scores
from distill.jobs.benching.timing import Timing, remaining, spoken
from distill.text import aligned

EVERY = 1.0  # seconds between drawings


class Board:
    """Shows the runs on standard error. `watch` and `ended` are called by the pool."""

    def __init__(self, plan: Plan, runs: Sequence[Run], timing: Timing) -> None:
        self._plan, self._runs, self._timing = plan, runs, timing
        self._cells = {(run.arm, run.seed): _cell(run) if run.state() == DONE else WAITING for run in runs}
        self._live = sys.stderr.isatty()
        self._drawn, self._at = 0, 0.0

    def watch(self, pool: Pool) -> None:
        """Draw the table anew, once a second, where it can be."""
        if self._live and time.monotonic() - self._at >= EVERY:
            self._at = time.monotonic()
            self._draw(pool)

    def ended(self, run: Run, how: Ended, pool: Pool) -> None:
        """Tell of a run that ended: its score, or why it failed."""
        self._cells[run.arm, run.seed] = _cell(run)
        if run.state() == DONE:
            self._timing.add(run.arm, how.seconds)
        ended = sum(cell != WAITING for cell in self._cells.values())
        what = f"[{ended}/{len(self._cells)}] {run.arm} seed {run.seed}"
        rest = remaining(self._timing.left(pool.waiting, len(self._plan.slots), pool))
        if run.state() == DONE:
            if not self._live:
                _say(f"{what}: {self._cells[run.arm, run.seed]} in {spoken(how.seconds)}; {rest}")
            return
        self._wipe()
        complaint = "\n    ".join(run.complaint().splitlines())
        _say(f"{what} failed (exit code {how.code}); the others go on. The end of {run.log}:\n    {complaint}")

    def _draw(self, pool: Pool) -> None:
        under_way = {(one.run.arm, one.run.seed): one.run for one in pool.active}
        rows = [("", *(f"seed {seed}" for seed in self._plan.seeds))]
        for arm in self._plan.arms:
            cells = []
            for seed in self._plan.seeds:
                run = under_way.get((arm.name, seed))
                cells.append(self._cells[arm.name, seed] if run is None else f"{len(run.rows())}/{run.epochs}")
            rows.append((arm.name, *cells))
        width, height = shutil.get_terminal_size()
        lines = aligned(rows).splitlines()
        if len(lines[0]) >= width or len(lines) >= height - 1:
            lines = [self._counts(pool)]
        lines.append(remaining(self._timing.left(pool.waiting, len(self._plan.slots), pool)))
        self._wipe()
        _say("\n".join(line[: width - 1] for line in lines))
        self._drawn = len(lines)

    def _counts(self, pool: Pool) -> str:
        """For a table that no terminal has room for."""
        now = ", ".join(f"{a.run.arm} seed {a.run.seed} {len(a.run.rows())}/{a.run.epochs}" for a in pool.active)
        return f"{len(self._cells) - len(pool.waiting) - len(pool.active)} of {len(self._cells)} runs ended; now {now}"

    def _wipe(self) -> None:
        if self._drawn:
            print(f"\x1b[{self._drawn}F\x1b[J", end="", file=sys.stderr)
            self._drawn = 0


def _cell(run: Run) -> str:
    state = run.state()
    if state == DONE:
        found = scores(run)
        return f"{found[-1]:.4f}" if found else "no score"
    return FAILED if state == FAILED else WAITING


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
