"""One image on one page: what the networks see and find, layer by layer, with the figures beside the pictures."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from distill.attention.objects import Object
from distill.progress import progress
from distill.view.boxes import Area, Style, draw, styles
from distill.view.canvas import DPI, GREY, WARNING, Page, backdrop, resized, wrapped
from distill.view.exhibit import TRUTH, Exhibit, Network, Sample
from distill.view.outlines import draw_masks
from distill.view.scale import TITLES, Mode, RowScale, as_mode, scales
from distill.view.sheet.band import Band
from distill.view.sheet.grid import Cell, Grid, by_level, place
from distill.view.sheet.layout import BETWEEN, HEAD, LINE, MARGIN, STRIP, Layout

RULE = "#d0d0d0"
NOTED = 8.5  # points: the size of the lines below
NOTE = "Maps cover the grey picture at {opacity}.{bare} Values beyond the ends of a colour bar take its end colours."
CONTROLS = (
    "Distances and cosines are to the teacher's map of this image; others: to its maps of other images (mean); "
    "flat, untrained: those of a map that is everywhere alike, and of a student that was never trained."
)
MASKS = (
    "White dashed outlines are the truth, coloured ones what a network predicts. Figures of a volume are of all of it."
)


def sheet(exhibit: Exhibit, sample: Sample, mode: str = "shared", opacity: float = 0.6) -> Figure:
    """The page of one image: predictions and labels at the top, then a row per pair: maps, differences, figures.

    `opacity` (0 to 1) is that of the maps on the grey picture. The scales are those of the whole exhibit, so the
    sheets of all its images compare. Raises InputError for a mode that is not among `scale.MODES`.
    """
    chosen = as_mode(mode)
    return _Sheet(exhibit, sample, chosen, scales([exhibit], chosen), styles(exhibit), opacity).draw()


def save_sheet(exhibit: Exhibit, sample: Sample, path: Path, mode: str = "shared", opacity: float = 0.6) -> None:
    """The page of one image as a PNG; for all images `save_sheets` is faster, as it finds the scales once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sheet(exhibit, sample, mode, opacity).savefig(path, dpi=DPI)


def save_sheets(exhibit: Exhibit, folder: Path, mode: str = "shared", opacity: float = 0.6) -> list[Path]:
    """A PNG for each image in `folder` (made if need be), named after the sample. Progress goes to standard error."""
    folder.mkdir(parents=True, exist_ok=True)
    chosen = as_mode(mode)
    common, look = scales([exhibit], chosen), styles(exhibit)
    paths = []
    for sample in progress(exhibit.samples, "sheets", len(exhibit.samples)):
        paths.append(folder / f"{sample.name}.png")
        _Sheet(exhibit, sample, chosen, common, look, opacity).draw().savefig(paths[-1], dpi=DPI)
    return paths


