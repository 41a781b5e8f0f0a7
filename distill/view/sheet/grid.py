"""U-Nets without a teacher: per level a line for each network, with the skip, its gate, what passes, the decoder."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass

from distill.view.canvas import GREY, MONO
from distill.view.exhibit import Exhibit, Network, Row, Sample
from distill.view.sheet.band import Band
from distill.view.sheet.layout import (
    BETWEEN,
    CAPTION,
    COLUMN,
    FOOT,
    GAP,
    LARGEST,
    LINE,
    MARGIN,
    SMALLEST,
    TITLE,
    Layout,
)
from distill.view.sheet.table import lines_of

BUDGET = 1.1e6  # pixels of all panels together
ORDER = "EGXD"
NOBODY = Network("", "")
ROLE = re.compile(rf"([{ORDER}])(\d+)(\.\d+)?")


def place(row: Row) -> tuple[int, str]:
    """The level and the column of a row; ("G", head) are columns of their own for each head of a gate."""
    found = ROLE.fullmatch(row.name)
    assert found
    return int(found[2]), found[1] + (found[3] or "")


def by_level(exhibit: Exhibit) -> bool:
    """Are these U-Nets that are compared with none, and their rows named by level?"""
    rows = exhibit.rows
    return bool(exhibit.classes) and exhibit.reference is None and all(ROLE.fullmatch(row.name) for row in rows)


@dataclass(frozen=True)
class Grid(Layout):
    """Columns for letters, rows for levels and networks; no column of figures, which stand below each panel."""

    names: tuple[str, ...] = ()
    levels: tuple[tuple[int, str], ...] = ()

    @classmethod
    def of(cls, exhibit: Exhibit, sample: Sample) -> Grid:
        places = [place(row) for row in exhibit.rows]
        names = tuple(sorted({name for _, name in places}, key=lambda name: (ORDER.index(name[0]), name)))
        height, width = sample.picture.shape[:2]
        count = sum(len(row.sides) for row in exhibit.rows) + len(exhibit.networks) + 1
        fair = math.sqrt(BUDGET / count / (width * height))
        factor = min(max(fair, SMALLEST / max(height, width)), LARGEST / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        blocks = [lines_of(exhibit, sample, row, one) for row in exhibit.rows for one in exhibit.networks]
        text = max(map(len, blocks), default=0) * LINE
        row = TITLE + CAPTION + size[0] + FOOT + text + BETWEEN
        found = sorted({level for level, _ in places})
        levels = tuple((level, network.key) for level in found for network in exhibit.networks)
        columns = max(len(exhibit.networks) + 2, len(names))  # predictions, truth and legend stand above
        return cls(size, max(size[1], COLUMN), columns, row, names, levels)

    @property
    def width(self) -> int:
        return self.x(self.columns) - GAP + MARGIN


@dataclass(frozen=True)
class Cell(Band):
    """One layer in its place of the grid: name, map, colour bar, figures."""

    column: int = 0
    network: Network = NOBODY

    def draw(self) -> None:
        network, x, width = self.network, self.layout.x(self.column), self.layout.column
        end = self.page.text(x, self.top, self.row.name, 11, weight="bold")
        self.page.text(end + 8, self.top + 1, network.key, 10, color=GREY)
        self.page.text(x, self.top + TITLE - 3, self.row.about, 8.5, width, weight="bold")
        self.page.text(x, self.top + TITLE + LINE, self._facts(network), 8.5, width, color=GREY)
        self._bar(self.column, self._laid(self.column, network))
        below = self._y + self.layout.size[0] + 6 + 2 * LINE
        for index, line in enumerate(lines_of(self.exhibit, self.sample, self.row, network)[1:]):
            self.page.text(x, below + index * LINE, line, 8, width, family=MONO)
