"""When a bench will be done, from what its own runs have taken so far."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from statistics import fmean

from distill.jobs.benching.running import Pool
from distill.jobs.benching.states import Run


class Timing:
    """What a run of each arm takes: measured by a trial, then by the runs under way, then by those that are done."""

    def __init__(self, trials: Mapping[str, float]) -> None:
        self._trials = dict(trials)
        self._done: dict[str, list[float]] = {}

    def add(self, arm: str, seconds: float) -> None:
        """A run of this arm is done."""
        self._done.setdefault(arm, []).append(seconds)

    def whole(self, arm: str, pool: Pool | None = None) -> float | None:
        """Seconds of a run of this arm; of an arm that nothing is known of, the mean of the others."""
        found = self._of(arm, pool)
        if found is not None:
            return found
        arms = {*self._trials, *self._done, *({one.run.arm for one in pool.active} if pool else ())}
        known = [seconds for other in arms if (seconds := self._of(other, pool)) is not None]
        return fmean(known) if known else None

    def left(self, waiting: Sequence[Run], slots: int, pool: Pool | None = None) -> float | None:
        """Seconds until all is done; None while nothing is known."""
        total = 0.0
        for run in waiting:
            if (seconds := self.whole(run.arm, pool)) is None:
                return None
            total += seconds
        for one in pool.active if pool else ():
            if (seconds := self.whole(one.run.arm, pool)) is None:
                return None
            total += max(0.0, seconds - (time.monotonic() - one.child.started))
        return total / max(1, min(slots, len(waiting) + (len(pool.active) if pool else 0)))

    def _of(self, arm: str, pool: Pool | None) -> float | None:
        if arm in self._done:
            return fmean(self._done[arm])
        if arm in self._trials:
            return self._trials[arm]
        for one in pool.active if pool else ():
            if one.run.arm == arm and (epochs := len(one.run.rows())):
                return (time.monotonic() - one.child.started) * one.run.epochs / epochs
        return None


def remaining(seconds: float | None) -> str:
    """What there is left to wait for."""
    return "time left not known yet" if seconds is None else f"about {spoken(seconds)} left"


def spoken(seconds: float) -> str:
    """`45 s`, `12 min`, `3 h 05 min`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"