@dataclass(frozen=True)
class _Sheet:
    exhibit: Exhibit
    sample: Sample
    mode: Mode
    scales: Mapping[str, RowScale]
    look: Mapping[str, Style]
    opacity: float

    def draw(self) -> Figure:
        layout = (Grid if by_level(self.exhibit) else Layout).of(self.exhibit, self.sample)
        bottom = layout.y(len(layout.levels) if isinstance(layout, Grid) else len(self.exhibit.rows))
        bare = " Gates are drawn without it." if any(row.kind == "gate" for row in self.exhibit.rows) else ""
        notes = [NOTE.format(opacity=f"{self.opacity:.0%}", bare=bare), *([CONTROLS] if self.exhibit.reference else [])]
        notes += [MASKS] if self.exhibit.classes else []
        silent = [f"{pair} tells nothing: {why}." for pair, why in self.exhibit.numbers.silent.items()]
        foot = [
            (line, colour)
            for colour, words in ((WARNING, silent), (GREY, notes))
            for note in words
            for line in wrapped(note, layout.width - 2 * MARGIN, NOTED)
        ]
        page = Page(layout.width, bottom + len(foot) * LINE + 8)
        picture = resized(self.sample.picture, layout.size)
        self._head(page, layout)
        for column, network in enumerate((*self.exhibit.networks, None)):
            self._found(page, layout, column, network, picture)
        self._legend(page, layout)
        under = backdrop(picture)
        for index, row in enumerate(self.exhibit.rows):
            scale = self.scales[row.name]
            common = page, self.exhibit, self.sample, row, scale, layout
            if isinstance(layout, Grid):
                level, name = place(row)
                for network in (one for one in self.exhibit.networks if one.key in row.sides):
                    top = layout.y(layout.levels.index((level, network.key)))
                    Cell(*common, top, under, self.opacity, layout.names.index(name), network).draw()
            else:
                Band(*common, layout.y(index), under, self.opacity).draw()
        for index in range(len(layout.levels) if isinstance(layout, Grid) else len(self.exhibit.rows)):
            page.fill(MARGIN, layout.y(index) - 7, layout.width - 2 * MARGIN, 1, RULE)
        for index, (line, colour) in enumerate(foot):
            page.text(MARGIN, bottom + index * LINE, line, NOTED, color=colour)
        return page.figure

    def _head(self, page: Page, layout: Layout) -> None:
        right = layout.width - MARGIN
        end = page.text(MARGIN, 8, self.sample.name, 13, layout.width * 0.4, weight="bold")
        page.text(end + 12, 13, "/".join(Path(self.sample.file).parts[-2:]), 9, right - end - 12, color=GREY)
        page.text(MARGIN, 32, self.exhibit.title, 9, right - MARGIN)
        page.text(MARGIN, 50, f"Scale {TITLES[self.mode]}", 9, right - MARGIN, weight="bold")

    def _things(self, network: Network | None) -> tuple[Object, ...] | None:
        return self.sample.predictions.get(network.key, ()) if network else self.sample.labels

    def _found(self, page: Page, layout: Layout, column: int, network: Network | None, picture: np.ndarray) -> None:
        """What a network predicts, above the column of its maps; the labels (no network) beside the networks."""
        things = self._things(network)
        panel = Area(layout.x(column), HEAD + STRIP, layout.size[1], layout.size[0])
        page.picture(panel.x, panel.y, picture, f"picture {network.key if network else 'labels'}")
        hidden = draw(page, panel, things or (), layout.size[1] / self.sample.picture.shape[1], self.look)
        draw_masks(page, panel, self.exhibit, self.sample, network.key if network else TRUTH, self.look)
        title = f"{network.key}: {network.title}" if network else "truth" if self.exhibit.classes else "labels"
        page.text(panel.x, HEAD, title, 9, layout.column, weight="bold")
        page.text(panel.x, HEAD + LINE + 1, self._words(network, things, hidden), 8.5, layout.column, color=GREY)

    def _words(self, network: Network | None, things: tuple[Object, ...] | None, hidden: int) -> str:
        if network and network.key in self.sample.verdicts:
            return self.sample.verdicts[network.key]
        if self.exhibit.classes:
            known = (network.key if network else TRUTH) in self.sample.masks
            return "" if known else "not known for this image"
        if things is None:
            return "none known for this image"
        noun = "prediction" if network else "object"
        words = f"{len(things)} {noun}{'' if len(things) == 1 else 's'}"
        return f"{words}, {hidden} too close for a caption" if hidden else words

    def _legend(self, page: Page, layout: Layout) -> None:
        """The classes in the image with their counts, or of masks with their Dice, as many as there is room for."""
        groups = [(TRUTH, self._things(None)), *((n.key, self._things(n)) for n in self.exhibit.networks)]
        names = sorted({thing.name for _, things in groups for thing in things or ()})
        names = [*self.exhibit.classes[1:], *names]
        if not names:
            return
        x = layout.x(len(groups))  # behind the labels
        page.text(x, HEAD, "Dice" if self.exhibit.classes else "classes", 9, weight="bold")
        edges = [layout.width - MARGIN - 60 * (len(groups) - i - 1) for i in range(len(groups))]
        for (group, _), edge in zip(groups, edges, strict=True):
            page.text(
                edge, HEAD, "area here" if self.exhibit.classes and group == TRUTH else group, 8, ha="right", color=GREY
            )
        room = (layout.y(0) - BETWEEN - HEAD) // LINE - 1
        shown = names if len(names) <= room else names[: room - 1]
        for index, name in enumerate(shown, 1):
            y = HEAD + 3 + index * LINE
            colour, dashes = self.look[name]
            page.outline(np.array([(x, y + 3), (x + 16, y + 3), (x + 16, y + 12), (x, y + 12)]), colour, dashes)
            page.text(x + 24, y, name, 8.5, edges[0] - 40 - x - 24)
            for (group, things), edge in zip(groups, edges, strict=True):
                page.text(edge, y, self._count(group, things, name), 8.5, ha="right")
        if more := len(names) - len(shown):
            page.text(x, HEAD + 3 + (len(shown) + 1) * LINE, f"and {more} classes more", 8.5, color=GREY)

    def _count(self, group: str, things: tuple[Object, ...] | None, name: str) -> str:
        """How many objects of a class a group has; of masks the Dice, or the class's share of the shown area."""
        if not self.exhibit.classes:
            return "?" if things is None else str(sum(thing.name == name for thing in things))
        if group == TRUTH:
            number = self.exhibit.classes.index(name)
            return f"{(self.sample.masks[TRUTH] == number).mean():.1%}" if TRUTH in self.sample.masks else "?"
        dice = self.sample.dice.get(group, {}).get(name)
        return "?" if dice is None else f"{dice:.3f}"
