"""Does what is taught slow the student down? Read off the task's losses of two short runs, one of them taught."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import mean

SLOWER = 0.01  # of the task's loss, by which it is higher where teaching harms: less may be chance
TINY = 1e-12  # a loss of nothing


@dataclass(frozen=True)
class Trial:
    """The task's loss taught over that alone, less 1, on average over the second half of so many `steps`."""

    change: float
    steps: int

    @classmethod
    def of(cls, alone: Sequence[float], taught: Sequence[float]) -> Trial:
        """From the task's loss at each step of both runs, which saw the same images in the same order."""
        half = len(alone) // 2
        without, with_it = mean(alone[half:]), mean(taught[half:])
        return cls((with_it - without) / max(abs(without), TINY), len(alone))

    @property
    def harms(self) -> bool:
        """Was the task learned clearly more slowly? Also where a loss is no number."""
        return not self.change <= SLOWER

    def __str__(self) -> str:
        if not math.isfinite(self.change):
            return f"the task's loss was no number after {self.steps} steps, with it or without"
        how = "higher" if self.change > 0 else "lower"
        return f"the task's loss was {100 * abs(self.change):.1f} % {how} after {self.steps} steps"
