"""Does what the teacher teaches go with the task, or against it? Told while a run goes on, and when it ends."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

from distill.weighting import Balance

AGAINST = -0.05  # a mean cosine below it, with scatter left aside, is a teacher that works against the task
ENOUGH = 8  # measurements before anything is said
REMEDY = "try a smaller share, --schedule cosine, or another teacher: distill bench tells what pays"


class Guard:
    """Follows the cosine between each term's gradient and the task's, at the layers where the term is weighed.

    `record` is where it keeps count, sum, sum of squares and the latest of the cosines of each term, in plain types, so
    that they survive an interruption. `first` are those that were found before training, the latest until then;
    `titles` what the terms are called.
    """

    def __init__(
        self, record: dict[str, Any], first: Mapping[str, float] | None = None, titles: Mapping[str, str] | None = None
    ) -> None:
        self.record = record
        self.titles = dict(titles or {})
        for name, cosine in (first or {}).items():
            record.setdefault(name, [0, 0.0, 0.0, cosine])
        self._told: set[str] = set()

    @property
    def latest(self) -> dict[str, float]:
        """Each term's cosine when it was last measured."""
        return {name: found[-1] for name, found in self.record.items()}

    def note(self, balances: Mapping[str, Balance]) -> list[str]:
        """Take in one measurement; what there is to say now, once for each term."""
        for name, balance in balances.items():
            if math.isfinite(balance.cosine):
                count, total, squares, _ = self.record.get(name, (0, 0.0, 0.0, 0.0))
                cosine = balance.cosine
                self.record[name] = [count + 1, total + cosine, squares + cosine**2, cosine]
        new = [name for name in against(self.record) if name not in self._told]
        self._told.update(new)
        return [
            f"{self.titles.get(name, name)}: taught against the task; over {self.record[name][0]} measurements the "
            f"cosine of both gradients is {mean_cosines(self.record)[name]:.2f}; {REMEDY}"
            for name in new
        ]


def mean_cosines(record: Mapping[str, Any]) -> dict[str, float]:
    """By term, the mean cosine of its gradient and the task's over a run."""
    return {name: total / count for name, (count, total, *_) in record.items() if count}


def against(record: Mapping[str, Any]) -> list[str]:
    """The terms that have worked against the task: a mean below `AGAINST` by more than two standard errors."""
    return [name for name, found in record.items() if found[0] >= ENOUGH and _below(*found[:3])]


def opposed(cosines: Iterable[float]) -> bool:
    """The same question about a few batches before training: are all of them, and their mean, clearly below 0?"""
    found = [cosine for cosine in cosines if math.isfinite(cosine)]
    return bool(found) and max(found) < 0 and sum(found) / len(found) < AGAINST


def _below(count: int, total: float, squares: float) -> bool:
    mean = total / count
    deviation = math.sqrt(max(squares / count - mean**2, 0.0))
    return mean + 2 * deviation / math.sqrt(count) < AGAINST
