"""Paired differences over several benches: a pair is two arms' runs of one seed in one bench.

    python tools/pool_benches.py --minus plain,native-1,fit docs/results/deeppcb-trained-student-{gpu,c}.csv

Reads the runs.csv that `distill bench` leaves. Prints two Markdown tables in points: each arm's mean ± standard
deviation (runs), for each bench and for all; and for each reference the mean paired difference with its 95 % t-interval
and the number of pairs. Benches with teachers or students of their own make pairs that are not quite of one kind, which
makes the interval too narrow: give those that belong together.
"""

from __future__ import annotations

import argparse
import csv
from collections.abc import Iterable
from pathlib import Path

from distill.jobs.benching.paired import Spread, difference

APART = 2**31  # seeds are below: no two benches share a key
Scores = dict[str, dict[int, float]]  # by arm, then by bench and seed


def read(files: Iterable[Path]) -> Scores:
    """The last epochs' scores of all runs that are done; the key of a run is APART times the bench, plus the seed."""
    scores: Scores = {}
    for place, file in enumerate(files):
        with open(file, encoding="utf-8", newline="") as lines:
            for row in csv.DictReader(lines):
                if row["state"] == "done" and row["score"]:
                    scores.setdefault(row["arm"], {})[place * APART + int(row["seed"])] = float(row["score"])
    return scores


def mean_row(scores: dict[int, float], benches: int) -> list[str]:
    """Of each bench, and of all."""
    parts = [[s for key, s in scores.items() if place in (key // APART, benches)] for place in range(benches + 1)]
    return [_spread(Spread.of(part)) for part in parts]


def difference_cell(arm: str, reference: str, scores: Scores) -> str:
    """Mean, interval and pairs; empty for an arm and itself, and without two pairs."""
    found = difference(arm, reference, scores[arm], scores[reference])
    if arm == reference or found.spread.mean is None or found.low is None or found.high is None:
        return ""
    return f"{100 * found.spread.mean:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f}), {found.spread.n}"


def main() -> None:
    """Read the benches, print the tables."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("benches", nargs="+", type=Path, metavar="runs.csv")
    parser.add_argument("--minus", default="plain", metavar="ARMS", help="references; default: %(default)s")
    arguments = parser.parse_args()
    if len({file.read_bytes() if file.is_file() else file for file in arguments.benches}) < len(arguments.benches):
        parser.error("the same bench is given twice: its pairs would count twice")
    try:
        scores = read(arguments.benches)
    except (OSError, KeyError, ValueError) as error:
        parser.error(f"no runs.csv of a bench: {error}")
    references = arguments.minus.split(",")
    if missing := [name for name in references if name not in scores]:
        parser.error(f"--minus {missing[0]}: no run of it is done: there are {', '.join(scores)}")

    _table(
        ["arm", *(file.parent.name if file.stem == "runs" else file.stem for file in arguments.benches), "all"],
        ([arm, *mean_row(scores[arm], len(arguments.benches))] for arm in scores),
    )
    _table(
        ["arm", *(f"minus {name}" for name in references)],
        ([arm, *(difference_cell(arm, name, scores) for name in references)] for arm in scores),
    )


def _spread(found: Spread) -> str:
    if found.mean is None:
        return ""
    around = "" if found.sd is None else f" ± {100 * found.sd:.2f}"
    return f"{100 * found.mean:.2f}{around} ({found.n})"


def _table(head: list[str], rows: Iterable[list[str]]) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(cells) + " |")
    print()


if __name__ == "__main__":
    main()
