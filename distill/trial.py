"""Does a term of the teaching slow the student down? Read off the task's losses of two short runs, one with it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

SLOWER = 0.01  # of the task's loss, by which it may be higher before the term is left out


@dataclass(frozen=True)
class Trial:
    """The task's loss with a term over that without it, less 1, over the second half of so many `steps`."""

    change: float
    steps: int

    @classmethod
    def of(cls, without: Sequence[float], with_it: Sequence[float]) -> Trial:
        """From the task's loss at each step of both runs, which saw the same images in the same order."""
        half = len(without) // 2
        return cls(mean(with_it[half:]) / mean(without[half:]) - 1, len(without))

    @property
    def passed(self) -> bool:
        """Was the task learned as fast, or nearly? Not where a loss is no number."""
        return self.change <= SLOWER

    def __str__(self) -> str:
        how = "higher" if self.change > 0 else "lower"
        verdict = "taught" if self.passed else "left out"
        return f"{verdict}: with them the task's loss was {100 * abs(self.change):.1f} % {how} after {self.steps} steps"
