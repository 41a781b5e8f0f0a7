"""Matrices that compare every layer of one network with every layer of another, as one picture."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.colors import Normalize
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

CELL = 0.32  # inches; smaller where a matrix would be wider than `WIDEST`
WIDEST = 8.0
READABLE = 0.24  # inches of a cell from which two digits fit
BAR, TOP, LEFT, BOTTOM = 0.85, 0.85, 0.6, 0.85  # inches beside the cells, without names
LETTER = 0.075  # inches of a letter of a name
LEAST_WIDTH = 4.2  # inches of a matrix that its title fits over
LINE = 0.16  # inches of a further line of the caption
OUTLINE = ((3.6, "white"), (1.9, "black"))  # seen on dark cells and on light ones
UNKNOWN = "0.75"


@dataclass(frozen=True)
class Matrix:
    """Numbers (rows, columns), NaN where there is none, drawn in `colours` from `low` to `high`."""

    title: str
    values: np.ndarray
    low: float = 0.0
    high: float = 1.0
    colours: str = "viridis"


def matrix_figure(
    matrices: Sequence[Matrix],
    rows: Sequence[str],
    columns: Sequence[str],
    axes: tuple[str, str] = ("teacher", "student"),
    outlined: Collection[tuple[int, int]] = (),
    title: str = "",
    caption: str = "",
) -> Figure:
    """The matrices side by side, all of (len(rows), len(columns)).

    `outlined` cells (row, column) get a frame; `axes` say what rows and columns are. Every cell shows its number where
    cells are large enough. Save the figure with `savefig`.
    """
    cell = min(CELL, WIDEST / max(len(rows), len(columns)))
    tall, wide = cell * len(rows), cell * len(columns)
    beside, bottom = (LETTER * max(map(len, names)) for names in (rows, columns))
    beside, bottom = beside + LEFT, bottom + BOTTOM + LINE * caption.count("\n")
    step = max(wide, LEAST_WIDTH) + BAR
    width, height = beside + step * len(matrices), TOP + tall + bottom
    figure = Figure(figsize=(width, height), dpi=130)
    for number, matrix in enumerate(matrices):
        left = (beside + number * step) / width
        place = figure.add_axes((left, bottom / height, wide / width, tall / height))
        bar = figure.add_axes((left + (wide + 0.12) / width, bottom / height, 0.13 / width, tall / height))
        _draw(place, bar, matrix, rows, columns, cell)
        place.set_xlabel(axes[1], labelpad=6)
        if number:
            place.set_yticklabels([])  # as beside the first
        else:
            place.set_ylabel(axes[0], labelpad=6)
        for row, column in outlined:
            for line, colour in OUTLINE:
                place.add_patch(
                    Rectangle((column - 0.5, row - 0.5), 1, 1, fill=False, lw=line, ec=colour, zorder=3, clip_on=False)
                )
    figure.text(0.15 / width, 1 - 0.22 / height, title, fontsize=11, weight="bold", va="top")
    figure.text(0.15 / width, 0.12 / height, caption, fontsize=8.5, va="bottom", linespacing=1.4)
    return figure


def _draw(place: Any, bar: Any, matrix: Matrix, rows: Sequence[str], columns: Sequence[str], cell: float) -> None:
    norm = Normalize(matrix.low, matrix.high, clip=True)
    place.set_facecolor(UNKNOWN)
    image = place.imshow(np.ma.masked_invalid(matrix.values), cmap=matrix.colours, norm=norm, aspect="auto")
    size = min(8.0, 0.7 * 72 * cell)
    place.set_xticks(range(len(columns)), columns, rotation=90, fontsize=size)
    place.set_yticks(range(len(rows)), rows, fontsize=size)
    place.tick_params(length=2)
    place.set_title(matrix.title, fontsize=10, loc="left")
    colours = bar.figure.colorbar(image, cax=bar)
    colours.ax.tick_params(labelsize=8)
    if cell < READABLE:
        return
    for (row, column), value in np.ndenumerate(matrix.values):
        if np.isfinite(value):
            ink = "black" if _light(image.cmap(norm(value))) else "white"
            place.text(column, row, _short(value), ha="center", va="center", fontsize=6.5, color=ink)


def _light(colour: Sequence[float]) -> bool:
    """Is black the better ink on this colour? Luminance after ITU-R BT.601."""
    red, green, blue = colour[:3]
    return 0.299 * red + 0.587 * green + 0.114 * blue > 0.5


def _short(value: float) -> str:
    """Two digits: .41, -.03, 1.0."""
    text = f"{value:.2f}"
    if abs(float(text)) >= 1:
        return f"{value:.1f}"
    return text.replace("0.", ".", 1).replace("-.00", ".00")
