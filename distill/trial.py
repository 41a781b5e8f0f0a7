"""Does what is taught slow the student down? Read off the task's losses of two short runs, one of them taught."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

SLOWER = 0.01  # of the task's loss, by which it may be higher: as much as two runs of the same worth may differ


@dataclass(frozen=True)
class Trial:
    """The task's loss taught over that alone, less 1, on average over the second half of so many `steps`."""

    change: float
    steps: int

    @classmethod
    def of(cls, alone: Sequence[float], taught: Sequence[float]) -> Trial:
        """From the task's loss at each step of both runs, which saw the same images in the same order."""
        half = len(alone) // 2
        return cls(mean(taught[half:]) / mean(alone[half:]) - 1, len(alone))

    @property
    def passed(self) -> bool:
        """Was the task learned as fast, or nearly? Not where a loss is no number."""
        return self.change <= SLOWER

    def __str__(self) -> str:
        how = "higher" if self.change > 0 else "lower"
        return f"the task's loss was {100 * abs(self.change):.1f} % {how} after {self.steps} steps"
