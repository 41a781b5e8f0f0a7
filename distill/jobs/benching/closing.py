"""The tables that end a bench."""

from __future__ import annotations

from collections.abc import Iterator

from distill.jobs.benching import rows, words
from distill.jobs.benching.results import Results
from distill.text import aligned


def text(results: Results) -> str:
    """The whole result for a terminal."""
    arms, costs = rows.arm_rows(results), rows.cost_rows(results)
    whole = [(*arm, *cost[1:]) for arm, cost in zip(arms, costs, strict=True)]
    parts = [words.progress(results), f"{words.figure(results)}; differences within a seed, with 95 % t-intervals"]
    parts += [aligned(rows.filled(whole)), *_against(results), str(results.pairing)]
    parts += [told] if (told := words.of_teacher(results)) else []
    parts += [f"note: {note}" for note in results.notes]
    return "\n\n".join([*parts, words.UNCORRECTED if results.differences else ""]).strip()


def _against(results: Results) -> Iterator[str]:
    for _, found in rows.by_reference(results):
        columns = zip(*rows.difference_rows(results, found), strict=True)
        *table, verdicts = columns  # words stand flush left, behind the numbers
        lines = aligned(rows.filled(list(zip(*table, strict=True)))).splitlines()
        width = max(map(len, lines))
        yield "\n".join(f"{line.ljust(width)}  {told}" for line, told in zip(lines, verdicts, strict=True))
