"""Curves over the epochs of a training run: how far the maps are apart, how they lie on the objects."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Patch
from matplotlib.ticker import FixedLocator, MaxNLocator

from distill.view.canvas import DPI, FONT, GREY, WARNING, fit
from distill.view.exhibit import BASELINE, STUDENT, TEACHER, Exhibit, Interval

COLOURS = {TEACHER: "black", STUDENT: "#0072B2", BASELINE: "#D55E00"}  # Okabe and Ito's, apart for all eyes
PANEL = (2.5, 2.3)  # inches
SIZE = 8.5  # points
BAND, OPACITY = "95 % interval of the mean", 0.15
TICKS = 10  # labels that the axis of epochs has room for
TITLES = {  # the figures that are drawn, of those that are known
    "distance": "distance to the teacher",
    "box_ratio": "energy in boxes / their area",
    "foreground_ratio": "in the foreground / its area",
    "alpha_mean": "mean alpha",
    "alpha_r": "alpha's r with the foreground",
}
CHANCE = {"box_ratio": 1.0, "foreground_ratio": 1.0, "alpha_r": 0.0}  # of a map that ignores the objects
SPANS = {"alpha_mean": (0.0, 1.0)}  # what an axis shows; otherwise what is there, from 0


def save_curves(exhibits: Sequence[Exhibit], epochs: Sequence[int], path: Path) -> None:
    """The curves as a PNG; see `curves`."""
    curves(exhibits, epochs).savefig(path, dpi=DPI)


def curves(exhibits: Sequence[Exhibit], epochs: Sequence[int]) -> Figure:
    """A column per pair, and in it a panel for each figure that is known, against the epoch: the mean distance of the
    maps to the teacher's, and that to the teacher's maps of other images (shuffled), which a pair must stay below to
    mean anything; how much more of the maps' energy lies in the objects' boxes, or in the foreground, than their area
    explains, for every network; of gates the mean of alpha, and its correlation with the foreground.

    `exhibits` are one per epoch. Bands are the 95 % intervals over images. A figure that an epoch does not have leaves
    a gap. Raises ValueError without exhibits, or for another number of epochs.
    """
    if not exhibits or len(exhibits) != len(epochs):
        raise ValueError(f"{len(exhibits)} exhibits cannot be drawn against {len(epochs)} epochs")
    names = [row.name for row in exhibits[-1].rows]
    shown = _shown(exhibits, names)
    height, width = PANEL[1] * len(shown) + 0.9, PANEL[0] * max(len(names), 2) + 0.7
    figure = Figure(figsize=(width, height), dpi=DPI, facecolor="white", layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(shown), len(names), sharex=True, squeeze=False)
    for column, name in enumerate(names):
        for row, what in enumerate(shown):
            _panel(grid[row, column], exhibits, epochs, name, what)
        title = fit(name, PANEL[0] * DPI * 0.85, 10, weight="bold")
        grid[0, column].set_title(title, family=FONT, weight="bold", size=10, parse_math=False)
        if name in exhibits[-1].numbers.silent:
            grid[0, column].text(0.5, 0.03, "tells nothing (see report)", size=8, color=WARNING, ha="center",
                                 transform=grid[0, column].transAxes)  # fmt: skip
    gates = [row.kind == "gate" for row in exhibits[-1].rows]
    for row, what in enumerate(shown):
        grid[row, 0].set_ylabel(TITLES[what], size=SIZE)
        alone = [axes for axes, gate in zip(grid[row], gates, strict=True) if gate and what == "distance"]
        together = [axes for axes in grid[row] if axes not in alone]  # a gate's distance grows with its grid
        for group in (*([axes] for axes in alone), *([together] if together else [])):
            _limit(group, what)
    _trim(grid)
    _legend(figure, grid)
    return figure


def _shown(exhibits: Sequence[Exhibit], names: Sequence[str]) -> list[str]:
    """The figures that some network has at some epoch; the first two where there is none."""
    networks = [network for one in exhibits for name in names for network in one.numbers.summary.get(name, {}).values()]
    return [what for what in TITLES if any(what in found for found in networks)] or list(TITLES)[:2]


def _trim(grid: np.ndarray) -> None:
    """Panels without a curve are left out where another panel of the column has one; the lowest names the axis."""
    for column in grid.T:
        drawn = [axes for axes in column if axes.collections]
        for axes in column:
            axes.set_visible(axes in drawn or not drawn)
        lowest = (drawn or list(column))[-1]
        lowest.set_xlabel("epoch", size=SIZE)
        lowest.tick_params(labelbottom=True)


def _limit(group: Sequence[Axes], what: str) -> None:
    """One range for these panels, in which all their curves lie; its numbers stand at the first."""
    drawn = [axes for axes in group if axes.collections] or group  # a curve has a band
    lows, highs = zip(*(axes.get_ylim() for axes in drawn), strict=True)
    chance = CHANCE.get(what)
    if what in SPANS:
        limits = SPANS[what]
    elif chance == 0:  # a correlation has either sign
        limits = min(*lows, -0.1), max(*highs, 0.1)
    else:
        limits = 0.0, max(*highs, 1.2 * (chance or 0))
    for axes in group:
        axes.set_ylim(*limits)
        axes.tick_params(labelleft=axes is group[0])


def _panel(axes: Axes, exhibits: Sequence[Exhibit], epochs: Sequence[int], pair: str, what: str) -> None:
    for key, colour in COLOURS.items():
        _curve(axes, epochs, _figures(exhibits, pair, key, what), key, colour, "--" if key == TEACHER else "-")
    if what == "distance":
        shuffled = _figures(exhibits, pair, STUDENT, "shuffled_distance")
        _curve(axes, epochs, shuffled, "student to the teacher on other images", GREY, ":")
    if what in CHANCE:
        axes.axhline(CHANCE[what], color=GREY, linewidth=0.8, label="a map blind to the objects")
    axes.tick_params(labelsize=8)
    few = FixedLocator(labelled_epochs(epochs))
    axes.xaxis.set_major_locator(few if len(epochs) < 7 else MaxNLocator(integer=True, nbins=6))
    axes.spines[["top", "right"]].set_visible(False)


def labelled_epochs(epochs: Sequence[int]) -> list[int]:
    """The epochs, from the last one back, that lie far enough apart for their labels not to touch."""
    room = (max(epochs) - min(epochs)) / TICKS
    labelled = [max(epochs)]
    for epoch in sorted(epochs, reverse=True):
        if labelled[-1] - epoch > room:
            labelled.append(epoch)
    return sorted(labelled)


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
    name = BAND if np.isfinite(low).any() else None  # one image has no interval
    axes.fill_between(epochs, low, high, color=colour, alpha=OPACITY, linewidth=0, label=name)


def _legend(figure: Figure, grid: np.ndarray) -> None:
    """One for all panels, below them."""
    lines = {line.get_label(): line for axes in grid.flat for line in axes.get_legend_handles_labels()[0]}
    if lines.pop(BAND, None):
        lines[BAND] = Patch(color=GREY, alpha=OPACITY, linewidth=0)  # whatever the colour of its curve
    if lines:
        figure.legend(lines.values(), lines.keys(), loc="outside lower center", ncols=4, fontsize=SIZE, frameon=False)
