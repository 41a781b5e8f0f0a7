"""A Markdown table of finished U-Net runs: arms over paired seeds, and the differences to the first arm.

    python tools/table_of_runs.py --arm plain runs/plain0 runs/plain1 --arm energy runs/energy0 runs/energy1 \
        --scores dice,dice/anterior,precision,recall

Each arm names its runs in the order of their seeds. Scores are those of the best checkpoint on the validation images
(manifest.json); `last` is the mean Dice of the last epoch (results.csv). With `--below 0.05` only images whose
foreground covers less than that share count (cases.csv).
"""

from __future__ import annotations

import argparse
import csv
import json
from pathlib import Path
from statistics import mean, stdev

PERCENT = ("dice", "iou", "precision", "recall", "last")  # shown in points; surface distances in their own unit


def main() -> None:
    """Read the runs, print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arm", nargs="+", action="append", required=True, metavar=("NAME", "RUN"))
    parser.add_argument("--scores", default="dice,last,precision,recall", help="default: %(default)s")
    parser.add_argument("--below", type=float, metavar="SHARE", help="only images with less foreground than this")
    arguments = parser.parse_args()
    arms = {name: [Path(run) for run in runs] for name, *runs in arguments.arm}
    if len({len(runs) for runs in arms.values()}) > 1 or not all(arms.values()):
        parser.error("give each arm as many runs as the others, in the order of their seeds")
    names = arguments.scores.split(",")
    try:
        table = {arm: [scores(run, names, arguments.below) for run in runs] for arm, runs in arms.items()}
    except (OSError, KeyError, ValueError, IndexError) as error:
        parser.error(f"no finished run of a U-Net with these scores: {error}")
    first = next(iter(table.values()))

    print(f"| | parameters | {' | '.join(names)} | {names[0]}: difference to {next(iter(table))} |")
    print("|---|---|" + "---|" * (len(names) + 1))
    for arm, runs in table.items():
        cells = [shown(name, [run[name] for run in runs]) for name in names]
        apart = [100 * (run[names[0]] - other[names[0]]) for run, other in zip(runs, first, strict=True)]
        difference = "" if runs is first else spread(apart, "+.2f")
        print(f"| {arm} | {parameters(arms[arm][0]):,} | {' | '.join(cells)} | {difference} |")


def scores(run: Path, names: list[str], below: float | None) -> dict[str, float]:
    """The named scores of one run."""
    measured = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["after"]["metrics"]
    if below is not None:
        measured = of_cases(run, below)
    with open(run / "results.csv", encoding="utf-8", newline="") as file:
        last = float(list(csv.DictReader(file))[-1]["val/dice"])
    return {name: {**measured, "last": last}[name] for name in names}


def of_cases(run: Path, below: float) -> dict[str, float]:
    """Means over classes of the means over the cases with little foreground."""
    with open(run / "cases.csv", encoding="utf-8", newline="") as file:
        cases = [case for case in csv.DictReader(file) if float(case["foreground"]) < below]
    columns = {key: [float(case[key]) for case in cases if case[key]] for key in cases[0] if "/" in key}
    found = {key: mean(values) for key, values in columns.items() if values}
    kinds = {key.split("/")[0] for key in found}
    return found | {kind: mean(v for k, v in found.items() if k.startswith(f"{kind}/")) for kind in kinds}


def shown(name: str, values: list[float]) -> str:
    """Mean and standard deviation over the seeds."""
    percent = name.split("/")[0] in PERCENT
    return spread([100 * value if percent else value for value in values], ".2f")


def spread(values: list[float], form: str) -> str:
    """`mean ± sd`, the latter of two or more."""
    return f"{mean(values):{form}}" + (f" ± {stdev(values):.2f}" if len(values) > 1 else "")


def parameters(run: Path) -> int:
    """Of the student."""
    profile = json.loads((run / "manifest.json").read_text(encoding="utf-8"))["after"]["profile"]
    return int(profile["parameters"])


if __name__ == "__main__":
    main()
