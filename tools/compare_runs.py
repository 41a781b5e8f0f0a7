"""Paired comparison of finished runs from their results.csv: the same seeds, trained without and with a teacher.

    python tools/compare_runs.py --plain runs/plain0 runs/plain1 runs/plain2 --distilled runs/a0 runs/a1 runs/a2

Prints a Markdown table: for each pair of runs the score of the last epoch and of the best one, and the paired
differences with their mean and standard deviation. Works on any folder in which Ultralytics left a results.csv.
"""

from __future__ import annotations

import argparse
import csv
from pathlib import Path
from statistics import mean, stdev


def scores(run: Path, column: str) -> tuple[float, float]:
    """The score of the last epoch, and the best of all epochs."""
    with open(run / "results.csv", encoding="utf-8", newline="") as file:
        values = [float(row[column]) for row in csv.DictReader(file, skipinitialspace=True)]
    return values[-1], max(values)


def main() -> None:
    """Read the runs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--plain", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--distilled", nargs="+", type=Path, required=True, metavar="RUN")
    parser.add_argument("--column", default="metrics/mAP50-95(B)", help="default: %(default)s")
    arguments = parser.parse_args()
    if len(arguments.plain) != len(arguments.distilled):
        parser.error("give as many plain runs as distilled ones, in the order of their seeds")

    try:
        pairs = [
            (*scores(plain, arguments.column), *scores(distilled, arguments.column))
            for plain, distilled in zip(arguments.plain, arguments.distilled, strict=True)
        ]
    except (OSError, KeyError, ValueError, IndexError) as error:
        parser.error(f"no results.csv with a column {arguments.column}: {error}")
    heads = ("last epoch: plain", "distilled", "difference", "best epoch: plain", "distilled", "difference")
    print("| pair | " + " | ".join(heads) + " |")
    print("|---|---|---|---|---|---|---|")
    for number, (plain, plain_best, ours, ours_best) in enumerate(pairs):
        cells = plain, ours, ours - plain, plain_best, ours_best, ours_best - plain_best
        print(f"| {number} | " + " | ".join(f"{100 * cell:.2f}" for cell in cells) + " |")
    columns = list(zip(*pairs, strict=True))
    last = [100 * (ours - plain) for plain, _, ours, _ in pairs]
    best = [100 * (ours - plain) for _, plain, _, ours in pairs]
    plain, plain_best, ours, ours_best = (f"{100 * mean(column):.2f}" for column in columns)
    print(f"| mean | {plain} | {ours} | {_spread(last)} | {plain_best} | {ours_best} | {_spread(best)} |")


def _spread(differences: list[float]) -> str:
    if len(differences) < 2:
        return f"{differences[0]:+.2f}"
    return f"{mean(differences):+.2f} ± {stdev(differences):.2f} (sd)"


if __name__ == "__main__":
    main()
