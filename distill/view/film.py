"""How attention moved over the epochs of a training run: a film of the maps."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image, ImageColor

from distill.attention.geometry import Lattice, resample
from distill.progress import progress
from distill.view.boxes import PALETTE, Area, corners, styles
from distill.view.canvas import GREY, Page, backdrop, number, resized
from distill.view.exhibit import TRUTH, Exhibit, Network, Row, Sample
from distill.view.outlines import draw_masks
from distill.view.scale import DIFFERENCES, MAPS, TITLES, RowScale, Scale, as_mode, difference, lut, scales

IMAGES = 2  # side by side; more would make a film nobody loads
PANEL = 150  # pixels, the longer side of a panel
MARGIN, GAP, APART, TOP, HEADING, SIDE = 14, 6, 22, 50, 20, 250
LINE = 15
PACE, LAST = 700, 2500  # milliseconds that a frame, and the last one, stay
SHADES = 80  # of each colour map, among a film's 256 colours; besides those of classes, the rest are greys
FIGURES = {"distance": "distance", "alpha_mean": "mean", "alpha_r": "r"}  # beside a row, by column
GATES = "gates as they are, from 0 to 1"


def save_film(exhibits: Sequence[Exhibit], epochs: Sequence[int], path: Path, mode: str = "shared") -> None:
    """An animated GIF with a frame per epoch: for up to two images and every pair teacher, student and difference.

    `exhibits` are one per epoch, of the same images. One scale per pair serves all frames. Raises ValueError without
    exhibits or images, or for another number of epochs.
    """
    palette = _palette()
    drawn = progress(film(exhibits, epochs, mode), "frames of the film", len(exhibits))
    plain = [Image.fromarray(_pixels(one)) for one in drawn]
    frames = [one.quantize(palette=palette, dither=Image.Dither.NONE) for one in plain]
    times = [PACE] * (len(frames) - 1) + [LAST]
    frames[0].save(path, save_all=True, append_images=frames[1:], duration=times, loop=0)


def film(exhibits: Sequence[Exhibit], epochs: Sequence[int], mode: str = "shared") -> Iterator[Figure]:
    """The frames of the film; see `save_film`."""
    if not exhibits or not exhibits[0].samples:
        raise ValueError("a film needs at least one epoch and one image")
    common = scales(exhibits, as_mode(mode))
    names = [sample.name for sample in exhibits[0].samples[:IMAGES]]
    for exhibit, epoch in zip(exhibits, epochs, strict=True):
        samples = tuple(sample for sample in exhibit.samples if sample.name in names)
        kinds = {row.kind for row in exhibit.rows}
        parts = [f"scale {TITLES[as_mode(mode)]}"] * ("energy" in kinds) + [GATES] * ("gate" in kinds)
        heading = "; ".join(parts)
        yield _Frame(exhibit, samples, common).draw(f"epoch {epoch}", heading)


@dataclass(frozen=True)
class _Frame:
    exhibit: Exhibit
    samples: tuple[Sample, ...]
    common: Mapping[str, RowScale]

    @property
    def networks(self) -> tuple[Network, ...]:
        """Those that are shown: the reference, if there is one, and the first of the others."""
        reference = self.exhibit.reference
        return (reference, *self.exhibit.others[:1]) if reference else self.exhibit.others[:1]

    @property
    def size(self) -> tuple[int, int]:
        """(rows, columns) of a panel: that of the largest picture."""
        shapes = [np.array(sample.picture.shape[:2]) for sample in self.samples]
        rows, columns = np.max([shape * PANEL / shape.max() for shape in shapes], axis=0)
        return max(round(rows), 5 * LINE), max(round(columns), 5 * LINE)

    def x(self, image: int, column: int) -> int:
        count = 2 * len(self.networks) - 1
        return MARGIN + image * (count * (self.size[1] + GAP) + APART) + column * (self.size[1] + GAP)

    def y(self, row: int) -> int:
        """Of a pair's heading; row -1 is that of the pictures."""
        return TOP + (row + 1) * (self.size[0] + HEADING + GAP)

    def draw(self, title: str, heading: str) -> Figure:
        side = self.x(len(self.samples), 0)
        page = Page(side + SIDE + MARGIN, self.y(len(self.exhibit.rows)) + MARGIN // 2)
        end = page.text(MARGIN, 8, title, 13, weight="bold")
        page.text(end + 14, 12, self.exhibit.title, 9, side + SIDE - end - 14, color=GREY)
        page.text(MARGIN, 29, heading, 8.5, side + SIDE - MARGIN, color=GREY)
        for image, sample in enumerate(self.samples):
            self._picture(page, image, sample)
            for index, row in enumerate(self.exhibit.rows):
                self._maps(page, image, sample, index, row)
        self._scores(page, side, self.y(-1))
        for index, row in enumerate(self.exhibit.rows):
            self._side(page, side, self.y(index), row)
        return page.figure

    def _picture(self, page: Page, image: int, sample: Sample) -> None:
        """The picture, with what the network that learns predicts where that is a mask."""
        x, y = self.x(image, 0), self.y(-1) + HEADING
        page.text(x, self.y(-1) + 2, sample.name, 8.5, self.x(image + 1, 0) - x - GAP, weight="bold")
        self._panel(page, x, y, sample, backdrop(resized(sample.picture, self._inner(sample))), self.networks[-1].key)

    def _maps(self, page: Page, image: int, sample: Sample, index: int, row: Row) -> None:
        """The panels of one pair and image; a panel is its heading, its values, where they lie, and their scale."""
        scale = self.common[row.name]
        panels: list[tuple[int, str, np.ndarray, Lattice, Scale]] = []
        for column, network in enumerate(self.networks):
            if network.key in row.sides:
                shown = scale.shown(sample.maps[row.name][network.key])
                lattice = sample.lattice(row, network.key)
                panels.append((column, f"{row.name} {network.key}", shown, lattice, scale.of(shown)))
        if scale.difference and len(panels) > 1:
            theirs, mine = self.networks
            values, lattice = difference(row, sample, mine.key, theirs.key, scale.mode)
            panels.append((len(panels), f"{mine.key} − {theirs.key}", values, lattice, scale.difference))
        for column, heading, values, lattice, one in panels:
            x, y = self.x(image, column), self.y(index)
            page.text(x, y + 3, heading, 8.5, self.size[1])
            colours = one.paint(resample(values, lattice, sample.frame, self._inner(sample)))
            self._panel(page, x, y + HEADING, sample, colours)

    def _panel(self, page: Page, x: int, y: int, sample: Sample, pixels: np.ndarray, predicted: str = "") -> None:
        """Pixels, and on them the labels' outlines: what lies where must be seen without the picture."""
        page.picture(x, y, pixels)
        factor = pixels.shape[1] / sample.picture.shape[1]
        for thing in sample.labels or ():
            page.outline(np.array(corners(thing)) * factor + np.array((x, y)), "white", width=0.7)
        panel = Area(x, y, pixels.shape[1], pixels.shape[0])
        draw_masks(page, panel, self.exhibit, sample, predicted or TRUTH, styles(self.exhibit), thin=not predicted)

    def _inner(self, sample: Sample) -> tuple[int, int]:
        """The size at which a sample's picture fits the panel."""
        height, width = sample.picture.shape[:2]
        factor = min(self.size[0] / height, self.size[1] / width)
        return max(1, round(height * factor)), max(1, round(width * factor))

    def _scores(self, page: Page, x: int, y: int) -> None:
        """What outlines mean, and how well they fit, where objects are masks."""
        if not self.exhibit.classes:
            return
        found = {sample.figured: sample.dice for sample in self.samples}
        key = self.networks[-1].key
        means = {name: np.mean(list(dice[key].values())) for name, dice in found.items() if key in dice}
        lines = ["dashed: the truth; coloured: predicted"]
        lines += [f"Dice {mean:.3f}, {name}" for name, mean in means.items()]
        count = len({sample.figured for sample in self.exhibit.samples})
        lines.append(f"below: means over {count}; r: with the truth")
        page.text(x, y + 2, key, 9, SIDE, weight="bold")
        for index, line in enumerate(lines):
            page.text(x, y + HEADING + index * LINE, line, 8.5, SIDE)

    def _side(self, page: Page, x: int, y: int, row: Row) -> None:
        scale, key = self.common[row.name], self.networks[-1].key
        figures = self.exhibit.numbers.summary.get(row.name, {}).get(key, {})
        known = {words: figures[name] for name, words in FIGURES.items() if name in figures}
        told = [f"{words} {number(one.mean)}" for words, one in known.items()]
        if known and not self.exhibit.classes:  # or else the count stands at the top
            told.append(f"{next(iter(known.values())).n} images")
        page.text(x, y + 3, row.name, 9, SIDE, weight="bold")
        page.text(x, y + HEADING, ", ".join(told), 8.5, SIDE)
        y += HEADING + LINE + 4
        for one in filter(None, (scale.maps, scale.difference)):
            page.bar(x, y, SIDE, one)
            y += 31


def _pixels(figure: Figure) -> np.ndarray:
    """The drawn figure, (height, width, 3) uint8."""
    figure.canvas.draw()
    return np.asarray(figure.canvas.buffer_rgba())[..., :3]  # type: ignore[attr-defined]


def _palette() -> Image.Image:
    """Its colours: both colour maps, classes, greys. It is fixed, so that a colour means the same in every frame."""
    steps = np.linspace(0, 255, SHADES).round().astype(int)
    greys = np.linspace(0, 255, 256 - 2 * SHADES - len(PALETTE)).round().astype(np.uint8)
    classes = np.array([ImageColor.getrgb(colour) for colour in PALETTE], np.uint8)
    colours = np.concatenate([lut(MAPS)[steps], lut(DIFFERENCES)[steps], classes, np.repeat(greys[:, None], 3, axis=1)])
    image = Image.new("P", (1, 1))
    image.putpalette(colours.tobytes())
    return image
