"""A bench's figures as files for a spreadsheet: a row per run, a row per arm."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

from distill.jobs.benching.results import Results
from distill.records import write_whole
from distill.text import csv_text

RUNS, SUMMARY = "runs.csv", "summary.csv"
OF_A_RUN = (
    *("arm", "seed", "state", "score", "best_score", "epochs", "wall_seconds", "training_seconds", "seconds_per_epoch"),
    *("memory_bytes", "gpu_memory_bytes", "device", "initial_weights", "folder"),
)
OF_AN_ARM = ("arm", "runs", "mean", "sd", "wall_seconds", "seconds_per_epoch", "memory_bytes", "gpu_memory_bytes")
OF_A_DIFFERENCE = ("seeds", "mean", "sd", "low", "high", "p", "holm_p", "verdict", "seeds_needed")


def write_tables(results: Results) -> None:
    """runs.csv and summary.csv; scores lie in [0, 1]; a cell is empty where a figure does not exist."""
    write_whole(results.folder / RUNS, csv_text([OF_A_RUN, *map(_known, _runs(results))]))
    against = list(dict.fromkeys(one.reference for one in results.differences))
    head = [*OF_AN_ARM, *(f"{part}_minus_{reference}" for reference in against for part in OF_A_DIFFERENCE)]
    rows = [head, *(_known(_arm(results, arm.name, against)) for arm in results.plan.arms)]
    write_whole(results.folder / SUMMARY, csv_text(rows))


def _runs(results: Results) -> Iterator[Sequence[Any]]:
    for one in results.outcomes:
        known = [score for score in one.scores if not math.isnan(score)]
        start = one.run.manifest().get("start")
        yield (
            *(one.run.arm, one.run.seed, one.state, one.score, max(known) if known else None, len(one.scores)),
            *(one.wall, one.times[-1] if one.times else None, one.epoch_seconds, one.memory, one.gpu, one.device),
            start.get("weights") if isinstance(start, dict) else None,
            one.run.folder.relative_to(results.folder),
        )


def _arm(results: Results, arm: str, against: Sequence[str]) -> list[Any]:
    spread = results.spread(arm)
    row: list[Any] = [arm, spread.n, spread.mean, spread.sd]
    row += [results.mean(arm, name) for name in ("wall", "epoch_seconds", "memory", "gpu")]
    for reference in against:
        pair = [one for one in results.differences if (one.arm, one.reference) == (arm, reference)]
        row += [
            cell
            for one in pair
            for cell in (one.spread.n, one.spread.mean, one.spread.sd, one.low, one.high, one.p, one.holm, one.verdict,
                         one.needed)
        ] or [None] * len(OF_A_DIFFERENCE)  # fmt: skip
    return row


def _known(row: Sequence[Any]) -> list[Any]:
    return [None if isinstance(cell, float) and math.isnan(cell) else cell for cell in row]
