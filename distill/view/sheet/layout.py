"""Where things lie on a sheet, in pixels."""

from __future__ import annotations

import math
from dataclasses import dataclass

from distill.view.exhibit import Exhibit, Sample
from distill.view.sheet.table import lines

MARGIN, GAP = 16, 16
HEAD, STRIP, BETWEEN = 76, 36, 16  # the sheet's title; the captions over the predictions; the space under a row
TITLE, CAPTION, FOOT = 22, 34, 34  # of a row: its own line, the panels' two lines, the colour bar and its label
SMALLEST, LARGEST = 180, 340  # of the longer side of a panel's picture
BUDGET = 1.1e6  # pixels of all panels together, at about a byte each in the file; panels shrink to keep to it
COLUMN = 240  # at least, for a column holds its panel's caption too
FIGURES = 375
LINE = 15


@dataclass(frozen=True)
class Layout:
    """A sheet's measures: pictures of `size` (rows, columns), in columns of one width, in rows of one height."""

    size: tuple[int, int]
    column: int
    columns: int
    row: int

    @classmethod
    def of(cls, exhibit: Exhibit, sample: Sample) -> Layout:
        """As many columns as networks and differences, and one for the labels where there are no differences."""
        count = len(exhibit.networks)
        columns = max(count + 1, 2 * count - 1 if exhibit.reference else 0)
        height, width = sample.picture.shape[:2]
        fair = math.sqrt(BUDGET / (columns * (len(exhibit.rows) + 1)) / (width * height))
        factor = min(max(fair, SMALLEST / max(height, width)), LARGEST / max(height, width))
        size = max(1, round(height * factor)), max(1, round(width * factor))
        text = TITLE + LINE * max((len(lines(exhibit, sample, row)) for row in exhibit.rows), default=0)
        return cls(size, max(size[1], COLUMN), columns, max(TITLE + CAPTION + size[0] + FOOT, text) + BETWEEN)

    def x(self, column: int) -> int:
        """Where a column begins; that behind the last panel holds the figures."""
        return MARGIN + column * (self.column + GAP)

    def y(self, row: int) -> int:
        """Where a row begins; row 0 is the first pair, behind the predictions."""
        return HEAD + STRIP + max(self.size[0], 8 * LINE) + BETWEEN + row * self.row

    @property
    def width(self) -> int:
        """Of the sheet."""
        return self.x(self.columns) + FIGURES + MARGIN
