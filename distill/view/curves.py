"""Curves over the epochs of a training run: how far the maps are apart, how much of them lies on the objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, MaxNLocator

from distill.view.canvas import DPI, FONT, GREY, WARNING, fit
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Interval

COLOURS = {TEACHER: "black", STUDENT: "#0072B2", BASELINE: "#D55E00"}  # Okabe and Ito's, apart for all eyes
PANEL = (2.5, 2.3)  # inches
SIZE = 8.5  # points
CHANCE = 1.0  # the ratio of a map that ignores the objects
TITLES = {"distance": "distance to the teacher", "box_ratio": "energy in boxes / their area"}


def save_curves(exhibits: Sequence[Exhibit], epochs: Sequence[int], path: Path) -> None:
    """The curves as a PNG; see `curves`."""
    curves(exhibits, epochs).savefig(path, dpi=DPI)


def curves(exhibits: Sequence[Exhibit], epochs: Sequence[int]) -> Figure:
    """A column per pair. Above: the mean distance of the maps to the teacher's against the epoch, and that to the
    teacher's maps of other images (shuffled), which a pair must stay below to mean anything. Below: how much more of
    the maps' energy lies in the objects' boxes than their area explains, for every network.

    `exhibits` are one per epoch. Bands are the 95 % intervals over images. A figure that an epoch does not have leaves
    a gap. Raises ValueError without exhibits, or for another number of epochs.
    """
    if not exhibits or len(exhibits) != len(epochs):
        raise ValueError(f"{len(exhibits)} exhibits cannot be drawn against {len(epochs)} epochs")
    names = [row.name for row in exhibits[-1].rows]
    height, width = PANEL[1] * 2 + 0.9, PANEL[0] * max(len(names), 2) + 0.7
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for column, name in enumerate(names):
        for row, what in enumerate(TITLES):
            _panel(grid[row, column], exhibits, epochs, name, what)
        title = fit(name, PANEL[0] * DPI * 0.85, 10, weight="bold")
        grid[0, column].set_title(title, family=FONT, weight="bold", size=10, parse_math=False)
        grid[1, column].set_xlabel("epoch", size=SIZE)
        if name in exhibits[-1].numbers.silent:
            grid[0, column].text(0.5, 0.03, "tells nothing (see report)", size=8, color=WARNING, ha="center",
                                 transform=grid[0, column].transAxes)  # fmt: skip
    for row, title in enumerate(TITLES.values()):
        grid[row, 0].set_ylabel(title, size=SIZE)
        grid[row, 0].set_ylim(bottom=0)  # last: a limit that is set follows the curves no more, in no panel of the row
    _legend(figure, grid)
    return figure


def _panel(axes: Axes, exhibits: Sequence[Exhibit], epochs: Sequence[int], pair: str, what: str) -> None:
    for key, colour in COLOURS.items():
        _curve(axes, epochs, _figures(exhibits, pair, key, what), key, colour, "--" if key == TEACHER else "-")
    if what == "distance":
        shuffled = _figures(exhibits, pair, STUDENT, "shuffled_distance")
        _curve(axes, epochs, shuffled, "student to the teacher on other images", GREY, ":")
    else:
        axes.axhline(CHANCE, color=GREY, linewidth=0.8, label="a map blind to the objects")
    axes.tick_params(labelsize=8)
    axes.xaxis.set_major_locator(FixedLocator(epochs) if len(epochs) < 7 else MaxNLocator(integer=True, nbins=6))
    axes.spines[["top", "right"]].set_visible(False)


def _figures(exhibits: Sequence[Exhibit], pair: str, key: str, what: str) -> list[Interval | None]:
    return [one.numbers.summary.get(pair, {}).get(key, {}).get(what) for one in exhibits]


def _curve(
    axes: Axes, epochs: Sequence[int], found: Sequence[Interval | None], label: str, colour: str, dash: str
) -> None:
    if not any(found):
        return
    mean, low, high = (
        np.array([np.nan if one is None or getattr(one, part) is None else getattr(one, part) for one in found])
        for part in ("mean", "low", "high")
    )
    axes.plot(epochs, mean, dash, color=colour, label=label, linewidth=1.6, marker="o", markersize=3)
    axes.fill_between(epochs, low, high, color=colour, alpha=0.15, linewidth=0)


def _legend(figure: Figure, grid: np.ndarray) -> None:
    """One for all panels, below them."""
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_legend_handles_labels()[0]}
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=SIZE, frameon=False)
