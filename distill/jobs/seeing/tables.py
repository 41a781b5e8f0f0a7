"""The figures as files for a spreadsheet, and as a table for the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from textwrap import fill
from typing import Any

from distill.jobs.seeing.figures import MAP_COLUMNS
from distill.jobs.seeing.intervals import NEARER, nearer
from distill.jobs.seeing.object_figures import OBJECT_COLUMNS
from distill.jobs.seeing.worth import ALL, GATE_COLUMNS, NONE
from distill.records import write_whole
from distill.text import aligned, csv_text
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Interval, Numbers

SUMMARY_COLUMNS = ("pair", "network", "figure", "mean", "low", "high", "n")
WIDTH = 100  # of the terminal's lines
SHOWN = {  # the terminal's columns after the interval
    "shuffled_distance": "other images",
    "flat_distance": "flat",
    "untrained_distance": "untrained",
    "cosine": "cosine",
    "box_ratio": "box ratio",
    "foreground_ratio": "foreground ratio",
    "alpha_mean": "alpha",
    "alpha_r": "alpha's r",
}


def write_tables(numbers: Numbers, folder: Path) -> None:
    """metrics.csv (a row per image, pair and network), objects.csv, summary.csv and, of gates, gates.csv in `folder`.

    UTF-8; cells as `csv_text` writes them.
    """
    write_whole(folder / "metrics.csv", _csv(MAP_COLUMNS, numbers.maps))
    write_whole(folder / "objects.csv", _csv(OBJECT_COLUMNS, numbers.objects))
    if numbers.gates:
        classes = dict.fromkeys(column for row in numbers.gates for column in row if column not in GATE_COLUMNS)
        write_whole(folder / "gates.csv", _csv((*GATE_COLUMNS, *classes), numbers.gates))
    summary = (
        {"pair": pair, "network": network, "figure": figure, **vars(found)}
        for pair, networks in numbers.summary.items()
        for network, figures in networks.items()
        for figure, found in figures.items()
    )
    write_whole(folder / "summary.csv", _csv(SUMMARY_COLUMNS, summary))


def lines(numbers: Numbers) -> str:
    """The summary for a terminal: a line per pair and network compared, how much nearer than the baseline the student
    came, then the pairs that tell nothing, and why.

    Columns without any figure are left out. The effective area stands where there is no distance, for a single network.
    """
    rows = [
        (pair, network, *_cells(found, networks[TEACHER] if TEACHER in networks and network != TEACHER else {}))
        for pair, networks in numbers.summary.items()
        for network, found in networks.items()
        if found and (network != TEACHER or len(networks) == 1)
    ]
    head = ("pair", "network", "area", "distance", "95 % interval", *SHOWN.values(), "teacher's")
    table = [column for column in zip(head, *rows, strict=True) if any(column[1:])]
    silent = [f"{pair} tells nothing: {reason}" for pair, reason in numbers.silent.items()]
    silent += [f"{pair} tells nothing of the baseline: {reason}" for pair, reason in numbers.silent_baseline.items()]
    silent = [fill(line, WIDTH, subsequent_indent="  ") for line in silent]
    gained = _gained(numbers)
    return "\n".join([aligned(list(zip(*table, strict=True))), *gained, *silent] if rows else silent)


def gate_lines(numbers: Numbers) -> Iterator[str]:
    """What each gate is worth, for a terminal; nothing where there are no gates."""
    if not numbers.gates:
        return
    head = ("network", "alpha = 1 in", "Dice", "change", "95 % interval", "alpha", "its std", "its r")
    rows = [
        (
            row["network"],
            {NONE: "no gate", ALL: "all gates"}.get(row["opened"], row["opened"]),
            "" if row["dice"] is None else f"{row['dice']:.4f}",
            "" if row["change"] is None else f"{row['change']:+.4f}",
            "" if row["low"] is None else f"{row['low']:+.4f} to {row['high']:+.4f}",
            *("" if row[column] is None else f"{row[column]:.3f}" for column in ("alpha_mean", "alpha_std", "alpha_r")),
        )
        for row in numbers.gates
    ]
    yield f"what each gate is worth: Dice over {numbers.gates[0]['n']} images, with its coefficients alpha set to 1"
    yield aligned([head, *rows])


def _gained(numbers: Numbers) -> Iterator[str]:
    for pair, networks in numbers.summary.items():
        found = networks.get(STUDENT, {}).get(NEARER)
        if found is None:
            continue
        each = nearer(numbers.maps, pair, STUDENT, BASELINE)
        between = "" if found.low is None else f" ({found.low:+.3f} to {found.high:+.3f})"
        ahead = f"nearer on {sum(gain > 0 for gain in each)} of {len(each)} images"
        yield f"{pair}: baseline's distance less the student's {found.mean:+.3f}{between}, {ahead}"


def _cells(figures: Mapping[str, Interval], teacher: Mapping[str, Interval]) -> Sequence[str]:
    distance = figures.get("distance")
    area = figures.get("area") if distance is None else None
    between = "" if distance is None or distance.low is None else f"{distance.low:.3f} to {distance.high:.3f}"
    means = [_mean(figures.get(figure)) for figure in SHOWN]
    return _mean(area), _mean(distance), between, *means, _mean(teacher.get("box_ratio"))


def _mean(found: Interval | None) -> str:
    return "" if found is None else f"{found.mean:.3f}" if abs(found.mean) < 10 else f"{found.mean:.1f}"


def _csv(columns: Sequence[str], rows: Iterable[Mapping[str, Any]]) -> str:
    return csv_text([columns, *([row.get(column) for column in columns] for row in rows)])
