"""What a training run's table of epochs says: losses, Dice and IoU against the epoch."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from distill.view.canvas import DPI, FONT, GREY, INK, fit, measure

Table = Mapping[str, Sequence[float]]

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")  # Okabe and Ito's, apart for all eyes
PANEL = (2.6, 2.6)  # inches, without the labels of its lines
SIZE = 8.5  # points
LINE = 0.072  # of a panel's height, what a label takes
LABEL = 105  # pixels, the widest label
FEW = 15  # epochs up to which each has its dot
TASK = {"train/task": "training", "val/loss": "validation"}
SCORES = {"val/dice": "Dice", "val/iou": "IoU"}
ATTENTION = "train/at_"


def save_learning(table: Table, path: Path, title: str = "", reached: int | None = None) -> Path:
    """The curves as a PNG, written whole or not at all; the path is returned. See `learning`."""
    figure = learning(table, title, reached)
    aside = path.with_name(f".{path.stem}.{os.getpid()}.png")
    try:
        figure.savefig(aside, dpi=DPI)
        os.replace(aside, path)
    finally:
        aside.unlink(missing_ok=True)  # there only if something failed
    return path


def learning(table: Table, title: str = "", reached: int | None = None) -> Figure:
    """A panel each for the task's loss, the attention losses if there are some, Dice and IoU (mean and classes).

    `table` has `epoch` and columns of the same length by their names in results.csv; a value that does not exist is
    NaN and leaves a gap. `reached` is the epoch that a line marks: the first whose Dice is 95 % of the last one's.
    Raises ValueError for a table without epochs.
    """
    if not table.get("epoch"):
        raise ValueError("a table without epochs has no curves")
    panels = _panels(table)
    width = sum(PANEL[0] + max(min(measure(name, SIZE), LABEL) for name in lines) / DPI for lines in panels.values())
    figure = Figure(figsize=(width, PANEL[1] + 0.3 * bool(title)), dpi=DPI, facecolor="white")
    figure.set_layout_engine("constrained", wspace=0.04)
    FigureCanvasAgg(figure)
    for axes, (heading, lines) in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels.items(), strict=True):
        _panel(axes, heading, table["epoch"], lines, reached)
    if title:
        shown = fit(title, width * DPI * 0.9, 10, weight="bold")
        figure.suptitle(shown, x=0.01, ha="left", family=FONT, weight="bold", size=10, parse_math=False)
    return figure


def _panels(table: Table) -> dict[str, dict[str, Sequence[float]]]:
    """The lines of each panel, by its heading; the first of a score is its mean."""
    found = {"loss of the task": {name: table[column] for column, name in TASK.items() if column in table}}
    attention = {c.removeprefix("train/"): values for c, values in table.items() if c.startswith(ATTENTION)}
    found["weighted attention losses"] = attention
    for column, heading in SCORES.items():
        classes = {c.removeprefix(f"{column}/"): v for c, v in table.items() if c.startswith(f"{column}/")}
        found[heading] = {"mean": table[column], **(classes if len(classes) > 1 else {})} if column in table else {}
    return {heading: lines for heading, lines in found.items() if lines}


def _panel(
    axes: Axes, heading: str, epochs: Sequence[float], lines: Mapping[str, Sequence[float]], reached: int | None
) -> None:
    axes.set_title(heading, family=FONT, weight="bold", size=9.5, loc="left")
    axes.set_xlabel("epoch", size=SIZE)
    axes.tick_params(labelsize=8)
    axes.spines[["top", "right"]].set_visible(False)
    axes.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) < 7 else MaxNLocator(integer=True, nbins=5))
    axes.yaxis.set_major_locator(MaxNLocator(nbins=5))
    score = heading in SCORES.values()
    ends = [_curve(axes, epochs, values, *style) for values, style in zip(lines.values(), _styles(lines), strict=True)]
    highest = max((value for values in lines.values() for value in values if math.isfinite(value)), default=0.0)
    axes.set_ylim(0, 1 if score else 1.05 * highest or 1)
    if reached is not None:
        axes.axvline(reached, color=GREY, linewidth=1, linestyle="--", zorder=1)
    if reached is not None and heading == SCORES["val/dice"]:
        _mark(axes, lines["mean"], reached)
    _labels(axes, _told({name: end for name, end in zip(lines, ends, strict=True) if end}))


def _styles(lines: Mapping[str, Sequence[float]]) -> list[tuple[str, float]]:
    """Colour and width of each line. A mean is black; where there are more others than colours, they are grey."""
    mean = [(INK, 2.2)] if "mean" in lines else []
    others = len(lines) - len(mean)
    if others > len(COLOURS):
        return [*mean, *[("#9a9a9a", 0.9)] * others]
    return [*mean, *[(colour, 1.6) for colour in COLOURS[:others]]]


def _curve(
    axes: Axes, epochs: Sequence[float], values: Sequence[float], colour: str, width: float
) -> tuple[float, str] | None:
    """Draw it; its last known value and its colour, None for a line without any."""
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return None
    marker = "o" if len(epochs) <= FEW else ""
    axes.plot(epochs, np.array(values, float), color=colour, linewidth=width, marker=marker, markersize=3)
    return known[-1], colour


def _mark(axes: Axes, mean: Sequence[float], reached: int) -> None:
    """The level, 95 % of the last value, and which epoch reaches it, in words above the panel: no curve runs there."""
    axes.axhline(0.95 * mean[-1], color=GREY, linewidth=0.8, linestyle=":", zorder=1)
    axes.set_title(f"95 % of the end: epoch {reached}", family=FONT, size=8, color=GREY, loc="right")


def _told(ends: dict[str, tuple[float, str]]) -> dict[str, tuple[float, str]]:
    """The lines that get a label: all; or where they are too many, the mean, the highest and the lowest."""
    if len(ends) <= len(COLOURS) + 1:
        return ends
    ordered = sorted((name for name in ends if name != "mean"), key=lambda name: ends[name][0])
    return {name: ends[name] for name in ends if name in ("mean", ordered[0], ordered[-1])}


def _labels(axes: Axes, ends: Mapping[str, tuple[float, str]]) -> None:
    """Names beside the ends of the lines, moved apart where they would overlap."""
    low, high = axes.get_ylim()
    names = sorted(ends, key=lambda name: ends[name][0])
    places = _apart([(ends[name][0] - low) / (high - low) for name in names])
    for name, place in zip(names, places, strict=True):
        shown = fit(name, LABEL, SIZE)
        axes.annotate(shown, (1, place), (5, 0), xycoords="axes fraction", textcoords="offset points", va="center",
                      size=SIZE, color=ends[name][1], family=FONT, parse_math=False, annotation_clip=False)  # fmt: skip


def _apart(places: Sequence[float]) -> list[float]:
    """Ascending places in [0, 1], moved as little as is needed for `LINE` between neighbours, and kept inside."""
    groups: list[list[float]] = []  # of places that touch, each spread evenly about its mean
    for place in places:
        groups.append([place])
        while len(groups) > 1 and _span(groups[-2])[1] + LINE > _span(groups[-1])[0]:
            groups[-2:] = [groups[-2] + groups[-1]]
    return [_span(group)[0] + i * LINE for group in groups for i in range(len(group))]


def _span(group: Sequence[float]) -> tuple[float, float]:
    """The first and last place of a group once it is spread."""
    length = (len(group) - 1) * LINE
    low = min(max(sum(group) / len(group) - length / 2, 0.0), max(0.0, 1 - length))
    return low, low + length
