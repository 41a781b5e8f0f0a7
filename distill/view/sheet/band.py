"""One pair of layers on a sheet: each network's map on the picture, the differences, the bars and the figures."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from distill.attention.geometry import Lattice, resample
from distill.view.boxes import Area
from distill.view.canvas import GREY, MONO, WARNING, Page, blend, number
from distill.view.exhibit import TRUTH, Exhibit, Network, Row, Sample
from distill.view.outlines import draw_masks
from distill.view.scale import RowScale, Scale, difference
from distill.view.sheet.layout import CAPTION, FIGURES, LINE, MARGIN, TITLE, Layout
from distill.view.sheet.table import lines

EMPTY = "#f0f0f0"


@dataclass(frozen=True)
class Band:
    """A row of a sheet that begins at `top`; `under` is the picture on which the maps are laid with this opacity."""

    page: Page
    exhibit: Exhibit
    sample: Sample
    row: Row
    scale: RowScale
    layout: Layout
    top: int
    under: np.ndarray
    opacity: float

    def draw(self) -> None:
        """Everything of the row."""
        self._title()
        networks = self.exhibit.networks
        for column, network in enumerate(networks):
            self._map(column, network)
        if reference := self.exhibit.reference:
            for column, network in enumerate(self.exhibit.others, len(networks)):
                self._difference(column, network, reference)
        elif len(networks) == 1:
            self._alone(1, networks[0])
        self._figures()

    def _title(self) -> None:
        end = self.page.text(MARGIN, self.top, self.row.name, 11, 200, weight="bold")
        if self.row.about:
            end = self.page.text(end + 10, self.top + 1, self.row.about, 10)
        kind = f"energy, p = {self.row.p:g}" if self.row.kind == "energy" else "gate coefficients, 0 to 1 in every mode"
        end = self.page.text(end + 10, self.top + 2, kind, 9, color=GREY)
        if self.row.name in self.exhibit.numbers.silent:  # the reason is at the foot, where it may take lines
            room = self.layout.width - MARGIN - end - 18
            words = f"Warning: {self.row.name} tells nothing (see below)"
            self.page.text(end + 18, self.top + 2, words, 9, room, color=WARNING, weight="bold")

    def _map(self, column: int, network: Network) -> None:
        if network.key not in self.row.sides:
            self._caption(column, network.key, "")
            self._nothing(column, f"it has no {self.row.name}")
            return
        side = self.row.sides[network.key]
        self._caption(column, f"{network.key}: {side.layer} {side.type}", self._facts(network))
        scale = self._laid(column, network)
        first = next(n for n, other in enumerate(self.exhibit.networks) if other.key in self.row.sides)
        if column == first or not scale.comparable:
            self._bar(column, scale)

    def _facts(self, network: Network) -> str:
        side, values = self.row.sides[network.key], self._values(network)
        stride = "×".join(dict.fromkeys(f"{one:.4g}" for one in side.lattice.stride))
        channels = f"{side.channels} channel{'' if side.channels == 1 else 's'}"
        return f"{channels}, {values.shape[0]}×{values.shape[1]} cells, stride {stride}"

    def _laid(self, column: int, network: Network) -> Scale:
        """The network's map on the picture; the scale that it is drawn in."""
        values = self._values(network)
        shown = self.scale.shown(values)
        scale = self.scale.of(shown)
        self._panel(column, self._drawn(shown, self.sample.lattice(self.row, network.key), scale), network.key)
        if values.min() == values.max():  # nothing to be seen: say that this is no fault of the picture
            words = f"{number(float(values.max()))} everywhere"
            self.page.text(self.layout.x(column) + 8, self._y + 8, words, 9, color="white", weight="bold")
        return scale

    def _alone(self, column: int, network: Network) -> None:
        """The map without the picture, in the very colours of the bar."""
        shown = self.scale.shown(self._values(network))
        colours = self._drawn(shown, self.sample.lattice(self.row, network.key), self.scale.of(shown))
        self._caption(column, "the same map alone", "without the picture under it")
        self.page.picture(self.layout.x(column), self._y, colours, f"{self.row.name} alone")

    def _difference(self, column: int, network: Network, reference: Network) -> None:
        title = f"{network.key} − {reference.key}"
        missing = [key for key in (network.key, reference.key) if key not in self.row.sides]
        if missing or not self.scale.difference:
            self._caption(column, title, "")
            self._nothing(column, f"no {self.row.name} in the {missing[0]}" if missing else "none: scales of their own")
            return
        values, lattice = difference(self.row, self.sample, network.key, reference.key, self.scale.mode)
        self._caption(column, title, f"red: {network.key} more; blue: less")
        self._panel(column, self._drawn(values, lattice, self.scale.difference), title)
        if column == len(self.exhibit.networks):
            self._bar(column, self.scale.difference)

    def _nothing(self, column: int, words: str) -> None:
        height, width = self.layout.size
        self.page.fill(self.layout.x(column), self._y, width, height, EMPTY)
        self.page.text(self.layout.x(column) + 8, self._y + height / 2 - 8, words, 8.5, width - 8, color=GREY)

    def _figures(self) -> None:
        x, y = self.layout.x(self.layout.columns), self.top + TITLE
        for index, line in enumerate(lines(self.exhibit, self.sample, self.row)):
            self.page.text(x, y + index * LINE, line, 8, FIGURES, family=MONO)

    def _values(self, network: Network) -> np.ndarray:
        return self.sample.maps[self.row.name][network.key]

    def _drawn(self, values: np.ndarray, lattice: Lattice, scale: Scale) -> np.ndarray:
        return scale.paint(resample(values, lattice, self.sample.frame, self.layout.size))

    @property
    def _y(self) -> int:
        return self.top + TITLE + CAPTION

    def _caption(self, column: int, title: str, facts: str) -> None:
        x, width = self.layout.x(column), self.layout.column
        self.page.text(x, self.top + TITLE, title, 8.5, width, weight="bold")
        self.page.text(x, self.top + TITLE + LINE, facts, 8.5, width, color=GREY)

    def _panel(self, column: int, colours: np.ndarray, name: str) -> None:
        bare = self.row.kind == "gate"  # one colour is one value, as the bar says
        mixed = blend(self.under, colours, 1.0 if bare else self.opacity)
        self.page.picture(self.layout.x(column), self._y, mixed, f"{self.row.name} {name}")
        panel = Area(self.layout.x(column), self._y, self.layout.size[1], self.layout.size[0])
        draw_masks(self.page, panel, self.exhibit, self.sample, TRUTH, {}, thin=True)

    def _bar(self, column: int, scale: Scale) -> None:
        self.page.bar(self.layout.x(column), self._y + self.layout.size[0] + 6, self.layout.column, scale)
